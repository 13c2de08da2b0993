"""Grain: the noise of the camera and the finest texture of a surface. It does not grow or shrink with damage.

Interpolation averages grain away, and a damage laid larger would get grain of larger pixels. So grain is parted from
what stands out of it, by a local Wiener filter (Lee, IEEE PAMI 1980), and laid in pieces that are moved but never
scaled. On surfaces only: of a part, threads and outlines would count as grain.
"""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.data.patches.ratios import signed_distance
from flawsmith.data.windows import IMMERKAER, grain_map

Floats = np.ndarray
Mask = np.ndarray
Corners = tuple[tuple[int, int], tuple[int, int]]

_ENOUGH = 30
"""Pixels that tell a median."""
_WINDOW = 5
"""Px: side of the window of which a pixel's mean and variance are taken."""
_RIM = 3.0
"""Px inside a label's border from which on its grain is told; nearer, and in thinner labels, edges would count."""
_ROUND = 16.0
"""Px round a label that count as its surroundings."""
_EQUAL = 1.2
"""Ratio of two photographs' grain below which they count as equal."""
_GAINS = (0.4, 2.5)
_DIHEDRAL = [np.array(turn) for s in (-1, 1) for t in (-1, 1) for turn in (((s, 0), (0, t)), ((0, s), (t, 0)))]
"""The eight ways to lay a square on itself."""
_ABOVE = 2.0
"""Local variance, over the usual one, up to which all is grain: the variance of few pixels differs by chance."""
_FINE = 0.5
"""Sigma in px below which lies what interpolation takes away."""
_SHARPEST = 1.75
"""By what that is multiplied at most: more would make noise stand out that is coarser."""
_STRONG = 4.0
"""Local variance of ratios inside a label, over that of its surroundings, up to which it is grain."""
_ROUGH = 5.0
"""The same of tones, for a camera's noise stands out in dark ratios: beyond it there is texture and no grain."""
_COARSE = 1.5
"""As many times what its finest part would have grown by, local variance is that of texture, coarser than grain is."""
PIECE = 24
"""Px: side of the pieces in which grain is laid. They show no seams, for grain agrees over a pixel or two only."""


