"""inspection/: a delivered model at work, with a network made by hand whose answers numpy knows too.

The network's anomaly map is the mean of the channels in 0..1, its score the map's greatest value, and its two defect
types are the mean of red against that of blue.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import csv
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import flawsmith as fs
from flawsmith.data import images
from flawsmith.data.inspection_tiles import Tiles
from flawsmith.errors import ConfigError, DataError
from flawsmith.files import file_digest, write_json
from flawsmith.inspection.calibrate import calibrate
from flawsmith.inspection.card import card, example_script
from flawsmith.inspection.inspect import InspectedFolder, in_order, inspect, overlay, pictures_below
from flawsmith.inspection.model import (
    HeldOut,
    Model,
    is_whole,
    read_held_out,
    read_model,
    strangers,
    subsample,
    threshold_of,
    write_model,
)
from flawsmith.inspection.serve import InspectionServer
from flawsmith.types import Range

onnx = pytest.importorskip("onnx", reason="needs the extra deliver")
pytest.importorskip("onnxruntime", reason="needs the extra inspect")

SIDE = 16
BYTES = Range(0.0, 255.0, depth=8)


def handmade(folder: Path, *, tiles: Tiles | None = None, span: Range = BYTES, limit: float | None = 0.8) -> Path:
    """Write a model folder round the network."""
    from onnx import TensorProto, helper

    folder.mkdir(parents=True)
    integers = {"one": [1], "all": [1, 2, 3], "plane": [2, 3], "ends": [0, 2]}
    constants = [helper.make_tensor(name, TensorProto.INT64, [len(row)], row) for name, row in integers.items()]
    constants.append(helper.make_tensor("most", TensorProto.FLOAT, [], [255.0]))
    nodes = [
        helper.make_node("Cast", ["picture"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "most"], ["level"]),
        helper.make_node("ReduceMean", ["level", "one"], ["anomaly_map"], keepdims=1),
        helper.make_node("ReduceMax", ["anomaly_map", "all"], ["score"], keepdims=0),
        helper.make_node("ReduceMean", ["level", "plane"], ["colours"], keepdims=0),
        helper.make_node("Gather", ["colours", "ends"], ["red_blue"], axis=1),
        helper.make_node("Softmax", ["red_blue"], ["probabilities"], axis=1),
    ]
    shapes: dict[str, list[Any]] = {"anomaly_map": ["n", 1, SIDE, SIDE], "score": ["n"], "probabilities": ["n", 2]}
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        constants,
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(network)
    onnx.save(network, folder / "model.onnx")
    threshold = threshold_of([0.5], [np.full((SIDE, SIDE), 0.3, np.float32)], 0.05, "nowhere")
    model = Model(
        format=1,
        flawsmith="0.1.0",
        stamp="",
        network=file_digest(folder / "model.onnx"),
        opset=18,
        detector="by hand",
        product="plate",
        defects=("red", "blue"),
        outputs=("anomaly_map", "score", "probabilities"),
        shape=(SIDE, SIDE),
        colour="RGB",
        span=span,
        tiles=tiles,
        extractor="",
        extractor_fingerprint="",
        learned_from={"normal part": 1},
        learned_from_hash="",
        agreement={"pictures": 1, "pixels_within_1e-4": 1.0, "largest_score_difference": 0.0},
        threshold=None if limit is None else replace(threshold, value=limit),
    )
    write_model(folder, model)
    write_json(folder / "held_out.json", asdict(HeldOut("test pictures", {"red": (0.95, 0.6)}, (0.3, 0.85))))
    write_json(folder / "learned_from.json", {"pictures": []})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read it, do not write it."""
    return handmade(tmp_path_factory.mktemp("models") / "plate")


def spotted(level: int = 60, spot: tuple[int, int, int] = (255, 250, 240), side: int = SIDE) -> np.ndarray:
    picture = np.full((side, side, 3), level, np.uint8)
    picture[3:6, 9:12] = spot
    return picture


# --- one picture --------------------------------------------------------------------------------------------------


