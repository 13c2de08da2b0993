"""Sites for damage that no shot lends: an ellipse on the part, as long as the damage and in its direction.

It is kept as a `Pose` that lays the unit disc on the photograph, so a plan line says all of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flawsmith.data.masks.poses import Pose
from flawsmith.data.tiling import Spot

Mask = np.ndarray
Range = tuple[float, float]

_WIDTH = (0.45, 0.9)
"""Width of a site over its length."""
_LEAST = 6.0
"""Px: the least length."""
_INSIDE = 0.6
"""Share of a site that lies on the part, if one of `_TRIES` sites does; else the fullest is taken."""
_TRIES = 24


def site_on(
    part: Mask,
    rng: np.random.Generator,
    *,
    size: Range,
    within: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
    border: bool = False,
    turn_at: Callable[[int, int], float] | None = None,
) -> Pose:
    """Return a site on a part: the pose of the unit disc, its first axis along the damage.

    Args:
        part: bool (H,W), True somewhere.
        rng: Decides middle, length, width and direction.
        size: Least and greatest length, as shares of the longer side of the part's box; log-uniform.
        within: Left, top, right and bottom of where its middle may lie, as shares of the picture; where no part lies
            there, the part's nearest pixel is taken.
        border: True: its middle lies on the picture's border, or as near to it as the part does.
        turn_at: (column, row) -> direction in radians of a damage there; None = any.
    """
    height, width = part.shape
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    longest = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
    best, most = Pose.identity(), -1.0
    for _ in range(_TRIES):
        length = max(longest * float(np.exp(rng.uniform(*np.log(size)))), _LEAST)
        free, narrow = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(*_WIDTH))
        share = rng.uniform(within[:2], within[2:])
        if border:
            named = [axis for axis in (0, 1) if within[axis::2] != (0.0, 1.0)] or [0, 1]
            axis = named[int(rng.integers(len(named)))]
            end = float(rng.integers(2))
            share[axis] = end if within[axis::2] == (0.0, 1.0) else round(sum(within[axis::2]) / 2)
        wish = share * (width - 1, height - 1)
        x, y = _nearest(part, int(round(wish[0])), int(round(wish[1])))
        turn = free if turn_at is None else turn_at(x, y)
        along = np.array([np.cos(turn), np.sin(turn)]) * length / 2
        across = np.array([-along[1], along[0]]) * narrow
        pose = Pose.of(np.column_stack([along, across, [x, y]]))
        inside = float(_ellipse(pose, part)[1].sum()) / (np.pi * (length / 2) ** 2 * narrow)
        if inside > most:
            best, most = pose, inside
        if inside >= _INSIDE:
            break
    return best


def site_mask(pose: Pose, part: Mask) -> Mask:
    """Return a site on its photograph, bool (H,W): the ellipse where it lies on the part, of a pixel at least."""
    box, inside = _ellipse(pose, part)
    mask = np.zeros(part.shape, bool)
    mask[box] = inside
    if not inside.any():
        x, y = pose.array[:, 2]
        column, row = _nearest(part, int(round(x)), int(round(y)))
        mask[row, column] = True
    return mask


def _ellipse(pose: Pose, part: Mask) -> tuple[Spot, Mask]:
    """Return the box of a site in its photograph, and which pixels of the box are the site's."""
    matrix = pose.array
    reach = np.hypot(matrix[:, 0], matrix[:, 1])
    x, y = matrix[:, 2]
    left, top = (max(int(np.floor(middle - far)), 0) for middle, far in zip((x, y), reach, strict=True))
    right, bottom = int(np.ceil(x + reach[0])) + 1, int(np.ceil(y + reach[1])) + 1
    box = slice(top, min(bottom, part.shape[0])), slice(left, min(right, part.shape[1]))
    rows, columns = np.mgrid[box]
    unit = np.tensordot(np.linalg.inv(matrix[:, :2]), np.stack([columns - x, rows - y]), axes=1)
    return box, ((unit**2).sum(axis=0) <= 1) & part[box]


def axes_of(mask: Mask) -> tuple[float, float, float, float, float]:
    """Return middle (x, y), half length, half width and direction (radians) of a mask: those of the ellipse like it.

    The ellipse with the same second moments (Teague 1980, section 3).

    Args:
        mask: bool (H,W), not empty.
    """
    rows, columns = np.nonzero(mask)
    x, y = float(columns.mean()), float(rows.mean())
    spread = np.cov(np.stack([columns, rows]), bias=True) + np.eye(2) / 12 if len(rows) > 1 else np.eye(2) / 12
    values, vectors = np.linalg.eigh(spread)
    angle = float(np.arctan2(vectors[1, 1], vectors[0, 1]))
    half = 2 * np.sqrt(np.maximum(values, 0))
    return x, y, float(half[1]), float(half[0]), angle


def _nearest(part: Mask, x: int, y: int) -> tuple[int, int]:
    """Return the column and row of the part's pixel that lies nearest to (x, y)."""
    x, y = min(max(x, 0), part.shape[1] - 1), min(max(y, 0), part.shape[0] - 1)
    if part[y, x]:
        return x, y
    rows, columns = np.nonzero(part)
    nearest = int(((rows - y) ** 2 + (columns - x) ** 2).argmin())
    return int(columns[nearest]), int(rows[nearest])
