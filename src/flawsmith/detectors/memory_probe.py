"""The probe, told of every cell what a memory of normal patches says: how far it lies from all of them, and in what.

The probe knows the damage that it was shown, PatchCore what is not normal; each misses what the other sees. Here a
memory of normal patches (`nn.methods.patch_memory`) is one more depth of the frozen features: the residual to the
nearest normal patch, its distance, and the greatest distance in the surroundings. The probe's heads learn how much to
believe of it. No photograph is compared with itself, nor is what was made from it: its cells would lie nearer to the
memory than those of any picture to come. Classification is read off the heads, as the probe does.

Localization and detection weigh what the heads say and how far a place, or the farthest places of a picture, lie from
the memory (`fusion`): heads that learned from few shots, or from drawn damage alone, miss what the memory sees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from flawsmith import config, registry
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import ConfigError, DataError
from flawsmith.interfaces import Detector
from flawsmith.nn.anomaly_maps.fusion import Fusion, map_fusion, score_fusion
from flawsmith.nn.methods.patch_memory import MemoryMaps, PatchMemory, digest, farthest_of, log_distance
from flawsmith.nn.methods.place_head import CELL, PlaceGraph
from flawsmith.types import Prediction

_CHUNK = 16
_HEAD = {"width": 128, "places": 2048}
_SURE = 1e-6
"""A probability is cut so far from 0 and 1 before its logit is taken."""
_SURE_PLACE = 1e-4
"""The same of places; closer to 0 and 1 rounding would be seen in the delivered model's map."""
_PARTS = ("mean", "deviation", "weight")
"""Of a `Fusion`."""
_NORMALS = 50
"""Normal pictures, at most, whose places say how the anomaly maps are joined."""


class MemoryProbeSettings(config.Settings):
    """The memory's size, and the probe's heads."""

    memory: Annotated[int, Field(ge=16)] = 4000
    """Patches in the memory."""
    draw: Annotated[int, Field(ge=16)] = 40_000
    """Patches drawn at random, from which the memory is chosen."""
    depths: tuple[Annotated[int, Field(ge=0)], ...] = (1, 2)
    """Which of the extractor's depths (0 = the finest) describe a patch of the memory."""
    controls: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the normal pictures' places that come from controls, where there are some."""
    heads: Annotated[int, Field(ge=2, le=20)] = 5
    """Heads of the probe; each learns from all pictures but its share, and their mean answers."""
    head: dict[str, Any] = {}
    """Other settings of the probe's heads; several are half as wide as one alone, and look at half as many places."""


