"""anomaly_diffusion: learned words stand where the mark was, the mask becomes words, and attention is re-weighted."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flawsmith import registry
from flawsmith.config import load_config, validate
from flawsmith.errors import ConfigError, FlawsmithError
from flawsmith.nn.anomaly_diffusion.location import SIDE, LocationEncoder, shrunk
from flawsmith.nn.anomaly_diffusion.reweighting import Reweighting, weight_map
from flawsmith.nn.anomaly_diffusion.words import REACH, AppearanceWords, marked, read_with
from flawsmith.nn.trainer import Trainer
from flawsmith.run.folder import Run
from flawsmith.synthesis import train as training
from flawsmith.testing import example_batch, example_condition
from flawsmith.testing.generators import example_crops
from flawsmith.types import Crop

AnomalyDiffusion = registry.get("generators", "anomaly_diffusion")


def learned(backbone: Any, **settings: Any) -> Any:
    """Return an untrained generator that has been told its types."""
    generator = AnomalyDiffusion(backbone, AnomalyDiffusion.Settings(**settings))
    generator.learn(example_crops(backbone.size))
    return generator


# ---- re-weighting --------------------------------------------------------------------------------


def literal_map(implied: np.ndarray, normal: np.ndarray, mask: np.ndarray, largest: float) -> np.ndarray:
    """The paper's formula place by place in float64, with the cap and the unit that the module's text names."""
    out = np.ones_like(mask)
    places = [tuple(at) for at in np.argwhere(mask > 0)]
    distance = {at: sum((c[at] - d[at]) ** 2 for c, d in zip(implied, normal, strict=True)) for at in places}
    mean = sum(distance.values()) / len(places)
    raised = {at: np.exp(1 / max(value / mean, 1e-3)) for at, value in distance.items()}
    for at in places:
        out[at] = min(max(len(places) * raised[at] / sum(raised.values()), 1.0), largest)
    return out


def test_the_weight_map_is_the_papers() -> None:
    rng = np.random.default_rng(4)
    implied, normal = rng.normal(size=(2, 2, 3, 5, 6))
    mask = np.zeros((2, 5, 6))
    mask[0, 1:4, 2:5], mask[1, 2, :3] = 1, 1
    tensors = [torch.tensor(x, dtype=torch.float32) for x in (implied, normal, mask[:, None])]
    for largest in (1.5, 4.0):
        drawn = weight_map(*tensors, largest)
        wanted = np.stack([literal_map(*row, largest) for row in zip(implied, normal, mask, strict=True)])
        assert np.allclose(drawn[:, 0].numpy(), wanted, atol=1e-5)
        assert drawn.max() > 1.2, "some place is heard more"
    assert torch.equal(weight_map(*tensors, 1.0), torch.ones(2, 1, 5, 6))
    none = weight_map(tensors[0], tensors[1], torch.zeros(2, 1, 5, 6), 1.5)
    assert torch.equal(none, torch.ones(2, 1, 5, 6)), "a row without a mask"


def test_where_least_shows_most_is_heard() -> None:
    normal, mask = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    implied = torch.tensor([[[[0.2, 1.0], [1.0, 1.0]]]])
    weights = weight_map(implied, normal, mask, 3.0)
    assert weights[0, 0, 0, 0] == 3.0 and torch.equal(weights.flatten()[1:], torch.ones(3))


def test_attention_takes_that_much_from_the_words(backbone: Any) -> None:
    """A layer by hand: softmax(QK'/sqrt(d)) times the weight of the place, times V; the map is averaged to its grid."""
    unet = backbone.fork().unet
    reweighting = Reweighting(unet)
    crossing = [m for m in unet.modules() if getattr(m, "is_cross_attention", False)]
    layer, rng = crossing[0], torch.Generator().manual_seed(2)
    hidden = torch.randn(2, 16, layer.to_q.in_features, generator=rng)
    context = torch.randn(2, 5, layer.to_k.in_features, generator=rng)
    weights = 1 + torch.rand(2, 1, 8, 8, generator=rng)
    by_hand = torch.empty(2, 16, layer.to_v.out_features)
    grid = weights.view(2, 4, 2, 4, 2).mean((2, 4)).reshape(2, 16)
    width = layer.to_q.out_features // layer.heads
    with torch.no_grad():
        query, key, value = layer.to_q(hidden), layer.to_k(context), layer.to_v(context)
        for row in range(2):
            for head in range(layer.heads):
                own = slice(head * width, (head + 1) * width)
                scores = query[row][:, own] @ key[row][:, own].T / width**0.5
                by_hand[row, :, own] = (scores.softmax(-1) * grid[row][:, None]) @ value[row][:, own]
        plain = layer(hidden, encoder_hidden_states=context)
        with reweighting.by(weights):
            weighted = layer(hidden, encoder_hidden_states=context)
        assert torch.allclose(weighted, layer.to_out[0](by_hand), atol=1e-5)
        assert torch.equal(layer(hidden, encoder_hidden_states=context), plain), "afterwards all are alike again"
    kept = [name for name in unet.attn_processors if "attn1" in name]
    assert kept and all(type(unet.attn_processors[name]).__name__ == "SmallAttention" for name in kept)


@pytest.mark.parametrize(("compared", "inpaints"), [("latents", True), ("pixels", False)])
def test_reweighting_changes_the_sample(compared: str, inpaints: bool, make_backbone: Any) -> None:
    back = make_backbone(kl=True, inpaints=inpaints, target="epsilon")  # Stable Diffusion 1.5's shape
    assert back.unet.config.in_channels == (9 if inpaints else 4)
    asked = example_condition(back.size, 1)
    off, on = (learned(back, compared=compared, reweighting=cap) for cap in (1.0, 3.0))
    made = [one.sample(asked, [0], steps=2, guidance=2.0) for one in (off, on)]
    assert not torch.equal(made[0].image, made[1].image)
    first = [one.sample(asked, [0], steps=1, guidance=2.0).image for one in (off, on)]
    assert torch.equal(*first), "the first step has no step before it"


# ---- words ---------------------------------------------------------------------------------------


def test_learned_words_are_read_as_words_of_the_vocabulary(sdxl: Any) -> None:
    """Against encoders whose vocabulary has the learned words as entries of its own."""
    encoder = sdxl.text_encoder
    prompts = [marked(encoder, phrase, 3) for phrase in ("a photo of a * crack", "* on a tile")]
    first = torch.tensor([one.first for one in prompts])
    tokens = encoder.tokens([one.text for one in prompts])
    widths = [model.config.hidden_size for model in encoder.models]
    words = torch.randn(2, 3, sum(widths), generator=torch.Generator().manual_seed(1)) * 0.02
    larger, numbers = [], []
    for model, ids, part in zip(encoder.models, tokens.chunk(2, 1), words.split(widths, -1), strict=True):
        other, ids = copy.deepcopy(model), ids.clone()
        table = other.get_input_embeddings()
        size = len(table.weight)
        table.weight = torch.nn.Parameter(torch.cat([table.weight, part.flatten(0, 1)]), requires_grad=False)
        for row, at in enumerate(first.tolist()):
            ids[row, at : at + 3] = size + 3 * row + torch.arange(3)
        larger.append(other)
        numbers.append(ids)
    reference = copy.copy(encoder)
    reference.models = tuple(larger)
    with torch.no_grad():
        wanted, read = reference.read(torch.cat(numbers, 1)), read_with(encoder, tokens, first, words)
        untouched = encoder.read(tokens)
    assert torch.allclose(read.states, wanted.states, atol=1e-6) and torch.allclose(read.pooled, wanted.pooled)
    assert torch.equal(encoder.read(tokens).states, untouched.states), "the encoder is as it was"
    assert not torch.allclose(read.states, untouched.states)


def test_the_mark_is_where_the_words_go(backbone: Any) -> None:
    encoder = backbone.text_encoder
    one = marked(encoder, "a photo of a * crack", 4)
    row = encoder.tokens([one.text])[0].tolist()
    start, filler = (encoder.tokenizers[0](word, add_special_tokens=False).input_ids for word in ("a photo of a", "x"))
    assert len(filler) == 1 and one.first == 1 + len(start)
    assert row[: one.first + 5] == [encoder.tokenizers[0].bos_token_id, *start, *filler * 4, *row[one.first + 4 :][:1]]
    assert encoder.positions(one.text, "crack") == [one.first + 4]
    longer = marked(encoder, "a * " + "discolouration" * 9, 12)
    assert longer.first == 2, "a long name is cut, the learned words are not"
    with pytest.raises(ConfigError, match=r"30 learned words after 'a' do not fit into the 24 tokens"):
        marked(encoder, "a * crack", 30)


@pytest.mark.parametrize(("value", "sentence"), [("a photo", "there are 0"), ("* *", "there are 2"), ("* {x}", "only")])
def test_a_prompt_has_one_mark(value: str, sentence: str) -> None:
    with pytest.raises(FlawsmithError, match=sentence):
        validate(AnomalyDiffusion.Settings, {"prompt": value})


def test_words_start_as_the_types_name_and_move_alone(backbone: Any) -> None:
    encoder = backbone.text_encoder
    words = AppearanceWords(encoder, ["crack", "hole dent"], 3)
    table = encoder.models[0].get_input_embeddings().weight
    numbers = [encoder.tokenizers[0](name, add_special_tokens=False).input_ids for name in ("crack", "hole dent")]
    with torch.no_grad():
        assert torch.equal(words(torch.tensor([0]))[0], table[(numbers[0] * 3)[:3]])
        assert torch.equal(words(torch.tensor([1]))[0], table[(numbers[1] * 3)[:3]])
        words.offset[1] += 0.01
        assert torch.equal(words(torch.tensor([0]))[0], table[(numbers[0] * 3)[:3]])
        moved = words(torch.tensor([1]))[0] - table[(numbers[1] * 3)[:3]]
        assert torch.allclose(moved, (0.01 * REACH * table.std()).expand_as(moved), rtol=1e-3)


# ---- the mask ------------------------------------------------------------------------------------


def test_the_mask_becomes_words(backbone: Any) -> None:
    encoder = LocationEncoder(backbone.text_encoder, 4)
    width = backbone.text_encoder.models[0].config.hidden_size
    masks = torch.zeros(3, 1, 128, 96)
    masks[0, :, 20:50, 5:30], masks[1, :, 20:50, 60:85], masks[2, :, 7, 40] = 1, 1, 1
    small = shrunk(masks)
    assert small.shape == (3, 1, SIDE, SIDE) and set(small.unique().tolist()) == {0.0, 1.0}
    assert all(row.sum() > 0 for row in small), "a pixel does not vanish"
    assert [tuple(one.shape[1:]) for one in encoder.pyramid(small)] == [(32, s, s) for s in (4, 8, 16, 32)]
    with torch.no_grad():
        start = encoder(small)
        assert start.shape == (3, 4, width)
        mean = backbone.text_encoder.models[0].get_input_embeddings().weight.mean(0)
        assert torch.allclose(start, mean.expand_as(start)), "at first no mask says anything"
        for head in encoder.heads:
            torch.nn.init.normal_(head.weight, std=0.05, generator=torch.Generator().manual_seed(1))
        left, right, speck = encoder(small)
    assert not torch.allclose(left, right, atol=1e-3) and not torch.allclose(left, speck, atol=1e-3)


def test_no_location_words(backbone: Any, tmp_path: Path) -> None:
    generator = learned(backbone, location_tokens=0)
    assert list(generator.trainable()) == ["appearance"]
    asked = example_condition(backbone.size, 1)
    generator.save(tmp_path)
    again = AnomalyDiffusion.load(tmp_path, backbone)
    made = [one.sample(asked, [3], steps=2, guidance=1.0).image for one in (generator, again)]
    assert torch.equal(*made)


# ---- the generator -------------------------------------------------------------------------------


def test_the_loss_is_inside_the_mask_alone(backbone: Any) -> None:
    """Against the squared error of damaged cells, from the text that the words give."""
    generator = learned(backbone)
    drawn = generator.draw(generator.encode(example_batch(backbone.size)), torch.Generator().manual_seed(1))
    back = generator.backbone
    with torch.no_grad():
        appearance, location = (generator.trainable()[name] for name in ("appearance", "location"))
        words = torch.cat([appearance(drawn["row"]), location(drawn["mask"].float())], 1)
        text = read_with(back.text_encoder, drawn["tokens"], drawn["first"], words)
        noisy = back.noise.add(drawn["latent"], drawn["noise"], drawn["t"])
        predicted = back.predict(noisy, drawn["t"], text, mask=drawn["cells"], masked=drawn["masked"])
        error = (predicted - back.noise.target_of(drawn["latent"], drawn["noise"], drawn["t"])).square()
        wanted = torch.stack([one[:, cells[0] > 0].mean() for one, cells in zip(error, drawn["cells"], strict=True)])
        assert torch.allclose(generator.loss_of(drawn), wanted, rtol=1e-4)


def test_words_are_a_products_own_or_anothers_of_that_type(backbone: Any) -> None:
    crops = [
        Crop(np.zeros((8, 8, 3), np.float32), np.ones((8, 8), bool), product, defect)
        for product, defect in (("tile", "crack"), ("tile", ""), ("cap", "crack"), ("cap", "dent"))
    ]
    generator = AnomalyDiffusion(backbone, AnomalyDiffusion.Settings())
    generator.learn(iter(crops))
    pairs = [("cap", ""), ("cap", "crack"), ("cap", "dent"), ("tile", ""), ("tile", "crack")]
    assert [generator.row_of(*pair) for pair in pairs] == [0, 1, 2, 3, 4]
    assert generator.row_of("tile", "dent") == 2 and generator.row_of("nut", "") == 0
    with pytest.raises(ConfigError, match="no words for the defect type 'rust'; it knows crack, dent: train"):
        generator.row_of("tile", "rust")


def test_one_types_words_leave_the_others_alone(backbone: Any) -> None:
    generator = AnomalyDiffusion(backbone, AnomalyDiffusion.Settings())
    picture, mask = np.zeros((8, 8, 3), np.float32), np.ones((8, 8), bool)
    generator.learn(Crop(picture, mask, "tile", defect) for defect in ("crack", "hole"))
    asked, crack = example_condition(backbone.size, 1), generator.row_of("tile", "crack")
    before = generator.sample(asked, [1], steps=2, guidance=2.0).image
    with torch.no_grad():
        offset = generator.trainable()["appearance"].offset
        offset[torch.arange(len(offset)) != crack] += 0.01
        assert torch.equal(generator.sample(asked, [1], steps=2, guidance=2.0).image, before)
        offset[crack] += 0.01
    assert not torch.equal(generator.sample(asked, [1], steps=2, guidance=2.0).image, before)


def test_a_stopped_training_goes_on_byte_for_byte(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"generator.name": "anomaly_diffusion", "data.products": ["magnet"], "train.memory": "8GB"}
    told |= {"data.shots": 1, "train.views": 1, "train.batch": 2}
    whole, stopped = (
        Run.create(tmp_path / name, load_config(None, {**small_config, **told})) for name in ("whole", "stopped")
    )
    training.train(whole)
    honest = Trainer.run

    def cut(self: Trainer) -> Iterator[Any]:
        for step in honest(self):
            yield step
            if step.index == 2:  # one step after the checkpoint
                raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", cut)
    with pytest.raises(KeyboardInterrupt):
        training.train(stopped)
    monkeypatch.undo()
    assert list(stopped.path("state").rglob("checkpoint.safetensors"))
    training.train(stopped)
    files = ["appearance.safetensors", "learned.safetensors", "location.safetensors", "losses.json", "settings.json"]
    folders = [run.path("weights", "magnet") for run in (whole, stopped)]
    assert sorted(path.name for path in folders[0].iterdir()) == files
    for name in files:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
