"""nn/text.py: a text is passed on unopened, and Stable Diffusion XL's is given to its networks as diffusers does."""

from __future__ import annotations

import json
import shutil
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, DiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from flawsmith.errors import BackboneError
from flawsmith.nn import backbone as module
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.loading.networks import quiet
from flawsmith.nn.methods.control import control_from_unet
from flawsmith.nn.methods.lora import adapted_text
from flawsmith.nn.methods.sga import SGA, attach, cross_attentions
from flawsmith.nn.prompts import spelled
from flawsmith.nn.text import SdxlText, Text

WORDS = ["a photo of a crack", "a small dent on steel"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pipeline_of(folder: Path, back: Backbone) -> Any:
    """diffusers' own pipeline on the folder's files, whose parts are told to it by class alone."""
    from diffusers import StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline

    plugin = StableDiffusionXLInpaintPipeline if back.inpaints else StableDiffusionXLPipeline
    first, second = back.text_encoder.models
    with quiet():
        return plugin(
            vae=back.vae,
            text_encoder=first,
            text_encoder_2=second,
            tokenizer=back.text_encoder.tokenizers[0],
            tokenizer_2=back.text_encoder.tokenizers[1],
            unet=UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True),
            scheduler=back.noise.schedule,
            force_zeros_for_empty_prompt=True,
        )


def time_ids(pipeline: DiffusionPipeline, size: tuple[int, int], *, inpaints: bool) -> Tensor:
    """Six numbers per row, as the pipeline's own call makes them for a picture of its own size."""
    named: dict[str, Any] = {"dtype": torch.float32, "text_encoder_projection_dim": 40}
    if inpaints:
        named |= {"aesthetic_score": 6.0, "negative_aesthetic_score": 2.5}
        named |= {"negative_original_size": size, "negative_crops_coords_top_left": (0, 0)}
        return pipeline._get_add_time_ids(size, (0, 0), target_size=size, negative_target_size=size, **named)[0]
    return pipeline._get_add_time_ids(size, (0, 0), size, **named)


@pytest.fixture(params=["plain", "inpainting"])
def sdxl_pair(request: pytest.FixtureRequest, sdxl_folders: dict[str, Path]) -> tuple[Backbone, Any, dict[str, Tensor]]:
    folder = sdxl_folders[request.param]
    back = Backbone.load(folder, device="cpu", dtype="float32")
    given = {"mask": torch.ones(2, 1, 8, 12), "masked": normal(2, 4, 8, 12, seed=4)} if back.inpaints else {}
    return back, pipeline_of(folder, back), given


@torch.no_grad()
def test_predict_is_the_pipelines_unet_call(sdxl_pair: tuple[Backbone, Any, dict[str, Tensor]]) -> None:
    back, pipeline, given = sdxl_pair
    latent, t = normal(2, 4, 8, 12), torch.tensor([7, 650])
    states, dropped, pooled, dropped_pooled = pipeline.encode_prompt(prompt=WORDS, device="cpu")
    ids = time_ids(pipeline, (64, 96), inpaints=back.inpaints).repeat(2, 1)
    whole = torch.cat([latent, *given.values()], 1)
    said = {}
    for name, phrases, hidden, vector in (
        ("text", WORDS, states, pooled),
        ("dropped", [None, None], dropped, dropped_pooled),
    ):
        added = {"text_embeds": vector, "time_ids": ids}
        wanted = pipeline.unet(whole, t, encoder_hidden_states=hidden, added_cond_kwargs=added).sample
        found = said[name] = back.predict(latent, t, back.embed(phrases), **given)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert float((said["text"] - said["dropped"]).abs().max()) > 1e-3, "the text does nothing here"
    without = {"text_embeds": torch.zeros_like(pooled), "time_ids": torch.zeros_like(ids)}
    other = pipeline.unet(whole, t, encoder_hidden_states=states, added_cond_kwargs=without).sample
    assert float((said["text"] - other).abs().max()) > 1e-3, "the added conditions do nothing here"


