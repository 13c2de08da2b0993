"""The probe, told of every cell what a memory of normal patches says: how far it lies from all of them, and in what.

The probe knows the damage that it was shown, PatchCore what is not normal; each misses what the other sees. Here a
memory of normal patches (`nn.methods.patch_memory`) is one more depth of the frozen features: the residual to the
nearest normal patch, its distance, and the greatest distance in the surroundings. The probe's heads learn how much to
believe of it. No photograph is compared with itself, nor is what was made from it: its cells would lie nearer to the
memory than those of any picture to come. Localization and classification are read off the heads, as the probe does.

Detection weighs two scores: the heads', and the greatest distance from the memory. Both are standardized by what
they say of normal pictures that they have not learned from (out of fold for the heads), and weighed by how well each
tells shots that it has not learned from. Few shots say little about that, so the weighing starts from equal weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from flawsmith import config, registry
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import ConfigError, DataError
from flawsmith.interfaces import Detector
from flawsmith.nn.methods.patch_memory import MemoryMaps, PatchMemory, digest, farthest_of, log_distance
from flawsmith.nn.methods.place_head import PlaceGraph
from flawsmith.types import Prediction

_CHUNK = 16
_HEAD = {"width": 128, "places": 2048}
_SURE = 1e-6
"""A probability is cut so far from 0 and 1 before its logit is taken."""
_PRIOR_SHOTS = 20
"""Shots that told both scores alike well, with which the weighing starts: fewer real ones move it little."""


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


@dataclass(frozen=True, slots=True)
class _Fusion:
    """How the scores of heads and memory become one: each is standardized, then weighed."""

    mean: Tensor
    """float32 (2,): of both scores over normal pictures."""
    deviation: Tensor
    """float32 (2,): their standard deviations over normal pictures."""
    weight: Tensor
    """float32 (2,), sum 1."""

    def score(self, scores: Tensor) -> Tensor:
        """Return float32 (B,) from the scores of heads and memory, float32 (B,2)."""
        return ((scores - self.mean) / self.deviation) @ self.weight


class MemoryProbe(Detector):
    """Frozen features, a memory of normal patches, small heads; tells localization, detection and classification."""

    Settings: ClassVar[type[config.Settings]] = MemoryProbeSettings
    tells: ClassVar[frozenset[str]] = frozenset({"localization", "detection", "classification"})
    needs_extractor: ClassVar[bool] = True
    settings: MemoryProbeSettings

    _probe: Detector | None = None
    _maps: MemoryMaps | None = None
    _fusion: _Fusion | None = None

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
        if self._fusion is None:
            return {}
        return {"Weight of the memory in the image score": float(self._fusion.weight[1])}

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
        self._probe, self._fusion = self._part(self._maps), None
        for share in self._probe.fit(training, rng, budget=budget):
            if share < 1:
                yield share
        self._fusion = self._weighed(training)
        yield 1.0

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Prediction:
        if self._probe is None:
            raise DataError("memory_probe was asked before it was trained; call fit first")
        prediction = self._probe.predict(image)
        if self._fusion is None:  # half-trained
            return prediction
        assert prediction.score is not None
        return replace(prediction, score=self._fusion.score(self._scores(image, prediction.score)))

    @torch.inference_mode()
    def out_of_fold(self, training: TrainingSet) -> tuple[list[int], Prediction] | None:
        unseen = None if self._probe is None else self._probe.out_of_fold(training)
        if unseen is None or self._fusion is None:
            return unseen
        indices, prediction = unseen
        return indices, replace(prediction, score=self._fusion.score(self._unseen_scores(training, unseen)))

    def remembered(self) -> PatchMemory | None:
        return None if self._maps is None else self._maps.memory

    def graph(self) -> nn.Module:
        if self._probe is None:
            raise DataError("memory_probe was asked for its graph before it was trained; call fit first")
        heads = self._probe.graph()
        assert isinstance(heads, PlaceGraph)
        return heads if self._fusion is None else _FusedGraph(heads, self._fusion)

    def _scores(self, image: Tensor, score: Tensor) -> Tensor:
        """Return float32 (B,2): what heads and memory say of each picture, unbounded."""
        assert self._maps is not None
        chunks = [self._maps.farthest(chunk.to(self.device)) for chunk in image.split(_CHUNK)]
        return _side_by_side(score, torch.cat(chunks).cpu())

    def _unseen_scores(self, training: TrainingSet, unseen: tuple[list[int], Prediction]) -> Tensor:
        """Return float32 (B,2): what heads and memory say of pictures that they have not learned from."""
        assert unseen[1].score is not None
        parts = zip(training.batches(unseen[0], _CHUNK), unseen[1].score.split(_CHUNK), strict=True)
        return torch.cat([self._scores(batch.image, score) for batch, score in parts])

    @torch.inference_mode()
    def _weighed(self, training: TrainingSet) -> _Fusion | None:
        """Learn from real normal pictures and shots how to join the scores; None = too few to tell."""
        assert self._probe is not None
        answer = self._probe.out_of_fold(training)
        if answer is None or answer[1].score is None:
            return None
        labels = torch.tensor([training.label(index) for index in answer[0]])
        if int((labels < 0).sum()) < 2:
            return None
        scores, normal = self._unseen_scores(training, answer), labels < 0
        mean, deviation = scores[normal].mean(0), scores[normal].std(0) + 1e-6
        return _Fusion(mean, deviation, _weights((scores - mean) / deviation, labels))

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
    """The graph of the heads, whose score is joined with that of the memory."""

    mean: Tensor
    deviation: Tensor
    weight: Tensor

    def __init__(self, heads: PlaceGraph, fusion: _Fusion) -> None:
        super().__init__()
        self.heads = heads
        for name in ("mean", "deviation", "weight"):
            self.register_buffer(name, getattr(fusion, name).clone())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.heads.maps(image)
        anomaly_map, score, probabilities = self.heads.answer(maps, image.shape[-2:])
        scores = _side_by_side(score, farthest_of(log_distance(maps)))
        return anomaly_map, _Fusion(self.mean, self.deviation, self.weight).score(scores), probabilities


def _side_by_side(score: Tensor, farthest: Tensor) -> Tensor:
    """Return float32 (B,2): the scores of heads (0..1) and memory, unbounded."""
    return torch.stack([score.clamp(_SURE, 1 - _SURE).logit(), farthest], 1)


def _weights(scores: Tensor, labels: Tensor) -> Tensor:
    """Weigh standardized scores of normal pictures and shots by how well each tells them apart.

    Of two independent scores that are normally distributed the best linear sum weighs each by its d' (Fisher's linear
    discriminant), here taken from the mean over the defect types of the AUROC.

    Args:
        scores: float32 (N,2), standardized by the normal pictures.
        labels: int64 (N,): number of the defect type, -1 = normal.
    """
    shots = int((labels >= 0).sum())
    if not shots:
        return torch.full((2,), 0.5)
    sure = 1 - 0.5 / (shots + 1)  # nothing is known to be told better than that
    area = torch.tensor([_mean_auroc(one, labels) for one in scores.T]).clamp(0.5 + 1e-3, sure)
    separation = torch.special.ndtri(area)
    return (shots * separation / separation.sum() + _PRIOR_SHOTS * 0.5) / (shots + _PRIOR_SHOTS)


def _mean_auroc(score: Tensor, labels: Tensor) -> float:
    """Return the mean over the defect types of the image AUROC against all normal pictures."""
    normal = score[labels < 0]
    areas = []
    for label in labels[labels >= 0].unique():
        gap = score[labels == label][:, None] - normal
        areas.append((gap.sign() * 0.5 + 0.5).mean())
    return float(torch.stack(areas).mean())
