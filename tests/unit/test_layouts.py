"""data/layouts.py: every layout becomes the same list of examples, and every wrong folder gets one clear sentence."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

import pytest

from flawsmith.config import DataConfig, Pattern
from flawsmith.data import layouts
from flawsmith.data.layouts.folders.pairs import shared_prefix
from flawsmith.errors import ConfigError, DataError
from flawsmith.korean import in_korean
from flawsmith.types import Example


def touch(root: Path, *names: str) -> Path:
    """Layouts never open a picture, so empty files do."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def rows(examples: list[Example]) -> list[tuple[str, str, str | None, str | None, str]]:
    return [(e.id, e.product, e.defect, e.masks[0].name if e.masks else None, e.split) for e in examples]


def mvtec(root: Path, product: str = "screw") -> Path:
    return touch(
        root,
        f"{product}/train/good/000.png",
        f"{product}/train/good/001.png",
        f"{product}/test/good/000.png",
        f"{product}/test/scratch/000.png",
        f"{product}/test/scratch/001.PNG",
        f"{product}/ground_truth/scratch/000_mask.png",
        f"{product}/ground_truth/scratch/001.png",
        f"{product}/readme.txt",
    )


def pairs(root: Path) -> Path:
    return touch(
        root,
        "MT_Free/Imgs/a.jpg",
        "MT_Free/Imgs/a.png",
        "MT_Free/Imgs/b.jpg",
        "MT_Blowhole/Imgs/x2.jpg",
        "MT_Blowhole/Imgs/x2.png",
        "MT_Blowhole/Imgs/x10.jpg",
        "MT_Blowhole/Imgs/x10.png",
        "MT_Crack/y.bmp",
        "MT_Crack/y_mask.png",
        "docs/readme.txt",
        "dataset.jpg",
    )


def visa(root: Path) -> Path:
    touch(
        root,
        "candle/Data/Images/Normal/0000.JPG",
        "candle/Data/Images/Normal/0001.JPG",
        "candle/Data/Images/Anomaly/000.JPG",
        "candle/Data/Images/Anomaly/001.JPG",
        "candle/Data/Images/Anomaly/002.JPG",
        "candle/Data/Masks/Anomaly/000.png",
        "candle/Data/Masks/Anomaly/001.png",
        "candle/Data/Masks/Anomaly/002.png",
    )
    (root / "candle/image_anno.csv").write_text(
        "image,label,mask\n"
        "candle/Data/Images/Normal/0000.JPG,normal,\n"
        "candle/Data/Images/Anomaly/000.JPG,chunk of wax missing,candle/Data/Masks/Anomaly/000.png\n"
        'candle/Data/Images/Anomaly/001.JPG,"wax melded/out,weird wick",candle/Data/Masks/Anomaly/001.png\n'
    )
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text(
        "object,split,label,image,mask\n"
        "candle,train,normal,candle/Data/Images/Normal/0000.JPG,\n"
        "candle,test,normal,candle/Data/Images/Normal/0001.JPG,\n"
        "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n"
    )
    return root


# --- mvtec --------------------------------------------------------------------------------------------------------


def test_mvtec(tmp_path: Path):
    assert rows(layouts.scan(DataConfig(root=mvtec(tmp_path)))) == [
        ("screw/test/good/000.png", "screw", None, None, "test"),
        ("screw/test/scratch/000.png", "screw", "scratch", "000_mask.png", "test"),
        ("screw/test/scratch/001.PNG", "screw", "scratch", "001.png", "test"),
        ("screw/train/good/000.png", "screw", None, None, "train"),
        ("screw/train/good/001.png", "screw", None, None, "train"),
    ]


def test_mvtec_root_may_be_the_product(tmp_path: Path):
    root = mvtec(tmp_path) / "screw"
    found = layouts.scan(DataConfig(root=root))
    assert found[0].id == "test/good/000.png" and {e.product for e in found} == {"screw"}
    assert {e.product for e in layouts.scan(DataConfig(root=root, product="bolt"))} == {"bolt"}


