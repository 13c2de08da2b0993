"""Every registered detector keeps every promise of the contract: no skip list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from flawsmith import registry
from flawsmith.config import Settings
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import ConfigError, DataError
from flawsmith.interfaces import Detector
from flawsmith.testing import DETECTOR_CHECKS, check_detector, example_training, tiny_extractor
from flawsmith.types import Prediction

DETECTORS = sorted(registry.entries("detectors"))
OPTIONAL = {"anomalib": "anomalib"}
"""Detectors that stand on a package which a plain installation lacks, and its name."""


def _offline(plugin: type[Detector]) -> type[Detector]:
    """The same detector, whose defaults ask no hub for weights."""

    class Offline(plugin.Settings):  # type: ignore[name-defined]
        model: str = "Padim"
        """A model that needs no training."""
        arguments: dict[str, Any] = {"backbone": "resnet18", "layers": ["layer1", "layer2"], "pre_trained": False}
        """Random weights."""

    return type("Offline", (plugin,), {"Settings": Offline})


@pytest.mark.parametrize("check", DETECTOR_CHECKS)
@pytest.mark.parametrize("name", DETECTORS)
def test_contract(name: str, check: str) -> None:
    plugin = registry.get("detectors", name)
    if name in OPTIONAL and find_spec(OPTIONAL[name]) is None:
        # Its promise here is another one: to say what to install, as soon as it is made.
        with pytest.raises(ConfigError, match="pip install .*flawsmith"):
            plugin(plugin.Settings(), ("disc", "bar"), extractor=tiny_extractor() if plugin.needs_extractor else None)
        return
    DETECTOR_CHECKS[check](_offline(plugin) if name in OPTIONAL else plugin)


@pytest.mark.parametrize("name", [n for n in DETECTORS if n not in OPTIONAL])
def test_frozen_features_are_asked_for(name: str) -> None:
    plugin = registry.get("detectors", name)
    if plugin.needs_extractor:
        with pytest.raises(ConfigError, match="extractor"):
            plugin(plugin.Settings(), ("disc", "bar"))
    else:
        plugin(plugin.Settings(), ("disc", "bar"))


class _Honest(Detector):
    """Tells brightness; the simplest that keeps every promise."""

    Settings = Settings
    tells = frozenset({"localization", "detection"})
    needs_damage = False

    def __init__(self, settings: Any, defects: Sequence[str], *, extractor: Any = None, device: str = "cpu") -> None:
        super().__init__(settings, defects, extractor=extractor, device=device)
        self.level: torch.Tensor | None = None

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        self.level = training.batch(training.normal()).image.mean()
        yield 1.0

    def predict(self, image: torch.Tensor) -> Prediction:
        if self.level is None:
            raise DataError("call fit first")
        anomaly_map = image.mean(1, keepdim=True) - self.level
        return Prediction(anomaly_map, anomaly_map.amax((1, 2, 3)))


class _Unasked(_Honest):
    def predict(self, image: torch.Tensor) -> Prediction:
        return Prediction(image.mean(1, keepdim=True), image.amax((1, 2, 3)))


class _Flat(_Honest):
    def predict(self, image: torch.Tensor) -> Prediction:
        return Prediction(super().predict(image).anomaly_map.amax(1), torch.zeros(len(image)))


class _Random(_Honest):
    def predict(self, image: torch.Tensor) -> Prediction:
        return Prediction(torch.rand_like(image[:, :1]), torch.rand(len(image)))


class _Backwards(_Honest):
    def predict(self, image: torch.Tensor) -> Prediction:
        found = super().predict(image)
        return Prediction(-found.anomaly_map, -found.score)


class _SquareMinded(_Honest):
    def predict(self, image: torch.Tensor) -> Prediction:
        told = super().predict(image)
        side = image.shape[-1]
        return Prediction(torch.nn.functional.interpolate(told.anomaly_map, (side, side)), told.score)


class _Turned(_Honest):
    def predict(self, image: torch.Tensor) -> Prediction:
        told = super().predict(image)
        return Prediction(told.anomaly_map.transpose(-1, -2).reshape(told.anomaly_map.shape), told.score)


class _Talkative(_Honest):
    tells = frozenset({"localization"})


class _Neighbours(_Honest):
    def predict(self, image: torch.Tensor) -> Prediction:
        found = super().predict(image)
        return Prediction(found.anomaly_map - found.anomaly_map.mean(), found.score)


class _Greedy(_Honest):
    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        self.level = training.batch(range(len(training))).image.mean()
        yield 1.0


class _Careless(_Honest):
    needs_damage = True


class _Particular(_Honest):
    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        if any(not training.damaged(defect, "real") for defect in training.defects):
            raise DataError("every defect type needs a shot")
        yield from super().fit(training, rng, budget=budget)


class _Late(_Honest):
    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        yield 0.5
        yield from super().fit(training, rng, budget=budget)


class _Unfinished(_Honest):
    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        for _ in super().fit(training, rng, budget=budget):
            yield 0.9


class _Brightness(torch.nn.Module):
    """What `_Honest` says, as a network."""

    def __init__(self, level: torch.Tensor) -> None:
        super().__init__()
        self.level = level

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        anomaly_map = image.mean(1, keepdim=True) - self.level
        return anomaly_map, anomaly_map.amax((1, 2, 3))


class _Delivered(_Honest):
    def graph(self) -> torch.nn.Module:
        if self.level is None:
            raise DataError("call fit first")
        return _Brightness(self.level)


class _Eager(_Honest):
    def graph(self) -> torch.nn.Module:
        return _Brightness(torch.zeros(()))


class _Rude(_Honest):
    def graph(self) -> torch.nn.Module:
        raise ConfigError("no")


class _Other(_Delivered):
    def graph(self) -> torch.nn.Module:
        super().graph()
        assert self.level is not None
        return _Brightness(self.level + 0.01)


class _Half(_Delivered):
    def graph(self) -> torch.nn.Module:
        whole = super().graph()

        class MapAlone(torch.nn.Module):
            def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
                return (whole(image)[0],)

        return MapAlone()


class _Undescribed(_Honest):
    class Settings(Settings):
        width: int = 3


def test_the_checks_can_pass() -> None:
    check_detector(_Honest)
    DETECTOR_CHECKS["graph_answers_as_predict_does"](_Delivered)


@pytest.mark.parametrize(
    ("cheat", "check", "said"),
    [
        (_Undescribed, "detector_settings_round_trip", "no line of help"),
        (_Unasked, "detector_says_what_it_tells", "before it was trained"),
        (_Flat, "predictions_are_well_formed", r"anomaly_map is \(5, 64, 64\)"),
        (_Talkative, "predictions_are_well_formed", "does not tell detection, so score must be None"),
        (_Neighbours, "predictions_are_well_formed", "depends on the pictures beside it"),
        (_Unfinished, "predictions_are_well_formed", "shares done"),
        (_Random, "same_rng_same_predictions", "the same rng gave other"),
        (_Backwards, "planted_damage_is_found", "planted damage is not found"),
        (_SquareMinded, "planted_damage_is_found", r"anomaly_map is \(24, 1, 64, 64\), not \(24, 1, 32, 64\)"),
        (_Turned, "planted_damage_is_found", "planted damage is not found"),
        (_Greedy, "normal_alone_is_enough_or_refused", "yet damage counts"),
        (_Careless, "normal_alone_is_enough_or_refused", "yet it trains without"),
        (_Particular, "made_damage_alone_is_enough", "disc alone is not enough for it: every defect type needs a shot"),
        (_Eager, "graph_answers_as_predict_does", "it has a graph before it was trained"),
        (_Rude, "graph_answers_as_predict_does", "that it has no graph, it says so: no"),
        (_Other, "graph_answers_as_predict_does", r"differs from predict in 100.0 % of the values"),
        (_Half, "graph_answers_as_predict_does", "its graph has 1 outputs, and it tells 2"),
    ],
)
def test_the_checks_can_fail(cheat: type[Detector], check: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        DETECTOR_CHECKS[check](cheat)


def test_predict_must_work_at_the_first_yield() -> None:
    with pytest.raises(DataError, match="call fit first"):
        DETECTOR_CHECKS["predictions_are_well_formed"](_Late)


def test_example_training_plants_what_it_says() -> None:
    training = example_training(8)
    assert (len(training.normal()), len(training.damaged("disc")), len(training.damaged("bar"))) == (4, 2, 2)
    batch = training.batch(training.damaged())
    inside = (batch.image * batch.mask).sum() / (3 * batch.mask.sum())
    assert float(inside) > 0.9 and 0.01 < float(batch.mask.mean()) < 0.2
    normal = example_training(8, damaged=False)
    assert [one.id for one in normal.pictures] == [training.pictures[i].id for i in training.normal()]
    assert all(
        (a.image == training.pictures[i].image).all() for a, i in zip(normal.pictures, training.normal(), strict=True)
    )
    oblong = example_training(8, oblong=True)
    assert oblong.shape == (32, 64) and all(
        (a.image == b.image[16:48]).all() and (a.mask == b.mask[16:48]).all()
        for a, b in zip(oblong.pictures, training.pictures, strict=True)
    )
    other = example_training(8, seed=2)
    assert not (other.pictures[0].image == training.pictures[0].image).all()


@pytest.mark.parametrize("steps", [2, 10, 11])
def test_a_probe_of_few_steps_trains(steps: int) -> None:
    """torch's one-cycle schedule divides by zero where its rise is one step long."""
    plugin = registry.get("detectors", "probe")
    training = example_training()
    detector = plugin(plugin.Settings(steps=steps, places=256, views=1), training.defects, extractor=tiny_extractor())
    shares = list(detector.fit(training, torch.Generator().manual_seed(0)))
    assert shares[-1] == 1.0
