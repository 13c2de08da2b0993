"""data/layouts: every file below the root is accounted for, and what could be a defect or its mask is never lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from test_layouts import mvtec, pairs, touch, visa

from flawsmith.config import Config, DataConfig, Pattern
from flawsmith.data import images
from flawsmith.data.layouts import Survey, scan, survey
from flawsmith.data.layouts.mask_names import bases, match
from flawsmith.data.masks.of_normals import marked_normals
from flawsmith.data.masks.reading import read_label
from flawsmith.errors import DataError
from flawsmith.files import read_json
from flawsmith.preflight.check import check
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run

PAIRS = {"layout": "pairs", "normal": "MT_Free"}
VISA = {"layout": "visa"}
JPEG, GIF = b"\xff\xd8\xff\xe0" + bytes(60), b"GIF89a" + bytes(60)


def looked_at(root: Path, **settings: object) -> Survey:
    """Survey a folder, and compare the ledger's sum with a count of the files by other means."""
    surveyed = survey(DataConfig(root=root, **settings))  # type: ignore[arg-type]
    counted = sum(len(names) for _, _, names in os.walk(root))
    assert surveyed.ledger.files == counted
    tree = surveyed.ledger.to_json()
    assert sum(tree["uses"].values()) == tree["files"] == counted
    used = [example.id for example in surveyed.examples]
    used += [path.relative_to(root).as_posix() for example in surveyed.examples for path in example.masks]
    assert len(set(used)) == surveyed.ledger.uses.get("photographs", 0) + surveyed.ledger.uses.get("masks", 0)
    return surveyed


def labels(surveyed: Survey) -> dict[str, list[str]]:
    """Photograph -> names of its masks, of those that have one."""
    return {one.id: [path.name for path in one.masks] for one in surveyed.examples if one.masks}


# --- what is read now ---------------------------------------------------------------------------------------------


def test_folders_below_a_split_or_type_are_read(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "nut/train/good/0.png",
        "nut/train/good/lot1/0.png",
        "nut/train/good/lot1/shift 2/0.png",
        "nut/test/dent/lot1/0.png",
        "nut/test/dent/lot2/0.png",
        "nut/test/dent/1.png",
        "nut/test/dent/lot3/2.png",
        "nut/ground_truth/dent/lot1/0_mask.png",
        "nut/ground_truth/dent/lot2/0_mask.png",
        "nut/ground_truth/dent/1_mask.png",
        "nut/ground_truth/dent/2_mask.png",  # flat, though its photograph lies in a folder
    )
    surveyed = looked_at(tmp_path)
    assert surveyed.errors == [] and surveyed.ledger.uses == {"photographs": 7, "masks": 4}
    masks = {one.id: one.masks[0].relative_to(tmp_path).as_posix() for one in surveyed.examples if one.masks}
    assert masks == {
        "nut/test/dent/1.png": "nut/ground_truth/dent/1_mask.png",
        "nut/test/dent/lot1/0.png": "nut/ground_truth/dent/lot1/0_mask.png",
        "nut/test/dent/lot2/0.png": "nut/ground_truth/dent/lot2/0_mask.png",
        "nut/test/dent/lot3/2.png": "nut/ground_truth/dent/2_mask.png",
    }


def test_a_mask_of_another_lot_is_not_taken(tmp_path: Path) -> None:
    touch(mvtec(tmp_path), "screw/test/dent/lot1/0.png", "screw/ground_truth/dent/lot2/0_mask.png")
    surveyed = looked_at(tmp_path)
    assert len(surveyed.errors) == 2 and "no mask: screw/test/dent/lot1/0.png" in surveyed.errors[0]
    assert "lot2/0_mask.png: 1 mask is left out: no photograph has such a name" in surveyed.errors[1]