def test_mvtec_products_kinds_and_names_of_sound_folders(tmp_path: Path):
    mvtec(tmp_path, "screw")
    mvtec(tmp_path, "nut")
    touch(tmp_path, "nut/test/dent/000.png", "nut/ground_truth/dent/000_mask.png")
    assert {e.product for e in layouts.scan(DataConfig(root=tmp_path))} == {"nut", "screw"}
    assert {e.product for e in layouts.scan(DataConfig(root=tmp_path, products=["nut"]))} == {"nut"}
    only = layouts.scan(DataConfig(root=tmp_path, products=["nut"], defects=["dent"]))
    assert {e.defect for e in only} == {None, "dent"}
    (tmp_path / "nut/train/good").rename(tmp_path / "nut/train/OK")
    (tmp_path / "nut/test/good").rename(tmp_path / "nut/test/OK")
    found = layouts.scan(DataConfig(root=tmp_path / "nut", normal="OK"))
    assert sum(e.defect is None for e in found) == 3


def test_relative_roots_and_file_browsers_leftovers(tmp_path: Path, monkeypatch):
    mvtec(tmp_path)
    touch(tmp_path, "screw/test/scratch/._000.png", "screw/test/.DS_Store/x.png", "screw/test/scratch/Thumbs.db")
    monkeypatch.chdir(tmp_path / "screw")
    found = layouts.scan(DataConfig(root=Path(".")))
    assert len(found) == 5 and {e.product for e in found} == {"screw"}


# --- visa ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "candle"])
def test_visa(tmp_path: Path, below):
    prefix = "" if below else "candle/"
    assert rows(layouts.scan(DataConfig(root=visa(tmp_path) / below, layout="visa"))) == [
        (f"{prefix}Data/Images/Anomaly/000.JPG", "candle", "chunk of wax missing", "000.png", "test"),
        (f"{prefix}Data/Images/Anomaly/001.JPG", "candle", "wax melded-out", "001.png", ""),
        (f"{prefix}Data/Images/Anomaly/002.JPG", "candle", "anomaly", "002.png", ""),
        (f"{prefix}Data/Images/Normal/0000.JPG", "candle", None, None, "train"),
        (f"{prefix}Data/Images/Normal/0001.JPG", "candle", None, None, "test"),
    ]


@pytest.mark.parametrize("head", ["image,label,mask\n", "\n\nimage,label,mask\n"])
def test_visa_tables_with_a_short_first_row_or_an_empty_line(tmp_path: Path, head: str):
    table = visa(tmp_path) / "candle/image_anno.csv"
    rows = table.read_text().partition("\n")[2]
    table.write_text(f"{head}candle/Data/Images/Anomaly/002.JPG\n{rows}")
    found = {e.id: e.defect for e in layouts.scan(DataConfig(root=tmp_path, layout="visa"))}
    assert found["candle/Data/Images/Anomaly/000.JPG"] == "chunk of wax missing"


def test_visa_without_tables(tmp_path: Path):
    visa(tmp_path)
    (tmp_path / "candle/image_anno.csv").unlink()
    (tmp_path / "split_csv/1cls.csv").unlink()
    found = layouts.scan(DataConfig(root=tmp_path, layout="visa"))
    assert {e.defect for e in found} == {None, "anomaly"} and {e.split for e in found} == {""}


# --- pairs --------------------------------------------------------------------------------------------------------


def test_pairs(tmp_path: Path):
    data = DataConfig(root=pairs(tmp_path), layout="pairs", normal="MT_Free", product="tile")
    assert rows(layouts.scan(data)) == [
        ("MT_Blowhole/Imgs/x2.jpg", "tile", "blowhole", "x2.png", ""),
        ("MT_Blowhole/Imgs/x10.jpg", "tile", "blowhole", "x10.png", ""),
        ("MT_Crack/y.bmp", "tile", "crack", "y_mask.png", ""),
        ("MT_Free/Imgs/a.jpg", "tile", None, None, ""),
        ("MT_Free/Imgs/b.jpg", "tile", None, None, ""),
    ]
    assert {e.product for e in layouts.scan(data.model_copy(update={"product": ""}))} == {tmp_path.name}


