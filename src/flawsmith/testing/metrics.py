"""The checks of metrics: `check_metric(my_metric)` asks it about small feature sets with planted damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith.interfaces import Metric
from flawsmith.types import FeatureSet, Figure

MetricCheck = Callable[[Metric], None]
_SIDE = 48
_EXTRACTOR = "tiny"


def example_feature_set(count: int = 12, *, seed: int = 0, shift: float = 0.0, classes: bool = True) -> FeatureSet:
    """Return windows of a grainy surface with a dark disc on each, described by made-up features.

    Args:
        count: Pictures.
        seed: Other seeds give other pictures of the same surface.
        shift: How far pictures and features lie from those of shift 0.
        classes: True: `probabilities` of five classes; False: None, as with most extractors.
    """
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(float(_SIDE)), torch.arange(float(_SIDE)), indexing="ij")
    grain = 0.05 * torch.randn(count, 1, _SIDE, _SIDE, generator=rng)
    below = (grain + shift * torch.sin(x / 3)).expand(-1, 3, -1, -1).contiguous()
    centres = torch.randint(14, 34, (count, 2, 1, 1), generator=rng)
    mask = (y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2 < 49
    image = torch.where(mask[:, None], below - 0.5 - shift, below).clamp(-1, 1)
    vector = torch.randn(count, 16, generator=rng) + 3 * shift
    perceptual = (F.avg_pool2d(image, 4), F.avg_pool2d(image, 8) + shift)
    probabilities = (2 * torch.randn(count, 5, generator=rng)).softmax(1) if classes else None
    return FeatureSet(image, mask, vector, perceptual, _EXTRACTOR, probabilities, below)


def figures_are_named_and_finite(metric: Metric) -> None:
    """Every figure has a name, and is finite with an interval round it, or None with the reason."""
    figures = _asked(metric, resamples=40)
    assert figures, "it returns no figure"
    for name, figure in figures.items():
        assert isinstance(name, str) and name.strip(), f"{name!r} is no name of a figure"
        _well_formed(name, figure)
        if figure.value is not None:
            assert figure.low is not None, f"{name} has no interval, though 40 resamples were asked for"


def resamples_are_honoured(metric: Metric) -> None:
    """0 resamples = the same value without an interval."""
    figures, bare = _asked(metric, resamples=40), _asked(metric, resamples=0)
    for name, figure in bare.items():
        _well_formed(name, figure)
        assert figure.low is None, f"{name} has an interval, though no resamples were asked for"
        assert figure.value == figures[name].value, f"{name}: the value depends on the resamples"


def same_rng_same_figures(metric: Metric) -> None:
    """The same rng gives the same figures, intervals included; the global random streams stay where they are."""
    streams = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]
    first, again = (_asked(metric, resamples=40) for _ in range(2))
    assert first == again, "the same rng gave other figures"
    assert np.array_equal(np.random.get_state()[1], streams[0]), "numpy's global random stream moved"  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), streams[1]), "torch's global random stream moved"


def order_does_not_matter(metric: Metric) -> None:
    """The pictures in another order have the same figures, but for rounding."""
    real, made = example_feature_set(), example_feature_set(30, seed=1, shift=0.3)
    order = np.random.default_rng(3)
    turned = (_rows(one, order.permutation(len(one))) for one in (real, made))
    figures, others = _asked(metric, real, made), _asked(metric, *turned)
    for name, figure in figures.items():
        one, other = figure.value, others[name].value
        alike = one == other or (one is not None and other is not None and np.isclose(one, other, rtol=1e-5, atol=1e-7))
        assert alike, f"{name} depends on the order of the pictures: {one} and {other}"


def pictures_stay_as_they_are(metric: Metric) -> None:
    """It changes none of the sets that it is given."""
    real, made = example_feature_set(), example_feature_set(30, seed=1)
    before = [tensor.clone() for one in (real, made) for tensor in _tensors(one)]
    _asked(metric, real, made, resamples=20)
    after = [tensor for one in (real, made) for tensor in _tensors(one)]
    assert all(map(torch.equal, before, after)), "it changed the pictures or their features"


def too_little_is_said(metric: Metric) -> None:
    """No picture, one picture, no classes, no normal pictures: the same names, each with a value or a reason."""
    names = set(_asked(metric))
    sets = [example_feature_set(count, seed=count) for count in (0, 1, 8)]
    cases = list(product(sets, sets))
    bare = example_feature_set(8, seed=5, classes=False)
    cases.append((bare, replace(example_feature_set(9, seed=6, classes=False), below=None)))
    for real, made in cases:
        where = f"{len(real)} real and {len(made)} made pictures"
        try:
            figures = _asked(metric, real, made, resamples=20)
        except Exception as error:
            raise AssertionError(f"{where}: it raises {type(error).__name__} ({error}); return a reason") from error
        assert set(figures) == names, f"{where}: it names {sorted(figures)}, and {sorted(names)} otherwise"
        for name, figure in figures.items():
            _well_formed(f"{where}: {name}", figure)


def features_are_named(metric: Metric) -> None:
    """A figure that changes with the features says whose they are: `kid[efficientnet-lite0]`."""
    real, made = example_feature_set(), example_feature_set(30, seed=1)
    assert made.probabilities is not None
    other = replace(
        made,
        vector=made.vector * 2 + 1,
        perceptual=tuple(2 * depth for depth in made.perceptual),
        probabilities=made.probabilities.square() / made.probabilities.square().sum(1, keepdim=True),
    )
    one, two = _asked(metric, real, made), _asked(metric, real, other)
    for name, figure in one.items():
        if figure.value != two[name].value:
            assert name.endswith(f"[{_EXTRACTOR}]"), f"{name} is made from features, so call it {name}[<extractor>]"


METRIC_CHECKS: dict[str, MetricCheck] = {
    check.__name__: check
    for check in (
        figures_are_named_and_finite,
        resamples_are_honoured,
        same_rng_same_figures,
        order_does_not_matter,
        pictures_stay_as_they_are,
        too_little_is_said,
        features_are_named,
    )
}
"""Every promise of the contract of metrics, by name."""


def check_metric(metric: Metric) -> None:
    """Run every check on a metric.

    Raises:
        AssertionError: the first promise that is not kept, as a sentence.
    """
    for check in METRIC_CHECKS.values():
        check(metric)


def _asked(
    metric: Metric, real: FeatureSet | None = None, made: FeatureSet | None = None, *, resamples: int = 0
) -> dict[str, Figure]:
    real = example_feature_set() if real is None else real
    made = example_feature_set(30, seed=1, shift=0.3) if made is None else made
    return metric(real, made, np.random.default_rng(0), resamples)


def _well_formed(name: str, figure: Figure) -> None:
    assert isinstance(figure, Figure), f"{name} is {type(figure).__name__}, not a Figure"
    assert (figure.low is None) == (figure.high is None), f"{name} has one end of an interval"
    if figure.value is None:
        assert figure.reason.strip() and "\n" not in figure.reason, f"{name} is None without a reason"
        return
    assert isinstance(figure.value, float) and np.isfinite(figure.value), f"{name} is {figure.value!r}"
    if figure.low is not None and figure.high is not None:
        assert np.isfinite([figure.low, figure.high]).all() and figure.low <= figure.high, (
            f"{name}: [{figure.low}, {figure.high}] is no interval"
        )


def _tensors(pictures: FeatureSet) -> Iterator[Tensor]:
    for field in fields(pictures):
        value = getattr(pictures, field.name)
        yield from (one for one in (value if isinstance(value, tuple) else [value]) if isinstance(one, Tensor))


def _rows(pictures: FeatureSet, index: np.ndarray) -> FeatureSet:
    rows = torch.from_numpy(index)
    moved: dict[str, Any] = {}
    for field in fields(pictures):
        value = getattr(pictures, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value[rows]
        elif isinstance(value, tuple):
            moved[field.name] = tuple(one[rows] for one in value)
    return replace(pictures, **moved)