def grain_in(ratio: Floats, distance: Floats) -> Floats:
    """Return the part of a ratio (h,w,C) that is grain, float32 (h,w,C): what varies no more than its surroundings do.

    Lee's filter, with the median of the local variance for that of the grain: inside the label and outside by itself.
    A label too thin to have an inside holds a line, so there the surroundings say what is grain; and so they do where
    its inside varies far more than they: a rough break or a cut has matter of its own, which must stay in one piece.

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
    if deep > _STRONG * usual > 0 and _is_rough(ratio, distance, deep / usual):
        deep = usual
    expected = np.where(distance > 0, deep, usual)
    share = np.minimum(_ABOVE * expected / np.maximum(variance, 1e-12), 1)
    return np.asarray(fine * share[:, :, None], np.float32)


def _is_rough(ratio: Floats, distance: Floats, times: float) -> bool:
    """Return whether what varies so many times as much inside a label as round it is texture."""
    inside, outside = distance > _RIM, distance < -_RIM
    finest = np.reshape(cv2.filter2D(np.ascontiguousarray(ratio), -1, IMMERKAER), ratio.shape) ** 2
    grown = float(np.median(finest[inside])) / max(float(np.median(finest[outside])), 36e-12)
    tone = float(np.median(ratio[inside]) - np.median(ratio[outside]))
    return bool(times * np.exp(2 * tone) > _ROUGH or times > _COARSE * grown)


def grain_under(ratio: Floats, mask: Mask) -> float:
    """Return the standard deviation of the grain under a mask, after Immerkaer (1996) with a median.

    Args:
        ratio: float32 (h,w,C).
        mask: bool (h,w).
    """
    if min(ratio.shape[:2]) < 3 or not mask.any():
        return 0.0
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0  # at the border it would see the edge
    return float(np.median(grain_map(ratio)[inner if inner.sum() >= _ENOUGH else mask]) / 0.6745 / 6)


def grain_round(picture: Floats, distance: Floats) -> float:
    """Return the standard deviation of the grain round a label, after Immerkaer (1996) with a median; 0 = unknown.

    Args:
        picture: float32 (h,w,C), or what else has its grain.
        distance: float32 (h,w): px from the label's border, positive inside.
    """
    ring = (distance < -_RIM) & (distance > -_ROUND)
    if min(distance.shape) < 3 or ring.sum() < _ENOUGH:
        return 0.0
    return float(np.median(grain_map(picture)[ring])) / 0.6745 / 6


def gain_between(source: float, target: float) -> float:
    """Return by what grain of one photograph is multiplied to suit another, by `grain_round` of both.

    Photographs of one camera differ by chance, so nearly equal grain stays as it is.
    """
    if min(source, target) <= 0:
        return 1.0
    gain = target / source
    return 1.0 if max(gain, 1 / gain) < _EQUAL else float(np.clip(gain, *_GAINS))


def regrained(
    posed: Floats, shot: Floats, label: Mask, matrix: Floats, normal: Floats, asked: Mask, *, corners: Corners
) -> Floats:
    """Return a re-posed shot with the grain of the shot's own damage, as strong as the normal photograph has grain.

    Interpolation took part of it away and scaled the rest.

    Args:
        posed: float32 (h,w,C) in [-1,1]: the shot, laid on a part of the normal photograph.
        shot: float32 (H,W,C) in [-1,1]: the part of the shot round its damage.
        label: bool (H,W): its damage.
        matrix: float64 (2,3): from the pixel centres (x, y) of the shot to those of the normal.
        normal: float32 (h,w,C): the same part of the normal photograph.
        asked: bool (h,w): where the damage comes to lie there.
        corners: Column and row at which the parts begin, of the shot and of the normal.
    """
    here, there = signed_distance(asked), signed_distance(label)
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ corners[0] - corners[1]
    gain = gain_between(grain_round(shot, there), grain_round(normal, here))
    laid = laid_unscaled(grain_in(shot, there), moved, (posed.shape[1], posed.shape[0]))
    return np.asarray(np.clip(posed - grain_in(posed, here) + np.float32(gain) * laid, -1, 1), np.float32)


def sharpened(posed: Floats, asked: Mask, shot: Floats, label: Mask) -> Floats:
    """Return a re-posed shot of a part with what is fine in it as strong under its damage as in the shot.

    Args:
        posed: float32 (h,w,C) in [-1,1]: the shot, laid on a part of the normal photograph.
        asked: bool (h,w): where the damage comes to lie there.
        shot: float32 (H,W,C) in [-1,1]: the part of the shot round its damage.
        label: bool (H,W): its damage.
    """
    made, wanted = grain_under(posed, asked), grain_under(shot, label)
    if min(made, wanted) <= 0:
        return posed
    fine = posed - np.reshape(cv2.GaussianBlur(posed, (0, 0), _FINE), posed.shape)
    gain = 1.0
    for _ in range(3):  # the measure sees what is a little coarser too
        again = grain_under(posed + np.float32(gain - 1) * fine, asked)
        gain = float(np.clip(gain * wanted / again, 1.0, _SHARPEST))
    return np.asarray(np.clip(posed + np.float32(gain - 1) * fine, -1, 1), np.float32)


def laid_unscaled(grain: Floats, matrix: Floats, size: tuple[int, int]) -> Floats:
    """Return grain laid as `cv2.warpAffine` would lay it, but in pieces of its own size: no pixel is interpolated.

    Args:
        grain: float32 (h,w,C).
        matrix: float64 (2,3): from its pixel centres (x, y) to those of the result; its pieces are mirrored as it
            says, and turned by the nearest multiple of a right angle.
        size: Width and height of the result.

    Returns:
        float32 (height,width,C).
    """
    width, height = size
    back = np.linalg.inv(matrix[:, :2])
    whole = max(_DIHEDRAL, key=lambda turn: float((turn * back).sum()))
    y, x = np.mgrid[:height, :width]
    middle_x, middle_y = x // PIECE * PIECE + PIECE // 2, y // PIECE * PIECE + PIECE // 2
    from_x, from_y = (
        np.rint(row[0] * (middle_x - matrix[0, 2]) + row[1] * (middle_y - matrix[1, 2])).astype(int) for row in back
    )
    off_x, off_y = x - middle_x, y - middle_y
    column = _reflected(from_x + whole[0, 0] * off_x + whole[0, 1] * off_y, grain.shape[1])
    row = _reflected(from_y + whole[1, 0] * off_x + whole[1, 1] * off_y, grain.shape[0])
    return np.asarray(grain[row, column])


def _reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Indices that leave 0..length-1 mirrored at the border, as often as need be."""
    index = np.mod(index, 2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def _mean(values: Floats) -> Floats:
    return np.reshape(cv2.blur(np.ascontiguousarray(values), (_WINDOW, _WINDOW)), values.shape)