def test_pairs_follow_links_once(tmp_path: Path):
    root = pairs(tmp_path / "real")
    (tmp_path / "set").mkdir()
    for name in ("MT_Free", "MT_Blowhole"):
        (tmp_path / "set" / name).symlink_to(root / name)
    (root / "MT_Free" / "loop").symlink_to(root / "MT_Free")
    found = layouts.scan(DataConfig(root=tmp_path / "set", layout="pairs", normal="MT_Free"))
    assert [e.id for e in found] == [
        "MT_Blowhole/Imgs/x2.jpg",
        "MT_Blowhole/Imgs/x10.jpg",
        "MT_Free/Imgs/a.jpg",
        "MT_Free/Imgs/b.jpg",
    ]


@pytest.mark.parametrize("suffix", ["tif", "bmp"])
def test_pairs_take_the_suffix_of_normal_parts_for_that_of_photographs(tmp_path: Path, suffix: str):
    """PNG photographs with masks in another format: the mask was taken for the photograph."""
    root = touch(tmp_path, "good/1.png", "good/2.png", "crack/1.png", f"crack/1.{suffix}")
    (crack,) = (one for one in layouts.scan(DataConfig(root=root, layout="pairs", normal="good")) if one.defect)
    assert (crack.id, crack.masks[0].name) == ("crack/1.png", f"1.{suffix}")


def test_pairs_do_not_guess_which_of_png_and_jpeg_is_the_photograph(tmp_path: Path):
    root = touch(tmp_path, "good/1.png", "crack/1.png", "crack/1.jpg")
    surveyed = layouts.survey(DataConfig(root=root, layout="pairs", normal="good"))
    assert any("crack/1.jpg, crack/1.png: 2 pictures are left out: either of two" in text for text in surveyed.errors)


def test_folders_that_cannot_be_listed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They vanished without a word. Whoever runs this as root may list all, so the system's refusal is feigned."""
    root, listed = mvtec(tmp_path), os.scandir
    shut = {str(root / "screw" / name) for name in ("test/scratch", "ground_truth/scratch")}

    def scandir(path: str):
        if str(path) in shut:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"test/scratch: 2 folders cannot be listed \(Permission denied\)"):
        layouts.survey(DataConfig(root=root))


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["MT_Free", "MT_Crack"], "MT_"),
        (["good", "scratch_deep", "scratch_light"], ""),
        (["part-a-good", "part-a-bad"], "part-a-"),
        (["crack"], ""),
        (["a", "a_b"], ""),
        (["crash", "crack"], ""),
    ],
)
def test_shared_prefix(names, prefix):
    assert shared_prefix(names) == prefix


# --- pattern ------------------------------------------------------------------------------------------------------


def lines(root: Path) -> Path:
    return touch(
        root,
        "line1/scratch/1.jpg",
        "line2/scratch/2.jpg",
        "line1/dent/3.jpg",
        "line1/ok/4.jpg",
        "labels/scratch/1.png",
        "labels/scratch/2.png",
        "labels/dent/3.png",
    )


def test_pattern(tmp_path: Path):
    both = Pattern(image="line*/{defect}/{stem}.jpg", mask="labels/{defect}/{stem}.png", product="gear")
    data = DataConfig(root=lines(tmp_path), layout="pattern", patterns=[both], normal="ok")
    assert rows(layouts.scan(data)) == [
        ("line1/dent/3.jpg", "gear", "dent", "3.png", ""),
        ("line1/ok/4.jpg", "gear", None, None, ""),
        ("line1/scratch/1.jpg", "gear", "scratch", "1.png", ""),
        ("line2/scratch/2.jpg", "gear", "scratch", "2.png", ""),
    ]


def test_pattern_with_sound_parts_elsewhere_products_and_splits(tmp_path: Path):
    touch(tmp_path, "bad/a/test/crack-7.png", "bad/a/test/crack-7_mask.png", "fine/a/1.png", "fine/deep/b/2.png")
    data = DataConfig(
        root=tmp_path,
        layout="pattern",
        patterns=[
            Pattern(
                image="bad/{product}/{split}/{defect}-{stem}.png",
                mask="bad/{product}/*/{defect}-{stem}_mask.png",
            ),
            Pattern(image="fine/**/{product}/{stem}.png", normal=True),
        ],
        products=["a"],
    )
    assert rows(layouts.scan(data)) == [
        ("bad/a/test/crack-7.png", "a", "crack", "crack-7_mask.png", "test"),
        ("fine/a/1.png", "a", None, None, ""),
    ]


