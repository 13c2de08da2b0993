"""A small run of factory parts with samples and controls, and a recorder of what a training is shown."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may wait for a hub

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with 8 samples and 4 controls of a surface, screened by nobody, and 8 + 10 test pictures kept."""
    import flawsmith as fs
    from flawsmith.config import load_config
    from flawsmith.data import factory

    root = tmp_path_factory.mktemp("parts")
    factory.write_dataset(root, "magnet", ("crack", "chip"), normals=12, per_defect=8, seed=1, size=96, test_normals=8)
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
    run = fs.Run.create(tmp_path_factory.mktemp("runs") / "run", load_config(None, table))
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
