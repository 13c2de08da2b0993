"""Annotation files in and out: against pycocotools, and out and in again bit for bit."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from test_export_formats import HEIGHT, WIDTH, examples_of, export, odd_masks

from flawsmith.config import Config, DataConfig
from flawsmith.data import images
from flawsmith.data.annotations.parts import Part, part_of
from flawsmith.data.annotations.polygons import centre_polygons, edge_polygons, filled, filled_with_outline
from flawsmith.data.annotations.run_lengths import (
    compressed,
    counts_of,
    decompressed,
    mask_of,
    packed,
    unpacked,
)
from flawsmith.data.layouts import scan, survey
from flawsmith.data.masks.reading import read_ignored, read_label
from flawsmith.data.split import split
from flawsmith.errors import DataError
from flawsmith.files import file_digest, file_state
from flawsmith.run.dataset import load_split, open_dataset
from flawsmith.run.folder import Run
from flawsmith.types import Example

# pycocotools 2.0.11 hands arrays to numpy 2 in the old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def random_masks(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    masks = []
    for number in range(count):
        mask = rng.random(rng.integers(1, 20, 2)) < rng.choice([0.2, 0.5, 0.8, 0.95])
        masks.append(np.kron(mask, np.ones((3, 3), bool)) if number % 3 == 0 else mask)
    return [*masks, *odd_masks().values(), np.zeros((3, 4), bool), np.ones((3, 4), bool)]


def test_run_lengths_are_those_of_pycocotools_and_come_back() -> None:
    for mask in random_masks(120):
        counts = counts_of(mask)
        wanted = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert compressed(counts) == wanted and decompressed(wanted) == counts
        assert (mask_of(counts, mask.shape) == mask).all()
        assert (unpacked(packed(mask), mask.shape) == mask).all()


def test_label_studio_bytes_with_literal_blocks_are_read() -> None:
    """Written bit by bit as the format says: 4 pixels, words of 8, a literal block of 8 words and a run of 8."""
    head = f"{16:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    literal = "0" + "00" + f"{7:03b}" + "".join(f"{value:08b}" for value in (1, 2, 3, 255, 9, 9, 9, 0))
    run = "1" + "01" + f"{7:04b}" + f"{255:08b}"
    bits = head + literal + run
    stream = [int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8)]
    assert unpacked(stream, (2, 2)).tolist() == [[True, False], [True, True]]
    with pytest.raises(ValueError, match="cut short"):
        unpacked(stream[:-3], (2, 2))
    with pytest.raises(ValueError, match="of 4 pixels, not of 3 x 2"):
        unpacked(stream, (2, 3))


def test_polygons_give_every_mask_back() -> None:
    for mask in random_masks(120):
        edges, centres = np.zeros_like(mask), np.zeros_like(mask)
        polygons = edge_polygons(mask)
        for polygon in polygons:
            edges |= filled(polygon, mask.shape)
        for polygon in centre_polygons(mask):
            centres |= filled_with_outline(polygon, mask.shape)
        assert (edges == mask).all() and (centres == mask).all()
        assert len(polygons) == cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1
        if polygons:
            flat = [polygon.astype(float).ravel().tolist() for polygon in polygons]
            read = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *mask.shape)))
            assert (read == mask).all()


def test_a_drawn_polygon_takes_the_pixels_whose_centres_it_holds() -> None:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:20, :30] + 0.5
    for _ in range(40):
        corners = rng.uniform(-4, 34, (rng.integers(3, 9), 2))
        inside = np.zeros((20, 30), bool)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            crosses = (y0 > y) != (y1 > y)
            inside ^= crosses & (x > x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        drawn = filled(corners, (20, 30))
        assert (drawn == inside).all() or not inside.any()
    thin = filled(np.array([[2.0, 3.1], [20.0, 3.1], [20.0, 3.2]]), (20, 30))
    assert thin.sum() == 19 and thin[3, 2:21].all()


ROUND_TRIPS: dict[str, tuple[str, dict[str, Any], str]] = {
    "coco": ("coco", {}, ""),
    "coco polygons": ("coco", {"masks": "polygons"}, ""),
    "yolo": ("yolo", {}, ""),
    "label_studio": ("label_studio", {}, ""),
    "labelme": ("labelme", {}, "screw"),
    "visa": ("visa", {}, ""),
    "mvtec": ("mvtec", {}, ""),
}


@pytest.mark.parametrize("trip", ROUND_TRIPS)
def test_out_and_in_again_gives_the_same_masks(tmp_path: Path, trip: str) -> None:
    name, settings, below = ROUND_TRIPS[trip]
    wanted = {f"{defect} 흠": mask for defect, mask in odd_masks().items()}
    folder = export(name, examples_of(tmp_path, wanted), tmp_path / "out", **settings) / below
    examples = scan(DataConfig(root=folder, layout=name))
    assert sum(one.defect is None for one in examples) == 1
    read = {one.defect: read_label(one, (HEIGHT, WIDTH)) for one in examples if one.defect is not None}
    if name == "mvtec":  # its folders have plain names; names.csv keeps the others
        read = {f"{str(defect).split('_')[0]} 흠": mask for defect, mask in read.items()}
    assert read.keys() == wanted.keys()
    assert all((read[defect] == mask).all() for defect, mask in wanted.items())


def write_coco(root: Path, **changes: object) -> Path:
    """Two pictures of 30 x 20: a normal one, and one with a scratch of two annotations and a dent."""
    for name in ("a.png", "b.png"):
        images.write(root / "images" / name, np.full((20, 30), 70, np.uint8))
    box = [[2, 2, 8, 2, 8, 6, 2, 6]]
    tree = {
        "images": [{"id": n, "file_name": f, "width": 30, "height": 20} for n, f in ((1, "a.png"), (2, "b.png"))],
        "categories": [{"id": 1, "name": "scratch"}, {"id": 5, "name": "dent/deep"}],
        "annotations": [
            {"id": 1, "image_id": 2, "category_id": 1, "segmentation": box, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 1, "segmentation": {"size": [20, 30], "counts": [0, 3, 597]},
             "iscrowd": 1},
            {"id": 3, "image_id": 2, "category_id": 5, "segmentation": [[7, 2, 12, 2, 12, 6, 7, 6]], "iscrowd": 0},
        ],
    }  # fmt: skip
    path = root / "annotations.json"
    path.write_text(json.dumps(tree | changes))
    return path


def test_a_picture_with_two_types_is_an_example_of_each(tmp_path: Path) -> None:
    file = write_coco(tmp_path)
    normal, dent, scratch = scan(DataConfig(root=tmp_path, layout="coco"))
    assert (normal.defect, dent.defect, scratch.defect) == (None, "dent-deep", "scratch")
    assert (dent.id, scratch.id) == ("images/b.png#dent-deep", "images/b.png#scratch")
    wanted = np.zeros((20, 30), bool)
    wanted[2:6, 2:8] = wanted[:3, 0] = True
    assert (read_label(scratch, (20, 30)) == wanted).all()
    other = np.zeros((20, 30), bool)
    other[2:6, 8:12] = True  # where both are marked, it is the example's own
    ignored = read_ignored(scratch, (20, 30))
    assert ignored is not None and (ignored == other).all()
    (path,) = scratch.masks
    part = part_of(path)
    assert part == Part(file, "coco", "2", "scratch") and part.path == path
    assert part_of(dent.masks[0]) == Part(file, "coco", "2", "dent/deep")
    assert part_of(Path("masks/a#b#c#d.png")) is None
    assert file_state(path) == file_state(file) != [] and file_digest(path) == file_digest(file)
    ledger = survey(DataConfig(root=tmp_path, layout="coco")).ledger
    assert ledger.files == 3 and ledger.uses == {"photographs": 2, "annotation files": 1}


def test_pictures_that_no_file_lists_are_said(tmp_path: Path) -> None:
    write_coco(tmp_path)
    images.write(tmp_path / "images" / "c.png", np.full((20, 30), 70, np.uint8))
    found = survey(DataConfig(root=tmp_path, layout="coco"))
    assert not found.errors and len(found.examples) == 3
    assert any("images/c.png: 1 picture is left out: no annotation file lists them" in text for text in found.warnings)


def test_pictures_without_a_label_are_normal_where_that_is_said_and_nowhere_else(tmp_path: Path) -> None:
    write_coco(tmp_path)
    for name in ("images/c.png", "ok/d.png", "masks/e.png", "images/c_mask.png", "images/a.bmp"):
        images.write(tmp_path / name, np.full((20, 30), 70, np.uint8))

    def normals(*normal: str) -> tuple[list[str], list[str]]:
        found = survey(DataConfig(root=tmp_path, layout="coco", normal=list(normal)))
        return [one.id for one in found.examples if one.defect is None], found.errors

    assert normals() == (["images/a.png"], [])
    assert normals("ok") == (["images/a.png", "ok/d.png"], [])
    found, errors = normals(".")
    assert found == ["images/a.png", "images/c.png", "ok/d.png"]
    (said,) = errors
    assert said.startswith(
        "images/a.bmp, images/c_mask.png, masks/e.png: 3 pictures are left out: by their names they may"
    )
    with pytest.raises(DataError, match=r"annotations.json, images/b.png: marks dent-deep, scratch, but its folder is"):
        normals("images")


def test_a_folder_of_labelme_whose_normal_parts_have_no_file(tmp_path: Path) -> None:
    data = labelme_file(
        tmp_path, '{"shapes": [{"label": "rust", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}]}'
    )
    for name in ("y.png", "day2/z.png", "day2/z.bmp"):
        images.write(tmp_path / name, np.full((20, 30), 70, np.uint8))
    left_out = "y.png, day2/z.bmp, day2/z.png: 3 pictures are left out: no .json of labelme lies beside them; "
    assert any(said.startswith(left_out + "if they are normal parts, set data.normal") for said in survey(data).errors)
    found = survey(data.model_copy(update={"normal": ["."]}))
    assert [(one.id, one.defect) for one in found.examples] == [("x.png", "rust"), ("y.png", None)]
    assert found.errors[-1].startswith(
        "day2/z.bmp, day2/z.png: 2 pictures are left out: by their names they may be masks"
    )


def test_a_picture_with_two_types_is_on_one_side(tmp_path: Path) -> None:
    def of(name: str, *defects: str) -> list[Example]:
        return [Example(f"{name}#{defect}", tmp_path / name, "screw", defect, (tmp_path / "m",)) for defect in defects]

    normals = [Example(f"n{n}", tmp_path / f"n{n}", "screw") for n in range(6)]
    defects = of("1", "a", "b") + of("2", "a") + of("3", "a", "b") + of("4", "b") + of("5", "b") + of("6", "a")
    made = split([*normals, *defects], shots=1)
    assert {one.id for one in made.shots} == {"1#a", "1#b"}
    made = split([*normals, *of("0", "b"), *defects], shots=1)
    assert {one.id for one in made.shots} == {"0#b", "1#a", "1#b"}
    assert not {one.image for one in made.shots} & {one.image for one in made.test_defects}
    assert any(note.startswith("screw/b: 1 more of its pictures is") and "3 are left" in note for note in made.notes)


def test_a_run_keeps_and_reads_parts_of_annotation_files(tmp_path: Path) -> None:
    masks = {name: odd_masks()[name] for name in ("hole", "parts")}
    wide = {name: np.kron(mask, np.ones((2, 1), bool)) for name, mask in masks.items()}
    rng = np.random.default_rng(1)
    data = tmp_path / "data"
    rows = []
    for number in range(6):
        images.write(data / f"{number}.png", rng.integers(0, 255, (2 * HEIGHT, WIDTH)).astype(np.uint8))
        defect = ["", "hole", "parts"][number % 3]
        result = [{
            "type": "brushlabels", "original_width": WIDTH, "original_height": 2 * HEIGHT,
            "value": {"format": "rle", "rle": packed(wide[defect]), "brushlabels": [defect]},
        }] if defect else []  # fmt: skip
        address = f"/data/upload/1/{number}a2b3c4d-{number}.png"
        rows.append({"data": {"photo": address}, "annotations": [{"result": result}]})
    (data / "project.json").write_text(json.dumps(rows))
    config = Config.model_validate({"data": {"root": data, "layout": "label_studio", "shots": 1}})
    run = Run.create(tmp_path / "run", config)
    made = open_dataset(run).split
    assert load_split(run) == made and len(made.shots) == 2 and len(made.test_defects) == 2
    for shot in made.shots:
        assert (read_label(shot, (2 * HEIGHT, WIDTH)) == wide[shot.defect or ""]).all()
    before = run.path("data.json").read_text()
    open_dataset(Run.open(run.folder))
    assert run.path("data.json").read_text() == before


def test_annotations_of_a_turned_photograph_are_turned(tmp_path: Path) -> None:
    stored = np.zeros((20, 30), bool)
    stored[3:5, 10:25] = True
    exif = Image.Exif()
    exif[274] = 6
    write_coco(tmp_path, annotations=[
        {"id": 1, "image_id": 2, "category_id": 1, "segmentation": {"size": [20, 30], "counts": counts_of(stored)}}
    ])  # fmt: skip
    Image.fromarray(np.full((20, 30), 70, np.uint8)).save(tmp_path / "images" / "b.png", exif=exif)
    example = scan(DataConfig(root=tmp_path, layout="coco"))[1]
    assert (read_label(example, (30, 20)) == np.rot90(stored, -1)).all()
    with pytest.raises(DataError, match="the mask has 30 x 20 pixels, but its photograph 31 x 20"):
        read_label(example, (20, 31))


def test_every_shape_of_labelme_is_drawn(tmp_path: Path) -> None:
    patch = np.array([[255, 0], [0, 255], [255, 255]], np.uint8)
    text = base64.b64encode(cv2.imencode(".png", patch)[1].tobytes()).decode()
    shapes = [
        ("polygon", [[1, 1], [5, 1], [5, 4], [1, 4]], None),
        ("rectangle", [[20, 10], [18, 8]], None),
        ("circle", [[10.5, 14.5], [12.3, 14.5]], None),
        ("linestrip", [[22, 2], [26, 2], [26, 5]], None),
        ("point", [[0.5, 19.5]], None),
        ("mask", [[27, 15], [28, 17]], text),
    ]
    images.write(tmp_path / "ng" / "x.png", np.full((20, 30), 70, np.uint8))
    images.write(tmp_path / "ok" / "y.png", np.full((20, 30), 70, np.uint8))
    tree = {
        "shapes": [{"label": "흠", "shape_type": kind, "points": at, "mask": mask} for kind, at, mask in shapes],
        "imagePath": "x.png", "imageHeight": 20, "imageWidth": 30,
    }  # fmt: skip
    (tmp_path / "ng" / "x.json").write_text(json.dumps(tree), encoding="utf-8")
    settings = DataConfig(root=tmp_path, layout="labelme", normal=["ok"])
    damaged, normal = scan(settings)
    assert (damaged.defect, normal.defect) == ("흠", None)
    wanted = np.zeros((20, 30), bool)
    wanted[1:4, 1:5] = wanted[8:10, 18:20] = wanted[2, 22:27] = wanted[2:6, 26] = wanted[19, 0] = True
    wanted[15:18, 27:29] |= patch > 0
    y, x = np.mgrid[:20, :30]
    wanted |= np.hypot(x - 10, y - 14) < 1.8
    assert (read_label(damaged, (20, 30)) == wanted).all()


def yolo_set(root: Path, label: str, names: str = "names:\n  0: scratch\n  1: dent\n") -> DataConfig:
    for name in ("train/a", "train/b", "val/c"):
        images.write(root / "images" / f"{name}.png", np.full((20, 30), 70, np.uint8))
    path = root / "labels" / "train" / "a.txt"
    path.parent.mkdir(parents=True)
    path.write_text(label)
    (root / "data.yaml").write_text(names)
    return DataConfig(root=root, layout="yolo")


LINE = "0 0.05 0.05 0.2 0.05 0.2 0.3\n"


@pytest.mark.parametrize(
    ("picture", "label"),
    [
        ("Images/train/a.png", "Labels/train/a.txt"),
        ("IMAGES/train/A.PNG", "labels/Train/a.TXT"),
        ("images/a.png", "labels/A.txt"),
    ],
)
def test_yolo_finds_labels_in_whichever_case_they_are_written(tmp_path: Path, picture: str, label: str) -> None:
    data = yolo_set(tmp_path, LINE)
    for folder in ("images", "labels"):
        (tmp_path / folder).rename(tmp_path / f"more_{folder}")
    (tmp_path / "more_images").rename(tmp_path / "images")
    for name in (picture, "images/plain.png"):
        images.write(tmp_path / name, np.full((20, 30), 71, np.uint8))
    (tmp_path / label).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / label).write_text(LINE)
    damaged = [one.id for one in survey(data).examples if one.defect]
    assert damaged == [picture] and not [text for text in survey(data).errors if label in text]


def test_yolo_labels_beside_pictures_in_images_are_an_error(tmp_path: Path) -> None:
    data = yolo_set(tmp_path, LINE)
    (tmp_path / "images/train/b.txt").write_text(f"\n{LINE}")
    (tmp_path / "images/val/c.txt").write_text("seen on Monday")
    (said,) = survey(data).errors
    assert "images/train/b.txt" in said and "no picture reads" in said and "c.txt" not in said


def test_yolo_shares_that_rounding_carries_past_the_border_lie_on_it(tmp_path: Path) -> None:
    found = scan(yolo_set(tmp_path, "0 0.5 0.5 1.0000001 0.5 -0.0000001 0.9\n"))
    assert read_label(found[0], (20, 30)).any()


def test_yolo_pictures_without_lines_are_normal_and_said(tmp_path: Path) -> None:
    found = survey(yolo_set(tmp_path, "1 0.05 0.05 0.2 0.05 0.2 0.3\n0 0.5 0.5 0.7 0.5 0.7 0.9\n"))
    assert [(one.defect, one.split) for one in found.examples] == [
        ("dent", "train"), ("scratch", "train"), (None, "train"), (None, "test")
    ]  # fmt: skip
    assert "2 pictures have no text file, and count as normal parts" in "".join(found.warnings)
    said = survey(DataConfig(root=tmp_path, layout="yolo", normal=["."]))
    assert said.examples == found.examples and said.warnings == ()


def labelme_file(root: Path, text: str) -> DataConfig:
    images.write(root / "x.png", np.full((20, 30), 70, np.uint8))
    (root / "x.json").write_text(text)
    return DataConfig(root=root, layout="labelme")


def test_label_files_of_labelme_without_a_picture_are_counted(tmp_path: Path) -> None:
    data = labelme_file(tmp_path, '{"shapes": []}')
    for name in "yz":
        (tmp_path / f"{name}.json").write_text('{"shapes": []}')
    assert any("y.json, z.json: 2 label files are left out: " in text for text in survey(data).errors)


def coco_file(root: Path, **changes: object) -> DataConfig:
    write_coco(root, **changes)
    return DataConfig(root=root, layout="coco")


def studio_file(root: Path, *results: dict[str, object]) -> DataConfig:
    images.write(root / "x.png", np.full((20, 30), 70, np.uint8))
    rows = [{"data": {"image": "x.png"}, "annotations": [{"result": [one]} for one in results]}]
    (root / "tasks.json").write_text(json.dumps(rows))
    return DataConfig(root=root, layout="label_studio")


TRIANGLE = [[10, 10], [40, 10], [40, 60]]

WRONG: dict[str, tuple[Callable[[Path], DataConfig], str]] = {
    "no file": (lambda root: DataConfig(root=root, layout="coco"), "no annotation file of COCO found"),
    "no labelme": (lambda root: DataConfig(root=root, layout="labelme"), "no file of labelme found"),
    "no studio": (lambda root: DataConfig(root=root, layout="label_studio"), "no export of Label Studio found"),
    "no yaml": (lambda root: DataConfig(root=root, layout="yolo"), "no data.yaml with the names"),
    "no json": (lambda root: labelme_file(root, "{"), "x.json: is no JSON"),
    "foreign json": (lambda root: coco_file(root) if (root / "notes.json").write_text("{") else None,
                     "export it again from its tool, or name it in data.exclude"),
    "box": (lambda root: coco_file(root, annotations=[{"id": 4, "image_id": 2, "category_id": 1}]),
            "annotation 4 has a box and no outline"),
    "category": (lambda root: coco_file(root, categories=[]), "is of category 1, which is not among"),
    "image": (lambda root: coco_file(root, images=[]), "an annotation is of image 2, which is not among"),
    "lost": (lambda root: coco_file(root, annotations=[], images=[{"id": 1, "file_name": "no.png"}]),
             "no picture has such a name"),
    "form": (lambda root: coco_file(root, images=[{"id": 1}]), "is not written as COCO's"),
    "label": (lambda root: labelme_file(root, '{"shapes": [{"points": []}]}'), "is not written as labelme's"),
    "half a character": (lambda root: labelme_file(root, r'{"shapes": [{"label": "\ud800"}]}'),
                         "surrogates not allowed"),
    "yolo digit": (lambda root: yolo_set(root, "\u00b2 0.1 0.1 0.2 0.2 0.1 0.3"), "line 1 should be the number"),
    "bare": (lambda root: labelme_file(root, '{"shapes": []}') if not images.write(root / "y.png", np.zeros((9, 9),
             np.uint8)) else None, "no .json of labelme lies beside them"),
    "yolo box": (lambda root: yolo_set(root, "0 0.5 0.5 0.2 0.2"), "line 1 is a box"),
    "yolo range": (lambda root: yolo_set(root, "0 0.5 0.5 0.2 0.2 0.1 7"), "line 1 holds 7; shares are 0 to 1"),
    "yolo rounding": (lambda root: yolo_set(root, "0 0.5 0.5 0.2 0.2 0.1 1.00001"), "line 1 holds 1.00001; shares"),
    "yolo names": (lambda root: yolo_set(root, "", "names: 5"), "names are no list of the classes"),
    "yolo name": (lambda root: yolo_set(root, "", "names: scratch"), "names are no list of the classes"),
    "yolo class": (lambda root: yolo_set(root, "4 0.5 0.5 0.2 0.2 0.1 0.3"), "holds class 4, of which data.yaml"),
    "yolo words": (lambda root: yolo_set(root, "scratch 0.5"), "line 1 should be the number of a class"),
    "ellipse": (lambda root: studio_file(root, {"type": "ellipselabels", "value": {}}), "holds ellipselabels"),
    "no label": (lambda root: studio_file(root, {"type": "polygon", "id": "a", "value": {"points": TRIANGLE}}),
                 "task 0: a polygon has no label"),
    "no labels": (lambda root: studio_file(root, {"type": "polygonlabels", "value": {"points": TRIANGLE,
                  "polygonlabels": []}}), "task 0: a polygon has no label"),
    "magic": (lambda root: studio_file(root, {"type": "brush", "value": {"format": "rle", "rle": [0]}}),
              "task 0: a brush has no label"),
    "bitmask": (lambda root: studio_file(root, {"type": "bitmask", "value": {"imageDataURL": "data:"}}),
                "holds bitmask that are not read"),
    "plain ellipse": (lambda root: studio_file(root, {"type": "ellipse", "value": {"x": 5, "y": 5, "radiusX": 2,
                      "radiusY": 3}}), "holds ellipse that are not read"),
    "studio's nameless": (lambda root: studio_file(root, {"type": "polygonlabels", "value": {"points": TRIANGLE,
                          "polygonlabels": [""]}}), "x.png: a label has no name"),
    "NUL": (lambda root: labelme_file(root, r'{"shapes": [{"label": "a\u0000b"}]}'), "a name holds the character NUL"),
    "labelme's nameless": (lambda root: labelme_file(root, '{"shapes": [{"label": null}]}'), "a label has no name"),
    "coco's nameless": (lambda root: coco_file(root, categories=[{"id": 1, "name": " "}, {"id": 5, "name": "a"}]),
                        "a label has no name"),
    "twice": (lambda root: studio_file(root, {"type": "choices"}, {"type": "choices"}), "has 2 annotations"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, case: str) -> None:
    setup, said = WRONG[case]
    with pytest.raises(DataError) as caught:
        scan(setup(tmp_path))
    assert said in str(caught.value), str(caught.value)


def test_a_label_in_a_result_of_its_own_belongs_to_the_outline_with_its_id(tmp_path: Path) -> None:
    """As Label Studio exports `<Polygon>` beside `<Labels>`; what is chosen for a region is no label of it."""
    data = studio_file(tmp_path, {})
    outline = {"id": "a", "type": "polygon", "value": {"points": TRIANGLE}}
    label = {"id": "a", "type": "labels", "value": {"points": TRIANGLE, "labels": ["scratch"]}}
    choice = {"id": "a", "type": "choices", "value": {"points": TRIANGLE, "choices": ["deep"]}}
    images.write(tmp_path / "y.png", np.full((20, 30), 71, np.uint8))
    results = {"x": [outline, label, choice], "y": []}
    tasks = [{"data": {"image": f"{name}.png"}, "annotations": [{"result": one}]} for name, one in results.items()]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    scratch, _ = scan(data)
    assert scratch.defect == "scratch" and read_label(scratch, (20, 30)).any()


def test_a_picture_that_is_called_ng_and_not_drawn_on_is_no_normal_part(tmp_path: Path) -> None:
    for name in ("x", "ng", "ok"):
        images.write(tmp_path / f"{name}.png", np.full((20, 30), 70, np.uint8))
    shape = {"type": "polygonlabels", "value": {"points": TRIANGLE, "polygonlabels": ["scratch"]}}
    drawn = {"x": shape} | {name: {"type": "choices", "value": {"choices": [name.upper()]}} for name in ("ng", "ok")}
    rows = [{"data": {"image": f"{name}.png"}, "annotations": [{"result": [one]}]} for name, one in drawn.items()]
    (tmp_path / "tasks.json").write_text(json.dumps(rows))
    found = survey(DataConfig(root=tmp_path, layout="label_studio"))
    assert {one.id: one.defect for one in found.examples} == {"x.png": "scratch", "ok.png": None}
    assert any("ng.png" in text and "nothing is drawn" in text for text in found.warnings)


DRAWN_WRONG: list[tuple[Any, str]] = [
    ({"size": [20, 30], "counts": [4, 5]}, "run lengths are of 9 pixels, not of 30 x 20"),
    ({"size": [30, 20], "counts": [600]}, r"of the size \[30, 20\], its picture of \[20, 30\]"),
    ({"size": [20, 30], "counts": "q~"}, "hold '~'|run lengths"),
    ([[1, 2, 3, 4]], "needs x and y of three corners"),
    ({"size": [20, 30], "counts": [10**30]}, "too large"),
    ({"size": [20, 30], "counts": {"a": 1}}, "have no counts"),
]


@pytest.mark.parametrize(("segmentation", "said"), DRAWN_WRONG)
def test_what_cannot_be_drawn_is_said_with_its_part(tmp_path: Path, segmentation: Any, said: str) -> None:
    one = {"id": 1, "image_id": 2, "category_id": 1, "segmentation": segmentation}
    example = scan(coco_file(tmp_path, annotations=[one]))[1]
    with pytest.raises(DataError, match=said) as caught:
        read_label(example, (20, 30))
    assert "annotations.json#coco#2#scratch" in str(caught.value)


def test_label_studios_brush_strokes_as_png_find_their_photographs_by_the_json(tmp_path: Path) -> None:
    masks = odd_masks()
    for number in range(3):
        images.write(tmp_path / f"{number}.png", np.full((HEIGHT, WIDTH), 70 + number, np.uint8))
    tasks = [{"id": 31 + n, "data": {"image": f"/data/upload/1/0a2b3c4d-{n}.png"}, "annotations": []} for n in range(3)]
    tasks[0]["annotations"] = [{"result": []}]
    tasks[2]["predictions"] = [17]  # its number, as Label Studio exports what nobody looked at
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    names = [f"task-32-annotation-8-by-1-tag-dent-top-{n}.png" for n in range(2)]
    for name, mask in zip(names, ("hole", "hairline"), strict=True):
        images.write_mask(tmp_path / "brush" / name, masks[mask])
    data = DataConfig(root=tmp_path, layout="label_studio")
    normal, dent = scan(data)
    assert (normal.id, normal.defect, dent.id, dent.defect) == ("0.png", None, "1.png", "dent-top")
    assert (read_label(dent, (HEIGHT, WIDTH)) == masks["hole"] | masks["hairline"]).all()
    found = survey(data)
    assert found.ledger.uses["masks"] == 2 and any("2.png" in text and "annotated" in text for text in found.warnings)
    strokes = {"format": "rle", "rle": packed(masks["noise"]), "brushlabels": ["dent-top"]}
    shape = {"type": "brushlabels", "original_width": WIDTH, "original_height": HEIGHT, "value": strokes}
    (tmp_path / "tasks.json").write_text(json.dumps([tasks[0], {**tasks[1], "annotations": [{"result": [shape]}]}]))
    (_, dent) = scan(data)
    assert (read_label(dent, (HEIGHT, WIDTH)) == masks["noise"]).all()
    assert survey(data).ledger.uses["annotation files"] == 3
    images.write_mask(tmp_path / "brush" / "task-77-annotation-9-by-1-tag-dent-0.png", masks["hole"])
    with pytest.raises(DataError, match="task-77.*no task of the JSON export has such a number"):
        scan(data)
    (tmp_path / "brush" / "task-77-annotation-9-by-1-tag-dent-0.png").unlink()
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    images.write_mask(tmp_path / "brush" / "task-32-annotation-8-by-1-tag-stain-0.png", masks["pixel"])
    with pytest.raises(DataError, match="1.png: its brush strokes are pictures of dent-top, stain"):
        scan(data)
