"""Average precision of resamples of pictures, from scores that are counted in bins: what intervals are made of.

The point estimate belongs to `ranking`, which is exact; a thousand exact resamples would take hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from flawsmith.errors import DataError


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
        weights: How often each picture is in each resample (R,P).

    Returns:
        float64 (R,); NaN where a resample has no defect score.
    """
    found = [np.zeros(0)]
    for gained, wrong in _resampled(pos, neg, weights):
        right = gained.cumsum(1)
        flagged = np.maximum(right + wrong.cumsum(1), np.finfo(float).tiny)
        with np.errstate(invalid="ignore"):
            found.append((gained * right / flagged).sum(1) / right[:, -1])
    return np.concatenate(found)


def _resampled(pos: np.ndarray, neg: np.ndarray, weights: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (defect, normal) counts, float64 (r,B), in portions of resamples that take little memory."""
    pos, neg, weights = (np.asarray(array, np.float64) for array in (pos, neg, weights))
    if pos.shape != neg.shape or pos.ndim != 2 or weights.shape[1:] != (len(pos),):
        raise DataError(f"resamples: {pos.shape}, {neg.shape}, {weights.shape}; give (P,B), (P,B) and (R,P)")
    for start in range(0, len(weights), 64):
        yield weights[start : start + 64] @ pos, weights[start : start + 64] @ neg
