"""AWS manifests with coloured masks: Lookout for Vision's, and Ground Truth's, whose keys are called after the job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_export_formats import HEIGHT, WIDTH, odd_masks

from flawsmith.config import Config, DataConfig
from flawsmith.data import images
from flawsmith.data.annotations.parts import part_of
from flawsmith.data.layouts import scan, survey
from flawsmith.data.masks.judging import judge
from flawsmith.data.masks.reading import read_ignored, read_label
from flawsmith.errors import DataError
from flawsmith.files import file_digest
from flawsmith.preflight.check import check

COLOURS = {"BACKGROUND": (255, 255, 255), "scratch": (44, 160, 44), "dent/deep": (31, 119, 180)}


def colour_map(colours: dict[str, tuple[int, ...]] = COLOURS) -> dict[str, Any]:
    return {
        str(number): {"class-name": name, "hex-color": f"#{bytes(colour).hex().upper()}", "confidence": 0.0}
        for number, (name, colour) in enumerate(colours.items())
    }


def line(name: str, label: int | None, mask: str = "", job: str = "anomaly-mask") -> dict[str, Any]:
    row: dict[str, Any] = {"source-ref": f"s3://factory/line1/{name}"}
    if label is not None:
        named = {"class-name": "anomaly" if label else "normal", "type": "groundtruth/image-classification"}
        row |= {"anomaly-label": label, "anomaly-label-metadata": named}
    if mask:
        described = {"internal-color-map": colour_map(), "type": "groundtruth/semantic-segmentation"}
        row |= {f"{job}-ref": f"s3://other/job/masks/{mask}", f"{job}-ref-metadata": described}
    return row


def write(root: Path, *rows: dict[str, Any], name: str = "train.manifest") -> DataConfig:
    for number in range(4):
        images.write(root / "line1" / f"{number}.png", np.full((HEIGHT, WIDTH), 60 + number, np.uint8))
    (root / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return DataConfig(root=root, layout="lookout", product="plate")


def painted(**masks: np.ndarray) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for name, mask in masks.items():
        picture[mask] = COLOURS[name.replace("_", "/")]
    return picture


@pytest.mark.parametrize("form", ["RGB", "RGBA", "P"])
def test_every_colour_is_a_mask_of_its_type_bit_for_bit(tmp_path: Path, form: str) -> None:
    masks = odd_masks()
    scratch, dent = masks["holes"] | masks["corner"], masks["hairline"] & ~masks["holes"]
    (tmp_path / "masks").mkdir()
    picture = Image.fromarray(painted(scratch=scratch, dent_deep=dent))
    if form == "P":
        picture = Image.fromarray((scratch + 2 * dent).astype(np.uint8))
        picture.putpalette(bytes(value for colour in COLOURS.values() for value in colour))
    picture.convert(form).save(tmp_path / "masks" / "7.png")
    data = write(tmp_path, line("0.png", 0), line("1.png", 1, "7.png"))
    normal, deep, long = scan(data)
    assert (normal.defect, deep.defect, long.defect) == (None, "dent-deep", "scratch")
    assert (deep.id, long.id) == ("line1/1.png#dent-deep", "line1/1.png#scratch") and long.split == "train"
    for one, own, other in ((long, scratch, dent), (deep, dent, scratch)):
        assert (read_label(one, (HEIGHT, WIDTH)) == own).all()
        assert (read_ignored(one, (HEIGHT, WIDTH)) == other).all()  # type: ignore[union-attr]
    (path,) = long.masks
    part = part_of(path)
    assert part is not None and part.path == path and part.file == tmp_path / "masks" / "7.png"
    assert file_digest(path) == file_digest(part.file)  # a mask that is drawn again makes another set
    found = survey(data)
    assert found.ledger.uses == {"photographs": 2, "masks": 1, "annotation files": 1, **_left(2)}
    assert not judge(found.examples, data).broken


def _left(count: int) -> dict[str, int]:
    return {"left out: no annotation file lists them": count}


def test_a_job_of_ground_truth_is_read_by_what_its_metadata_say(tmp_path: Path) -> None:
    images.write(tmp_path / "masks" / "a.png", painted(scratch=odd_masks()["parts"]))
    images.write(tmp_path / "masks" / "b.png", painted())
    rows = line("0.png", None, "a.png", job="my-job"), line("1.png", None, "b.png", job="my-job")
    data = write(tmp_path, *rows, name="output.jsonl")
    examples = scan(data)
    assert [(one.id, one.defect, one.split) for one in examples] == [
        ("line1/0.png", "scratch", ""),
        ("line1/1.png", None, ""),
    ]
    assert not check(
        Config.model_validate({"data": {**data.model_dump(), "shots": 1}, "prove": {"enabled": False}})
    ).errors


def test_wrong_manifests_are_said_in_a_sentence(tmp_path: Path) -> None:
    mark = odd_masks()["parts"]
    images.write(tmp_path / "masks" / "a.png", painted(scratch=mark))
    images.write(tmp_path / "masks" / "blank.png", painted())
    other = painted(scratch=mark)
    other[0, 0] = 1, 2, 3
    images.write(tmp_path / "masks" / "other.png", other)
    good = line("0.png", 0), line("1.png", 1, "a.png")
    twice = {"0": {"class-name": "a", "hex-color": "#ffffff"}, "1": {"class-name": "b", "hex-color": "#ffffff"}}
    bare = line("2.png", 1, "a.png")
    bare["anomaly-mask-ref-metadata"] = {"internal-color-map": {"1": {"class-name": "scratch"}}}
    same = line("2.png", 1, "a.png")
    same["anomaly-mask-ref-metadata"] = {"internal-color-map": twice}
    for row, message in (
        (line("2.png", 0, "a.png"), "line 3 says that line1/2.png is normal, and its mask marks scratch"),
        (line("2.png", 1, "blank.png"), "labelled as anomalies, and their masks mark nothing"),
        (line("2.png", 1, "other.png"), "holds the colour #010203, of which the manifest's internal-color-map says"),
        (line("2.png", 1), "1 defect has no mask"),
        (line("2.png", 1, "absent.png"), "no mask has such a name"),
        (line("absent.png", 0), "no picture has such a name"),
        (line("1.png", 0), "line1/1.png: is listed twice"),
        (bare, r"line 3 is not written as AWS writes manifests \(KeyError: 'hex-color'\)"),
        ({**line("2.png", 1), "job-ref": "s3://a/masks/a.png"}, "line 3: job-ref has no internal-color-map beside it"),
        (same, "line 3 gives the colour #ffffff to two classes"),
        ({"picture": "a"}, r"line 3 is not written as AWS writes manifests \(KeyError: 'source-ref'\)"),
    ):
        with pytest.raises(DataError, match=message):
            scan(write(tmp_path, *good, row))
    found = survey(write(tmp_path, *good, line("2.png", None)))
    assert any("line1/2.png: 1 picture is left out: nobody has annotated" in text for text in found.warnings)
    (tmp_path / "train.manifest").write_text("no json")
    with pytest.raises(DataError, match="no manifest of AWS found"):
        scan(write(tmp_path, name="other.txt"))


def test_an_example_per_object_has_the_other_objects_ignored(tmp_path: Path) -> None:
    """Three scratches, two of one group in labelme, are three examples or two, and none is silently lost."""
    images.write(tmp_path / "1.png", np.full((20, 30), 60, np.uint8))
    images.write(tmp_path / "2.png", np.full((20, 30), 61, np.uint8))
    corners = [[[x, 2], [x + 4, 2], [x + 4, 6], [x, 6]] for x in (1, 10, 20)]
    shapes = [
        {"label": "scratch", "points": points, "shape_type": "polygon", "group_id": group}
        for points, group in zip(corners, (None, 4, 4), strict=True)
    ]
    (tmp_path / "1.json").write_text(json.dumps({"shapes": shapes, "imagePath": "1.png"}))
    (tmp_path / "2.json").write_text(json.dumps({"shapes": [], "imagePath": "2.png"}))
    data = DataConfig(root=tmp_path, layout="labelme")
    (whole,) = (one for one in scan(data) if one.defect)
    assert whole.id == "1.png" and read_label(whole, (20, 30)).sum() == 3 * 16
    first, second = (one for one in scan(data.model_copy(update={"example_per": "object"})) if one.defect)
    assert (first.id, second.id) == ("1.png#scratch#1", "1.png#scratch#2")
    assert first.image == second.image and first.defect == second.defect == "scratch"
    assert read_label(first, (20, 30)).sum() == 16 and read_label(second, (20, 30)).sum() == 2 * 16
    ignored = read_ignored(first, (20, 30))
    assert ignored is not None and (ignored == read_label(second, (20, 30))).all()
    part = part_of(second.masks[0])
    assert part is not None and part.object == 2 and part.path == second.masks[0]
    (tmp_path / "1.json").write_text(json.dumps({"shapes": shapes[:1], "imagePath": "1.png"}))
    with pytest.raises(DataError, match="there are 1 of 'scratch' now"):
        read_label(second, (20, 30))
