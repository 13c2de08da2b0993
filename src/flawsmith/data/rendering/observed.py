"""What a photograph tells of how it was taken: the side its light comes from, how hard that is, its blur and its grain.

None of it can be known for certain from one picture of unknown matter. So the light is an average over pictures, of
brightness that rises towards the lamp inside a part (Lee and Rosenfeld, "Improved methods of estimating shape from
shading using the light source coordinate system", Artificial Intelligence 26, 1985, section 3: the tilt is the mean
direction of the gradient), and a setting may say better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.data.windows import grain_map

Floats = np.ndarray

_SMOOTH = 2.0
"""Sigma in px: what is finer is grain or texture."""
_OUTLINES = 0.9
"""Quantile of the gradients above which they are outlines and not shading."""
_SURE = 2.0
"""Standard errors by which the mean gradient must differ from none."""
_TOP_LEFT = float(np.arctan2(-1, -1))
_COHERENT = 0.3
"""Length of the mean gradient, over the mean of the lengths, from which light counts as wholly hard."""
_REBLUR = 1.0
"""Sigma in px of the second blur."""
_AGAINST_GRAIN = 0.8
"""Sigma in px of a blur before, so that grain does not count as an edge."""
_SHARPEST, _LEAST_EDGES, _USUAL_BLUR, _MOST_BLUR = 0.5, 24, 0.6, 3.0


@dataclass(frozen=True, slots=True)
class Lighting:
    """Where the light of a photograph comes from."""

    azimuth: float
    """Radians on picture axes (x to the right, y down): the side on which the lamp stands."""
    hardness: float
    """0 = from all sides alike, 1 = from one small lamp."""


def mean_gradient(picture: Floats) -> Floats:
    """Return how brightness rises inside what a picture shows: float64 (3,), x, y, and the mean of the lengths.

    Args:
        picture: float32 (h,w,3) in [-1,1].
    """
    grey = cv2.GaussianBlur(np.ascontiguousarray(picture.mean(axis=2, dtype=np.float32)), (0, 0), _SMOOTH)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *order, ksize=1, scale=0.5) for order in ((1, 0), (0, 1)))
    steep = np.hypot(across, down)
    inside = steep <= np.quantile(steep, _OUTLINES)
    return np.array([across[inside].mean(), down[inside].mean(), steep[inside].mean()], np.float64)


def lighting_of(gradients: Sequence[Floats]) -> Lighting:
    """Return the light that pictures of one camera have in common; from the top left, where they tell none.

    Args:
        gradients: `mean_gradient` of each.
    """
    rows = np.array(gradients, np.float64).reshape(-1, 3)
    if not len(rows):
        return Lighting(_TOP_LEFT, 0.5)
    mean, length = rows[:, :2].mean(axis=0), float(rows[:, 2].mean())
    strength = float(np.hypot(*mean))
    error = float(np.hypot(*rows[:, :2].std(axis=0))) / np.sqrt(len(rows))
    if strength <= max(_SURE * error, 1e-6) or (len(rows) == 1 and strength < 0.1 * length):
        return Lighting(_TOP_LEFT, 0.5)
    return Lighting(
        float(np.arctan2(mean[1], mean[0])), float(np.clip(0.3 + 0.7 * strength / (_COHERENT * length), 0, 1))
    )


def blur_of(picture: Floats) -> float:
    """Return the sigma in px of the blur of a picture's sharpest edges, 0 to 3; 0.6 where there are too few edges.

    At a step of blur s the gradient falls by sqrt(1 + b^2 / s^2) when it is blurred again by b (Zhuo and Sim, "Defocus
    map estimation from a single image", Pattern Recognition 44, 2011, section 3).

    Args:
        picture: float32 (h,w,3) in [-1,1].
    """
    grey = cv2.GaussianBlur(np.ascontiguousarray(picture.mean(axis=2, dtype=np.float32)), (0, 0), _AGAINST_GRAIN)
    once, twice = (_steepness(one) for one in (grey, cv2.GaussianBlur(grey, (0, 0), _REBLUR)))
    crest = once >= cv2.dilate(once, np.ones((3, 3), np.uint8))
    edges = crest & (once > max(8 * grain_of(picture), 0.04)) & (once >= np.quantile(once, 0.9))
    if edges.sum() < _LEAST_EDGES:
        return _USUAL_BLUR
    ratio = once[edges] / np.maximum(twice[edges], 1e-6)
    blurs = _REBLUR / np.sqrt(np.maximum(ratio**2 - 1, 1e-2))
    # The central difference itself blurs like a sigma of 0.58 px (a box of 2 px).
    seen = float(np.quantile(blurs, _SHARPEST)) ** 2 - _AGAINST_GRAIN**2 - 1 / 3
    return float(np.sqrt(np.clip(seen, 0, _MOST_BLUR**2)))


def grain_of(picture: Floats) -> float:
    """Return the standard deviation of a picture's grain (Immerkaer 1996, with a median)."""
    return float(np.median(grain_map(picture))) / 0.6745 / 6 if min(picture.shape[:2]) >= 3 else 0.0


def grain_from(picture: Floats) -> Floats:
    """Return a picture's grain, float32 (h,w,C), without its edges: what a blur of 1 px takes, up to 3 deviations."""
    fine = picture - np.reshape(cv2.GaussianBlur(np.ascontiguousarray(picture), (0, 0), 1.0), picture.shape)
    most = 3 * grain_of(picture)
    return np.asarray(np.clip(fine, -most, most), np.float32)


def _steepness(grey: Floats) -> Floats:
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *order, ksize=1, scale=0.5) for order in ((1, 0), (0, 1)))
    return np.asarray(cv2.magnitude(across, down))
