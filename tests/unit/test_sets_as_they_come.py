"""data/layouts: public sets and other people's folders as they come; what is taken for what, and what is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flawsmith.config import Config, DataConfig, Pattern
from flawsmith.data import images
from flawsmith.data.layouts import scan, survey
from flawsmith.errors import DataError
from flawsmith.preflight.check import check
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run


def touch(root: Path, *names: str) -> Path:
    """Make empty files; a layout opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def mvtec(root: Path, product: str = "nut") -> Path:
    return touch(
        root,
        *(f"{product}/{split}/good/{index}.png" for split in ("train", "test") for index in range(2)),
        *(f"{product}/test/dent/{index}.png" for index in range(2)),
        *(f"{product}/ground_truth/dent/{index}_mask.png" for index in range(2)),
    )


def masks(data: DataConfig) -> dict[str, list[str]]:
    """Return each defect's masks, as paths below the root."""
    return {
        example.id: [path.relative_to(data.root).as_posix() for path in example.masks]
        for example in scan(data)
        if example.defect is not None
    }


def refusal(data: DataConfig) -> str:
    with pytest.raises(DataError) as caught:
        scan(data)
    return str(caught.value)


# --- patterns -----------------------------------------------------------------------------------------------------


def by_piece(root: Path, image: str, mask: str) -> DataConfig:
    sound = Pattern(image="ok/**/{stem}.jpg", normal=True)
    return DataConfig(root=root, layout="pattern", patterns=[sound, Pattern(image=image, mask=mask, defect="crack")])


def test_the_same_names_in_several_folders_have_their_own_masks(tmp_path: Path):
    """KolektorSDD: kos01/Part0.jpg, kos01/Part0_label.bmp, kos02/Part0.jpg, ..."""
    pieces = ("kos1", "kos2", "deep/kos2")
    touch(
        tmp_path,
        "ok/a.jpg",
        *(f"ng/{piece}/Part{i}{end}" for piece in pieces for i in (0, 1) for end in (".jpg", "_label.bmp")),
    )
    read = masks(by_piece(tmp_path, "ng/**/{stem}.jpg", "ng/**/{stem}_label.bmp"))
    assert read == {f"ng/{piece}/Part{i}.jpg": [f"ng/{piece}/Part{i}_label.bmp"] for piece in pieces for i in (0, 1)}


def test_several_masks_of_each_folder_are_united_within_it(tmp_path: Path):
    touch(
        tmp_path,
        "ok/a.jpg",
        *(f"ng/{lot}/1.jpg" for lot in "ab"),
        *(f"m/{lot}/1_{n}.png" for lot in "ab" for n in "12"),
    )
    read = masks(by_piece(tmp_path, "ng/*/{stem}.jpg", "m/*/{stem}_*.png"))
    assert read == {f"ng/{lot}/1.jpg": [f"m/{lot}/1_1.png", f"m/{lot}/1_2.png"] for lot in "ab"}


def test_a_mask_of_another_lot_is_not_taken(tmp_path: Path):
    touch(tmp_path, "ok/a.jpg", "ng/a/1.jpg", "ng/b/2.jpg", "m/a/1.png", "m/c/2.png")
    said = refusal(by_piece(tmp_path, "ng/*/{stem}.jpg", "m/*/{stem}.png"))
    assert "1 defect has no mask: ng/b/2.jpg" in said and "m/c/2.png: 1 mask is left out" in said


def test_masks_in_fewer_folders_are_taken_where_nothing_contradicts(tmp_path: Path):
    touch(tmp_path, "ok/a.jpg", "ng/a/1.jpg", "ng/b/2.jpg", "m/a/1.png", "m/2.png")
    read = masks(by_piece(tmp_path, "ng/**/{stem}.jpg", "m/**/{stem}.png"))
    assert read == {"ng/a/1.jpg": ["m/a/1.png"], "ng/b/2.jpg": ["m/2.png"]}


def test_masks_that_fit_several_photographs_alike_ask(tmp_path: Path):
    touch(tmp_path, "ok/a.jpg", "ng/a/1.jpg", "ng/b/1.jpg", "m/x/1.png", "m/y/1.png")
    said = refusal(by_piece(tmp_path, "ng/*/{stem}.jpg", "m/*/{stem}.png"))
    assert "ng/a/1.jpg and ng/b/1.jpg: each of m/x/1.png, m/y/1.png fits both by data.patterns[1].mask" in said


def test_one_mask_of_one_part_under_several_lights_is_a_warning(tmp_path: Path):
    touch(tmp_path, "ok/a.jpg", "light1/1.jpg", "light2/1.jpg", "m/1.png")
    data = by_piece(tmp_path, "light*/{stem}.jpg", "m/{stem}.png")
    assert masks(data) == {"light1/1.jpg": ["m/1.png"], "light2/1.jpg": ["m/1.png"]}
    (warning,) = survey(data).warnings
    assert "m/1.png: 1 mask serves several photographs each (light1/1.jpg, light2/1.jpg)" in warning


