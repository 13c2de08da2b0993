"""How annotators fill a mask: how much is changed at which depth inside the label, learned from shots and kept.

Labels are generous in their own way per type: some end where the damage does, some hold a broad rim of normal surface.
A detector learns that relation, so what is painted must keep it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Floats = np.ndarray
Mask = np.ndarray

BINS = 6
_SIGMA = 1.0
"""Px: what is finer is grain, not change."""
_GAINS = (0.5, 2.0)


def profile_of(ratio: Floats, depth: Floats) -> tuple[Floats, Floats]:
    """Return the mean size of the change in each part of a label's depth, and how many px each part has.

    Args:
        ratio: float32 (h,w,C): logarithm of the picture over what it would be undamaged.
        depth: float32 (h,w), see `ratios.relative_depth`; the parts are equal shares of 0..1, from the border inwards.

    Returns:
        float64 (BINS,) twice; 0 where a part has no pixel.
    """
    change = np.abs(coarse_of(ratio)).mean(axis=2)
    inside = depth > 0
    part = np.minimum((depth[inside] * BINS).astype(int), BINS - 1)
    count = np.bincount(part, minlength=BINS).astype(np.float64)
    total = np.bincount(part, weights=change[inside].astype(np.float64), minlength=BINS)
    return total / np.maximum(count, 1), count


def mean_profile(profiles: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Return the mean of profiles, weighted by pixels, float64 (BINS,); a part that none has is as its neighbours."""
    count = np.sum([count for _, count in profiles], axis=0)
    total = np.sum([values * count for values, count in profiles], axis=0)
    known = np.flatnonzero(count)
    if not len(known):
        return np.zeros(BINS)
    return np.interp(np.arange(BINS), known, total[known] / count[known])


def with_profile(ratio: Floats, depth: Floats, wanted: Floats, through: float = 1.0) -> Floats:
    """Return a ratio (h,w,C) whose change follows a profile (BINS,) within limits; its grain stays as it is.

    Args:
        ratio: float32 (h,w,C).
        depth: float32 (h,w), see `ratios.relative_depth`.
        wanted: float64 (BINS,).
        through: How much of the ground shines through (`sources.shine_through`): what hides it has a tone of its own,
            and a larger ratio would be another colour.
    """
    made = mean_profile([profile_of(ratio, depth)])
    gain = np.clip(np.maximum(wanted, 1e-3) / np.maximum(made, 1e-3), *_GAINS) ** through
    middle = (np.arange(BINS) + 0.5) / BINS
    field = np.interp(np.clip(depth, 0, 1), middle, gain).astype(np.float32)[:, :, None]
    coarse = coarse_of(ratio)
    return np.asarray(ratio + (field - 1) * coarse, np.float32)


def coarse_of(ratio: Floats) -> Floats:
    """Return a ratio (h,w,C) without its grain."""
    return np.reshape(cv2.GaussianBlur(np.ascontiguousarray(ratio), (0, 0), _SIGMA), ratio.shape)
