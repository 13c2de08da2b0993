"""New damage shapes: thickness, area, borders, pieces and place are those of the real masks."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from scipy.ndimage import label
from scipy.spatial.distance import cdist

from flawsmith.data.masks import blobs
from flawsmith.data.masks.bend import touched
from flawsmith.data.masks.blobs import between
from flawsmith.data.masks.lines.drawing import new_path, swept
from flawsmith.data.masks.lines.reading import read_line
from flawsmith.data.masks.shapes import procedural, vary
from flawsmith.data.tiling import thickness

EIGHT = np.ones((3, 3))


def drawn(*points: tuple[int, int], width: int, shape: tuple[int, int] = (160, 200)) -> np.ndarray:
    canvas = np.zeros(shape, np.uint8)
    cv2.polylines(canvas, [np.array(points)], False, 1, width)
    return canvas > 0


def disc(x: int, y: int, radius: float, shape: tuple[int, int] = (160, 200)) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def new_ones(real: list[np.ndarray], count: int = 12) -> list[np.ndarray]:
    whole = np.ones(real[0].shape, bool)
    return [procedural(real, whole.shape, whole, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("width", [1, 3, 7])
def test_a_line_is_read_with_its_length_and_thickness(width):
    mask = drawn((40, 40), (110, 50), (160, 100), width=width)
    line = read_line(mask)
    assert line is not None
    length = np.hypot(70, 10) + np.hypot(50, 50)
    assert line.length == pytest.approx(length, abs=width + 4)
    assert line.width.sum() == pytest.approx(mask.sum(), rel=0.06)
    ends = line.path[[0, -1]] if line.path[0, 0] < line.path[-1, 0] else line.path[[-1, 0]]
    np.testing.assert_allclose(ends, [(40, 40), (160, 100)], atol=width / 2 + 2)


def test_what_is_no_line_is_not_read_as_one():
    assert read_line(disc(90, 80, 20)) is None
    dots = [disc(40 + 12 * number, 80, 3) for number in range(8)]
    assert read_line(np.logical_or.reduce(dots)) is None, "a row of dots"


def test_a_broken_line_keeps_its_gap():
    mask = drawn((30, 60), (150, 80), width=4)
    mask[:, 85:97] = False
    line = read_line(mask)
    assert line is not None and 8 <= (line.width == 0).sum() <= 16
    assert {label(new, EIGHT)[1] for new in new_ones([mask], 6)} == {2}


def test_new_paths_turn_as_the_real_ones_do():
    straight, arc = drawn((30, 50), (170, 90), width=3), np.zeros((160, 200), np.uint8)
    cv2.ellipse(arc, (100, 90), (60, 60), 0, 180, 320, 1, 3)
    for mask in (straight, arc > 0):
        line = read_line(mask)
        assert line is not None
        for seed in range(8):
            path = new_path([line], line.length, np.random.default_rng(seed))
            assert np.hypot(*(path[-1] - path[0])) / line.length == pytest.approx(line.straightness, abs=0.06)


def test_a_swept_disc_covers_what_is_near_the_path():
    """Against every pixel's distance to every point."""
    path = np.stack([np.linspace(10, 50, 41), 20 + 6 * np.sin(np.linspace(0, 4, 41))], axis=1)
    width = np.full(41, 6.0)
    rows, columns = np.mgrid[:40, :64]
    away = cdist(np.stack([columns.ravel(), rows.ravel()], axis=1), path).min(axis=1).reshape(40, 64)
    np.testing.assert_array_equal(swept(path, width, (40, 64)), away <= 3.0)
    assert swept(path, width, (40, 64), area=150).sum() == pytest.approx(150, abs=2)


@pytest.mark.parametrize("width", [2, 5, 9])
def test_new_lines_are_as_thick_and_as_large_as_the_real_ones(width):
    real = [drawn((40, 40), (90, 60), (160, 70), width=width), drawn((60, 120), (100, 90), (120, 60), width=width)]
    made = new_ones(real)
    real_width = np.median([thickness(mask, 0.5) for mask in real])
    assert np.median([thickness(mask, 0.5) for mask in made]) == pytest.approx(real_width, rel=0.25)
    areas = sorted(int(mask.sum()) for mask in real)
    # turning a mask by any angle rounds its outline to pixels anew
    assert all(0.88 * areas[0] <= mask.sum() <= 1.12 * areas[1] for mask in made)
    assert len({mask.tobytes() for mask in made}) == len(made)


