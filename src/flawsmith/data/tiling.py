"""Which windows cover a damage: their places, their scales, their order.

How far a window zooms follows the damage's thickness as well as its box: a network cannot paint a crack that is half a
pixel wide at its own scale. So a compact damage gets one window with context round it, a long hairline several
overlapping ones that walk along it, and parts far apart get their own. `windows` holds what is done with a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from flawsmith.errors import DataError

Mask = np.ndarray
Points = np.ndarray

EDGE = 1 / 16
"""Share of a window's side over which its paint fades out towards the window's own edge; neighbours overlap by more."""
MOST = 24
"""No damage is covered by more windows than this; the windows grow instead."""
_NATIVE_CONTEXT, _NATIVE_SIDE, _DRAWN_SIDE = 1.5, 32, 256
"""Of the window of a generator at native scale: side over that of the damage's box, and the least side in px. Who draws
the mask needs room for it: 256 px is the whole picture of most papers."""

Spot = tuple[slice, slice]
"""Rows and columns: a part of a picture."""


@dataclass(frozen=True, slots=True)
class Window:
    """A square of native pixels. It may overhang the picture: what is outside is reflected when cut, never pasted."""

    top: int
    left: int
    side: int

    def inside(self, shape: Sequence[int]) -> tuple[slice, slice]:
        """Return the rows and columns of a picture of `shape` (H,W[,C]) that the window sees."""
        rows = slice(max(self.top, 0), max(min(self.top + self.side, shape[0]), 0))
        return rows, slice(max(self.left, 0), max(min(self.left + self.side, shape[1]), 0))

    def seen_from(self, spot: Spot) -> Window:
        """Return the same window with its place counted from a spot's corner."""
        return Window(self.top - spot[0].start, self.left - spot[1].start, self.side)

    def inner(self, shape: Sequence[int], margin: float) -> tuple[int, int, int, int]:
        """Return (top, left, bottom, right) of the part that is fully painted: `margin` px in from every window edge
        that has picture beyond it; up to the picture's own edge elsewhere."""
        top = 0 if self.top <= 0 else int(np.ceil(self.top + margin))
        left = 0 if self.left <= 0 else int(np.ceil(self.left + margin))
        bottom, right = self.top + self.side, self.left + self.side
        bottom = shape[0] if bottom >= shape[0] else int(bottom - margin)
        right = shape[1] if right >= shape[1] else int(right - margin)
        return top, left, bottom, right

    def to_json(self) -> list[int]:
        """Return [top, left, side]."""
        return [self.top, self.left, self.side]

    @classmethod
    def from_json(cls, value: Sequence[int]) -> Window:
        """Read what `to_json` wrote."""
        top, left, side = (int(number) for number in value)
        return cls(top, left, side)


def thickness(mask: Mask, quantile: float = 0.25) -> float:
    """Return the thickness in px of a mask's thinnest substantial part (0.0 when the mask is empty).

    It is a quantile, over the length of the mask's ridge, of the local thickness. Ridge points beside a much thicker
    part do not count, so the corners and frayed edges of a blob do not make it thin, while a hairline tail does.

    Args:
        mask: bool (H,W).
        quantile: 0 = the thinnest ridge point, 0.5 = the median.
    """
    widths = _ridge(mask)
    return float(np.quantile(widths, quantile)) if len(widths) else 0.0


def plan_windows(
    mask: Mask, size: int, *, context: float, min_thickness: float, max_zoom: float, overlap: float
) -> list[Window]:
    """Return the windows that together cover a mask, in painting order ([] when the mask is empty).

    Every mask pixel lies in at least one window's inner part, where `paste` paints at full strength. A compact damage
    gets one window of side = box * context; a thin one gets overlapping windows that walk along it; parts that are far
    apart get their own. At most `MOST` windows: their sides grow when more would be needed.

    Args:
        mask: bool (H,W) at native resolution.
        size: The working size in px to which every window is scaled.
        context: Side of a window over the longer side of the damage's box; > 1.
        min_thickness: The least thickness, in px at the working size, of the thinnest substantial part.
        max_zoom: The most that a window may be enlarged; goes before `min_thickness`.
        overlap: Share of the side by which neighbouring windows overlap, 0..0.6.
    """
    if mask.ndim != 2:
        raise DataError(f"a mask has two dimensions (H,W), this one has the shape {mask.shape}")
    if not mask.any():
        return []
    plan = _Plan(mask.shape[:2], size, context, min_thickness, max_zoom, max(overlap, 2 * EDGE))
    for _ in range(40):
        windows = plan.cover(mask)
        if windows is not None and len(windows) <= MOST:
            return windows
        plan.grow *= 1.25
    raise AssertionError("a window as large as the picture covers any mask")


