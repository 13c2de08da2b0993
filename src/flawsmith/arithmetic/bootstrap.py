"""Percentile intervals of bootstrap resamples (Efron: "Bootstrap Methods", Annals of Statistics 1979)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from flawsmith.types import Figure

CONFIDENCE = 0.95
LEAST = 10
"""Finite resamples below which there is no interval."""


def with_interval(value: float, drawn: Iterable[float]) -> Figure:
    """Return a figure with the interval that holds the middle 95 % of its resamples.

    Args:
        value: The figure of all pictures.
        drawn: The same figure of each resample; infinities and NaN are left out, and of fewer than LEAST others no
            interval is made.
    """
    finite = [one for one in drawn if np.isfinite(one)]
    if len(finite) < LEAST:
        return Figure(float(value))
    low, high = np.quantile(finite, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Figure(float(value), float(low), float(high))
