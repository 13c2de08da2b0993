"""The outline of a part lies where the part ends: not a pixel beside it, not round its shadow, not at a thread."""

import cv2
import numpy as np
import pytest

from flawsmith.data import factory
from flawsmith.data.masks import part_frames, parts
from flawsmith.data.masks.parts import part_mask
from flawsmith.data.masks.poses import laid_over, pose_mask


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("cut_out", [True, False])
def test_the_outline_is_not_moved(cut_out, monkeypatch):
    if not cut_out:  # the cut mends what lies too far on either side
        monkeypatch.setattr(parts, "_cut_out", lambda candidate, _: candidate.part)
    y, x = np.mgrid[:256, :256]
    part = ((x - 120.3) / 70) ** 2 + ((y - 131.6) / 40) ** 2 < 1
    soft = cv2.GaussianBlur(np.where(part, 90.0, 200.0), (0, 0), 1.0)
    picture = (soft + np.random.default_rng(0).normal(0, 2, part.shape)).clip(0, 255).astype(np.uint8)
    outline = part_mask(picture)
    assert overlap(outline, part) > (0.95 if cut_out else 0.9)
    away = np.argwhere(outline).mean(0) - np.argwhere(part).mean(0)
    assert np.abs(away).max() < 0.1, f"moved by {away} px"


@pytest.mark.parametrize(("part", "least"), [("screw", 0.95), ("tablet", 0.93)])
def test_neither_shadow_nor_soft_edge_is_part(part, least, monkeypatch):
    pieces = [factory.make(part, None, seed=line, size=256, line=line) for line in range(4)]
    cut_out = np.mean([overlap(part_mask(piece.image), piece.part) for piece in pieces])
    monkeypatch.setattr(parts, "_cut_out", lambda candidate, _: candidate.part)
    without = np.mean([overlap(part_mask(piece.image), piece.part) for piece in pieces])
    assert cut_out > least and cut_out > without + 0.02


@pytest.mark.parametrize(
    ("part", "line", "number"), [("screw", 4, 3), ("screw", 4, 10), ("tablet", 5, 1), ("washer", 1, 2)]
)
def test_a_glint_as_light_as_the_backdrop_belongs_to_the_part(part, line, number, monkeypatch):
    piece = factory.make(part, None, seed=1000 * line + number, size=256, line=line)
    assert overlap(part_mask(piece.image), piece.part) > 0.9
    monkeypatch.setattr(parts, "_cut_out", lambda candidate, _: candidate.part)
    assert overlap(part_mask(piece.image), piece.part) < 0.85, "no longer half found without the cut: choose another"


@pytest.mark.parametrize("side", [16, 17, 40])
def test_a_small_picture_has_a_part_or_none(side):
    picture = np.full((side, side), 200, np.uint8)
    picture[4:-4, 4:-4] = 40
    outline = part_mask(picture)
    assert outline.shape == picture.shape and outline[side // 2, side // 2]


@pytest.mark.parametrize("number", [0, 1, 2, 4, 7])
def test_rust_over_a_head_does_not_slide_it_along_the_threads(number):
    shot = factory.make("screw", "rust", seed=1100, size=256, line=1)
    normal = factory.make("screw", None, seed=1000 + number, size=256, line=1)
    matrix = laid_over(shot.part, normal.part, shot.mask, np.random.default_rng(0), "none")
    frame = part_frames.PartFrame.of(normal.part)
    along = np.array([np.cos(frame.angle), np.sin(frame.angle)])
    laid = np.argwhere(shot.part)[:, ::-1] @ matrix[:2, :2].T + matrix[:2, 2]
    ends, goal = (np.percentile(points @ along, [0.2, 99.8]) for points in (laid, np.argwhere(normal.part)[:, ::-1]))
    assert np.abs(ends - goal).max() < 0.03 * np.ptp(goal)


def threaded(phase, length=180):
    """A bar with teeth: bool (128,256)."""
    bar = np.zeros((128, 256), bool)
    bar[50:78, 30 : 30 + length] = True
    for start in range(34 + phase, 30 + length - 8, 16):
        bar[44:84, start : start + 6] = True
    return bar


def test_threads_that_stand_elsewhere_in_the_shot_are_no_damage():
    damage = np.zeros((128, 256), bool)
    damage[44:70, 90:130] = True
    normal, shot = threaded(0), threaded(7)
    damage &= shot
    assert (part_frames.with_outline(damage, shot, normal) == damage).all()


def test_what_a_break_cuts_off_goes_with_its_crumbs():
    damage = np.zeros((128, 256), bool)
    normal, shot = threaded(0), threaded(7, length=120)
    damage[50:78, 138:170] = True
    label = part_frames.with_outline(damage, shot, normal)
    beyond = normal & (np.indices(normal.shape)[1] >= 172)
    assert label[beyond].all(), "something of the tip stays in the air"
    assert not label[:, :120].any()


def test_damage_at_the_outline_lies_where_the_outlines_lie_over_each_other():
    shot, normal = threaded(0), threaded(0)
    across, inside = np.zeros_like(shot), np.zeros_like(shot)
    across[44:84, 90:110] = True
    inside[60:66, 90:110] = True

    def moved(damage):
        """How far the middle of the damage is moved, px, in the mean over poses."""
        middle = np.array([*np.argwhere(damage).mean(0)[::-1], 1.0])
        all_poses = [pose_mask(damage & shot, shot, normal, np.random.default_rng(seed)) for seed in range(30)]
        return np.mean([np.hypot(*(pose.array @ middle - middle[:2])) for pose in all_poses])

    assert 0 < moved(across) < 0.5 * moved(inside)


def test_no_ghost_of_the_outline_stays_round_what_the_damage_took_away():
    """A label drawn a little inside the normal outline: the sliver beside it, and its soft edge, go with it."""
    normal, shot, damage = (np.zeros((300, 300), bool) for _ in range(3))
    normal[100:160, 40:211] = True  # a bar, broken off at 200 in the shot
    shot[100:160, 40:200] = True
    shot[144:, 100:170] = False  # where the outlines differ without damage, so nothing thin is taken over
    damage[102:158, 194:209] = True
    label = part_frames.with_outline(damage, shot, normal)
    soft = round(part_frames.SOFT * 300)
    gone = np.zeros_like(label)
    gone[100 - soft : 160 + soft, 205:207] = gone[104:156, 204 : 211 + soft] = True
    assert label[damage].all() and label[gone].all()
    # What stays of the part is not taken.
    assert not label[110:150, :192].any() and label.sum() < 1.5 * damage.sum()
    # Damage on the part that takes nothing away gets no margin.
    assert (part_frames.with_outline(damage, normal, normal) == damage).all()
