"""Every registered metric keeps the contract: no skip list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flawsmith import registry
from flawsmith.types import FeatureSet

METRICS = sorted(registry.entries("metrics"))
IDEAL = {"frechet": 0.0, "precision": 1.0, "recall": 1.0, "coverage": 1.0, "seam": 1.0, "nearest": 1.0}
IDEAL |= {"change_inside": 1.0, "label_changed": 1.0, "boundary": 0.0}


def feature_set(count: int, seed: int, *, like: float = 0.0, classes: bool = True) -> FeatureSet:
    """Windows of 48 px: grain with a disc of damage; `like` shifts what the pictures and their features are."""
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    below = (torch.randn(count, 1, 48, 48, generator=rng) * 0.05 + like * torch.sin(x / 3)).expand(-1, 3, -1, -1)
    centres = torch.randint(14, 34, (count, 2, 1, 1), generator=rng)
    mask = (y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2 < 49
    image = torch.where(mask[:, None], below - 0.5 - like, below).clamp(-1, 1)
    vector = torch.randn(count, 16, generator=rng) + 3 * like
    perceptual = (F.avg_pool2d(image, 4), F.avg_pool2d(image, 8) + like)
    told = (torch.randn(count, 5, generator=rng) * 2).softmax(1) if classes else None
    return FeatureSet(image, mask, vector, perceptual, "tiny", told, below.clone())


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> Callable[..., Any]:
    found: Callable[..., Any] = registry.get("metrics", request.param)
    return found


def test_figures_are_whole(metric: Callable[..., Any]):
    real, made = feature_set(12, 0), feature_set(30, 1, like=0.3)
    before = real.vector.clone()
    figures = metric(real, made, np.random.default_rng(0), 40)
    assert figures and torch.equal(real.vector, before)
    again = metric(real, made, np.random.default_rng(0), 40)
    assert again == figures
    for name, figure in figures.items():
        assert figure.value is not None and np.isfinite(figure.value), name
        assert figure.low is not None and figure.high is not None and figure.low <= figure.high
        bare = metric(real, made, np.random.default_rng(0), 0)[name]
        assert (bare.value, bare.low, bare.high) == (figure.value, None, None)


def test_features_are_named(metric: Callable[..., Any]):
    """A figure that changes with the features says whose they are; one that does not has no business to."""
    real, made = feature_set(12, 0), feature_set(30, 1)
    other = FeatureSet(
        made.image, made.mask, made.vector * 2 + 1, tuple(d * 2 for d in made.perceptual), "tiny",
        made.probabilities.roll(1, 0).square() if made.probabilities is not None else None, made.below,
    )  # fmt: skip
    one, two = (metric(real, g, np.random.default_rng(0), 0) for g in (made, other))
    for name in one:
        if one[name].value != two[name].value:
            assert name.endswith("[tiny]"), name


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pictures_are_said(metric: Callable[..., Any], count: int):
    for real, made in ((feature_set(8, 0), feature_set(count, 1)), (feature_set(count, 0), feature_set(8, 1))):
        for name, figure in metric(real, made, np.random.default_rng(0), 20).items():
            assert figure.value is not None or figure.reason, name


def test_the_same_pictures_score_ideally_and_others_worse(metric: Callable[..., Any]):
    real = feature_set(40, 0)
    same = metric(real, real, np.random.default_rng(0), 0)
    other = metric(real, feature_set(40, 1, like=0.8), np.random.default_rng(0), 0)
    for name, figure in same.items():
        plain = name.partition("[")[0]
        if plain in IDEAL:
            assert figure.value == pytest.approx(IDEAL[plain], abs=0.05), name
    for plain, worse in (("kid", 1), ("frechet", 1), ("precision", -1), ("recall", -1), ("coverage", -1)):
        name = f"{plain}[tiny]"
        if name in same:
            assert worse * (other[name].value - same[name].value) > 0, name


def test_summary_and_name_fit(metric: Callable[..., Any]):
    assert metric.__doc__ and metric.__module__.startswith("flawsmith.metrics.")
