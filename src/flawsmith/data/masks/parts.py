"""Where the part is in a photograph, how it lies there, and what its outline tells.

A surface fills the picture; a part lies on a backdrop that is plain, though seldom evenly lit. The backdrop is fitted
to the picture's border as a quadratic of the place, robustly; the part is what departs from it. Its outline is put at
the departure where the outline's own edge is sharpest, and soft shadows, which depart but have no edge, are flooded
away from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from flawsmith.data import images
from flawsmith.data.windows import spot_of
from flawsmith.types import Range

Mask = np.ndarray

_WORK = 256  # px of the longer side at which parts are found: outlines to about 1/256 of the picture
_PLAIN = 0.05  # model units: a border that varies more than this after the fit is texture, not backdrop
_CLEAR = 12.0  # a part departs from its backdrop by this many standard deviations of the backdrop
_EMPTY = 8  # px round parts and damage that count in, for distances are measured from outside and soft edges widened
_LEAST = 0.02  # share of the picture below which a departure is a defect or dirt, not the part


def part_mask(picture: np.ndarray, span: Range | None = None) -> Mask:
    """Return where the part is, bool (H,W): all True for a surface that fills the picture.

    A large defect on a very even surface can look like a small part; whether a product is a surface is better asked of
    its normal photographs (`pose_mask` does so).

    Args:
        picture: Native: (H,W) or (H,W,3), uint8, uint16 or float32.
        span: Its product's value range; None = that of the picture itself.
    """
    height, width = picture.shape[:2]
    whole = np.ones((height, width), bool)
    if min(height, width) < 16:
        return whole
    by = min(1.0, _WORK / max(height, width))
    small = max(round(width * by), 8), max(round(height * by), 8)
    span = images.range_of(picture, span)
    # the mean of a picture in native units, then the range: a 12-megapixel picture need not become float32 first
    shrunk = cv2.resize(images.filled(picture, span), small, interpolation=cv2.INTER_AREA)
    model = images.to_model(shrunk, span)[:, :, : 1 if picture.ndim == 2 else 3]
    soft = np.atleast_3d(cv2.GaussianBlur(np.ascontiguousarray(model), (0, 0), 0.7))
    away, noise, ring = _departure(soft)
    if noise > _PLAIN:
        return whole
    edge = _over_channels(cv2.magnitude(cv2.Sobel(soft, -1, 1, 0), cv2.Sobel(soft, -1, 0, 1)))
    outline = _outline(away, edge, noise)
    if outline is None:
        return whole
    part, limit = outline
    share, on_ring = float(part.mean()), float(part[ring].mean())
    clear = float(np.median(away[part])) > _CLEAR * noise and limit > 5 * noise
    if not (clear and _LEAST < share < 0.9 and on_ring < 0.3):
        return whole
    full = cv2.resize(part.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 0.5)


def _departure(picture: np.ndarray) -> tuple[np.ndarray, float, Mask]:
    """How far each pixel is from the backdrop (H,W) in model units, the backdrop's noise, and the border ring."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)  # well-conditioned on [-1,1]
    ring = np.ones((height, width), bool)
    band = max(int(0.06 * min(height, width)), 2)
    ring[band:-band, band:-band] = False
    known, values = terms[ring], picture[ring]
    keep = np.ones(len(known), bool)
    for _ in range(4):  # a part that touches the border is an outlier there
        fit = np.linalg.solve(known[keep].T @ known[keep], known[keep].T @ values[keep])
        off = np.abs(values - known @ fit).max(axis=1)
        noise = 1.4826 * float(np.median(off[keep])) + 1e-4
        keep = off < 3 * noise
    backdrop = (terms.reshape(-1, 6) @ fit.astype(np.float32)).reshape(picture.shape)
    return _over_channels(cv2.absdiff(picture, backdrop)), noise, ring


def _over_channels(values: np.ndarray) -> np.ndarray:
    """The largest channel, (H,W); pairwise, since numpy is slow along an axis of three."""
    if values.ndim == 2:
        return values
    most = values[:, :, 0]
    for channel in range(1, values.shape[2]):
        most = np.maximum(most, values[:, :, channel])
    return most