def test_a_picture_gets_score_verdict_type_and_map(model: Path) -> None:
    inspector, picture = fs.Inspector(model), spotted()
    inspection = inspector.inspect(picture)
    assert np.allclose(inspection.anomaly_map, picture.mean(2) / 255, atol=1e-6)
    assert inspection.score == pytest.approx((255 + 250 + 240) / 3 / 255, abs=1e-6)
    red, blue = (picture[..., channel].mean() / 255 for channel in (0, 2))
    assert (inspection.verdict, inspection.defect) == ("defect", "red")
    assert inspection.probability == pytest.approx(np.exp(red) / (np.exp(red) + np.exp(blue)), abs=1e-6)
    assert inspector.inspect(spotted(spot=(0, 60, 255))).defect == "blue"
    assert inspector.inspect(picture, threshold=0.99).verdict == "ok"
    assert inspection.map_of((32, 48)).shape == (32, 48)


def test_every_depth_is_read_in_the_products_range(tmp_path: Path) -> None:
    """12 bits in 16, and a height map with holes: what -1 and +1 mean is in model.json."""
    grey = spotted(60)[..., 0]
    deep = fs.Inspector(handmade(tmp_path / "deep", span=Range(0.0, 4095.0, depth=16)))
    twelve = np.rint(grey / 255 * 4095).astype(np.uint16)
    assert np.allclose(deep.inspect(twelve).anomaly_map, grey / 255, atol=0.5 / 255 + 1e-6)
    assert deep.other_depth(grey) and not deep.other_depth(twelve)
    span = Range(-10.0, 20.0, sentinels=(-99999.0,), fill=5.0, depth=32)
    heights = grey.astype(np.float32) / 255 * 30 - 10
    heights[0, 0], heights[0, 1] = np.nan, -99999
    inspection = fs.Inspector(handmade(tmp_path / "map", span=span)).inspect(heights).anomaly_map
    assert np.allclose(inspection[1:], grey[1:] / 255, atol=0.5 / 255 + 1e-6)
    assert np.allclose(inspection[0, :2], 0.5, atol=0.5 / 255 + 1e-6)


