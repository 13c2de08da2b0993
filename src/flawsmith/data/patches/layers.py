"""Pictures to take patches from or to fill, at one scale, and many of them side by side in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Floats = np.ndarray
Mask = np.ndarray

PATCH = 7
"""Side of a patch, px at every scale."""
HALF = PATCH // 2


@dataclass(frozen=True, slots=True)
class Layer:
    """A picture with its guide at one scale."""

    values: Floats
    """float32 (h,w,C), without grain."""
    grain: Floats
    """float32 (h,w,C): what belongs on top, at full scale; what is smaller shows none."""
    guide: Floats
    """float32 (h,w,G): leads every search."""
    position: Floats
    """float32 (h,w,2): where in the whole damage a pixel lies; says only what to begin with."""
    mask: Mask
    """bool (h,w): where a patch may be taken from; of the target, where it is to be filled."""

    def at(self, scale: float, share: float) -> Layer:
        """Return it smaller; `share` of a cell's area must lie in the mask for it to count."""
        if scale == 1:
            return self
        size = max(round(self.mask.shape[1] * scale), 1), max(round(self.mask.shape[0] * scale), 1)
        cover, *planes = (
            cv2.resize(np.ascontiguousarray(plane, np.float32), size, interpolation=cv2.INTER_AREA)
            for plane in (self.mask, self.values, self.guide, self.position)
        )
        values, guide, position = (np.reshape(plane, (*cover.shape, -1)) for plane in planes)
        return Layer(values, np.zeros_like(values), guide, position, cover >= min(share, float(cover.max())))


@dataclass(frozen=True, slots=True)
class Stack:
    """Sources side by side in flat arrays, each with a border of half a patch, so that a patch is a set of offsets."""

    values: Floats
    """float32 (N,C), without grain."""
    grain: Floats
    """float32 (N,C)."""
    guide: Floats
    """float32 (N,G)."""
    position: Floats
    """float32 (N,2)."""
    centres: np.ndarray
    """int64 (K,): where patches may be taken."""
    width: np.ndarray
    """int64 (N,): length of a row of the source that a pixel belongs to."""
    corners: np.ndarray
    """int64 (S,): the first pixel of each source, its border included."""
    shapes: np.ndarray
    """int64 (S,2): rows and columns without borders."""

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> Stack:
        around = ((HALF, HALF), (HALF, HALF), (0, 0))
        values, grains, guides, positions, centres, widths, corners = [], [], [], [], [], [], []
        start = 0
        for layer in layers:
            height, width = layer.mask.shape
            wide = width + 2 * HALF
            corners.append(start)
            rows, columns = np.nonzero(layer.mask)
            centres.append(start + (rows + HALF) * wide + columns + HALF)
            values.append(np.pad(layer.values, around, mode="edge").reshape(-1, layer.values.shape[2]))
            grains.append(np.pad(layer.grain, around, mode="edge").reshape(-1, layer.grain.shape[2]))
            guides.append(np.pad(layer.guide, around, mode="edge").reshape(-1, layer.guide.shape[2]))
            positions.append(np.pad(layer.position, around, mode="edge").reshape(-1, layer.position.shape[2]))
            widths.append(np.full(len(values[-1]), wide))
            start += (height + 2 * HALF) * wide
        shapes = np.array([layer.mask.shape for layer in layers])
        return cls(
            values=np.concatenate(values),
            grain=np.concatenate(grains),
            guide=np.concatenate(guides),
            position=np.concatenate(positions),
            centres=np.concatenate(centres),
            width=np.concatenate(widths),
            corners=np.array(corners),
            shapes=shapes,
        )

    def patches(self, plane: Floats, centres: np.ndarray) -> Floats:
        """Return the patches of a plane (N,C) round the centres, float32 (K,PATCH*PATCH,C)."""
        rows, columns = offsets()
        return np.asarray(plane[centres[:, None] + rows * self.width[centres][:, None] + columns])

    def locate(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the source, the row and the column of pixels, int64 (K,) each."""
        source = np.searchsorted(self.corners, pixels, side="right") - 1
        row, column = np.divmod(pixels - self.corners[source], self.width[pixels])
        return source, row - HALF, column - HALF

    def pixels(self, source: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Undo `locate`; what lies outside of a source becomes its nearest pixel."""
        row = np.clip(row, 0, self.shapes[source, 0] - 1)
        column = np.clip(column, 0, self.shapes[source, 1] - 1)
        wide = self.shapes[source, 1] + 2 * HALF
        return np.asarray(self.corners[source] + (row + HALF) * wide + column + HALF)


def offsets() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.divmod(np.arange(PATCH * PATCH), PATCH)
    return rows - HALF, columns - HALF


def patches_of(plane: Floats, pixels: np.ndarray) -> Floats:
    """Return the patches of a plane (h,w,C) round flat pixels (Q,), float32 (Q,PATCH*PATCH,C)."""
    around = np.pad(plane, ((HALF, HALF), (HALF, HALF), (0, 0)), mode="edge")
    row, column = np.divmod(pixels, plane.shape[1])
    rows, columns = offsets()
    return np.asarray(around[row[:, None] + HALF + rows, column[:, None] + HALF + columns])


def weights_of(sigma: float) -> Floats:
    """How much each pixel of a patch counts, float32 (PATCH*PATCH,): less towards its border."""
    rows, columns = offsets()
    return np.exp(-(rows**2 + columns**2) / (2 * sigma**2)).astype(np.float32)
