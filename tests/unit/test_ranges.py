"""data/ranges.py: which values of a product are black and white, and which mean "not measured"."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flawsmith.data import images
from flawsmith.data.feature_windows import window_of
from flawsmith.data.masks.parts import part_mask
from flawsmith.data.masks.stored import stored_mask
from flawsmith.data.photographs import Photographs
from flawsmith.data.ranges import ValueSurvey, mistakes, ranges_of, survey_values, with_ranges
from flawsmith.data.split import Split
from flawsmith.data.training_set import read_scaled
from flawsmith.data.windows import refit
from flawsmith.errors import DataError
from flawsmith.types import Example, Range

SHAPE = (32, 40)


def camera(seed: int, top: float, bottom: float = 0.0) -> np.ndarray:
    """Grain between two values, both of which occur; float64."""
    picture = np.random.default_rng(seed).uniform(bottom, top, SHAPE)
    picture[0, 0], picture[0, 1] = bottom, top
    return picture


def heights(seed: int, at: float = 0.0) -> np.ndarray:
    """A height map in mm, float32: waves of 0.2 mm and grain."""
    rows = np.linspace(0, 6, SHAPE[0])[:, None]
    grain = np.random.default_rng(seed).normal(0, 0.01, SHAPE)
    return (at + 0.1 * np.sin(rows + seed) + grain).astype(np.float32)


def with_hole(picture: np.ndarray, value: float) -> np.ndarray:
    """Return a picture in which a corner was not measured."""
    holed = picture.copy()
    holed[2:8, 3:9] = value
    return holed


def saved(folder: Path, pictures: list[np.ndarray], name: str = "n", product: str = "plate") -> list[Example]:
    examples = []
    for number, pixels in enumerate(pictures):
        path = folder / product / f"{name}{number}{images.lossless_suffix(pixels)}"
        images.write(path, pixels)
        examples.append(Example(f"{product}/{path.name}", path, product, None if name == "n" else "dent"))
    return examples


def of(folder: Path, normals: list[np.ndarray], shots: list[np.ndarray] | None = None) -> ValueSurvey:
    return survey_values(saved(folder, normals), saved(folder, shots or [], "s"))


def words(top: int, bottom: int = 0, step: int = 1) -> list[np.ndarray]:
    return [(camera(seed, top // step, bottom // step).astype(np.uint16) * step).astype(np.uint16) for seed in range(3)]


SENSORS = {
    "8 bits": ([camera(0, 255).astype(np.uint8)], (0, 255), 1, "8 bits"),
    "8 bits, dark": ([camera(0, 40).astype(np.uint8)], (0, 255), 1, "8 bits"),
    "8 in 16": (words(255), (0, 255), 1, "8 bits in 16"),
    "10 in 16": (words(1000), (0, 1023), 1, "10 bits in 16"),
    "12 in 16": (words(2932), (0, 4095), 1, "12 bits in 16"),
    "12 in 16, low contrast": (words(1900, 1700), (0, 4095), 1, "12 bits in 16"),
    "12 in 16, saturated": ([with_hole(one, 4095) for one in words(1900, 900)], (0, 4095), 1, "12 bits in 16"),
    "14 in 16": (words(16000), (0, 16383), 1, "14 bits in 16"),
    "16": (words(60000), (0, 65535), 1, "16 bits"),
    "12 in 16, left-aligned": (words(46912, 0, 16), (0, 65520), 16, "12 bits, left-aligned in 16"),
    "8 spread over 16": (words(65535, 0, 257), (0, 65535), 257, "16 bits"),
    "float within 0..1": ([camera(0, 0.8, 0.1).astype(np.float32)], (0, 1), 1, "float32 within 0..1"),
}


@pytest.mark.parametrize("name", SENSORS)
def test_cameras(tmp_path: Path, name: str) -> None:
    pictures, ends, step, rule = SENSORS[name]
    span = of(tmp_path, pictures).span
    assert ((span.low, span.high), span.step, span.rule, span.sentinels) == (ends, step, rule, ())


MAPS = {
    "-99999": ([with_hole(heights(seed), -99999) for seed in range(3)], (-99999.0,)),
    "-99999 in one picture": ([with_hole(heights(0), -99999), heights(1), heights(2)], (-99999.0,)),
    "-99999 and 99999": ([with_hole(heights(0), -99999), with_hole(heights(1), 99999)], (-99999.0, 99999.0)),
    "NaN": ([with_hole(heights(seed), np.nan) for seed in range(3)], ()),
    "inf": ([with_hole(heights(0), np.inf), with_hole(heights(1), -np.inf)], ()),
    "0 beside millimetres": ([with_hole(heights(seed, 5.0), 0) for seed in range(3)], (0.0,)),
}


@pytest.mark.parametrize("name", MAPS)
def test_height_maps(tmp_path: Path, name: str) -> None:
    """What was not measured says nothing of the range, and is filled where a network looks."""
    pictures, sentinels = MAPS[name]
    one = of(tmp_path, pictures)
    span, centre = one.span, 5.0 if "0 beside" in name else 0.0
    assert span.sentinels == sentinels and span.depth == 32 and span.fill is not None
    assert centre - 0.2 < span.low < span.fill < span.high < centre + 0.2
    holes = [images.missing(picture, span) for picture in pictures]
    counted = sum(int(hole.sum()) for hole in holes if hole is not None)
    assert counted in (36, 72, 108) and sum(missing.pixels for missing in one.missing) == counted
    for picture, hole in zip(pictures, holes, strict=True):
        seen = images.to_model(picture, span)
        assert np.isfinite(seen).all() and abs(seen).max() <= 1
        assert hole is None or np.allclose(seen[hole], (span.fill - span.low) / span.half - 1, atol=1e-5)


DEPTHS = {
    "65535 is not measured": (with_hole, 65535, (65535.0,), (20000, 21000)),
    "0 is not measured": (with_hole, 0, (0.0,), (20000, 21000)),
    "0 beside 12 bits": (with_hole, 0, (0.0,), (800, 1200)),
    "all measured": (lambda picture, _: picture, 0, (), (20000, 21000)),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_maps_of_16_bits(tmp_path: Path, name: str) -> None:
    hole, value, sentinels, (bottom, top) = DEPTHS[name]
    pictures = [hole(one, value) for one in words(top, bottom)]
    span = of(tmp_path, pictures).span
    assert span.sentinels == sentinels
    assert bottom <= span.low <= bottom + 10 and top - 10 <= span.high <= top


def test_dark_and_saturated_pixels_are_no_sentinels(tmp_path: Path) -> None:
    """Values that run on to the end of the type are brightness, however often the end itself occurs."""
    black = [np.maximum(one.astype(int) - 30000, 0).astype(np.uint16) for one in words(60000)]
    glare = [np.minimum(one.astype(int) * 2, 65535).astype(np.uint16) for one in words(60000)]
    for pictures in (black, glare):
        span = of(tmp_path, pictures).span
        assert span.sentinels == () and span.low == 0


def test_holes_that_shots_alone_have_are_named(tmp_path: Path) -> None:
    """The value far below all others may be the bottom of the damage; that is for the user to say."""
    normals = [heights(seed) for seed in range(3)]
    one = of(tmp_path / "0", normals, [with_hole(heights(7), -9999.0), heights(8)])
    assert one.span.sentinels == () and one.holes == (-9999.0,)
    deep = heights(7)
    deep[2:8, 3:9] = heights(9, -5.0)[2:8, 3:9]
    assert of(tmp_path / "1", normals, [deep]).holes == ()
    assert of(tmp_path / "2", [with_hole(one, -9999.0) for one in normals], [with_hole(deep, -9999.0)]).holes == ()


def test_damage_widens_a_map_by_its_width_at_most(tmp_path: Path) -> None:
    normals = [heights(seed) for seed in range(3)]
    alone = of(tmp_path / "0", normals).span
    little = of(tmp_path / "1", normals, [with_hole(heights(4), alone.low - 0.1)]).span
    assert little.low == pytest.approx(alone.low - 0.1, abs=1e-6) and little.high == alone.high
    deep = of(tmp_path / "2", normals, [with_hole(heights(4), -50)]).span
    assert alone.low - 1.1 * (alone.high - alone.low) < deep.low < alone.low
    assert deep.sentinels == ()


def test_a_defect_brighter_than_every_normal_picture(tmp_path: Path) -> None:
    """A dark part under a 12-bit camera: the scratch says how many bits the camera has, a dropout does not."""
    dark = words(900)
    assert of(tmp_path / "0", dark).span.high == 1023
    assert of(tmp_path / "1", dark, [with_hole(dark[0], 3500)]).span.high == 4095
    assert of(tmp_path / "2", dark, [with_hole(dark[0], 65535)]).span.high == 1023
    bright = of(tmp_path / "3", words(2900), [with_hole(words(2900)[0], 60000)]).span
    assert images.to_model(with_hole(dark[0], 60000), bright).max() <= 1


UNITS = {
    "float 0..1 beside 0..255": ([camera(0, 0.9).astype(np.float32)], [camera(1, 240, 20).astype(np.float32)]),
    "float 0..255 beside 0..1": ([camera(0, 240, 20).astype(np.float32)], [camera(1, 0.9).astype(np.float32)]),
    "mm beside um": ([heights(0)], [heights(1) * 1000]),
    "12 bits beside left-aligned ones": (words(2900, 300), [one * 16 for one in words(2900, 300)[:1]]),
}


@pytest.mark.parametrize("name", UNITS)
def test_other_units_are_an_error(tmp_path: Path, name: str) -> None:
    normals, shots = UNITS[name]
    (sentence,) = mistakes("plate", of(tmp_path, normals, shots))
    assert "plate/s0" in sentence and "another scale" in sentence and "same units" in sentence


def test_drift_and_damage_are_no_other_units(tmp_path: Path) -> None:
    drifted = [with_hole(heights(4) + np.float32(0.05), -0.4)]
    assert mistakes("plate", of(tmp_path / "0", [heights(seed) for seed in range(3)], drifted)) == []
    assert mistakes("plate", of(tmp_path / "1", words(1200, 1000), words(1500, 1300)[:1])) == []


def test_a_picture_of_nothing_is_an_error(tmp_path: Path) -> None:
    pictures = [with_hole(heights(0), -99999), heights(1), np.full(SHAPE, -99999, np.float32)]
    normals = tuple(saved(tmp_path, pictures))
    with pytest.raises(DataError, match=r"plate/n2\.tif: no pixel of the normal picture is measured"):
        ranges_of(Split((), normals, (), ()))


def test_each_product_has_its_own_range(tmp_path: Path) -> None:
    normals = saved(tmp_path, words(2900)) + saved(tmp_path, [heights(1), heights(2)], product="cast")
    held = saved(tmp_path, words(900)[:1], "t")
    split = Split((), tuple(normals), (), tuple(held))
    ranges = ranges_of(split)
    assert list(ranges) == ["cast", "plate"] and ranges["plate"].high == 4095 and ranges["cast"].depth == 32
    spread = with_ranges(split, ranges)
    assert {one.span for one in spread.normals} == set(ranges.values()) and spread.test_normals[0].span.high == 4095
    # A picture of another depth than the range was made for is read by its own type.
    grey = np.zeros(SHAPE, np.uint8)
    assert images.range_of(grey, ranges["plate"]) == Range(0, 255)


def test_every_door_reads_in_the_products_range(tmp_path: Path) -> None:
    """Detectors, metrics, filters and painting see the same brightness, whatever else is in the picture."""
    span = Range(0, 4095, depth=16)
    flat = np.full((64, 64), 2048, np.uint16)
    marked = flat.copy()
    marked[30:34, 30:34] = 4000
    mask = np.zeros((64, 64), bool)
    mask[30:34, 30:34] = True
    images.write(tmp_path / "a.png", marked)
    images.write_mask(tmp_path / "m.png", mask)
    example = Example("a", tmp_path / "a.png", "plate", "dent", (tmp_path / "m.png",), span=span)
    square, _, _ = read_scaled(example, (64, 64))
    assert square[0, 0, 0] == 128 and square[32, 32, 0] == round(4000 / 4095 * 255)
    assert window_of(example).image[0, 0, 0] == pytest.approx(2048 / 2047.5 - 1, abs=1e-6)
    photograph = Photographs([replace(example, defect=None)]).read(example)
    assert photograph.span == span
    assert (photograph.brightness() == photograph.model().mean(axis=2)).all()


def test_paint_stays_in_the_sensors_range(tmp_path: Path) -> None:
    everywhere, white = np.ones(SHAPE, bool), np.full((*SHAPE, 3), 2, np.float32)
    for pictures in (words(2932), words(46912, 0, 16), [with_hole(one, 65535) for one in words(21000, 20000)]):
        span = of(tmp_path, pictures).span
        for change in (white, -white, white * 0.1):
            made = images.apply_delta(pictures[0], change, everywhere, span)
            hole = images.missing(pictures[0], span)
            measured = everywhere if hole is None else ~hole
            assert made[measured].min() >= span.low and made[measured].max() <= span.high
            assert not (made[measured] % span.step).any()
            assert (made[~measured] == pictures[0][~measured]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -99999.0])
def test_sentinels_are_never_painted_nor_spread(value: float) -> None:
    span = Range(-1, 1, (-99999.0,), 0.0, depth=32)
    before = with_hole(heights(0), value)
    mask = np.zeros(SHAPE, bool)
    mask[4:20, 5:25] = True
    after = images.apply_delta(before, np.full((*SHAPE, 3), 0.5, np.float32), mask, span)
    changed = images.differs(before, after)
    assert (changed == (mask & (images.differs(before, heights(0)) == 0))).all()
    fitted = refit(before, after, mask, threshold=0.02, span=span)
    assert fitted.mask[changed].mean() > 0.9 and not images.differs(before, fitted.image)[~fitted.mask].any()
    assert not part_mask(before, span).any() or part_mask(before, span).all()


def test_damage_of_a_surface_lands_where_something_was_measured(tmp_path: Path) -> None:
    half = [heights(seed) for seed in range(3)]
    for picture in half:
        picture[:, 20:] = np.nan
    speck = heights(3)
    speck[0, 0] = np.nan
    normals = saved(tmp_path, [*half, speck])
    spread = with_ranges(Split((), tuple(normals), (), ()), {"plate": survey_values(normals).span}).normals
    photographs = Photographs(spread)
    assert photographs.is_surface("plate")
    assert photographs.part(spread[0])[:, :20].all() and not photographs.part(spread[0])[:, 20:].any()
    assert photographs.part(spread[3]).all()
    assert photographs.part(replace(spread[0], defect="dent")).all()  # where a shot was measured says nothing


def test_a_float_file_keeps_every_bit(tmp_path: Path) -> None:
    pixels = with_hole(heights(0), np.nan)
    pixels[0, :3] = np.inf, -np.inf, -0.0
    images.write(tmp_path / "a.tif", pixels)
    assert images.read(tmp_path / "a.tif").tobytes() == pixels.tobytes()


def test_what_is_kept_of_photographs_is_bounded_by_bytes(tmp_path: Path) -> None:
    examples = saved(tmp_path, [camera(seed, 255).astype(np.uint8) for seed in range(6)])
    size = SHAPE[0] * SHAPE[1]
    photographs = Photographs(examples, keep=4 * size)  # three quarters are photographs: three of them
    first = photographs.read(examples[0])
    assert photographs.read(examples[0]) is first
    for example in examples[1:]:
        photographs.read(example)
    assert photographs.read(examples[0]) is not first
    last = photographs.read(examples[5])
    assert photographs.read(examples[5]) is last
    tiny = Photographs(examples, keep=1)
    assert tiny.read(examples[0]) is tiny.read(examples[0])  # the last one stays, whatever its size


def test_photographs_beside_others_share_what_was_read_and_vote_by_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark, disc = np.full((64, 64), 20, np.uint8), np.hypot(*np.mgrid[-32:32, -32:32]) < 20
    parts = [np.where(disc, 200, dark + seed).astype(np.uint8) for seed in range(3)]
    rng = np.random.default_rng(0)
    surfaces = [rng.integers(0, 255, (64, 64)).astype(np.uint8) for _ in range(6)]
    examples = saved(tmp_path, [*parts, *surfaces])
    computed = []

    def counted(native: np.ndarray, span: Range) -> np.ndarray:
        computed.append(1)
        return part_mask(native, span)

    monkeypatch.setattr("flawsmith.data.photographs.part_mask", counted)
    whole = Photographs(examples)
    assert whole.is_surface(examples[0].product) and whole.part(examples[0]).all()
    known = len(computed)
    assert known == len(examples)
    few = whole.beside(examples[:3])
    assert not few.is_surface(examples[0].product)
    for example, picture in zip(examples[:3], parts, strict=True):
        assert np.array_equal(few.part(example), part_mask(picture, few.read(example).span))
    assert len(computed) == known
    assert whole.part(examples[0]).all()


def test_a_mask_holds_finite_values(tmp_path: Path) -> None:
    images.write(tmp_path / "m.tif", with_hole(np.zeros(SHAPE, np.float32), np.nan))
    with pytest.raises(DataError, match="infinite or not a number"):
        stored_mask(tmp_path / "m.tif")
