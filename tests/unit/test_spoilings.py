"""Labels that the benchmark suite `mask_quality.py` spoils on purpose: how far, how much, and whose."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from flawsmith.data.training_set import TrainingPicture, TrainingSet

SPEC = importlib.util.spec_from_file_location(
    "spoilings", Path(__file__).parents[2] / "benchmarks" / "suites" / "spoilings.py"
)
assert SPEC is not None and SPEC.loader is not None
spoilings = importlib.util.module_from_spec(SPEC)
sys.modules["spoilings"] = spoilings  # where dataclasses look up the names of types
SPEC.loader.exec_module(spoilings)
SPOILINGS, overlap, spoiled = spoilings.SPOILINGS, spoilings.overlap, spoilings.spoiled
shifted, resized, misplaced = spoilings.shifted, spoilings.resized, spoilings.misplaced

SHAPE = 60, 80


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def blob() -> np.ndarray:
    """A label with a dent, a hole and a speck beside it."""
    mask = rectangle(20, 30, 14, 20)
    mask[20:26, 30:36] = mask[28:30, 40:43] = False
    mask[40, 50] = True
    return mask


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("share", "down", "right"), [(0.05, 1, 1), (0.1, 2, 2), (0.25, 5, 5)])
def test_a_label_is_shifted_by_a_share_of_its_box(share: float, down: int, right: int):
    mask, corners = blob(), Counter[tuple[int, int]]()
    for seed in range(40):
        result = shifted(mask, random(seed), share=share)
        (corner,) = [
            (y, x)
            for y in (-down, down)
            for x in (-right, right)
            if (ndimage.shift(mask.astype(float), (y, x), order=0) > 0.5).tolist() == result.tolist()
        ]
        corners[corner] += 1
    assert len(corners) == 4 and min(corners.values()) >= 3


def test_a_shifted_label_stays_in_the_picture_where_it_can():
    """In the picture's upper left corner there is one way alone; a label of the whole picture loses its end."""
    corner = rectangle(0, 0, 8, 12)
    for seed in range(8):
        assert (shifted(corner, random(seed), share=0.25) == rectangle(2, 3, 8, 12)).all()
    whole = shifted(np.ones(SHAPE, bool), random(), share=0.1)
    assert whole.sum() == (60 - 6) * (80 - 8)
    speck = rectangle(30, 40, 1, 1)
    assert {tuple(np.argwhere(shifted(speck, random(seed), share=0.05))[0]) for seed in range(30)} == {
        (29, 39), (29, 41), (31, 39), (31, 41)
    }  # fmt: skip


@pytest.mark.parametrize("factor", [4 / 3, 2, 4, 0.75, 0.5, 0.25])
def test_a_resized_label_has_the_area_that_is_asked_for_and_the_nearest_pixels(factor: float):
    mask = blob()
    result = resized(mask, random(), factor=factor)
    assert result.sum() == round(factor * mask.sum())
    assert overlap(mask, result) == pytest.approx(min(factor, 1 / factor), abs=0.005)
    # By a second implementation of the distance: whatever changed lies no farther than what could have changed.
    if factor > 1:
        assert (mask <= result).all()
        distance = ndimage.distance_transform_edt(~mask)
        assert distance[result & ~mask].max() <= distance[~result].min() + 1e-3
    else:
        assert (result <= mask).all()
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        assert depth[mask & ~result].max() <= depth[result].min() + 1e-3


def test_a_hairline_is_shortened_and_nothing_becomes_empty():
    line = rectangle(30, 10, 1, 40)
    half = resized(line, random(), factor=0.5)
    assert half.sum() == 20 and ndimage.label(half)[1] == 1
    assert resized(rectangle(3, 3, 1, 1), random(), factor=0.25).sum() == 1
    assert resized(np.ones(SHAPE, bool), random(), factor=4).all()
    for spoiling in SPOILINGS:
        for mask in (np.ones(SHAPE, bool), rectangle(0, 0, 1, 1), np.eye(*SHAPE, dtype=bool), line):
            result = spoiling.spoil(mask, random())
            assert result.any() and result.dtype == bool and result.shape == mask.shape, spoiling.name


def test_a_misplaced_label_keeps_its_form_and_covers_no_damage():
    mask = blob()
    form = np.argwhere(mask) - np.argwhere(mask).min(0)
    places = set()
    for seed in range(30):
        result = misplaced(mask, random(seed))
        assert not (result & mask).any()
        assert (np.argwhere(result) - np.argwhere(result).min(0) == form).all()
        places.add(tuple(np.argwhere(result).min(0)))
    rows, columns = np.array(sorted(places)).T
    assert len(places) > 25 and rows.min() < 10 and rows.max() > 25 and columns.min() < 15 and columns.max() > 45
    # Two thirds of the picture cannot be moved off themselves, but farther than not at all.
    assert 0 < overlap(rectangle(0, 0, 60, 54), misplaced(rectangle(0, 0, 60, 54), random())) < 0.6


def test_only_the_labels_of_samples_are_spoiled():
    pixels, clear = np.zeros((*SHAPE, 3), np.uint8), np.zeros(SHAPE, bool)
    normal = TrainingPicture(pixels, clear, "screw", None, "real", "normal.png")
    shot = TrainingPicture(pixels, blob(), "screw", "dent", "real", "shot.png")
    sample = replace(shot, origin="made", id="samples/0.png")
    control = replace(normal, origin="control", id="controls/0.png", painted=blob())
    training = TrainingSet(SHAPE, ("dent",))
    training.pictures = [normal, shot, sample, control, replace(sample, id="samples/1.png")]
    for spoiling in SPOILINGS:
        other, again = spoiled(training, spoiling), spoiled(training, spoiling)
        assert all(other.pictures[place] is training.pictures[place] for place in (0, 1, 3))
        assert (training.pictures[2].mask == blob()).all()
        for place in (2, 4):
            assert overlap(other.pictures[place].mask, blob()) < 0.9
            assert (other.pictures[place].mask == again.pictures[place].mask).all()
            assert other.pictures[place].image is pixels and other.pictures[place].defect == "dent"
    # A sample draws for itself, and a larger shift goes the same way.
    steps = [spoiled(training, one).pictures for one in SPOILINGS if one.name.startswith("shifted")]
    ways = [np.sign(np.argwhere(pictures[2].mask).min(0) - np.argwhere(blob()).min(0)).tolist() for pictures in steps]
    assert ways[0] == ways[1] == ways[2]
    wrong = spoiled(training, SPOILINGS[-1]).pictures
    assert (wrong[2].mask != wrong[4].mask).any()
