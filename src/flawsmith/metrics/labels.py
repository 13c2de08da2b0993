"""What the pixels themselves tell: do labels fit the paint, does its border show, does a picture repeat a shot?

All of it is ours, and no extractor is asked. Intervals resample pictures.
"""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.arithmetic.bootstrap import with_interval
from flawsmith.arithmetic.likeness import SIDE, likeness
from flawsmith.arithmetic.outlines import distance_to, outline, steepness
from flawsmith.config import GenerateConfig
from flawsmith.types import FeatureSet, Figure

CHANGED = 2 * GenerateConfig().visible
"""Least change that counts, on the scale -1..1: the default of the setting `generate.visible` (a share of 0..1)."""
SURE, SELDOM = 0.98, 0.9
"""A correlation above `SURE` is a copy in any set; one below `SELDOM` is in none."""


def alignment(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    """Return how well labels fit what was painted over the normal window.

    `change_inside`: share of the changed pixels that are labelled or touch one that is, for scaling a window blurs its
    edges. 0..1, higher is better; 1 by construction where the background is exact.
    `label_changed`: share of the labelled pixels that visibly changed. 0..1, higher is better.
    `boundary`: mean distance between the outlines of label and change, both ways, in pixels of the window. 0 and more,
    lower is better.
    """
    names = ("change_inside", "label_changed", "boundary")
    if made.below is None or not len(made):
        return dict.fromkeys(names, Figure(None, reason="no made picture with the normal one beneath it"))
    rows = []
    for image, below, mask in zip(made.image.numpy(), made.below.numpy(), made.mask.numpy(), strict=True):
        change = np.abs(image - below).max(0) > CHANGED
        both = np.count_nonzero(change & mask)
        grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        inside = np.count_nonzero(change & grown) / change.sum() if change.any() else np.nan
        rows.append((inside, both / max(1, mask.sum()), _between(change, mask)))
    return {
        name: _mean(np.array(part), rng, resamples) for name, part in zip(names, zip(*rows, strict=True), strict=True)
    }


def seam(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    """Return how much steeper brightness is on the label's outline than near it, made over real.

    `seam`: 0 and more; 1 = as on real damage, more = the border shows, less = it is blurred. Of each picture: mean
    gradient magnitude (Sobel) on a band of two pixels along the outline, over its mean 3 to 6 pixels away from it on
    both sides.
    """
    one, other = (
        np.array([_steeper(i, m) for i, m in zip(g.image.numpy(), g.mask.numpy(), strict=True)]) for g in (made, real)
    )
    one, other = one[np.isfinite(one)], other[np.isfinite(other)]
    if not len(one) or not len(other):
        return {"seam": Figure(None, reason="no outline to look at")}
    value = float(one.mean() / other.mean())
    drawn = [rng.choice(one, len(one)).mean() / rng.choice(other, len(other)).mean() for _ in range(resamples)]
    return {"seam": with_interval(value, drawn)}


def copies(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    """Return the share of made pictures that repeat a real one, and how like they are to their nearest.

    `copies`: 0..1, lower is better. A copy is more like a real picture than any two real ones are like each other, and
    above 0.9 in any case.
    `nearest`: mean likeness to the nearest real picture, -1..1; 1 = all are copies.
    Likeness is the greatest correlation of brightness, at 32 x 32, over the eight mirrored and turned views.
    """
    if not len(real) or not len(made):
        return dict.fromkeys(("copies", "nearest"), Figure(None, reason=f"{len(real)} real, {len(made)} made pictures"))
    x, y = _small(real), _small(made)
    among = likeness(x, x)
    np.fill_diagonal(among, -1)
    limit = float(np.clip(among.max() if len(x) > 1 else SURE, SELDOM, SURE))
    nearest = likeness(y, x).max(axis=1)
    return {
        "copies": _mean((nearest > limit).astype(float), rng, resamples),
        "nearest": _mean(nearest, rng, resamples),
    }


def _between(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean symmetric distance between two masks' outlines; NaN where one is empty."""
    if not one.any() or not other.any():
        return float("nan")
    edges = outline(one), outline(other)
    return float((distance_to(edges[1])[edges[0]].mean() + distance_to(edges[0])[edges[1]].mean()) / 2)


def _steeper(image: np.ndarray, mask: np.ndarray) -> float:
    """Return how much steeper one picture (3,H,W) is on its label's outline; NaN where there is no outline."""
    steep = None if mask.all() else steepness(image, outline(mask))
    return float("nan") if steep is None else float(steep.on_outline / (steep.nearby + 1e-3))


def _small(feature_set: FeatureSet) -> np.ndarray:
    """Return float64 (N,32,32): brightness, without its mean, of unit length."""
    small = []
    for image in feature_set.image.numpy():
        grey = cv2.resize(np.ascontiguousarray(image.mean(0)), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        grey = grey.astype(np.float64) - grey.mean()
        small.append(grey / max(float(np.linalg.norm(grey)), 1e-9))
    return np.stack(small)


def _mean(values: np.ndarray, rng: np.random.Generator, resamples: int) -> Figure:
    """Return the mean of what is finite, with the interval of its resamples."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Figure(None, reason="nothing changed in any picture")
    return with_interval(float(values.mean()), [rng.choice(values, len(values)).mean() for _ in range(resamples)])
