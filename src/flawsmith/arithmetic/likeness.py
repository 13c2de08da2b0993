"""Likeness of two small pictures, however one of them is turned or mirrored: by which copies are known."""

from __future__ import annotations

import numpy as np

SIDE = 32
"""Side in pixels of the pictures that are compared: small enough that grain does not count."""
_CHUNK = 64


def likeness(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the greatest correlation of brightness over the eight mirrored and turned views, float64 (N,M), <= 1.

    Args:
        one: (N,SIDE,SIDE): brightness without its mean, of unit length.
        other: (M,SIDE,SIDE), likewise.
    """
    best = np.full((len(one), len(other)), -1.0)
    rows = one.reshape(len(one), -1).astype(np.float64)
    for view in range(8):
        turned = np.rot90(other[:, :, ::-1] if view % 2 else other, view // 2, (1, 2))
        columns = turned.reshape(len(other), -1).astype(np.float64)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            best[part] = np.maximum(best[part], rows[part] @ columns.T)
    return best
