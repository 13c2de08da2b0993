"""data/masks: what the masks of a product mean together; every rule, and exports of other tools as they come."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from flawsmith.config import Config, DataConfig, MaskConfig, validate
from flawsmith.data import images
from flawsmith.data.masks.judging import Judgement, judge, with_rules
from flawsmith.data.masks.reading import read_ignored, read_label
from flawsmith.errors import ConfigError, DataError
from flawsmith.types import Example

SIZE = (48, 64)


def blob(row: int = 20, column: int = 24, radius: int = 7) -> np.ndarray:
    """A disc: bool SIZE."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


BLOBS = [blob(14 + 5 * index, 16 + 9 * index, 5 + index) for index in range(4)]
"""The damage of four pictures."""


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    """Write a mask with Pillow, as other tools do; (H,W,2) is grey with alpha, (H,W,4) RGB with alpha."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def palette(path: Path, indices: np.ndarray, colours: list[tuple[int, int, int]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(indices.astype(np.uint8), mode="P")
    picture.putpalette([value for colour in colours for value in colour])
    picture.save(path)
    return path


def examples(root: Path, paths: list[Path | tuple[Path, ...]], defects: list[str] | None = None) -> list[Example]:
    """A photograph of noise for each mask, or group of masks, of one product."""
    made = []
    for index, group in enumerate(paths):
        image = root / f"{index}.png"
        if not image.exists():
            images.write(image, np.random.default_rng(index).integers(0, 256, SIZE, dtype=np.uint8))
        masks = group if isinstance(group, tuple) else (group,)
        made.append(Example(f"{index}.png", image, "nut", (defects or ["dent"] * len(paths))[index], masks))
    return made


def judged(given: list[Example], layout: str = "mvtec", **settings: object) -> Judgement:
    return judge(given, DataConfig(layout=layout, mask=MaskConfig(**settings)))


def labels(given: list[Example], layout: str = "mvtec", **settings: object) -> list[np.ndarray]:
    """What is damage, once the masks could be judged without a doubt."""
    judgement = judged(given, layout, **settings)
    assert judgement.errors + judgement.broken + judgement.doubts == []
    return [read_label(example, SIZE) for example in with_rules(given, judgement.rules)]


def assert_read(given: list[Example], expected: list[np.ndarray], **settings: object) -> None:
    for index, (mask, wanted) in enumerate(zip(labels(given, **settings), expected, strict=True)):
        assert np.array_equal(mask, wanted), index


def asks(given: list[Example], layout: str = "mvtec", **settings: object) -> str:
    """The one question that a set asks."""
    (error,) = judged(given, layout, **settings).errors
    return error


# --- two values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [1, 2, 128, 255, 65535])
def test_of_two_values_all_but_zero_is_damage(tmp_path: Path, top: int):
    dtype = np.uint8 if top < 256 else np.uint16
    paths = [save(tmp_path / f"m/{i}.png", mask.astype(dtype) * dtype(top)) for i, mask in enumerate(BLOBS)]
    assert_read(examples(tmp_path, paths), BLOBS)


def test_a_single_value_in_each_mask_is_damage_whatever_it_is(tmp_path: Path):
    """Masks of several tools, and sets that write the defect's number: no picture holds two, so nothing is open."""
    paths = [
        save(tmp_path / f"m/{i}.png", mask * np.uint8(value))
        for i, (mask, value) in enumerate(zip(BLOBS, (1, 255, 236, 237), strict=True))
    ]
    assert_read(examples(tmp_path, paths), BLOBS)


def test_one_bit_and_an_inverted_one_bit_mask(tmp_path: Path):
    paths = [save(tmp_path / f"m/{i}.png", mask) for i, mask in enumerate(BLOBS)]
    with Image.open(paths[0]) as picture:
        assert picture.mode == "1"
    assert_read(examples(tmp_path, paths), BLOBS)
    white = [save(tmp_path / f"w/{i}.png", ~mask) for i, mask in enumerate(BLOBS)]
    assert "4 of 4 masks call more than half of the picture damaged" in asks(examples(tmp_path, white))
    assert_read(examples(tmp_path, white), BLOBS, inverted=True)


def test_a_white_is_zero_tiff_is_read_by_its_tag(tmp_path: Path):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, np.uint8(255) - BLOBS[0] * np.uint8(255), photometric="miniswhite")
    assert_read(examples(tmp_path, [path]), BLOBS[:1])


# --- palettes, colours, alpha -------------------------------------------------------------------------------------

VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), *[(0, 0, 0)] * 4, (64, 0, 0), (192, 0, 0)]


@pytest.mark.parametrize("index", [1, 2, 8, 9])
def test_the_index_of_a_palette_is_the_class_not_its_colour(tmp_path: Path, index: int):
    paths = [palette(tmp_path / f"m/{i}.png", mask * index, VOC) for i, mask in enumerate(BLOBS)]
    assert_read(examples(tmp_path, paths), BLOBS)


def test_a_palette_without_colours_still_has_indices(tmp_path: Path):
    paths = [palette(tmp_path / f"m/{i}.png", mask * 1, [(0, 0, 0)] * 4) for i, mask in enumerate(BLOBS)]
    assert_read(examples(tmp_path, paths), BLOBS)


def test_indices_of_a_palette_tiff(tmp_path: Path):
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 3], colours[:, 4] = 40 << 8, 250 << 8
    tifffile.imwrite(tmp_path / "m.tif", BLOBS[0] * np.uint8(3) + blob(36, 50, 3) * np.uint8(4), colormap=colours)
    given = examples(tmp_path, [tmp_path / "m.tif"])
    assert "(0.png: 3, 4)" in asks(given)
    assert_read(given, BLOBS[:1], values={"dent": 3, "stain": 4})


def test_a_palette_of_greys_is_a_grey_picture_however_its_entries_are_ordered(tmp_path: Path):
    orders = [[(0, 0, 0), (255, 255, 255)], [(255, 255, 255), (0, 0, 0)]]
    paths = [
        palette(tmp_path / f"m/{i}.png", mask if i % 2 == 0 else ~mask, orders[i % 2]) for i, mask in enumerate(BLOBS)
    ]
    assert_read(examples(tmp_path, paths), BLOBS)


def test_soft_edges_behind_a_palette_in_any_order(tmp_path: Path):
    """Tools that shrink PNG files turn greys into a palette, the most frequent first."""
    paths, wanted = [], []
    for i, mask in enumerate(BLOBS):
        grey = smooth(mask) // 24 * 24
        levels = np.unique(grey)
        order = np.random.default_rng(3).permutation(levels)
        indices = np.argsort(order)[np.searchsorted(levels, grey)]
        paths.append(palette(tmp_path / f"m/{i}.png", indices, [(int(value),) * 3 for value in order]))
        wanted.append(grey > grey.max() / 2)
    assert_read(examples(tmp_path, paths), wanted)


def test_where_every_file_orders_its_palette_anew_the_colours_are_the_classes(tmp_path: Path):
    orders = [[(0, 0, 0), (200, 0, 0)], [(200, 0, 0), (0, 0, 0)]]
    paths = [
        palette(tmp_path / f"m/{i}.png", mask if i % 2 == 0 else ~mask, orders[i % 2]) for i, mask in enumerate(BLOBS)
    ]
    assert_read(examples(tmp_path, paths), BLOBS)


