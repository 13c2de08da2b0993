"""New lines of the character of real ones: their paths, their thickness along them, and what a disc sweeps there."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.spatial import cKDTree

from flawsmith.data.masks.lines.reading import Line, even, normals_of

Mask = np.ndarray

_TRIES = 10


def new_path(lines: Sequence[Line], length: float, rng: np.random.Generator) -> np.ndarray:
    """Return a path of the curvature and straightness of others, float64 (N,2) x, y, from (0,0), points 1 px apart.

    Its curvature is put together of pieces of theirs, in any order, forwards or backwards. Of several such paths the
    first is taken that is as straight as theirs; the one that comes nearest if none is.

    Args:
        lines: At least one.
        length: px along it, >= 1.
        rng: All randomness.
    """
    count = max(round(length), 2)
    straight = [line.straightness for line in lines]
    curvatures = [line.curvature() for line in lines]
    best, least = np.zeros((0, 2)), np.inf
    for _ in range(_TRIES):
        turns: list[np.ndarray] = []
        while sum(map(len, turns)) < count - 1:
            source = curvatures[int(rng.integers(len(lines)))]
            piece = max(min(round(count * rng.uniform(0.25, 0.6)), len(source)), 1)
            at = int(rng.integers(len(source) - piece + 1))
            turns.append(source[at : at + piece][:: 1 if rng.random() < 0.5 else -1])
        side = rng.choice((-1.0, 1.0)) * rng.uniform(0.75, 1.25)
        heading = side * np.concatenate([[0.0], np.cumsum(np.concatenate(turns)[: count - 1])])
        steps = np.stack([np.cos(heading), np.sin(heading)], axis=1)
        path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        share = float(np.hypot(*path[-1])) / count
        off = max(min(straight) - 0.03 - share, share - max(straight) - 0.03, 0.0)
        if off < least:
            best, least = path, off
        if off == 0:
            break
    return best


def new_places(line: Line, count: int, rng: np.random.Generator, *, may_turn: bool = True) -> np.ndarray:
    """Return which point of a line each of `count` points of a new path takes after, int (count,), rising or falling.

    Parts of the line become longer or shorter against each other.

    Args:
        line: Whose thickness, wriggle and branches the new one has.
        count: Points.
        rng: All randomness.
        may_turn: Whether either end may come first.
    """
    ends = np.linspace(0, 1, 5)
    steps = np.exp(rng.uniform(-0.4, 0.4, 4))
    there = np.interp(np.linspace(0, 1, count), np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum(), ends)
    index = np.minimum((there * len(line.path)).astype(int), len(line.path) - 1)
    return np.asarray(len(line.path) - 1 - index if may_turn and rng.random() < 0.5 else index)


def wriggling(path: np.ndarray, aside: np.ndarray) -> np.ndarray:
    """Return a path (N,2) whose points are moved aside by so many px (N,), see `Line.wriggle`."""
    return np.asarray(path + aside[:, None] * normals_of(path))


def laid_between(path: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return a path moved, turned and scaled so that it leads from one point to another, with points 1 px apart."""
    (x, y), (to_x, to_y) = path[-1] - path[0], end - start
    turn = complex(to_x, to_y) / (complex(x, y) or 1.0)
    moved = ((path - path[0]) @ np.array([1, 1j])) * turn
    return even(np.stack([moved.real, moved.imag], axis=1) + start)


def swept(path: np.ndarray, width: np.ndarray, shape: Sequence[int], area: float | None = None) -> Mask:
    """Return what a disc of changing size covers along a path, bool (H,W), not empty where the path is inside.

    Args:
        path: float64 (N,2) x, y, points about 1 px apart; it may lie outside the picture.
        width: float64 (N,) px; 0 = nothing is covered.
        shape: (H,W).
        area: px of the mask that is wanted: it is made a little thicker or thinner. None = as it comes.
    """
    mask = np.zeros(tuple(shape[:2]), bool)
    covered = width > 0
    path, radius = path[covered], np.maximum(width[covered] / 2, 0.5)
    most = float(radius.max()) + 1.5
    low = np.maximum(np.floor(path.min(axis=0) - most).astype(int), 0)
    high = np.minimum(np.ceil(path.max(axis=0) + most).astype(int) + 1, (shape[1], shape[0]))
    if (high <= low).any():
        return mask
    near = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    whole = np.rint(path - low).astype(int)
    joined = np.hypot(*np.diff(whole, axis=0).T) <= 3
    for piece in np.split(whole, np.flatnonzero(~joined) + 1):
        cv2.polylines(near, [piece.reshape(-1, 1, 2).astype(np.int32)], False, 1, int(2 * np.ceil(most)) + 1)
    rows, columns = np.nonzero(near)
    away, nearest = cKDTree(path).query(np.stack([columns, rows], axis=1) + low)
    level = radius[nearest] - away
    least = 0.0
    if area is not None:
        ranked = np.sort(level)[::-1]
        least = float(ranked[min(max(round(area), 1), len(ranked)) - 1])
    inside = level >= least
    mask[rows[inside] + low[1], columns[inside] + low[0]] = True
    return mask
