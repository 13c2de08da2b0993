"""Exports opened by the libraries that people use, and every mask compared; `make test-readers` installs these.

Where a library is not installed, its tests are skipped, and the skip says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from test_export_formats import HEIGHT, WIDTH, examples_of, export, odd_masks

from flawsmith.data import images
from flawsmith.exports.features import LEVELS
from flawsmith.types import Example

pytestmark = [pytest.mark.readers, pytest.mark.filterwarnings("ignore")]  # they have warnings of their own
_WHY = "needs the extra readers, in an environment of its own: make test-readers"
EXAMPLE = Path(__file__).parents[2] / "examples" / "pyod_on_features.py"


@pytest.fixture
def wanted() -> dict[str, np.ndarray]:
    return odd_masks()


@pytest.fixture(params=["8 bits", "16 bits"])
def examples(request: pytest.FixtureRequest, tmp_path: Path, wanted: dict[str, np.ndarray]) -> list[Example]:
    """A normal part and a sample for each odd mask, of 8 or of 16 bits."""
    made = examples_of(tmp_path, wanted)
    if request.param == "16 bits":
        for number, one in enumerate(made):
            ramp = np.linspace(number, 4095, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
            images.write(one.image, ramp.astype(np.uint16))
    return made


def pictures_of(examples: list[Example]) -> Iterator[np.ndarray]:
    for one in examples:
        yield images.read(one.image)


def test_datasets_loads_the_image_folder(
    tmp_path: Path, examples: list[Example], wanted: dict[str, np.ndarray]
) -> None:
    datasets = pytest.importorskip("datasets", reason=_WHY)
    folder = export("huggingface", examples, tmp_path / "out", bits="native")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    rows = list(loaded["train"])
    assert len(rows) == len(wanted) + 1
    for row, picture in zip(rows, pictures_of(examples), strict=True):
        mask = np.asarray(row["mask"]) == 255
        assert (mask == wanted.get(row["defect"], np.zeros_like(mask))).all()
        assert (np.asarray(row["image"]) == picture).all() and row["product"] == "screw"


@pytest.mark.parametrize("form", ["coco", "coco polygons", "yolo"])
def test_supervision_reads_the_masks(tmp_path: Path, form: str, wanted: dict[str, np.ndarray]) -> None:
    supervision = pytest.importorskip("supervision", reason=_WHY)
    name, _, masks = form.partition(" ")
    settings = {"masks": masks} if masks else {}
    folder = export(name, examples_of(tmp_path, wanted), tmp_path / "out", **settings)
    if name == "coco":
        annotations = folder / "annotations" / "instances_train.json"
        loaded = supervision.DetectionDataset.from_coco(
            str(folder / "images/train"), str(annotations), force_masks=True
        )
    else:
        places = [str(folder / part) for part in ("images/train", "labels/train", "data.yaml")]
        loaded = supervision.DetectionDataset.from_yolo(*places, force_masks=True)
    assert sorted(loaded.classes) == sorted(wanted)
    read = {}
    for path, _, found in loaded:
        if len(found):
            read[loaded.classes[int(found.class_id[0])]] = np.asarray(found.mask).any(axis=0)
        else:
            assert "normal" in path
    assert read.keys() == wanted.keys()
    for defect, mask in wanted.items():
        if form == "coco":
            assert (read[defect] == mask).all()
        # It rounds a polygon's corners to whole pixels and draws the outline too, so it may be a pixel off; what lies
        # in the last row or column, half a pixel from the border, may be rounded out of the picture.
        lost, added = mask & ~_widened(read[defect]), read[defect] & ~_widened(mask)
        assert not added.any() and not lost[:-1, :-1].any(), defect


def _widened(mask: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)


@pytest.mark.parametrize("masks", ["rle", "polygons"])
def test_pycocotools_reads_the_files_and_finds_no_crowd(
    tmp_path: Path, masks: str, examples: list[Example], wanted: dict[str, np.ndarray]
) -> None:
    """The file itself, as a trainer opens it; its evaluation of the masks against themselves is perfect."""
    coco = pytest.importorskip("pycocotools.coco", reason=_WHY)
    evaluation = pytest.importorskip("pycocotools.cocoeval", reason=_WHY)
    folder = export("coco", examples, tmp_path / "out", masks=masks, bits="native")
    truth = coco.COCO(str(folder / "annotations" / "instances_train.json"))
    found = []
    for one in truth.anns.values():
        (category,) = truth.loadCats([one["category_id"]])
        assert (truth.annToMask(one).astype(bool) == wanted[category["name"]]).all() and one["iscrowd"] == 0
        run = truth.annToRLE(one)
        same = {name: one[name] for name in ("image_id", "category_id")}
        found.append({**same, "segmentation": {**run, "counts": _text(run["counts"])}, "score": 1.0})
    for (picture,), pixels in zip(map(truth.loadImgs, truth.getImgIds()), pictures_of(examples), strict=True):
        assert (images.read(folder / "images/train" / picture["file_name"]) == pixels).all()
    result = tmp_path / "found.json"
    result.write_text(json.dumps(found))
    judged = evaluation.COCOeval(truth, truth.loadRes(str(result)), "segm")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[0] == pytest.approx(1.0)


def _text(counts: Any) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts


def test_webdataset_reads_the_shards(tmp_path: Path, wanted: dict[str, np.ndarray]) -> None:
    webdataset = pytest.importorskip("webdataset", reason=_WHY)
    folder = export("webdataset", examples_of(tmp_path, wanted), tmp_path / "out", per_shard=4)
    shards = webdataset.WebDataset(sorted(map(str, folder.glob("train-*.tar"))), shardshuffle=False).decode("l8")
    seen = 0
    for row in shards:
        assert row["png"].shape == (HEIGHT, WIDTH)
        for defect in row["json"]["defects"]:
            assert ((row["mask.png"] == 255) == wanted[defect]).all()
            seen += 1
    assert seen == len(wanted)


def test_pandas_reads_the_table_of_features_as_numpy_does(tmp_path: Path, wanted: dict[str, np.ndarray]) -> None:
    pandas = pytest.importorskip("pandas", reason=_WHY)
    pytest.importorskip("pyarrow", reason=_WHY)
    examples = examples_of(tmp_path, wanted)
    frame = pandas.read_parquet(export("features", examples, tmp_path / "one", table="parquet") / "features.parquet")
    with np.load(export("features", examples, tmp_path / "other") / "features.npz") as table:
        for level in LEVELS:
            there = np.isfinite(table[level]).all(axis=1)
            assert frame[level].notna().tolist() == there.tolist() and there.any()
            assert (np.stack(frame[level][there].tolist()) == table[level][there]).all()
        for column in set(frame.columns) - set(LEVELS):
            assert frame[column].tolist() == table[column].tolist()
        assert set(frame.columns) == set(table.files) - {"extractor", "weights"}


def test_pyod_learns_normal_parts_from_the_features(tmp_path: Path) -> None:
    """The example of docs/pyod.md, on pictures whose damage every detector sees."""
    pytest.importorskip("pyod", reason=_WHY)
    rng = np.random.default_rng(0)
    examples = []
    for number in range(60):
        pixels = rng.normal(120, 6, (64, 64)).astype(np.uint8)
        kind = ["", "", "", "dent"][number % 4]
        path, masks = tmp_path / f"{number}.png", ()
        if kind:
            pixels[16:48, 16:48] = rng.integers(0, 256, (32, 32))
            mask = np.zeros((64, 64), bool)
            mask[16:48, 16:48] = True
            images.write_mask(tmp_path / f"{number}.mask.png", mask)
            masks = (tmp_path / f"{number}.mask.png",)
        images.write(path, pixels)
        split = "train" if number < 40 else "test"
        below = f"{number - 1}.png" if kind else ""
        examples.append(Example(path.name, path, "plate", kind or None, masks, split, painted_on=below))
    table = export("features", examples, tmp_path / "out") / "features.npz"
    command = [sys.executable, str(EXAMPLE), str(table)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    areas = [float(line.split()[-1]) for line in told.splitlines() if "AUROC" in line]
    assert len(areas) == 4 and min(areas) > 0.9, told