def coloured(mask: np.ndarray, damage: tuple[int, ...], background: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
    return np.where(mask[..., None], np.array(damage, np.uint8), np.array(background, np.uint8))


@pytest.mark.parametrize("background", [(0, 0, 0), (0, 215, 255), (255, 255, 255)])
def test_the_background_of_colours_is_black_or_what_covers_border_and_area(tmp_path: Path, background: tuple[int, ...]):
    paths = [save(tmp_path / f"m/{i}.png", coloured(mask, (40, 9, 0), background)) for i, mask in enumerate(BLOBS)]
    given = examples(tmp_path, paths)
    assert_read(given, BLOBS)
    noted = "".join(judged(given).notes)
    assert noted == "" if background == (0, 0, 0) else f"#{bytes(background).hex()}, not 0" in noted


def test_two_colours_in_one_mask_ask_and_are_named_by_colour(tmp_path: Path):
    other = blob(40, 52, 4)
    pictures = [np.where(other[..., None], np.uint8([0, 255, 0]), coloured(mask, (128, 0, 0))) for mask in BLOBS]
    given = examples(tmp_path, [save(tmp_path / f"m/{i}.png", one) for i, one in enumerate(pictures)])
    question = asks(given)
    assert "4 masks hold several values in one picture (0.png: #00ff00, #800000)" in question
    assert 'data.mask.values = {dent = "#00ff00", another = "#800000"}' in question
    wanted = [mask & ~other for mask in BLOBS]
    assert_read(given, wanted, values={"dent": "#800000", "stain": "#00ff00"})
    assert_read(given, [mask | other for mask in BLOBS], values="all")


def test_black_in_masks_of_another_background_asks(tmp_path: Path):
    paths = [save(tmp_path / f"m/{i}.png", coloured(mask, (0, 0, 0), (0, 200, 0))) for i, mask in enumerate(BLOBS)]
    assert "hold black, but #00c800 covers" in asks(examples(tmp_path, paths))


def test_alpha_is_the_mask_where_colours_say_nothing(tmp_path: Path):
    for name, colour in (("white", 255), ("black", 0)):
        pictures = [np.dstack([np.full((*SIZE, 3), colour, np.uint8), mask * np.uint8(255)]) for mask in BLOBS]
        paths = [save(tmp_path / name / f"{i}.png", one) for i, one in enumerate(pictures)]
        assert_read(examples(tmp_path, paths), BLOBS)
    grey = [np.dstack([np.full(SIZE, 255, np.uint8), mask * np.uint8(102)]) for mask in BLOBS]
    assert_read(examples(tmp_path, [save(tmp_path / f"la/{i}.png", one) for i, one in enumerate(grey)]), BLOBS)


def test_coloured_pixels_that_are_transparent_are_no_damage(tmp_path: Path):
    pictures = []
    for mask in BLOBS:
        drawn = mask | blob(40, 52, 5)
        alpha = np.where(blob(40, 52, 5), 0, 255).astype(np.uint8)
        pictures.append(np.dstack([coloured(drawn, (255, 0, 0)), alpha]))
    given = examples(tmp_path, [save(tmp_path / f"m/{i}.png", one) for i, one in enumerate(pictures)])
    assert_read(given, BLOBS)
    assert_read(given, [mask | blob(40, 52, 5) for mask in BLOBS], alpha=False)


def test_premultiplied_looks_and_cut_out_photographs_have_their_mask_in_alpha(tmp_path: Path):
    rng = np.random.default_rng(5)
    soft, cut = [], []
    for mask in BLOBS:
        cover = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)
        alpha = np.rint(255 * cover).astype(np.uint8)
        soft.append(np.dstack([np.rint(255 * cover).astype(np.uint8), np.zeros((*SIZE, 2), np.uint8), alpha]))
        cut.append(np.dstack([rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), mask * np.uint8(255)]))
    for name, pictures in (("soft", soft), ("cut", cut)):
        masks = labels(examples(tmp_path, [save(tmp_path / name / f"{i}.png", one) for i, one in enumerate(pictures)]))
        for mask, wanted in zip(masks, BLOBS, strict=True):
            assert (mask ^ wanted).mean() < 0.005


def test_alpha_as_the_user_says(tmp_path: Path):
    """Black and white that was drawn by chance below a mask in alpha."""
    pictures = [np.dstack([coloured(blob(40, 52, 5), (255,) * 3), mask * np.uint8(255)]) for mask in BLOBS]
    given = examples(tmp_path, [save(tmp_path / f"m/{i}.png", one) for i, one in enumerate(pictures)])
    assert_read(given, BLOBS, alpha=True)
    opaque = examples(tmp_path, [save(tmp_path / "o.png", coloured(BLOBS[0], (255, 0, 0)))])
    assert "data.mask.alpha = true, but 1 of its 1 masks are opaque" in asks(opaque, alpha=True)


# --- classes, instances, ignore rims ------------------------------------------------------------------------------


def numbered(*areas: np.ndarray, first: int = 1, dtype: type = np.uint8) -> np.ndarray:
    made = np.zeros(SIZE, dtype)
    for number, area in enumerate(areas, first):
        made[area] = number
    return made


def test_two_classes_in_one_mask_ask_until_it_is_said_which_is_which(tmp_path: Path):
    other = blob(40, 52, 4)
    paths = [save(tmp_path / f"m/{i}.png", numbered(mask, other)) for i, mask in enumerate(BLOBS)]
    given = examples(tmp_path, paths, ["scratch", "scratch", "dent", "dent"])
    assert "data.mask.values = {scratch = 1, another = 2}" in asks(given)
    assert 'data.mask.values = {"긁힘" = 1, another = 2}' in asks(examples(tmp_path, paths, ["긁힘"] * 4))
    wanted = [BLOBS[0] & ~other, BLOBS[1] & ~other, other, other]
    assert_read(given, wanted, values={"scratch": 1, "dent": [2]})
    rules = judged(given, values={"scratch": 1, "dent": 2}).rules
    ignored = [read_ignored(example, SIZE) for example in with_rules(given, rules)]
    assert np.array_equal(ignored[0], other) and np.array_equal(ignored[2], BLOBS[2] & ~other)


