"""A sentence on photographs: named places, relations, directions, several damages, sizes in mm, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import flawsmith as fs
from flawsmith.data import images
from flawsmith.data.masks.poses import apply_pose_mask
from flawsmith.data.photographs import Photographs
from flawsmith.data.sentences.grammar import ParsedPrompt
from flawsmith.data.sentences.regions import region_mask, room_for
from flawsmith.errors import ConfigError, DataError
from flawsmith.preflight.refuse import preflight
from flawsmith.run.dataset import divide, load_split
from flawsmith.types import Example

SIDE = 96
HOLE = (60.0, 36.0, 9.0)
"""Centre x, y and radius of the hole on the plates, px."""


def plate(rng: np.random.Generator) -> np.ndarray:
    """A grainy surface with a hole, uint8 (SIDE,SIDE)."""
    picture = rng.normal(140, 5, (SIDE, SIDE)).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE]
    picture[np.hypot(x - HOLE[0], y - HOLE[1]) < HOLE[2]] = 30
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six normal plates, four with a straight slanted scratch, in MVTec's layout."""
    root, rng = tmp_path_factory.mktemp("plates"), np.random.default_rng(0)
    for number in range(6):
        images.write(root / f"plate/train/good/{number:03d}.png", plate(rng))
    for number in range(4):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        cv2.line(mask, (10, 60 + number), (10 + 12 + 5 * number, 70 + number), 1, 2)
        picture = plate(rng)
        picture[mask > 0] = 220
        images.write(root / f"plate/test/scratch/{number:03d}.png", picture)
        images.write_mask(root / f"plate/ground_truth/scratch/{number:03d}_mask.png", mask > 0)
    return root


def run_of(root: Path, folder: Path, prompt: str, **changes: Any) -> fs.Run:
    """A run of crop_paste whose samples the sentence asks for."""
    box = [
        (HOLE[0] - HOLE[2]) / SIDE,
        (HOLE[1] - HOLE[2]) / SIDE,
        (HOLE[0] + HOLE[2]) / SIDE,
        (HOLE[1] + HOLE[2]) / SIDE,
    ]
    overrides = {
        "data.root": str(root),
        "data.shots": 4,
        "data.places": {"hole": {"box": box, "words": ["bore"]}},
        "generator.name": "crop_paste",
        "generate.count": 3,
        "generate.controls": 0,
        "generate.prompt": prompt,
        **changes,
    }
    return fs.Run.create(folder / "run", fs.load_config(None, overrides))


def made_by(run: fs.Run) -> list[np.ndarray]:
    """The masks of a run's samples, after it was run."""
    fs.train(run)
    fs.generate(run)
    rows = [row for row in run.samples() if row.made]
    assert len(rows) == 3
    return [images.read_mask(run.path(row.mask), (SIDE, SIDE)) for row in rows]


