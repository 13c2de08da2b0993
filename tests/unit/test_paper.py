"""The papers' recipes: each value beside where it is stated, and each recipe runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from flawsmith import registry
from flawsmith.cli import app
from flawsmith.config import Config, _set, load_config, validate
from flawsmith.errors import FlawsmithError
from flawsmith.testing import example_batch, example_condition
from flawsmith.testing.generators import example_crops

STATED: dict[str, dict[str, tuple[Any, str]]] = {
    "anomaly_diffusion": {
        "prompt": ("a photo of a *", "code: the learned words in place of the * of phrases such as this one"),
        "appearance_tokens": (8, "paper: k = 8 tokens for the anomaly embedding"),
        "location_tokens": (4, "paper: n = 4 tokens for the spatial embedding"),
        "reweighting": (1.5, "code: weights are clamped to 1 and 1.5"),
        "compared": ("pixels", "paper: x0 is decoded, and compared pixel by pixel"),
        "start": ("noise", "paper: sampling from noise, the background blended in at each step"),
        "sampler": ("ddim", "code: DDIM"),
        "data.shots": ("third", "paper: a third of the anomalous images is learned from"),
        "train.scope": ("all", "paper: one spatial encoder for all types"),
        "train.batch": (4, "code: batch 4"),
        "train.normal_views": (0.0, "paper: trained on anomalous images and their masks"),
        "generate.count": (1000, "paper: 1000 pairs of image and mask for each type"),
        "generate.steps": (200, "code: 200 steps"),
        "generate.guidance": (1.0, "code: no guidance"),
    },
    "controlnet_inpaint": {
        "prompt": ("a photo of a {defect}", 'paper: the prompt, e.g. "a photo of a crack"; no object is named'),
        "start": ("noise", "paper: inpainting from the noisy latent, beside the normal window's latent and the mask"),
        "train.normal_views": (0.0, "paper: trained from a few anomalous images and their masks"),
    },
    "cross_modal": {
        "asea_steps": (5, "code: T_g = 5"),
        "asea_rate": (0.1, "code: Adam, lr 0.1"),
        "asea_alpha": (1.0, "code: alpha = 1"),
        "parity": (True, "code: the feature is that of the fifth forward pass, after four updates"),
        "tokens": (4, "code: ImageProj gives 4 tokens of 768"),
        "hidden": (1024, "code: BlipProj is 768 -> 1024"),
        "ip_adapter": ("", "code: keys and values are first copied from to_k and to_v"),
        "image_dropout": (0.05, "code: 5 % without the Q-Former's feature"),
        "text_dropout": (0.05, 'code: 5 % with text ""'),
        "both_dropout": (0.05, "code: 5 % without both"),
        "other_view": (0.0, "code: each training image is its own reference"),
        "outside_weight": (1.0, "code: plain MSE over the whole latent, no mask weighting"),
        "scale": (1.0, "code: adapter scale 1.0"),
        "start": ("normal", "code: sampling from the normal image's noised latent"),
        "strength": (0.7, "code: strength 0.7"),
        "data.shots": ("third", "code: the training third of the anomalous images"),
        "train.scope": ("all", "code: one model for the whole dataset"),
        "train.batch": (16, "code: batch 8, gradients accumulated over 2"),
        "train.learning_rate": (1e-4, "code: AdamW lr 1e-4"),
        "train.weight_decay": (1e-2, "code: wd 1e-2"),
        "train.normal_views": (0.0, "code: trained on anomalous images"),
        "train.turn": (False, "code: no flip, no augmentation"),
        "generate.steps": (50, "code: 50 steps"),
        "generate.guidance": (7.0, "code: guidance 7"),
        "generate.reference": ("random", "code: random reference images of the same type"),
        "generate.paint": ("replace", "code: blurred mask * generated + (1 - it) * normal"),
    },
    "dual_branch": {
        "out": ("whole", "paper: the whole image is synthetic"),
        "prompt": ("a vfx with sks", "code: the prompt of the blend branch, fixed for every type"),
        "alone_prompt": ("sks", "code: the prompt of the foreground branch"),
        "against": ("nothing", "code: guidance against the empty negative prompt"),
        "rank": (32, "code: LoRA rank 32"),
        "text_rank": (32, "code: text LoRA rank 32 on q, k, v, out"),
        "saim": ("full", "code: T_i, T_q, T_k, T_v, T_o are C x C"),
        "zero_start": (False, "code: PyTorch's own start, not zero"),
        "bcm": ("paper", "code: BCM with unscaled latents, new noise at every call, a = 0 at first"),
        "text_dropout": (0.0, "code: none; prompts are fixed"),
        "damage_weight": (1.0, "code: mean over both branches of the squared error, equal weights"),
        "start": ("noise", "code: independent noise latents"),
        "smallest": (0.0, "code: no quality filter"),
        "largest": (1.0, "code: no quality filter"),
        "data.shots": ("third", "code: the first third of each type"),
        "backbone.dtype": ("float32", "code: fp32, no mixed precision"),
        "train.scope": ("defect", "code: one model for each category and defect type"),
        "train.steps": (5000, "code: 5000 steps"),
        "train.batch": (2, "code: batch 2 with BCM"),
        "train.learning_rate": (2e-5, "code: AdamW lr 2e-5"),
        "train.weight_decay": (1e-2, "code: wd 1e-2"),
        "train.normal_views": (0.0, "code: trained on anomalous images"),
        "generate.count": (500, "code: 500 images per type"),
        "generate.steps": (50, "code: 50 steps with BCM"),
        "generate.guidance": (2.0, "code: guidance 2.0 with BCM"),
    },
}
"""Setting -> (value, where it is stated). Names with a dot are settings of other sections."""


def stated(name: str, *, dotted: bool) -> dict[str, Any]:
    return {key: value for key, (value, _) in STATED[name].items() if ("." in key) == dotted}


@pytest.mark.parametrize("name", STATED)
def test_a_recipe_is_what_the_paper_states_and_no_more(name: str) -> None:
    plugin = registry.get("generators", name)
    settings = plugin.Settings.paper()
    given = {key: getattr(settings, key) for key in settings.model_fields_set}
    assert given == stated(name, dotted=False)
    assert plugin.paper == stated(name, dotted=True)
    rest = {key: value for key, value in settings if key not in given}
    assert rest == {key: value for key, value in plugin.Settings() if key not in given}


@pytest.mark.parametrize("name", STATED)
def test_a_recipe_runs(name: str, backbone: Any) -> None:
    plugin = registry.get("generators", name)
    generator = plugin(backbone, plugin.Settings.paper())
    generator.learn(example_crops(backbone.size))
    seen = generator.encode(example_batch(backbone.size))
    loss = generator.loss(seen, torch.Generator().manual_seed(1))
    loss.mean().backward()
    assert torch.isfinite(loss).all()
    assert any(p.grad is not None and p.grad.any() for m in generator.trainable().values() for p in m.parameters())
    list(generator.calibrate(seen))
    asked = example_condition(backbone.size)
    if not plugin.needs_mask:
        asked = replace(asked, mask=torch.ones_like(asked.mask))
    made = generator.sample(asked, [1, 2, 3, 4], steps=2, guidance=2.0)
    assert made.image.isfinite().all() and made.whole == (name == "dual_branch")


def new(*options: str) -> str:
    """Run `flawsmith new` in this process, and return what it prints."""
    return CliRunner().invoke(app, ["new", *options], catch_exceptions=False).stdout


@pytest.mark.parametrize("name", STATED)
def test_new_prints_a_recipe(name: str, tmp_path: Path) -> None:
    (tmp_path / "paper.toml").write_text(new("--generator", name, "--paper"))
    config = load_config(tmp_path / "paper.toml")
    plugin = registry.get("generators", name)
    assert validate(plugin.Settings, config.generator.settings) == plugin.Settings.paper()
    tree: dict[str, Any] = {"generator": {"name": name, "settings": config.generator.settings}}
    for key, value in stated(name, dotted=True).items():
        _set(tree, key, value)
    assert config == validate(Config, tree), "all other settings are the defaults"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(["--paper"], "name the method too"), (["--generator", "hybrid", "--paper"], "hybrid follows no paper")],
)
def test_a_recipe_that_is_not_there(options: list[str], sentence: str) -> None:
    with pytest.raises(FlawsmithError, match=sentence):
        new(*options)
