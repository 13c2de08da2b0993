"""What training tells an experiment tracker: losses, pictures and settings, in RUN/tracking/; `train.tracker`.

accelerate's trackers do the writing. Nothing leaves the machine: wandb and Comet keep their offline files, which their
own commands (`wandb sync`, `comet upload`) send where the user wants them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith.errors import ConfigError, RunError
from flawsmith.run.folder import Run

_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "comet": "comet_ml"}
"""Tracker -> the package that it needs."""
_NO_REPORTS = {"WANDB_ERROR_REPORTING": "false", "COMET_INTERNAL_SENTRY_DSN": ""}
"""Environment in which these packages do not send their makers what goes wrong in them."""


class Tracker:
    """Records one model's training with one of accelerate's trackers.

    Args:
        writer: accelerate's tracker, started.
        show: How it takes pictures: (name, pictures, step).
    """

    def __init__(self, writer: Any, show: Callable[[str, Sequence[np.ndarray], int], None]) -> None:
        self._writer, self._show = writer, show

    def step(self, index: int, loss: float, seconds: float) -> None:
        """Record a training step; `index` counts from 0."""
        self._writer.log({"loss": loss, "seconds per step": seconds}, step=index)

    def pictures(self, name: str, pictures: Sequence[np.ndarray], index: int) -> None:
        """Record pictures, each uint8 (H,W,3) RGB and of one size, as they were at a step."""
        self._show(name, pictures, index)


def require_tracker(name: str) -> None:
    """Refuse a `train.tracker` whose package is missing.

    Raises:
        ConfigError: says how to install it.
    """
    if name != "none" and find_spec(_PACKAGES[name]) is None:
        extra = "tracker" if name == "tensorboard" else name
        raise ConfigError(f'train.tracker: "{name}" needs its package: pip install "flawsmith[{extra}]"')


@contextmanager
def tracked(run: Run, job: str, stamp: str) -> Iterator[Tracker | None]:
    """Record a training while the block runs; None = `train.tracker` is "none".

    Args:
        run: Its folder gets tracking/.
        job: The model's name.
        stamp: Identifies the training: one that goes on after a kill is recorded in the same place.

    Raises:
        ConfigError: the tracker's package is missing.
        RunError: the tracker cannot begin.
    """
    name = run.config.train.tracker
    if name == "none":
        yield None
        return
    require_tracker(name)
    folder, title = run.path("tracking"), f"{job.replace('/', '-')}-{stamp[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        writer = _writer(name, folder, title, run.folder.name)
        writer.start()
        writer.store_init_configuration(dict(_flat(run.config.model_dump(mode="json"))))
    except Exception as error:  # a service of its own: whatever it raises
        raise RunError(f"train.tracker: {name} cannot begin in {folder}: {' '.join(str(error).split())}") from error
    try:
        yield Tracker(writer, _shower(name, writer))
    finally:
        writer.finish()


def _writer(name: str, folder: Path, title: str, project: str) -> Any:
    # accelerate takes a second, and most runs have no tracker.
    from accelerate import PartialState, tracking

    PartialState()  # its log refuses to work without
    os.environ.update(_NO_REPORTS)
    if name == "tensorboard":
        return tracking.TensorBoardTracker(title, str(folder))
    if name == "wandb":
        quiet = {"silent": True, "disable_git": True}
        return tracking.WandBTracker(project, mode="offline", dir=str(folder), name=title, settings=quiet)
    import comet_ml

    kept = comet_ml.ExperimentConfig(
        name=title, offline_directory=str(folder), log_code=False, log_git_metadata=False, log_git_patch=False
    )
    return tracking.CometMLTracker(project, online=False, experiment_config=kept)


def _shower(name: str, writer: Any) -> Callable[[str, Sequence[np.ndarray], int], None]:
    """Return how a tracker takes pictures, which each does in its own way."""

    def show(title: str, pictures: Sequence[np.ndarray], index: int) -> None:
        if name == "tensorboard":
            writer.log_images({title: np.stack(pictures)}, step=index, dataformats="NHWC")
        elif name == "wandb":
            writer.log_images({title: list(pictures)}, step=index)
        else:
            for picture in pictures:
                writer.tracker.log_image(picture, name=title, step=index)

    return show


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    """Yield dotted name and value of every setting; what is no number and no text as text."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str | int | float | bool) else str(value)
