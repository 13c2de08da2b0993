"""The CSMs: BLIP-2's token path against transformers' own, ASEA against a plain loop, what is cached."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flawsmith.errors import BackboneError
from flawsmith.nn.methods.asea import ASEA, FeatureMemory, features, pooled, share
from flawsmith.nn.methods.csm import CSM, BuiltinCSM, load_csm

TEXTS = ["a photo of a crack", "a photo of a dark hole on steel", "a photo of a crack"]


@pytest.fixture(scope="module")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A small random BLIP-2 of transformers' own classes, and the folder that it was saved to."""
    from transformers import BertTokenizer, Blip2Config, Blip2ForImageTextRetrieval

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("blip2")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a photo of crack dark hole on steel".split()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    vision = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    former = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = Blip2Config(
        vision_config={**vision, "image_size": 56, "patch_size": 14},
        qformer_config={
            **former,
            "vocab_size": len(words),
            "encoder_hidden_size": 24,
            "max_position_embeddings": 16,
            "use_qformer_text_input": True,
        },
        num_query_tokens=6,
        image_text_hidden_size=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Blip2ForImageTextRetrieval(config)
        for parameter in model.parameters():  # as drawn, attention is flat and norms are 1: anything would agree
            torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def csm(blip2: tuple[Any, Path]) -> CSM:
    return load_csm(str(blip2[1]))


def pictures(side: int = 56) -> tuple[Tensor, Tensor]:
    """Three pictures; masks: a hairline, a block, and none."""
    rng = torch.Generator().manual_seed(3)
    image = torch.rand(3, 3, side, side, generator=rng) * 2 - 1
    mask = torch.zeros(3, 1, side, side)
    mask[0, :, 5:45, 20] = 1
    mask[1, :, 30:50, 30:50] = 1
    return image, mask


def test_the_token_path_is_transformers_own(blip2: tuple[Any, Path], csm: CSM) -> None:
    """The image-text matching head, fed with our queries, says what transformers' own forward pass says."""
    from transformers import BertTokenizer

    model, folder = blip2
    image, _ = pictures()
    coded = BertTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    with torch.no_grad():
        theirs = model(
            pixel_values=((image + 1) / 2 - mean) / std,
            input_ids=coded.input_ids,
            attention_mask=coded.attention_mask,
            use_image_text_matching_head=True,
        ).logits_per_image
        queries, attention = csm.query_picture(csm.tokens(image), csm.phrases(TEXTS))
        ours = model.itm_head(queries).mean(1)
    assert queries.shape == (3, 6, 32) and attention.shape == (3, 16) and csm.grid == 4
    assert torch.allclose(ours, theirs, atol=1e-5)
    # The class token has a share of the attention, which is left out: what remains is less than all of it.
    assert bool((attention.sum(1) < 1).all()) and float(attention.min()) >= 0
    other = csm.query_picture(csm.tokens(image), csm.phrases([TEXTS[1], TEXTS[0], TEXTS[2]]))[0]
    assert not torch.allclose(other[0], queries[0], atol=1e-3), "the words do not reach the queries"


def test_asea_moves_the_attention_onto_the_damage(csm: CSM) -> None:
    image, mask = pictures()
    stream = torch.get_rng_state()
    plain, moved = (features(csm, image, TEXTS, mask, ASEA(steps=steps)) for steps in (0, 5))
    assert torch.equal(moved.before, plain.after)
    assert bool((moved.after[:2] > moved.before[:2] + 0.01).all())
    assert bool(torch.isfinite(moved.queries).all())
    assert torch.equal(moved.queries[2], plain.queries[2]), "an empty mask: the feature without ASEA"
    nothing = features(csm, image, TEXTS, torch.zeros_like(mask), ASEA())
    assert torch.equal(nothing.queries, plain.queries)
    assert torch.equal(torch.get_rng_state(), stream)
    assert moved.vector.shape == (3, 32) and not moved.vector.requires_grad


def test_asea_is_adam_on_the_papers_loss(csm: CSM) -> None:
    """Written out for one picture, with Adam's formulas, from the paper's constants."""
    image, mask = pictures()
    image, mask, text = image[1:2], mask[1:2], TEXTS[1:2]
    words, tokens = csm.phrases(text), csm.tokens(image)
    where = pooled(mask, csm.grid).flatten(1)
    prompt, first, second = (torch.zeros_like(tokens) for _ in range(3))
    for step in range(1, 6):
        prompt = prompt.detach().requires_grad_(True)
        paid = csm.query_picture(tokens + prompt, words)[1]
        (gradient,) = torch.autograd.grad((1 - (paid * where).sum() / paid.sum()) ** 2, prompt)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        prompt = prompt.detach() - 0.1 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    expected = csm.query_picture(tokens + prompt, words)[0].mean(1)
    assert torch.allclose(features(csm, image, text, mask, ASEA()).vector, expected, atol=1e-4)


def test_parity_reads_before_the_last_update(csm: CSM) -> None:
    image, mask = pictures()
    early = features(csm, image, TEXTS, mask, ASEA(steps=5, parity=True))
    assert torch.equal(early.queries, features(csm, image, TEXTS, mask, ASEA(steps=4)).queries)
    assert not torch.equal(early.queries, features(csm, image, TEXTS, mask, ASEA(steps=5)).queries)


