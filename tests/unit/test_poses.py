"""Parts are found, damage lands where it should, new shapes look like the old."""

import json
import warnings

import cv2
import numpy as np
import pytest

from flawsmith.data import images
from flawsmith.data.masks import part_frames, parts, poses, shapes
from flawsmith.data.masks.part_frames import PartFrame
from flawsmith.data.masks.poses import Pose
from flawsmith.data.tiling import thickness
from flawsmith.errors import DataError


def nail(size=256, angle=0.0, at=(128, 128), tip=True):
    """A nail with a head: bool (size,size), its head at -x before turning; and where its neck is."""
    canvas = np.zeros((size, size), np.uint8)
    cos, sin = np.cos(angle), np.sin(angle)

    def put(points):
        return np.rint([(at[0] + cos * x - sin * y, at[1] + sin * x + cos * y) for x, y in points]).astype(np.int32)

    cv2.fillPoly(canvas, [put([(-70, -22), (-60, -22), (-50, -7), (-50, 7), (-60, 22), (-70, 22)])], 1)
    cv2.fillPoly(
        canvas, [put([(-55, -7), (60 if tip else 50, -7), (85 if tip else 50, 0), (60 if tip else 50, 7), (-55, 7)])], 1
    )
    neck = np.zeros((size, size), np.uint8)
    cv2.fillPoly(neck, [put([(-40, -4), (-28, -4), (-28, 4), (-40, 4)])], 1)
    return canvas > 0, neck > 0