def test_values_that_are_said_wrongly(tmp_path: Path):
    paths = [save(tmp_path / f"m/{i}.png", numbered(mask, blob(40, 52, 4))) for i, mask in enumerate(BLOBS)]
    given = examples(tmp_path, paths, ["scratch", "scratch", "dent", "dent"])
    assert "names no value for its defect type 'dent'" in asks(given, values={"scratch": 1})
    assert "names 7, but its masks hold 0, 1, 2" in asks(given, values={"scratch": 7, "dent": 2})
    assert "names no type for 2 in its masks" in asks(given, values={"scratch": 1, "dent": 1})
    assert "no defect type 'scrach'" in judged(given, values={"scrach": 1}).errors[0]
    with pytest.raises(ConfigError, match="data.mask.values"):
        validate(Config, {"data": {"mask": {"values": {"scratch": "red"}}}})


def test_types_with_a_number_each_are_not_asked_about(tmp_path: Path):
    paths = [save(tmp_path / f"m/{i}.png", mask * np.uint8(1 + i // 2)) for i, mask in enumerate(BLOBS)]
    assert_read(examples(tmp_path, paths, ["scratch", "scratch", "dent", "dent"]), BLOBS)
    assert_read(examples(tmp_path, paths), BLOBS)  # VisA's numbers below one type


def test_visa_says_by_its_layout_that_all_numbers_are_damage(tmp_path: Path):
    other = blob(40, 52, 4)
    given = examples(tmp_path, [save(tmp_path / f"m/{i}.png", numbered(mask, other)) for i, mask in enumerate(BLOBS)])
    for mask, wanted in zip(labels(given, "visa"), BLOBS, strict=True):
        assert np.array_equal(mask, wanted | other)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_of_pieces_that_count_up_in_every_mask_are_instances(tmp_path: Path, dtype: type):
    pieces = [
        [blob(6 + 9 * row, 6 + 9 * column, 3) for row in range(4) for column in range(6)][:n] for n in (1, 3, 5, 24)
    ]
    paths = [save(tmp_path / f"m/{i}.png", numbered(*each, dtype=dtype)) for i, each in enumerate(pieces)]
    given = examples(tmp_path, paths)
    assert_read(given, [np.logical_or.reduce(each) for each in pieces])
    assert "number the pieces of damage" in judged(given).notes[0]


def test_sixteen_bit_instances_that_count_on_through_the_set(tmp_path: Path):
    places = [blob(6 + 9 * row, 6 + 9 * column, 3) for row in range(4) for column in range(6)]
    paths, first = [], 1000
    for i, count in enumerate((20, 7, 24, 3)):
        paths.append(save(tmp_path / f"m/{i}.png", numbered(*places[:count], first=first, dtype=np.uint16)))
        first += 40 * count
    assert_read(examples(tmp_path, paths), [np.logical_or.reduce(places[:count]) for count in (20, 7, 24, 3)])


def test_classes_in_several_pieces_are_no_instances(tmp_path: Path):
    pieces = [blob(10, 10, 4) | blob(10, 50, 4), blob(30, 10, 4) | blob(30, 50, 4), blob(40, 30, 4) | blob(10, 30, 4)]
    paths = [save(tmp_path / f"m/{i}.png", numbered(*pieces[: 1 + i % 3])) for i in range(4)]
    assert "several values in one picture" in asks(examples(tmp_path, paths))


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (65535, np.uint16)])
def test_the_largest_number_beside_small_ones_is_an_ignore_rim(tmp_path: Path, top: int, dtype: type):
    paths, rims = [], []
    for i, mask in enumerate(BLOBS):
        rims.append(cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))).astype(bool) & ~mask)
        values = numbered(mask, dtype=dtype)
        values[rims[-1]] = top
        paths.append(save(tmp_path / f"m/{i}.png", values))
    given = examples(tmp_path, paths)
    assert_read(given, BLOBS)
    assert f"{top} in its masks is neither damage nor background" in judged(given).notes[0]
    ruled = with_rules(given, judged(given).rules)
    for example, rim in zip(ruled, rims, strict=True):
        assert np.array_equal(read_ignored(example, SIZE), rim)
    assert "several values" in asks(given, ignore=[])
    assert_read(given, [mask | rim for mask, rim in zip(BLOBS, rims, strict=True)], ignore=[], values="all")