def components(mask: np.ndarray) -> list[np.ndarray]:
    """Its connected pieces of more than a few pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return [labels == number for number in range(1, count) if stats[number, cv2.CC_STAT_AREA] > 5]


def angle_of(mask: np.ndarray) -> float:
    """Degrees of the long axis, 0 to 180."""
    points = np.argwhere(mask)[:, ::-1].astype(float)
    vector = np.linalg.eigh(np.cov(points.T))[1][:, 1]
    return float(np.degrees(np.arctan2(vector[1], vector[0])) % 180)


def test_two_scratches_beside_the_hole(root: Path, tmp_path: Path) -> None:
    """Both are there, apart, near the hole and not in it; and the pictures are exact outside the mask."""
    run = run_of(root, tmp_path, "two scratches beside the hole")
    masks = made_by(run)
    y, x = np.mgrid[:SIDE, :SIDE]
    far = np.hypot(x - HOLE[0], y - HOLE[1]) - HOLE[2]
    for line, mask in zip(run.plan(), masks, strict=True):
        assert len(line.further) == 1
        assert len(components(mask)) >= 2
        for piece in components(mask):
            assert np.median(far[piece]) > 0 and far[piece].min() < 40
        assert mask[far < -3].mean() < 0.1
    normals = {example.id: example for example in load_split(run).normals}
    for row, mask in zip(run.samples(), masks, strict=True):
        before, after = images.read(normals[row.normal].image), images.read(run.path(row.image))
        assert (before != after)[mask].any() and (before == after)[~mask].all()
    assert run.plan() == fs.Run.open(run.folder).plan()


def test_along_an_edge_and_in_a_direction(root: Path, tmp_path: Path) -> None:
    for number, (sentence, degrees) in enumerate(
        [("a scratch along the top edge", 0), ("왼쪽 가장자리를 따라 긁힘", 90)]
    ):
        for mask in made_by(run_of(root, tmp_path / str(number), sentence)):
            off = abs(angle_of(mask) - degrees)
            assert min(off, 180 - off) < 15, sentence
            ys, xs = np.nonzero(mask)
            if "왼쪽" in sentence:
                assert xs.mean() < 0.2 * SIDE
            if "top" in sentence:
                assert ys.mean() < 0.2 * SIDE


def test_sizes_in_mm_are_drawn_as_long_as_they_are_said(root: Path, tmp_path: Path) -> None:
    run = run_of(root, tmp_path, "a 6 mm long and 0.6 mm wide scratch", **{"data.pixel_mm": 0.15})
    fs.train(run)
    fs.generate(run)
    split = load_split(run)
    photographs, shots = Photographs(split.normals), {shot.id: shot for shot in split.shots}
    for line in run.plan():
        assert line.pose is not None
        mask = photographs.read(shots[line.shot]).mask
        assert mask is not None
        posed = apply_pose_mask(mask, line.pose, (SIDE, SIDE))
        points = np.argwhere(posed)[:, ::-1].astype(float)
        vector = np.linalg.eigh(np.cov(points.T))[1][:, 1]
        length = np.ptp(points @ vector) + 1
        assert abs(length - 40) < 4  # 6 mm at 0.15 mm
        assert abs(posed.sum() / length - 4) < 1.3  # 0.6 mm


@pytest.mark.parametrize("sentence", ["a scratch 6 mm long", "a 6 mm scratch", "a scratch 0.6 mm wide"])
def test_one_size_in_mm_alone_scales_damage_alike(root: Path, tmp_path: Path, sentence: str) -> None:
    """What is not asked for keeps its proportion to what is: a width that nobody named was divided by."""
    run = run_of(root, tmp_path, sentence, **{"data.pixel_mm": 0.15, "generate.count": 1})
    fs.train(run)
    fs.generate(run)
    (line,) = run.plan()
    assert line.pose is not None
    linear = line.pose.array[:, :2]
    assert np.allclose(linear @ linear.T, abs(np.linalg.det(linear)) * np.eye(2))


@pytest.mark.parametrize(
    ("sentence", "changes", "said"),
    [
        ("a 3 mm scratch", {}, "set data.pixel_mm"),
        ("a 30 mm scratch", {"data.pixel_mm": 0.1}, "30 mm are 300 px, and the photograph has 96"),
        ("a scratch on the lid", {}, "unknown: lid; known are the defect types scratch; the places left"),
        ("a scratch on the hole", {"data.places": {"hole": {"mask": "none.png"}}}, "none.png"),
        (
            "a scratch on the hole",
            {"data.places": {"hole": {"box": [0, 0, 1, 1], "drawn_on": "plate/train/good/00.png"}}},
            "data.places.hole.drawn_on: 'plate/train/good/00.png' is no normal photograph of plate; did you mean",
        ),
        (
            "a scratch on the hole",
            {"data.places": {"hole": {"box": [0, 0, 1, 1], "product": "lid"}}},
            "hole is a place of 'lid', which gets no scratch here",
        ),
        ("a scratch beside the hole", {"data.places": {"hole": {"box": [0, 0, 1, 1]}}}, "no room at beside hole"),
    ],
)
def test_what_cannot_be_laid_is_said(
    root: Path, tmp_path: Path, sentence: str, changes: dict[str, Any], said: str
) -> None:
    run = run_of(root, tmp_path, sentence, **changes)
    fs.train(run)
    with pytest.raises((ConfigError, DataError)) as caught:
        fs.generate(run)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.places": {"hole": {"mask": "none.png"}}}, "data.places.hole.mask: .*none.png: no such file"),
        (
            {"data.places": {"hole": {"box": [0, 0, 1, 1], "drawn_on": "plate/train/good/01.png"}}},
            "data.places.hole.drawn_on: 'plate/train/good/01.png' is no normal photograph; did you mean",
        ),
        ({"generate.prompt": "a scrach"}, r"unknown: scrach \(nearest: scratch\)"),
        ({"generate.describe": True, "generate.describer": "none", "generate.prompt": ""}, "'none' is no transformers"),
    ],
)
def test_check_says_it_before_a_run_begins(root: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    config = run_of(root, tmp_path, "a scratch", **{"prove.enabled": False, **changes}).config
    (sentence,) = preflight(config, divide(config))
    assert re.search(said, sentence)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({}, "give exactly one of box, polygon and mask"),
        ({"box": [0, 0, 1, 1], "mask": "a.png"}, "give exactly one of box, polygon and mask"),
        ({"box": [0.5, 0, 0.2, 1]}, "left below right"),
        ({"polygon": [[0, 0], [1, 1]]}, "three corners"),
        ({"box": [0, 0, 1, 2]}, "less than or equal to 1"),
    ],
)
def test_a_place_is_somewhere(place: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="data.places.head") as caught:
        fs.load_config(None, {"data.places": {"head": place}})
    assert said in str(caught.value)


def test_another_mask_of_a_place_is_another_input(root: Path, tmp_path: Path) -> None:
    """A place's mask decides where samples lie: when the file changes, they are made again."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[70:90, 5:30] = True
    images.write_mask(tmp_path / "hole.png", mask)
    run = run_of(
        root, tmp_path, "a scratch on the hole", **{"data.places": {"hole": {"mask": str(tmp_path / "hole.png")}}}
    )
    for made in made_by(run):
        assert made[mask].sum() > 0.9 * made.sum()
    images.write_mask(tmp_path / "hole.png", mask[::-1])
    for made in made_by(fs.Run.open(run.folder)):
        assert made[mask[::-1]].sum() > 0.9 * made.sum()


