"""Every layout keeps every promise: no skip list. The same photographs are laid out in each, and read."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawsmith import registry
from flawsmith.config import Config, DataConfig
from flawsmith.data import images
from flawsmith.data.layouts import LAYOUTS, scan, survey
from flawsmith.data.masks.judging import judge, with_rules
from flawsmith.data.masks.reading import read_label
from flawsmith.errors import DataError
from flawsmith.exports.export import write
from flawsmith.preflight.check import check
from flawsmith.types import Example

SHAPE = (24, 40)
TYPES = ("dent", "stain")


def mask_of(number: int) -> np.ndarray:
    """A mask that no other number has: a bar, a piece with a hole, and a pixel at the border."""
    mask = np.zeros(SHAPE, bool)
    mask[3 + number, 2:30] = mask[10:18, 5 : 15 + number] = mask[23, 39 - number] = True
    mask[12:14, 8:11] = False
    return mask


def photographs(folder: Path) -> list[Example]:
    """Three normal parts and two pictures of each defect type, as an exporter gets them."""
    rng = np.random.default_rng(0)
    examples = []
    for number in range(3 + 2 * len(TYPES)):
        path = folder / f"{number}.png"
        images.write(path, rng.integers(0, 256, SHAPE).astype(np.uint8))
        if number < 3:
            examples.append(Example(path.name, path, "part", None, (), "train"))
            continue
        label = folder / f"{number}.mask.png"
        images.write_mask(label, mask_of(number))
        examples.append(Example(path.name, path, "part", TYPES[number % 2], (label,), "train"))
    return examples


def _exported(name: str, below: str = "") -> Callable[[Path, list[Example]], dict[str, Any]]:
    """Lay out by our own exporter of a format."""

    def lay_out(root: Path, examples: list[Example]) -> dict[str, Any]:
        plugin = registry.get("exports", name)
        whole = root.with_name("whole")
        write(plugin(plugin.Settings()), examples, whole)
        shutil.move(whole / below, root)
        return {}

    return lay_out


def _pairs(root: Path, examples: list[Example]) -> dict[str, Any]:
    for one in examples:
        folder = root / (one.defect or "ok")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(one.image, folder)
        for mask in one.masks:
            shutil.copy(mask, folder / f"{one.image.stem}_mask.png")
    return {"normal": ["ok"]}


def _pattern(root: Path, examples: list[Example]) -> dict[str, Any]:
    _pairs(root, examples)
    return {
        "normal": ["ok"],
        "patterns": [{"image": "{defect}/{stem}.png", "mask": "{defect}/{stem}_mask.png"}],
    }


def _lookout(root: Path, examples: list[Example]) -> dict[str, Any]:
    """AWS's manifest, with a mask in the colour of its type on white."""
    colours = {"dent": "#1f77b4", "stain": "#2ca02c"}
    classes = {"0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"}}
    classes |= {str(n): {"class-name": name, "hex-color": code} for n, (name, code) in enumerate(colours.items(), 1)}
    rows = []
    for one in examples:
        (root / "photographs").mkdir(parents=True, exist_ok=True)
        shutil.copy(one.image, root / "photographs")
        row: dict[str, Any] = {"source-ref": f"s3://line1/photographs/{one.image.name}"}
        row["anomaly-label"] = int(one.defect is not None)
        row["anomaly-label-metadata"] = {"class-name": "anomaly" if one.defect else "normal"}
        if one.defect:
            picture = np.full((*SHAPE, 3), 255, np.uint8)
            picture[mask_of(int(one.image.stem))] = list(bytes.fromhex(colours[one.defect][1:]))
            images.write(root / "masks" / one.image.name, picture)
            row["anomaly-mask-ref"] = f"s3://line1/masks/{one.image.name}"
            row["anomaly-mask-ref-metadata"] = {"internal-color-map": classes}
        rows.append(json.dumps(row))
    (root / "output.manifest").write_text("\n".join(rows))
    return {}


MAKERS: dict[str, Callable[[Path, list[Example]], dict[str, Any]]] = {
    "mvtec": _exported("mvtec"),
    "visa": _exported("visa"),
    "pairs": _pairs,
    "pattern": _pattern,
    "coco": _exported("coco"),
    "labelme": _exported("labelme", "part"),
    "yolo": _exported("yolo"),
    "label_studio": _exported("label_studio"),
    "lookout": _lookout,
}
"""Layout -> what writes photographs in it, and returns the settings that it needs."""


@dataclass(frozen=True)
class Laid:
    data: DataConfig
    wanted: list[tuple[str | None, bytes, bytes]]
    """(defect type, pixels, mask) of each photograph, sorted."""


@pytest.fixture(params=sorted(LAYOUTS))
def laid(request: pytest.FixtureRequest, tmp_path: Path) -> Laid:
    examples = photographs(tmp_path / "sources")
    settings = MAKERS[request.param](tmp_path / "root", examples)
    wanted = [
        (one.defect, images.read(one.image).tobytes(), read_label(one, SHAPE).tobytes() if one.defect else b"")
        for one in examples
    ]
    return Laid(DataConfig(root=tmp_path / "root", layout=request.param, **settings), sorted(wanted, key=str))