def test_a_rim_that_would_leave_other_masks_empty_asks(tmp_path: Path):
    values = [mask * np.uint8(255) for mask in BLOBS]
    values[3] = np.where(BLOBS[3], np.uint8(1), blob(10, 10, 4) * np.uint8(255))
    given = examples(tmp_path, [save(tmp_path / f"m/{i}.png", one) for i, one in enumerate(values)])
    assert "255 stands beside small numbers in 1 of its masks and alone in 3 others" in asks(given)
    assert_read(given, [np.zeros(SIZE, bool)] * 3 + [BLOBS[3]], ignore=[255])


def test_specks_beside_255_are_no_classes_with_a_rim(tmp_path: Path):
    values = [mask * np.uint8(255) for mask in BLOBS]
    for one in values:
        one[40, [3, 9, 30]] = 1
    given = examples(tmp_path, [save(tmp_path / f"m/{i}.png", one) for i, one in enumerate(values)])
    assert "255 stands beside small numbers in 4 of its masks and covers far more" in asks(given)


def test_specks_beside_255_that_lie_anywhere_ask(tmp_path: Path):
    """A paint program's stray pixels of value 1 are many, and not within a rim."""
    paths = []
    for i, mask in enumerate(BLOBS):
        specks = (np.random.default_rng(i).random(SIZE) < 0.03) & ~mask
        paths.append(save(tmp_path / f"m/{i}.png", np.where(mask, 255, specks).astype(np.uint8)))
    assert "255 stands beside small numbers in 4 of its masks and is not round them" in asks(examples(tmp_path, paths))


def test_any_value_may_be_ignored(tmp_path: Path):
    other = blob(40, 52, 4)
    given = examples(tmp_path, [save(tmp_path / f"m/{i}.png", numbered(mask, other)) for i, mask in enumerate(BLOBS)])
    assert_read(given, [mask & ~other for mask in BLOBS], ignore=[2])


# --- soft edges ---------------------------------------------------------------------------------------------------


def smooth(mask: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    return np.rint(255 * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)).astype(np.uint8)


@pytest.mark.parametrize("container", ["png", "jpg", "webp"])
def test_soft_edges_count_from_half(tmp_path: Path, container: str):
    quality = {} if container == "png" else {"quality": 60}
    paths = [save(tmp_path / f"m/{i}.{container}", smooth(mask), **quality) for i, mask in enumerate(BLOBS)]
    given = examples(tmp_path, paths)
    for mask, path in zip(labels(given), paths, strict=True):
        assert np.array_equal(mask, images.read(path).reshape(*SIZE, -1)[..., 0] > 127)
    assert "more than half of the largest is damage" in judged(given).notes[0]


def test_jpeg_noise_that_was_saved_as_png(tmp_path: Path):
    paths = []
    for i, mask in enumerate(BLOBS):
        stream = io.BytesIO()
        Image.fromarray(mask * np.uint8(255)).save(stream, "JPEG", quality=75)
        paths.append(save(tmp_path / f"m/{i}.png", np.asarray(Image.open(stream))))
    assert len(np.unique(images.read(paths[0]))) > 8
    assert_read(examples(tmp_path, paths), BLOBS)


def test_an_empty_jpeg_among_full_ones_stays_empty(tmp_path: Path):
    """Its noise is damage by its own largest value, and nothing by that of the set."""
    noise = np.random.default_rng(0).integers(0, 4, SIZE, dtype=np.uint8)
    paths = [save(tmp_path / f"m/{i}.jpg", smooth(mask), quality=90) for i, mask in enumerate(BLOBS)]
    paths.append(save(tmp_path / "m/4.jpg", noise, quality=95))
    assert images.read(paths[-1]).max() > 0
    assert [bool(mask.any()) for mask in labels(examples(tmp_path, paths))] == [True] * 4 + [False]


def test_masks_of_one_value_each_on_several_scales_have_no_soft_edges(tmp_path: Path):
    paths = []
    for i, (mask, top) in enumerate(zip(BLOBS, (1, 65535, 1, 65535), strict=True)):
        paths.append(save(tmp_path / f"m/{i}.png", mask.astype(np.uint16) * np.uint16(top)))
    assert_read(examples(tmp_path, paths), BLOBS)


@pytest.mark.parametrize("container", ["jpg", "webp"])
def test_numbers_that_jpeg_does_not_keep_ask(tmp_path: Path, container: str):
    small = [save(tmp_path / f"s/{i}.{container}", mask.astype(np.uint8)) for i, mask in enumerate(BLOBS)]
    assert "keeps no such small numbers" in asks(examples(tmp_path, small))
    classes = [np.where(mask, 255, blob(40, 52, 6) * 128).astype(np.uint8) for mask in BLOBS]
    paths = [save(tmp_path / f"c/{i}.{container}", one, quality=90) for i, one in enumerate(classes)]
    assert "areas of several values" in asks(examples(tmp_path, paths))