def rod(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """A part with a thick head on a plain backdrop, turned: the picture, and where its head is."""
    body, head = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    way = np.array([np.cos(angle), np.sin(angle)])
    middle = np.array([SIDE / 2, SIDE / 2])
    ends = [tuple(int(v) for v in np.rint(middle + way * step)) for step in (-28, 30, -22)]
    cv2.line(body, ends[0], ends[1], 1, 7)
    cv2.circle(head, ends[2], 11, 1, -1)
    picture = np.full((SIDE, SIDE), 215, np.uint8)
    picture[(body | head) > 0] = 70
    return cv2.GaussianBlur(picture, (0, 0), 0.8), head > 0


def test_a_place_goes_with_a_part_that_lies_in_any_direction(tmp_path: Path) -> None:
    examples, heads = [], []
    for number, angle in enumerate((0.3, 1.9, 4.0)):
        picture, head = rod(angle)
        images.write(tmp_path / f"{number}.png", picture)
        examples.append(Example(f"rod/{number}.png", tmp_path / f"{number}.png", "rod"))
        heads.append(head)
    images.write_mask(tmp_path / "head.png", heads[0])
    place = {"head": {"mask": "head.png", "drawn_on": "rod/0.png"}}
    settings = fs.load_config(None, {"data.root": str(tmp_path), "data.places": place}).data
    photographs = Photographs(examples)
    for example, head in zip(examples, heads, strict=True):
        carried = region_mask("head", settings, example, photographs)
        assert (carried & head).sum() > 0.6 * (carried | head).sum(), (
            example.id
        )  # a part of 96 px is found to a px or two


def test_room_is_on_beside_or_at_the_edge() -> None:
    """Against the definition, pixel by pixel: distances to the place by brute force."""
    region, part = np.zeros((40, 50), bool), np.ones((40, 50), bool)
    region[12:24, 15:31] = True
    places = np.argwhere(region)
    away = np.array(
        [[np.sqrt(((places - (row, column)) ** 2).sum(axis=1).min()) for column in range(50)] for row in range(40)]
    )
    assert (room_for(ParsedPrompt("a", region="x"), region, part, 5) == region).all()
    beside = room_for(ParsedPrompt("a", region="x", beside=True), region, part, 5)
    assert not (beside & region).any() and away[beside].max() <= np.sqrt(region.sum()) / 2 + 0.5
    left = room_for(ParsedPrompt("a", region="x", beside=True, across="left"), region, part, 5)
    assert left.any() and np.argwhere(left)[:, 1].max() < 15
    inner = room_for(ParsedPrompt("a", region="x", across="right"), region, part, 5)
    assert (inner <= region).all() and np.argwhere(inner)[:, 1].min() >= 25
    edge = room_for(ParsedPrompt("a", region="x", edge=True, down="top"), region, part, 5)
    assert (edge <= region).all() and np.argwhere(edge)[:, 0].max() < 18
    ring = np.zeros((40, 50), bool)
    ring[5:35, 10:40], ring[12:28, 17:33] = True, False
    outer = room_for(ParsedPrompt("a", edge=True, along=True, across="left"), ring, ring, 5)
    assert outer.any() and np.argwhere(outer)[:, 1].max() < 17, "the far rim of the hole faces left too"
