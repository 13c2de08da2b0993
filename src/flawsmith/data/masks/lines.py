"""Line-like damage: its path, its thickness along the path, and new paths of the same character.

The path is the longest way through the mask that keeps to its middle; it takes the place of a skeleton and, unlike one,
has no spurs. A line that is broken into pieces is one line whose thickness is 0 in the gaps. The thickness is the
damage's area per length, so what is swept along a path of the same length has the same area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from flawsmith.data.windows import spot_of

Mask = np.ndarray

SLENDER = 5.0
"""Length over thickness from which damage is a line."""
_PIECES = 8
"""Most pieces of a broken line."""
_GAPS = 0.35
"""Largest share of a broken line that its gaps are."""
_DASH = 2.5
"""Mean length of a broken line's pieces over their thickness, at least."""
_ALONG = 0.75
"""Share of the damage that lies along its longest path; less is a net or a blob with a tail."""
_PIXELS = 6000
"""Pixels of damage that are looked at: thick damage is shrunk to so many, though not below `_FINE` px of thickness."""
_FINE = 6.0
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Line:
    """A line-like damage."""

    path: np.ndarray
    """float64 (N,2): x and y of points 1 px apart along it, px in the mask; N >= 2."""
    width: np.ndarray
    """float64 (N,): thickness at each point, px; 0 in gaps."""

    @property
    def length(self) -> float:
        """Along the path, px."""
        return float(len(self.path) - 1)

    @property
    def chord(self) -> np.ndarray:
        """From the first point to the last, float64 (2,)."""
        return np.asarray(self.path[-1] - self.path[0])

    @property
    def straightness(self) -> float:
        """Length of the chord over that of the path, 0..1."""
        return float(np.hypot(*self.chord)) / self.length

    @property
    def typical_width(self) -> float:
        """The median thickness outside gaps, px."""
        return float(np.median(self.width[self.width > 0]))

    def curvature(self) -> np.ndarray:
        """Return radians per px at N - 2 points; mirrored where need be, so that in total it turns to one side."""
        step = np.diff(_smoothed(self.path, max(2.0, self.typical_width)), axis=0)
        turned = np.diff(np.unwrap(np.arctan2(step[:, 1], step[:, 0])))
        return np.asarray(turned if turned.sum() >= 0 else -turned)


def coarseness(area: float, wide: float) -> float:
    """Return the step in px, 1 or more, at which damage of this area and thickness is looked at."""
    return max(min(float(np.sqrt(area / _PIXELS)), wide / _FINE), 1.0)


def read_line(mask: Mask) -> Line | None:
    """Return the path and thickness of line-like damage; None where it is none.

    Args:
        mask: bool (H,W), not empty.
    """
    if mask.all():
        return None
    spot = spot_of([], mask, 1)
    crop = mask[spot].astype(np.uint8)
    area = int(crop.sum())
    # Damage goes on beyond the border that it touches, so it is not thinner there.
    padded = cv2.copyMakeBorder(crop, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    mean_depth = float(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1][crop > 0].mean())
    wide = max(4 * mean_depth - 2, 1.0)  # mean of the distances to the nearest side: 1 for a line of 1 px, 1.5 for 3
    if area < 0.7 * SLENDER * wide**2 or area < 8:
        return None
    by = 1 / coarseness(area, wide)
    if by < 1:
        size = max(round(crop.shape[1] * by), 1), max(round(crop.shape[0] * by), 1)
        crop = (cv2.resize(crop * 255, size, interpolation=cv2.INTER_AREA) >= 128).astype(np.uint8)
    joined = _joined(crop)
    if joined is None or not joined.any():
        return None
    scale = np.array([(spot[1].stop - spot[1].start) / crop.shape[1], (spot[0].stop - spot[0].start) / crop.shape[0]])
    path = (_longest_path(joined) + 0.5) * scale - 0.5
    path = _even(_smoothed(path, max(1.5, 0.5 * wide)))
    if len(path) < 8:
        return None
    rows, columns = np.nonzero(crop)
    pixels = (np.stack([columns, rows], axis=1) + 0.5) * scale - 0.5
    away, nearest = cKDTree(path).query(pixels)
    per_pixel = float(scale.prod())
    near = away <= 1.5 * area / len(path) + 1
    counts = np.bincount(nearest[near], minlength=len(path)) * per_pixel
    width = gaussian_filter1d(counts.astype(np.float64), 1.0 + wide / 4, mode="constant")
    width /= gaussian_filter1d(np.ones(len(path)), 1.0 + wide / 4, mode="constant")
    typical = float(np.median(width[width > 0]))
    width[width < 0.3 * typical] = 0.0
    line = Line(path + (spot[1].start, spot[0].start), width)
    along, gaps = float(near.mean()), float((width == 0).mean())
    pieces = cv2.connectedComponents(crop, connectivity=8)[0] - 1
    # A row of dots is no broken line.
    dashes = pieces == 1 or np.count_nonzero(counts) / pieces > _DASH * wide
    slender = line.length > SLENDER * typical and dashes
    return line if slender and along >= _ALONG and gaps <= _GAPS else None


