"""Grain: the noise of the camera and the finest texture of a surface. It does not grow or shrink with damage.

Interpolation averages grain away, and a damage laid larger would get grain of larger pixels. So grain is parted from
what stands out of it, by a local Wiener filter (Lee, IEEE PAMI 1980), and laid in pieces that are moved but never
scaled.
"""

from __future__ import annotations

import cv2
import numpy as np

Floats = np.ndarray
Mask = np.ndarray

_ENOUGH = 30
"""Pixels that tell a median."""
_WINDOW = 5
"""Px: side of the window of which a pixel's mean and variance are taken."""
_RIM = 3.0
"""Px inside a label's border from which on its grain is told; nearer, and in thinner labels, edges would count."""
_ABOVE = 2.0
"""Local variance, over the usual one, up to which all is grain: the variance of few pixels differs by chance."""
PIECE = 24
"""Px: side of the pieces in which grain is laid. They show no seams, for grain agrees over a pixel or two only."""


def grain_in(ratio: Floats, distance: Floats) -> Floats:
    """Return the part of a ratio (h,w,C) that is grain, float32 (h,w,C): what varies no more than its surroundings do.

    Lee's filter, with the median of the local variance for that of the grain: inside the label and outside by itself.
    A label too thin to have an inside holds a line, so there the surroundings say what is grain.

    Args:
        ratio: float32 (h,w,C), see `sources.Source`.
        distance: float32 (h,w): px from the label's border, positive inside.
    """
    fine = ratio - _mean(ratio)
    variance = _mean(fine**2).mean(axis=2)
    outside = variance[distance < -_RIM]
    usual = float(np.median(outside)) if outside.size else 0.0
    inside = variance[distance > _RIM]
    deep = float(np.median(inside)) if inside.size >= _ENOUGH else usual
    expected = np.where(distance > 0, deep, usual)
    share = np.minimum(_ABOVE * expected / np.maximum(variance, 1e-12), 1)
    return np.asarray(fine * share[:, :, None], np.float32)


def laid_unscaled(grain: Floats, matrix: Floats, size: tuple[int, int]) -> Floats:
    """Return grain laid as `cv2.warpAffine` would lay it, but in pieces of its own size: no pixel is interpolated.

    Args:
        grain: float32 (h,w,C).
        matrix: float64 (2,3): from its pixel centres (x, y) to those of the result; its pieces are turned by the
            nearest multiple of a right angle.
        size: Width and height of the result.

    Returns:
        float32 (height,width,C).
    """
    width, height = size
    back = np.linalg.inv(matrix[:, :2])
    quarter = -round(float(np.arctan2(matrix[1, 0], matrix[0, 0])) / (np.pi / 2))
    cos, sin = round(np.cos(quarter * np.pi / 2)), round(np.sin(quarter * np.pi / 2))
    y, x = np.mgrid[:height, :width]
    middle_x, middle_y = x // PIECE * PIECE + PIECE // 2, y // PIECE * PIECE + PIECE // 2
    from_x, from_y = (
        np.rint(row[0] * (middle_x - matrix[0, 2]) + row[1] * (middle_y - matrix[1, 2])).astype(int) for row in back
    )
    off_x, off_y = x - middle_x, y - middle_y
    column = _reflected(from_x + cos * off_x - sin * off_y, grain.shape[1])
    row = _reflected(from_y + sin * off_x + cos * off_y, grain.shape[0])
    return np.asarray(grain[row, column])


def _reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Indices that leave 0..length-1 mirrored at the border, as often as need be."""
    index = np.mod(index, 2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def _mean(values: Floats) -> Floats:
    return np.reshape(cv2.blur(np.ascontiguousarray(values), (_WINDOW, _WINDOW)), values.shape)
