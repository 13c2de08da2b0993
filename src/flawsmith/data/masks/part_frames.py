"""How a part lies in its picture, and what its outline tells: one part laid over another, and what damage took away."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from flawsmith.data.tiling import disc
from flawsmith.data.windows import spot_of

Mask = np.ndarray

SOFT = 0.006  # of the picture's longer side: how far the soft edge of a part reaches beyond its outline
_CRUMB = 0.04  # of the damage's area: pieces of the normal part that alone say nothing of what the damage cut off
_CAP = 0.08  # of the root of the part's area: points that miss the other outline by more all count the same
_EMPTY = 8  # px round parts, their soft edges and damage that count in, for distances are measured from outside


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
    fit begins from several places: centroid or either end in line, at the frames' scale or at that of the camera, each
    improved by the outline away from the damage. Threads look alike wherever they are laid, so the whole outline says
    which place is best: rust leaves it as it was, and a broken end fits nowhere. From there all points are fitted but
    the worst fifth.

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
    undamaged = points[~around[points[:, 1].astype(int), points[:, 0].astype(int)]]
    if len(undamaged) < 20 or len(goal) < 20:
        return start
    points, undamaged = (outline[:: max(len(outline) // 250, 1)] for outline in (points, undamaged))
    tree, cap = cKDTree(goal), _CAP * float(np.sqrt(normal.sum()))
    candidates = [_closer(undamaged, goal, tree, begin, 4) for begin in _starts(shot, goal, start)]
    misfits = [float(np.minimum(_nearest(points, tree, matrix)[0], cap).mean()) for matrix in candidates]
    return _closer(points, goal, tree, candidates[int(np.argmin(misfits))], 16)


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
            those no thicker than what differs farther along the outline, where there is no damage: a rim taken
            over for a part that lies a little otherwise would be drawn twice.
    """
    if not posed.any():
        return posed
    # All is empty outside this box, so nothing below can tell it from the whole picture; large ones are slow.
    longer = max(posed.shape)
    soft = max(2, round(SOFT * longer))
    box = spot_of([], posed | shot_part | normal_part, _EMPTY + soft)
    whole = posed.copy()
    whole[box] = _with_outline(posed[box], shot_part[box], normal_part[box], reach, sliver * longer, soft)
    return whole


def _with_outline(posed: Mask, shot_part: Mask, normal_part: Mask, reach: float, sliver: float, soft: int) -> Mask:
    """`with_outline` in its box; `sliver` in px, and `soft`: how far a part's soft edge reaches beyond its outline."""
    within = max(3.0, reach * float(np.sqrt(posed.sum())))
    around = spot_of([], posed, int(3 * within) + 2)
    far = cv2.distanceTransform((~posed[around]).astype(np.uint8), cv2.DIST_L2, 5)
    differs = (shot_part ^ normal_part).astype(np.uint8)
    deep = cv2.distanceTransform(differs, cv2.DIST_L2, 5)[around][(far > within) & (far <= 3 * within)]
    misfit = 2 * float(deep.max()) if deep.size else 0.0
    width = max(3, round(sliver), round(misfit) + 1) | 1  # by an even one OpenCV's opening moves what it opens
    element = disc(width)
    near = np.zeros_like(posed)
    near[around] = far <= within
    reached = spot_of([], near, 2 * width)
    apart = cv2.morphologyEx(differs[reached], cv2.MORPH_OPEN, element) > 0
    labels = cv2.connectedComponents((posed[reached] | (apart & near[reached])).astype(np.uint8), connectivity=8)[1]
    joined = np.zeros_like(posed)
    joined[reached] = np.isin(labels, np.unique(labels[posed[reached]])) & (labels > 0)
    # What the damage cuts off the normal part, a tip beyond a break, goes with it if the shot has nothing there: first
    # what hangs by no more than a sliver, then what hangs by nothing, then crumbs. Crumbs alone are threads that stand
    # elsewhere in the shot.
    least = _CRUMB * float(posed.sum())
    for by, at_least in ((element, least), (np.ones((1, 1), np.uint8), least), (np.ones((1, 1), np.uint8), 0.0)):
        if not at_least and not (joined & ~posed).any():
            break
        left = cv2.morphologyEx((normal_part & ~joined).astype(np.uint8), cv2.MORPH_OPEN, by)
        _, pieces, stats, _ = cv2.connectedComponentsWithStats(left, connectivity=4)
        sizes = stats[:, cv2.CC_STAT_AREA]
        near_damage = spot_of([], joined, width)
        beside = pieces[near_damage][cv2.dilate(joined[near_damage].astype(np.uint8), element) > 0]
        for piece in np.unique(beside[beside > 0]):
            loose = pieces == piece
            small = at_least < sizes[piece] < min(sizes[1:].max(), 2 * posed.sum())
            if small and (loose & ~shot_part).sum() > 0.5 * loose.sum():
                joined |= (cv2.dilate(loose.astype(np.uint8), by) > 0) & normal_part
    # Slivers of the part beside what is gone go with it, and the soft edge of both; else a thin ghost of the normal
    # outline would stay in the air.
    fine, wide = disc(max(3, round(sliver)) | 1), disc(2 * soft + 1)
    near_damage = spot_of([], joined, 2 * soft + len(fine) + 2)
    taken, part, whole = joined[near_damage], normal_part[near_damage], posed.copy()
    gone, rest = (
        cv2.morphologyEx(one.astype(np.uint8), cv2.MORPH_OPEN, fine) > 0
        for one in (taken & part & ~shot_part[near_damage], part & ~taken)
    )
    gone |= (cv2.dilate(gone.astype(np.uint8), wide) > 0) & part & ~rest
    edge = cv2.dilate(((taken & ~posed[near_damage]) | gone).astype(np.uint8), wide) > 0
    whole[near_damage] |= edge & ~rest
    return whole


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


def _nearest(points: np.ndarray, tree: cKDTree, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far from the other outline each point comes to lie, px, and which of its points is nearest."""
    distances, which = tree.query(points @ matrix[:2, :2].T + matrix[:2, 2])
    return distances, which


def _closer(points: np.ndarray, goal: np.ndarray, tree: cKDTree, start: np.ndarray, steps: int) -> np.ndarray:
    """Match and fit some times; the best matrix."""
    now, best, least = start, start, np.inf
    for _ in range(steps):
        away, which = _nearest(points, tree, now)
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
    return np.asarray(best)


def _edge_points(part: Mask) -> np.ndarray:
    outlines, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.concatenate(outlines)[:, 0].astype(np.float64)