@torch.no_grad()
def test_clip_skip_is_diffusers_own(sdxl_folders: dict[str, Path], make_backbone: Any, tmp_path: Path) -> None:
    skipped = Backbone.load(sdxl_folders["plain"], device="cpu", dtype="float32", clip_skip=1)
    plain = Backbone.load(sdxl_folders["plain"], device="cpu", dtype="float32")
    states, _, pooled, _ = pipeline_of(sdxl_folders["plain"], plain).encode_prompt(prompt=WORDS, clip_skip=1)
    text = skipped.embed(WORDS)
    torch.testing.assert_close(text.states, states, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(text.pooled, pooled, rtol=1e-5, atol=1e-5)
    assert not torch.equal(text.states, plain.embed(WORDS).states)
    assert skipped.fingerprint == f"{plain.fingerprint}-skip1", "a run on other text states is another run"
    make_backbone(kl=True).save(tmp_path, dtype=torch.float32)
    first = Backbone.load(tmp_path, device="cpu", dtype="float32", clip_skip=1)
    # diffusers' own fails with transformers 5 here; an encoder that has no last layer says the same.
    (model,) = first.text_encoder.models
    shorter = CLIPTextModel(CLIPTextConfig(**model.config.to_dict() | {"num_hidden_layers": 1})).eval()
    shorter.load_state_dict(model.state_dict(), strict=False)
    wanted = shorter(first.tokens(WORDS)).last_hidden_state
    torch.testing.assert_close(first.embed(WORDS).states, wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(BackboneError, match=r"backbone\.clip_skip: 2: this text encoder has 2 layers; give less"):
        Backbone.load(tmp_path, device="cpu", dtype="float32", clip_skip=2)


@torch.no_grad()
def test_the_controlnet_is_given_the_same_conditions(sdxl_pair: tuple[Backbone, Any, dict[str, Tensor]]) -> None:
    back, pipeline, given = sdxl_pair
    control = control_from_unet(back.unet, back.latent_channels, back.factor)
    rng = torch.Generator().manual_seed(2)
    for parameter in control.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=rng)
    theirs = ControlNetModel.from_config(control.net.config)
    theirs.load_state_dict(control.net.state_dict())
    latent, t, hint = normal(2, 4, 8, 12), torch.tensor([7, 650]), (normal(2, 3, 64, 96) > 0).float()
    states, _, pooled, _ = pipeline.encode_prompt(prompt=WORDS, device="cpu", do_classifier_free_guidance=False)
    ids = time_ids(pipeline, (64, 96), inpaints=back.inpaints).repeat(2, 1)
    added = {"text_embeds": pooled, "time_ids": ids}
    down, middle = theirs.eval()(latent, t, states, hint, added_cond_kwargs=added, return_dict=False)
    text = back.embed(WORDS)
    found = back.residuals(control, latent, t, text, hint)
    for ours, wanted in zip((*found[0], found[1]), (*down, middle), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    steered = back.predict(latent, t, text, **given, residuals=found)
    assert float((steered - back.predict(latent, t, text, **given)).abs().max()) > 1e-3


def test_every_transformer_layer_attends_to_the_reference(sdxl: Backbone) -> None:
    fork = sdxl.fork()
    sga = SGA(fork.unet, 16, tokens=3, hidden=24)
    attach(sga, fork.unet)
    # Down: levels of 1 and 2 layers, one block each; middle: 2; up, one block more: 2 x 2 and 2 x 1.
    assert len(cross_attentions(fork.unet)) == 1 + 2 + 2 + 2 * 2 + 2 * 1 == len(sga.keys)
    given = {"mask": torch.ones(2, 1, 8, 8), "masked": normal(2, 4, 8, 8)} if sdxl.inpaints else {}
    with sga.conditioned(sga(normal(2, 16, seed=3))):
        fork.predict(normal(2, 4, 8, 8), torch.tensor([3, 500]), sdxl.embed(WORDS), **given).square().mean().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in sga.parameters())


def test_both_text_encoders_get_low_rank_changes(sdxl: Backbone) -> None:
    encoder, changes = adapted_text(sdxl.text_encoder, 2)
    second = [name for name in changes if name.startswith("text_encoder_2_")]
    assert len(second) == len(changes) - len(second) == 3 * 4, "four projections in each of three layers"
    tokens = sdxl.tokens(WORDS)
    with torch.no_grad():
        plain, same = sdxl.text_encoder.read(tokens), encoder.read(tokens)
        assert torch.equal(plain.states, same.states), "changes that are zero change nothing"
        for change in changes.values():
            change.up += 0.3
    text = encoder.read(tokens)
    assert text.pooled is not None and plain.pooled is not None
    for part, before in ((text.states[..., :24], plain.states[..., :24]), (text.pooled, plain.pooled)):
        assert float((part - before).detach().abs().max()) > 1e-3
    (text.states.sum() + text.pooled.square().sum()).backward()
    # The first encoder's last layer lies behind the hidden states that are taken.
    assert sum(change.up.grad is not None for change in changes.values()) == len(changes) - 4


def test_dropped_text_follows_the_folder(sdxl_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(sdxl_folders["plain"], folder)
    (folder / "model_index.json").write_text(json.dumps({"force_zeros_for_empty_prompt": False}))
    zeros, empty = (Backbone.load(place, device="cpu", dtype="float32") for place in (sdxl_folders["plain"], folder))
    assert not zeros.embed([None]).states.any() and zeros.embed([""]).states.any()
    assert torch.equal(empty.embed([None]).states, empty.embed([""]).states)
    assert torch.equal(zeros.read(zeros.tokens([None, "crack"])).states[1], zeros.embed(["crack"]).states[0])


def test_saved_and_loaded_it_is_the_same(sdxl: Backbone, tmp_path: Path) -> None:
    sdxl.save(tmp_path, dtype=torch.float32)
    again = Backbone.load(tmp_path, device="cpu", dtype="float32")
    assert again.fingerprint == sdxl.fingerprint and isinstance(again.text_encoder, SdxlText)
    one, two = again.embed(WORDS), sdxl.embed(WORDS)
    assert torch.equal(again.tokens(WORDS), sdxl.tokens(WORDS))
    # The weights are equal by their fingerprint; where an allocation lies decides how some kernels round.
    torch.testing.assert_close(one.states, two.states)
    torch.testing.assert_close(one.pooled, two.pooled)


def test_a_folder_without_its_second_text_encoder(sdxl_folders: dict[str, Path], tmp_path: Path) -> None:
    for part in sdxl_folders["plain"].iterdir():
        if part.name not in ("text_encoder_2", "tokenizer_2"):
            (tmp_path / part.name).symlink_to(part)
    with pytest.raises(BackboneError, match="text_encoder_2, tokenizer_2 is missing"):
        Backbone.load(tmp_path)


def test_a_unet_with_other_conditions_is_refused(sdxl_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(sdxl_folders["plain"], folder)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True)
    config = {**unet.config, "addition_embed_type": "text", "encoder_hid_dim": 64}
    with quiet():
        UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    with pytest.raises(BackboneError, match="addition_embed_type 'text', which is not supported"):
        Backbone.load(folder)


def test_in_float16_the_autoencoder_stays_in_float32(sdxl_folders: dict[str, Path]) -> None:
    """Stable Diffusion XL's autoencoder leaves float16's range; its config says so."""
    back = Backbone.load(sdxl_folders["plain"], device="cpu", dtype="float16")
    assert next(back.vae.parameters()).dtype == torch.float32
    assert next(back.unet.parameters()).dtype == torch.float16
    assert back.encode(torch.zeros(1, 3, 64, 64)).isfinite().all()


def test_weights_are_hashed_once_in_a_process(
    sdxl_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "counted"
    shutil.copytree(sdxl_folders["plain"], folder)
    calls: list[int] = []
    honest = module.tensor_hash
    monkeypatch.setattr(module, "tensor_hash", lambda tensors: (calls.append(len(tensors)), honest(tensors))[1])
    first, second = (Backbone.load(folder, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert len(calls) == 1 and first.fingerprint == second.fingerprint
    first.unet.conv_in.bias.data += 1
    first.save(folder, dtype=torch.float32)  # other weights in the same place are hashed anew
    assert Backbone.load(folder, device="cpu").fingerprint != first.fingerprint and len(calls) == 2


def test_a_text_is_stacked_and_selected_as_a_whole() -> None:
    one, two = Text(normal(3, 4, 5), normal(3, 6)), Text(normal(2, 4, 5, seed=1), normal(2, 6, seed=1))
    joined = Text.cat([one, two])
    assert len(joined) == 5 and len(joined[1:]) == 4 and len(joined[torch.tensor([4, 0])]) == 2
    for part in ("states", "pooled"):
        assert torch.equal(getattr(joined[torch.tensor([4])], part)[0], getattr(two, part)[1])
    assert Text.cat([Text(one.states), Text(two.states)]).pooled is None


KOREAN = ["긁힘", "찍힘", "오염", "이물", "변색", "划痕", "滑痕", "凹坑", "キズ", "打痕", "표면 긁힘", "표면 찍힘"]
FAMILIAR = ["a photo of a crack on tile", "a photo of sound surface", "pzqxv-9 rust", "scratch_2", ""]


@pytest.fixture(scope="module")
def shipped() -> Backbone:
    return Backbone.load("builtin", device="cpu", dtype="float32")


def test_words_of_other_scripts_are_words_of_their_own(shipped: Backbone) -> None:
    """The built-in tokenizer knows Latin letters alone; 划痕 and 滑痕 sound alike."""
    encoder = shipped.text_encoder
    tokenizer = encoder.tokenizers[0]
    prompts = [f"a photo of a {name} on 타일" for name in KOREAN]
    rows = encoder.tokens(prompts)
    assert len({tuple(row) for row in rows.tolist()}) == len(KOREAN)
    assert all(shipped.embed([one]).states.ne(shipped.embed([two]).states).any() for one, two in pairwise(prompts))
    for name, prompt, row in zip(KOREAN, prompts, rows.tolist(), strict=True):
        places = encoder.positions(prompt, name)
        said = "".join(tokenizer.convert_ids_to_tokens([row[place] for place in places])).replace("</w>", " ")
        assert places[0] == 5 and said.strip() == spelled(tokenizer, name) and said.strip().replace(" ", "").isalnum()
        assert tokenizer.unk_token_id not in row[1 : places[-1] + 1], "there is an end in its midst"
    decomposed = unicodedata.normalize("NFD", "긁힘")  # as macOS writes names
    assert decomposed != "긁힘" and torch.equal(encoder.tokens([decomposed]), encoder.tokens(["긁힘"]))
    assert encoder.positions("a photo of a Kratzer-groß", "Kratzer-groß")[0] == 5


def test_words_that_a_tokenizer_knows_keep_their_tokens(shipped: Backbone) -> None:
    tokenizer = shipped.text_encoder.tokenizers[0]
    plain = tokenizer(FAMILIAR, padding="max_length", truncation=True, max_length=24, return_tensors="pt").input_ids
    assert torch.equal(shipped.tokens(FAMILIAR), plain)
    mixed = spelled(tokenizer, "a photo of a crack on 타일, black")
    assert mixed.startswith("a photo of a crack on tail") and mixed.endswith(", black") and mixed.isascii()
