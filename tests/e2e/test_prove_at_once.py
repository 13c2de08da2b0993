"""Trainings of a proof in processes of their own: what comes of them, how many there may be, and when one is killed."""

from __future__ import annotations

import json
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import flawsmith as fs
from flawsmith import processes
from flawsmith.cli import main
from flawsmith.config import load_config
from flawsmith.data import factory
from flawsmith.errors import RunError
from flawsmith.evaluation import at_once
from flawsmith.pipeline import prove
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train

HEAD = {"steps": 20, "places": 256, "views": 1}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    for number, product in enumerate(("magnet", "screw")):
        factory.write_dataset(root, product, ("chip",), normals=6, per_defect=5, seed=number, size=64, test_normals=4)
    return root


def made_run(folder: Path, parts: Path, workers: int | str) -> fs.Run:
    """Return a run of two products, ready to be proven."""
    table: dict[str, Any] = {
        "data.root": str(parts),
        "data.shots": 2,
        "generator.name": "crop_paste",
        "generate.count": 2,
        "generate.controls": 0.0,
        "prove.against": [],
        "prove.curve": [],
        "prove.seeds": 1,
        "prove.size": 64,
        "prove.detectors": ["probe"],
        "prove.settings": {"probe": HEAD, "patchcore": {"memory": 100, "draw": 1000}},
        "prove.resamples": 100,
        "prove.workers": workers,
    }
    run = fs.Run.create(folder, load_config(None, table))
    train(run)
    generate(run)
    return run


def figures_of(tree: Any, name: str = "") -> dict[str, float]:
    """Return every number of a tree of JSON by where it stands."""
    if isinstance(tree, dict):
        return {key: one for word, part in tree.items() for key, one in figures_of(part, f"{name}/{word}").items()}
    if isinstance(tree, list):
        return {key: one for place, part in enumerate(tree) for key, one in figures_of(part, f"{name}/{place}").items()}
    return {name: float(tree)} if isinstance(tree, int | float) else {}


def test_processes_prove_what_one_does(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two products; the features are computed there too, and nothing of them stays."""
    begun: list[int] = []

    class Counted(ProcessPoolExecutor):
        def __init__(self, count: int, *arguments: Any, **named: Any) -> None:
            begun.append(count)
            super().__init__(count, *arguments, **named)

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Counted)
    trees, threads = [], torch.get_num_threads()
    for workers in (1, 2):
        run = made_run(tmp_path / str(workers), parts, workers)
        prove(run)
        trees.append(json.loads(run.path("proof.json").read_text())["products"])
        assert not [*run.path("state", "features").rglob("*.npz")]
        assert not at_once._TRAINERS, "pictures stay in memory"
    assert begun == [2, 2], "features first, then trainings"
    assert torch.get_num_threads() == threads
    one, two = map(figures_of, trees)
    assert one.keys() == two.keys() and len(one) > 500
    assert [key for key in one if two[key] != pytest.approx(one[key], abs=1e-3, rel=1e-3)] == []
    progress_lines = capsys.readouterr().err
    assert "prove, features: 26/26 " in progress_lines and "screw, none, seed 0" in progress_lines
    assert "prove, intervals: " in progress_lines


@pytest.mark.parametrize(("left", "count"), [(0.0, 1), (3.2e9, 1), (5.2e9, 2), (math.inf, 7)])
def test_there_are_as_many_as_cores_and_memory_allow(left: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 7)
    monkeypatch.setattr(processes, "memory_left", lambda: left)
    assert at_once._most(load_config(None, {"backbone.device": "cpu"}), 65_000_000) == count
    assert at_once._most(load_config(None, {"backbone.device": "cuda"}), 65_000_000) == 1


def test_memory_left_is_the_least_that_anybody_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(processes, "_CONTAINER", tmp_path)
    assert processes.memory_left() == math.inf
    (tmp_path / "meminfo").write_text("MemTotal:       9000000 kB\nMemAvailable:   4000000 kB\nBuffers: 1 kB\n")
    assert processes.memory_left() == 4_096_000_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert processes.memory_left() == 4_096_000_000
    (tmp_path / "memory.max").write_text("2000001000\n")
    assert processes.memory_left() == 2_000_000_000


@pytest.mark.parametrize(("load", "asked", "policy"), [(0.1, None, None), (3.0, None, "passive"), (3.0, "a", "a")])
def test_threads_rest_where_something_else_runs(
    load: float, asked: str | None, policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command says so before torch is loaded, unless the person has said something."""
    monkeypatch.setattr(os, "environ", {**os.environ})
    os.environ.pop("OMP_WAIT_POLICY", None)
    if asked is not None:
        os.environ["OMP_WAIT_POLICY"] = asked
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(sys, "argv", ["flawsmith", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_a_killed_process_is_one_sentence(parts: Path, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", parts, 2)
    with pytest.raises(RunError, match=r"run: a process that worked for it was killed.*fewer prove\.workers if"):
        list(at_once._Here(run, 2, 0)(os._exit, [(3,), (3,)], network=True))
