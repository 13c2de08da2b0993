"""generate.workers: processes paint the bytes that one process paints, and one that dies is said in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import flawsmith as fs
from flawsmith import processes
from flawsmith.config import load_config
from flawsmith.errors import RunError
from flawsmith.processes import cores
from flawsmith.synthesis.batches import workers
from flawsmith.synthesis.paint import Painter

FRAGILE = """
import multiprocessing, os
from flawsmith.generators.crop_paste import CropPaste

class Fragile(CropPaste):
    def sample(self, *args, **kwargs):
        if multiprocessing.parent_process() is not None:
            os._exit(9)
        return super().sample(*args, **kwargs)
"""


@pytest.fixture(scope="module")
def settings(factory_root: Path) -> dict[str, Any]:
    return {
        "data.root": str(factory_root),
        "data.shots": 2,
        "generator.name": "crop_paste",
        "generate.count": 6,
        "generate.batch": 2,
        "measure.enabled": False,
        "prove.enabled": False,
    }


def made(folder: Path, settings: dict[str, Any]) -> fs.Run:
    run = fs.Run.create(folder, load_config(None, settings))
    fs.train(run)
    assert fs.generate(run)
    return run


def results(run: fs.Run) -> dict[str, bytes]:
    names = ("plan.jsonl", "samples.jsonl", "controls.jsonl", "samples/*", "controls/*")
    return {path.relative_to(run.folder).as_posix(): path.read_bytes() for n in names for path in run.folder.glob(n)}


@pytest.fixture(scope="module")
def alone(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return results(made(tmp_path_factory.mktemp("alone") / "run", settings | {"generate.workers": 1}))


def test_two_processes_make_the_bytes_of_one(
    alone: dict[str, bytes], settings: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert results(made(tmp_path / "run", settings | {"generate.workers": 2})) == alone
    assert "Traceback" not in capfd.readouterr().err


def test_auto_begins_here_and_goes_on_in_processes_where_they_pay(
    alone: dict[str, bytes], settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they pay is made a matter of course; before, nothing is started for so little."""
    started: list[int] = []
    real = processes.ProcessPoolExecutor

    def counted(count: int, *args: Any, **kwargs: Any) -> Any:
        started.append(count)
        return real(count, *args, **kwargs)

    monkeypatch.setattr(processes, "ProcessPoolExecutor", counted)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    assert results(made(tmp_path / "few", settings)) == alone
    assert started == []
    monkeypatch.setattr(workers, "_PLACES", 3)
    monkeypatch.setattr(processes, "_TRIAL", 0.0)
    monkeypatch.setattr(processes, "_WORTH", 0.0)
    assert results(made(tmp_path / "many", settings | {"generate.controls": 0})).items() <= alone.items() | {
        ("controls.jsonl", b"")
    }
    assert started == [2, 2]  # those that plan, and those that paint


def test_a_network_paints_while_the_batch_before_is_written(
    settings: dict[str, Any], backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch is written only when the second is being painted: one after the other would wait in vain."""
    batches, second = [], threading.Event()
    paint, write = Painter.paint, workers.write_sample

    def painted(self: Painter, lines: Any) -> Any:
        batches.append(lines)
        if len(batches) == 2:
            second.set()
        return paint(self, lines)

    def written(*arguments: Any) -> Any:
        assert second.wait(60), "nothing was painted while the first batch was to be written"
        assert threading.current_thread() is not threading.main_thread()
        return write(*arguments)

    monkeypatch.setattr(Painter, "paint", painted)
    monkeypatch.setattr(workers, "write_sample", written)
    changes = {"generator.name": "prompt_inpaint", "backbone.source": str(backbone_folder), "windows.size": 64}
    changes |= {"generate.count": 2, "generate.batch": 1, "generate.steps": 1, "generate.controls": 0}
    changes |= {"data.products": ["screw"]}
    made(tmp_path / "run", settings | changes)
    assert len(batches) >= 2  # the sheet of settings is painted afterwards


def test_a_process_that_dies_is_said_and_the_next_call_goes_on(
    alone: dict[str, bytes], settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FLAWSMITH_PLUGINS", "generators.fragile=fragile:Fragile")
    changes = {"generator.name": "fragile", "generate.workers": 2}
    with pytest.raises(RunError, match="a process that worked for it was killed.*run this again, with fewer"):
        made(tmp_path / "run", settings | changes)
    run = made(tmp_path / "run", settings | changes | {"generate.workers": 1})
    pictures = {name: raw for name, raw in results(run).items() if name.endswith(".png")}
    assert pictures == {name: raw for name, raw in alone.items() if name.endswith(".png")}
    assert not list(run.folder.rglob("*.part"))


def test_cores_are_those_that_a_container_and_a_launcher_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(processes, "_CGROUP", quota)
    assert cores() == 12
    quota.write_text("max 100000\n")
    assert cores() == 12
    quota.write_text("450000 100000\n")
    assert cores() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert cores() == 1


def test_a_script_without_a_guard_may_choose(factory_root: Path, tmp_path: Path) -> None:
    """What starts processes does not run the user's script once more in each."""
    script = tmp_path / "mine.py"
    settings = {"data.root": str(factory_root), "data.products": ["magnet"], "data.defects": ["crack"], "data.shots": 2}
    settings |= {"prove.detectors": ["probe"], "prove.size": 64, "prove.budget": 0.02}
    script.write_text(
        "import flawsmith as fs\nprint('begun')\n"
        f"choice = fs.choose(fs.load_config(None, {settings!r}), {str(tmp_path / 'choice')!r}, folds=2, workers=2)\n"
        "print(len(choice.defects))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["begun", "1"]