def test_a_kind_may_be_fixed_and_names_may_be_odd(tmp_path: Path):
    touch(tmp_path, "bad (1)/ä +[x].png", "m/ä +[x].png", "good/\x07.png")
    data = DataConfig(
        root=tmp_path,
        layout="pattern",
        patterns=[
            Pattern(image="bad (1)/{stem}.png", mask="m/{stem}.png", defect="pit"),
            Pattern(image="good/{stem}.png", normal=True),
        ],
    )
    assert [(e.defect, e.id) for e in layouts.scan(data)] == [("pit", "bad (1)/ä +[x].png"), (None, "good/\x07.png")]


# --- what goes wrong ----------------------------------------------------------------------------------------------


def _no_masks(root: Path) -> Path:
    mvtec(root)
    for name in ("000_mask.png", "001.png"):
        (root / "screw/ground_truth/scratch" / name).unlink()
    return touch(root, *(f"screw/test/dent/{index}.png" for index in range(3)))


def _only_good(root: Path) -> Path:
    return touch(root, "screw/train/good/000.png")


def _only_bad(root: Path) -> Path:
    return touch(root, "screw/test/dent/000.png", "screw/ground_truth/dent/000.png")


def _lone(root: Path) -> Path:
    return touch(mvtec(root), "nut/test/dent/0.png", "nut/ground_truth/dent/0.png")


def _bad_table(root: Path) -> Path:
    (visa(root) / "candle/image_anno.csv").write_text("picture,label\nx,y\n")
    return root


def _no_table(root: Path) -> Path:
    (visa(root) / "candle/image_anno.csv").write_bytes(b"\xff\xfe\x00\x81")
    return root


def _three(root: Path) -> Path:
    return touch(pairs(root), "MT_Crack/y.png")