def _joined(crop: Mask) -> Mask | None:
    """The pieces of a mask joined by shortest bridges, nearest first, bool; None where there are too many."""
    count, labels = cv2.connectedComponents(crop, connectivity=8)
    if count - 1 > _PIECES:
        return None
    joined = crop.copy()
    points = [np.argwhere(labels == piece) for piece in range(1, count)]
    if not points:
        return None
    reached = points.pop(max(range(len(points)), key=lambda piece: len(points[piece])))
    while points:
        tree = cKDTree(reached)
        nearest = [tree.query(piece) for piece in points]
        piece = min(range(len(points)), key=lambda number: nearest[number][0].min())
        here = int(nearest[piece][0].argmin())
        ends = points[piece][here], reached[nearest[piece][1][here]]
        (row, column), (to_row, to_column) = (map(int, end) for end in ends)
        cv2.line(joined, (column, row), (to_column, to_row), 1, 1)
        reached = np.concatenate([reached, points.pop(piece)])
    return joined > 0


def _longest_path(mask: Mask) -> np.ndarray:
    """Return the path between the two ends of a connected mask that keeps to its middle, float64 (N,2) x, y."""
    number = np.full(mask.shape, -1)
    rows, columns = np.nonzero(mask)
    number[rows, columns] = np.arange(len(rows))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1][rows, columns].astype(np.float64)
    pairs, steps = [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        first = number[: mask.shape[0] - down, max(-right, 0) : mask.shape[1] - max(right, 0)]
        second = number[down:, max(right, 0) : mask.shape[1] + min(right, 0)]
        both = (first >= 0) & (second >= 0)
        pairs.append(np.stack([first[both], second[both]]))
        steps.append(np.full(int(both.sum()), float(np.hypot(down, right))))
    (start, end), step = np.concatenate(pairs, axis=1), np.concatenate(steps)
    shape = (len(rows), len(rows))
    plain = csr_array((step, (start, end)), shape)
    farthest = int(_finite(dijkstra(plain, directed=False, indices=0)).argmax())
    other = int(_finite(dijkstra(plain, directed=False, indices=farthest)).argmax())
    middle = csr_array((step / np.minimum(depth[start], depth[end]) ** 2, (start, end)), shape)
    _, before = dijkstra(middle, directed=False, indices=farthest, return_predecessors=True)
    way = [other]
    while way[-1] != farthest:
        way.append(int(before[way[-1]]))
    return np.stack([columns[way], rows[way]], axis=1).astype(np.float64)


def _finite(distances: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(distances), distances, -1.0)


def _smoothed(path: np.ndarray, sigma: float) -> np.ndarray:
    """A path (N,2) without steps of pixels; its ends stay."""
    pad = min(int(3 * sigma) + 1, len(path) - 1)
    if pad < 1:
        return path
    longer = np.concatenate([2 * path[0] - path[pad:0:-1], path, 2 * path[-1] - path[-2 : -pad - 2 : -1]])
    return np.asarray(gaussian_filter1d(longer, sigma, axis=0)[pad : pad + len(path)])


def _even(path: np.ndarray) -> np.ndarray:
    """The same path with points about 1 px apart, at least two."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    wanted = np.linspace(0, along[-1], max(round(float(along[-1])), 1) + 1)
    return np.stack([np.interp(wanted, along, path[:, axis]) for axis in (0, 1)], axis=1)


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


def new_width(line: Line, count: int, rng: np.random.Generator, *, may_turn: bool = True) -> np.ndarray:
    """Return a line's thickness at `count` points of a new path, float64 (count,), px.

    Args:
        line: Where the thickness is taken from.
        count: Points.
        rng: All randomness.
        may_turn: Whether either end may come first.
    """
    ends = np.linspace(0, 1, 5)
    steps = np.exp(rng.uniform(-0.4, 0.4, 4))
    there = np.interp(np.linspace(0, 1, count), np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum(), ends)
    profile = line.width[::-1] if may_turn and rng.random() < 0.5 else line.width
    index = np.minimum((there * len(profile)).astype(int), len(profile) - 1)
    return np.asarray(profile[index])


def laid_between(path: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return a path moved, turned and scaled so that it leads from one point to another, with points 1 px apart."""
    (x, y), (to_x, to_y) = path[-1] - path[0], end - start
    turn = complex(to_x, to_y) / (complex(x, y) or 1.0)
    moved = ((path - path[0]) @ np.array([1, 1j])) * turn
    return _even(np.stack([moved.real, moved.imag], axis=1) + start)


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
