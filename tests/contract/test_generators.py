"""Every registered generator keeps every promise of the contract: no skip list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from flawsmith import registry
from flawsmith.interfaces import Generator
from flawsmith.testing import GENERATOR_CHECKS, check_generator, example_condition
from flawsmith.types import Condition, Generated

GENERATORS = sorted(registry.entries("generators"))
OF_ANY_BACKBONE = ("sample_is_repeatable", "loss_is_per_sample")
"""The checks that another number of channels, kind of prediction or autoencoder may break."""


@pytest.mark.parametrize("check", GENERATOR_CHECKS)
@pytest.mark.parametrize("name", GENERATORS)
def test_contract(name: str, check: str, backbone: Any, small_backbone: Any) -> None:
    plugin = registry.get("generators", name)
    GENERATOR_CHECKS[check](plugin, small_backbone if plugin.needs_backbone else backbone)


@pytest.mark.parametrize(
    ("target", "inpaints", "kl"),
    [
        ("epsilon", False, True),
        ("epsilon", True, False),
        ("v_prediction", False, False),
        ("v_prediction", True, True),
    ],
)
def test_every_backbone_kind(
    target: str, inpaints: bool, kl: bool, make_backbone: Callable[..., Any], small_backbone: Any
) -> None:
    """Every two of prediction, channels and autoencoder meet: half of all eight kinds, for half the time."""
    backbone = make_backbone(kl=kl, inpaints=inpaints, target=target, window=small_backbone.size)
    for name in GENERATORS:
        plugin = registry.get("generators", name)
        if plugin.needs_backbone:
            for check in OF_ANY_BACKBONE:
                GENERATOR_CHECKS[check](plugin, backbone)


@pytest.mark.parametrize("name", GENERATORS)
def test_the_estimate_knows_what_needs_no_backbone(name: str) -> None:
    assert registry.entries("generators")[name].pixels is not registry.get("generators", name).needs_backbone


@pytest.mark.parametrize("name", [name for name in GENERATORS if registry.get("generators", name).needs_backbone])
def test_stable_diffusion_xl(name: str, sdxl: Any) -> None:
    """Another family, read from its folder: two text encoders, added conditions, several transformer layers a block."""
    plugin = registry.get("generators", name)
    if not sdxl.inpaints:
        check_generator(plugin, sdxl)
        return
    for check in OF_ANY_BACKBONE:
        GENERATOR_CHECKS[check](plugin, sdxl)


def test_bfloat16(make_backbone: Callable[..., Any], small_backbone: Any) -> None:
    backbone = make_backbone(dtype="bfloat16", window=small_backbone.size)
    for name in GENERATORS:
        plugin = registry.get("generators", name)
        if plugin.needs_backbone:
            for check in (*OF_ANY_BACKBONE, "training_lowers_the_loss"):
                GENERATOR_CHECKS[check](plugin, backbone)


def test_start_from_a_shot_keeps_its_structure(backbone: Any) -> None:
    plugin = registry.get("generators", "controlnet_inpaint")
    asked = example_condition(backbone.size)
    little = plugin(backbone, plugin.Settings(start="shot").model_copy(update={"strength": 0.0}))
    made = little.sample(asked, [0, 1, 2, 3], steps=4, guidance=1.0)
    again = little.sample(asked, [4, 5, 6, 7], steps=4, guidance=1.0)
    assert torch.equal(made.image, again.image), "at no strength the shot itself comes back, whatever the seed"


class _Cheat(Generator):
    """Breaks promises on purpose: the checks must notice."""

    from flawsmith.config import Settings

    needs_backbone = False

    def sample(self, asked: Condition, seeds: Any, *, steps: int, guidance: float) -> Generated:
        return Generated(asked.normal + torch.rand(1), torch.ones_like(asked.mask))


@pytest.mark.parametrize("check", ["sample_is_repeatable", "mask_is_respected"])
def test_the_checks_can_fail(check: str, backbone: Any) -> None:
    with pytest.raises(AssertionError):
        GENERATOR_CHECKS[check](_Cheat, backbone)


def test_detail_gives_back_what_the_autoencoder_loses(backbone: Any) -> None:
    """At no strength the residual of the window is the sketch itself, to the last grain, however poor the decoder."""
    plugin = registry.get("generators", "controlnet_inpaint")
    asked = example_condition(backbone.size)
    assert asked.shot is not None
    sketch = asked.normal * (1 - asked.mask) + asked.shot.image * asked.mask
    asked = Condition(asked.normal, asked.mask, asked.product, asked.defect, asked.shot, sketch)
    for detail in (1.0, 0.0):
        settings = plugin.Settings(start="shot", detail=detail).model_copy(update={"strength": 0.0})
        made = plugin(backbone, settings).sample(asked, [0, 1, 2, 3], steps=4, guidance=1.0)
        assert made.base is not None
        painted = (asked.normal + made.image - made.base) * asked.mask
        near = torch.allclose(painted, sketch * asked.mask, atol=1e-4)
        assert near == (detail == 1.0)