def arms(mask: np.ndarray, radius: float = 10.0) -> int:
    """How many pieces are left of damage without a disc round one of its pixels, at most: of a line 2, branched 3."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    cut = [mask & (np.hypot(rows - row, columns - column) > radius) for row, column in np.argwhere(mask)[::5]]
    return max(int((np.bincount(label(left, EIGHT)[0].ravel())[1:] >= 10).sum()) for left in cut)


def test_branches_stay_branches():
    """At the place, angle and length of the real one; they are not counted as thickness of the line."""
    real = drawn((30, 90), (100, 84), (170, 92), width=4) | drawn((80, 86), (104, 60), width=4)
    line = read_line(real)
    assert line is not None and arms(real) == 3
    (branch,) = line.branches
    np.testing.assert_allclose(line.path[branch.at], (80, 86), atol=7)
    assert branch.line.length == pytest.approx(np.hypot(24, 26), abs=4)
    assert abs(np.sin(branch.angle)) == pytest.approx(np.sin(np.arctan2(26, 24)), abs=0.15)
    assert line.area == pytest.approx(real.sum(), rel=0.08) and line.width.max() < 1.6 * line.typical_width
    backwards = line.reversed.branches[0]
    assert np.cos(backwards.angle) == pytest.approx(-np.cos(branch.angle)), "from the other end"
    made = new_ones([real], 6)
    assert [arms(mask) for mask in made] == [3] * 6
    assert [label(mask, EIGHT)[1] for mask in made] == [1] * 6
    assert all(mask.sum() == pytest.approx(real.sum(), rel=0.15) for mask in made)
    deepest = [cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5).max() for mask in (real, *made)]
    assert max(deepest[1:]) < 1.5 * deepest[0], "no knob where it branches"


def test_new_lines_wriggle_as_the_real_ones_do():
    """Aside of a smooth curve along it; a straight line stays straight."""

    def aside(mask: np.ndarray) -> float:
        """Standard deviation in px of where its middle lies, from a curve of third order along it."""
        pixels = np.argwhere(mask).astype(float)
        along, across = ((pixels - pixels.mean(axis=0)) @ np.linalg.svd(pixels - pixels.mean(axis=0), False)[2].T).T
        place = np.rint(along - along.min()).astype(int)
        middle = np.bincount(place, across) / np.maximum(np.bincount(place), 1)
        x = np.linspace(-1, 1, len(middle))[4:-4]
        return float((middle[4:-4] - np.polyval(np.polyfit(x, middle[4:-4], 3), x)).std())

    columns = np.arange(20, 181, 2)
    saw = 2.5 * (1 - 4 * np.abs((columns / 12) % 1 - 0.5))
    for heights in (70 + saw, 70 + 0 * saw):
        real = drawn(*zip(columns.tolist(), np.rint(heights).astype(int).tolist(), strict=True), width=3)
        made = [aside(mask) for mask in new_ones([real], 8)]
        assert np.mean(made) == pytest.approx(aside(real), rel=0.35, abs=0.5)


def test_a_new_blob_lies_between_two_in_size_and_shape():
    ellipse = np.zeros((160, 200), np.uint8)
    cv2.ellipse(ellipse, (100, 80), (32, 12), 30, 0, 360, 1, -1)
    real = [ellipse > 0, disc(60, 60, 14)]
    areas = sorted(int(mask.sum()) for mask in real)
    made = new_ones(real)
    for mask in made:
        assert 0.9 * areas[0] <= mask.sum() <= 1.1 * areas[1] and label(mask, EIGHT)[1] == 1
    slim = [between(real[0], other, 1000.0, np.random.default_rng(1)) for other in (None, real[1])]
    moments = [np.linalg.eigvalsh(np.cov(np.argwhere(mask).T)) for mask in slim]
    assert moments[0][1] / moments[0][0] > moments[1][1] / moments[1][0] > 1, "with a disc it becomes rounder"


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("kind", ["blob", "line"])
def test_damage_at_a_border_stays_there(kind, side):
    mask = disc(0, 70, 15) if kind == "blob" else drawn((-5, 70), (40, 80), (70, 75), width=4)
    for _ in range(side):
        mask = np.rot90(mask)
    other = np.fliplr(disc(3, 60, 12))
    for seed in range(4):
        new = vary(np.ascontiguousarray(mask), [other], np.random.default_rng(seed))
        assert touched(new) == touched(mask)
        assert not np.array_equal(new, mask)


def test_damage_that_runs_through_does_so_again():
    line, band = drawn((-5, 70), (80, 85), (205, 60), width=3), np.zeros((160, 200), bool)
    band[50:90] = True
    for mask in (line, band):
        for new in new_ones([mask], 5):
            assert touched(new) == ((True, True), (False, False))
            assert new.any(axis=0).all(), "no column without damage"


def test_pieces_keep_their_number_and_distances():
    places = [(60, 60), (75, 70), (100, 58), (88, 92), (120, 90)]
    real = np.logical_or.reduce([disc(x, y, 4) for x, y in places])

    def nearest(mask: np.ndarray) -> np.ndarray:
        labels, count = label(mask, EIGHT)
        centres = [np.argwhere(labels == number).mean(axis=0) for number in range(1, count + 1)]
        return np.sort(cdist(centres, centres) + 1e6 * np.eye(count), axis=1)[:, 0]

    made = new_ones([real], 8)
    assert [label(mask, EIGHT)[1] for mask in made] == [5] * 8
    assert np.median([np.median(nearest(mask)) for mask in made]) == pytest.approx(np.median(nearest(real)), rel=0.2)


def test_on_a_part_new_shapes_stay_where_the_shots_have_damage():
    def rod(angle: float) -> np.ndarray:
        """A rod with a thick head at one end."""
        canvas, along = np.zeros((160, 160), np.uint8), np.array([np.cos(angle), np.sin(angle)])
        start, end = (80 - 60 * along).astype(int), (80 + 60 * along).astype(int)
        cv2.line(canvas, tuple(map(int, start)), tuple(map(int, end)), 1, 16)
        cv2.circle(canvas, tuple(map(int, start)), 18, 1, -1)
        return canvas > 0

    shot = rod(0.3)
    head = (80 - 60 * np.array([np.cos(0.3), np.sin(0.3)])).astype(int)
    damage = disc(*head, 6, (160, 160))
    for seed in range(5):
        angle = 0.3 + 1.2 * seed
        part = rod(angle)
        new = procedural([damage], part.shape, part, np.random.default_rng(seed), shot_part=lambda _: shot)
        at = np.argwhere(new).mean(axis=0)[::-1]
        assert np.hypot(*(at - (80 - 60 * np.array([np.cos(angle), np.sin(angle)])))) < 10
        assert not (new & ~part).any()


@pytest.mark.parametrize(
    "mask", [disc(5, 5, 0), disc(0, 0, 4), np.ones((160, 200), bool), drawn((9, 9), (12, 9), width=1)]
)
def test_masks_are_never_empty_and_repeat_with_their_seed(mask):
    for seed in range(3):
        new, again = (procedural([mask], (90, 70), np.ones((90, 70), bool), np.random.default_rng(seed)) for _ in "ab")
        assert new.any() and new.shape == (90, 70)
        np.testing.assert_array_equal(new, again)


def test_a_band_along_a_whole_line_scan_takes_no_grid_as_wide_as_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    cells, signed = [], blobs._signed

    def counted(mask: np.ndarray, matrix: np.ndarray, corner: np.ndarray, step: float, size: tuple[int, ...]) -> Any:
        cells.append(size[0] * size[1])
        return signed(mask, matrix, corner, step, size)

    monkeypatch.setattr(blobs, "_signed", counted)
    band = np.zeros((9000, 200), bool)
    band[400:8600, 90:105] = True
    shape = between(band, None, float(band.sum()), np.random.default_rng(0))
    assert shape.any() and max(cells) < 4_000_000  # ten million before
