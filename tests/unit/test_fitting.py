"""data/masks/fitting.py: a shot's damage laid on a drawn mask, held against masks that are warped and counted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flawsmith.data.masks.fitting import SCALES, fitted_pose
from flawsmith.data.masks.poses import Pose, apply_pose_mask
from flawsmith.errors import DataError

SHAPE = (160, 200)


def hook(mirrored: bool = False) -> np.ndarray:
    """A shape that no turn makes its own mirror image."""
    mask = np.zeros((100, 120), np.uint8)
    cv2.line(mask, (20, 30), (95, 40), 1, 7)
    cv2.line(mask, (95, 40), (90, 75), 1, 9)
    return (mask[:, ::-1] if mirrored else mask) > 0


def similarity(degrees: float, scale: float, shift: tuple[float, float], about: tuple[float, float]) -> Pose:
    matrix = cv2.getRotationMatrix2D(about, degrees, scale)
    matrix[:, 2] += shift
    return Pose.of(matrix)


def overlap_by_warping(shot: np.ndarray, pose: Pose, drawn: np.ndarray) -> float:
    """Intersection over union of whole pixels, by another way than the code's."""
    laid = cv2.warpAffine(shot.astype(np.uint8), pose.array, drawn.shape[::-1], flags=cv2.INTER_NEAREST) > 0
    return float((laid & drawn).sum() / (laid | drawn).sum())


@pytest.mark.parametrize("degrees", [0, 40, 90, 165, -70])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("scale", [0.6, 1.3])
def test_a_shape_that_was_moved_turned_and_scaled_is_found_again(degrees: float, mirrored: bool, scale: float) -> None:
    drawn = apply_pose_mask(hook(), similarity(degrees, scale, (40, 30), (60, 50)), SHAPE)
    shot = hook(mirrored)
    pose, overlap = fitted_pose(shot, drawn)
    assert pose.scale == pytest.approx(scale, rel=0.06)
    assert (np.linalg.det(pose.array[:, :2]) < 0) == mirrored
    assert overlap > 0.85
    assert overlap == pytest.approx(overlap_by_warping(shot, pose, drawn), abs=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_the_overlap_is_that_of_masks_that_are_warped_and_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shot, drawn = (cv2.GaussianBlur(rng.normal(size=SHAPE), (0, 0), 12) for _ in range(2))
    shot, drawn = shot > np.quantile(shot, 0.9), drawn > np.quantile(drawn, 0.8)
    pose, overlap = fitted_pose(shot, drawn)
    laid = np.zeros((800, 1000), bool)  # a picture that no part of the damage leaves
    laid[320:480, 400:600] = drawn
    moved = Pose.of(pose.array + [[0, 0, 400], [0, 0, 320]])
    assert 0 < overlap < 1 and overlap == pytest.approx(overlap_by_warping(shot, moved, laid), abs=0.03)


def test_size_is_held_within_limits_and_one_pixel_is_enough() -> None:
    dot, large = np.zeros((9, 9), bool), np.ones((300, 300), bool)
    dot[4, 4] = True
    pose, overlap = fitted_pose(dot, large)
    assert pose.scale == pytest.approx(SCALES[1]) and overlap < 1e-3
    pose, _ = fitted_pose(large, dot)
    assert pose.scale == pytest.approx(SCALES[0])
    # centre on centre
    assert pose.array @ [149.5, 149.5, 1] == pytest.approx([4, 4])


def test_without_damage_there_is_nothing_to_lay() -> None:
    for shot, drawn in ((hook(), np.zeros(SHAPE, bool)), (np.zeros(SHAPE, bool), hook())):
        with pytest.raises(DataError, match="mask is empty"):
            fitted_pose(shot, drawn)
