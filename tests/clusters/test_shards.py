"""A run in parts: nobody loops over rounds by hand, and the bytes are those of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.errors import RunError
from flawsmith.pipeline import run_shard
from flawsmith.run import folder
from flawsmith.run.shard import Shard


@pytest.fixture(scope="module")
def settings(factory_root: Path) -> dict[str, Any]:
    """Real shots pasted, half of them rejected, one more round."""
    return {
        "data.root": str(factory_root),
        "data.products": ["screw"],
        "data.shots": 2,
        "generator.name": "crop_paste",
        "generate.count": 4,
        "generate.batch": 1,
        "screen.enabled": True,
        "screen.rounds": 1,
        "screen.normals": 2,
        "screen.thresholds": {"realism.tokens": {"keep": 0.5}, "seam": "off"},
        "measure.enabled": False,
        "prove.enabled": False,
        "export.formats": [],
    }


@pytest.fixture(scope="module")
def whole(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    """All in one process."""
    run = fs.Run.create(tmp_path_factory.mktemp("whole") / "run", load_config(None, settings))
    fs.run_all(run)
    return run


@pytest.fixture(scope="module")
def shared(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[fs.Run, list[Path | None]]:
    """Three shards one after another, the last first, and one of them again; with what each returned."""
    run = fs.Run.create(tmp_path_factory.mktemp("shared") / "run", load_config(None, settings))
    return run, [run_shard(run, Shard(number, 3)) for number in (2, 0, 0, 1)]


def results(run: fs.Run) -> dict[str, bytes]:
    names = ("plan.jsonl", "scores.jsonl", "rounds.json", "samples/*", "controls/*")
    return {path.relative_to(run.folder).as_posix(): path.read_bytes() for n in names for path in run.folder.glob(n)}


def test_the_last_shard_does_all_that_comes_after(
    shared: tuple[fs.Run, list[Path | None]], whole: fs.Run, settings: dict[str, Any]
) -> None:
    run, reports = shared
    assert reports == [None, None, None, run.path("report.html")]
    assert len(run.plan()) > 4 and run.stage_hash("screen")  # a round was asked for, and made
    assert results(run) == results(whole)
    assert [row.to_json() for row in run.samples()] == [row.to_json() for row in whole.samples()]
    assert [row.to_json() for row in run.controls()] == [row.to_json() for row in whole.controls()]
    for number in range(3):
        ours = run.path(f"samples.{number}-of-3.jsonl").read_text().splitlines()
        assert len(ours) == len([batch for batch in range(4) if batch in Shard(number, 3)])


def test_a_shard_that_comes_late_changes_nothing(shared: tuple[fs.Run, list[Path | None]]) -> None:
    run, _ = shared
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.*") if "lock" not in path.name}
    assert run_shard(run, Shard(0, 3)) == run.path("report.html")
    after = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.*") if "lock" not in path.name}
    assert after == before


@pytest.mark.parametrize("held", [("closing",), ("generate",)])
def test_a_shard_ends_well_where_another_process_does_what_is_left(
    held: tuple[str, ...], shared: tuple[fs.Run, list[Path | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = shared
    monkeypatch.setattr(folder, "_ENTERING", 0.1)
    with run.alone(*held):
        assert run_shard(run, Shard(1, 3)) is None


def test_nobody_makes_the_same_shard(shared: tuple[fs.Run, list[Path | None]]) -> None:
    run, _ = shared
    with run.alone("generate", "1-of-3"), pytest.raises(RunError, match="is at generate, shard 1-of-3 of this run"):
        run_shard(run, Shard(1, 3))
