"""New damage shapes with the character of a defect type's real ones.

Line-like damage gets a new path (`lines`), other damage becomes a shape between two real ones (`blobs`). Damage of
several pieces gets each piece anew, at the distances that the pieces have. What touches the picture's border does so
at the same side, and what runs from border to border does so again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial.distance import cdist

from flawsmith.data.masks.bend import touched
from flawsmith.data.masks.blobs import SIDES, between
from flawsmith.data.masks.lines.drawing import laid_between, new_path, new_places, swept, wriggling
from flawsmith.data.masks.lines.reading import Line, read_line
from flawsmith.data.masks.poses import Turn, apply_pose_mask, pose_mask
from flawsmith.data.windows import spot_of
from flawsmith.errors import DataError

Mask = np.ndarray

_TRIES = 8
_GROWN = 2.0
"""Most that damage grows or shrinks towards another one's area."""
_PIECES = 24
"""Pieces that are made anew one by one; of more, those that are near each other count as one."""
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
    aim = area if other is None else min(max(float(other.sum()), area / _GROWN), area * _GROWN)
    areas = sorted((area, aim))
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
        line = line.reversed
    anchored = at_border.any(axis=1)
    mean_width = line.area / len(line.path)
    lengths = [one.length for one in lines]
    length = float(np.exp(rng.uniform(*np.log(areas)))) / mean_width
    path = new_path(lines, min(max(length, min(lengths)), max(lengths)), rng)
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
    places = new_places(line, len(path), rng, may_turn=bool(anchored.all() or not anchored.any()))
    across = line.width[places]
    flip = rng.choice((-1.0, 1.0))
    course, path = path, wriggling(path, flip * line.wriggle[places])
    branches = _new_branches(line, course, path, places, float(flip), rng)
    wanted = float(across.sum())
    for border, first in zip(at_border, (True, False), strict=True):
        if border.any():  # it goes on beyond the border
            outwards = SIDES[border].sum(axis=0) * np.arange(1, int(reach + across.max()) + 2)[:, None]
            if first:
                path = np.concatenate([path[0] + outwards[::-1], path])
                across = np.concatenate([np.full(len(outwards), across[0]), across])
            else:
                path = np.concatenate([path, path[-1] + outwards])
                across = np.concatenate([across, np.full(len(outwards), across[-1])])
    new = swept(path, across, mask.shape)
    if new.sum() < 0.8 * wanted:  # it leaves the picture or crosses itself
        return np.zeros_like(mask)
    beside = np.zeros_like(mask)
    for branch in branches:
        beside |= swept(*branch, mask.shape)
    total = float((new | beside).sum())
    if not areas[0] <= total <= areas[1]:
        left = min(max(total, areas[0]), areas[1]) - float((beside & ~new).sum())
        new = swept(path, across, mask.shape, max(left, 0.5 * float(new.sum())))
    new = new | beside
    return np.zeros_like(mask) if _holes(new) > _holes(mask) else new


def _new_branches(
    line: Line, course: np.ndarray, path: np.ndarray, places: np.ndarray, flip: float, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return path and thickness of a new branch for each of a line's, where and as it leaves it.

    Args:
        line: The real one.
        course: float64 (N,2): the new one's path, without its wriggle.
        path: float64 (N,2): the same with it.
        places: int (N,): see `new_places`.
        flip: -1 = the new line is mirrored.
        rng: All randomness.
    """
    made = []
    for branch in line.branches:
        at = int(np.abs(places - branch.at).argmin())
        before, after = course[max(at - 1, 0)], course[min(at + 1, len(course) - 1)]
        turned = np.pi if places[0] > places[-1] else 0.0  # angles are told from the real line's direction
        facing = np.arctan2(*(after - before)[::-1]) + turned + flip * branch.angle + rng.normal() * _TURNED
        real = branch.line
        length = real.length * len(path) / len(line.path) * float(np.exp(rng.uniform(-0.3, 0.3)))
        way = new_path([real], max(length, 2.0), rng)
        span = max(float(np.hypot(*way[-1])), 1.0)
        way = laid_between(way, path[at], path[at] + span * np.array([np.cos(facing), np.sin(facing)]))
        along = new_places(real, len(way), rng, may_turn=False)
        aside = flip * (real.wriggle[along] - real.wriggle[along[0]])
        made.append((wriggling(way, aside), real.width[along]))
    return made


def _holes(mask: Mask) -> int:
    damage = np.pad(mask[spot_of([], mask, 0)], 1)
    return int(cv2.connectedComponents(1 - damage.astype(np.uint8), connectivity=4)[0]) - 2


def _along(border: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random step along the sides (4,) bool that an end of a line touches, x and y, at most 1 px; none at corners."""
    free = 1.0 - np.abs(SIDES[border]).max(axis=0)
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
