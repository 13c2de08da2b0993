"""A memory of normal patches, as in PatchCore: what lies far from every one is damage. Needs no defects.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022: patches of mid-depth feature maps,
averaged with their neighbours (section 3.1), thinned to a coreset by greedy k-centre on random projections (3.2), and
scored by the distance to the nearest (3.3). What differs: the extractor is the house's, not WideResNet-50; the greedy
search starts from a random draw of at most `draw` patches, so that two cores manage it; a picture's score is the
greatest distance, without the paper's re-weighting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from flawsmith import config
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import ConfigError, DataError
from flawsmith.interfaces import Detector
from flawsmith.nn.methods.patch_memory import NearestGraph, PatchMemory, described
from flawsmith.types import Prediction

_CHUNK = 16


class PatchcoreSettings(config.Settings):
    """The memory's size and what it is made of."""

    memory: Annotated[int, Field(ge=16)] = 4000
    """Patches in the memory."""
    draw: Annotated[int, Field(ge=16)] = 40_000
    """Patches drawn at random, from which the memory is chosen."""
    depths: tuple[Annotated[int, Field(ge=0)], ...] = (1, 2)
    """Which of the extractor's depths (0 = the finest) describe a patch."""
    blur: Annotated[float, Field(ge=0)] = 4.0
    """Sigma in pixels of the blur over the finished anomaly map, as in the paper."""


class Patchcore(Detector):
    """Distance to the nearest normal patch in memory; tells localization and detection."""

    Settings: ClassVar[type[config.Settings]] = PatchcoreSettings
    tells: ClassVar[frozenset[str]] = frozenset({"localization", "detection"})
    needs_damage: ClassVar[bool] = False
    needs_extractor: ClassVar[bool] = True
    settings: PatchcoreSettings

    _memory: PatchMemory | None = None

    def prepare(self) -> None:
        assert self.extractor is not None
        if missing := [depth for depth in self.settings.depths if depth >= len(self.extractor.channels)]:
            raise ConfigError(f"patchcore.depths: {self.extractor.name} has no depth {missing[0]}")

    def reduced(self, budget: float) -> str:
        return "" if budget >= 1 else f"patchcore remembers {self._size(budget)} patches, not {self.settings.memory}"

    @torch.inference_mode()
    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        normals = training.normal("real") or training.normal()
        if not normals:
            raise DataError("patchcore remembers normal parts, and the training set holds none")
        extractor, depths = self.extractor, self.settings.depths
        assert extractor is not None

        def batches() -> Iterator[Tensor]:
            return (batch.image.to(self.device) for batch in training.batches(normals, _CHUNK))

        memory = PatchMemory.of(
            extractor,
            batches,
            depths,
            photographs=range(len(normals)),
            size=self._size(budget),
            draw=self.settings.draw,
        )
        self._memory = memory.to(self.device)
        yield 1.0

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Prediction:
        if self._memory is None or self.extractor is None:
            raise DataError("patchcore was asked before it was trained; call fit first")
        anomaly_maps, scores = [], []
        for chunk in image.split(_CHUNK):
            patches = described(self.extractor.maps(chunk.to(self.device)), self.settings.depths)
            distance, _ = self._memory.nearest(patches.permute(0, 2, 3, 1).reshape(-1, patches.shape[1]))
            grid = distance.view(len(chunk), 1, *patches.shape[-2:]).cpu()
            anomaly_map, score = _answer(grid, image.shape[-2:], self.settings.blur)
            anomaly_maps.append(anomaly_map)
            scores.append(score)
        return Prediction(torch.cat(anomaly_maps), torch.cat(scores), None)

    def remembered(self) -> PatchMemory | None:
        return self._memory

    def graph(self) -> nn.Module:
        if self._memory is None or self.extractor is None:
            raise DataError("patchcore was asked for its graph before it was trained; call fit first")
        return _Graph(self.extractor.graph(), self._memory, self.settings.blur)

    def _size(self, budget: float) -> int:
        return max(16, round(self.settings.memory * budget))


class _Graph(nn.Module):
    """Extractor, search and blur as one network."""

    def __init__(self, maps: nn.Module, memory: PatchMemory, blur: float) -> None:
        super().__init__()
        self.maps, self.nearest, self._blur = maps, NearestGraph(memory), blur

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        _, distance, _ = self.nearest(self.maps(image))
        return _answer(distance[:, None], image.shape[-2:], self._blur)


def _answer(distance: Tensor, shape: Sequence[int], blur: float) -> tuple[Tensor, Tensor]:
    """Return anomaly map float32 (B,1,R,C) and score (B,) from the distances of all cells (B,1,h,w)."""
    whole = F.interpolate(distance, tuple(shape), mode="bilinear")
    return _blurred(whole, blur), distance.amax((1, 2, 3))


def _blurred(anomaly_map: Tensor, sigma: float) -> Tensor:
    if sigma == 0:
        return anomaly_map
    reach = min(round(3 * sigma), min(anomaly_map.shape[-2:]) - 1)
    kernel = torch.exp(-torch.arange(-reach, reach + 1).float().square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(anomaly_map, (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
