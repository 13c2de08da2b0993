"""data/split.py: the split is the same everywhere, nothing is on both sides, and copies are found by their pixels."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flawsmith.config import Config, ProveConfig
from flawsmith.data import fingerprints, images
from flawsmith.data import split as shots
from flawsmith.data.fingerprints import content_hash
from flawsmith.errors import DataError
from flawsmith.types import Example


def named(count: int, defect: str | None, product: str = "nut", split: str = "") -> list[Example]:
    folder = f"{product}/{split}/{defect or 'good'}"
    return [Example(f"{folder}/{i}.png", Path(f"{i}.png"), product, defect, (), split) for i in range(count)]


def numbers(examples: tuple[Example, ...]) -> list[int]:
    return [int(example.image.stem) for example in examples]


# --- the rule -----------------------------------------------------------------------------------------------------


def test_the_first_k_in_natural_order_are_shots():
    examples = named(25, "dent") + named(30, None)
    random.Random(0).shuffle(examples)
    got = shots.split(examples, shots=11)
    assert numbers(got.shots) == list(range(11)) and numbers(got.test_defects) == list(range(11, 25))
    assert got.notes == ()


@pytest.mark.parametrize(("have", "count"), [(1, 1), (2, 1), (3, 1), (7, 2), (30, 10)])
def test_third(have, count):
    got = shots.split(named(have, "dent") + named(5, None), shots="third")
    assert (len(got.shots), len(got.test_defects)) == (count, have - count)


@pytest.mark.parametrize(("have", "count"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (19, 9), (20, 10), (21, 10)])
def test_never_more_than_half_and_it_says_so(have, count):
    got = shots.split(named(have, "dent") + named(5, None), shots=10)
    assert (len(got.shots), len(got.test_defects)) == (count, have - count)
    assert len(got.notes) == (have < 20)
    if have == 1:
        assert "nothing of this defect type is left to test on" in got.notes[0]
    elif have < 20:
        assert got.notes[0].startswith(f"nut/dent: {count} of {have} pictures are shots, not 10")


@pytest.mark.parametrize(("have", "count"), [(1, 1), (3, 3), (10, 10), (11, 10), (21, 10)])
def test_without_a_test_every_defect_is_a_shot(have, count):
    got = shots.split(named(have, "dent") + named(5, None), shots=10, test=False)
    assert numbers(got.shots) == list(range(count)) and numbers(got.test_defects) == list(range(count, have))
    assert got.notes == (() if have > 10 else (f"nut/dent: all {have} pictures are shots, for no proof is asked for",))
    third = [shots.split(named(have, "dent") + named(5, None), shots="third", test=test) for test in (True, False)]
    assert third[0] == third[1]


@pytest.mark.parametrize(
    ("changes", "kept"),
    [({}, True), ({"enabled": False}, False), ({"enabled": False, "protocol": "field"}, True)],
)
def test_who_keeps_a_test(changes, kept):
    assert shots.keeps_test(Config(prove=ProveConfig(**changes))) == kept


def test_every_product_and_kind_has_its_own_shots():
    examples = [e for product in ("a", "b") for defect in ("x", "y") for e in named(6, defect, product)]
    got = shots.split(examples + named(5, None, "a") + named(5, None, "b"), shots=2)
    assert len(got.shots) == 8 and len(got.test_defects) == 16


@pytest.mark.parametrize(("have", "held"), [(1, []), (2, [1]), (4, [2]), (5, [2]), (10, [2, 7]), (14, [3, 10])])
def test_a_fifth_of_the_sound_parts_is_held_out_evenly(have, held):
    got = shots.split(named(4, "dent") + named(have, None), shots=2)
    assert numbers(got.test_normals) == held and len(got.normals) == have - len(held)


def test_the_layouts_own_split_of_sound_parts_is_kept():
    got = shots.split(named(4, "dent") + named(7, None, split="train") + named(2, None, split="test"), shots=2)
    assert (len(got.normals), len(got.test_normals), got.notes) == (7, 2, ())


@pytest.mark.parametrize("side", ["train", "test"])
def test_a_one_sided_split_of_sound_parts_is_divided(side):
    got = shots.split(named(4, "dent") + named(10, None, split=side), shots=2)
    assert (len(got.normals), len(got.test_normals)) == (8, 2)
    assert got.notes == (f"nut: all normal parts lie in {side}; 2 of 10 are held out for the test",)


def test_every_example_is_on_exactly_one_side():
    examples = named(13, "x") + named(3, "y") + named(17, None)
    got = shots.split(examples, shots=5)
    sides = [*got.shots, *got.normals, *got.test_defects, *got.test_normals]
    assert sorted(e.id for e in sides) == sorted(e.id for e in examples)


@pytest.mark.parametrize(
    ("examples", "count", "sentence"),
    [
        (named(3, None), 5, "no shots: the set holds no defects"),
        (named(3, "x"), 5, "no normal parts"),
        ([], 5, "no shots"),
    ],
)
def test_nothing_to_learn_from(examples, count, sentence):
    with pytest.raises(DataError, match=sentence):
        shots.split(examples, shots=count)


# --- pictures -----------------------------------------------------------------------------------------------------


def surface(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    """A smooth surface with grain; another seed is another piece."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 190, (5, 6), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(coarse) + rng.normal(0, 4, (height, width)), 0, 255).astype(np.uint8)


