"""Affine warps of a part of a picture: the values that warping all of it would give, in the memory of that part.

OpenCV's `warpAffine` begins at the picture's corner, so a damage far from it takes a whole float picture before the
warp and one after. Here places are computed for the wanted pixels alone, and `remap` reads them from the part of the
source that they reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np

from flawsmith.data.tiling import Spot

_TAPS = 3
"""Pixels round a place that interpolation may read, and one more."""
LONGEST = 32766
"""Px: OpenCV's remap takes no longer sides."""
_BLOCK = 1024
"""Px: side of the pieces in which longer ones are warped."""


def places(matrix: np.ndarray, spot: Spot) -> np.ndarray:
    """Return where the pixels of a part of the warped picture come from: x and y in px of the source, float32 (2,h,w).

    Args:
        matrix: float64 (2,3): from px (x, y) of the source to px of the warped picture.
        spot: Rows and columns of the warped picture, with start and stop.
    """
    y, x = (np.arange(side.start, side.stop, dtype=np.float64) for side in spot)
    back = cv2.invertAffineTransform(matrix)
    return np.stack([by_x * x + (by_y * y + shift)[:, None] for by_x, by_y, shift in back]).astype(np.float32)


def reach_of(at: np.ndarray, shape: Sequence[int]) -> Spot:
    """Return the part of a source of `shape` (H,W) that pixels from these places read when it is mirrored at its edges.

    Its own edges are edges of the source where a place lies beyond them, so mirroring the part mirrors the source.
    """
    rows, columns = (_reached(float(at[axis].min()), float(at[axis].max()), shape[1 - axis]) for axis in (1, 0))
    return rows, columns


def _reached(low: float, high: float, length: int) -> slice:
    first, last = int(np.floor(low)) - _TAPS, int(np.ceil(high)) + _TAPS
    if first < 0 and last >= length or min(first, last) < 1 - length or max(first, last) > 2 * length - 2:
        return slice(0, length)
    if first < 0:
        return slice(0, min(max(last, -first) + 1, length))
    if last >= length:
        return slice(max(min(first, 2 * (length - 1) - last), 0), length)
    return slice(first, last + 1)


class Source(NamedTuple):
    """A part of a picture, and where it lies in it."""

    values: np.ndarray
    """float32 (h,w) or (h,w,3)."""
    corner: tuple[int, int]
    """Row and column of its first pixel."""

    def part(self, spot: Spot) -> np.ndarray:
        """Return the values at rows and columns of the picture."""
        row, column = self.corner
        return self.values[spot[0].start - row : spot[0].stop - row, spot[1].start - column : spot[1].stop - column]

    def at(self, at: np.ndarray, interpolation: int, border: int) -> np.ndarray:
        """Return what lies at places of the picture, float32 (h,w) or (h,w,3).

        Args:
            at: As from `places`.
            interpolation: OpenCV's.
            border: OpenCV's border mode; a constant border is 0.
        """
        if not at.size:  # OpenCV refuses to warp nothing
            return np.zeros((*at.shape[1:], *self.values.shape[2:]), np.float32)
        # A place less a whole number that is not larger is exact.
        y, x = at[1] - np.float32(self.corner[0]), at[0] - np.float32(self.corner[1])
        if max(*y.shape, *self.values.shape[:2]) <= LONGEST:
            return np.asarray(cv2.remap(self.values, x, y, interpolation, borderMode=border, borderValue=0))
        warped = np.empty((*y.shape, *self.values.shape[2:]), np.float32)
        for top, left in product(range(0, y.shape[0], _BLOCK), range(0, y.shape[1], _BLOCK)):
            block = slice(top, top + _BLOCK), slice(left, left + _BLOCK)
            rows, columns = reach_of(np.stack([x[block], y[block]]), self.values.shape)
            here = x[block] - np.float32(columns.start), y[block] - np.float32(rows.start)
            warped[block] = cv2.remap(
                self.values[rows, columns], *here, interpolation, borderMode=border, borderValue=0
            )
        return warped


def around(one: Spot, other: Spot) -> Spot:
    """Return the smallest part of a picture that holds two."""
    rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return rows, columns


def widened(spot: Spot, by: int, shape: Sequence[int]) -> Spot:
    """Return a part of a picture of `shape` (H,W) with `by` px more on each side, as far as there are any."""
    rows, columns = (
        slice(max(side.start - by, 0), min(side.stop + by, int(length)))
        for side, length in zip(spot, shape[:2], strict=True)
    )
    return rows, columns
