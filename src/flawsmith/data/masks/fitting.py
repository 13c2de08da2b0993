"""Which shot's damage fits a drawn mask: laid on it by centroid, long axis and size, and compared by overlap."""

from __future__ import annotations

from itertools import product

import numpy as np

from flawsmith.data.masks.poses import Pose
from flawsmith.errors import DataError

Mask = np.ndarray

SCALES = (0.25, 2.0)
"""Least and largest scale of a shot: matter that is enlarged more than twofold has lost its grain."""
_MOST = 4000
"""Pixels of the drawn mask that are looked at."""


def fitted_pose(shot_mask: Mask, drawn: Mask) -> tuple[Pose, float]:
    """Return how to lay a shot's damage on a drawn mask, and how well it fits there.

    The centroids and the long axes are laid on each other. Of what that leaves open (either direction of the axis,
    mirrored or not, as large or as long as the drawn mask) the best is taken.

    Args:
        shot_mask: bool (H,W), not empty.
        drawn: bool (H',W') of the photograph that is painted on, not empty.

    Returns:
        The pose, from the shot's pixels to the photograph's; and the intersection over union of the damage laid so and
        the drawn mask, 0 to 1.

    Raises:
        DataError: a mask is empty.
    """
    (of_shot, here, axes, length), (of_drawn, there, asked_axes, asked_length) = map(moments, (shot_mask, drawn))
    looked_at = of_drawn
    if len(of_drawn) > _MOST:  # at random, as every n-th pixel would lie in a few columns
        looked_at = of_drawn[np.random.default_rng(0).choice(len(of_drawn), _MOST, replace=False)]
    best, most = Pose.identity(), -1.0
    for size in (np.sqrt(len(of_drawn) / len(of_shot)), asked_length / length):
        scale = float(np.clip(size, *SCALES))
        for along, across in product((1.0, -1.0), repeat=2):
            linear = scale * asked_axes @ np.diag([along, across]) @ axes.T
            back = np.rint((looked_at - there) @ np.linalg.inv(linear).T + here).astype(int)
            inside = (back >= 0).all(axis=1) & (back < shot_mask.shape[::-1]).all(axis=1)
            common = float(shot_mask[back[inside, 1], back[inside, 0]].sum()) * len(of_drawn) / len(looked_at)
            overlap = common / (len(of_drawn) + len(of_shot) * scale**2 - common)
            if overlap > most:
                best, most = Pose.of(np.column_stack([linear, there - linear @ here])), overlap
    return best, min(most, 1.0)


def moments(mask: Mask) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return a mask's pixel centres (N,2) as x, y, their centroid (2,), axes (2,2) as columns, long one first, and the
    standard deviation along that one."""
    points = np.argwhere(mask)[:, ::-1].astype(np.float64)
    if not len(points):
        raise DataError("the mask is empty: there is no damage to lay, or nowhere to lay it")
    centre = points.mean(axis=0)
    # a pixel is a square and no point, so a line of one pixel's width has a width
    spread = (points - centre).T @ (points - centre) / len(points) + np.eye(2) / 12
    variances, axes = np.linalg.eigh(spread)
    return points, centre, axes[:, ::-1], float(np.sqrt(variances[1]))