def test_wide_soft_edges_in_jpeg_are_no_classes(tmp_path: Path):
    paths = [save(tmp_path / f"m/{i}.jpg", smooth(mask, 3.0), quality=90) for i, mask in enumerate(BLOBS)]
    for mask, path in zip(labels(examples(tmp_path, paths)), paths, strict=True):
        stored = images.read(path)
        assert np.array_equal(mask, stored > stored.max() / 2)


def test_a_few_values_at_edges_are_soft_and_the_same_values_as_areas_are_classes(tmp_path: Path):
    """One mask alone would leave 85 and 170 open where its damage is thin; the set says that they are edges."""
    line = np.zeros(SIZE, bool)
    line[20, 10:50] = True
    masks = [*BLOBS, line]

    def fourths(mask: np.ndarray) -> np.ndarray:
        fine = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        moved = np.roll(fine, 1, 1).astype(np.float32)
        return np.rint(255 * moved.reshape(SIZE[0], 2, SIZE[1], 2).mean((1, 3))).astype(np.uint8)

    edges = [fourths(mask) for mask in masks]
    assert {int(value) for value in np.unique(edges)} == {0, 128, 255}
    paths = [save(tmp_path / f"e/{i}.png", one) for i, one in enumerate(edges)]
    for mask, one in zip(labels(examples(tmp_path, paths)), edges, strict=True):
        assert np.array_equal(mask, one > 127.5)
    areas = [np.where(mask, np.uint8(255), blob(40, 52, 5) * np.uint8(128)) for mask in BLOBS]
    question = asks(examples(tmp_path, [save(tmp_path / f"a/{i}.png", one) for i, one in enumerate(areas)]))
    assert "several values in one picture (0.png: 128, 255)" in question


def test_coloured_outlines_with_soft_edges_lie_on_black_or_ask(tmp_path: Path):
    def drawn(mask: np.ndarray, background: int) -> np.ndarray:
        cover = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)[..., None]
        return np.rint(cover * [250, 40, 10] + (1 - cover) * background).astype(np.uint8)

    paths = [save(tmp_path / f"b/{i}.png", drawn(mask, 0)) for i, mask in enumerate(BLOBS)]
    for mask, wanted in zip(labels(examples(tmp_path, paths)), BLOBS, strict=True):
        assert (mask ^ wanted).mean() < 0.005
    paths = [save(tmp_path / f"g/{i}.png", drawn(mask, 120)) for i, mask in enumerate(BLOBS)]
    assert "no black background" in asks(examples(tmp_path, paths))


def test_masks_of_another_scale_among_soft_ones_ask(tmp_path: Path):
    paths = [
        save(tmp_path / f"m/{i}.png", smooth(mask) if i else mask.astype(np.uint8)) for i, mask in enumerate(BLOBS)
    ]
    assert "the largest value of 1 of its masks is 1 or less, but others" in asks(examples(tmp_path, paths))


def test_a_photograph_is_no_mask(tmp_path: Path):
    shade = np.add.outer(np.arange(48) // 4 * 10, np.arange(64) // 4 * 5).astype(np.uint8)
    paths = [save(tmp_path / f"m/{i}.png", np.roll(shade, 8 * i, 1)) for i in range(4)]
    assert "neither soft edges nor numbers of pieces" in asks(examples(tmp_path, paths))


def test_float_masks(tmp_path: Path):
    paths = []
    for i, mask in enumerate(BLOBS):
        paths.append(tmp_path / f"{i}.tif")
        tifffile.imwrite(paths[-1], cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0))
    for mask, wanted in zip(labels(examples(tmp_path, paths)), BLOBS, strict=True):
        assert (mask ^ wanted).mean() < 0.005


# --- doubts about one picture -------------------------------------------------------------------------------------


def test_a_set_whose_background_is_not_zero_asks(tmp_path: Path):
    paths = [save(tmp_path / f"m/{i}.png", np.where(mask, np.uint8(2), np.uint8(1))) for i, mask in enumerate(BLOBS)]
    given = examples(tmp_path, paths)
    assert "no mask holds 0" in asks(given) and "are they inverted?" in asks(given)
    assert_read(given, BLOBS, values={"dent": 2})
    outlined = [np.where(blob(40, 52, 4), 0, np.where(mask, 2, 1)).astype(np.uint8) for mask in BLOBS]
    given = examples(tmp_path, [save(tmp_path / f"o/{i}.png", values) for i, values in enumerate(outlined)])
    assert "masks call more than half" in "".join(judged(given, values="all").errors)
    assert_read(given, [mask & ~blob(40, 52, 4) for mask in BLOBS], values={"dent": 2})


