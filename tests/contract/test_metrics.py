"""Every registered metric keeps every promise of the contract: no skip list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from flawsmith import registry
from flawsmith.testing import METRIC_CHECKS, check_metric, example_feature_set
from flawsmith.types import FeatureSet, Figure

METRICS = sorted(registry.entries("metrics"))
IDEAL = {"frechet": 0.0, "precision": 1.0, "recall": 1.0, "coverage": 1.0, "seam": 1.0, "nearest": 1.0}
IDEAL |= {"change_inside": 1.0, "label_changed": 1.0, "boundary": 0.0}


@pytest.mark.parametrize("check", METRIC_CHECKS)
@pytest.mark.parametrize("name", METRICS)
def test_contract(name: str, check: str) -> None:
    METRIC_CHECKS[check](registry.get("metrics", name))


@pytest.mark.parametrize("name", METRICS)
def test_the_same_pictures_score_ideally_and_others_worse(name: str) -> None:
    metric: Callable[..., dict[str, Figure]] = registry.get("metrics", name)
    real = example_feature_set(40)
    same = metric(real, real, np.random.default_rng(0), 0)
    other = metric(real, example_feature_set(40, seed=1, shift=0.8), np.random.default_rng(0), 0)
    for figure_name, figure in same.items():
        plain = figure_name.partition("[")[0]
        if plain in IDEAL:
            assert figure.value == pytest.approx(IDEAL[plain], abs=0.05), figure_name
    for plain, worse in (("kid", 1), ("frechet", 1), ("precision", -1), ("recall", -1), ("coverage", -1)):
        if (figure_name := f"{plain}[tiny]") in same:
            value, least = other[figure_name].value, same[figure_name].value
            assert value is not None and least is not None and worse * (value - least) > 0, figure_name


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_says_what_its_figures_mean(name: str) -> None:
    metric = registry.get("metrics", name)
    figures = metric(example_feature_set(), example_feature_set(20, seed=1), np.random.default_rng(0), 0)
    for plain in {one.partition("[")[0].replace("ic-diversity", "ic-lpips") for one in figures}:
        assert f"`{plain}" in metric.__doc__, f"{name}'s docstring does not explain {plain}"
    assert metric.__module__.startswith("flawsmith.metrics.")


def honest(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    """The mean of the features; the simplest that keeps every promise."""
    if not len(made):
        return {"mean[tiny]": Figure(None, reason="no pictures")}
    values = made.vector.double().mean(1).numpy()
    drawn = [rng.choice(values, len(values)).mean() for _ in range(resamples)]
    if not drawn:
        return {"mean[tiny]": Figure(float(values.mean()))}
    return {"mean[tiny]": Figure(float(values.mean()), float(min(drawn)), float(max(drawn)))}


def test_an_honest_metric_passes() -> None:
    check_metric(honest)


def _changed(change: Callable[[Figure, FeatureSet], Figure], name: str = "mean[tiny]") -> Any:
    def metric(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
        (figure,) = honest(real, made, rng, resamples).values()
        return {name: change(figure, made)}

    return metric


def _painter(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    made.image.mul_(0.9)
    return honest(real, made, rng, resamples)


def _restless(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    return honest(real, made, np.random.default_rng(), resamples)


def _global(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    torch.manual_seed(0)
    torch.rand(1)
    return honest(real, made, rng, resamples)


def _deaf(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    return honest(real, made, rng, 40)


def _fragile(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    assert real.below is not None and made.below is not None
    return honest(real, made, rng, resamples)


@pytest.mark.parametrize(
    ("cheat", "check", "said"),
    [
        (_changed(lambda figure, made: replace(figure, value=float("nan"))), "figures_are_named_and_finite", "is nan"),
        (_changed(lambda figure, made: Figure(None)), "figures_are_named_and_finite", "None without a reason"),
        (_changed(lambda figure, made: Figure(figure.value)), "figures_are_named_and_finite", "has no interval"),
        (_changed(lambda figure, made: figure, name=" "), "figures_are_named_and_finite", "no name of a figure"),
        (_deaf, "resamples_are_honoured", "though no resamples were asked for"),
        (_restless, "same_rng_same_figures", "gave other figures"),
        (_global, "same_rng_same_figures", "torch's global random stream moved"),
        (
            _changed(lambda figure, made: Figure(float(made.vector[0].mean()), 0.0, 1.0)),
            "order_does_not_matter",
            "depends on the order",
        ),
        (_painter, "pictures_stay_as_they_are", "changed the pictures"),
        (_fragile, "too_little_is_said", "it raises AssertionError"),
        (_changed(lambda figure, made: figure, name="mean"), "features_are_named", "call it mean"),
    ],
)
def test_each_fault_is_caught(cheat: Any, check: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        METRIC_CHECKS[check](cheat)
