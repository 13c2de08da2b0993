"""Hybrid: appearance from cross_modal, place from controlnet_inpaint, on one frozen backbone.

Idea: AnomalyControl-CSM says how the damage looks (a reference's tokens, to which every cross-attention layer attends),
and AnomalyControl-Inpaint says where it is (a ControlNet that sees the mask). Each is trained as if the other were not
there; in sampling the ControlNet steers a UNet that also attends to the reference. There is no third training.

No paper: the combination is ours, and so is every choice here. Both parts are trained in one job rather than read from
two run folders, so that a hybrid run is one command and one folder, and stays within the contract; each part's loss
touches its own weights alone, and only the clipping of the gradient's norm is common. `controlnet` and `sga` name
folders of weights that exist, when the parts were trained before: with train.steps = 0 they are used as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from flawsmith import config, registry
from flawsmith.config import Affects
from flawsmith.errors import ConfigError
from flawsmith.interfaces import Generator
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import Predict
from flawsmith.nn.inpaint import Known, known_of
from flawsmith.nn.weights import load_modules, read_settings
from flawsmith.types import Batch, Condition, Encoded, Generated

_PARTS = {"spatial": "controlnet_inpaint", "semantic": "cross_modal"}
_SHARED = ("latent", "masked", "cells")
"""What both parts are given of a view, encoded and kept once."""


class HybridSettings(config.Settings):
    """The settings of the two parts; how sampling starts is the spatial part's."""

    renamed = {"adapter": "sga"}

    # What the settings of a part affect, its own class says: see `Hybrid.affecting`.
    spatial: Annotated[dict[str, Any], Affects()] = {}
    """Settings of controlnet_inpaint, which decides the place; also sampler, start, strength and detail."""
    semantic: Annotated[dict[str, Any], Affects()] = {}
    """Settings of cross_modal, which decides the appearance; its start, strength, detail and sampler are not read."""
    controlnet: str = ""
    """A folder of a trained controlnet_inpaint, such as RUN/weights/JOB, to start from; empty = from nothing."""
    sga: str = ""
    """A folder of a trained cross_modal, to start from; empty = from nothing."""