def test_one_large_mask_is_a_doubt_that_the_user_can_end(tmp_path: Path):
    masks = [*BLOBS[:3], np.arange(48)[:, None] + np.zeros(64, int) > 10]
    given = examples(tmp_path, [save(tmp_path / f"m/{i}.png", mask * np.uint8(255)) for i, mask in enumerate(masks)])
    ((name, doubt),) = judged(given).doubts
    assert name == "3.png" and "calls 77 % of the picture damaged: inverted?" in doubt
    assert_read(given, masks, inverted=False)


def test_a_product_that_is_not_inverted_among_those_that_are(tmp_path: Path):
    paths = [save(tmp_path / f"m/{i}.png", mask) for i, mask in enumerate(BLOBS)]
    assert "data.mask.inverted = true makes more than half of the picture damage in 4 of 4 masks" in asks(
        examples(tmp_path, paths), inverted=True
    )


def test_a_full_mask_among_others(tmp_path: Path):
    masks = [*BLOBS[:3], np.ones(SIZE, bool)]
    given = examples(tmp_path, [save(tmp_path / f"m/{i}.png", mask * np.uint8(255)) for i, mask in enumerate(masks)])
    assert "calls the whole picture damaged" in judged(given).doubts[0][1]
    confirmed = judged(given, inverted=False)
    assert confirmed.doubts == [] and "3.png: the mask covers the whole picture" in confirmed.warnings[0]


def test_a_frame_round_the_mask_is_a_doubt(tmp_path: Path):
    framed = BLOBS[0].copy()
    framed[[0, -1]] = framed[:, [0, -1]] = True
    given = examples(tmp_path, [save(tmp_path / f"m/{i}.png", m) for i, m in enumerate([framed, *BLOBS[1:]])])
    assert judged(given).doubts == [
        ("0.png", "a line round the whole picture counts as damage; erase the frame from the mask")
    ]


def test_a_legend_in_every_mask_is_a_warning(tmp_path: Path):
    legend = np.zeros(SIZE, bool)
    legend[2:6, 2:12] = legend[9:12, 3:6] = True
    drawn = [save(tmp_path / f"l/{i}.png", mask | legend) for i, mask in enumerate(BLOBS)]
    of_product, of_type = judged(examples(tmp_path, drawn)).warnings
    assert "nut: the same 49 pixels are damage in all 4 masks; is a legend" in of_product
    assert of_type.startswith("nut/dent: the same 49 pixels")
    (of_product,) = judged(examples(tmp_path, drawn, ["dent", "dent", "crack", "crack"])).warnings
    assert of_product.startswith("nut: the same 49 pixels")
    three = [*drawn[:3], save(tmp_path / "l/clean.png", BLOBS[3])]
    assert judged(examples(tmp_path, three)).warnings == []


@pytest.mark.parametrize("same", [True, False])
def test_damage_at_one_place_is_no_legend(tmp_path: Path, same: bool):
    """One region of interest for all, and damage about one place."""
    masks = [blob(20, 30, 8 if same else 5 + i) for i in range(5)]
    paths = [save(tmp_path / f"m/{i}.png", mask) for i, mask in enumerate(masks)]
    assert judged(examples(tmp_path, paths)).warnings == []


def test_empty_masks_among_full_ones_say_nothing_of_the_rule(tmp_path: Path):
    nothing = np.zeros(SIZE, bool)
    paths = [save(tmp_path / f"m/{i}.png", mask) for i, mask in enumerate([nothing, *BLOBS, nothing])]
    assert_read(examples(tmp_path, paths), [nothing, *BLOBS, nothing])


def test_several_masks_of_one_picture_are_united(tmp_path: Path):
    """Label Studio and others write a file per region; each may have a number of its own."""
    groups = [
        tuple(
            save(tmp_path / f"m/{i}-{n}.png", mask * np.uint8(n + 1)) for n, mask in enumerate((one, blob(40, 52, 4)))
        )
        for i, one in enumerate(BLOBS)
    ]
    assert_read(examples(tmp_path, groups), [mask | blob(40, 52, 4) for mask in BLOBS])


