"""The probe, told of every cell what a memory of normal patches says: how far it lies from all of them, and in what.

The probe knows the damage that it was shown, PatchCore what is not normal; each misses what the other sees. Here a
memory of normal patches (`nn.methods.patch_memory`) is one more depth of the frozen features: the residual to the
nearest normal patch, its distance, and the greatest distance in the surroundings. The probe's head learns how much to
believe of it. Localization, detection and classification are read off the head, as the probe does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from flawsmith import config, registry
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import ConfigError, DataError
from flawsmith.interfaces import Detector
from flawsmith.nn.methods.patch_memory import MemoryMaps, PatchMemory
from flawsmith.types import Prediction

_CHUNK = 16


class MemoryProbeSettings(config.Settings):
    """The memory's size, and the probe's head."""

    memory: Annotated[int, Field(ge=16)] = 4000
    """Patches in the memory."""
    draw: Annotated[int, Field(ge=16)] = 40_000
    """Patches drawn at random, from which the memory is chosen."""
    depths: tuple[Annotated[int, Field(ge=0)], ...] = (1, 2)
    """Which of the extractor's depths (0 = the finest) describe a patch of the memory."""
    controls: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the normal pictures' places that come from controls, where there are some."""
    head: dict[str, Any] = {}
    """Other settings of the probe, whose head is trained."""


class MemoryProbe(Detector):
    """Frozen features, a memory of normal patches, a small head; tells localization, detection and classification."""

    Settings: ClassVar[type[config.Settings]] = MemoryProbeSettings
    tells: ClassVar[frozenset[str]] = frozenset({"localization", "detection", "classification"})
    needs_extractor: ClassVar[bool] = True
    settings: MemoryProbeSettings

    _probe: Detector | None = None

    def prepare(self) -> None:
        assert self.extractor is not None
        if missing := [depth for depth in self.settings.depths if depth >= len(self.extractor.channels)]:
            raise ConfigError(f"memory_probe.depths: {self.extractor.name} has no depth {missing[0]}")
        self._part(self.extractor)  # refuses settings of the head that cannot work

    def reduced(self, budget: float) -> str:
        if budget >= 1:
            return ""
        assert self.extractor is not None
        head = self._part(self.extractor).reduced(budget)
        return f"memory_probe remembers {self._size(budget)} patches, not {self.settings.memory}; {head}"

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        normals = training.normal("real") or training.normal()
        if not normals:
            raise DataError("memory_probe remembers normal parts, and the training set holds none")
        extractor, depths = self.extractor, self.settings.depths
        assert extractor is not None
        batches = (training.batch(normals[start : start + _CHUNK]).image for start in range(0, len(normals), _CHUNK))
        maps = (extractor.maps(image.to(self.device)) for image in batches)
        each = max(1, self.settings.draw // len(normals))
        with torch.inference_mode():
            memory = PatchMemory.of(maps, depths, size=self._size(budget), each=each, rng=rng).to(self.device)
        self._probe = self._part(MemoryMaps(extractor, memory))
        yield from self._probe.fit(training, rng, budget=budget)

    def predict(self, image: Tensor) -> Prediction:
        if self._probe is None:
            raise DataError("memory_probe was asked before it was trained; call fit first")
        return self._probe.predict(image)

    def _size(self, budget: float) -> int:
        return max(16, round(self.settings.memory * budget))

    def _part(self, extractor: Any) -> Detector:
        """Return a probe that stands on an extractor."""
        plugin: type[Detector] = registry.get("detectors", "probe")
        given = {"controls": self.settings.controls, **self.settings.head}
        settings = config.validate(plugin.Settings, given, where="prove.settings.memory_probe.head")
        return plugin(settings, self.defects, extractor=extractor, device=self.device)
