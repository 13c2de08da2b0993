"""Where to damage: real masks posed anew, on a surface or on another part.

A real damage carries the best knowledge of where damage happens. On a surface it may lie anywhere, turned and flipped,
except that what touches an edge of the picture (a chipped border) stays at that edge. On a part it stays at its place
on the part: the shot's part frame is laid over the normal's, so a scratch on the neck lands on the neck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.masks.bend import Bend, Bent, bent, touched
from flawsmith.data.masks.part_frames import SOFT, PartFrame, fit_outline
from flawsmith.data.patches.warping import Source, around, places, reach_of, widened
from flawsmith.data.tiling import Spot
from flawsmith.data.windows import spot_of
from flawsmith.errors import DataError
from flawsmith.types import Range

Mask = np.ndarray
Turn = Literal["free", "right", "none"]

_SCALE = (0.8, 1.25)
"""Of damage on surfaces: the range of sizes, log-uniform."""
_ON_PART = 0.85
"""Share of the damage (of what lies on the part in the shot) that must land on the other part."""
_SLIPPED = 0.01  # of it, what chance may throw off the part; a bent tip, beside it without chance, may stay there
_AT_OUTLINE = 0.25  # of the jitter: outlines drawn side by side would show
_TRIES = 24


@dataclass(frozen=True, slots=True)
class Pose:
    """From the shot's native picture to the normal's: pixel centres (x, y) to pixel centres (x, y).

    A similarity; but damage that runs right through a picture is stretched along that axis, to run through the other.
    """

    matrix: tuple[tuple[float, float, float], tuple[float, float, float]]
    """2x3: x' = m00 x + m01 y + m02, y' = m10 x + m11 y + m12."""
    bend: Bend | None = None
    """How the shot is bent before; None = not at all."""

    @property
    def array(self) -> np.ndarray:
        """The matrix as float64 (2,3)."""
        return np.array(self.matrix, np.float64)

    @property
    def scale(self) -> float:
        """Normal px per shot px."""
        return float(np.sqrt(abs(np.linalg.det(self.array[:, :2]))))

    @classmethod
    def of(cls, matrix: np.ndarray) -> Pose:
        """Make a pose of a (2,3) or (3,3) matrix."""
        a, b = (tuple(float(value) for value in row) for row in matrix[:2])
        return cls(((a[0], a[1], a[2]), (b[0], b[1], b[2])))

    @classmethod
    def identity(cls) -> Pose:
        """Return the pose that moves nothing."""
        return cls(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))

    def to_json(self) -> dict[str, Any]:
        """Return {"matrix": [[m00, m01, m02], [m10, m11, m12]]}, and "bend" where there is one."""
        matrix = {"matrix": [list(row) for row in self.matrix]}
        return matrix if self.bend is None else {**matrix, "bend": self.bend.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Pose:
        """Read what `to_json` wrote."""
        bend = Bend.from_json(value["bend"]) if "bend" in value else None
        return replace(cls.of(np.array(value["matrix"], np.float64)), bend=bend)

    @property
    def unbent(self) -> Pose:
        """The pose without its bend."""
        return replace(self, bend=None)

    def bent(self, shot: Sequence[int], shape: Sequence[int], part: Mask | None, spot: Spot | None) -> Bent | None:
        """Return where the pixels of a spot come from in a shot of `shot` (H,W), see `bend.bent`; None = not bent."""
        return None if self.bend is None else bent(self.bend, self.array, shot, shape, part, spot)


def pose_mask(
    shot_mask: Mask,
    shot_part: Mask,
    normal_part: Mask,
    rng: np.random.Generator,
    *,
    turn: Turn = "free",
    jitter: float = 1.0,
    sizes: tuple[float, float] = _SCALE,
) -> Pose:
    """Return how to lay a shot's damage on a normal picture.

    When the normal fills its picture (or the shot's part is unknown), place, turn, mirroring and scale are random, and
    the damage lies wholly inside the picture, attached to the same border where it touches one. Otherwise the part
    frames are laid over each other and the jitter is small: a few degrees, a few per cent along the part; a quarter of
    that where the damage reaches the outline. Damage of a surface (a transferred defect type, or a part that was not
    found) is thrown onto a part until most of it lies there.
    Damage that hangs outside the shot's part stays where it is relative to the part. A pose whose damage misses the
    part is drawn again, with less and less jitter; the best of all tries is returned.

    Args:
        shot_mask: bool (H,W), not empty.
        shot_part: bool (H,W): the part in the shot, see `part_mask`.
        normal_part: bool (H',W'): the part in the normal picture.
        rng: All randomness.
        turn: For surfaces and round parts: any angle, right angles, or none (a brushed surface has a direction).
        jitter: For parts: 1 = up to 4 degrees, 4 % along, 1.5 % across, 4 % in size; 0 = none.
        sizes: For surfaces: least and largest scale.

    Raises:
        DataError: the shot's mask is empty.
    """
    points = _points(shot_mask)
    surface = bool(normal_part.all()) or bool(shot_part.all()) or not shot_part.any() or not normal_part.any()
    best, most = Pose.identity(), -1.0
    base = None if surface else laid_over(shot_part, normal_part, shot_mask, rng, turn)
    on = np.ones(len(points), bool)
    if base is not None:
        soft = max(2, round(SOFT * max(shot_mask.shape)))
        near, square = spot_of([], shot_mask, soft), np.ones((2 * soft + 1, 2 * soft + 1), np.uint8)
        at = points[:, 1].astype(int) - near[0].start, points[:, 0].astype(int) - near[1].start
        on = cv2.dilate(shot_part[near].astype(np.uint8), square)[at] > 0
        if not cv2.erode(shot_part[near].astype(np.uint8), square)[at].all():
            jitter *= _AT_OUTLINE
    asked, hangs = points[on], not on.any()  # damage that hangs outside the part in the shot may do so here
    goal = _ON_PART if base is None or hangs else max(_ON_PART, _landed(asked, base, normal_part) - _SLIPPED)
    anywhere = surface and not normal_part.any()
    onto = np.argwhere(normal_part)[:, ::-1] if surface and not anywhere and not normal_part.all() else None
    for attempt in range(_TRIES):
        if base is None:
            matrix = _surface_pose(points, shot_mask, normal_part.shape, rng, turn, sizes)
            if onto is not None:  # the picture's borders are not the part's, and thin parts are seldom met by chance
                place, point = onto[int(rng.integers(len(onto)))], points[int(rng.integers(len(points)))]
                matrix[:, 2] = place - matrix[:, :2] @ point
        else:
            calm = jitter * (1.0 if attempt < _TRIES // 2 else 2 * (1 - (attempt + 1) / _TRIES))
            matrix = base @ _jittered(shot_part, rng, calm)
        visible = _landed(points, matrix, np.ones_like(normal_part))
        score = 1.0 if hangs or anywhere else _landed(asked, matrix, normal_part)
        score = min(score / goal, 1.0) * (1.0 if visible >= 0.95 or base is None else visible)
        if score > most:
            best, most = Pose.of(matrix), score
        if most >= 1.0:
            break
    return best


def _points(mask: Mask, most: int = 4000) -> np.ndarray:
    """Some of a mask's pixel centres, float64 (N,2) as x, y, its extremes among them."""
    if not mask.any():
        raise DataError("the mask is empty: there is no damage to lay on another picture")
    rows, columns = box = spot_of([], mask, 0)
    points = np.argwhere(mask[box])[:, ::-1].astype(np.float64) + (columns.start, rows.start)
    if len(points) > most:
        ends = [*points.argmin(axis=0), *points.argmax(axis=0)]
        points = np.concatenate([points[:: len(points) // most], points[ends]])
    return points


def _landed(points: np.ndarray, matrix: np.ndarray, part: Mask) -> float:
    """The share of the points that the pose puts on the part."""
    moved = np.rint(points @ matrix[:2, :2].T + matrix[:2, 2]).astype(int)
    inside = (moved >= 0).all(axis=1) & (moved < (part.shape[1], part.shape[0])).all(axis=1)
    return float(part[moved[inside, 1], moved[inside, 0]].sum() / len(points))


def _turned(rng: np.random.Generator, turn: Turn) -> float:
    if turn == "free":
        return float(rng.uniform(-np.pi, np.pi))
    return float(rng.integers(4)) * np.pi / 2 if turn == "right" else 0.0


def laid_over(shot: Mask, normal: Mask, damage: Mask, rng: np.random.Generator, turn: Turn) -> np.ndarray:
    """Return the matrix (3,3) that lays one picture's part over another's; outlines near damage do not count.

    Args:
        shot: bool (H,W), not empty: the part.
        normal: bool (H',W'), not empty: the part in the other picture.
        damage: bool (H,W); empty = none.
        rng: Of round parts it decides the turn.
        turn: How round parts may be turned.
    """
    here, there = PartFrame.of(shot), PartFrame.of(normal)
    facing = there.angle
    if here.round and there.round:
        facing = here.angle + _turned(rng, turn)
    elif min(here.lean, there.lean) < 0.05 and np.cos(there.angle - here.angle) < 0:
        facing += np.pi  # both ends look alike: the smaller turn is likelier to be right
    start = replace(there, angle=facing).matrix() @ np.linalg.inv(here.matrix())
    if here.round and there.round:
        return np.asarray(start)
    return fit_outline(shot, normal, damage, start)


def _jittered(part: Mask, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """A small move of the shot's part in its own picture, (3,3)."""
    frame = PartFrame.of(part)
    angle = float(rng.uniform(-1, 1)) * np.deg2rad(4) * jitter
    # `length` is a standard deviation; a rod is about 3.5 of them long
    along, across = rng.uniform(-1, 1, 2) * (0.04 * 3.5, 0.015 * 3.5) * jitter
    size = float(np.exp(rng.uniform(-1, 1) * 0.04 * jitter))
    cos, sin = size * np.cos(angle), size * np.sin(angle)
    inner = np.array([[cos, -sin, along], [sin, cos, across], [0, 0, 1]])
    return np.asarray(frame.matrix() @ inner @ np.linalg.inv(frame.matrix()))


def _surface_pose(
    points: np.ndarray, mask: Mask, shape: Sequence[int], rng: np.random.Generator, turn: Turn, scales: Sequence[float]
) -> np.ndarray:
    """Return a random similarity (2,3) that keeps the damage inside a picture of `shape`, at the border it touches."""
    height, width = mask.shape
    touches = touched(mask)
    size = float(np.exp(rng.uniform(*np.log(scales))))
    sizes = np.array([size, size])
    linear = np.eye(2)
    if any(touches[0]) or any(touches[1]):
        # An edge break turned or mirrored to another edge would show the wrong side of the part.
        for axis, ratio in ((0, shape[1] / width), (1, shape[0] / height)):
            if all(touches[axis]):
                sizes[axis] = ratio
            if any(touches[axis]) == all(touches[axis]) and rng.random() < 0.5:
                linear[axis, axis] = -1.0
    else:
        angle = _turned(rng, turn)
        linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if rng.random() < 0.5:
            linear[:, 0] *= -1
    corners = np.concatenate([points + step for step in ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5))])
    extent = np.ptp(corners @ linear.T, axis=0)
    through = np.array([all(axis) for axis in touches])
    fits = np.where(through, np.inf, 0.98 * np.array([shape[1], shape[0]]) / extent)
    sizes = np.where(through, sizes, min(size, float(fits.min())))
    linear = sizes[:, None] * linear
    moved = corners @ linear.T
    low, high = moved.min(axis=0), moved.max(axis=0)
    shift = np.zeros(2)
    for axis, length in ((0, shape[1]), (1, shape[0])):
        first, last = -0.5 - low[axis], length - 0.5 - high[axis]
        at_low, at_high = touches[axis]
        if at_low and at_high:  # it runs right through: the whole picture is laid over the whole picture
            middle = ((width, height)[axis] - 1) / 2
            shift[axis] = (length - 1) / 2 - linear[axis, axis] * middle
        elif at_low or at_high:
            shift[axis] = first - 0.3 if at_low else last + 0.3  # a little beyond, so that no seam is left
        else:
            room = min(1.0, max(last - first, 0.0) / 2)  # what touched no edge shall not touch one now
            shift[axis] = rng.uniform(min(first + room, last), max(last - room, first + room))
    return np.column_stack([linear, shift])


def apply_pose_mask(mask: Mask, pose: Pose, shape: Sequence[int], part: Mask | None = None) -> Mask:
    """Return a shot's mask in the normal's picture, bool (H',W').

    Where turning would make a hairline break up, more of it is kept, so that its area follows the pose's scale.

    Args:
        mask: bool (H,W) of the shot: its damage. What else is posed, its part say, takes `pose.unbent`.
        pose: From the shot to the normal.
        shape: (H',W') of the normal.
        part: bool (H,W): the part in the shot; needed where the pose's bend says so.
    """
    box, out = spot_of([], mask, 0), np.zeros((int(shape[0]), int(shape[1])), bool)
    if not mask.any():
        return out
    bending = pose.bent(mask.shape, shape, part, None)
    laid = _laid_box(box, pose.array, shape)
    spot = laid if bending is None else around(laid, bending.spot)
    damage = Source(mask[box].astype(np.float32), (box[0].start, box[1].start))  # beyond it all is 0
    at = places(pose.array, spot)
    soft = damage.at(at, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
    if bending is not None:
        whole = Source(mask[bending.source].astype(np.float32), (bending.source[0].start, bending.source[1].start))
        bending.bend(Source(soft, (spot[0].start, spot[1].start)), whole, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
    posed = soft >= 0.5
    area = np.count_nonzero(mask[box])
    if bending is not None or np.count_nonzero(posed) < 0.9 * area * pose.scale**2:
        points = np.argwhere(mask[box])[:, ::-1] + (box[1].start, box[0].start)
        landed = _landed(points.astype(np.float64), pose.array, np.broadcast_to(True, out.shape))
        # A bend makes some damage larger and some smaller.
        want = landed * len(points) * pose.scale**2 if bending is None else float(soft.sum(dtype=np.float64))
        if want >= 1 and np.count_nonzero(posed) < 0.9 * want:
            levels = np.sort(soft[soft > 0])[::-1]
            level = levels[min(int(want), len(levels)) - 1] if len(levels) else 1.0
            posed = soft >= np.clip(level, 0.2, 0.5)
            if not posed.any() and len(levels):
                posed = soft >= levels[0]
    out[spot] = posed
    return out


def _laid_box(box: Spot, matrix: np.ndarray, shape: Sequence[int]) -> Spot:
    """Return the part of a picture of `shape` (H',W') that the box of a damage is laid on, and a rim."""
    ends = np.array([(x, y, 1) for x in (box[1].start, box[1].stop) for y in (box[0].start, box[0].stop)], np.float64)
    corners = ends @ matrix.T
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 3, (shape[1], shape[0]))
    rows, columns = (slice(int(low[axis]), max(int(high[axis]), int(low[axis]))) for axis in (1, 0))
    return rows, columns


def apply_pose_image(
    native: np.ndarray,
    span: Range,
    pose: Pose,
    shape: Sequence[int],
    spot: Spot = (slice(None), slice(None)),
    part: Mask | None = None,
) -> np.ndarray:
    """Return a shot's picture laid over the normal's, float32 (h,w,3) in [-1,1], or a part of it.

    Reflected where the shot does not reach, within the picture's own range. Only the part of the shot that comes to lie
    in the spot becomes float32.

    Args:
        native: The shot, (H,W) or (H,W,3).
        span: What is -1 and +1 in it.
        pose: From the shot to the normal.
        shape: (H',W') of the normal.
        spot: The part of the normal's picture that is wanted.
        part: bool (H,W): the part in the shot; needed where the pose's bend says so.
    """
    rows, columns = (slice(*side.indices(int(length))) for side, length in zip(spot, shape[:2], strict=True))
    bending = pose.bent(native.shape, shape, part, (rows, columns))
    at = places(pose.array, (rows, columns))
    reach = reach_of(at, native.shape) if bending is None else around(reach_of(at, native.shape), bending.source)
    blur = 0.4 / pose.scale if pose.scale < 0.7 else 0.0  # bilinear sampling would skip pixels
    near = widened(reach, int(np.ceil(4 * blur)) + 1 if blur else 0, native.shape)
    values = images.levels(images.filled(native[near], span), replace(span, sentinels=()))
    if blur:
        values = cv2.GaussianBlur(values, (0, 0), blur)
    source = Source(values, (near[0].start, near[1].start))
    source = Source(np.ascontiguousarray(source.part(reach)), (reach[0].start, reach[1].start))
    laid = source.at(at, cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101)
    if bending is not None:
        bending.bend(Source(laid, (rows.start, columns.start)), source, cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101)
    low, high = images.levels(images.extremes(native, span), replace(span, sentinels=()))[0]
    within = np.atleast_3d(np.clip(laid, low, high, out=laid))
    return within if within.shape[2] == 3 else np.repeat(within, 3, axis=2)
