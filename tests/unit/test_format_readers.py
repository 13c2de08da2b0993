"""Exports opened by the libraries that people use; needs the extra `formats`, in an environment of its own."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from test_export_formats import HEIGHT, WIDTH, examples_of, export, odd_masks

pytestmark = pytest.mark.filterwarnings("default")  # they have warnings of their own
_WHY = "needs the extra formats: pip install 'flawsmith[formats]'"


def test_datasets_loads_the_image_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason=_WHY)
    wanted = odd_masks()
    folder = export("huggingface", examples_of(tmp_path, wanted), tmp_path / "out")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    rows = list(loaded["train"])
    assert len(rows) == len(wanted) + 1
    for row in rows:
        mask = np.asarray(row["mask"]) == 255
        assert (mask == wanted.get(row["defect"], np.zeros_like(mask))).all()
        assert row["image"].size == (WIDTH, HEIGHT) and row["product"] == "screw"


@pytest.mark.parametrize("form", ["coco", "coco polygons", "yolo"])
def test_supervision_reads_the_masks(tmp_path: Path, form: str) -> None:
    supervision = pytest.importorskip("supervision", reason=_WHY)
    wanted = odd_masks()
    name, _, masks = form.partition(" ")
    settings = {"masks": masks} if masks else {}
    folder = export(name, examples_of(tmp_path, wanted), tmp_path / "out", **settings)
    if name == "coco":
        annotations = folder / "annotations" / "instances_train.json"
        loaded = supervision.DetectionDataset.from_coco(str(folder), str(annotations), force_masks=True)
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


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason=_WHY)
    wanted = odd_masks()
    folder = export("webdataset", examples_of(tmp_path, wanted), tmp_path / "out", per_shard=4)
    shards = webdataset.WebDataset(sorted(map(str, folder.glob("train-*.tar"))), shardshuffle=False).decode("l8")
    seen = 0
    for row in shards:
        assert row["png"].shape == (HEIGHT, WIDTH)
        for defect in row["json"]["defects"]:
            assert ((row["mask.png"] == 255) == wanted[defect]).all()
            seen += 1
    assert seen == len(wanted)
