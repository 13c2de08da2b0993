"""A small run of factory parts with samples and controls, and a recorder of what a training is shown."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may wait for a hub

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with 8 samples and 4 controls of a surface, screened by nobody, exported; 8 + 10 test pictures are kept."""
    from flawsmith.data import factory

    root = tmp_path_factory.mktemp("parts")
    factory.write_dataset(root, "magnet", ("crack", "chip"), normals=12, per_defect=8, seed=1, size=96, test_normals=8)
    return run_on(root, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="session")
def sixteen_bit_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same of grey photographs of 12 bits in 16."""
    import numpy as np

    from flawsmith.data import factory, images

    root = tmp_path_factory.mktemp("deep")
    factory.write_dataset(root, "magnet", ("crack",), normals=6, per_defect=6, seed=2, size=64, test_normals=3)
    for path in root.rglob("*.png"):
        if "ground_truth" not in path.parts:
            images.write(path, images.read(path).mean(2).astype(np.uint16) * 16)
    return run_on(root, tmp_path_factory.mktemp("runs") / "deep")


@pytest.fixture(scope="session")
def run_without_shots(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that learned from normal parts alone; 8 + 5 test pictures are kept."""
    from flawsmith.data import factory

    root = tmp_path_factory.mktemp("undamaged")
    factory.write_dataset(root, "magnet", ("crack",), normals=6, per_defect=5, seed=3, size=64, test_normals=8)
    return run_on(root, tmp_path_factory.mktemp("runs") / "run", **{"data.shots": 0, "generator.name": "nsa"})


def run_on(root: Path, folder: Path, **more: Any) -> Any:
    import flawsmith as fs
    from flawsmith.config import load_config

    table: dict[str, Any] = {
        "data.root": str(root),
        "data.shots": 3,
        "generator.name": "crop_paste",
        "generate.count": 4,
        "generate.controls": 0.5,
        "screen.enabled": False,
        "measure.enabled": False,
        "prove.against": [],
        "prove.curve": [],
        "prove.seeds": 1,
        "prove.size": 64,
        "prove.resamples": 200,
    }
    run = fs.Run.create(folder, load_config(None, table | more))
    fs.train(run)
    fs.generate(run)
    fs.export(run)
    return run


@pytest.fixture
def quick_engine(tmp_path: Path) -> Any:
    """Return a maker of Anomalib's Engine that trains on the CPU and says little."""

    def make(epochs: int | None = None, **more: Any) -> Any:
        from anomalib.engine import Engine

        if epochs is not None:
            more["max_epochs"] = epochs
        return Engine(
            accelerator="cpu",
            devices=1,
            logger=False,
            default_root_dir=tmp_path / "anomalib",
            enable_progress_bar=False,
            enable_model_summary=False,
            **more,
        )

    return make