def picture(root: Path, name: str, pixels: np.ndarray, defect: str | None = None, mask=None) -> Example:
    images.write(root / name, pixels)
    where: tuple[Path, ...] = ()
    if mask is not None:
        where = (root / f"{Path(name).stem}_m.png",)
        images.write_mask(where[0], mask)
    return Example(name, root / name, "nut", defect, where)


def test_copies_have_one_hash_however_they_were_saved(tmp_path: Path):
    grey = surface(1)
    images.write(tmp_path / "a.png", grey)
    images.write(tmp_path / "a.bmp", grey)
    images.write(tmp_path / "a.tif", np.repeat(grey[..., None], 3, axis=2))
    images.write(tmp_path / "deep.png", grey.astype(np.uint16) * 257)
    turn = Image.Exif()
    turn[274] = 6
    Image.fromarray(np.rot90(grey).copy()).save(tmp_path / "turned.png", exif=turn)
    hashes = {content_hash(path) for path in tmp_path.iterdir()}
    assert len(hashes) == 1
    grey[3, 4] ^= 1
    images.write(tmp_path / "b.png", grey)
    assert content_hash(tmp_path / "b.png") not in hashes
    images.write(tmp_path / "a.png", grey)  # the same name, other pixels: not cached
    assert content_hash(tmp_path / "a.png") == content_hash(tmp_path / "b.png")


def test_hashes_are_remembered(tmp_path: Path, monkeypatch):
    images.write(tmp_path / "a.png", surface(1))
    first = content_hash(tmp_path / "a.png")
    monkeypatch.setattr(fingerprints.images, "read", lambda path: pytest.fail("read again"))
    assert content_hash(tmp_path / "a.png") == first


def test_leaks(tmp_path: Path):
    one, two, three = surface(1), surface(2), surface(3)
    got = shots.Split(
        shots=(picture(tmp_path, "shot.png", one, "dent"), picture(tmp_path, "both.png", two, "dent")),
        normals=(picture(tmp_path, "normal.png", three), picture(tmp_path, "sound2.bmp", two)),
        test_defects=(picture(tmp_path, "copy.bmp", one, "dent"), picture(tmp_path, "new.png", surface(4), "dent")),
        test_normals=(picture(tmp_path, "copy3.tif", three), picture(tmp_path, "new2.png", surface(5))),
    )
    assert shots.leaks(got) == [
        "the shot both.png is the same picture as the normal part sound2.bmp; remove one",
        "the test picture copy.bmp is the same as the shot shot.png; remove one",
    ]
    assert shots.duplicates(got) == ["copy3.tif"]


def test_a_picture_filed_as_normal_and_as_a_defect_is_a_leak_on_every_side(tmp_path: Path):
    one, two, three, four = (surface(seed) for seed in range(4))
    got = shots.Split(
        shots=(picture(tmp_path, "s1.png", one, "dent"), picture(tmp_path, "s2.png", two, "dent")),
        normals=(picture(tmp_path, "n3.png", three), picture(tmp_path, "n4.bmp", four)),
        test_defects=(picture(tmp_path, "t2.bmp", two, "dent"), picture(tmp_path, "t3.png", three, "crack")),
        test_normals=(picture(tmp_path, "m1.tif", one), picture(tmp_path, "m2.tif", two)),
    )
    assert shots.leaks(got) == [
        "the shot s1.png is the same picture as the normal part m1.tif; remove one",
        "the shot s2.png is the same picture as the normal part m2.tif; remove one",
        "the test picture t2.bmp is the same as the shot s2.png; remove one",
        "the test picture t2.bmp is the same as the normal part m2.tif; remove one",
        "the test picture t3.png is the same as the normal part n3.png; remove one",
    ]
    assert shots.duplicates(got) == []


