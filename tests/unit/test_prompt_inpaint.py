"""prompt_inpaint: the words that name the defect get more of the attention inside the mask, and nothing else moves."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.generators.prompt_inpaint import PromptInpaint, PromptInpaintSettings
from flawsmith.nn.attention import split_heads
from flawsmith.nn.inpaint import known_of
from flawsmith.nn.methods.attention_maps import word_shares
from flawsmith.run.dataset import open_dataset
from flawsmith.synthesis.attention import _Heard, word_maps
from flawsmith.testing import example_condition
from flawsmith.types import Generated


def inside(backbone: Any, latent: torch.Tensor, t: torch.Tensor, known: Any, prompt: str, places: list[int]) -> float:
    """Return the words' mean share of attention over the cells of the mask, worked out layer by layer."""
    shares, layers = [], [layer for layer in backbone.unet.modules() if getattr(layer, "is_cross_attention", False)]

    def hear(layer: Any, given: Any, named: Any) -> None:
        query, key = (
            split_heads(x, layer.heads) for x in (layer.to_q(given[0]), layer.to_k(named["encoder_hidden_states"]))
        )
        attention = torch.einsum("bhqd,bhkd->bhqk", query, key).div(query.shape[-1] ** 0.5).softmax(-1)
        words = attention[..., places].mean((1, 3))
        side = round(words.shape[1] ** 0.5)
        step = known.cells.shape[-1] // side
        cells = known.cells[:, 0].reshape(-1, side, step, side, step).amax((2, 4)).flatten(1)
        shares.append((words * cells).sum(1) / cells.sum(1))

    handles = [layer.register_forward_pre_hook(hear, with_kwargs=True) for layer in layers]
    with torch.no_grad():
        text = backbone.embed([prompt] * len(latent))
        backbone.predict(latent, t, text, mask=known.cells, masked=known.masked)
    for handle in handles:
        handle.remove()
    return float(torch.stack(shares).mean())


def test_the_words_get_more_attention_inside_the_mask(backbone: Any) -> None:
    generator = PromptInpaint(backbone, PromptInpaintSettings(attention=0.3))
    asked = example_condition(backbone.size, 2)
    known = known_of(backbone, asked.normal, asked.mask)
    prompt = generator.prompt("crack", "tile")
    places = backbone.text_encoder.positions(prompt, "crack")
    assert prompt == "a photo of a crack" and places == [5]
    tokens = generator._tokens([prompt] * 2, asked.defect)
    assert tokens.shape[1] == backbone.embed([prompt]).states.shape[1] and tokens.sum(1).tolist() == [1, 1]
    latent = torch.randn(known.latent.shape, generator=torch.Generator().manual_seed(3))
    t = torch.full((2,), 999)
    moved = generator._raised(latent, t, backbone.embed([prompt] * 2), known, tokens, 1.0)
    outside = (known.cells == 0).expand_as(latent)
    assert torch.equal(moved[outside], latent[outside])
    far = (moved - latent)[~outside].square().mean().sqrt()
    assert abs(float(far) - 0.3 * 0.999) < 1e-3, "a step is as far as the setting says, whatever the gradient"
    before, after = (inside(backbone, x, t, known, prompt, places) for x in (latent, moved))
    assert after > before, (before, after)
    # What the suite's own arithmetic hears is what the method raises.
    with torch.no_grad(), word_shares(backbone.unet, tokens) as shares:
        backbone.predict(latent, t, backbone.embed([prompt] * 2), mask=known.cells, masked=known.masked)
    assert len(shares) == sum(getattr(layer, "is_cross_attention", False) for layer in backbone.unet.modules())
    assert all(0 <= float(share.min()) and float(share.max()) <= 1 for share in shares)


def test_what_is_not_named_is_not_moved(backbone: Any) -> None:
    """Normal parts, and a prompt that leaves the defect out, are painted as without."""
    asked = example_condition(backbone.size, 2)
    for settings, request in (
        ({}, replace(asked, defect=("", ""))),
        ({"prompt": "a photo of a scratch"}, asked),
    ):
        quiet, raised = (
            PromptInpaint(backbone, PromptInpaintSettings(attention=far, **settings)).sample(
                request, [1, 2], steps=2, guidance=2.0
            )
            for far in (0.0, 1.0)
        )
        assert torch.equal(quiet.image, raised.image)