def test_splits_in_any_case_and_words_that_are_none(tmp_path: Path):
    for split in ("Train", "TESTING", "validation"):
        touch(tmp_path, f"{split}/ok/1.jpg", f"{split}/dent/2.jpg", f"{split}/dent/2_m.png")
    data = DataConfig(
        root=tmp_path,
        layout="pattern",
        patterns=[
            Pattern(image="{split}/ok/{stem}.jpg", normal=True),
            Pattern(image="{split}/dent/{stem}.jpg", mask="{split}/dent/{stem}_m.png", defect="dent"),
        ],
    )
    splits = {example.id.partition("/")[0]: example.split for example in scan(data)}
    assert splits == {"Train": "train", "TESTING": "test", "validation": ""}
    (warning,) = survey(data).warnings
    assert "{split} stands for 'validation', which is neither train nor test" in warning


# --- mvtec and its relatives --------------------------------------------------------------------------------------


def test_normal_parts_that_lie_in_train_itself(tmp_path: Path):
    """Else the run would learn from a part of the test's normal pictures alone."""
    touch(tmp_path, "nut/train/0.png", "nut/test/good/1.png", "nut/test/dent/2.png", "nut/ground_truth/dent/2.png")
    assert "nut/train/0.png: 1 picture is left out: they lie in train/ itself; move normal" in refusal(
        DataConfig(root=tmp_path)
    )


def test_mvtec_3d(tmp_path: Path):
    """Heights and masks lie beside the photographs: gt is no photograph, and whose mask it is must be said."""
    for split, defect in (("train", "good"), ("test", "good"), ("test", "crack"), ("validation", "good")):
        ends = ["rgb/0.png", "xyz/0.tiff", *(["gt/0.png"] if split == "test" else [])]
        touch(tmp_path, *(f"bagel/{split}/{defect}/{end}" for end in ends))
    assert "bagel/test/crack/gt/0.png, bagel/test/good/gt/0.png: 2 masks are left out: more than one" in refusal(
        DataConfig(root=tmp_path)
    )
    data = DataConfig(root=tmp_path, exclude=["**/xyz/*"])
    assert masks(data) == {"bagel/test/crack/rgb/0.png": ["bagel/test/crack/gt/0.png"]}
    seen = survey(data)
    assert seen.normal_masks == {"bagel/test/good/rgb/0.png": ("bagel/test/good/gt/0.png",)}
    assert "bagel/validation/good/rgb/0.png: 1 picture is left out: validation/ is not used" in seen.warnings[0]


def test_defects_in_validation_stay_an_error(tmp_path: Path):
    assert "does not look there" in refusal(DataConfig(root=touch(mvtec(tmp_path), "nut/validation/dent/0.png")))


def test_a_lot_that_is_called_label_holds_photographs(tmp_path: Path):
    touch(
        mvtec(tmp_path), *(f"nut/train/good/{lot}/{lot}{index}.png" for lot in ("label", "cap") for index in range(2))
    )
    assert len(scan(DataConfig(root=tmp_path))) == 10


def test_masks_in_both_places_ask(tmp_path: Path):
    touch(mvtec(tmp_path), "nut/test/dent/masks/0.png")
    assert (
        "nut/test/dent/masks/0.png, nut/ground_truth/dent/0_mask.png: 2 pictures are left out: each could"
        in refusal(DataConfig(root=tmp_path))
    )


def test_two_versions_of_a_mask_are_not_united(tmp_path: Path):
    touch(mvtec(tmp_path), "nut/ground_truth/dent/0_mask.bmp")
    assert "2 pictures are left out: each could be the mask of nut/test/dent/0.png; keep one" in refusal(
        DataConfig(root=tmp_path)
    )
    assert masks(DataConfig(root=tmp_path, exclude=["**/*.bmp"]))["nut/test/dent/0.png"] == [
        "nut/ground_truth/dent/0_mask.png"
    ]


def test_empty_masks_of_normal_parts_in_train(tmp_path: Path):
    touch(mvtec(tmp_path), "nut/train/good/7.png", *(f"nut/ground_truth/good/{index}_mask.png" for index in (0, 7)))
    marked = survey(DataConfig(root=tmp_path)).normal_masks
    assert marked == {
        "nut/test/good/0.png": ("nut/ground_truth/good/0_mask.png",),
        "nut/train/good/7.png": ("nut/ground_truth/good/7_mask.png",),
    }


@pytest.mark.parametrize(("top", "warns"), [("NG", True), ("crack", False)])
def test_types_below_a_folder_of_all_defects_are_a_warning(tmp_path: Path, top: str, warns: bool):
    touch(tmp_path, "OK/1.jpg", *(f"{top}/{inner}/1{end}" for inner in ("a", "b") for end in (".jpg", ".png")))
    data = DataConfig(root=tmp_path, layout="pairs", normal=["OK"])
    assert len(masks(data)) == 2
    assert [warning.partition(";")[0] for warning in survey(data).warnings] == (
        ["NG: its folders (a, b) are read as one defect type"] if warns else []
    )