DEFECTS = Pattern(image="line*/{defect}/{stem}.jpg", mask="labels/{defect}/{stem}.png")
BAD = {
    "missing root": (None, {"root": Path("nowhere")}, "there is no such folder"),
    "root is a file": (None, {"root": Path(__file__)}, "is a file; it must be the folder"),
    "empty": (lambda root: root, {}, "no product folder with train/ and test/"),
    "empty product": (lambda root: (root / "train").mkdir() or root, {}, "no pictures found"),
    "visa and data.normal": (
        lambda root: visa(root),
        {"layout": "visa", "normal": ["good"]},
        "data.normal: good is not read in the layout visa, whose normal parts are those in Data/Images/Normal",
    ),
    "empty visa": (lambda root: root, {"layout": "visa"}, "no product folder with Data/Images"),
    "empty pairs": (lambda root: root, {"layout": "pairs"}, "no folder of pictures found"),
    "unknown layout": (mvtec, {"layout": "mvtek"}, "'mvtek' is unknown; did you mean 'mvtec'?"),
    "only good": (_only_good, {}, "no defects found; mvtec expects"),
    "only bad": (_only_bad, {}, "no normal parts found; mvtec expects"),
    "one product without normal parts": (_lone, {}, "no normal parts of 'nut'"),
    "no masks": (
        _no_masks,
        {},
        "5 defects have no mask: screw/test/dent/0.png, screw/test/dent/1.png, screw/test/dent/",
    ),
    "normal not named": (pairs, {"layout": "pairs"}, "say which folders of"),
    "normal misspelt": (pairs, {"layout": "pairs", "normal": "MT_Fre"}, "did you mean 'MT_Free'?"),
    "normal nowhere, pairs": (
        lambda root: touch(root, "a/0.png"),
        {"layout": "pairs", "normal": "."},
        'no picture lies in the folder itself, which data.normal = ["."] names',
    ),
    "a label beside, pairs": (
        lambda root: touch(root, "0.png", "1.png", "1.xml"),
        {"layout": "pairs", "normal": "."},
        "1.png: 1 picture is left out: a file of their name beside them may be a label; set the data.layout",
    ),
    "normal misspelt, mvtec": (mvtec, {"normal": "goood"}, "did you mean 'good'?"),
    "defect type misspelt": (mvtec, {"defects": ["scrach"]}, "did you mean 'scratch'?"),
    "product misspelt": (mvtec, {"products": ["skrew"]}, "did you mean 'screw'?"),
    "two masks": (
        _three,
        {"layout": "pairs", "normal": "MT_Free"},
        "2 pictures are left out: each could be the mask of MT_Crack/y.bmp; keep one",
    ),
    "table without column": (_bad_table, {"layout": "visa"}, "there is no column 'image'; it has picture, label"),
    "table of rubbish": (_no_table, {"layout": "visa"}, "cannot be read as a table"),
    "no patterns": (lines, {"layout": "pattern"}, "needs at least one"),
    "pattern fits nothing": (
        lines,
        {"layout": "pattern", "patterns": [Pattern(image="{defect}/{stem}.tif", normal=True)]},
        "fits none of the 7 pictures",
    ),
    "unknown field": (
        lines,
        {"layout": "pattern", "patterns": [Pattern(image="line*/{defct}/{stem}.jpg")]},
        "{defct} is no field; did you mean 'defect'?",
    ),
    "mask field unknown to the image": (
        lines,
        {
            "layout": "pattern",
            "patterns": [Pattern(image="line*/*/{stem}.jpg", mask="labels/{defect}/{stem}.png")],
        },
        "{defect} is not in the image template",
    ),
    "no defect type": (
        lines,
        {"layout": "pattern", "patterns": [Pattern(image="line*/*/{stem}.jpg", mask="labels/*/{stem}.png")]},
        "say what is damaged",
    ),
    "ambiguous mask": (
        lines,
        {
            "layout": "pattern",
            "patterns": [Pattern(image="line*/{defect}/{stem}.jpg", mask="**/{defect}/*.png")],
        },
        "2 masks fit",
    ),
    "normal defect type unknown": (
        lines,
        {"layout": "pattern", "patterns": [DEFECTS], "normal": "okay"},
        "holds no 'okay'",
    ),
    "masks missing, pattern": (
        lines,
        {"layout": "pattern", "patterns": [DEFECTS]},
        "1 defect has no mask: line1/ok/4.jpg",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_folders_get_a_clear_sentence(tmp_path: Path, name):
    make, settings, sentence = BAD[name]
    if make is not None:
        settings = {"root": make(tmp_path), **settings}
    with pytest.raises((DataError, ConfigError)) as caught:
        layouts.scan(DataConfig(**settings))
    assert sentence in str(caught.value)


def test_find_lets_gaps_pass(tmp_path: Path):
    found = layouts.survey(DataConfig(root=_no_masks(tmp_path))).examples
    assert sum(e.defect is not None and not e.masks for e in found) == 5


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch):
    pairs(tmp_path)
    data = DataConfig(root=tmp_path, layout="pairs", normal="MT_Free")
    before = layouts.scan(data)
    listed = os.walk

    def backwards(*args, **options):
        for here, folders, names in listed(*args, **options):
            folders.reverse()
            yield here, folders, names[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert layouts.scan(data) == before


# --- data.exclude -------------------------------------------------------------------------------------------------

PAIRS = {"layout": "pairs", "normal": "MT_Free"}
EXCLUDED = {
    "a photograph of mvtec": (mvtec, {}, "screw/test/scratch/000.png", {"screw/test/scratch/000.png"}),
    "a glob in one folder": (mvtec, {}, "screw/train/good/*1.png", {"screw/train/good/001.png"}),
    "any depth": (mvtec, {}, "**/good/000.png", {"screw/train/good/000.png", "screw/test/good/000.png"}),
    "visa": (visa, {"layout": "visa"}, "candle/Data/Images/Anomaly/002.*", {"candle/Data/Images/Anomaly/002.JPG"}),
    "one photograph of pairs, not its mask": (pairs, PAIRS, "MT_Blowhole/Imgs/x2.jpg", {"MT_Blowhole/Imgs/x2.jpg"}),
    "brackets stand for themselves": (pairs, PAIRS, "MT_[BC]*/**", None),
    "a photograph with a mask of another stem": (pairs, PAIRS, "MT_Crack/y.bmp", {"MT_Crack/y.bmp"}),
    "a normal part of pairs": (pairs, PAIRS, "**/a.jpg", {"MT_Free/Imgs/a.jpg"}),
}


@pytest.mark.parametrize("name", EXCLUDED)
def test_what_is_excluded_is_left_out_and_nothing_else(tmp_path: Path, name):
    make, settings, glob, gone = EXCLUDED[name]
    make(tmp_path)
    before = layouts.scan(DataConfig(root=tmp_path, **settings))
    data = DataConfig(root=tmp_path, exclude=glob, **settings)
    if gone is None:
        with pytest.raises(DataError, match="fits no file"):
            layouts.scan(data)
        return
    files = sorted(tmp_path.rglob("*"))
    kept = layouts.scan(data)
    assert kept == [example for example in before if example.id not in gone] and len(before) == len(kept) + len(gone)
    assert sorted(tmp_path.rglob("*")) == files


def test_a_preview_beside_photograph_and_mask_can_be_excluded(tmp_path: Path):
    touch(pairs(tmp_path), "MT_Crack/y.jpg", "MT_Docs/1.png", "MT_Docs/2.png")
    with pytest.raises(
        DataError,
        match="2 pictures are left out: each could be the mask of MT_Crack/y.jpg",
    ):
        layouts.scan(DataConfig(root=tmp_path, **PAIRS))
    data = DataConfig(root=tmp_path, exclude=["MT_Crack/*.jpg", "MT_Docs/**"], **PAIRS)
    assert ("MT_Crack/y.bmp", tmp_path.name, "crack", "y_mask.png", "") in rows(layouts.scan(data))
    assert {example.defect for example in layouts.scan(data)} == {None, "blowhole", "crack"}
    assert layouts.survey(data).notes == ["data.exclude: 3 files are left out"]


def test_an_excluded_mask_leaves_a_gap(tmp_path: Path):
    data = DataConfig(root=mvtec(tmp_path), exclude="**/000_mask.png")
    assert [example.id for example in layouts.survey(data).examples if example.defect and not example.masks] == [
        "screw/test/scratch/000.png"
    ]
    assert layouts.survey(data).notes == ["data.exclude: 1 file is left out"]
    with pytest.raises(DataError, match="1 defect has no mask: screw/test/scratch/000.png"):
        layouts.scan(data)


def test_patterns_do_not_see_what_is_excluded(tmp_path: Path):
    touch(tmp_path, "a/1.png", "a/1_mask.png", "a/2.png", "a/2_mask.png", "a/2_mask.bmp", "ok/1.png", "ok/2.png")
    patterns = [Pattern(image="a/{stem}.*", mask="a/{stem}_mask.*", defect="dent")]
    patterns.append(Pattern(image="ok/{stem}.png", normal=True))
    both = layouts.scan(DataConfig(root=tmp_path, layout="pattern", patterns=patterns))[1]
    assert [path.name for path in both.masks] == ["2_mask.bmp", "2_mask.png"]
    for glob, left in (("a/2_mask.bmp", ["a/1.png", "a/2.png"]), ("a/2.png", ["a/1.png"])):
        data = DataConfig(root=tmp_path, layout="pattern", patterns=patterns, exclude=[glob, "ok/2.png"])
        assert [example.id for example in layouts.scan(data)] == [*left, "ok/1.png"]


def test_globs_that_fit_nothing_are_all_said_with_the_nearest_picture(tmp_path: Path):
    mvtec(tmp_path)
    with pytest.raises(DataError) as told:
        layouts.survey(DataConfig(root=tmp_path, exclude=["screw/test/scrach/000.png", "**/*.png", "screw/test/good"]))
    assert str(told.value).splitlines() == [
        f"data.exclude: 'screw/test/scrach/000.png' fits no file below {tmp_path}; the nearest is "
        "'screw/test/scratch/000.png'",
        f"data.exclude: 'screw/test/good' fits no file below {tmp_path}; a whole folder is 'screw/test/good/**'",
    ]


# --- names in NFC -------------------------------------------------------------------------------------------------


def nfd(name: str) -> str:
    return unicodedata.normalize("NFD", name)


@pytest.mark.parametrize(("folder", "labels"), [("찍힘", nfd("찍힘")), (nfd("찍힘"), "찍힘"), (nfd("Öl"), nfd("Öl"))])
def test_decomposed_names_are_the_same_names(tmp_path: Path, folder, labels):
    touch(tmp_path, f"판/train/{nfd('양품')}/1.png", f"판/test/{folder}/{nfd('가')}.png")
    touch(tmp_path, f"판/ground_truth/{labels}/가_mask.png", "판/test/기타/1.png", "판/ground_truth/기타/1_mask.png")
    name = unicodedata.normalize("NFC", folder)
    data = DataConfig(root=tmp_path, normal="양품", products=nfd("판"), defects=nfd(folder))
    part, defect = sorted(layouts.scan(data), key=lambda example: example.defect or "")
    assert (part.product, part.defect, part.id) == ("판", None, f"판/train/{nfd('양품')}/1.png")
    assert (defect.defect, defect.id) == (name, f"판/test/{folder}/{nfd('가')}.png")  # ids stay as the disk has them
    assert defect.masks == (tmp_path / f"판/ground_truth/{labels}/가_mask.png",) and defect.image.exists()
    assert len(layouts.scan(data.model_copy(update={"exclude": ["판/test/기타/*"], "defects": []}))) == 2


def test_decomposed_names_in_pairs_visa_and_patterns(tmp_path: Path):
    touch(tmp_path / "p", f"{nfd('정상')}/1.jpg", f"찍힘/{nfd('가')}.jpg", "찍힘/가.png", f"{nfd('찍힘')}/2.jpg")
    touch(tmp_path / "p", f"{nfd('찍힘')}/2_mask.png")
    found = layouts.scan(DataConfig(root=tmp_path / "p", layout="pairs", normal="정상"))
    assert sorted((e.defect or "", e.masks[0].name if e.masks else "") for e in found) == [
        ("", ""),
        ("찍힘", "2_mask.png"),
        ("찍힘", "가.png"),
    ]
    home = touch(tmp_path / "v", "초/Data/Images/Normal/1.JPG", f"초/Data/Images/Anomaly/{nfd('가')}.JPG") / "초"
    touch(home, "Data/Masks/Anomaly/가.png")
    (home / "image_anno.csv").write_text("image,label\n초/Data/Images/Anomaly/가.JPG,녹음\n", "utf-8")
    (defect,) = [e for e in layouts.scan(DataConfig(root=tmp_path / "v", layout="visa")) if e.defect]
    assert (defect.defect, defect.masks) == ("녹음", (home / "Data/Masks/Anomaly/가.png",))
    touch(tmp_path / "t", f"사진/{nfd('찍힘')}/{nfd('가')}.jpg", f"{nfd('라벨')}/찍힘/가.png", "사진/양품/1.jpg")
    templates = [Pattern(image=nfd("사진/{defect}/{stem}.jpg"), mask="라벨/{defect}/{stem}.png")]
    found = layouts.scan(DataConfig(root=tmp_path / "t", layout="pattern", patterns=templates, normal=nfd("양품")))
    assert [(e.defect, bool(e.masks)) for e in found if e.defect] == [("찍힘", True)] and len(found) == 2


def test_the_order_of_names_does_not_depend_on_their_form():
    names = ["나2", "가10", "가2", "나1"]
    mixed = [nfd(name) if index % 2 else name for index, name in enumerate(names)]
    ordered = [unicodedata.normalize("NFC", name) for name in sorted(mixed, key=layouts.natural_key)]
    assert ordered == ["가2", "가10", "나1", "나2"]


@pytest.mark.parametrize("layout", ["mvtec", "visa", "pairs", "coco", "labelme", "yolo", "label_studio", "lookout"])
def test_a_folder_of_another_layout_is_answered_with_the_command_that_finds_it(layout: str, tmp_path: Path):
    root = tmp_path / "my parts"
    root.mkdir()
    (root / "notes.md").write_text("nothing here")
    with pytest.raises(DataError) as refused:
        layouts.survey(DataConfig(root=root, layout=layout))
    assert str(refused.value).endswith(f"; let `flawsmith new --from '{root}'` find the layout that fits")
    assert str(in_korean(str(refused.value))).endswith(f"`flawsmith new --from '{root}'` 명령으로 찾을 수 있습니다")
