"""Average precision of resamples of pictures, from scores that are counted in bins: what intervals are made of.

The point estimate belongs to `ranking`, which is exact; a thousand exact resamples would take hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

import numpy as np

from flawsmith.errors import DataError

_PORTION = 64
"""Resamples counted at a time: they take little memory."""
_CACHED = 8
"""Of these so many at a time stay in the processor's cache, which is several times faster."""


def histograms(
    scores: Iterable[np.ndarray], labels: Iterable[np.ndarray], edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count each picture's scores in common bins.

    With edges at quantiles of the defect scores, AUROC and AP move by about half a bin's share of them, or less.

    Args:
        scores: A picture's scores each, any shape.
        labels: Bool or integers of the same shapes; not 0 = defect.
        edges: Rising, (B-1,); a score on an edge belongs to the bin above it.

    Returns:
        Defect counts and normal counts, int32 (pictures, B) each, bins from HIGH scores to low.
    """
    rows: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for one, mask in zip(scores, labels, strict=True):
        flat, hit = np.asarray(one).ravel(), np.asarray(mask).ravel() != 0
        for side, part in zip(rows, (flat[hit], flat[~hit]), strict=True):
            below = np.sort(part).searchsorted(edges)
            side.append(np.diff(below, prepend=0, append=len(part))[::-1].astype(np.int32))
    return np.array(rows[0]), np.array(rows[1])


def weighted_ap(pos: np.ndarray, neg: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of resamples of pictures, on binned scores: ties inside a bin are one threshold.

    Args:
        pos: Defect counts (P,B), bins from high scores to low, as `histograms` gives them.
        neg: Normal counts (P,B).
        weights: How often each picture is in each resample (R,P), whole numbers.

    Returns:
        float64 (R,); NaN where a resample has no defect score.
    """
    return weighted_ap_of_unions(pos, neg, weights, [slice(None)], [[0]])[0]


def weighted_ap_of_unions(
    pos: np.ndarray,
    neg: np.ndarray,
    weights: np.ndarray,
    groups: Sequence[np.ndarray | slice],
    unions: Sequence[Sequence[int]],
) -> list[np.ndarray]:
    """Return `weighted_ap` of several unions of groups of pictures; each group is counted once for all of them.

    Args:
        pos: As for `weighted_ap`.
        neg: As for `weighted_ap`.
        weights: As for `weighted_ap`.
        groups: Indices of the pictures of each group; no picture is in two.
        unions: Numbers of the groups of each union.

    Returns:
        float64 (R,) for each union.
    """
    pos, neg, weights = np.asarray(pos), np.asarray(neg), np.asarray(weights)
    if pos.shape != neg.shape or pos.ndim != 2 or weights.shape[1:] != (len(pos),):
        raise DataError(f"resamples: {pos.shape}, {neg.shape}, {weights.shape}; give (P,B), (P,B) and (R,P)")
    # Counted from the highest bin down; whole numbers below 2^53, so sums are exact in whatever order.
    parts = [
        (
            np.ascontiguousarray(weights[:, members], np.float64),
            pos[members].cumsum(1, np.float64),
            (pos[members] + neg[members]).cumsum(1, np.float64),
        )
        for members in groups
    ]
    precisions = [np.empty(len(weights)) for _ in unions]
    for start in range(0, len(weights), _PORTION):
        drawn = slice(start, start + _PORTION)
        counts = [(one[drawn] @ hits, one[drawn] @ alarms) for one, hits, alarms in parts]
        for row in range(0, len(weights[drawn]), _CACHED):
            block = slice(row, row + _CACHED)
            for precision, union in zip(precisions, unions, strict=True):
                right = reduce(np.add, [counts[number][0][block] for number in union])
                flagged = reduce(np.add, [counts[number][1][block] for number in union])
                precision[drawn][block] = _ap(right, flagged)
    return precisions


def _ap(right: np.ndarray, flagged: np.ndarray) -> np.ndarray:
    """Return float64 (r,): average precision, from right alarms and all alarms (r,B) at the threshold of each bin."""
    gained = right.copy()
    gained[:, 1:] -= right[:, :-1]
    gained *= right
    gained /= np.maximum(flagged, np.finfo(float).tiny)
    with np.errstate(invalid="ignore"):
        precision: np.ndarray = gained.sum(1) / right[:, -1]
    return precision