def test_several_masks_of_one_picture_are_united(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "nut/train/good/0.png",
        "nut/test/dent/000.png",
        "nut/test/dent/001.png",
        "nut/ground_truth/dent/000/000.png",
        "nut/ground_truth/dent/000/001.png",
        "nut/ground_truth/dent/001/000.png",
    )
    assert labels(looked_at(tmp_path)) == {
        "nut/test/dent/000.png": ["000.png", "001.png"],
        "nut/test/dent/001.png": ["000.png"],
    }
    by_template = Pattern(image="nut/test/{defect}/{stem}.png", mask="nut/ground_truth/{defect}/{stem}/*.png")
    patterns = [by_template, Pattern(image="nut/train/good/*.png", normal=True)]
    assert labels(looked_at(tmp_path, layout="pattern", patterns=patterns)) == labels(looked_at(tmp_path))


def test_the_union_is_the_damage(tmp_path: Path) -> None:
    grey = np.full((32, 32), 90, np.uint8)
    images.write(tmp_path / "ok/0.png", grey)
    images.write(tmp_path / "dent/0.png", grey)
    for number, (top, left) in enumerate(((2, 3), (20, 9))):
        part = np.zeros((32, 32), bool)
        part[top : top + 4, left : left + 5] = True
        images.write_mask(tmp_path / f"dent/0_mask{number}.png", part)
    (example,) = [one for one in scan(DataConfig(root=tmp_path, layout="pairs", normal="ok")) if one.defect]
    damage = read_label(example, (32, 32))
    assert damage.sum() == 40 and damage[2:6, 3:8].all() and damage[20:24, 9:14].all()