def test_tiles_are_joined_as_the_proof_joins_them(tmp_path: Path) -> None:
    tiles = Tiles(SIDE, scale=0.5)
    picture = np.random.default_rng(0).integers(0, 200, (60, 81, 3)).astype(np.uint8)
    picture[40:46, 60:66] = 250
    inspection = fs.Inspector(handmade(tmp_path / "tiled", tiles=tiles)).inspect(picture)
    small = cv2.resize(picture.astype(np.float32), (round(81 * 0.5), 30), interpolation=cv2.INTER_AREA)
    level = np.rint(small).mean(2) / 255  # the map of a pixel is its own brightness, so joining changes nothing
    assert inspection.anomaly_map.shape == level.shape
    assert np.abs(inspection.anomaly_map - level).max() < 1.5 / 255
    assert inspection.score == pytest.approx(inspection.anomaly_map.max(), abs=1e-6)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((4, 4, 4), np.uint8), "is not the shape of a picture"),
        (np.zeros((0, 4), np.uint8), "is not the shape of a picture"),
        (np.zeros((4, 4), np.float64), "float64 pixels are not inspected"),
    ],
)
def test_what_is_no_picture_is_refused(model: Path, picture: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        fs.Inspector(model).inspect(picture)


def test_a_wrong_model_folder_gets_one_sentence(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DataError, match=r"holds no delivered model \(model.json is missing\)"):
        fs.Inspector(tmp_path / "nowhere")
    with pytest.raises(DataError, match="a model for each product; name one of them: plate"):
        fs.Inspector(model.parent)
    with pytest.raises(ConfigError, match="runtime: 'tensorrt' is unknown; known: onnxruntime, openvino"):
        fs.Inspector(model, "tensorrt")  # type: ignore[arg-type]
    broken = handmade(tmp_path / "broken")
    tree = json.loads((broken / "model.json").read_text())
    for change, said in (
        ({"format": 2}, "is of format 2, and this release reads 1"),
        ({"shape": "large"}, "shape: "),
        ({"network": "0"}, "is not the one that model.json describes"),
    ):
        (broken / "model.json").write_text(json.dumps(tree | change))
        with pytest.raises(DataError, match=said):
            fs.Inspector(broken)
    (broken / "model.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        fs.Inspector(broken)
    (broken / "model.onnx").write_bytes(b"torn")
    (broken / "model.json").write_text(json.dumps(tree | {"network": file_digest(broken / "model.onnx")}))
    with pytest.raises(DataError, match="onnxruntime cannot load it"):
        fs.Inspector(broken)


def test_a_record_comes_back_as_it_was_written(model: Path) -> None:
    read = read_model(model)
    assert read.outputs == ("anomaly_map", "score", "probabilities") and read.span == BYTES and read.threshold
    assert read_held_out(model).defects == {"red": (0.95, 0.6)}


def test_openvino_says_what_onnxruntime_says(tmp_path: Path) -> None:
    folder = handmade(tmp_path / "m")
    if find_spec("openvino") is None:
        with pytest.raises(ConfigError, match=r"pip install 'flawsmith\[openvino\]'` brings it"):
            fs.Inspector(folder, "openvino")
        return
    import openvino

    with pytest.raises(ConfigError, match="there is no IR; deliver again where the extra openvino is installed"):
        fs.Inspector(folder, "openvino")
    (folder / "openvino").mkdir()
    converted = openvino.convert_model(folder / "model.onnx")
    openvino.save_model(converted, folder / "openvino" / "model.xml", compress_to_fp16=False)
    one, other = (fs.Inspector(folder, runtime).inspect(spotted()) for runtime in ("onnxruntime", "openvino"))
    assert np.allclose(one.anomaly_map, other.anomaly_map, atol=1e-5) and one.defect == other.defect
    assert one.score == pytest.approx(other.score, abs=1e-5)


def test_the_example_beside_a_model_says_what_the_inspector_says(tmp_path: Path) -> None:
    """It knows nothing of flawsmith; the picture is larger than the model's shape, or is cut in tiles."""
    picture = np.random.default_rng(1).integers(0, 220, (41, 50, 3)).astype(np.uint8)
    images.write(tmp_path / "picture.png", picture)
    for name, tiles in (("whole", None), ("tiled", Tiles(SIDE)), ("narrow", Tiles(SIDE, scale=0.3))):
        folder = handmade(tmp_path / name, tiles=tiles)
        script = example_script(read_model(folder))
        assert "flawsmith" not in "\n".join(script.splitlines()[1:])
        (folder / "example.py").write_text(script)
        command = [sys.executable, folder / "example.py", tmp_path / "picture.png"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        inspection = fs.Inspector(folder).inspect(picture)
        assert done.stdout == f"score {inspection.score:.4f}, threshold 0.8000: {inspection.verdict}\n", done.stderr


def test_the_example_of_a_model_without_a_threshold_calls_nothing_ok(tmp_path: Path) -> None:
    images.write(tmp_path / "picture.png", spotted())
    folder = handmade(tmp_path / "m", limit=None)
    (folder / "example.py").write_text(example_script(read_model(folder)))
    command = [sys.executable, folder / "example.py", tmp_path / "picture.png"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("threshold nan: no verdict\n"), done.stderr


def test_the_card_says_what_the_record_holds(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = card(read_model(model), read_held_out(model), None)
    for said in (
        "1 normal part",
        "a score above 0.8 was called a defect",
        "| red, missed | 1 | 2 |",
        "Nothing was proven",
    ):
        assert said in text
    assert "| normal, false alarms | 1 | 2 |" in text and "None is set" not in text
    assert "None is set" in card(replace(read_model(model), threshold=None), read_held_out(model), None)
    monkeypatch.setenv("FLAWSMITH_LANG", "ko")
    korean = card(read_model(model), read_held_out(model), None)
    assert "| red, 미검 | 1 | 2 |" in korean and "점수가 0.8보다 크면" in korean
    assert len(re.findall("[가-힣]+", korean)) > 80 and re.findall(r"[a-z]{3,} [a-z]{3,} [a-z]{3,}", korean) == []


# --- a folder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["heights", "floats", "grey"])
def test_the_example_reads_pictures_as_the_inspector_does(tmp_path: Path, kind: str) -> None:
    """Unmeasured pixels, floating-point maps, grey pictures, names in Korean."""
    rng, path = np.random.default_rng(2), tmp_path / "사진.tif"
    levels = rng.integers(1000, 4000, (SIDE, SIDE))
    span = BYTES
    if kind == "heights":
        span, picture = Range(0, 4095, sentinels=(0.0, 65535.0), fill=1200, depth=16), levels.astype(np.uint16)
        picture[3:6, 3:9], picture[9, 9] = 65535, 0
    elif kind == "floats":
        span, picture = Range(0, 4095, fill=1200, depth=32), levels.astype(np.float32)
        picture[3:6, 3:9] = np.nan
    else:
        picture = (levels // 20).astype(np.uint8)
    images.write(path, picture)
    folder = handmade(tmp_path / "m", span=span)
    (folder / "example.py").write_text(example_script(read_model(folder)))
    done = subprocess.run([sys.executable, folder / "example.py", path], capture_output=True, text=True, timeout=60)
    inspection = fs.Inspector(folder).inspect(images.read(path))
    assert done.stdout == f"score {inspection.score:.4f}, threshold 0.8000: {inspection.verdict}\n", done.stderr


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures as a line leaves them: several formats, one broken, one of another depth."""
    folder = tmp_path_factory.mktemp("line")
    images.write(folder / "ok10.png", spotted(spot=(90, 90, 90)))
    images.write(folder / "ok2.png", spotted(spot=(90, 90, 90)))
    images.write(folder / "shift 2" / "나사.bmp", spotted())
    images.write(folder / "shift 2" / "나사.tif", spotted(spot=(0, 0, 0))[..., 0])
    images.write(folder / "deep.png", spotted().astype(np.uint16) * 257)
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_gets_a_table_and_overlays(model: Path, line: Path, tmp_path: Path) -> None:
    report = inspect(model, line, tmp_path / "out", workers=2)
    with open(report.table, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert report.table.read_bytes().startswith(codecs.BOM_UTF8)
    verdicts = {row["path"]: row["verdict"] for row in rows}
    assert list(verdicts.items()) == [
        ("deep.png", "defect"),
        ("ok2.png", "ok"),
        ("ok10.png", "ok"),
        ("shift 2/나사.bmp", "defect"),
        ("shift 2/나사.tif", "ok"),
        ("torn.jpg", "unreadable"),
    ]
    assert list(rows[0]) == ["path", "score", "threshold", "verdict", "type", "type_score", "problem"]
    assert rows[3]["type"] == "red" and float(rows[3]["score"]) == pytest.approx(0.974, abs=1e-3)
    assert rows[1]["type"] == "" and rows[1]["threshold"] == "0.8"
    assert "torn.jpg" in rows[5]["problem"] and "depth" in rows[0]["problem"]
    assert report.verdicts == {"defect": 2, "ok": 3, "unreadable": 1} and report.defects == {"red": 2}
    assert report.other_depth == 1 and len(report.problems) == 1
    for said in ("6 pictures inspected", "2 called defective (2 red), 3 ok, 1 unreadable", "another bit depth"):
        assert said in report.sentence()
    drawn = {path.relative_to(tmp_path / "out" / "overlays").as_posix() for path in tmp_path.rglob("*.png")}
    assert drawn == {"deep.png", "shift 2/나사.bmp.png"}  # the other 나사 would have the same name
    with pytest.raises(ConfigError, match="--overlays: 'some' is unknown; known: defects, all, none"):
        inspect(model, line, tmp_path / "out", overlays="some")  # type: ignore[arg-type]


def test_where_to_look_and_where_not(model: Path, line: Path, tmp_path: Path) -> None:
    assert [path.name for path in pictures_below(line / "ok2.png")] == ["ok2.png"]
    with pytest.raises(DataError, match="there is no such folder"):
        pictures_below(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no picture; formats that are read: .png"):
        pictures_below(tmp_path)
    images.write(tmp_path / "a.png", spotted())
    for _ in range(2):  # what was written into the folder itself is not inspected the next time
        assert inspect(model, tmp_path, tmp_path / "out", overlays="all").pictures == 1
    assert (tmp_path / "out" / "overlays" / "a.png").is_file()


def test_inspections_do_not_get_into_each_others_way(tmp_path: Path) -> None:
    model = handmade(tmp_path / "m")
    for day in ("2026.01.05", "2026.01.06"):
        images.write(tmp_path / "lot" / day / "a.png", spotted())
    tables = [inspect(model, tmp_path / "lot" / day).table for day in ("2026.01.05", "2026.01.06")]
    assert [path.parent.name for path in tables] == ["2026.01.05-inspection", "2026.01.06-inspection"]
    assert all((path.parent / "overlays" / "a.png").is_file() for path in tables)
    assert inspect(model, tmp_path / "lot", tmp_path / "out").pictures == 2  # overlays are no photographs
    assert inspect(model, tmp_path / "lot" / "2026.01.05", tmp_path / "lot" / "2026.01.05").pictures == 1
    write_model(model, replace(read_model(model), threshold=None))
    inspect(model, tmp_path / "lot" / "2026.01.06")
    assert not list(tables[1].parent.rglob("*.png")), "nothing is called defective now"


def test_a_name_that_is_no_utf8_keeps_the_table(model: Path, tmp_path: Path) -> None:
    name = "사진.png".encode("cp949")
    images.write(tmp_path / "a.png", spotted())
    os.rename(os.fsencode(tmp_path / "a.png"), os.fsencode(tmp_path) + b"/" + name)
    report = inspect(model, tmp_path, tmp_path / "out", overlays="none")
    assert r"\xbb\xe7\xc1\xf8.png" in report.table.read_text("utf-8")


def test_a_model_that_tells_no_types_names_none(model: Path) -> None:
    untyped = replace(read_model(model), outputs=("anomaly_map", "score"))
    assert "likeliest" in card(read_model(model), HeldOut("", {}), None)
    assert "likeliest" not in card(untyped, HeldOut("", {}), None)
    said = InspectedFolder(Path("t"), 3, {"defect": 2, "ok": 1}, {"": 2}, (), 0, 1.0).sentence()
    assert "2 called defective, 1 ok" in said


def test_what_no_delivery_wrote_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "line"
    assert strangers(folder) is None
    for product in ("left", "right"):
        handmade(folder / product)
    (folder / ".DS_Store").touch()
    assert strangers(folder) is None and strangers(folder / "left") is None and not is_whole(folder / "left")
    (folder / "left" / "notes.txt").touch()
    assert strangers(folder) == "left/notes.txt" and strangers(folder / "left") == "notes.txt"
    (folder / "left" / "notes.txt").unlink()
    (folder / "photos").mkdir()
    assert strangers(folder) == "photos"


def test_a_model_without_a_threshold_gives_scores_and_no_verdict(tmp_path: Path, line: Path) -> None:
    report = inspect(handmade(tmp_path / "m", limit=None), line / "ok2.png", tmp_path / "out", overlays="none")
    assert report.verdicts == {"": 1} and "`flawsmith calibrate` sets one" in report.sentence()


def test_overlays_leave_quiet_pixels_alone(model: Path) -> None:
    inspector, picture = fs.Inspector(model), spotted(60)
    shown = overlay(picture, inspector.inspect(picture), inspector.model)
    quiet = picture.mean(2) / 255 < 0.3  # the fixture's normal parts reach 0.3
    assert (shown[quiet] == picture[quiet]).all() and (shown[4, 10] != picture[4, 10]).any()
    faint = spotted(10, (20, 20, 20))
    assert (overlay(faint, inspector.inspect(faint), inspector.model) == faint).all()
    alarmed = overlay(faint, inspector.inspect(faint, threshold=0.01), inspector.model)
    assert (alarmed[4, 10] != 20).any() and (alarmed[0, 0] == 10).all()
    large = np.zeros((1500, 3000), np.uint16)
    assert overlay(large, inspector.inspect(large), inspector.model).shape == (512, 1024, 3)


def test_work_is_given_back_in_order_and_little_is_held() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item * item

    results = in_order(work, range(100), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 4] and len(begun) <= 10
    assert list(results)[-1] == 99 * 99


# --- without torch ------------------------------------------------------------------------------------------------

FORBIDDEN = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "transformers", "onnx"):
            raise ImportError(name + " is forbidden here")

sys.meta_path.insert(0, Forbidden())
from flawsmith.cli import main
for words in ARGUMENTS:
    sys.argv = ["flawsmith", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
"""


def test_inspect_and_calibrate_need_no_torch(tmp_path: Path, line: Path) -> None:
    folder, normals = handmade(tmp_path / "m"), tmp_path / "normals"
    for number in range(6):
        images.write(normals / f"{number}.png", spotted(spot=(90 + number, 90, 90)))
    words = [["inspect", str(folder), str(line), "--out", str(tmp_path / "out")]]
    words += [["calibrate", str(folder), str(normals), "--rate", "0.2"]]
    code = FORBIDDEN.replace("ARGUMENTS", repr(words))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1 unreadable" in done.stdout and "torn.jpg" in done.stderr and "threshold 0.8 -> 0.359477" in done.stdout
    assert len(read_model(folder).history) == 1


def test_the_command_line_refuses_in_a_sentence(
    model: Path, line: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flawsmith import cli

    for words, said in (
        (["inspect", str(model)], "name the FOLDER of pictures, or say --serve"),
        (["inspect", str(model), str(line), "--serve"], "name the FOLDER of pictures, or say --serve"),
        (["inspect", str(line), str(line)], "holds no delivered model"),
        (["calibrate", str(model), str(line), "--rate", "2"], "a false-alarm rate lies above 0 and below 0.5"),
        (["calibrate", str(model), str(line / "ok2.png")], "1 of these pictures can be used, and a threshold takes at"),
        (["deliver", str(line)], "not a flawsmith run"),
    ):
        monkeypatch.setattr("sys.argv", ["flawsmith", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2 and said in capsys.readouterr().err


# --- calibrate ----------------------------------------------------------------------------------------------------


def test_calibrate_sets_the_conformal_quantile_and_keeps_the_old_threshold(tmp_path: Path) -> None:
    folder, normals = handmade(tmp_path / "m"), tmp_path / "normals"
    levels = np.random.default_rng(0).permutation(np.arange(100, 120))
    for level in levels:
        images.write(normals / f"{level}.png", np.full((SIDE, SIDE), level, np.uint8))
    images.write(normals / "learned.png", spotted())
    (normals / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    learned = {"pixels": pixel_hash(normals / "learned.png")}
    write_json(folder / "learned_from.json", {"pictures": [learned]})
    calibration = calibrate(folder, normals, rate=0.1)
    # 20 scores: the ceil(21 x 0.9) = 19th smallest, by hand.
    assert calibration.after.value == pytest.approx(118 / 255, abs=1e-6) and calibration.after.normals == 20
    assert calibration.after.anomaly_map == pytest.approx(
        np.quantile(np.repeat(levels, SIDE * SIDE) / 255, 0.999), abs=1e-6
    )
    counts = {line.what: (line.pictures, line.before, line.after) for line in calibration.table}
    assert counts == {
        "red: missed": (2, 1, 0),
        "false alarms: held-out normal pictures": (2, 1, 1),
        "false alarms: these pictures": (20, 0, 1),
    }
    assert (
        calibration.table[0].cells()[2] == "1 (50.0 %) [1.3, 98.7]" and "set by them" in calibration.table[2].cells()[3]
    )
    assert len(calibration.left_out) == 2 and any("has learned from" in one for one in calibration.left_out)
    after = read_model(folder)
    assert after.threshold == calibration.after and [one.value for one in after.history] == [0.8]
    calibrate(folder, normals)  # the rate stays as it was
    assert [one.false_alarm_rate for one in read_model(folder).history] == [0.05, 0.1]


def test_a_copy_of_a_picture_sets_no_threshold(tmp_path: Path) -> None:
    """Copied forty times, one part would make the others rare: the threshold would call them defective."""
    folder, normals = handmade(tmp_path / "m"), tmp_path / "normals"
    for level in range(100, 110):
        images.write(normals / f"{level}.png", np.full((SIDE, SIDE), level, np.uint8))
    alone = calibrate(folder, normals).after
    for number in range(40):
        images.write(normals / "backup" / f"100 ({number}).bmp", np.full((SIDE, SIDE), 100, np.uint8))
    both = calibrate(folder, normals)
    assert (both.after.value, both.after.normals) == (alone.value, 10)
    (left_out,) = both.left_out
    assert left_out.startswith("40 pictures are left out (") and left_out.endswith("nothing new of the line")


def test_a_calibration_that_fails_changes_nothing(tmp_path: Path) -> None:
    folder, normals = handmade(tmp_path / "m"), tmp_path / "normals"
    for level in range(100, 106):
        images.write(normals / f"{level}.png", np.full((SIDE, SIDE), level, np.uint8))
    (normals / "nowhere.png").symlink_to(tmp_path / "gone.png")
    before = (folder / "model.json").read_bytes()
    held_out = (folder / "held_out.json").read_bytes()
    (folder / "held_out.json").write_text("{")
    with pytest.raises(DataError, match="held_out"):
        calibrate(folder, normals)
    (folder / "held_out.json").write_bytes(held_out)
    images.write(normals / "deep.png", np.full((SIDE, SIDE), 20000, np.uint16))
    with pytest.raises(DataError, match="deep.png: has 16 bits per sample, and the model learned from 8"):
        calibrate(folder, normals)
    assert (folder / "model.json").read_bytes() == before
    (normals / "deep.png").unlink()
    (left_out,) = calibrate(folder, normals).left_out
    assert "nowhere.png" in left_out


def test_many_maps_are_thinned() -> None:
    whole = np.arange(384 * 384, dtype=np.float32).reshape(384, 384)
    assert np.array_equal(subsample(whole, 100), whole.ravel())
    assert len(subsample(whole, 10_000)) * 10_000 <= 1 << 24
    assert float(np.quantile(subsample(whole, 10_000), 0.5)) == pytest.approx(float(np.median(whole)), rel=0.01)


def pixel_hash(path: Path) -> str:
    from flawsmith.data.fingerprints import fingerprint

    return fingerprint(path).pixels


# --- serve --------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(model: Path) -> Iterator[InspectionServer]:
    server = InspectionServer(fs.Inspector(model), port=0, megabytes=0.01, seconds=0.5, connections=2, workers=1)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(server: InspectionServer, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    tree = json.loads(answer.read())
    connection.close()
    return answer.status, tree


def png(picture: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())


def test_a_picture_is_answered_over_http(served: InspectionServer) -> None:
    picture = spotted()
    status, tree = ask(served, "POST", "/inspect", png(picture))
    assert status == 200 and (tree["verdict"], tree["type"], tree["threshold"]) == ("defect", "red", 0.8)
    assert tree["score"] == pytest.approx(served.inspector.inspect(picture).score) and "map" not in tree
    _, tree = ask(served, "POST", "/inspect?map=1", png(picture))
    level = cv2.imdecode(np.frombuffer(base64.b64decode(tree["map"]), np.uint8), cv2.IMREAD_UNCHANGED)
    inspection = tree["map_low"] + level / 255 * (tree["map_high"] - tree["map_low"])
    assert np.abs(inspection - picture.mean(2) / 255).max() < 1 / 255
    status, tree = ask(served, "GET", "/health")
    assert (status, tree["status"], tree["product"], tree["inspected"]) == (200, "ok", "plate", 2)


def test_what_cannot_be_answered_gets_a_sentence_and_a_status(served: InspectionServer) -> None:
    # A PNG of 1 x 1 million pixels is a few kilobytes.
    bomb = cv2.imencode(".png", np.zeros((1, 1_000_000), np.uint8))[1].tobytes()
    assert len(bomb) < served.most_bytes
    for wanted, said, (method, path, body) in (
        (400, "the request: ", ("POST", "/inspect", b"no picture at all")),
        (400, "the request: ", ("POST", "/inspect", b"")),
        (400, "more than the 20000 that are taken here", ("POST", "/inspect", bomb)),
        (413, "are more than the 10485 that are taken", ("POST", "/inspect", b"x" * 3_000_000)),
        (501, "Unsupported method", ("PUT", "/inspect", b"")),
        (404, "POST /inspect and GET /health", ("POST", "/", b"")),
        (404, "POST /inspect and GET /health", ("GET", "/../model.json", None)),
        (405, "POST the bytes", ("GET", "/inspect", None)),
        (405, "GET /health", ("POST", "/health", b"")),
    ):
        status, tree = ask(served, method, path, body)
        assert status == wanted and said in tree["error"] and "\n" not in tree["error"], tree
        if method != "GET" and wanted not in (400, 413):  # as clear when a picture is on its way
            assert ask(served, method, path, b"x" * 3_000_000) == (status, tree)
    assert ask(served, "POST", "/inspect", png(spotted()))[0] == 200  # none of that did harm


def test_limits_of_time_and_number(served: InspectionServer) -> None:
    def opened(words: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", served.server_port), timeout=10)
        connection.sendall(words)
        return connection

    head = b"POST /inspect HTTP/1.1\r\nContent-Length: 100\r\n\r\n"
    slow = [opened(head + b"a"), opened(head)]
    third = opened(b"")
    assert b"503" in third.recv(4096).split(b"\r\n")[0]
    assert all(b"408" in one.recv(4096).split(b"\r\n")[0] for one in slow)
    lacking = opened(b"POST /inspect HTTP/1.1\r\n\r\n")
    assert b"411" in lacking.recv(4096).split(b"\r\n")[0]
    for one in (*slow, third, lacking):
        one.close()


def test_a_head_that_never_ends_keeps_no_place(served: InspectionServer) -> None:
    """A line now and then: each comes in time, all of them do not."""
    slow = [socket.create_connection(("127.0.0.1", served.server_port), timeout=10) for _ in range(2)]
    for one in slow:
        one.sendall(b"POST /inspect HTTP/1.1\r\n")
    begun = time.monotonic()
    while time.monotonic() < begun + 3 * served.seconds:
        time.sleep(served.seconds / 5)
        for one in slow:
            with contextlib.suppress(OSError):  # it was cut off
                one.sendall(b"X: y\r\n")
    assert ask(served, "GET", "/health")[0] == 200
    for one in slow:
        with contextlib.suppress(ConnectionError):
            assert one.recv(4096) == b""
        one.close()


def test_serve_ends_cleanly(model: Path) -> None:
    """From the command line, as a service is run: one line when it is ready, and exit code 0 when it is stopped."""
    command = [sys.executable, "-m", "flawsmith", "inspect", str(model), "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        port = int(ready.split(":")[3].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            assert b'"status": "ok"' in connection.recv(4096) + connection.recv(4096)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and "stopped; pictures inspected: 0" in said and not errors


def test_an_address_that_is_taken_gets_a_sentence(served: InspectionServer) -> None:
    with pytest.raises(ConfigError, match="cannot be served on .* choose another --port"):
        InspectionServer(served.inspector, port=served.server_port)
    with pytest.raises(ConfigError, match="limits .* are above 0"):
        InspectionServer(served.inspector, port=0, seconds=0)
