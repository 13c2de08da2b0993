"""A run folder of release 0.1 is refused with one sentence by every door, and not a byte of it changes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flawsmith as fs
from flawsmith import cli
from flawsmith.data import images
from flawsmith.errors import RunError
from flawsmith.files import write_json, write_lines

SENTENCE = (
    "{folder}: is a run of an earlier release of flawsmith, whose files this one does not read; its pictures, export "
    "and report stay as they are: start a new run with --out ANOTHER-FOLDER"
)
VERBS = ("train", "generate", "screen", "measure", "prove", "export", "report")
OLD_CONFIG: dict[str, Any] = {
    "seed": 0,
    "data": {"root": "data", "kinds": []},
    "generator": {"name": "crop_paste", "settings": {}},
    "generate": {"count": 1, "shams": 0.5, "say": ""},
    "prove": {"shams": 0.5, "twins": "drop"},
    "report": {"per_kind": 12},
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """What release 0.1 left of a run, by hand: manifest without "format", lines with the words of then."""
    folder = tmp_path / "old"
    write_json(folder / "config.json", OLD_CONFIG)
    stages = {name: {"hash": "0123456789abcdef", "finished": "2026-06-01T10:00:00Z"} for name in VERBS}
    write_json(folder / "gate" / "gate.json", {"version": 1, "products": {"tile": {"kinds": ["crack"]}}})
    write_json(folder / "manifest.json", {"python": "3.11.7", "packages": {"flawsmith": "0.1.0"}, "stages": stages})
    normal = {"id": "tile/train/good/0.png", "image": "data/0.png", "product": "tile", "kind": None, "mask": None}
    groups = {"shots": [], "sound": [normal], "test_defects": [], "test_sound": []}
    write_json(folder / "data.json", {"hash": "h", "notes": [], "warnings": [], **groups})
    line = {"index": 0, "batch": 0, "job": "tile", "product": "tile", "kind": "crack", "seed": 5, "masks": "shots"}
    line |= {"sound": normal["id"], "shot": "tile/test/crack/0.png"}
    write_lines(folder / "plan.jsonl", [line])
    made = {"status": "made", "image": "samples/000000.png", "mask": "samples/000000.mask.png", "painted_share": 0.9}
    write_lines(folder / "samples.jsonl", [line | made])
    write_lines(folder / "shams.jsonl", [{**line, **made, "twin": 0, "image": "shams/000000.png"}])
    write_lines(folder / "scores.jsonl", [{"name": "000000", "kind": "crack", "kept": True, "reasons": []}])
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    for name in ("samples", "shams"):
        images.write(folder / name / "000000.png", pixels)
    images.write_mask(folder / "samples" / "000000.mask.png", np.eye(32, dtype=bool))
    (folder / "report.html").write_text("<!doctype html>")
    (folder / f".samples.jsonl.{'x' * 8}-4194304.part").write_text("of another machine")
    return folder


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file, and which folders there are."""
    paths = sorted(folder.rglob("*"))
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in paths
    }


@pytest.mark.parametrize(
    "door", [fs.Run.open, lambda folder: fs.Run.create(folder, fs.Config())], ids=["open", "create"]
)
def test_python_refuses_it(door: Callable[[Path], object], old: Path) -> None:
    before = everything(old)
    with pytest.raises(RunError) as caught:
        door(old)
    assert str(caught.value) == SENTENCE.format(folder=old)
    assert everything(old) == before


@pytest.mark.parametrize("verb", ["run", *VERBS])
def test_the_command_line_refuses_it(
    verb: str, old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(old)
    (old.parent / "my.toml").write_text("seed = 1\n")
    words = ["run", str(old.parent / "my.toml"), "--out", str(old)] if verb == "run" else [verb, str(old)]
    monkeypatch.setattr(sys, "argv", ["flawsmith", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == ""
    assert err == f"flawsmith: {SENTENCE.format(folder=old)}\n"
    assert everything(old) == before


def test_its_gate_judges_no_more(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(old)
    monkeypatch.setattr(sys, "argv", ["flawsmith", "screen", "--replay", str(old), str(old / "samples")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said == f"flawsmith: {old}/gate/gate.json: not a gate of this version; screen its run again\n"
    assert everything(old) == before


def test_a_rival_of_then_does_not_slip_in(old: Path, tmp_path: Path) -> None:
    """A proof opens the runs of other generators below arms/: one of then is refused as well."""
    run = fs.Run.create(tmp_path / "new", fs.Config())
    run.path("arms").mkdir()
    old.rename(run.path("arms", "crop_paste"))
    with pytest.raises(RunError, match="earlier release"):
        fs.Run.create(run.path("arms", "crop_paste"), run.config)


@pytest.mark.parametrize("format", [1, 3, "2", None])
def test_another_format_is_refused(format: Any, tmp_path: Path) -> None:
    run = fs.Run.create(tmp_path / "run", fs.Config())
    assert json.loads(run.path("manifest.json").read_text())["format"] == 2
    manifest = json.loads(run.path("manifest.json").read_text())
    write_json(run.path("manifest.json"), manifest | {"format": format})
    with pytest.raises(RunError, match="release"):
        fs.Run.open(run.folder)
