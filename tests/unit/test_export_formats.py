"""Exports read back by independent readers: pycocotools, OpenCV, labelme's rule by Pillow, tarfile."""

from __future__ import annotations

import csv
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from flawsmith import registry
from flawsmith.data import images
from flawsmith.data.annotations.run_lengths import unpacked
from flawsmith.data.exported.arrangement import arranged, write_pictures
from flawsmith.errors import DataError
from flawsmith.exports.export import write
from flawsmith.types import Example

# pycocotools 2.0.11 hands arrays to numpy 2 in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
HEIGHT, WIDTH = 40, 300


def odd_masks() -> dict[str, np.ndarray]:
    """Masks on which conversions fail: a hairline of 281 px, holes, several parts, the border, one pixel, noise."""
    masks = {
        name: np.zeros((HEIGHT, WIDTH), bool)
        for name in ("hairline", "diagonal", "hole", "holes", "parts", "border", "pixel", "corner", "noise", "frame")
    }
    masks["hairline"][20, 9:290] = True
    masks["diagonal"][np.arange(30) + 5, np.arange(30) + 40] = True
    masks["hole"][5:30, 20:80] = True
    masks["hole"][12:20, 30:60] = False
    masks["holes"][2:38, 10:120] = True
    masks["holes"][5:9, 20:30] = masks["holes"][10:30, 25:28] = masks["holes"][5:30, 40:90] = False
    masks["holes"][10:20, 50:70] = True
    masks["holes"][12:14, 55:60] = False
    masks["parts"][3:6, 4:9] = masks["parts"][6:9, 9:14] = masks["parts"][30, 200] = masks["parts"][33:35, 250] = True
    masks["border"][:4, 290:] = masks["border"][36:, :30] = masks["border"][10:20, 0] = True
    masks["pixel"][17, 133] = True
    masks["corner"][HEIGHT - 1, WIDTH - 1] = True
    masks["noise"] = np.random.default_rng(5).random((HEIGHT, WIDTH)) < 0.4
    masks["frame"][[0, -1]] = masks["frame"][:, [0, -1]] = True
    return masks


def examples_of(folder: Path, masks: Mapping[str, np.ndarray]) -> list[Example]:
    """Write a normal part and a made picture for each mask; the defect type is the mask's name."""
    normal = folder / "normal.png"
    images.write(normal, np.full((HEIGHT, WIDTH), 90, np.uint8))
    examples = [Example("normal.png", normal, "screw", None, (), "train")]
    for name, mask in masks.items():
        path = folder / f"{name}.png"
        images.write(path, np.full((HEIGHT, WIDTH), 91, np.uint8))
        images.write_mask(folder / f"{name}.mask.png", mask)
        label = (folder / f"{name}.mask.png",)
        examples.append(Example(path.name, path, "screw", name, label, "test", painted_on="normal.png"))
    return examples


def export(name: str, examples: list[Example], folder: Path, **settings: object) -> Path:
    plugin = registry.get("exports", name)
    write(plugin(plugin.Settings(**settings)), examples, folder / name)
    return folder / name


def coco_masks(folder: Path) -> dict[str, np.ndarray]:
    """Read a COCO export as pycocotools does."""
    read: dict[str, np.ndarray] = {}
    for side in ("train", "val"):
        coco = COCO.__new__(COCO)
        coco.__init__()
        coco.dataset = json.loads((folder / "annotations" / f"instances_{side}.json").read_text())
        coco.createIndex()
        for one in coco.anns.values():
            (category,) = coco.loadCats([one["category_id"]])
            mask = coco.annToMask(one).astype(bool)
            assert one["iscrowd"] == 0 and one["area"] == mask.sum()
            assert one["bbox"] == coco_mask.toBbox(coco.annToRLE(one)).astype(int).tolist()
            read[category["name"]] = mask
    return read


def test_few_pictures_are_held_at_once(tmp_path: Path) -> None:
    """Whoever takes them slowly, as one tar file does, is not overtaken by all of a large set."""
    images.write(tmp_path / "part.png", np.zeros((16, 16), np.uint8))
    parts = [Example(f"{number}.png", tmp_path / f"{number}.png", "screw") for number in range(40)]
    for part in parts:
        part.image.hardlink_to(tmp_path / "part.png")
    done: list[str] = []
    pictures = arranged(parts, 0.2)
    rows = write_pictures(
        pictures,
        parts,
        "8",
        lambda one: tmp_path / "out" / one.name,
        lambda written: done.append(written.of.name) or written.of.name,
        lambda count=1, note="": None,
    )
    assert next(rows) == pictures[0].name
    assert len(done) <= 9
    assert [pictures[0].name, *rows] == [picture.name for picture in pictures]
    assert sorted(done) == sorted(picture.name for picture in pictures)