def _outline(away: np.ndarray, edge: np.ndarray, noise: float) -> tuple[Mask, float] | None:
    """The part, and the departure at its outline; None where nothing departs."""
    height, width = away.shape
    low = max(4 * noise, 0.06)
    tried: list[tuple[float, float, Mask]] = []
    for limit in np.geomspace(low, max(float(np.quantile(away, 0.97)), 1.1 * low), 10):
        over = _largest(away > limit)
        if not over.any():
            break
        outlines, _ = cv2.findContours(over.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        line = np.concatenate(outlines)[:, 0]
        line = line[(line > 1).all(axis=1) & (line < (width - 2, height - 2)).all(axis=1)]
        tried.append((float(limit), float(edge[line[:, 1], line[:, 0]].mean()) if len(line) else 0.0, over))
    if not tried:
        return None
    sharpest = max(sharp for _, sharp, _ in tried)
    limit, _, over = next(row for row in tried if row[1] >= 0.8 * sharpest)
    filled = _filled(over)
    # A contact shadow is inside the outline still: flood it from outside, where there is no edge to stop at.
    soft = np.pad(~filled | (edge < 0.3 * sharpest), 1, constant_values=True).astype(np.uint8)
    labels = cv2.connectedComponents(soft, connectivity=4)[1]
    core = (labels != labels[0, 0])[1:-1, 1:-1]
    core = cv2.morphologyEx(core.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)) > 0
    core = _largest(core)
    part = core if core.sum() > 0.5 * filled.sum() else filled
    # A hole is real when it is large and shows the backdrop itself; glints and bright flanks are neither.
    holes, labels, stats, _ = cv2.connectedComponentsWithStats((part & (away < limit)).astype(np.uint8))
    for hole in range(1, holes):
        inside = labels == hole
        if stats[hole, cv2.CC_STAT_AREA] > 0.02 * part.sum() and np.median(away[inside]) < low:
            part = part & ~inside
    return part, limit


def _largest(mask: Mask) -> Mask:
    """The largest component, and those at least a fifth as large: several parts may lie in one picture."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return np.zeros_like(mask)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return np.asarray((areas >= 0.2 * areas.max())[labels] & mask)


def _filled(mask: Mask) -> Mask:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    canvas = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(canvas, outlines, -1, 1, -1)
    return canvas > 0


@dataclass(frozen=True, slots=True)
class PartFrame:
    """How a part lies in its picture: a frame that moves with it, so that places can be carried to another picture."""

    x: float
    """Centroid, px from the left."""
    y: float
    """Centroid, px from the top."""
    angle: float
    """Direction of the long axis in radians, x towards y; it points to the part's longer, thinner end."""
    length: float
    """Standard deviation along the axis, px: the part's scale."""
    slim: float
    """Length over width (standard deviations); 1 = round, so `angle` means nothing."""
    lean: float
    """How unlike the two ends are (third standardised moments), >= 0; near 0 the direction's sign means nothing."""

    @classmethod
    def of(cls, part: Mask) -> PartFrame:
        """Measure a part's mask, bool (H,W), not empty."""
        rows, columns = spot_of([], part, 0)
        moments = cv2.moments(part[rows, columns].astype(np.uint8), binaryImage=True)
        area = max(moments["m00"], 1.0)
        x, y = columns.start + moments["m10"] / area, rows.start + moments["m01"] / area
        spread = np.array([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]]) / area
        values, vectors = np.linalg.eigh(spread)
        cos, sin = vectors[0, 1], vectors[1, 1]
        length, width = float(np.sqrt(max(values[1], 1e-3))), float(np.sqrt(max(values[0], 1e-3)))
        # The far, thin end: skewness along the axis, less the moment that says at which end the width is. A cropped
        # or bent tip can turn the first one over, not both.
        far = cos**3 * moments["mu30"] + 3 * cos * sin * (cos * moments["mu21"] + sin * moments["mu12"])
        far += sin**3 * moments["mu03"]
        wide = cos * sin**2 * moments["mu30"] + sin * cos**2 * moments["mu03"]
        wide += (sin**3 - 2 * cos**2 * sin) * moments["mu21"] + (cos**3 - 2 * cos * sin**2) * moments["mu12"]
        lean = (far / length**3 - wide / (length * width**2)) / area
        if lean < 0:
            cos, sin = -cos, -sin
        return cls(x, y, float(np.arctan2(sin, cos)), length, length / width, float(abs(lean)))

    @property
    def round(self) -> bool:
        """True where the silhouette does not tell the direction."""
        return self.slim < 1.15

    def matrix(self) -> np.ndarray:
        """Return float64 (3,3): frame coordinates (along, across; 1 = `length`) to picture coordinates (x, y)."""
        cos, sin = self.length * np.cos(self.angle), self.length * np.sin(self.angle)
        return np.array([[cos, -sin, self.x], [sin, cos, self.y], [0.0, 0.0, 1.0]])


