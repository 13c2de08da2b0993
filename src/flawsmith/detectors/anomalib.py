"""Any model of Anomalib, trained and asked through Anomalib's own API. Needs `pip install "flawsmith[anomalib]"`.

The model learns from the same pictures as every other detector and its raw map and score enter the same exact metrics:
Anomalib's own normalisation, thresholds and evaluation are left out, for they look at a validation set. Models that
learn from normal parts alone get those alone; models that learn from damage too (`arguments = {supervised = true}` of
SuperSimpleNet) get every picture with its mask. A model scales squares to its own size, as Anomalib does; what is not
square it takes as it is, unless its network has one size alone.

Akcay et al., "Anomalib: A Deep Learning Library for Anomaly Detection", ICIP 2022.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import tempfile
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flawsmith import config
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import ConfigError, DataError
from flawsmith.interfaces import Detector
from flawsmith.types import Prediction

_CHUNK = 8


class AnomalibSettings(config.Settings):
    """Which model, and how long."""

    model: str = "Patchcore"
    """Name of the model's class in anomalib.models: Patchcore, Padim, Stfpm, SuperSimpleNet, ..."""
    arguments: dict[str, Any] = {}
    """Its own arguments: {backbone = "resnet18"}; pretrained weights come from a hub or its cache."""
    epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs; 0 = the model's own number, or Lightning's 1000."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Pictures per step."""


class Anomalib(Detector):
    """A model of anomalib.models; tells localization and detection."""

    Settings: ClassVar[type[config.Settings]] = AnomalibSettings
    tells: ClassVar[frozenset[str]] = frozenset({"localization", "detection"})
    needs_damage: ClassVar[bool] = False
    settings: AnomalibSettings

    _model: Any = None

    def prepare(self) -> None:
        if find_spec("anomalib") is None:
            raise ConfigError(
                'the detector anomalib needs its package, which is absent: pip install "flawsmith[anomalib]"'
            )
        with _quiet():
            self._class = getattr(import_module("anomalib.models"), self.settings.model, None)
        if not isinstance(self._class, type):
            raise ConfigError(f"anomalib.model: {self.settings.model!r} is no class of anomalib.models")

    def reduced(self, budget: float) -> str:
        if budget >= 1 or not self.settings.epochs:
            return ""
        return f"anomalib's {self.settings.model} trains {self._epochs(budget)} epochs, not {self.settings.epochs}"

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        if not training.normal("real") and not training.normal():
            raise DataError("anomalib's models learn what normal parts look like, and the training set holds none")
        with _quiet():
            from anomalib.engine import Engine

        seed = int(torch.randint(2**31 - 1, (1,), generator=rng))
        epochs = {"max_epochs": self._epochs(budget)} if self.settings.epochs else {}
        with _quiet(), _streams(seed), tempfile.TemporaryDirectory() as folder:
            model = self._made(training.shape)
            pictures = _Pictures(training, damaged=bool(getattr(model, "supervised", False)))
            order = torch.Generator().manual_seed(seed)
            loader = DataLoader(
                pictures, self.settings.batch, shuffle=True, generator=order, collate_fn=pictures.collate, num_workers=0
            )
            engine = Engine(
                accelerator="gpu" if self.device.startswith("cuda") else "cpu",
                devices=1,
                logger=False,
                default_root_dir=folder,
                enable_progress_bar=False,
                enable_model_summary=False,
                **epochs,
            )
            engine.fit(model, train_dataloaders=loader)
            self._model = model.eval().to(self.device)
        yield 1.0

    @torch.no_grad()
    def predict(self, image: Tensor) -> Prediction:
        if self._model is None:
            raise DataError("anomalib's model was asked before it was trained; call fit first")
        anomaly_maps, scores = [], []
        for chunk in image.split(_CHUNK):
            said = self._model(_plain(chunk).to(self.device))
            anomaly_map = said.anomaly_map.float().cpu().reshape(len(chunk), 1, *said.anomaly_map.shape[-2:])
            if anomaly_map.shape[-2:] != image.shape[-2:]:
                anomaly_map = torch.nn.functional.interpolate(
                    anomaly_map, image.shape[-2:], mode="bilinear", align_corners=False
                )
            anomaly_maps.append(anomaly_map)
            scores.append(said.pred_score.float().cpu().reshape(len(chunk)))
        return Prediction(torch.cat(anomaly_maps), torch.cat(scores))

    def _epochs(self, budget: float) -> int:
        return max(1, round(self.settings.epochs * budget))

    def _made(self, shape: tuple[int, int]) -> Any:
        assert self._class is not None
        given = dict(self.settings.arguments)
        if shape[0] != shape[1]:  # left to itself it would squash them to its square
            given = {"pre_processor": self._class.configure_pre_processor(shape)} | given
        try:
            return self._class(post_processor=False, evaluator=False, visualizer=False, **given)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"anomalib.arguments: {self.settings.model} does not take them: {error}") from error
        except OSError as error:
            raise ConfigError(
                f"anomalib's {self.settings.model} wants pretrained weights that are not on this machine ({error}); "
                "put them into the hub's cache, or set arguments = {pre_trained = false}"
            ) from error


class _Pictures(Dataset[Any]):
    """A training set as Anomalib's items."""

    name, category = "flawsmith", ""

    def __init__(self, training: TrainingSet, *, damaged: bool) -> None:
        from anomalib.data import ImageBatch

        self._training = training
        self._places = [*(training.normal("real") or training.normal())]
        if damaged:
            self._places += [*training.normal("control"), *training.damaged()]
        self.collate = ImageBatch.collate

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: int) -> Any:
        from anomalib.data import ImageItem

        batch = self._training.batch([self._places[place]])
        mask = batch.mask[0, 0].bool()
        return ImageItem(image=_plain(batch.image)[0], gt_mask=mask, gt_label=mask.any(), image_path="")


@contextlib.contextmanager
def _streams(seed: int) -> Iterator[None]:
    """Anomalib draws from the global streams: set them, and give them back afterwards."""
    ours, theirs = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(ours)
            random.setstate(theirs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's banners and foreign progress bars out of ours; errors still come, as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    try:
        with warnings.catch_warnings(), out, err:
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _plain(image: Tensor) -> Tensor:
    """Turn [-1,1] into the [0,1] that Anomalib's pre-processors expect."""
    return (image + 1) / 2