@pytest.mark.parametrize("masks", ["rle", "polygons"])
def test_pycocotools_reads_every_mask_back(tmp_path: Path, masks: str) -> None:
    wanted = odd_masks()
    folder = export("coco", examples_of(tmp_path, wanted), tmp_path / "out", masks=masks)
    read = coco_masks(folder)
    assert {name: mask.tolist() for name, mask in read.items()} == {n: m.tolist() for n, m in wanted.items()}


def test_yolo_polygons_rasterised_as_ultralytics_does_lose_nothing(tmp_path: Path) -> None:
    wanted = odd_masks()
    folder = export("yolo", examples_of(tmp_path, wanted), tmp_path / "out")
    yaml = (folder / "data.yaml").read_text()
    names = [line.split('"')[1] for line in yaml.splitlines() if '"' in line]
    assert names == sorted(wanted)
    for file in folder.glob("labels/*/screw-*.txt"):
        canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
        for line in file.read_text().splitlines():
            number, *values = line.split()
            assert names[int(number)] in file.name and len(values) >= 6 and all(0 < float(v) < 1 for v in values)
            shares = np.array(values, float).reshape(-1, 2)
            assert (np.ptp(shares, axis=0) > 0).all()  # Ultralytics leaves out what has a box without an area
            corners = (shares * [WIDTH, HEIGHT]).astype(np.int32)
            cv2.fillPoly(canvas, [corners], 1)
        defect = file.stem.split("-")[1]
        assert (canvas == (wanted[defect] if defect != "normal" else 0)).all(), defect
    assert (folder / "labels/train/screw-normal-0000.txt").read_text() == ""
    assert (
        "val: images/train\n" in yaml and not (folder / "images/val").exists()
    )  # all on one photograph: no validation


def test_yolo_boxes_are_those_of_the_pieces(tmp_path: Path) -> None:
    wanted = {name: mask for name, mask in odd_masks().items() if name in ("hairline", "parts")}
    folder = export("yolo", examples_of(tmp_path, wanted), tmp_path / "out", task="detect")
    lines = (folder / "labels/train/screw-hairline-0000.txt").read_text().split()
    x, y, wide, high = (float(value) for value in lines[1:])
    assert (x * WIDTH, y * HEIGHT, wide * WIDTH, high * HEIGHT) == pytest.approx((149.5, 20.5, 281, 1), abs=1e-3)
    assert len((folder / "labels/train/screw-parts-0000.txt").read_text().splitlines()) == 3


def test_label_studio_and_labelme_hold_every_mask(tmp_path: Path) -> None:
    wanted = odd_masks()
    examples = examples_of(tmp_path, wanted)
    tasks = json.loads((export("label_studio", examples, tmp_path / "out") / "tasks.json").read_text())
    strokes = [one for task in tasks for made in task["predictions"] for one in made["result"]]
    assert len(tasks) == len(examples) and len(strokes) == len(wanted)
    for one in strokes:
        (defect,) = one["value"]["brushlabels"]
        assert (unpacked(one["value"]["rle"], (one["original_height"], one["original_width"])) == wanted[defect]).all()
    folder = export("labelme", examples, tmp_path / "out")
    assert json.loads((folder / "screw/screw-normal-0000.json").read_text())["shapes"] == []
    for defect, mask in wanted.items():
        tree = json.loads((folder / f"screw/screw-{defect}-0000.json").read_text())
        parts = [[value for point in shape["points"] for value in point] for shape in tree["shapes"]]
        drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, HEIGHT, WIDTH))).astype(bool)
        assert (drawn == mask).all() and (folder / "screw" / tree["imagePath"]).is_file()


def test_huggingface_visa_and_webdataset_hold_every_mask(tmp_path: Path) -> None:
    wanted = odd_masks()
    examples = examples_of(tmp_path, wanted)
    folder = export("huggingface", examples, tmp_path / "out")
    rows = [json.loads(line) for line in (folder / "train/metadata.jsonl").read_text().splitlines()]
    assert len(rows) == len(examples)
    for row in rows:
        mask = images.read_mask(folder / "train" / row["mask_file_name"], (HEIGHT, WIDTH))
        assert (mask == wanted.get(row["defect"], np.zeros_like(mask))).all()
        assert (folder / "train" / row["file_name"]).is_file()
        assert row["photograph"] == "normal.png" and row["origin"] == ("made" if row["defect"] else "real")
    folder = export("visa", examples, tmp_path / "out")
    with open(folder / "screw/image_anno.csv", newline="") as stream:
        table = {row["label"]: row["mask"] for row in csv.DictReader(stream)}
    assert table.pop("normal") == ""
    assert all((images.read_mask(folder / table[name], mask.shape) == mask).all() for name, mask in wanted.items())
    folder = export("webdataset", examples, tmp_path / "out", per_shard=4)
    assert sorted(path.name for path in folder.iterdir()) == [f"train-{n:06d}.tar" for n in range(3)]
    found = 0
    for shard in folder.iterdir():
        with tarfile.open(shard) as tar:
            members = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
        for name, content in members.items():
            if name.endswith(".mask.png"):
                (defect,) = json.loads(members[name.replace(".mask.png", ".json")])["defects"]
                mask = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
                assert ((mask == 255) == wanted[defect]).all() and set(np.unique(mask)) <= {0, 255}
                found += 1
    assert found == len(wanted)


