"""run/tracker.py: a training is recorded for TensorBoard, wandb or Comet, and learns the same as without."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.errors import ConfigError
from flawsmith.preflight.refuse import preflight
from flawsmith.run.folder import Run
from flawsmith.run.tracker import _PACKAGES, tracked

SMALL = {"data.products": ["magnet"], "train.steps": 4, "generate.steps": 1}


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs the extra tracker, which brings tensorboard")
def test_losses_pictures_and_settings(small_config: dict[str, Any], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain, recorded = (
        fs.Run.create(tmp_path / name, load_config(None, small_config | SMALL | {"train.tracker": name}))
        for name in ("none", "tensorboard")
    )
    for run in (plain, recorded):
        fs.train(run)
    job = "weights/magnet/"
    for name in ("control.safetensors", "losses.json"):
        assert plain.path(job + name).read_bytes() == recorded.path(job + name).read_bytes(), "it changed the training"
    assert not plain.path("tracking").exists()
    (folder,) = recorded.path("tracking").iterdir()
    assert folder.name.startswith("magnet-")
    events = EventAccumulator(str(folder)).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    expected = fs.files.read_json(recorded.path(job + "losses.json"))["losses"]
    assert losses == [(index, pytest.approx(loss)) for index, loss in enumerate(expected)]
    (name,) = events.Tags()["images"]
    shown = events.Images(name)
    assert {event.step for event in shown} == {0, 1, 2, 3}
    picture = np.asarray(Image.open(io.BytesIO(shown[-1].encoded_image_string)))
    size = picture.shape[1] // 3
    shot, ground, made = (picture[:size, size * part : size * (part + 1)] for part in range(3))
    assert (shot != ground).any() and (ground != made).any(), "shot, ground and what is painted are one picture"
    (settings,) = folder.glob("*/hparams.yml")
    assert "train.steps: 4" in settings.read_text()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")  # of Comet itself
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", [name for name in _PACKAGES if name != "tensorboard"])
def test_trackers_that_keep_files_offline(name: str, tmp_path: Path) -> None:
    if find_spec(_PACKAGES[name]) is None:
        pytest.skip(f"needs the extra {name}")
    run = Run.create(tmp_path / "run", load_config(None, {"train.tracker": name}))
    with tracked(run, "all", "f00dbeefcafe") as tracker:
        assert tracker is not None
        tracker.step(0, 0.5, 0.1)
        tracker.pictures("windows", [np.zeros((8, 24, 3), np.uint8)], 0)
    kept = [path for path in run.path("tracking").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) > 500, kept


@pytest.mark.parametrize("name", _PACKAGES)
def test_a_missing_package_is_said_before_training(
    name: str, small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flawsmith.run.tracker.find_spec", lambda _: None)
    config = load_config(None, small_config | SMALL | {"train.tracker": name})
    assert [line for line in preflight(config, None) if "train.tracker" in line]
    run = Run.create(tmp_path / "run", config)
    with pytest.raises(ConfigError, match=rf'train.tracker: "{name}" needs its package: pip install "flawsmith\['):
        fs.train(run)
    assert not run.path("weights").exists() and not run.path("tracking").exists()
