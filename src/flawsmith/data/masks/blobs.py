"""Shapes between two masks: signed distances are interpolated (Raya and Udupa, IEEE TMI 1990) after centroids, axes and
sizes are laid on each other; at a border of the picture, after the places of contact are."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np

from flawsmith.data.masks.bend import touched
from flawsmith.data.masks.fitting import moments
from flawsmith.data.masks.lines.reading import coarseness
from flawsmith.data.windows import spot_of

Mask = np.ndarray

SIDES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
"""Outwards at the left, right, top and bottom border, x and y."""
_LARGE = 1 << 22
"""Cells of a grid that is as wide as its damage is long."""


def between(mask: Mask, other: Mask | None, area: float, rng: np.random.Generator) -> Mask:
    """Return a shape between two masks, at the place of the first, bool (H,W), not empty, of as many components.

    Args:
        mask: bool (H,W), not empty.
        other: bool of any size, not empty. One that touches other borders of its picture, in whatever direction and
            mirrored, counts for nothing: the mask's own mirror image is taken, as it is for None.
        area: px that are wanted.
        rng: All randomness.
    """
    fits = None if other is None else _onto(other, mask, rng)
    if other is None or fits is None:
        other, fits = mask, _onto(mask, mask, rng)
    assert fits is not None
    (rows, columns), (height, width) = spot_of([], mask, 0), mask.shape
    low, high = np.array([columns.start, rows.start]), np.array([columns.stop, rows.stop])
    wide = max(4 * float(cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5).sum() / mask.sum()), 2)
    step = coarseness(float(mask.sum()), wide)
    through = np.array([all(axis) for axis in touched(mask)])
    by = np.where(through, 1.0, np.sqrt(area / mask.sum()))
    sides = high - low
    margin = np.full(2, int((max(float(by.max()), 1.0) - 0.65) * sides.max() + 4))
    if np.prod((sides + 2.0 * margin) / step) > _LARGE:
        margin = np.minimum(margin, 2 * sides + 64)  # beside a streak thousands of px long hardly anything happens
    corner = low - margin
    size = tuple(int(side) for side in np.ceil((sides + 2 * margin) / step))
    centre = _anchor(mask)
    grow = np.column_stack([np.diag(by), centre - by * centre])
    fitted = np.column_stack([by[:, None] * fits[:, :2], by * fits[:, 2] + centre - by * centre])
    share = rng.uniform(0.2, 0.5)
    depth = np.float32(1 - share) * _signed(mask, grow, corner, step, size)
    depth += np.float32(share) * _signed(other, fitted, corner, step, size)
    depth = _wobbled(depth, mask, corner, step, wide, rng)
    # back from the grid to the picture's pixels
    spot = tuple(
        slice(max(int(a), 0), min(int(b), end))
        for a, b, end in zip((low - margin)[::-1], (high + margin)[::-1], (height, width), strict=True)
    )
    start = np.array([spot[1].start, spot[0].start])
    offset = (start + 0.5 - corner) / step - 0.5
    back = np.column_stack([np.eye(2) / step, offset])
    shape = spot[1].stop - spot[1].start, spot[0].stop - spot[0].start
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    level = cv2.warpAffine(depth, back, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    out = np.zeros_like(mask)
    out[spot] = _largest(_at_area(level, area), cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1)
    return out


def _onto(other: Mask, mask: Mask, rng: np.random.Generator) -> np.ndarray | None:
    """A matrix (2,3) that lays another mask on a mask at its size; None where they touch borders that do not agree."""
    sides = np.ravel(touched(mask))
    sizes = np.full(2, np.sqrt(mask.sum() / other.sum()))
    if not sides.any() and not any(map(any, touched(other))):
        linears = [moments(mask)[2] @ np.diag(signs) @ moments(other)[2].T for signs in product((1.0, -1.0), repeat=2)]
    else:
        linears = []
        asked, here = set(map(tuple, SIDES[sides])), SIDES[np.ravel(touched(other))]
        for first, second, swap in product((1, -1), (1, -1), (False, True)):
            linear = np.diag([first, second])[:: -1 if swap else 1]
            if set(map(tuple, here @ linear.T)) == asked:
                linears.append(linear.astype(np.float64))
        if not linears:
            return None
    linear = linears[int(rng.integers(len(linears)))]
    for axis, through in enumerate(all(one) for one in touched(mask)):
        if through:  # from border to border there as well
            along = float(np.abs(linear[axis]) @ other.shape[::-1])
            sizes[axis] = mask.shape[1 - axis] / along
    linear = sizes[:, None] * linear
    return np.column_stack([linear, _anchor(mask) - linear @ _anchor(other)])


def _anchor(mask: Mask) -> np.ndarray:
    """The point of a mask that others are laid on by, x and y: its centroid; at borders the middle of the contact."""
    (left, right), (top, bottom) = touched(mask)
    height, width = mask.shape
    contact = np.zeros_like(mask)
    for touches, line in ((left, np.s_[:, 0]), (right, np.s_[:, -1]), (top, np.s_[0]), (bottom, np.s_[-1])):
        if touches:
            contact[line] = mask[line]
    centre = np.argwhere(contact if contact.any() else mask).mean(axis=0)[::-1]
    for axis, low, high, last in ((0, left, right, width - 1), (1, top, bottom, height - 1)):
        if low or high:
            centre[axis] = last / 2 if low and high else (last + 0.5) * high - 0.5 * low
    return np.asarray(centre, np.float64)


def _signed(mask: Mask, matrix: np.ndarray, corner: np.ndarray, step: float, size: tuple[int, ...]) -> np.ndarray:
    """Signed distance to a moved mask's outline on a grid, float32 (h,w), px of the grid, > 0 inside.

    Damage that touches the picture's border goes on beyond it.
    """
    rows, columns = spot_of([], mask, 1)
    crop = mask[rows, columns].astype(np.float32)
    origin = matrix[:, :2] @ (columns.start, rows.start) + matrix[:, 2]
    onto = np.column_stack([matrix[:, :2], origin + 0.5 - corner]) / step
    onto[:, 2] -= 0.5
    laid = cv2.warpAffine(crop, onto, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (laid >= min(0.5, 0.9 * float(laid.max()))).astype(np.uint8)
    # what fills the grid is as deep as the grid is long
    deep, away = (np.minimum(cv2.distanceTransform(side, cv2.DIST_L2, 5), sum(size)) for side in (inside, 1 - inside))
    return np.asarray(deep - away)


def _wobbled(
    depth: np.ndarray, mask: Mask, corner: np.ndarray, step: float, wide: float, rng: np.random.Generator
) -> np.ndarray:
    """A field bent by a smooth random one (Simard et al., ICDAR 2003), not across borders that the damage touches."""
    height, width = depth.shape
    length = float(np.sqrt(mask.sum())) / step
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    # Across a border that the damage touches nothing moves: pulled in, it would trail a straight-sided strip.
    places = [((x + 0.5) * step + corner[0], mask.shape[1]), ((y + 0.5) * step + corner[1], mask.shape[0])]
    at = []
    for here, (from_border, last), (low, high) in zip((x, y), places, touched(mask), strict=True):
        shift = _smooth(height, width, max(length / 2, 1.5), rng) * np.float32(0.08 * length)
        shift += _smooth(height, width, max(0.6 * wide / step, 1.0), rng) * np.float32(0.07 * wide / step)
        for touches, away in ((low, from_border), (high, last - from_border)):
            if touches:
                shift *= np.clip(away / step / length * 2, 0, 1).astype(np.float32)
        at.append(here + shift)
    return np.asarray(cv2.remap(depth, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _at_area(level: np.ndarray, area: float) -> Mask:
    """Where a field is highest, over so many pixels, bool."""
    rank = min(max(round(area), 1), level.size)
    return np.asarray(level >= np.partition(level.ravel(), level.size - rank)[level.size - rank])


def _largest(mask: Mask, count: int) -> Mask:
    """The largest components of a mask, at most so many."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")
    return np.asarray(np.isin(labels, order[:count]))


def _smooth(height: int, width: int, grain: float, rng: np.random.Generator) -> np.ndarray:
    """Smoothed noise (H,W) of unit deviation; `grain` is its scale in px."""
    coarse = max(int(grain / 4), 1)  # smooth noise needs few samples
    rows, columns = height // coarse + 3, width // coarse + 3
    noise = rng.normal(size=(rows, columns)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), grain / coarse, borderType=cv2.BORDER_REFLECT_101)
    full = cv2.resize(soft, (columns * coarse, rows * coarse), interpolation=cv2.INTER_CUBIC)[:height, :width]
    return np.asarray(full / max(float(full.std()), 1e-6), np.float32)