def native_window(mask: Mask, *, drawn: bool) -> Window:
    """Return the one window that holds a whole mask with context: for generators that work at the camera's own scale.

    Args:
        mask: bool (H,W), not empty.
        drawn: True: the generator draws a mask of its own somewhere in the window.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    least = _DRAWN_SIDE if drawn else _NATIVE_SIDE
    return _Plan(mask.shape[:2], least, _NATIVE_CONTEXT, 0.0, 1.0, 2 * EDGE).one(box)


@dataclass(slots=True)
class _Plan:
    """Where windows go; `grow` rises until few enough cover the mask."""

    shape: tuple[int, ...]
    size: int
    context: float
    min_thickness: float
    max_zoom: float
    overlap: float
    grow: float = 1.0
    known: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)

    def widths(self, part: Points) -> np.ndarray:
        """The ridge's thickness, cached: a long hairline in a large picture is slow to measure."""
        key = (*box_of(part), len(part))
        if key not in self.known:
            self.known[key] = _ridge(_raster(part)[0])
        return self.known[key]

    def cover(self, mask: Mask) -> list[Window] | None:
        """Return the windows at the present `grow`, or None when there are hopelessly many."""
        windows: list[Window] = []
        groups = self.groups(mask)
        for group in groups or []:
            windows += self.cover_group(group)
            if len(windows) > MOST:
                return None
        return windows or None

    def least(self) -> int:
        return int(np.ceil(self.size / self.max_zoom * self.grow))

    def thin_side(self, width: float) -> int:
        """The largest side at which `width` native px still show as `min_thickness` px."""
        return max(int(self.size * width / max(self.min_thickness, 1e-3) * self.grow), self.least())

    def one(self, box: tuple[int, int, int, int]) -> Window:
        """The one window for a box: context round it, inside the picture where the picture is large enough."""
        long = max(box[2] - box[0], box[3] - box[1])
        wanted = max(long * self.context, self.least())
        wanted = max(min(wanted, min(self.shape[:2])), long, self.least())
        for side in (wanted, long / (1 - self.overlap), long / (1 - self.overlap) + 2):
            window = self.place((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, int(np.ceil(max(side, wanted))))
            if self.holds(window, box):
                return window
        side = int(np.ceil(long / (1 - 2 * self.overlap if self.overlap < 0.4 else 0.2))) + 4
        return self.place((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side)

    def place(self, row: float, column: float, side: int) -> Window:
        def start(middle: float, length: int) -> int:
            if side >= length:
                return -((side - length) // 2)
            return min(max(round(middle - side / 2), 0), length - side)

        return Window(start(row, self.shape[0]), start(column, self.shape[1]), side)

    def holds(self, window: Window, box: tuple[int, int, int, int]) -> bool:
        top, left, bottom, right = window.inner(self.shape, window.side * self.overlap / 2)
        return top <= box[0] and left <= box[1] and box[2] <= bottom and box[3] <= right

    def groups(self, mask: Mask) -> list[Points] | None:
        """Parts of the mask that are near enough to share windows, largest first; None when there are far too many."""
        parts = _near(mask, self.least() / 4, 4 * MOST)
        if parts is None:  # a spray of specks: only larger windows help, so do not compare all pairs
            return None
        boxes = [box_of(part) for part in parts]
        sides = [self.one(box).side for box in boxes]
        limits = [self.thin_side(float(np.quantile(self.widths(part), 0.25))) for part in parts]
        at = 0
        while at < len(parts):
            for other in range(at + 1, len(parts)):
                box = _union(boxes[at], boxes[other])
                if max(box[2] - box[0], box[3] - box[1]) > limits[at]:
                    continue
                side = self.one(box).side
                # together only while that costs little zoom and no thin part sinks below its least thickness
                if side <= min(1.5 * max(sides[at], sides[other]), limits[at], limits[other]):
                    parts[at] = np.concatenate([parts[at], parts.pop(other)])
                    boxes[at], sides[at], limits[at] = box, side, min(limits[at], limits[other])
                    del boxes[other], sides[other], limits[other]
                    at = -1  # a larger part may now reach those that came before
                    break
            at += 1
        return sorted(parts, key=len, reverse=True)

    def cover_group(self, part: Points) -> list[Window]:
        whole = self.one(box_of(part))
        widths = self.widths(part)
        need = self.min_thickness * whole.side / (self.size * self.grow)
        thin = widths < need
        if whole.side <= self.least() or not len(widths) or thin.mean() < 0.25:
            return [whole]
        side = self.thin_side(float(np.quantile(widths[thin], 0.25)))
        if side >= whole.side:
            return [whole]
        windows: list[Window] = []
        # A thick body keeps a larger window of its own; only what is too thin for that one is walked.
        mask, origin = _raster(part)
        for body in [] if thin.all() else _near(thick(mask, need), 0, MOST) or []:
            window = self.one(box_of(body + origin))
            if len(body) >= 4 * need * need and side < window.side < 0.8 * whole.side:
                windows.append(window)
        return windows + self.walk(part, windows, side)

    def walk(self, part: Points, done: list[Window], side: int) -> list[Window]:
        """Windows of one side along what `done` leaves uncovered, from one end to the other."""
        open_ = part
        for window in done:
            open_ = self.uncovered(open_, window)
        windows: list[Window] = []
        reach = side * (1 - self.overlap)
        at = None
        while len(open_) and len(windows) <= MOST:
            if at is None:  # begin at an end: the pixel farthest from the middle
                away = ((open_ - open_.mean(axis=0)) ** 2).sum(axis=1)
                first = open_[int(away.argmax())]
            else:
                first = open_[int(((open_ - at) ** 2).sum(axis=1).argmin())]
            close = open_[(np.abs(open_ - first) <= reach).all(axis=1)]
            half = max(reach / 2 - 1, 0)
            at = first + np.clip(close.mean(axis=0) - first, -half, half)
            window = self.place(at[0] + 0.5, at[1] + 0.5, side)
            left = self.uncovered(open_, window)
            if len(left) == len(open_):  # rounding on a tiny window: centre it on the pixel itself
                window = self.place(first[0] + 0.5, first[1] + 0.5, side)
                left = self.uncovered(open_, window)
            windows.append(window)
            open_ = left
        return windows

    def uncovered(self, points: Points, window: Window) -> Points:
        top, left, bottom, right = window.inner(self.shape, window.side * self.overlap / 2)
        rows, columns = points[:, 0], points[:, 1]
        return points[~((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))]


def box_of(points: Points) -> tuple[int, int, int, int]:
    """Return (top, left, bottom, right) of points (N,2) row, column; bottom and right are one past the last."""
    low, high = points.min(axis=0), points.max(axis=0) + 1
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _raster(points: Points) -> tuple[Mask, Points]:
    """The smallest mask that holds the points, and its place (row, column)."""
    low = points.min(axis=0)
    mask = np.zeros(tuple(points.max(axis=0) - low + 1), bool)
    mask[points[:, 0] - low[0], points[:, 1] - low[1]] = True
    return mask, low


def _union(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def disc(diameter: int) -> np.ndarray:
    """Return a round structuring element for OpenCV, uint8 (diameter,diameter)."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))


def _near(mask: Mask, gap: float, most: int) -> list[Points] | None:
    """The components of a mask as points (N,2) row, column; those less than about `gap` px apart count as one.

    None when there are more than `most`.
    """
    points = np.argwhere(mask)
    if not len(points):
        return []
    crop, low = _raster(points)
    grown = crop.astype(np.uint8)
    if gap >= 1:
        grown = (cv2.distanceTransform(1 - grown, cv2.DIST_L2, 5) <= gap / 2).astype(np.uint8)
    count, labels = cv2.connectedComponents(grown, connectivity=8)
    if count - 1 > most:
        return None
    which = labels[points[:, 0] - low[0], points[:, 1] - low[1]]
    order = np.argsort(which, kind="stable")
    return [part for part in np.split(points[order], np.searchsorted(which[order], np.arange(2, count))) if len(part)]


def thick(mask: Mask, width: float, *, goes_on: bool = False) -> Mask:
    """Return the parts of a mask that are at least about `width` px thick, bool (H,W): its opening with a disc.

    Args:
        mask: bool (H,W).
        width: In px.
        goes_on: True: the mask continues beyond its edges; False: it ends there.
    """
    pad = 0 if goes_on else 1
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    if padded.all():
        return mask.copy()
    reach = max(int(width), 1) // 2
    core = cv2.distanceTransform(padded, cv2.DIST_L2, 5) > reach
    if not core.any():
        return np.zeros_like(mask)
    opened = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 5) <= reach
    return np.asarray(opened[pad : pad + mask.shape[0], pad : pad + mask.shape[1]] & mask)


def _ridge(mask: Mask) -> np.ndarray:
    """The thickness in px at each ridge point of a mask, (N,), without the corner branches of blobs."""
    points = np.argwhere(mask)
    if not len(points):
        return np.zeros(0)
    crop = cv2.copyMakeBorder(_raster(points)[0].astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    # At double size a line k px wide has a ridge at distance k exactly, for odd and even k alike.
    twice = 2 if crop.size <= 1_000_000 else 1
    crop = cv2.resize(crop, None, fx=twice, fy=twice, interpolation=cv2.INTER_NEAREST)
    far = cv2.distanceTransform(crop, cv2.DIST_L2, 5)
    rows, columns = np.nonzero((far > 0) & (far >= cv2.dilate(far, np.ones((3, 3), np.uint8)) - 0.01 * twice))
    radius = far[rows, columns]
    cover = np.zeros_like(radius)
    level = 1.0
    while level <= float(radius.max()):
        step = int(max(level / 6, 1))  # large discs are compared on a coarse grid
        away = np.ones((far.shape[0] // step + 1, far.shape[1] // step + 1), np.uint8)
        away[rows[radius >= level] // step, columns[radius >= level] // step] = 0
        away = cv2.distanceTransform(away, cv2.DIST_L2, 3) * step
        cover[away[rows // step, columns // step] < 1.5 * level] = level  # 1.5 radii reach a square's corners
        level *= 1.3
    return np.asarray(radius[cover <= 1.3 * radius] * (2 / twice), np.float64)