def test_descriptions_stand_for_names(backbone: Any) -> None:
    told = PromptInpaintSettings(descriptions={"bent_pin": "hole"}, prompt="{defect} on {product}")
    generator = PromptInpaint(backbone, told)
    assert generator.prompt("bent_pin", "my_part") == "hole on my part"
    assert generator.prompt("dent_x", "my_part") == "dent x on my part"
    assert generator.attention("bent_pin", "a")[1] == "hole on a" and not generator.trainable()
    copied = PromptInpaintSettings(descriptions={unicodedata.normalize("NFD", "찍힘"): "dent"})  # of a folder, on macOS
    assert copied == PromptInpaintSettings(descriptions={"찍힘": "dent"})
    asked = replace(example_condition(backbone.size, 1), defect=("bent_pin",), shot=None)
    described, named = (
        PromptInpaint(backbone, settings).sample(asked, [1], steps=2, guidance=2.0)
        for settings in (told, PromptInpaintSettings(prompt=told.prompt))
    )
    assert not torch.equal(described.image, named.image)


def test_a_run_without_a_single_shot(backbone_folder: Path, small_config: dict[str, Any], tmp_path: Path) -> None:
    for number in range(2):
        picture = factory.make("magnet", None, seed=number, size=96, line=1).image
        images.write(tmp_path / "set/tile/train/good" / f"{number}.png", picture)
    told = {"data.root": str(tmp_path / "set"), "data.shots": 0, "generator.name": "prompt_inpaint"}
    told |= {"generate.without_shots.types": ["crack"], "generate.without_shots.size": [0.3, 0.5], "generate.steps": 3}
    run = fs.Run.create(tmp_path / "run", load_config(None, small_config | told | {"generate.paint": "replace"}))
    fs.train(run)
    fs.generate(run)
    rows = [row for row in run.samples() if row.made]
    assert rows and not run.path("weights").joinpath("tile", "control.safetensors").exists()
    for row in rows:
        before, after = images.read(tmp_path / "set" / row.normal), images.read(run.path(row.image))
        mask = images.read_mask(run.path(row.mask), after.shape)
        assert row.shot == "" and mask.any() and (before[~mask] == after[~mask]).all()
        assert (before[mask] != after[mask]).any()
    controls = [row for row in run.controls() if row.made]
    assert controls and {row.donor for row in controls} <= {one.id for one in open_dataset(run).split.normals}
    asked = np.zeros((96, 96), bool)
    asked[30:60, 30:60] = True
    by_hand = fs.Brush.open(run).paint(tmp_path / "set/tile/train/good/0.png", asked, "crack")
    assert by_hand.provenance.shot == "" and (by_hand.mask <= asked).all()
    assert [(one.defect, one.words, one.prompt) for one in word_maps(run)] == [("crack", "crack", "a photo of a crack")]


def test_the_report_hears_the_words_that_were_said(backbone: Any) -> None:
    """With a description and words of appearance: both stand in the prompt, and the description is looked for."""
    generator = PromptInpaint(backbone, PromptInpaintSettings(descriptions={"uneven": "dent on steel", "a": "b"}))
    asked = replace(example_condition(backbone.size, 1), defect=("uneven",), appearance=("small faint",))
    (line,) = generator._lines(asked)
    assert line == generator.attention(*asked.named()[0])[1] == "a photo of a small faint dent on steel"
    assert generator.words("uneven") == "dent on steel" and generator.words("bent_pin") == "bent pin"
    heard = _Heard(generator, backbone)
    with heard.maps.listening():
        generator.sample(asked, [1], steps=2, guidance=1.0)
        heard.take(asked, Generated(asked.normal, asked.mask))
    assert heard.window is not None and heard.prompt == line


def test_half_precision_moves_latents_as_full_precision_does(make_backbone: Callable[..., Any]) -> None:
    """Gradients of some thousand places are below what float16 holds."""
    moved = {}
    for dtype in ("float32", "float16"):
        back = make_backbone(dtype=dtype, window=64)
        generator = PromptInpaint(back, PromptInpaintSettings(attention=0.3))
        image = torch.rand(1, 3, 448, 448, generator=torch.Generator().manual_seed(0)) * 2 - 1
        known = known_of(back, image, torch.ones(1, 1, 448, 448))
        lines = ["a photo of a crack"]
        noise = torch.randn(known.latent.shape, generator=torch.Generator().manual_seed(1))
        latent, t = back.noise.add(known.latent, noise, torch.tensor([700])), torch.tensor([700])
        there = generator._raised(latent, t, back.embed(lines), known, generator._tokens(lines, ["crack"]), 1.0)
        moved[dtype] = (there - latent).flatten()
    assert float(torch.nn.functional.cosine_similarity(moved["float32"], moved["float16"], 0)) > 0.99
