"""New damage shapes with the character of a defect type's real ones.

Line-like damage gets a new path (`lines`). Other damage becomes a shape between two real ones: their signed distances
are interpolated (Raya and Udupa, IEEE TMI 1990) after their centroids, axes and sizes are laid on each other. Damage
of several pieces gets each piece anew, at the distances that the pieces have. What touches the picture's border does so
at the same side, and what runs from border to border does so again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import cv2
import numpy as np
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial.distance import cdist

from flawsmith.data.masks.bend import touched
from flawsmith.data.masks.lines import Line, coarseness, laid_between, new_path, new_width, read_line, swept
from flawsmith.data.masks.poses import Turn, apply_pose_mask, pose_mask
from flawsmith.data.windows import spot_of
from flawsmith.errors import DataError

Mask = np.ndarray

_TRIES = 8
_GROWN = 2.0
"""Most that damage grows or shrinks towards another one's area."""
_PIECES = 24
"""Pieces that are made anew one by one; of more, those that are near each other count as one."""
_SIDES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
"""Outwards at the left, right, top and bottom border, x and y."""
_TURNED = 0.12
"""Radians (standard deviation) by which a new line leads elsewhere than the real one."""


def procedural(
    real_masks: Sequence[Mask],
    shape: Sequence[int],
    part: Mask,
    rng: np.random.Generator,
    *,
    turn: Turn = "free",
    shot_part: Callable[[int], Mask] | None = None,
) -> Mask:
    """Return a new damage shape with the character of a defect type's real masks, on the part; bool (H,W), never empty.

    One real mask is drawn; the new shape lies where that one could be re-posed to, at the scale of the shot on
    surfaces.

    Args:
        real_masks: bool masks of any sizes, at the normal's own scale; empty ones are left out.
        shape: (H,W) of the normal.
        part: bool (H,W): where damage may lie; all False counts as everywhere.
        rng: All randomness.
        turn: As for `pose_mask`.
        shot_part: Returns the part in the shot of the mask with this number, bool of the mask's size. None = unknown:
            the damage may lie anywhere on the part.

    Raises:
        DataError: no mask has damage.
    """
    drawn = [number for number, mask in enumerate(real_masks) if mask.any()]
    if not drawn:
        raise DataError("no real mask to take new shapes after: give at least one mask that is not empty")
    part = part if part.any() else np.ones(tuple(shape[:2]), bool)
    number = drawn[int(rng.integers(len(drawn)))]
    like, others = real_masks[number], [real_masks[other] for other in drawn if other != number]
    like_part = np.ones_like(like) if shot_part is None else shot_part(number)
    hangs = (like & like_part).sum() < 0.5 * like.sum()  # off the part in the shot, so it may be so here
    best, most = np.zeros(tuple(shape[:2]), bool), 0.0
    for _ in range(_TRIES // 2):
        new = vary(like, others, rng)
        pose = pose_mask(new, like_part, part, rng, turn=turn, sizes=(1.0, 1.0))
        posed = apply_pose_mask(new, pose, shape)
        kept = posed if hangs else posed & part
        share = float(kept.sum() / (new.sum() * pose.scale**2))
        if share > most:
            best, most = kept, share
        if share > 0.8:
            break
    if not best.any():
        inside = np.argwhere(part)
        row, column = inside[int(rng.integers(len(inside)))]
        best[row, column] = True
    return best


def vary(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    """Return a new shape at the place of a real mask, bool (H,W), not empty, that touches the same borders.

    Args:
        mask: bool (H,W), not empty.
        others: Other masks of the same defect type, of any sizes, not empty; its area lies between those of the mask
            and of one of them.
        rng: All randomness.
    """
    spot = spot_of([], mask, 0)
    margin = max(side.stop - side.start for side in spot) // 2 + 16
    spot = spot_of([], mask, margin)
    other = _alone(others[int(rng.integers(len(others)))]) if others else None
    out = np.zeros_like(mask)
    out[spot] = _varied(mask[spot], other, rng)
    return out


def _alone(mask: Mask) -> Mask:
    """A mask without most of what is empty around it."""
    return np.asarray(mask[spot_of([], mask, 2)])


def _varied(mask: Mask, other: Mask | None, rng: np.random.Generator) -> Mask:
    """`vary` in the damage's surroundings."""
    area = float(mask.sum())
    areas = sorted((area, area if other is None else float(np.clip(other.sum(), area / _GROWN, area * _GROWN))))
    line, borders = read_line(mask), touched(mask)
    lines = [] if line is None else [line]
    if line is not None and other is not None and (second := read_line(other)) is not None:
        lines.append(second)
    pieces = [] if line is not None else _pieces(mask)
    for _ in range(_TRIES):
        if lines:
            new = _new_line(mask, lines, areas, rng)
        elif len(pieces) > 1:
            new = _scattered(mask, pieces, [] if other is None else _pieces(other), rng)
        else:
            new = between(mask, other, float(np.exp(rng.uniform(*np.log(areas)))), rng)
        if new is not None and new.any() and touched(new) == borders:
            return new
        if new is None:
            lines = []  # it runs along the border, not into it
    new = between(mask, None, float(mask.sum()), rng)
    return new if touched(new) == borders else mask


def _new_line(mask: Mask, lines: Sequence[Line], areas: Sequence[float], rng: np.random.Generator) -> Mask | None:
    """A new line of the first one's thickness; None where that one touches a border with more than its ends."""
    line, (height, width) = lines[0], mask.shape
    reach = 1.5 * line.typical_width + 2
    ends = line.path[[0, -1]]
    away = np.stack([ends[:, 0], width - 1 - ends[:, 0], ends[:, 1], height - 1 - ends[:, 1]], axis=1)
    sides = np.ravel(touched(mask))
    at_border = (away <= reach) & sides
    if (at_border.any(axis=0) != sides).any():
        return None
    if at_border[1].any() and not at_border[0].any():
        at_border = at_border[::-1]
        line = Line(line.path[::-1], line.width[::-1])
    anchored = at_border.any(axis=1)
    mean_width = float(line.width.mean())
    lengths = [one.length for one in lines]
    length = np.clip(float(np.exp(rng.uniform(*np.log(areas)))) / mean_width, min(lengths), max(lengths))
    path = new_path(lines, float(length), rng)
    start, chord = line.path[0], line.chord
    if anchored.all():
        shifts = [_along(border, rng) * 0.1 * float(np.hypot(*chord)) for border in at_border]
        path = laid_between(path, start + shifts[0], line.path[-1] + shifts[1])
    else:
        facing = np.arctan2(chord[1], chord[0]) + rng.normal() * _TURNED
        if not anchored.any() and rng.random() < 0.5:
            facing += np.pi
        span = float(np.hypot(*(path[-1] - path[0])))
        path = laid_between(path, start, start + span * np.array([np.cos(facing), np.sin(facing)]))
        if not anchored.any():
            path = path + line.path.mean(axis=0) - path.mean(axis=0)
            room = line.typical_width / 2 + 1.5
            path += np.maximum(room - path.min(axis=0), 0)
            path -= np.maximum(path.max(axis=0) - (width - 1 - room, height - 1 - room), 0)
    across = new_width(line, len(path), rng, may_turn=bool(anchored.all() or not anchored.any()))
    wanted = float(across.sum())
    for border, first in zip(at_border, (True, False), strict=True):
        if border.any():  # it goes on beyond the border
            outwards = _SIDES[border].sum(axis=0) * np.arange(1, int(reach + across.max()) + 2)[:, None]
            if first:
                path = np.concatenate([path[0] + outwards[::-1], path])
                across = np.concatenate([np.full(len(outwards), across[0]), across])
            else:
                path = np.concatenate([path, path[-1] + outwards])
                across = np.concatenate([across, np.full(len(outwards), across[-1])])
    new = swept(path, across, mask.shape)
    if new.sum() < 0.8 * wanted or _holes(new) > _holes(mask):  # it leaves the picture or crosses itself
        return np.zeros_like(mask)
    if not areas[0] <= new.sum() <= areas[1]:
        new = swept(path, across, mask.shape, float(np.clip(new.sum(), *areas)))
    return new


def _holes(mask: Mask) -> int:
    return int(cv2.connectedComponents(1 - np.pad(mask, 1).astype(np.uint8), connectivity=4)[0]) - 2


def _along(border: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random step along the sides (4,) bool that an end of a line touches, x and y, at most 1 px; none at corners."""
    free = 1.0 - np.abs(_SIDES[border]).max(axis=0)
    return np.asarray(free * rng.uniform(-1, 1))


def _pieces(mask: Mask) -> list[Mask]:
    """The pieces of a mask, each bool (H,W): its components, or groups of them where they are many."""
    gap, count = 1, _PIECES + 2
    while count - 1 > _PIECES:
        count, labels = cv2.connectedComponents(cv2.dilate(mask.astype(np.uint8), np.ones((gap, gap))), connectivity=8)
        gap = 2 * gap + 1
    return [mask & (labels == number) for number in range(1, count)]


def _scattered(mask: Mask, pieces: Sequence[Mask], pool: Sequence[Mask], rng: np.random.Generator) -> Mask:
    """Each piece anew, at the distances that neighbouring pieces have, in somewhat other directions."""
    height, width = mask.shape
    centres = np.array([np.argwhere(piece).mean(axis=0)[::-1] for piece in pieces])
    radii = np.sqrt([piece.sum() / np.pi for piece in pieces])
    apart = np.maximum(cdist(centres, centres) - radii[:, None] - radii, 0.1)
    fixed = [any(map(any, touched(piece))) for piece in pieces]
    root = fixed.index(True) if any(fixed) else int(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).argmin())
    order, parents = breadth_first_order(minimum_spanning_tree(apart), root, directed=False)
    gap = float(np.min(apart[~np.eye(len(pieces), dtype=bool)]))
    guard = np.ones((2 * int(0.3 * gap) + 3,) * 2, np.uint8)
    moved, out, taken = centres.copy(), np.zeros_like(mask), np.zeros_like(mask)
    alike = [_alone(one) for one in (*pieces, *pool) if not any(map(any, touched(one)))]
    for number in order:
        piece, parent = pieces[number], int(parents[number])
        kin = sorted(alike, key=lambda one: abs(np.log(one.sum() / piece.sum())))[:4]
        spot = spot_of([], piece, 8 + int(radii[number]))
        new = _piece(piece[spot], kin[int(rng.integers(len(kin)))] if kin else None, rng)
        corner = np.array([spot[1].start, spot[0].start])
        points = np.argwhere(new)[:, ::-1] + corner
        for attempt in range(_TRIES):
            shift = np.zeros(2)
            if parent >= 0 and not fixed[number] and attempt < _TRIES - 1:
                offset = complex(*(centres[number] - centres[parent]))
                offset *= rng.uniform(0.85, 1.15) * np.exp(1j * rng.uniform(-1, 1) * 0.6 * (1 - attempt / _TRIES))
                shift = moved[parent] + (offset.real, offset.imag) - centres[number]
            laid = points + np.rint(shift).astype(int)
            inside = bool((laid >= 1).all() and (laid < (width - 1, height - 1)).all()) or fixed[number]
            if inside and not taken[laid[:, 1], laid[:, 0]].any():
                break
        else:
            laid = points  # there is no room elsewhere
        moved[number] = laid.mean(axis=0)
        one = np.zeros(mask.shape, np.uint8)
        one[laid[:, 1], laid[:, 0]] = 1
        out |= one > 0
        taken |= cv2.dilate(one, guard) > 0
    return out


def _piece(piece: Mask, kin: Mask | None, rng: np.random.Generator) -> Mask:
    """One piece of several anew, as large as it is."""
    line, area, borders = read_line(piece), float(piece.sum()), touched(piece)
    for _ in range(_TRIES // 2):
        new = None if line is None else _new_line(piece, [line], [area, area], rng)
        new = between(piece, kin, area, rng) if new is None else new
        if new.any() and touched(new) == borders:
            return new
    return piece


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
    margin = int((max(float(by.max()), 1.0) - 0.65) * (high - low).max() + 4)
    corner = low - margin
    size = tuple(int(side) for side in np.ceil((high - low + 2 * margin) / step))
    centre = _anchor(mask)
    grow = np.column_stack([np.diag(by), centre - by * centre])
    fitted = np.column_stack([by[:, None] * fits[:, :2], by * fits[:, 2] + centre - by * centre])
    share = rng.uniform(0.2, 0.5)
    depth = np.float32(1 - share) * _signed(mask, grow, corner, step, size)
    depth += np.float32(share) * _signed(other, fitted, corner, step, size)
    depth = _wobbled(depth, mask, corner, step, wide, rng)
    # back from the grid to the picture's pixels
    spot = tuple(slice(max(int(a), 0), min(int(b), end)) for a, b, end in
                 zip((low - margin)[::-1], (high + margin)[::-1], (height, width), strict=True))
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
    size = float(np.sqrt(mask.sum() / other.sum()))
    if not sides.any() and not any(map(any, touched(other))):
        linears = [_axes(mask) @ np.diag(signs) @ _axes(other).T for signs in product((1.0, -1.0), repeat=2)]
        sizes = np.array([size, size])
    else:
        linears = []
        asked, here = set(map(tuple, _SIDES[sides])), _SIDES[np.ravel(touched(other))]
        for first, second, swap in product((1, -1), (1, -1), (False, True)):
            linear = np.diag([first, second])[:: -1 if swap else 1]
            if set(map(tuple, here @ linear.T)) == asked:
                linears.append(linear.astype(np.float64))
        if not linears:
            return None
        sizes = np.array([size, size])
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


def _axes(mask: Mask) -> np.ndarray:
    """The principal axes of a mask as columns (2,2), the long one first."""
    points = np.argwhere(mask)[:, ::-1].astype(np.float64)
    return np.asarray(np.linalg.eigh(np.cov(points.T, bias=True) + np.eye(2) / 12)[1][:, ::-1])


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
    return np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5))


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