class _Fusions(NamedTuple):
    """How heads and memory are joined."""

    score: Fusion
    anomaly_map: Fusion

    def join(self, anomaly_map: Tensor, score: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        """Return anomaly map float32 (B,1,R,C) in 0..1 and score (B,), from the heads' and log distances (B,1,h,w)."""
        places = self.anomaly_map.join(_log_odds(anomaly_map, _SURE_PLACE), _resized(far, anomaly_map.shape[-2:]))
        return places.sigmoid(), self.score.join(_log_odds(score, _SURE), farthest_of(far))


class MemoryProbe(Detector):
    """Frozen features, a memory of normal patches, small heads; tells localization, detection and classification."""

    Settings: ClassVar[type[config.Settings]] = MemoryProbeSettings
    tells: ClassVar[frozenset[str]] = frozenset({"localization", "detection", "classification"})
    needs_extractor: ClassVar[bool] = True
    settings: MemoryProbeSettings

    _probe: Detector | None = None
    _maps: MemoryMaps | None = None
    fusions: _Fusions | None = None
    """How heads and memory are joined; None = untrained, or one head alone."""

    def prepare(self) -> None:
        assert self.extractor is not None
        if missing := [depth for depth in self.settings.depths if depth >= len(self.extractor.channels)]:
            raise ConfigError(f"memory_probe.depths: {self.extractor.name} has no depth {missing[0]}")
        self._part(self.extractor)  # refuses settings of the heads that cannot work

    def reduced(self, budget: float) -> str:
        if budget >= 1:
            return ""
        assert self.extractor is not None
        heads = self._part(self.extractor).reduced(budget)
        return f"memory_probe remembers {self._size(budget)} patches, not {self.settings.memory}; {heads}"

    def facts(self) -> dict[str, float]:
        if self.fusions is None:
            return {}
        return {
            "Weight of the memory in the image score": float(self.fusions.score.weight[1]),
            "Weight of the memory in the anomaly map": float(self.fusions.anomaly_map.weight[1]),
        }

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        normals = training.normal("real") or training.normal()
        if not normals:
            raise DataError("memory_probe remembers normal parts, and the training set holds none")
        extractor, settings = self.extractor, self.settings
        assert extractor is not None

        def batches() -> Iterator[Tensor]:
            return (batch.image.to(self.device) for batch in training.batches(normals, _CHUNK))

        names = [training.pictures[index].photograph or str(index) for index in normals]
        number = {name: place for place, name in enumerate(dict.fromkeys(names))}
        memory = PatchMemory.of(
            extractor,
            batches,
            settings.depths,
            photographs=[number[name] for name in names],
            size=self._size(budget),
            draw=settings.draw,
        )
        shown = {
            digest(training.batch([index]).image[0]): number[picture.photograph]
            for index, picture in enumerate(training.pictures)
            if picture.photograph in number
        }
        self._maps = MemoryMaps(extractor, memory.to(self.device), shown)
        self._probe, self.fusions = self._part(self._maps), None
        for share in self._probe.fit(training, rng, budget=budget):
            if share < 1:
                yield share
        self.fusions = self._weighed(training)
        yield 1.0

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Prediction:
        if self._probe is None:
            raise DataError("memory_probe was asked before it was trained; call fit first")
        return self._joined(image, self._probe.predict(image))

    @torch.inference_mode()
    def out_of_fold(self, training: TrainingSet) -> tuple[list[int], Prediction] | None:
        unseen = None if self._probe is None else self._probe.out_of_fold(training)
        if unseen is None:
            return None
        indices, prediction = unseen
        parts, start = [], 0
        for batch in training.batches(indices, _CHUNK):
            part = slice(start, start := start + len(batch.image))
            answers = (prediction.anomaly_map, prediction.score, prediction.probabilities)
            rows = Prediction(*(None if one is None else one[part] for one in answers))
            parts.append(self._joined(batch.image, rows))
        return indices, Prediction.joined(parts, torch.cat)

    def remembered(self) -> PatchMemory | None:
        return None if self._maps is None else self._maps.memory

    def graph(self) -> nn.Module:
        if self._probe is None:
            raise DataError("memory_probe was asked for its graph before it was trained; call fit first")
        heads = self._probe.graph()
        assert isinstance(heads, PlaceGraph)
        return heads if self.fusions is None else _FusedGraph(heads, self.fusions)

    def _joined(self, image: Tensor, prediction: Prediction) -> Prediction:
        """Return what heads and memory say together; half-trained, or with one head, what the heads say."""
        if self.fusions is None:
            return prediction
        assert prediction.score is not None and prediction.anomaly_map is not None
        anomaly_map, score = self.fusions.join(prediction.anomaly_map, prediction.score, self._far(image))
        return replace(prediction, anomaly_map=anomaly_map, score=score)

    def _far(self, image: Tensor) -> Tensor:
        """Return float32 (B,1,h,w): the logarithm of the distance from the memory."""
        assert self._maps is not None
        return torch.cat([self._maps.far(chunk.to(self.device)) for chunk in image.split(_CHUNK)]).cpu()

    @torch.inference_mode()
    def _weighed(self, training: TrainingSet) -> _Fusions | None:
        """Learn from real normal pictures and shots how to join heads and memory; None = too few to tell."""
        assert self._probe is not None
        answer = self._probe.out_of_fold(training)
        if answer is None or answer[1].score is None or answer[1].anomaly_map is None:
            return None
        indices, labels = answer[0], torch.tensor([training.label(index) for index in answer[0]])
        normal = (labels < 0).nonzero()[:, 0].tolist()
        if len(normal) < 2:
            return None
        far, damaged, counted = [], [], []
        for start, batch in zip(range(0, len(indices), _CHUNK), training.batches(indices, _CHUNK), strict=True):
            far.append(self._far(batch.image))
            damaged.append(_pooled(batch.mask))
            kept = training.counted(indices[start : start + _CHUNK])
            counted.append(_pooled(torch.ones_like(batch.mask) if kept is None else kept))
        distance = torch.cat(far)
        learned = len(training.damaged())
        score = score_fusion(_log_odds(answer[1].score, _SURE), farthest_of(distance), labels, learned)
        rows = sorted({*normal[:: math.ceil(len(normal) / _NORMALS)], *(labels >= 0).nonzero()[:, 0].tolist()})
        heads = _pooled(_log_odds(answer[1].anomaly_map[rows], _SURE_PLACE))
        memory = _resized(distance[rows], heads.shape[-2:])
        places = map_fusion(heads, memory, torch.cat(damaged)[rows], torch.cat(counted)[rows], labels[rows], learned)
        return _Fusions(score, places)

    def _size(self, budget: float) -> int:
        return max(16, round(self.settings.memory * budget))

    def _part(self, extractor: Any) -> Detector:
        """Return a probe that stands on an extractor."""
        plugin: type[Detector] = registry.get("detectors", "probe")
        shared = {"controls": self.settings.controls, "heads": self.settings.heads}
        given = _HEAD | shared | self.settings.head
        settings = config.validate(plugin.Settings, given, where="prove.settings.memory_probe.head")
        return plugin(settings, self.defects, extractor=extractor, device=self.device)


class _FusedGraph(nn.Module):
    """The graph of the heads, whose anomaly map and score are joined with those of the memory."""

    def __init__(self, heads: PlaceGraph, fusions: _Fusions) -> None:
        super().__init__()
        self.heads = heads
        for part, fusion in fusions._asdict().items():
            for name in _PARTS:
                self.register_buffer(f"{part}_{name}", getattr(fusion, name).clone())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.heads.maps(image)
        anomaly_map, score, probabilities = self.heads.answer(maps, image.shape[-2:])
        fusions = _Fusions(
            *(Fusion(*(getattr(self, f"{part}_{name}") for name in _PARTS)) for part in _Fusions._fields)
        )
        return (*fusions.join(anomaly_map, score, log_distance(maps)), probabilities)


def _log_odds(probability: Tensor, sure: float) -> Tensor:
    return probability.clamp(sure, 1 - sure).logit()


def _resized(far: Tensor, shape: Sequence[int]) -> Tensor:
    """Return what the memory says of its cells at another size."""
    return F.interpolate(far, tuple(shape), mode="bilinear", align_corners=False)


def _pooled(whole: Tensor) -> Tensor:
    """Return the means over places of `place_head.CELL` x `CELL` pixels."""
    return F.avg_pool2d(whole, CELL, ceil_mode=True)