def test_supervisely(tmp_path: Path):
    """masks_machine holds numbers, masks_human the same as colours over the photograph."""
    touch(tmp_path, "ok/1.jpg", "dent/img/1.jpg", "dent/masks_machine/1.jpg.png", "dent/masks_human/1.jpg.png")
    data = DataConfig(root=tmp_path, layout="pairs", normal=["ok"])
    assert "no mask: dent/img/1.jpg" in refusal(data)
    data = data.model_copy(update={"exclude": ["**/masks_human/**"]})
    assert masks(data) == {"dent/img/1.jpg": ["dent/masks_machine/1.jpg.png"]}


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (("Nut/Train/good/0.png", "Nut/Test/dent/0.png"), "(there is Nut/Test: write the names in lower case"),
        (("lot1/nut/train/good/0.png",), "(there is lot1/nut/train: set data.root to"),
    ],
)
def test_folders_that_are_nearly_a_product_are_named(tmp_path: Path, names: tuple[str, ...], hint: str):
    assert hint in refusal(DataConfig(root=touch(tmp_path, *names)))


def test_korean_folders_of_masks_are_no_photographs(tmp_path: Path):
    touch(tmp_path, *(f"{name}/{inner}/1.png" for name in ("정상", "찍힘") for inner in ("원본", "마스크")))
    data = DataConfig(root=tmp_path, layout="pairs", normal=["정상"])
    assert masks(data) == {"찍힘/원본/1.png": ["찍힘/마스크/1.png"]}
    assert survey(data).normal_masks == {"정상/원본/1.png": ("정상/마스크/1.png",)}


# --- what is no photograph ----------------------------------------------------------------------------------------

PREVIEWS = [
    "nut/train/good/0_thumb.jpg",
    "nut/train/good/thumbnails/1.jpg",
    "nut/test/good/preview_0.png",
    "nut/test/dent/1_heatmap.png",
]


@pytest.mark.parametrize("name", PREVIEWS)
def test_previews_are_no_photographs(tmp_path: Path, name: str):
    data = DataConfig(root=touch(mvtec(tmp_path), name))
    assert f"{name}: 1 picture is left out: they are called as previews of other photographs" in refusal(data)
    assert len(scan(data.model_copy(update={"exclude": [name]}))) == 6


@pytest.mark.parametrize("folder", ["@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX"])
def test_folders_of_network_drives_and_systems_are_hidden(tmp_path: Path, folder: str):
    """A Synology keeps @eaDir/0.png/SYNOPHOTO_THUMB_M.jpg beside 0.png."""
    data = DataConfig(root=touch(mvtec(tmp_path), f"nut/train/good/{folder}/0.png/SYNOPHOTO_THUMB_M.jpg"))
    assert len(scan(data)) == 6
    assert survey(data).ledger.uses["hidden files"] == 1


def test_words_of_previews_that_name_something_else(tmp_path: Path):
    """A product, a defect type, and a picture that shows no other."""
    mvtec(mvtec(tmp_path, "overlay"), "thumb")
    touch(tmp_path, "nut/train/good/7_thumb.png", "nut/test/good/1.png", "nut/test/preview/0.png")
    touch(tmp_path, "nut/ground_truth/preview/0.png")
    assert len(scan(DataConfig(root=tmp_path))) == 15


def flat_normals(root: Path, *, scans: bool) -> Config:
    """A set with a mask among the normal parts; its defects are photographs, or scans in black and white."""
    for index in range(6):
        noise = np.random.default_rng(index).integers(0, 256, (32, 40), dtype=np.uint8)
        mask = np.zeros((32, 40), bool)
        mask[8 : 14 + index, 10:20] = True
        if scans:
            noise = np.where(noise > 100, 255, 0).astype(np.uint8)
        images.write(root / f"ok/{index}.png", noise[::-1])
        images.write(root / f"dent/{index}.png", noise)
        images.write_mask(root / f"dent/{index}_mask.png", mask)
    images.write_mask(root / "ok/3_bw.png", mask)
    return Config(data=DataConfig(root=root, layout="pairs", normal=["ok"], shots=2))


def test_a_mask_among_the_normal_parts_whose_name_says_nothing(tmp_path: Path):
    config = flat_normals(tmp_path / "data", scans=False)
    (error,) = [one for one in check(config).errors if "one or two values" in one]
    assert error.startswith("ok/3_bw.png: 1 normal part holds only one or two values, as a mask does")
    with pytest.raises(DataError, match="1 normal part holds only one or two values"):
        open_dataset(Run.create(tmp_path / "run", config))


def test_scans_in_black_and_white_are_photographs(tmp_path: Path):
    config = flat_normals(tmp_path / "data", scans=True)
    assert not any("one or two values" in one for one in check(config).errors)
