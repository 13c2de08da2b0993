"""data/masks/bend.py: a re-posed shot's picture and mask bend alike, and nothing moves that must not.

Displacements are measured from outside: each pixel of a test picture holds its own coordinate, so what is laid over
another picture says where it came from, to within a twentieth of a pixel (OpenCV's bicubic interpolation).
"""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy import ndimage

from flawsmith.data.masks.bend import Bend, touched
from flawsmith.data.masks.poses import Pose, apply_pose_image, apply_pose_mask, pose_mask
from flawsmith.data.tiling import thickness
from flawsmith.types import Range

SHAPE = (150, 180)
SEEDS = range(6)


def damage(kind: str) -> np.ndarray:
    canvas = np.zeros(SHAPE, np.uint8)
    if kind == "blob":
        cv2.circle(canvas, (95, 70), 9, 1, -1)
    elif kind == "line":
        cv2.line(canvas, (40, 30), (150, 110), 1, 4)
    elif kind == "hairline":
        cv2.line(canvas, (40, 30), (150, 110), 1, 1)
    elif kind == "border":
        cv2.ellipse(canvas, (90, 0), (25, 18), 0, 0, 360, 1, -1)
    else:
        canvas[60:80] = 1
    return canvas > 0


def bend_of(mask: np.ndarray, seed: int, amplitude: float = 1.0, *, on_part: bool = False) -> Bend:
    bend = Bend.of(mask, amplitude, seed, thickness=max(thickness(mask, 0.5), 1.0), on_part=on_part)
    assert bend is not None
    return bend


def sources(pose: Pose, shape: tuple[int, int] = SHAPE, part: np.ndarray | None = None) -> np.ndarray:
    """Where each pixel of the normal's picture comes from in a shot of SHAPE, float64 (h,w,2) as x, y."""
    y, x = np.indices(SHAPE).astype(np.float32)
    found = []
    for ramp, size in ((x, SHAPE[1]), (y, SHAPE[0])):
        laid = apply_pose_image(ramp, Range(0.0, size - 1.0), pose, shape, part=part)[:, :, 0]
        found.append((laid.astype(np.float64) + 1) / 2 * (size - 1))
    return np.stack(found, axis=2)


def moved(pose: Pose, shape: tuple[int, int] = SHAPE, part: np.ndarray | None = None) -> np.ndarray:
    """How far bending moves each pixel, float64 (h,w) px."""
    return np.linalg.norm(sources(pose, shape, part) - sources(replace(pose, bend=None), shape), axis=2)


