"""exports/mvtec_loco.py: MVTec LOCO's folders, masks and defects_config.json, and what is a logical anomaly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_export_formats import HEIGHT, WIDTH, examples_of, export, odd_masks

from flawsmith import registry
from flawsmith.config import Config, DataConfig
from flawsmith.data import images
from flawsmith.data.layouts import scan
from flawsmith.data.masks.judging import with_rules
from flawsmith.data.masks.reading import read_label
from flawsmith.errors import ConfigError, DataError
from flawsmith.exports.export import load_exporter, write
from flawsmith.run.mask_reading import read_masks
from flawsmith.types import Example

MASKS = {name: mask for name, mask in odd_masks().items() if name in ("hairline", "holes", "parts", "pixel")}


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Four samples, 21 normal parts to learn from and two that are held out."""
    made = examples_of(tmp_path, MASKS)
    normals = []
    for number in range(22):
        path = tmp_path / f"good{number}.png"
        images.write(path, np.full((HEIGHT, WIDTH), 60 + number, np.uint8))
        normals.append(Example(path.name, path, "screw", None, (), "train" if number < 20 else "test"))
    return made + normals


def masks_by_type(folder: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Read the export as LOCO's evaluation does: values of the masks' pixels say the defect type."""
    defects = {
        row["pixel_value"]: row["defect_name"] for row in json.loads((folder / "defects_config.json").read_text())
    }
    read = {}
    for path in sorted(folder.glob("ground_truth/*/*/*.png")):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        (value,) = set(np.unique(mask).tolist()) - {0}
        picture = folder / "test" / path.parts[-3] / f"{path.parts[-2]}.png"
        assert picture.is_file() and mask.shape == images.read(picture).shape[:2]
        assert defects[value] not in read
        read[defects[value]] = (path.parts[-3], mask == value)
    return read


def test_every_mask_lies_under_its_picture_with_the_value_of_its_type(tmp_path: Path, examples: list[Example]) -> None:
    folder = export("mvtec_loco", examples, tmp_path / "out", logical=["holes", "pixel"]) / "screw"
    read = masks_by_type(folder)
    assert {name: part for name, (part, _) in read.items()} == {
        "hairline": "structural_anomalies",
        "holes": "logical_anomalies",
        "parts": "structural_anomalies",
        "pixel": "logical_anomalies",
    }
    assert all((mask == MASKS[name]).all() for name, (_, mask) in read.items())
    counts = {part: len(list((folder / part).glob("*.png"))) for part in ("train/good", "validation/good", "test/good")}
    assert counts == {"train/good": 18, "validation/good": 3, "test/good": 2}
    # flawsmith itself reads it as MVTec's layout: the masks are whole, whatever their value.
    layout = DataConfig(root=folder.parent, layout="mvtec")
    found = scan(layout)
    read_again = [one for one in with_rules(found, read_masks(found, layout, None).rules) if one.masks]
    areas = sorted(int(read_label(one, (HEIGHT, WIDTH)).sum()) for one in read_again)
    assert areas == sorted(int(mask.sum()) for mask in MASKS.values())


def test_saturation_is_a_share_or_pixels(tmp_path: Path, examples: list[Example]) -> None:
    saturation = {"holes": 0.5, "parts": 40}
    folder = export("mvtec_loco", examples, tmp_path / "out", saturation=saturation, validation=0)
    rows = json.loads((folder / "screw/defects_config.json").read_text())
    assert [(row["defect_name"], row["pixel_value"]) for row in rows] == [
        ("hairline", 255),
        ("holes", 254),
        ("parts", 253),
        ("pixel", 252),
    ]
    found = {row["defect_name"]: (row["saturation_threshold"], row["relative_saturation"]) for row in rows}
    assert found == {"hairline": (1.0, True), "holes": (0.5, True), "parts": (40, False), "pixel": (1.0, True)}
    assert not (folder / "screw/validation").exists()


def test_what_component_made_is_logical(tmp_path: Path, examples: list[Example]) -> None:
    plugin = registry.get("exports", "mvtec_loco")
    exporter = plugin(plugin.Settings())
    exporter.use_generators({"hairline": {"component"}, "holes": {"component", "crop_paste"}, "pixel": {"perlin"}})
    write(exporter, examples, tmp_path / "out")
    read = masks_by_type(tmp_path / "out/screw")
    assert [name for name, (part, _) in read.items() if part == "logical_anomalies"] == ["hairline"]


def test_a_picture_with_both_is_logical_and_has_a_mask_of_each(tmp_path: Path, examples: list[Example]) -> None:
    holes, parts = (next(one for one in examples if one.defect == name) for name in ("holes", "parts"))
    several = [*examples, replace(parts, id=f"{holes.id}#parts", image=holes.image)]
    folder = export("mvtec_loco", several, tmp_path / "out", logical=["holes"]) / "screw"
    (picture,) = (folder / "test/logical_anomalies").iterdir()
    masks = sorted((folder / "ground_truth/logical_anomalies" / picture.stem).iterdir())
    assert [path.name for path in masks] == ["000.png", "001.png"]
    values = [int(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).max()) for path in masks]
    assert values == [254, 253]


def test_what_it_refuses(tmp_path: Path, examples: list[Example]) -> None:
    wrong = Config.model_validate({"export": {"settings": {"mvtec_loco": {"saturation": {"moved": 0}}}}})
    with pytest.raises(ConfigError, match=r"export\.settings\.mvtec_loco: saturation\.moved: should be greater than 0"):
        load_exporter(wrong, "mvtec_loco")
    many = [replace(examples[1], id=f"{n}", image=examples[1].image, defect=f"type{n}") for n in range(256)]
    with pytest.raises(DataError, match="screw: 256 defect types, and masks have values for 255"):
        export("mvtec_loco", many, tmp_path / "out")