def test_pictures_types_and_masks_are_what_was_laid_out(laid: Laid) -> None:
    examples = scan(laid.data)
    judgement = judge(examples, laid.data)
    assert not judgement.errors and not judgement.broken and not judgement.doubts
    read = [
        (one.defect, images.read(one.image).tobytes(), read_label(one, SHAPE).tobytes() if one.defect else b"")
        for one in with_rules(examples, judgement.rules)
    ]
    assert sorted(read, key=str) == laid.wanted
    assert len({one.id for one in examples}) == len(examples)


def test_every_file_is_accounted_for_and_none_is_changed(laid: Laid) -> None:
    def states() -> dict[Path, tuple[int, bytes]]:
        files = (path for path in laid.data.root.rglob("*") if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = states()
    found = survey(laid.data)
    assert states() == before and found.ledger.files == len(before)
    assert not found.errors and found.ledger.uses["photographs"] == len(laid.wanted)
    assert found.examples == survey(laid.data).examples


def test_an_excluded_photograph_is_gone_with_its_mask(laid: Laid) -> None:
    examples = scan(laid.data)
    gone = next(one for one in examples if one.defect == "dent")
    rest = scan(laid.data.model_copy(update={"exclude": [gone.id.replace("[", "?")]}))
    assert Counter(one.id for one in rest) == Counter(one.id for one in examples if one.id != gone.id)


def test_asking_for_one_type_leaves_the_other_out(laid: Laid) -> None:
    chosen = scan(laid.data.model_copy(update={"defects": ["stain"]}))
    assert {one.defect for one in chosen} == {None, "stain"}
    with pytest.raises(DataError, match="holds no 'stian'; did you mean 'stain'"):
        scan(laid.data.model_copy(update={"defects": ["stian"]}))


def test_an_example_per_object_loses_no_damage(laid: Laid) -> None:
    def damage(data: DataConfig) -> dict[tuple[str, str], bytes]:
        masks: dict[tuple[str, str], np.ndarray] = {}
        for one in with_rules(examples := scan(data), judge(examples, data).rules):
            if one.defect:
                key = one.image.name, one.defect
                masks[key] = masks.get(key, np.zeros(SHAPE, bool)) | read_label(one, SHAPE)
        return {key: mask.tobytes() for key, mask in masks.items()}

    each = laid.data.model_copy(update={"example_per": "object"})
    assert damage(each) == damage(laid.data)
    count = len({one.id for one in scan(each)})
    assert count == len(scan(each)) and (count > len(laid.wanted)) == (each.layout in ("yolo",))


def test_a_folder_without_anything_is_said(laid: Laid, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=str(tmp_path / "empty")):
        scan(laid.data.model_copy(update={"root": tmp_path / "empty"}))


def test_a_lost_picture_of_a_mask_is_an_error(laid: Laid) -> None:
    gone = next(one for one in scan(laid.data) if one.defect == "dent")
    gone.image.unlink()
    with pytest.raises(DataError, match="left out|has no mask"):
        scan(laid.data)


@pytest.mark.parametrize("year", ["LOCO", "AD 2"])
def test_mvtecs_later_sets_are_read(tmp_path: Path, year: str) -> None:
    """LOCO has a folder of masks for each picture; AD 2 has its masks below test_public, and a test without any."""
    examples = photographs(tmp_path / "sources")
    for one in examples:
        number = one.image.stem
        test = tmp_path / "can" / ("test" if year == "LOCO" else "test_public")
        truth = test.parent / "ground_truth" if year == "LOCO" else test / "ground_truth"
        place = test / (one.defect or "good") if one.defect else test.parent / "train" / "good"
        images.write(place / f"{number}_regular.png", images.read(one.image))
        if one.defect and year == "LOCO":
            mask = mask_of(int(number))
            parts = np.zeros_like(mask), np.zeros_like(mask)
            parts[0][:9], parts[1][9:] = mask[:9], mask[9:]
            for place, part in enumerate(parts):
                images.write_mask(truth / one.defect / f"{number}_regular" / f"{place:03d}.png", part)
        elif one.defect:
            images.write_mask(truth / one.defect / f"{number}_regular_mask.png", mask_of(int(number)))
    if year == "AD 2":
        images.write(tmp_path / "can" / "test_private" / "000_regular.png", images.read(examples[0].image))
    found = survey(DataConfig(root=tmp_path, layout="mvtec", exclude=["sources/**"]))
    assert not found.errors and sum("test_private" in text for text in found.warnings) == (year == "AD 2")
    damaged = [one for one in found.examples if one.defect]
    assert Counter(one.defect for one in found.examples) == {None: 3, "dent": 2, "stain": 2}
    for one in damaged:
        assert one.split == "test" and (read_label(one, SHAPE) == mask_of(int(one.image.stem.split("_")[0]))).all()


def test_a_photograph_that_is_a_pipe_is_refused_at_once(laid: Laid):
    shot = next(one.image for one in scan(laid.data) if one.defect)
    shot.unlink()
    os.mkfifo(shot)
    found = check(Config(data=laid.data))
    assert any("it is a pipe" in error and shot.name in error for error in found.errors), found.errors
