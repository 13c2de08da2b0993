"""Components: found, known again, taken away so that the backdrop goes on, and laid elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from flawsmith.config import validate
from flawsmith.data import images
from flawsmith.data.components.finding import components_in
from flawsmith.data.components.matching import MATCHES, Template, match
from flawsmith.data.patches.backdrop import without
from flawsmith.errors import ConfigError, DataError
from flawsmith.generators.component import ComponentChange
from flawsmith.types import Condition, Crop

SIDE = 96
BOX, DISC = (20, 30, 40, 46), (66, 60, 9)
"""A component's left, top, right, bottom; another one's centre x, y and radius. Px."""


def backdrop(seed: int, side: int = SIDE) -> np.ndarray:
    """A shaded, grainy surface, float32 (side,side,3)."""
    rng = np.random.default_rng(seed)
    shade = np.linspace(-0.15, 0.15, side, dtype=np.float32)[None, :, None]
    grain = cv2.GaussianBlur(rng.normal(0, 0.08, (side, side)).astype(np.float32), (0, 0), 0.7)[:, :, None]
    return np.repeat(shade + grain - 0.1, 3, axis=2).astype(np.float32)


def shapes(shift: tuple[int, int] = (0, 0)) -> list[np.ndarray]:
    """Where the box and the disc are, bool (SIDE,SIDE) each."""
    y, x = np.mgrid[:SIDE, :SIDE]
    x, y = x - shift[0], y - shift[1]
    box = (x >= BOX[0]) & (x < BOX[2]) & (y >= BOX[1]) & (y < BOX[3])
    return [box, np.hypot(x - DISC[0], y - DISC[1]) <= DISC[2]]


def product(seed: int, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """A surface with a bright box that has a dark stripe at one end, and a red disc."""
    picture, (box, disc) = backdrop(seed), shapes(shift)
    picture[box] += np.float32(0.6)
    stripe = box & (np.mgrid[:SIDE, :SIDE][1] - shift[0] < BOX[0] + 5)
    picture[stripe] -= np.float32(1.1)
    picture[disc] += np.float32((0.7, -0.3, -0.3))
    return np.clip(cv2.GaussianBlur(picture, (0, 0), 0.6), -1, 1)


def both_in(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


def request(picture: np.ndarray, mask: np.ndarray | None = None) -> Condition:
    where = np.ones((SIDE, SIDE), bool) if mask is None else mask
    normal = torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous()
    return Condition(normal, torch.from_numpy(where.astype(np.float32))[None, None], ("plate",), ("missing",))


def changed(change: str, picture: np.ndarray, seed: int = 0, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    generator = ComponentChange(None, ComponentChange.Settings(changes=[change], **settings))
    made = generator.sample(request(picture), [seed])
    return made.image[0].permute(1, 2, 0).numpy(), made.mask[0, 0].numpy() > 0.5


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return product(1)


def test_components_are_found_and_nothing_else(picture: np.ndarray) -> None:
    components = components_in(picture, np.ones((SIDE, SIDE), bool))
    assert len(components) == 2
    for shape in shapes():
        assert (
            max(both_in(cv2.dilate(shape.astype(np.uint8), np.ones((5, 5))) > 0, one.mask) for one in components) > 0.8
        )
    assert not components_in(backdrop(2), np.ones((SIDE, SIDE), bool))
    left = np.zeros((SIDE, SIDE), bool)
    left[:, : SIDE // 2] = True
    assert len(components_in(picture, left)) == 1, "the disc lies where none may be"


def test_a_corner_of_something_larger_is_no_component() -> None:
    """Cut by the picture's border, or a tab of what is."""
    picture, (box, _) = backdrop(3), shapes((-22, 0))
    picture[box] += 0.6
    assert not components_in(picture, np.ones((SIDE, SIDE), bool))
    tab = backdrop(4)
    tab[20:76, 56:] += 0.6
    tab[40:56, 42:56] += 0.6
    assert not components_in(tab, np.ones((SIDE, SIDE), bool))