def photograph(part, rng, noise=2.0):
    y, x = np.mgrid[-1 : 1 : part.shape[0] * 1j, -1 : 1 : part.shape[1] * 1j]
    picture = 200 - 25 * (x * x + y * y) + 10 * x
    shadow = cv2.GaussianBlur(part.astype(np.float32), (0, 0), 10)
    picture = np.where(part, 90.0, picture - 30 * shadow)
    return (picture + rng.normal(0, noise, part.shape)).clip(0, 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("colour", [False, True])
def test_a_part_on_an_uneven_backdrop_is_found(dtype, colour):
    part, _ = nail(angle=0.7)
    picture = photograph(part, np.random.default_rng(0)) * {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    picture = picture.astype(dtype)
    found = parts.part_mask(np.repeat(picture[:, :, None], 3, axis=2) if colour else picture)
    assert found.shape == part.shape and found.dtype == bool
    assert (found & part).sum() / (found | part).sum() > 0.85


@pytest.mark.parametrize("dark", [0.0, 25.0])
def test_a_part_on_a_rough_backdrop_is_found(dark):
    """A ring on a belt, as far from it as the belt's grain, one side of it darker: no pixel of it is clear alone."""
    part = np.zeros((384, 384), np.uint8)
    cv2.circle(part, (190, 200), 140, 1, -1)
    cv2.circle(part, (190, 200), 80, 0, -1)
    rng = np.random.default_rng(0)
    belt = 70 + cv2.GaussianBlur(rng.normal(0, 26, part.shape), (0, 0), 0.8)
    metal = 125 - dark * np.linspace(1, 0, 384) + rng.normal(0, 3, part.shape)
    picture = np.where(part > 0, metal, belt).clip(0, 255).astype(np.uint8)
    found, truth = parts.part_mask(picture), part > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.85
    assert not found[200, 190] and not found[5, 5]


def test_a_textured_surface_is_no_part():
    """Grain, a dark stain and a bright corner: what departs does not stand alone."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:300j, -1:1:300j]
    picture = 120 + cv2.GaussianBlur(rng.normal(0, 60, (300, 300)), (0, 0), 1.5) + 30 * (x + y > 1.2)
    picture -= 25 * (np.hypot(x + 0.3, y) < 0.3)
    assert parts.part_mask(picture.clip(0, 255).astype(np.uint8)).all()


def test_a_real_hole_stays_a_hole():
    part = np.zeros((256, 256), np.uint8)
    cv2.circle(part, (128, 128), 80, 1, -1)
    cv2.circle(part, (128, 128), 35, 0, -1)
    picture = (np.where(part > 0, 80, 210) + np.random.default_rng(0).normal(0, 2, part.shape)).astype(np.uint8)
    found = parts.part_mask(picture)
    assert not found[128, 128] and found[128, 70]


@pytest.mark.parametrize("seed", range(6))
def test_a_surface_fills_the_picture(seed):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (200, 260)), (0, 0), float(rng.uniform(0.5, 12)))
    stripes = rng.normal(0, 12, (1, 260)) if seed % 2 else 0
    picture = (110 + 25 * noise / noise.std() + stripes).clip(0, 255).astype(np.uint8)
    assert parts.part_mask(picture).all()
    assert parts.part_mask(np.full((50, 60), 80, np.uint8)).all()
    assert parts.part_mask(np.zeros((3, 9, 3), np.uint8)).all()


def test_the_frame_tells_head_from_tip_at_any_angle():
    for angle in np.linspace(-np.pi, np.pi, 13):
        frame = PartFrame.of(nail(angle=angle)[0])
        assert np.cos(frame.angle - angle) > 0.99
    assert not frame.round
    disc = np.zeros((99, 99), np.uint8)
    cv2.circle(disc, (50, 50), 30, 1, -1)
    assert PartFrame.of(disc > 0).round


def test_damage_on_the_neck_lands_on_the_neck():
    shot, neck = nail(angle=0.4, at=(120, 130))
    rng = np.random.default_rng(0)
    for angle in (-2.5, 0.0, 1.2, 3.0):
        normal, there = nail(300, angle, (150, 140))
        pose = poses.pose_mask(neck, shot, normal, rng, jitter=0.0)
        posed = poses.apply_pose_mask(neck, pose, normal.shape)
        assert (posed & there).sum() / (posed | there).sum() > 0.6
        assert pose.scale == pytest.approx(1, abs=0.05) and np.linalg.det(pose.array[:, :2]) > 0
        jittered = poses.apply_pose_mask(neck, poses.pose_mask(neck, shot, normal, rng), normal.shape)
        assert (jittered & normal).sum() >= 0.8 * jittered.sum() > 0
        ends = [np.argwhere(mask).mean(axis=0) for mask in (jittered, there)]
        assert np.hypot(*(ends[0] - ends[1])) < 15


def test_chance_throws_no_damage_off_the_part():
    shot_part, normal_part = nail()[0], nail(angle=0.7)[0]
    damage = np.zeros_like(shot_part)
    rows = np.flatnonzero(shot_part[:, 128])
    damage[rows[0] : rows[0] + 4, 110:146] = True  # a scratch along the shaft, just inside of its outline
    damage &= shot_part
    off = []
    for seed in range(40):
        pose = poses.pose_mask(damage, shot_part, normal_part, np.random.default_rng(seed))
        laid = poses.apply_pose_mask(damage, pose, normal_part.shape)
        off.append((laid & ~normal_part).sum() / laid.sum())
    assert np.mean(off) < 0.005 and max(off) < 0.05  # 0.015 and 0.13 where 85 % on the part are enough
    beside = np.zeros_like(damage)
    beside[rows[0] - 12 : rows[0] - 8, 110:146] = True  # what lies wholly beside the part in the shot may do so here
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pose = poses.pose_mask(beside, shot_part, normal_part, np.random.default_rng(0))
    assert not (poses.apply_pose_mask(beside, pose, normal_part.shape) & normal_part).any()


def test_a_missing_tip_does_not_move_the_rest():
    shot, neck = nail(angle=0.4, tip=False)
    missing = nail(angle=0.4)[0] & ~shot
    normal, there = nail(300, -1.0, (150, 150))
    pose = poses.pose_mask(missing, shot, normal, np.random.default_rng(0), jitter=0.0)
    tip = nail(300, -1.0, (150, 150))[0] & ~nail(300, -1.0, (150, 150), tip=False)[0]
    posed = poses.apply_pose_mask(missing, pose, normal.shape)
    assert (posed & tip).sum() / (posed | tip).sum() > 0.6


@pytest.mark.parametrize("turn", ["free", "right", "none"])
def test_on_a_surface_damage_lies_wholly_inside(turn):
    rng = np.random.default_rng(0)
    shot = np.zeros((200, 220), np.uint8)
    cv2.line(shot, (60, 50), (160, 120), 1, 3)
    places = []
    for _ in range(30):
        pose = poses.pose_mask(shot > 0, shot >= 0, np.ones((180, 240), bool), rng, turn=turn)
        posed = poses.apply_pose_mask(shot > 0, pose, (180, 240))
        assert 0.79 <= pose.scale <= 1.26
        assert posed.sum() == pytest.approx(shot.sum() * pose.scale**2, rel=0.12)
        places.append(np.argwhere(posed).mean(axis=0))
    assert np.std(places, axis=0).min() > 8


@pytest.mark.parametrize("side", ["top", "left", "bottom", "right", "corner", "across"])
def test_damage_at_an_edge_stays_at_that_edge(side):
    shot = np.zeros((100, 120), bool)
    spot = {
        "top": np.s_[:12, 40:70],
        "left": np.s_[40:70, :12],
        "bottom": np.s_[-12:, 40:70],
        "right": np.s_[40:70, -12:],
        "corner": np.s_[:20, :30],
        "across": np.s_[30:50, :],
    }[side]
    shot[spot] = True
    rng = np.random.default_rng(0)
    for _ in range(12):
        pose = poses.pose_mask(shot, np.ones_like(shot), np.ones((150, 140), bool), rng)
        posed = poses.apply_pose_mask(shot, pose, (150, 140))
        touched = {
            name: line.any()
            for name, line in zip(
                ("top", "left", "bottom", "right"), (posed[0], posed[:, 0], posed[-1], posed[:, -1]), strict=True
            )
        }
        expected = {"corner": {"top", "left"}, "across": {"left", "right"}}.get(side, {side})
        assert {name for name, hit in touched.items() if hit} == expected


def test_poses_repeat_and_are_json():
    shot, neck = nail()
    normal, _ = nail(300, 1.0, (150, 150))
    one, two = (poses.pose_mask(neck, shot, normal, np.random.default_rng(5)) for _ in range(2))
    assert one == two
    assert Pose.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert Pose.identity().scale == 1
    with pytest.raises(DataError, match="empty"):
        poses.pose_mask(np.zeros_like(shot), shot, normal, np.random.default_rng(0))


def test_a_hairline_survives_turning():
    mask = np.zeros((100, 100), bool)
    mask[50, 10:90] = True
    matrix = cv2.getRotationMatrix2D((50, 50), 33, 0.85)
    posed = poses.apply_pose_mask(mask, Pose.of(matrix), (100, 100))
    assert posed.sum() == pytest.approx(80 * 0.85**2, rel=0.25)


@pytest.mark.parametrize("shape", [(90, 80), (90, 80, 3)])
def test_a_picture_is_laid_over_another(shape: tuple[int, ...]):
    rng = np.random.default_rng(0)
    native = cv2.GaussianBlur(rng.uniform(0, 255, shape), (0, 0), 2).astype(np.uint8)
    span = images.range_of(native)
    picture = images.to_model(native, span)
    np.testing.assert_allclose(poses.apply_pose_image(native, span, Pose.identity(), (90, 80)), picture, atol=1e-6)
    shift = Pose(((1.0, 0.0, 10.0), (0.0, 1.0, 5.0)))
    laid = poses.apply_pose_image(native, span, shift, (70, 100))
    np.testing.assert_allclose(laid[5:70, 10:90], picture[:65], atol=1e-6)
    assert laid.shape == (70, 100, 3) and laid.dtype == np.float32
    assert laid.max() <= picture.max() and laid.min() >= picture.min()


@pytest.mark.parametrize("scale", [0.5, 1.2])
def test_a_part_of_a_laid_picture_is_cut_from_the_whole(scale: float):
    native = np.random.default_rng(0).integers(0, 255, (90, 80, 3), dtype=np.uint8)
    span, pose = images.range_of(native), Pose.of(cv2.getRotationMatrix2D((40, 45), 33, scale))
    spot = slice(11, 60), slice(7, 95)
    whole = poses.apply_pose_image(native, span, pose, (70, 100))
    assert (poses.apply_pose_image(native, span, pose, (70, 100), spot) == whole[spot]).all()


def test_a_broken_tip_takes_the_sound_tip_away():
    """The damage goes on to where the normal part ends; the outline elsewhere, and slivers of misfit, stay."""
    normal, broken = nail()[0], nail(tip=False)[0]
    damage = np.zeros_like(normal)
    damage[121:136, 165:181] = True  # at the break, as labels are drawn
    grown = part_frames.with_outline(damage, np.roll(broken, 1, axis=0), normal, reach=0.5)
    assert (grown >= damage).all()
    lost = normal & ~broken
    lost[:, :183] = False
    assert grown[lost].all(), "no piece of the normal tip may hang in the air"
    assert not (grown & ~damage)[:, :160].any()
    np.testing.assert_array_equal(part_frames.with_outline(damage, normal, normal), damage)
    nothing = np.zeros_like(damage)
    assert not part_frames.with_outline(nothing, broken, normal).any()


def test_a_part_that_lies_a_little_otherwise_lends_no_rim():
    """The rim beside the damage is no thicker than the one farther along, where nothing is damaged: a misfit."""
    rows, columns = np.mgrid[:200, :200]
    normal = (rows - 100) ** 2 + (columns - 100) ** 2 < 70**2
    damage = (rows - 100) ** 2 + (columns - 160) ** 2 < 8**2
    shifted = np.roll(normal, 8, axis=1)  # the whole part lies 8 px to the right in the shot
    np.testing.assert_array_equal(part_frames.with_outline(damage, shifted, normal), damage)
    bitten = normal & ~((rows - 100) ** 2 + (columns - 172) ** 2 < 14**2)
    grown = part_frames.with_outline(damage, bitten, normal)
    assert (grown & ~damage).sum() > 60, "a bite beside the damage is taken over"


@pytest.mark.parametrize("defect", ["hairline", "blob", "edge", "speck"])
def test_procedural_shapes_keep_the_statistics(defect):
    like = np.zeros((160, 200), np.uint8)
    if defect == "hairline":
        cv2.line(like, (40, 40), (150, 90), 1, 2)
    elif defect == "blob":
        cv2.circle(like, (90, 80), 18, 1, -1)
    elif defect == "edge":
        like[:15, 60:100] = 1
    else:
        like[80, 80] = 1
    like = like > 0
    part = np.zeros((200, 240), bool)
    part[10:190, 20:220] = True
    if defect == "edge":
        part[:] = True
    rng = np.random.default_rng(0)
    areas, wide, seen = [], [], set()
    for _ in range(20):
        new = shapes.procedural([np.zeros_like(like), like], part.shape, part, rng)
        assert new.shape == part.shape and new.any() and not (new & ~part).any()
        areas.append(new.sum())
        wide.append(thickness(new, 0.5))
        seen.add(new.tobytes())
        assert defect != "edge" or new[0].any()
    assert 0.4 * like.sum() <= np.median(areas) <= 2 * like.sum() + 3
    assert 0.5 * thickness(like, 0.5) <= np.median(wide) <= 1.8 * thickness(like, 0.5) + 1
    assert len(seen) > 10


def test_procedural_asks_for_a_mask():
    with pytest.raises(DataError, match="no real mask"):
        shapes.procedural([np.zeros((5, 5), bool)], (5, 5), np.ones((5, 5), bool), np.random.default_rng(0))


def test_damage_of_a_surface_is_thrown_onto_a_thin_part():
    part, _ = nail(angle=0.4)
    spot = np.zeros((200, 200), bool)
    spot[:12, 90:100] = True  # it touches the border of its own picture, which is no border of the part
    share = []
    for seed in range(20):
        pose = poses.pose_mask(spot, np.ones_like(spot), part, np.random.default_rng(seed))
        posed = poses.apply_pose_mask(spot, pose, part.shape)
        share.append((posed & part).sum() / posed.sum())
    assert np.mean(share) > 0.85 and min(share) > 0.6


def test_only_the_box_that_can_change_is_posed_and_nothing_else_comes_out() -> None:
    """The same masks as warping the whole picture gives, and the same picture to 1/100 of a grey level."""
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (90, 120, 3), np.uint8)
    mask = np.zeros((90, 120), bool)
    mask[30:52, 40:47] = True
    span = images.range_of(picture)
    for _ in range(12):
        angle, size = rng.uniform(-3, 3), rng.uniform(0.75, 1.3)
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        pose = Pose.of(np.column_stack([turn, rng.uniform(-20, 120, 2) - turn @ (43, 41)]))
        soft = cv2.warpAffine(mask.astype(np.float32), pose.array, (150, 100), flags=cv2.INTER_LINEAR, borderValue=0)
        np.testing.assert_array_equal(poses.apply_pose_mask(mask, pose, (100, 150)) & (soft >= 0.5), soft >= 0.5)
        assert not poses.apply_pose_mask(mask, pose, (100, 150))[soft == 0].any()
        model = picture.astype(np.float32) / np.float32(127.5) - np.float32(1)
        warp = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REFLECT_101}
        whole = np.clip(cv2.warpAffine(model, pose.array, (150, 100), **warp), model.min(), model.max())
        spot = slice(20, 61), slice(35, 90)
        np.testing.assert_allclose(
            poses.apply_pose_image(picture, span, pose, (100, 150), spot), whole[spot], atol=7e-5
        )


def test_the_outline_beside_damage_does_not_depend_on_the_backdrop_round_the_part() -> None:
    normal, damage = np.zeros((120, 200), bool), np.zeros((120, 200), bool)
    normal[40:80, 30:150] = True
    broken = normal.copy()
    broken[40:80, 140:] = False
    damage[40:80, 133:140] = True
    alone = part_frames.with_outline(damage, broken, normal)
    assert alone[60, 145]  # the tip beyond the break goes with it
    wide = [np.pad(one, ((70, 30), (0, 90))) for one in (damage, broken, normal)]
    sliver = 0.014 * 200 / 290  # of the longer side, so that it is as many pixels
    np.testing.assert_array_equal(part_frames.with_outline(*wide, sliver=sliver)[70:190, :200], alone)
    assert part_frames.with_outline(*wide, sliver=sliver).sum() == alone.sum()