class Hybrid(Generator):
    """See the module's text."""

    Settings: ClassVar[type[config.Settings]] = HybridSettings
    settings: HybridSettings
    reads_reference = True
    sweep = ("semantic.scale", (0.0, 0.5, 1.0))

    def __init__(self, backbone: Backbone | None, settings: config.Settings) -> None:
        if backbone is None:
            raise ConfigError("hybrid needs a backbone")
        super().__init__(backbone, settings)
        settings_of = _settings_of_parts(self.settings)
        self._semantic: Any = _class_of("semantic")(backbone, settings_of["semantic"])
        # On the UNet that attends to references: outside of `conditioned` it is the backbone's own.
        self.backbone = self._semantic.backbone
        self._spatial: Any = _class_of("spatial")(self.backbone, settings_of["spatial"])
        for folder, part in ((self.settings.controlnet, self._spatial), (self.settings.sga, self._semantic)):
            if folder:
                load_modules(Path(folder), part.trainable())
        if self.settings.sga:
            self._semantic.check_csm(Path(self.settings.sga))

    @classmethod
    def starts_from(cls, settings: config.Settings) -> tuple[Path, ...]:
        assert isinstance(settings, HybridSettings)
        files = ((settings.controlnet, "control"), (settings.sga, "adapter"))
        given = tuple(Path(folder) / f"{name}.safetensors" for folder, name in files if folder)
        return (*_class_of("semantic").starts_from(_settings_of_parts(settings)["semantic"]), *given)

    @classmethod
    def affecting(cls, settings: config.Settings, output: str) -> dict[str, Any]:
        assert isinstance(settings, HybridSettings)
        made = super().affecting(settings, output)
        for part, chosen in _settings_of_parts(settings).items():
            made |= {f"{part}.{name}": value for name, value in _class_of(part).affecting(chosen, output).items()}
        return made

    @property
    def starts_with(self) -> str:
        return str(_settings_of_parts(self.settings)["spatial"].start)  # type: ignore[attr-defined]

    def trainable(self) -> dict[str, nn.Module]:
        return {**self._spatial.trainable(), **self._semantic.trainable()}

    @classmethod
    def load(cls, folder: Path, backbone: Backbone | None) -> Hybrid:
        settings = config.validate(HybridSettings, read_settings(folder), where=f"{folder}/settings.json")
        # Where training started from need not be there any more; what it ended in lies in the folder.
        trained = {"controlnet": "", "sga": "", "semantic": {**settings.semantic, "ip_adapter": ""}}
        generator = cls(backbone, settings.model_copy(update=trained))
        generator.settings = settings
        load_modules(folder, generator.trainable())
        generator._semantic.check_csm(folder)
        return generator

    def told(self, defect: str, product: str) -> str:
        told: str = self._spatial.told(defect, product)
        return told

    def attention(self, defect: str, product: str) -> tuple[Backbone, str]:
        read: tuple[Backbone, str] = self._spatial.attention(defect, product)
        return read

    def encoders(self) -> list[nn.Module]:
        encoders: list[nn.Module] = self._semantic.encoders()
        return encoders

    def encode(self, shots: Batch) -> Encoded:
        known = known_of(self._semantic.backbone, shots.image, shots.mask)
        return _joined({part: self._part(part).encode(shots, known) for part in _PARTS})

    def draw(self, views: Encoded, rng: torch.Generator) -> Encoded:
        return _joined({part: self._part(part).draw(_of_part(views, part), rng) for part in _PARTS})

    def loss_of(self, drawn: Encoded) -> Tensor:
        spatial, semantic = (self._part(part).loss_of(_of_part(drawn, part)) for part in _PARTS)
        loss: Tensor = spatial + semantic
        return loss

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        self._give_settings()
        with self._semantic.conditioned(asked, guidance):
            generated: Generated = self._spatial.sample(asked, seeds, steps=steps, guidance=guidance)
        return generated

    def predictor(self, asked: Condition, known: Known, guidance: float) -> Predict:
        """Return what `sample` denoises with; see `nn.anomaly_maps.words`."""
        self._give_settings()
        steered = self._spatial.predictor(asked, known, guidance)

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            with self._semantic.conditioned(asked, guidance):
                prediction: Tensor = steered(latent, t)
            return prediction

        return predict

    def _give_settings(self) -> None:
        """Give the parts their settings: those that only sampling reads may have changed since weights were saved."""
        for part, chosen in _settings_of_parts(self.settings).items():
            self._part(part).settings = chosen

    def _part(self, name: str) -> Any:
        return self._spatial if name == "spatial" else self._semantic


def _joined(parts: dict[str, Encoded]) -> Encoded:
    """Return the views of both parts, with what they have in common once."""
    shared = {name: parts["spatial"][name] for name in _SHARED}
    own = {
        f"{part}.{name}": tensor
        for part, views in parts.items()
        for name, tensor in views.tensors.items()
        if name not in _SHARED
    }
    return Encoded(shared | own)


def _of_part(views: Encoded, part: str) -> Encoded:
    """Return one part's views."""
    own = {name.removeprefix(f"{part}."): x for name, x in views.tensors.items() if name.startswith(f"{part}.")}
    return Encoded({name: views[name] for name in _SHARED} | own)


def _class_of(part: str) -> Any:
    return registry.get("generators", _PARTS[part])


def _settings_of_parts(settings: HybridSettings) -> dict[str, config.Settings]:
    """Return each part's own settings.

    Raises:
        ConfigError: a key is unknown to its part, or a value does not fit.
    """
    tables = {"spatial": settings.spatial, "semantic": settings.semantic}
    return {
        part: config.validate(_class_of(part).Settings, table, where=f"generator.settings.{part}")
        for part, table in tables.items()
    }