def test_defects_that_are_twice_on_one_side_are_said_only_along_with_a_leak(tmp_path: Path):
    one, two = surface(1), surface(2)
    tests = (picture(tmp_path, "t1.png", one, "dent"), picture(tmp_path, "t2.bmp", one, "dent"))
    learned = (picture(tmp_path, "s1.png", two, "dent"), picture(tmp_path, "s2.tif", two, "dent"))
    assert shots.leaks(shots.Split(learned, (), tests, ())) == []
    more = (*tests, picture(tmp_path, "t3.tif", two, "dent"))
    assert shots.leaks(shots.Split(learned, (), more, ())) == [
        "the test picture t3.tif is the same as the shot s1.png; remove one",
        "the shot s2.tif is the same as the shot s1.png; remove one",
        "the test picture t2.bmp is the same as the test picture t1.png; remove one",
    ]


@pytest.mark.parametrize(
    ("copies", "end"),
    [
        (0, None),
        (1, "so it is left out: t0.bmp"),
        (3, "so they are left out: t0.bmp, t1.bmp, t2.bmp"),
        (5, "so they are left out: t0.bmp, t1.bmp, t2.bmp and 2 more"),
    ],
)
def test_copies_of_normal_parts_leave_the_test(tmp_path: Path, copies, end):
    surfaces = [surface(seed) for seed in range(6)]
    normals = [picture(tmp_path, f"n{i}.png", pixels) for i, pixels in enumerate(surfaces)]
    # Twice in the test alone, or twice among those to learn from, is on one side: both stay.
    normals.append(picture(tmp_path, "n9.bmp", surfaces[0]))
    own = [picture(tmp_path, f"own{i}.{ending}", surface(50)) for i, ending in enumerate(("png", "bmp"))]
    tests = [picture(tmp_path, f"t{i}.bmp", surfaces[i]) for i in range(copies)]
    shot = picture(tmp_path, "shot.png", surface(70), "dent")
    got = shots.Split((shot,), tuple(normals), (), (*own, *tests), ("before",))
    ids = shots.duplicates(got)
    assert ids == [f"t{i}.bmp" for i in range(copies)]
    left = shots.without_duplicates(got, ids)
    assert left.test_normals == tuple(own) and left.normals == tuple(normals) and left.shots == (shot,)
    if end is None:
        assert left is got
    else:
        assert (
            left.notes[0] == "before" and left.notes[1].endswith(end) and left.notes[1].startswith(f"{copies} normal")
        )
    assert shots.leaks(left) == []


def test_broken_files_are_no_copies_of_each_other(tmp_path: Path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    a, b = (Example(name, tmp_path / name, "nut", "dent") for name in ("a.png", "b.png"))
    assert shots.leaks(shots.Split((a,), (), (b,), ())) == []
    assert shots.duplicates(shots.Split((), (a,), (), (b,))) == []
    assert "empty" in fingerprints.fingerprint(tmp_path / "a.png").problem
    with pytest.raises(DataError, match="was it moved"):
        content_hash(tmp_path / "gone.png")


def test_near_duplicates(tmp_path: Path):
    spot = np.zeros((40, 50), bool)
    spot[10:20, 10:25] = True
    elsewhere = np.roll(spot, (15, 20), (0, 1))
    normals = tuple(picture(tmp_path, f"n{i}.png", surface(100 + i)) for i in range(30))
    piece = surface(1)
    brighter = np.clip(piece[1:, 1:].astype(int) + 25 + np.random.default_rng(9).normal(0, 2, (39, 49)), 0, 255)
    shot = picture(tmp_path, "shot.png", piece, "dent", spot)
    again = picture(tmp_path, "again.png", brighter.astype(np.uint8), "dent", spot[1:, 1:])
    other_place = picture(tmp_path, "place.png", piece // 2 + 60, "dent", elsewhere)
    other_piece = picture(tmp_path, "piece.png", surface(7), "dent", spot)
    other_kind = picture(tmp_path, "kind.png", piece // 2 + 50, "crack", spot)
    unreadable = [picture(tmp_path, f"broken{i}.png", piece, "dent", spot) for i in range(2)]
    for one in unreadable:
        one.image.write_bytes(b"not a picture")
    got = shots.Split((shot, unreadable[0]), normals, (again, other_place, other_piece, other_kind, unreadable[1]), ())
    assert shots.near_duplicates(got) == [(shot, again)]  # what cannot be decoded is not like other such files
    got = shots.Split((shot,), normals, (again, other_place, other_piece, other_kind), ())
    assert shots.near_duplicates(got) == [(shot, again)]
    (warning,) = shots.near_duplicate_warnings(got, shots.near_duplicates(got))
    assert warning.startswith("nut/dent: 1 of 3 test pictures seem to show the same damage as a shot")
    assert warning.endswith('so the proof leaves them out (unless prove.near_duplicates = "keep")')
    without = shots.without_near_duplicates(got)
    assert without.test_defects == (other_place, other_piece, other_kind)
    assert "1 of 4 test defects were left out" in without.notes[-1]
    assert shots.leaks(got) == []
    assert shots.without_near_duplicates(without) is without