def test_a_hairline_does_not_vanish() -> None:
    mask = torch.zeros(1, 1, 224, 224)
    mask[0, 0, 30:200, 101] = 1
    assert float(torch.nn.functional.interpolate(mask, (16, 16), mode="nearest").sum()) == 0, "as nearest pixel would"
    where = pooled(mask, 16)
    assert float(where.max()) == 1 and bool((where[0, 3:14, 7] > 0.2).all())
    assert float(pooled(torch.zeros(1, 1, 64, 64), 16).abs().max()) == 0
    assert torch.allclose(share(torch.full((1, 256), 1 / 256), where), where.mean((1, 2)))


def test_each_reference_is_read_once(csm: CSM, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = pictures()
    calls: list[int] = []
    look = csm.tokens
    monkeypatch.setattr(csm, "tokens", lambda x: (calls.append(len(x)), look(x))[1])
    once = FeatureMemory(csm)
    first = once.vectors(image, TEXTS, mask, ASEA())
    assert calls == [1, 1, 1] and torch.equal(once.vectors(image, TEXTS, mask, ASEA()), first) and len(calls) == 3
    assert torch.equal(once.vectors(image[1:2], TEXTS[1:2], mask[1:2], ASEA())[0], first[1]), "company does not matter"
    for changed in (
        (image[:1] * 0.9, TEXTS[:1], mask[:1], ASEA()),
        (image[:1], TEXTS[1:2], mask[:1], ASEA()),
        (image[:1], TEXTS[:1], mask[1:2], ASEA()),
        (image[:1], TEXTS[:1], mask[:1], ASEA(steps=2)),
    ):
        before = len(calls)
        once.vectors(*changed)
        assert len(calls) == before + 1, "the old feature was used for a new question"


@pytest.mark.parametrize("source", ["no/such/folder", "Salesforce/blip2-itm-vit-g"])
def test_no_csm_there(source: str) -> None:
    with pytest.raises(BackboneError, match="no such folder, and asking a hub is off"):
        load_csm(source)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_csm(str(tmp_path))
    (tmp_path / "reader.json").write_text("{}")
    with pytest.raises(BackboneError, match="holds no CSM"):
        load_csm(str(tmp_path))


def test_a_blip2_that_takes_no_words_is_refused(blip2: tuple[Any, Path]) -> None:
    from types import SimpleNamespace

    from flawsmith.nn.methods.csm import Blip2CSM

    deaf = SimpleNamespace(config=SimpleNamespace(qformer_config=SimpleNamespace(use_qformer_text_input=False)))
    with pytest.raises(BackboneError, match="takes no words"):
        Blip2CSM(deaf, None)


def test_the_builtin_csm_survives_saving(backbone: Any, tmp_path: Path) -> None:
    """Whatever the text encoder's width: this one is 32 wide."""
    made = BuiltinCSM(
        backbone.text_encoder.models[0], backbone.text_encoder.tokenizers[0], width=32, layers=2, queries=4
    )
    made.save(tmp_path)
    one, two = (BuiltinCSM.load(tmp_path).eval() for _ in range(2))
    assert one.fingerprint == two.fingerprint and len(one.fingerprint) == 12
    image, mask = pictures(64)
    first, second = (features(r, image, TEXTS, mask, ASEA()) for r in (one, two))
    assert torch.equal(first.queries, second.queries) and first.queries.shape == (3, 4, 32)
    assert not [name for name, _ in one.named_parameters() if "network" in name], "the extractor is not the CSM's"


def test_padding_is_not_read(backbone: Any) -> None:
    csm = BuiltinCSM(
        backbone.text_encoder.models[0], backbone.text_encoder.tokenizers[0], width=32, layers=2, queries=4
    )
    _, mask = csm.states(["crack", "a photo of a crack"])
    assert mask[0].sum() == 3 and mask[1].sum() == 7, "start, words and one end"


def test_the_shipped_csm_is_there() -> None:
    csm = load_csm()
    assert isinstance(csm, BuiltinCSM) and csm.width == 128 and csm is load_csm()
    assert not any(parameter.requires_grad for parameter in csm.parameters())
    image, mask = pictures(64)
    moved = features(csm, image, TEXTS, mask, ASEA())
    assert bool((moved.after[:2] > moved.before[:2]).all()) and bool(torch.isfinite(moved.queries).all())


def test_the_words_of_any_script_are_read_to_their_end(backbone: Any) -> None:
    """What the tokenizer does not know has the number of an end: a phrase went on behind the first of these, unread."""
    encoder = backbone.text_encoder
    csm = BuiltinCSM(encoder.models[0], encoder.tokenizers[0], width=32, layers=2, queries=4)
    states, mask = csm.states(["긁힘 crack", "찍힘 crack", "hole (crack) dent", "crack"])
    for row, words in enumerate(("긁힘 crack", "찍힘 crack")):
        last = encoder.positions(words, "crack")[-1]
        assert mask[row].sum() == last + 2, "start, all words and one end"
    assert not torch.allclose(states[0, 1], states[1, 1])
    assert mask[2].sum() == encoder.positions("hole (crack) dent", "dent")[-1] + 2 and mask[3].sum() == 3


def test_the_extractor_follows_the_pictures(backbone: Any) -> None:
    """It is none of the CSM's networks, so what parks the CSM on the host leaves it behind."""
    encoder = backbone.text_encoder
    csm = BuiltinCSM(copy.deepcopy(encoder.models[0]), encoder.tokenizers[0], width=32, layers=2, queries=4)
    image, _ = pictures(64)
    csm.cells(image)
    csm.to("meta")
    csm.cells(image.to("meta"))
    assert {weight.device.type for weight in csm._extractor[0].buffers()} == {"meta"}
