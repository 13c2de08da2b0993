"""Which jobs' weights stay loaded: a few small ones; large ones one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from flawsmith.config import load_config
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.synthesis import painters
from flawsmith.synthesis.train import train

JOBS = ("magnet/chip", "magnet/crack", "screw/bend")


@pytest.fixture
def run(factory_root: Path, tmp_path: Path) -> Run:
    """A run with a job for each of three defect types."""
    settings = {
        "data.root": str(factory_root),
        "data.shots": 1,
        "train.scope": "defect",
        "generator.name": "crop_paste",
    }
    run = Run.create(tmp_path / "run", load_config(None, settings))
    train(run)
    return run


def loaded_anew(run: Run) -> list[str]:
    """Return the jobs that are loaded a second time when all are painted twice, one after the other."""
    given = painters.Painters(run.config, open_dataset(run), None, run.path("weights"))
    first = [given.of(job).generator for job in JOBS]
    return [job for job, generator in zip(JOBS, first, strict=True) if given.of(job).generator is not generator]


def test_small_weights_are_loaded_once(run: Run) -> None:
    assert loaded_anew(run) == []


def test_large_weights_are_kept_one_at_a_time(run: Run) -> None:
    for job in JOBS:
        with open(run.path("weights", job, "large.safetensors"), "wb") as file:
            file.truncate(painters._KEPT_BYTES)  # a file of holes
    assert loaded_anew(run) == list(JOBS)


def test_no_more_than_a_few_jobs_are_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painters, "_KEPT_JOBS", 2)
    assert JOBS[0] in loaded_anew(run)