def test_webdataset_takes_the_longest_names(tmp_path: Path) -> None:
    long = "x" * 60
    normal, damaged = examples_of(tmp_path, {long: np.ones((HEIGHT, WIDTH), bool)})
    folder = export("webdataset", [normal, replace(damaged, product=long)], tmp_path / "out")
    with tarfile.open(folder / "train-000000.tar") as tar:
        assert f"{long}-{long}-0000.mask.png" in tar.getnames()


def many(samples: int, normals: int) -> list[Example]:
    """Records alone: the division reads no file."""
    made = [
        Example(f"samples/{n}.png", Path(f"samples/{n}.png"), "screw", f"type{n % 3}", (Path("m.png"),), "test",
                painted_on=f"n{n * 7 % normals}.png")
        for n in range(samples)
    ]  # fmt: skip
    good = [Example(f"n{n}.png", Path(f"n{n}.png"), "screw", None, (), "train") for n in range(normals)]
    held = [Example(f"h{n}.png", Path(f"h{n}.png"), "screw", None, (), "test") for n in range(5)]
    shots = [Example(f"s{n}.png", Path(f"s{n}.png"), "screw", "type0", (Path("m.png"),), "train") for n in range(4)]
    return good + held + made + shots


@pytest.mark.parametrize(("samples", "normals", "share"), [(60, 25, 0.2), (6, 40, 0.2), (90, 8, 0.3)])
def test_no_photograph_is_on_both_sides(samples: int, normals: int, share: float) -> None:
    pictures = arranged(many(samples, normals), share)
    sides: dict[str, set[str]] = defaultdict(set)
    for one in pictures:
        sides[one.photograph].add(one.side)
    assert all(len(both) == 1 for both in sides.values())
    for defect in ("type0", "type1", "type2"):
        made = [one for one in pictures if one.made and one.damaged[0].defect == defect]
        held = sum(one.side == "val" for one in made)
        assert 0 < held < len(made) and held <= len(made) * share + normals
    assert all(one.side == "train" for one in pictures if one.damaged and not one.made)
    assert all(one.side == "val" for one in pictures if one.id.startswith("h"))
    assert len({one.name for one in pictures}) == len(pictures)
    assert pictures == arranged(many(samples, normals), share)
    without = arranged(many(samples, normals), 0)
    assert {one.id for one in without if one.side == "val"} == {f"h{n}.png" for n in range(5)}


def test_a_photograph_with_two_types_goes_out_once(tmp_path: Path) -> None:
    masks = {name: odd_masks()[name] for name in ("hole", "pixel")}
    examples = examples_of(tmp_path, masks)
    image = examples[1].image
    both = [examples[0], *(replace(one, image=image, painted_on="", split="train") for one in examples[1:])]
    folder = export("coco", both, tmp_path / "out")
    tree = json.loads((folder / "annotations/instances_train.json").read_text())
    assert len(tree["images"]) == 2 and len(tree["annotations"]) == 2
    assert {one["image_id"] for one in tree["annotations"]} == {2} and tree["images"][1]["origin"] == "real"
    assert (coco_masks(folder)["hole"] == masks["hole"]).all() and (coco_masks(folder)["pixel"] == masks["pixel"]).all()


WITH_PICTURES = [
    name for name in registry.entries("exports") if "bits" in registry.get("exports", name).Settings.model_fields
]


@pytest.mark.parametrize("name", sorted(set(WITH_PICTURES) - {"mvtec"}))
def test_deep_pictures_keep_their_depth_or_become_eight_bits(tmp_path: Path, name: str) -> None:
    examples = examples_of(tmp_path, {"hole": odd_masks()["hole"]})
    for one in examples:
        images.write(one.image, np.linspace(0, 4095, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16))
    for bits, depth in (("8", 8), ("native", 16)):
        folder = export(name, examples, tmp_path / bits, bits=bits)
        for shard in folder.glob("*.tar"):
            with tarfile.open(shard) as tar:
                tar.extractall(folder)
        masks = re.compile("ask|ground_truth")  # mask, masks, Masks
        pictures = [path for path in folder.rglob("*.png") if not masks.search(path.relative_to(folder).as_posix())]
        assert len(pictures) == 2 and {images.describe(path).depth for path in pictures} == {depth}


@pytest.mark.parametrize("name", sorted(registry.entries("exports")))
def test_an_empty_mask_is_refused_by_name(tmp_path: Path, name: str) -> None:
    examples = examples_of(tmp_path, {"hole": np.zeros((HEIGHT, WIDTH), bool)})
    with pytest.raises(DataError, match=r"hole\.mask\.png: the mask is empty"):
        export(name, examples, tmp_path / "out")
    assert not (tmp_path / "out" / name).exists()