NAMES = {
    "x_mask.png": "x",
    "x_MASK.PNG": "x",
    "x-mask.png": "x",
    "x.mask.png": "x",
    "x_gt.bmp": "x",
    "x_GT_2.png": "x",
    "x_label_03.png": "x",
    "x_segmentation.png": "x",
    "x_ground_truth.png": "x",
    "mask_x.png": "x",
    "gt-x.png": "x",
    "x.bmp.png": "x",
    "x.JPG_mask.png": "x",
    "x.png": "x",
    "x/0.png": "x",
    "X.png": "x",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_masks(name: str) -> None:
    matches = match({"x": "photograph", "other": "another"}, [(name, "mask")])
    assert matches.masks == {"photograph": ("mask",)} and not matches.orphans and not matches.unclear
    assert "x" in [base.lower() for _, base in bases(name)]


@pytest.mark.parametrize("name", ["y_mask.png", "xmask.png", "x_masked.png", "x2.png", "x_2.png"])
def test_names_of_no_mask_of_x(name: str) -> None:
    assert match({"x": "photograph", "other": "another"}, [(name, "mask")]).orphans == ("mask",)


def test_masks_of_other_tools_are_no_photographs(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "ok/0.bmp",
        "ok/0.bmp.png",
        "ok/1.bmp",
        "scratch/0.bmp",
        "scratch/0.bmp.png",
        "scratch/1.bmp",
        "scratch/masks/1.png",
        "scratch/bottle_label.jpg",  # a photograph: no other picture here has a mask of that name
        "scratch/bottle_label.png",
    )
    surveyed = looked_at(tmp_path, layout="pairs", normal="ok")
    assert surveyed.errors == [] and surveyed.normal_masks == {"ok/0.bmp": ("ok/0.bmp.png",)}
    assert [one.id for one in surveyed.examples if one.defect is None] == ["ok/0.bmp", "ok/1.bmp"]
    assert labels(surveyed) == {
        "scratch/0.bmp": ["0.bmp.png"],
        "scratch/1.bmp": ["1.png"],
        "scratch/bottle_label.jpg": ["bottle_label.png"],
    }
    assert surveyed.ledger.uses == {"photographs": 5, "masks": 3, "masks of normal parts": 1}


def test_label_studio_masks_tell_no_photograph(tmp_path: Path) -> None:
    touch(pairs(tmp_path), *(f"MT_Crack/task-{n}-annotation-{n}-by-1-tag-crack-0.png" for n in (3, 4)))
    (error,) = looked_at(tmp_path, **PAIRS).errors
    assert (
        error.startswith("MT_Crack/task-3-annotation-3-by-1-tag-crack-0.png, MT_Crack/task-4-") and "2 masks" in error
    )


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JFIF"])
def test_jpeg_by_its_rarer_suffixes(tmp_path: Path, suffix: str) -> None:
    touch(pairs(tmp_path), f"MT_Crack/z{suffix}", "MT_Crack/z.png")
    assert labels(looked_at(tmp_path, **PAIRS))[f"MT_Crack/z{suffix}"] == ["z.png"]


@pytest.mark.parametrize(
    "written",
    [
        "pcb1\\Data\\Images\\Anomaly\\{}.JPG",
        "./candle/Data/Images/Anomaly/{}.JPG",
        "VisA/candle/Data/Images/Anomaly/{}.JPG",
        "candle/Data/Images/Anomaly/{}.png",
        "Data/Images/Anomaly/{}.jpg",
        "Anomaly/{}.JPG",
        "/home/kim/candle/Data/Images/Anomaly/{}.bmp",
    ],
)
def test_rows_with_another_style_of_path(tmp_path: Path, written: str) -> None:
    visa(tmp_path)
    rows = "".join(
        f"{written.format(name)},{kind},\n" for name, kind in (("000", "chip"), ("001", "melt"), ("002", "chip"))
    )
    (tmp_path / "candle/image_anno.csv").write_text("image,label,mask\n" + rows)
    surveyed = looked_at(tmp_path, **VISA)
    assert surveyed.errors == [] and surveyed.warnings == ()
    assert [one.defect for one in surveyed.examples if one.defect] == ["chip", "melt", "chip"]


def test_outlines_of_a_labelling_tool_are_pointed_out(tmp_path: Path) -> None:
    touch(tmp_path, "ok/0.bmp", "scratch/0.bmp", "scratch/0.json", "scratch/1.bmp")
    (error,) = looked_at(tmp_path, layout="pairs", normal="ok").errors
    assert "2 defects have no mask" in error and "scratch/0.json is a labelling tool's file" in error


# --- what is left out ---------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """What lies in a folder, and what is said of it."""

    make: Callable[[Path], Path]
    settings: dict[str, object]
    sentence: str
    error: bool = True


def _with(base: Callable[[Path], Path], *names: str, content: bytes = b"") -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        touch(base(root), *names)
        for name in names if content else ():
            (root / name).write_bytes(content)
        return root

    return make


def _link(base: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        base(root)
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(root / "moved away.png")
        return root

    return make


def _row(line: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        with open(visa(root) / "candle/image_anno.csv", "a") as stream:
            stream.write(line)
        return root

    return make


LEFT_OUT = {
    "defects under train": Case(
        _with(mvtec, "screw/train/dent/0.png", "screw/train/dent/1.png"),
        {},
        "screw/train/dent/0.png, screw/train/dent/1.png: 2 pictures are left out: train/ holds normal parts only",
    ),
    "a mask of no photograph": Case(
        _with(mvtec, "screw/ground_truth/scratch/7_mask.png"),
        {},
        "screw/ground_truth/scratch/7_mask.png: 1 mask is left out: no photograph has such a name",
    ),
    "masks of a type without photographs": Case(
        _with(mvtec, "screw/ground_truth/dent/0_mask.png"), {}, "1 mask is left out: no photograph has such a name"
    ),
    "a picture beside the types": Case(
        _with(mvtec, "screw/test/9.png"), {}, "screw/test/9.png: 1 picture is left out: the layout mvtec does not look"
    ),
    "a product in other letters": Case(
        _with(mvtec, "nut/Train/good/0.png", "nut/Test/dent/0.png"), {}, "nut/Test/dent/0.png: 1 picture is left out"
    ),
    "a split that is not read": Case(
        _with(mvtec, "screw/validation/scratch/0.png"),
        {},
        "1 picture is left out: the layout mvtec does not look there",
    ),
    "a picture elsewhere": Case(
        _with(mvtec, "docs/camera.png"), {}, "docs/camera.png: 1 picture is left out: the layout mvtec", error=False
    ),
    "a picture beside the folders of pairs": Case(
        pairs, PAIRS, "dataset.jpg: 1 picture is left out: the layout pairs does not look there", error=False
    ),
    "another suffix": Case(
        _with(mvtec, "screw/test/scratch/2.dat", content=JPEG),
        {},
        "2.dat: 1 picture is left out: JPEG in files named .dat",
    ),
    "no suffix": Case(
        _with(pairs, "MT_Crack/7", content=JPEG),
        PAIRS,
        "MT_Crack/7: 1 picture is left out: JPEG in files without a suffix",
    ),
    "another format": Case(
        _with(mvtec, "screw/test/scratch/2.pgm", content=b"P5\n4 4\n255\n" + bytes(16)), {}, "PGM in files named .pgm"
    ),
    "another format elsewhere": Case(
        _with(mvtec, "logo.gif", content=GIF),
        {},
        "logo.gif: 1 picture is left out: GIF in files named .gif",
        error=False,
    ),
    "a link to nothing": Case(
        _link(mvtec, "screw/test/scratch/000.png"),
        {},
        "screw/test/scratch/000.png: 1 picture is left out: links to files that are not there",
    ),
    "a mask that is a link to nothing": Case(
        _link(mvtec, "screw/ground_truth/scratch/000_mask.png"),
        {},
        "000_mask.png: 1 picture is left out: links to files",
    ),
    "a link to nothing among normal parts": Case(
        _link(pairs, "MT_Free/Imgs/b.jpg"), PAIRS, "MT_Free/Imgs/b.jpg: 1 picture is left out: links to files"
    ),
    "two ways to name a mask": Case(
        _with(mvtec, "screw/ground_truth/scratch/000.png"),
        {},
        "2 pictures are left out: each could be the mask of screw/test/scratch/000.png",
    ),
    "a row of a defect": Case(
        _row("candle/Data/Images/Anomaly/777.JPG,melt,\n"),
        VISA,
        "777.JPG: 1 row is left out: no picture has such a name",
    ),
    "a row of a normal part": Case(
        _row("candle/Data/Images/Normal/777.JPG,normal,\n"), VISA, "Normal/777.JPG: 1 row is left out", error=False
    ),
    "a defect without a row": Case(visa, VISA, "Anomaly/002.JPG: 1 defect is not in image_anno.csv", error=False),
    "a mask of no VisA picture": Case(
        _with(visa, "candle/Data/Masks/Anomaly/9.png"), VISA, "9.png: 1 mask is left out"
    ),
    "VisA pictures in a folder of another name": Case(
        _with(visa, "candle/Data/Images/Bad/0.JPG"), VISA, "candle/Data/Images/Bad/0.JPG: 1 picture is left out"
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_said(tmp_path: Path, name: str) -> None:
    case = LEFT_OUT[name]
    surveyed = looked_at(case.make(tmp_path), **case.settings)
    said = surveyed.errors if case.error else surveyed.warnings
    assert any(case.sentence in sentence for sentence in said), (surveyed.errors, surveyed.warnings)
    if case.error:
        with pytest.raises(DataError):
            scan(DataConfig(root=tmp_path, **case.settings))  # type: ignore[arg-type]
    else:
        assert surveyed.errors == []


def test_what_is_expected_to_be_left_out_is_counted(tmp_path: Path) -> None:
    touch(
        mvtec(tmp_path), ".DS_Store", "screw/.cache/1.png", "screw/.cache/deep/2.png", "screw/licence", "screw/a.json"
    )
    surveyed = looked_at(tmp_path, exclude="**/001.*")
    assert surveyed.errors == [] and surveyed.warnings == ()
    assert surveyed.ledger.uses == {
        "photographs": 3,
        "masks": 1,
        "left out by data.exclude": 3,
        "other files": 3,
        "hidden files": 3,
    }


def test_excluding_what_is_in_the_way_makes_it_ready(tmp_path: Path) -> None:
    touch(mvtec(tmp_path), "screw/train/dent/0.png", "screw/ground_truth/dent/0_mask.png", "screw/test/9.png")
    assert len(looked_at(tmp_path).errors) == 3
    exclude = ["screw/train/dent/**", "screw/ground_truth/dent/**", "screw/test/*.png"]
    assert looked_at(tmp_path, exclude=exclude).errors == []


def test_of_what_is_not_asked_for_nothing_is_said(tmp_path: Path) -> None:
    touch(mvtec(tmp_path), "nut/train/good/0.png", "nut/test/dent/0.png", "nut/ground_truth/dent/0_mask.png")
    touch(tmp_path, "nut/ground_truth/dent/1_mask.png")
    assert len(looked_at(tmp_path).errors) == 1
    surveyed = looked_at(tmp_path, products="screw")
    assert surveyed.errors == [] and surveyed.ledger.uses["of products or types not asked for"] == 4


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "set")
    (root / "screw/train/good/again").symlink_to(root / "screw")
    surveyed = survey(DataConfig(root=root))
    assert surveyed.errors == [] and surveyed.ledger.files == 8
    assert surveyed.notes == ["screw/train/good/again: 1 folder is left out: a link to a folder above it"]


def test_masks_of_normal_parts(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (4, 24, 24)).astype(np.uint8)
    for number in range(2):
        images.write(tmp_path / f"ok/{number}.bmp", grey[number])
        images.write(tmp_path / f"bad/{number}.bmp", grey[number + 2])
        images.write_mask(tmp_path / f"bad/{number}.png", np.eye(24, dtype=bool))
        images.write_mask(tmp_path / f"ok/{number}.png", np.zeros((24, 24), bool))
    config = Config(data=DataConfig(root=tmp_path, layout="pairs", normal="ok", shots=1))
    assert check(config).ok
    images.write_mask(tmp_path / "ok/1.png", np.eye(24, dtype=bool))
    surveyed = looked_at(tmp_path, layout="pairs", normal="ok")
    (error,) = marked_normals(tmp_path, surveyed.normal_masks)
    assert error.startswith("ok/1.bmp (ok/1.png): 1 normal part has a mask that marks something")
    assert error in check(config).errors
    with pytest.raises(DataError, match="1 normal part has a mask that marks something"):
        open_dataset(Run.create(tmp_path.parent / f"{tmp_path.name}-run", config))


def test_a_run_keeps_the_ledger(tmp_path: Path) -> None:
    for name in ("screw/train/good/0.png", "screw/train/good/1.png", "screw/test/dent/0.png", "screw/test/dent/1.png"):
        images.write(tmp_path / name, np.random.default_rng(len(name)).integers(0, 255, (24, 24)).astype(np.uint8))
    for number in range(2):
        images.write(tmp_path / f"screw/train/good/{number}.png", np.full((24, 24), 40 + number, np.uint8))
        images.write(tmp_path / f"screw/test/dent/{number}.png", np.full((24, 24), 90 + number, np.uint8))
        images.write_mask(tmp_path / f"screw/ground_truth/dent/{number}_mask.png", np.eye(24, dtype=bool))
    touch(tmp_path, "notes/camera.png", "readme.md")
    config = Config(data=DataConfig(root=tmp_path, shots=1))
    run = Run.create(tmp_path.parent / f"{tmp_path.name}-run", config)
    open_dataset(run)
    tree = read_json(run.path("data.json"))
    left_out = {"reason": "the layout mvtec does not look there", "count": 1, "example": "notes/camera.png"}
    assert tree["ledger"] == {
        "files": 8,
        "uses": {"photographs": 4, "masks": 2, f"left out: {left_out['reason']}": 1, "other files": 1},
        "left_out": [{**left_out, "severity": "warning"}],
    }
    assert any(sentence.startswith("notes/camera.png: 1 picture is left out") for sentence in tree["warnings"])
    assert check(config).files == tree["ledger"]["uses"]
