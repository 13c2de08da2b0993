"""Any model of Anomalib, trained and asked through Anomalib's own API. Needs `pip install "flawsmith[anomalib]"`.

The model learns from the same pictures as every other detector and its raw map and score enter the same exact metrics:
Anomalib's own normalisation, thresholds and evaluation are left out, for they look at a validation set. Models that
learn from normal parts alone get those alone; models that learn from damage too (`Supersimplenet` with `arguments =
{supervised = true}`) get every picture with its mask. A model scales squares to its own size, as Anomalib does; what is
not square it takes as it is, unless its network has one size alone.

Pretrained weights come from a hub or its cache. `backbone = "efficientnet-lite0"` asks no hub: it is flawsmith's own
extractor, for the models of `TAKES_OFFLINE`.

Akcay et al., "Anomalib: A Deep Learning Library for Anomaly Detection", ICIP 2022.
"""

from __future__ import annotations

import contextlib
import inspect
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
from flawsmith.errors import ConfigError, DataError, FlawsmithError, nearest
from flawsmith.interfaces import Detector
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.named_maps import NamedMaps
from flawsmith.types import Prediction

OFFLINE, LAYERS = "efficientnet-lite0", ("stride8", "stride16")
"""A backbone that is on every machine, and what of it is taken where no layers are named."""
TAKES_OFFLINE: dict[str, dict[str, Any]] = {
    "Padim": {"n_features": 100},
    "Patchcore": {},
    "Supersimplenet": {},
}
"""Models that take it -> arguments that they then need. Others know their backbones by name or train a copy of it."""
_CHUNK = 8
_OURS = {"pre_processor", "post_processor", "evaluator", "visualizer"}
"""Arguments of every model that the proof sets itself."""
_FOLDERS = {"dtd_dir", "imagenet_dir", "anomaly_source_path"}
"""Arguments that name a folder of pictures, which a model downloads where there is none."""
_UNTRAINED = {"zero_shot", "few_shot"}
"""Ways of learning that need no training, as Anomalib calls them."""


class AnomalibSettings(config.Settings):
    """Which model, and how long."""

    model: str = "Patchcore"
    """Name of the model's class in anomalib.models: Patchcore, Padim, Stfpm, Supersimplenet, ..."""
    arguments: dict[str, Any] = {}
    """Its own arguments: {backbone = "efficientnet-lite0"} needs no hub; other pretrained weights come from one."""
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
        models = models_of_pictures()
        name = self.settings.model
        if name not in models:
            alike = {known.lower(): known for known in models}.get(name.lower())
            hint = f"; did you mean {alike!r}?" if alike else nearest(name, models)
            raise ConfigError(f"anomalib.model: {name!r} is no model for pictures of anomalib.models{hint}")
        self._class = models[name]
        known = arguments_of(self._class)
        for argument in self.settings.arguments:
            if argument not in known:
                raise ConfigError(f"anomalib.arguments: {name} has no {argument!r}{nearest(argument, known)}")
        if self._stands_on_ours() and name not in TAKES_OFFLINE:
            raise ConfigError(f"anomalib.arguments: {name} cannot stand on {OFFLINE}; {', '.join(TAKES_OFFLINE)} can")

    def _stands_on_ours(self) -> bool:
        return self.settings.arguments.get("backbone") == OFFLINE

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
            try:
                engine.fit(model, train_dataloaders=loader)
            except FlawsmithError:
                raise
            except Exception as error:  # a model says in its own way, or torch does, that pictures are too small for it
                rows, columns = training.shape
                raise DataError(
                    f"anomalib's {self.settings.model} cannot be trained on these {len(pictures)} pictures of "
                    f"{rows} x {columns} pixels ({type(error).__name__}: {error}); change prove.size or its arguments"
                ) from error
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
        if self._stands_on_ours():
            more = {"layers": list(LAYERS)} | TAKES_OFFLINE[self.settings.model]
            given = more | given | {"backbone": NamedMaps(load_extractor(OFFLINE))}
        try:
            if shape[0] != shape[1]:  # left to itself it would squash them to its square
                given = {"pre_processor": self._class.configure_pre_processor(shape)} | given
            model = self._class(post_processor=False, evaluator=False, visualizer=False, **given)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"anomalib.arguments: {self.settings.model} does not take them: {error}") from error
        except OSError as error:
            raise ConfigError(
                f"anomalib's {self.settings.model} wants files that are not on this machine ({error}); "
                f"{without_hub(self._class)}"
            ) from error
        if model.learning_type.value in _UNTRAINED:
            raise ConfigError(f"anomalib.model: {self.settings.model} is not trained, so samples can teach it nothing")
        return model


def models_of_pictures() -> dict[str, Any]:
    """Return Anomalib's models for pictures, by the names of their classes.

    Raises:
        ConfigError: Anomalib cannot be imported.
    """
    try:
        with _quiet():
            base = import_module("anomalib.models").AnomalibModule
            images = import_module("anomalib.models.image")
    except Exception as error:  # a torchvision that does not fit torch raises RuntimeError
        raise ConfigError(
            f"the detector anomalib: its package cannot be imported ({error}); install a torchvision that fits torch"
        ) from error
    classes = {name: getattr(images, name) for name in dir(images)}
    return {name: one for name, one in classes.items() if isinstance(one, type) and issubclass(one, base)}


def arguments_of(model: Any) -> set[str]:
    """Return the names of a model's arguments that a user may set."""
    return set(inspect.signature(model).parameters) - _OURS


def without_hub(model: Any) -> str:
    """Return what can be done where a model's files are not to be had, as a clause that ends a sentence."""
    known = arguments_of(model)
    ways = ["put them into the hub's cache"]
    if model.__name__ in TAKES_OFFLINE:
        ways.append(f'set arguments = {{backbone = "{OFFLINE}"}}')
    if "pre_trained" in known:
        ways.append("set arguments = {pre_trained = false}, which leaves its weights at random")
    if folders := sorted(known & _FOLDERS):
        ways.append(f"name a folder of them: arguments = {{{folders[0]} = ...}}")
    return ", or ".join(ways)


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
