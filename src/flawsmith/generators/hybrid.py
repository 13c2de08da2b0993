"""Hybrid: what from cross_modal, where from controlnet_inpaint, on one frozen backbone.

Idea: AnomalyControl-CSM says how the damage looks (tokens of a reference, heard in every cross-attention layer), and
AnomalyControl-Inpaint says where it is (a ControlNet that sees the mask). Each is trained as if the other were not
there; in sampling the ControlNet steers a UNet that also hears the reference. There is no third training.

No paper: the combination is ours, and so is every choice here. Both parts are trained in one job rather than read from
two run folders, so that a hybrid run is one command and one folder, and stays within the contract; each part's loss
touches its own weights alone, and only the clipping of the gradient's norm is common. `controlnet` and `adapter` name
folders of weights that exist, when the parts were trained before: with train.steps = 0 they are used as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flawsmith import registry
from flawsmith.config import Settings as BaseSettings
from flawsmith.config import validate
from flawsmith.errors import ConfigError
from flawsmith.interfaces import Generator
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.weights import load_modules, read_settings
from flawsmith.types import Batch, Condition, Encoded, Generated


class Settings(BaseSettings):
    """What the two parts are told; how sampling starts is the spatial part's."""

    spatial: dict[str, Any] = {}
    """Settings of controlnet_inpaint: where; also sampler, start, strength and detail."""
    semantic: dict[str, Any] = {}
    """Settings of cross_modal: what; its start, strength, detail and sampler are not read."""
    controlnet: str = ""
    """A folder of a trained controlnet_inpaint, such as RUN/weights/JOB, to start from; empty = from nothing."""
    adapter: str = ""
    """A folder of a trained cross_modal, to start from; empty = from nothing."""


HybridSettings = Settings
_PARTS = ("spatial", "semantic")


class Hybrid(Generator):
    """See the module's text."""

    Settings: ClassVar[type[BaseSettings]] = Settings
    settings: HybridSettings
    sampling_only: ClassVar[frozenset[str]] = frozenset(
        f"{part}.{name}"
        for part, scale in (("spatial", "control_scale"), ("semantic", "scale"))
        for name in (scale, "start", "strength", "detail", "sampler")
    )
    reads_reference = True
    sweep = ("semantic.scale", (0.0, 0.5, 1.0))

    def __init__(self, backbone: Backbone | None, settings: BaseSettings) -> None:
        if backbone is None:
            raise ConfigError("hybrid needs a backbone")
        super().__init__(backbone, settings)
        spatial, semantic = _told(self.settings)
        self._semantic: Any = registry.get("generators", "cross_modal")(backbone, semantic)
        # On the UNet that hears references: as long as nothing is said, it is the backbone's own.
        self._spatial: Any = registry.get("generators", "controlnet_inpaint")(self._semantic.listening, spatial)
        for place, part in ((self.settings.controlnet, self._spatial), (self.settings.adapter, self._semantic)):
            if place:
                load_modules(Path(place), part.trainable())

    @classmethod
    def starts_from(cls, settings: BaseSettings) -> tuple[Path, ...]:
        assert isinstance(settings, HybridSettings)
        _, semantic = _told(settings)
        parts = ((settings.controlnet, "control"), (settings.adapter, "adapter"))
        given = tuple(Path(folder) / f"{name}.safetensors" for folder, name in parts if folder)
        return (*registry.get("generators", "cross_modal").starts_from(semantic), *given)

    def trainable(self) -> dict[str, nn.Module]:
        return {**self._spatial.trainable(), **self._semantic.trainable()}

    @classmethod
    def load(cls, folder: Path, backbone: Backbone | None) -> Hybrid:
        settings = HybridSettings.model_validate(read_settings(folder))
        # Where training started from need not be there any more; what it ended in lies in the folder.
        begun = {"controlnet": "", "adapter": "", "semantic": {**settings.semantic, "ip_adapter": ""}}
        generator = cls(backbone, settings.model_copy(update=begun))
        generator.settings = settings
        load_modules(folder, generator.trainable())
        generator._semantic.check_reader(folder)
        return generator

    def encode(self, shots: Batch) -> Encoded:
        found = {name: self._part(name).encode(shots).tensors for name in _PARTS}
        return Encoded({f"{name}.{key}": value for name, own in found.items() for key, value in own.items()})

    def loss(self, seen: Encoded, rng: torch.Generator) -> Tensor:
        total = torch.zeros(len(seen), device=self._semantic.backbone.device)
        for name in _PARTS:
            own = {key.removeprefix(f"{name}."): v for key, v in seen.tensors.items() if key.startswith(f"{name}.")}
            total = total + self._part(name).loss(Encoded(own), rng)
        return total

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        # Settings that only sampling reads may have changed since the weights were saved.
        self._spatial.settings, self._semantic.settings = _told(self.settings)
        with self._semantic.saying(asked, guidance):
            made: Generated = self._spatial.sample(asked, seeds, steps=steps, guidance=guidance)
        return made

    def _part(self, name: str) -> Any:
        return self._spatial if name == "spatial" else self._semantic


def _told(settings: HybridSettings) -> tuple[BaseSettings, BaseSettings]:
    """Return the parts' own settings.

    Raises:
        ConfigError: a key is unknown to its part, or a value does not fit.
    """
    names = ("controlnet_inpaint", "cross_modal")
    defects = [registry.get("generators", name).Settings for name in names]
    own: tuple[dict[str, Any], ...] = (settings.spatial, settings.semantic)
    spatial, semantic = (
        validate(defect, tree, where=f"generator.settings.{part}")
        for defect, tree, part in zip(defects, own, _PARTS, strict=True)
    )
    return spatial, semantic