def fit_outline(shot: Mask, normal: Mask, damage: Mask, start: np.ndarray) -> np.ndarray:
    """Improve a similarity that lays one part over another by their outlines (trimmed iterative closest points).

    Frames are bent by the damage itself: a screw without its tip has its centroid elsewhere and looks smaller. So the
    fit begins from several places: centroid or either end in line, at the frames' scale or at that of the camera.
    Outline points near the damage, and the fifth of points that fit worst, do not count.

    Args:
        shot: bool (H,W): the part in the shot.
        normal: bool (H',W'): the part in the normal picture.
        damage: bool (H,W) of the shot.
        start: float (3,3), a similarity without mirroring from shot to normal, x, y.

    Returns:
        float64 (3,3); `start` itself where the outlines do not come nearer.
    """
    reach = int(0.05 * np.sqrt(shot.sum())) * 2 + 5
    around, near = np.zeros_like(damage), spot_of([], damage, reach)
    around[near] = cv2.dilate(damage[near].astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    points, goal = _edge_points(shot), _edge_points(normal)
    points = points[~around[points[:, 1].astype(int), points[:, 0].astype(int)]]
    if len(points) < 20 or len(goal) < 20:
        return start
    points = points[:: max(len(points) // 250, 1)]
    tree = cKDTree(goal)
    tried = [_closer(points, goal, tree, begin, 4) for begin in _starts(shot, goal, start)]
    return _closer(points, goal, tree, min(tried, key=lambda one: one[1])[0], 16)[0]


def with_outline(posed: Mask, shot_part: Mask, normal_part: Mask, *, reach: float = 0.6, sliver: float = 0.014) -> Mask:
    """Return a posed damage grown by where the part itself has another shape there, bool (H,W).

    A broken tip or a bent thread changes the part's outline, and labels mark the damage, not the air where the normal
    part would have gone on. Without that the normal outline would stay beside the damaged one.

    Args:
        posed: bool (H,W): the shot's damage in the normal's picture.
        shot_part: bool (H,W): the shot's part, posed likewise.
        normal_part: bool (H,W).
        reach: How far from the damage the outline is taken over, as a share of the root of the damage's area.
        sliver: As a share of the picture's longer side; thinner differences are misfits of the two outlines, and so are
            those no thicker than what differs farther along the outline, where there is no damage: a rim taken over
            for a part that lies a little otherwise would be drawn twice.
    """
    if not posed.any():
        return posed
    # All is empty outside this box, so nothing below can tell it from the whole picture; large ones are slow.
    box = spot_of([], posed | shot_part | normal_part, _EMPTY)
    whole = posed.copy()
    whole[box] = _with_outline(posed[box], shot_part[box], normal_part[box], reach, sliver * max(posed.shape))
    return whole


def _with_outline(posed: Mask, shot_part: Mask, normal_part: Mask, reach: float, sliver: float) -> Mask:
    """`with_outline` in its box; `sliver` in px."""
    within = max(3.0, reach * float(np.sqrt(posed.sum())))
    around = spot_of([], posed, int(3 * within) + 2)
    far = cv2.distanceTransform((~posed[around]).astype(np.uint8), cv2.DIST_L2, 5)
    differs = (shot_part ^ normal_part).astype(np.uint8)
    deep = cv2.distanceTransform(differs, cv2.DIST_L2, 5)[around][(far > within) & (far <= 3 * within)]
    misfit = 2 * float(deep.max()) if deep.size else 0.0
    width = max(3, round(sliver), round(misfit) + 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    near = np.zeros_like(posed)
    near[around] = far <= within
    reached = spot_of([], near, 2 * width)
    apart = cv2.morphologyEx(differs[reached], cv2.MORPH_OPEN, disc) > 0
    labels = cv2.connectedComponents((posed[reached] | (apart & near[reached])).astype(np.uint8), connectivity=8)[1]
    joined = np.zeros_like(posed)
    joined[reached] = np.isin(labels, np.unique(labels[posed[reached]])) & (labels > 0)
    # What the damage cuts off the normal part, a tip beyond a break, goes with it if the shot has nothing there: first
    # what hangs by no more than a sliver, then what hangs by nothing.
    for by in (disc, np.ones((1, 1), np.uint8)):
        left = cv2.morphologyEx((normal_part & ~joined).astype(np.uint8), cv2.MORPH_OPEN, by)
        _, pieces, stats, _ = cv2.connectedComponentsWithStats(left, connectivity=4)
        sizes = stats[:, cv2.CC_STAT_AREA]
        round_it = spot_of([], joined, width)
        beside = pieces[round_it][cv2.dilate(joined[round_it].astype(np.uint8), disc) > 0]
        for piece in np.unique(beside[beside > 0]):
            loose = pieces == piece
            small = sizes[piece] < min(sizes[1:].max(), 2 * posed.sum())
            if small and (loose & ~shot_part).sum() > 0.5 * loose.sum():
                joined |= (cv2.dilate(loose.astype(np.uint8), by) > 0) & normal_part
    # The part's soft edge goes with it, or a thin ghost of it would stay in the air.
    soft = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    return np.asarray(posed | (cv2.dilate((joined & ~posed).astype(np.uint8), soft) > 0))


def _starts(shot: Mask, goal: np.ndarray, start: np.ndarray) -> list[np.ndarray]:
    """Matrices (3,3) of `start`'s direction: other scales, other points of the axis in line."""
    frame = PartFrame.of(shot)
    axis = start[:2, :2] @ np.array([np.cos(frame.angle), np.sin(frame.angle)])
    axis = axis / np.hypot(*axis)
    edge = _edge_points(shot)
    matrices = [start]
    for size in (1.0, 1 / float(np.hypot(start[0, 0], start[1, 0]))):
        matrix = start.copy()
        matrix[:2, :2] *= size
        moved = edge @ matrix[:2, :2].T
        middle = matrix[:2, :2] @ np.array([frame.x, frame.y])
        matrix[:2, 2] = start[:2] @ np.array([frame.x, frame.y, 1.0]) - middle
        along, goals = (moved + matrix[:2, 2]) @ axis, goal @ axis
        for shift in (0.0, goals.min() - along.min(), goals.max() - along.max()):
            other = matrix.copy()
            other[:2, 2] += shift * axis
            matrices.append(other)
    return matrices


def _closer(
    points: np.ndarray, goal: np.ndarray, tree: cKDTree, start: np.ndarray, steps: int
) -> tuple[np.ndarray, float]:
    """Match and fit some times; the best matrix and its mean distance in px."""
    now, best, least = start, start, np.inf
    for _ in range(steps):
        away, which = tree.query(points @ now[:2, :2].T + now[:2, 2])
        near = np.argsort(away)[: int(0.8 * len(away))]
        error = float(away[near].mean())
        if error < least:
            best, least = now, error
        # the least-squares similarity, in complex numbers: goal = turn * point + move
        from_, to = (xy[:, 0] + 1j * xy[:, 1] for xy in (points[near], goal[which[near]]))
        centred = from_ - from_.mean()
        turn = (centred.conj() * (to - to.mean())).sum() / max(float((np.abs(centred) ** 2).sum()), 1e-9)
        move = to.mean() - turn * from_.mean()
        now = np.array([[turn.real, -turn.imag, move.real], [turn.imag, turn.real, move.imag], [0, 0, 1]])
    return np.asarray(best), least


def _edge_points(part: Mask) -> np.ndarray:
    outlines, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.concatenate(outlines)[:, 0].astype(np.float64)
