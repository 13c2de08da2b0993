"""AnomalyControl-Inpaint: a frozen inpainting diffusion model, steered by a ControlNet learned from a few shots.

Idea: a sound photograph is inpainted where the mask is, under the words "a photo of a {defect}"; only a ControlNet,
which sees the mask and the noisy latent, is trained. The frozen model keeps knowing what matter looks like; the
ControlNet learns what this sort of damage looks like here.

Paper: "Few-Shot Anomaly Generation by ControlNet Inpainting", Ali, Fioraio, Salti, Di Stefano, IEEE Access 2024.
From the paper: the frozen inpainting backbone fed with the normal's latent, the noisy latent and the mask; the
ControlNet fed with mask and noisy latent, the only thing trained; the prompt (naming the object as well made their
model draw a whole object inside the mask); sampling from pure noise.
Ours, because the paper's text does not say or because it serves small data: every number below; the ControlNet's start
from the UNet's own encoder (as Zhang et al. 2023 do), its input convolution cut to the latent's channels; text dropout
for guidance; the loss weight outside the mask; a cell of the latent mask is on when any of its pixels is (a hairline
would vanish by nearest pixel); starting from a blended shot, with its fine detail given back; the model's own word for
sound parts in training; and the unmasked latent put back after sampling, so that what was not asked for decodes exactly
as the base does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from flawsmith.config import Settings as BaseSettings
from flawsmith.errors import ConfigError
from flawsmith.interfaces import Generator
from flawsmith.nn.backbone import Backbone, cast
from flawsmith.nn.diffusion import guided, weighted_loss
from flawsmith.nn.inpaint import conditions, paint, prompt_fields, worded
from flawsmith.nn.methods.control import control_from_unet
from flawsmith.types import Batch, Condition, Encoded, Generated


class Settings(BaseSettings):
    """What AnomalyControl-Inpaint can be told. Only `prompt` is the paper's; see the module's text."""

    prompt: str = "a photo of a {defect}"
    """The words; {defect} and {product} are filled in. Naming the product too makes big models draw a whole one."""
    normal_prompt: str = "a photo of sound surface"
    """The words for a mask that is to be repainted as normal."""
    text_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of training samples without words, which guidance needs."""
    outside_weight: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Loss weight outside the mask; 1 = plain squared error, 0 = the mask alone."""
    control_scale: Annotated[float, Field(ge=0, le=4)] = 1.0
    """Strength of the ControlNet when sampling."""
    start: Literal["noise", "shot"] = "noise"
    """Sample from noise (the paper's), or from a re-posed shot pasted in, whose fine structure then survives."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.7
    """With start = shot: how much is made anew; 1 = everything."""
    detail: Annotated[float, Field(ge=0, le=1)] = 1.0
    """With start = shot: how much of what the autoencoder loses (grain, colour, hairlines) is given back."""
    sampler: Literal["dpm", "ddim"] = "dpm"
    """DPM-Solver++ 2M, or DDIM."""

    @field_validator("prompt")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        return prompt_fields(value)


ControlNetInpaintSettings = Settings


class ControlNetInpaint(Generator):
    """See the module's text. A plain UNet serves as well: the known latent is then held at every step."""

    Settings: ClassVar[type[BaseSettings]] = Settings
    sampling_only: ClassVar[frozenset[str]] = frozenset({"control_scale", "start", "strength", "detail", "sampler"})
    settings: ControlNetInpaintSettings

    def __init__(self, backbone: Backbone | None, settings: BaseSettings) -> None:
        if backbone is None:
            raise ConfigError("controlnet_inpaint needs a backbone")
        super().__init__(backbone, settings)
        self.backbone: Backbone = backbone
        self.control = control_from_unet(backbone.unet, backbone.latent_channels, backbone.factor).to(backbone.device)
        self._sampling: tuple[int, Any] | None = None

    def trainable(self) -> dict[str, nn.Module]:
        return {"control": self.control}

    def words(self, defect: str, product: str) -> str:
        """Return the prompt of a defect type; an empty defect type means normal."""
        return worded(self.settings.prompt if defect else self.settings.normal_prompt, defect, product)

    def encode(self, shots: Batch) -> Encoded:
        known, masked, cells = conditions(self.backbone, shots.image, shots.mask)
        text = self.backbone.embed([self.words(d, p) for d, p in zip(shots.defect, shots.product, strict=True)])
        return Encoded(
            {
                "latent": known.cpu().float(),
                "masked": masked.cpu().float(),
                "cells": cells.cpu(),
                "mask": shots.mask.cpu().to(torch.uint8),
                "text": text.cpu(),
            }
        )

    def loss(self, seen: Encoded, rng: torch.Generator) -> Tensor:
        back, count, place = self.backbone, len(seen), self.backbone.device
        latent, masked, cells, text = (seen[name].to(place) for name in ("latent", "masked", "cells", "text"))
        silent = torch.rand(count, 1, 1, generator=rng).to(place) < self.settings.text_dropout
        text = torch.where(silent, back.embed([""]), text)
        t = torch.randint(len(back.noise), (count,), generator=rng).to(place)
        fresh = torch.randn(latent.shape, generator=rng).to(place)
        noisy = back.noise.add(latent, fresh, t)
        hint = seen["mask"].to(place).float().expand(-1, 3, -1, -1)
        residuals = self.control(noisy, t, text, hint, return_dict=False)
        said = back.predict(noisy, t, text, mask=cells, masked=masked, residuals=residuals)
        weight = self.settings.outside_weight + (1 - self.settings.outside_weight) * cells
        return weighted_loss(said, back.noise.truth(latent, fresh, t), weight)

    @torch.no_grad()
    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        back = self.backbone
        normal, mask = asked.normal.to(back.device), asked.mask.to(back.device)
        known, masked, cells = conditions(back, normal, mask)
        words = [self.words(*pair) for pair in asked.named()]
        text = back.embed(words)
        control = self._sampling_copy()
        # The hint does not change from step to step: embed it once.
        hint = control.embed_hint(mask.expand(-1, 3, -1, -1).to(back.dtype))
        if guidance != 1.0:
            text = torch.cat([back.embed([""] * len(words)), text])
            hint, cells2, masked2 = (torch.cat([x, x]) for x in (hint, cells, masked))
        else:
            cells2, masked2 = cells, masked
        text = text.to(back.dtype)

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            residuals = control(latent.to(back.dtype), t, text, hint, scale=self.settings.control_scale)
            return back.predict(latent, t, text, mask=cells2, masked=masked2, residuals=residuals)

        return paint(
            back,
            asked,
            (known, masked, cells),
            guided(predict, guidance),
            seeds,
            steps=steps,
            sampler=self.settings.sampler,
            start=self.settings.start,
            strength=self.settings.strength,
            detail=self.settings.detail,
        )

    def _sampling_copy(self) -> Any:
        """Return the ControlNet in the backbone's precision; made anew only when its weights have changed."""
        version = sum(parameter._version for parameter in self.control.parameters())
        if self._sampling is None or self._sampling[0] != version:
            copied = copy.deepcopy(self.control).eval().requires_grad_(False)
            cast(copied, self.backbone.dtype)
            self._sampling = (version, copied)
        return self._sampling[1]