@pytest.mark.parametrize("angle", [0, 37, 180])
def test_a_known_component_is_seen_again_turned_and_moved(picture: np.ndarray, angle: float) -> None:
    template = Template.cut(picture, shapes()[0])
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), angle, 1.0)
    matrix[:, 2] += (5, -3)
    there = cv2.warpAffine(product(7), matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    goal = cv2.warpAffine(shapes()[0].astype(np.float32), matrix, (SIDE, SIDE)) > 0.5
    mask, score = match(template, there)
    assert score > MATCHES and both_in(mask, goal) > 0.65
    nothing, low = match(template, backdrop(5))
    assert low < MATCHES and nothing.shape == (SIDE, SIDE)
    assert match(template, there[:8, :8])[1] == -1


def test_the_backdrop_goes_on_with_its_shading_and_grain(picture: np.ndarray) -> None:
    """Against the very backdrop before anything was laid on it; OpenCV's inpainting loses the grain."""
    hole = cv2.dilate(shapes()[1].astype(np.uint8), np.ones((5, 5))) > 0
    made, truth = without(picture, hole, np.random.default_rng(0), others=shapes()[0]), backdrop(1)
    assert np.array_equal(made[~hole], picture[~hole])
    inner = cv2.erode(hole.astype(np.uint8), np.ones((3, 3))) > 0
    assert abs(made[inner].mean() - truth[inner].mean()) < 0.05
    grain = lambda values: float((values - cv2.GaussianBlur(values, (0, 0), 2))[inner].std())  # noqa: E731
    smooth = cv2.inpaint(((picture + 1) * 127.5).astype(np.uint8), hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    soft = grain(cv2.GaussianBlur(truth, (0, 0), 0.6))
    assert 0.6 < grain(made) / soft < 1.5
    assert grain(smooth.astype(np.float32) / 127.5 - 1) / soft < 0.5
    assert np.array_equal(made, without(picture, hole, np.random.default_rng(0), others=shapes()[0]))


def test_nothing_and_everything_stay(picture: np.ndarray) -> None:
    for hole in (np.zeros((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool)):
        assert np.array_equal(without(picture, hole, np.random.default_rng(0)), picture)


def test_missing_marks_where_it_should_be(picture: np.ndarray) -> None:
    made, mask = changed("missing", picture)
    shape = max(shapes(), key=lambda one: both_in(one, mask))
    assert (mask | ~shape).all() and both_in(mask, shape) > 0.6
    assert abs(made[shape].mean() - backdrop(1)[shape].mean()) < 0.08, "it is still seen"


def test_doubled_adds_one_and_leaves_the_first(picture: np.ndarray) -> None:
    made, mask = changed("doubled", picture)
    first = max(shapes(), key=lambda one: abs(one.sum() - mask.sum()) < 0.6 * one.sum())
    assert not (mask & (shapes()[0] | shapes()[1])).any() and first.any()
    assert len(components_in(made, np.ones((SIDE, SIDE), bool))) == 3


def test_moved_marks_both_places(picture: np.ndarray) -> None:
    made, mask = changed("moved", picture, seed=1)
    gone = max(shapes(), key=lambda one: (mask & one).sum() / one.sum())
    assert (mask & gone).sum() == gone.sum()
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = sorted(stats[1:, cv2.CC_STAT_AREA])
    assert count == 3 and areas[1] - areas[0] < 0.1 * areas[1]
    assert len(components_in(made, np.ones((SIDE, SIDE), bool))) == 2


def test_turned_stays_where_it_was(picture: np.ndarray) -> None:
    box = cv2.dilate(shapes()[0].astype(np.uint8), np.ones((41, 41))) > 0
    generator = ComponentChange(None, ComponentChange.Settings(changes=["turned"]))
    made = generator.sample(
        request(picture, box & ~(cv2.dilate(shapes()[1].astype(np.uint8), np.ones((9, 9))) > 0)), [3]
    )
    mask = made.mask[0, 0].numpy() > 0.5
    assert (mask & shapes()[0]).sum() == shapes()[0].sum() and (made.image != request(picture).normal).any()
    middle = np.argwhere(mask).mean(axis=0) - np.argwhere(shapes()[0]).mean(axis=0)
    assert np.abs(middle).max() < 4


def test_without_room_nothing_is_painted() -> None:
    """A component that fills what may change can neither be doubled nor moved: the sample is given up, not invented."""
    picture = product(1)
    tight = cv2.dilate(shapes()[1].astype(np.uint8), np.ones((7, 7))) > 0
    for change in ("doubled", "moved"):
        made = ComponentChange(None, ComponentChange.Settings(changes=[change])).sample(request(picture, tight), [0])
        assert torch.equal(made.image, request(picture).normal) and made.mask.sum() > 0


def test_what_recurs_is_learned_and_a_stain_is_not(picture: np.ndarray) -> None:
    """The box and disc are on every normal place, shifted; a stain on one of them alone."""
    crops = []
    for number in range(4):
        place = product(10 + number, (3 * number - 4, 2 - number))
        if not number:
            cv2.ellipse(place, (70, 20), (12, 5), 30, 0, 360, (-0.9, -0.9, -0.2), -1)
        crops.append(Crop(place, np.ones((SIDE, SIDE), bool), "plate", ""))
    generator = ComponentChange(None, ComponentChange.Settings())
    generator.learn(crops)
    known = generator.learned()
    assert sum(name.startswith("mask") for name in known) == 2
    areas = sorted(int(tensor.sum()) for name, tensor in known.items() if name.startswith("mask"))
    assert all(
        abs(area - int(shape.sum())) < 0.8 * shape.sum() for area, shape in zip(areas, shapes()[::-1], strict=True)
    )
    again = ComponentChange(None, ComponentChange.Settings())
    again.restore(known)
    first, second = (one.sample(request(picture), [5]) for one in (generator, again))
    assert torch.equal(first.image, second.image) and torch.equal(first.mask, second.mask)


def test_a_drawn_component_alone_is_changed(tmp_path: Path) -> None:
    images.write(tmp_path / "good.png", ((product(2) + 1) * 127.5).astype(np.uint8))
    images.write_mask(tmp_path / "disc.png", shapes()[1])
    drawn = [{"image": tmp_path / "good.png", "mask": tmp_path / "disc.png"}]
    settings = ComponentChange.Settings(changes=["missing"], drawn=drawn)
    generator = ComponentChange(None, settings)
    assert ComponentChange.starts_from(settings) == (tmp_path / "good.png", tmp_path / "disc.png")
    generator.learn([Crop(backdrop(1), np.ones((SIDE, SIDE), bool), "plate", "crack")])
    for seed in range(2):
        mask = generator.sample(request(product(9, (4, -6))), [seed]).mask[0, 0].numpy() > 0.5
        assert (mask & shapes((4, -6))[1]).sum() > 0.95 * shapes()[1].sum()
        assert not (mask & shapes((4, -6))[0]).any()


@pytest.mark.parametrize(
    ("image", "mask", "said"),
    [
        ("good.png", "empty.png", "empty.png: no component is marked"),
        ("good.png", "small.png", "small.png"),
        ("good.png", "none.png", "none.png"),
        ("none.png", "empty.png", "none.png"),
    ],
)
def test_a_wrong_drawing_is_named(tmp_path: Path, image: str, mask: str, said: str) -> None:
    images.write(tmp_path / "good.png", ((product(2) + 1) * 127.5).astype(np.uint8))
    images.write_mask(tmp_path / "empty.png", np.zeros((SIDE, SIDE), bool))
    images.write_mask(tmp_path / "small.png", np.ones((8, 8), bool))
    drawn = [{"image": tmp_path / image, "mask": tmp_path / mask}]
    generator = ComponentChange(None, ComponentChange.Settings(drawn=drawn))
    with pytest.raises(DataError) as caught:
        generator.learn([])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_change_is_refused() -> None:
    with pytest.raises(ConfigError, match="missing"):
        validate(ComponentChange.Settings, {"changes": ["lost"]})
