"""Line-like damage: its path, its thickness and wriggle along the path, and its branches.

The path is the longest way through the mask that keeps to its middle; it takes the place of a skeleton and, unlike one,
has no spurs. A line that is broken into pieces is one line whose thickness is 0 in the gaps. The thickness is the
damage's area per length, so what is swept along a path of the same length has the same area. What leaves the path is a
branch with a path of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

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
_BRANCH = 2.0
"""Least distance of a branch's end from the path, over the line's thickness."""
_PIXELS = 6000
"""Pixels of damage that are looked at: thick damage is shrunk to so many, though not below `_FINE` px of thickness."""
_FINE = 6.0


@dataclass(frozen=True, slots=True)
class Branch:
    """A line that leaves another one."""

    at: int
    """Point of the other's path at which it begins."""
    angle: float
    """Radians from the other's direction there to where it leads: its last point, seen from its first."""
    line: Line
    """Its own path, from the other one outwards; without branches."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line-like damage."""

    path: np.ndarray
    """float64 (N,2): x and y of points 1 px apart along it, px in the mask; N >= 2."""
    width: np.ndarray
    """float64 (N,): thickness at each point, px; 0 in gaps."""
    wriggle: np.ndarray
    """float64 (N,): how far aside of its own course, as `curvature` sees it, the damage's middle lies, px."""
    branches: tuple[Branch, ...] = ()

    @property
    def reversed(self) -> Line:
        """The same line from its other end."""
        last = len(self.path) - 1
        # The direction is the opposite one, and so is what lies aside.
        branches = tuple(Branch(last - one.at, one.angle + np.pi, one.line) for one in self.branches)
        return Line(self.path[::-1], self.width[::-1], -self.wriggle[::-1], branches)

    @property
    def area(self) -> float:
        """Of the line and its branches, px."""
        return float(self.width.sum()) + sum(branch.line.area for branch in self.branches)

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
        step = np.diff(_smoothed(self.path, _course(self.typical_width)), axis=0)
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
    path = even(_smoothed(path, max(1.5, 0.5 * wide)))
    if len(path) < 8:
        return None
    rows, columns = np.nonzero(crop)
    pixels = (np.stack([columns, rows], axis=1) + 0.5) * scale - 0.5
    per_pixel = float(scale.prod())
    away, nearest = cKDTree(path).query(pixels)
    near = away <= 1.5 * area / len(path) + 1
    whole = _line(path, pixels[near], nearest[near], wide, per_pixel)
    counts = np.bincount(nearest[near], minlength=len(path))
    along, gaps = float(near.mean()), float((whole.width == 0).mean())
    pieces = cv2.connectedComponents(crop, connectivity=8)[0] - 1
    # A row of dots is no broken line.
    dashes = pieces == 1 or np.count_nonzero(counts) / pieces > _DASH * wide
    slender = whole.length > SLENDER * whole.typical_width and dashes
    if not (slender and along >= _ALONG and gaps <= _GAPS):
        return None
    left = away > 0.5 * whole.typical_width + 1
    off, branches = np.zeros(len(pixels), bool), list[Branch]()
    for members in _components(crop.shape, rows, columns, left):
        if (branch := _branch(path, pixels[members], whole.typical_width, wide, per_pixel)) is not None:
            off[members] = True
            branches.append(branch)
    line = _line(path, pixels[near & ~off], nearest[near & ~off], wide, per_pixel) if branches else whole
    corner = np.array([spot[1].start, spot[0].start])
    laid = tuple(replace(one, line=replace(one.line, path=one.line.path + corner)) for one in branches)
    return replace(line, path=path + corner, branches=laid)


def _line(path: np.ndarray, pixels: np.ndarray, nearest: np.ndarray, wide: float, per_pixel: float) -> Line:
    """Return a line of a path (N,2) and its pixels (P,2), of each of which `nearest` (P,) is the point next to it."""
    soft = 1.0 + wide / 4
    counts = np.bincount(nearest, minlength=len(path)).astype(np.float64)
    full = gaussian_filter1d(np.ones(len(path)), soft, mode="constant")
    width = gaussian_filter1d(counts * per_pixel, soft, mode="constant") / full
    typical = float(np.median(width[width > 0]))
    width[width < 0.3 * typical] = 0.0
    course = _smoothed(path, _course(float(np.median(width[width > 0]))))
    aside = ((pixels - course[nearest]) * normals_of(course)[nearest]).sum(axis=1)
    asides = gaussian_filter1d(np.bincount(nearest, aside, len(path)), soft, mode="constant")
    seen = gaussian_filter1d(counts, soft, mode="constant")
    return Line(path, width, asides / np.maximum(seen, 1e-9))


def _components(
    shape: tuple[int, ...], rows: np.ndarray, columns: np.ndarray, chosen: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield the places (P,) of the chosen pixels of each piece that they make."""
    left = np.zeros(shape, np.uint8)
    left[rows[chosen], columns[chosen]] = 1
    count, labels = cv2.connectedComponents(left, connectivity=8)
    of_pixel = labels[rows, columns]
    for piece in range(1, count):
        yield np.flatnonzero(of_pixel == piece)


def _branch(path: np.ndarray, pixels: np.ndarray, typical: float, wide: float, per_pixel: float) -> Branch | None:
    """Return what leaves a path (N,2), of pixels (P,2) that lie apart from it; None where it is too short to be one."""
    away, nearest = cKDTree(path).query(pixels)
    if away.max() < _BRANCH * typical or len(pixels) * per_pixel < _BRANCH * typical:
        return None
    at = round(float(nearest[away <= away.min() + 1].mean()))
    # As straight as few points say: from the path through the middles of what is so and so far away from it.
    ranks = np.hypot(*(pixels - path[at]).T)
    steps = max(round(float(ranks.max()) / (2 * typical)), 1)
    slot = np.minimum((ranks / (ranks.max() + 1e-9) * steps).astype(int), steps - 1)
    middles = [pixels[slot == number].mean(axis=0) for number in range(steps) if (slot == number).any()]
    own = even(np.stack([path[at], *middles, pixels[int(ranks.argmax())]]))
    line = _line(own, pixels, cKDTree(own).query(pixels)[1], wide, per_pixel)
    first_seen = int((line.width > 0).argmax())
    line.width[:first_seen] = line.width[first_seen]  # it begins under the other line
    direction = _smoothed(path, _course(typical))
    tangent = direction[min(at + 1, len(path) - 1)] - direction[max(at - 1, 0)]
    leads = own[-1] - own[0]
    return Branch(at, float(np.arctan2(leads[1], leads[0]) - np.arctan2(tangent[1], tangent[0])), line)


def normals_of(path: np.ndarray) -> np.ndarray:
    """Return the unit vectors across a path (N,2) at its points, float64 (N,2); N >= 2."""
    steps = np.gradient(path, axis=0)
    steps /= np.maximum(np.hypot(*steps.T), 1e-9)[:, None]
    return np.stack([-steps[:, 1], steps[:, 0]], axis=1)


def _course(typical_width: float) -> float:
    """Return the sigma in px over which the course of a line of that thickness is told from its wriggle."""
    return max(2.0, typical_width)


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


def even(path: np.ndarray) -> np.ndarray:
    """The same path with points about 1 px apart, at least two."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    wanted = np.linspace(0, along[-1], max(round(float(along[-1])), 1) + 1)
    return np.stack([np.interp(wanted, along, path[:, axis]) for axis in (0, 1)], axis=1)