@pytest.mark.parametrize("kind", ["blob", "line", "hairline", "border"])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_picture_that_shows_its_mask_still_shows_it(kind: str, fill: float) -> None:
    """Thresholded, the bent picture is the bent mask but for a rim of one pixel; and it was bent."""
    mask = damage(kind)
    native = np.where(mask, np.float32(fill), np.float32(1 - fill))
    for seed in SEEDS:
        plain = pose_mask(mask, np.ones(SHAPE, bool), np.ones((140, 200), bool), np.random.default_rng(seed))
        pose = replace(plain, bend=bend_of(mask, seed))
        laid, label = apply_pose_image(native, Range(0, 1), pose, (140, 200)), apply_pose_mask(mask, pose, (140, 200))
        shown = (laid[:, :, 0] > 0) == bool(fill)
        rim = cv2.morphologyEx(label.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        within = apply_pose_mask(np.ones(SHAPE, bool), plain, (140, 200))  # beyond it the shot is reflected
        assert not ((shown != label) & ~rim & within).any()
        before = apply_pose_mask(mask, plain, (140, 200))
        assert (label != before).sum() > (0.02 if kind == "border" else 0.1) * before.sum()
        assert 0.6 * before.sum() < label.sum() < 1.6 * before.sum()


@pytest.mark.parametrize("kind", ["blob", "line", "hairline"])
def test_damage_bends_by_its_own_scale_and_never_folds(kind: str) -> None:
    mask = damage(kind)
    width, lengths = max(thickness(mask, 0.5), 1.0), np.ptp(np.argwhere(mask), axis=0).max() + 1
    for seed in SEEDS:
        pose = replace(Pose.identity(), bend=bend_of(mask, seed))
        far = moved(pose)[mask]
        assert 0.05 * np.sqrt(width * lengths) < far.mean() < np.sqrt(width * lengths)
        at = sources(pose)
        along, down = np.gradient(at, axis=1), np.gradient(at, axis=0)
        assert (along[..., 0] * down[..., 1] - along[..., 1] * down[..., 0]).min() > 0.2
        half = moved(replace(pose, bend=bend_of(mask, seed, 0.5)))[mask]
        assert np.abs(2 * half - far).mean() < 0.1


def test_the_field_is_the_cubic_spline_of_a_random_lattice() -> None:
    """Far from all that must not move, against scipy's B-splines on lattices that are drawn here again."""
    mask = np.zeros((400, 400), bool)
    mask[195:206, 180:220] = True
    bend = Bend.of(mask, 1.0, 3, thickness=10.0)
    assert bend is not None and bend.spacings == (12.5, 50.0)
    rows, columns = bend.reach(mask.shape)
    y, x = np.mgrid[190:211, 190:211].astype(float)
    expected = np.zeros((2, *x.shape))
    rng = np.random.default_rng((3, 35))
    for spacing in bend.spacings:
        counts = [int(np.ceil((ends.stop - ends.start - 1) / spacing)) + 4 for ends in (rows, columns)]
        angles = rng.uniform(0, 2 * np.pi, counts)
        at = [(y - rows.start) / spacing + 1, (x - columns.start) / spacing + 1]
        for axis, component in enumerate((np.cos(angles), np.sin(angles))):
            expected[axis] += 0.2 * spacing * ndimage.map_coordinates(component, at, order=3, prefilter=False)
    ramp = np.indices(mask.shape).astype(np.float32)
    pose = replace(Pose.identity(), bend=bend)
    for axis, (values, here) in enumerate(((ramp[1], x), (ramp[0], y))):
        laid = apply_pose_image(values, Range(0.0, 399.0), pose, mask.shape)[190:211, 190:211, 0]
        np.testing.assert_allclose((laid + 1) / 2 * 399 - here, expected[axis], atol=0.05)


def test_nothing_moves_at_a_border() -> None:
    """Neither at the shot's own borders nor at those of the picture that it is laid on."""
    mask = damage("border")
    for seed in SEEDS:
        bend = bend_of(mask, seed)
        still = moved(replace(Pose.identity(), bend=bend))
        assert still[0].max() == 0 and still[12][mask[12]].max() > 0.3
    inner = damage("blob")
    for seed in SEEDS:
        # The damage ends a pixel above the lower border.
        pose = Pose(((1.0, 0.0, 0.0), (0.0, 1.0, 19.0)), bend=bend_of(inner, seed))
        assert moved(pose, (100, 180))[-1].max() == 0
        before, after = (apply_pose_mask(inner, one, (100, 180)) for one in (replace(pose, bend=None), pose))
        assert not before[-1].any() and not after[-1].any() and (before != after).any()


def test_damage_that_runs_through_is_not_bent() -> None:
    mask = damage("through")
    assert touched(mask) == ((True, True), (False, False))
    assert Bend.of(mask, 1.0, 0, thickness=20.0) is None
    assert Bend.of(damage("blob"), 0.0, 0, thickness=20.0) is None


def test_a_parts_outline_stays_and_damage_stays_on_the_part() -> None:
    part = np.zeros(SHAPE, np.uint8)
    cv2.rectangle(part, (20, 50), (160, 100), 1, -1)
    mask = np.zeros(SHAPE, bool)
    mask[50:80, 70:110] = True  # up to the outline
    solid = part > 0
    for seed in SEEDS:
        plain = Pose.of(cv2.getRotationMatrix2D((90, 75), 20 * seed, 1.1))
        pose = replace(plain, bend=bend_of(mask, seed, on_part=True))
        laid = apply_pose_mask(solid, plain, SHAPE)
        shown = [
            apply_pose_image(solid.astype(np.float32), Range(0, 1), one, SHAPE, part=solid) > 0 for one in (plain, pose)
        ]
        np.testing.assert_array_equal(*shown)
        before, after = apply_pose_mask(mask, plain, SHAPE), apply_pose_mask(mask, pose, SHAPE, solid)
        assert not (after & ~laid).any() and (after != before).sum() > 5
        assert moved(pose, part=solid)[~laid].max() < 1e-3
    with pytest.raises(ValueError, match="give the part's mask"):
        apply_pose_mask(mask, pose, SHAPE)


@pytest.mark.parametrize("scale", [0.5, 1.2])
def test_a_part_of_a_bent_picture_is_cut_from_the_whole(scale: float) -> None:
    native = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
    matrix = cv2.getRotationMatrix2D((95, 70), 33, scale)
    pose, span = replace(Pose.of(matrix), bend=bend_of(damage("blob"), 4)), Range(0, 255)
    whole = apply_pose_image(native, span, pose, (140, 170))
    assert (whole != apply_pose_image(native, span, Pose.of(matrix), (140, 170))).any()
    for spot in ((slice(63, 90), slice(71, 120)), (slice(0, 140), slice(80, 83)), (slice(0, 9), slice(0, 9))):
        np.testing.assert_array_equal(apply_pose_image(native, span, pose, (140, 170), spot), whole[spot])


def test_a_line_scan_picture_bends_too() -> None:
    """Wider than OpenCV's remap takes."""
    mask = np.zeros((40, 40_000), bool)
    mask[12:22, 35_000:35_012] = True
    pose = replace(Pose.identity(), bend=bend_of(mask, 1))
    bent = apply_pose_mask(mask, pose, mask.shape)
    assert (bent != mask).any() and not bent[:, :34_900].any() and 60 < bent.sum() < 240


def test_a_bent_pose_is_read_back_and_old_ones_have_none() -> None:
    pose = replace(Pose.identity(), bend=bend_of(damage("line"), 2**31 - 1, 0.7, on_part=True))
    assert Pose.from_json(json.loads(json.dumps(pose.to_json()))) == pose
    assert Pose.identity().to_json() == {"matrix": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]}
    assert Pose.from_json({"matrix": [[1, 0, 0], [0, 1, 0]]}).bend is None