def test_unreadable_masks_and_masks_of_another_size(tmp_path: Path):
    (tmp_path / "empty.png").write_bytes(b"")
    small = save(tmp_path / "small.png", np.zeros((10, 10), np.uint8))
    given = examples(tmp_path, [tmp_path / "empty.png", small, save(tmp_path / "m.png", BLOBS[2])])
    assert judged(given).broken == [
        ("0.png", tmp_path / "empty.png", "the file is empty (0 bytes); copy it again from its source"),
        ("1.png", small, "the mask has 10 x 10 pixels, but its photograph 64 x 48; they must be the same"),
    ]


def test_a_product_of_which_no_mask_can_be_read_asks_nothing_more(tmp_path: Path):
    (tmp_path / "m").mkdir()
    for i, mask in enumerate(BLOBS):
        tifffile.imwrite(tmp_path / f"m/{i}.tif", mask.astype(np.int32))  # as skimage.measure.label returns it
    judgement = judged(examples(tmp_path, [tmp_path / f"m/{i}.tif" for i in range(4)]))
    assert judgement.errors == [] and len(judgement.broken) == 4
    assert "32-bit signed" in judgement.broken[0][2]


def test_a_mask_of_several_pages_is_refused(tmp_path: Path):
    """Each page may be a region, or a channel, or a preview."""
    tifffile.imwrite(
        tmp_path / "pages.tif", np.stack([mask * np.uint8(255) for mask in BLOBS]), photometric="minisblack"
    )
    given = examples(tmp_path, [tmp_path / "pages.tif", save(tmp_path / "m.png", BLOBS[2])])
    ((name, _, problem),) = judged(given).broken
    assert name == "0.png" and "holds 4 pictures" in problem


def test_masks_that_nobody_judged_must_be_our_own(tmp_path: Path):
    (example,) = examples(tmp_path, [save(tmp_path / "m.png", numbered(BLOBS[0]))])
    with pytest.raises(DataError, match="no mask of flawsmith's own"):
        read_label(example, SIZE)
    images.write_mask(tmp_path / "own.png", BLOBS[0])
    assert np.array_equal(read_label(replace(example, masks=(tmp_path / "own.png",)), SIZE), BLOBS[0])


# --- photographs that are turned by EXIF --------------------------------------------------------------------------


def turned(pixels: np.ndarray, orientation: int) -> bytes:
    """A PNG whose EXIF tag says how it is turned."""
    exif = Image.Exif()
    exif[274] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_drawn_on_the_unturned_photograph_is_turned_with_it(tmp_path: Path, orientation: int):
    (example,) = examples(tmp_path, [save(tmp_path / "m.png", BLOBS[0] * np.uint8(255))])
    example.image.write_bytes(turned(BLOBS[0] * np.uint8(200), orientation))
    shape = images.describe(example.image).shape
    assert shape == SIZE[::-1]
    judgement = judged([example])
    assert judgement.broken == [] and "the mask is turned as its photograph's EXIF" in judgement.notes[0]
    (ruled,) = with_rules([example], judgement.rules)
    assert np.array_equal(read_label(ruled, shape), images.read(example.image) == 200)


def test_a_photograph_of_several_masks_is_named_once(tmp_path: Path):
    paths = [save(tmp_path / f"{name}.png", BLOBS[0] * np.uint8(255)) for name in "abc"]
    (example,) = examples(tmp_path, [tuple(paths)])
    example.image.write_bytes(turned(BLOBS[0] * np.uint8(200), 6))
    assert judged([example]).notes == ["0.png: the mask is turned as its photograph's EXIF orientation says"]


def test_a_mask_that_kept_the_tag_of_a_photograph_turned_since(tmp_path: Path):
    (example,) = examples(tmp_path, [tmp_path / "m.png"])
    example.masks[0].write_bytes(turned(BLOBS[0] * np.uint8(255), 6))
    assert_read([example], BLOBS[:1])


def test_where_sizes_cannot_tell_the_user_is_warned(tmp_path: Path):
    area = np.zeros((40, 40), bool)
    area[5:12, 20:30] = True
    (example,) = examples(tmp_path, [save(tmp_path / "m.png", area * np.uint8(255))])
    for orientation, warned in ((6, True), (3, True), (1, False)):
        example.image.write_bytes(turned(area * np.uint8(200), orientation))
        warnings = judged([example]).warnings
        assert bool(warnings) == warned and all("sizes cannot tell" in warning for warning in warnings)
    example.image.write_bytes(turned(area * np.uint8(200), 6))
    example.masks[0].write_bytes(turned(area * np.uint8(255), 6))
    assert judged([example]).warnings == []
