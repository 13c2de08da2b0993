"""AnomalyControl-Inpaint: a frozen inpainting diffusion model, steered by a ControlNet learned from a few shots.

Idea: a normal photograph is inpainted where the mask is, under the prompt "a photo of a {defect}"; only a ControlNet,
which sees the mask and the noisy latent, is trained. The frozen model keeps knowing what materials look like; the
ControlNet learns what this type of damage looks like here.

Paper: "Few-Shot Anomaly Generation by ControlNet Inpainting", Ali, Fioraio, Salti, Di Stefano, IEEE Access 2024.
From the paper: the frozen inpainting backbone, fed with the normal window's latent, the noisy latent and the mask; the
ControlNet, fed with mask and noisy latent, the only thing trained; the prompt (naming the object as well made their
model draw a whole object inside the mask). `Settings.paper` and `ControlNetInpaint.paper` hold its values. Its text
states no learning rate, steps, loss weight, guidance, sampler or resolution, so neither do they.
Ours, because the paper does not say or because it serves small data: every number below; the ControlNet's start from
the UNet's own encoder (as Zhang et al. 2023 do), its input convolution cut to the latent's channels; text dropout for
guidance; the loss weight outside the mask; a cell of the latent mask is on when any of its pixels is (a hairline would
vanish by nearest pixel); normal parts in training, with the prompt for normal; and all of `nn/inpaint.py`: the start
from a re-posed shot, detail given back, the unmasked latent put back.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from flawsmith import config
from flawsmith.config import Affects
from flawsmith.errors import ConfigError
from flawsmith.interfaces import Generator
from flawsmith.nn import prompts
from flawsmith.nn.backbone import Backbone, cast
from flawsmith.nn.diffusion import Predict, Sampler, guided, weighted_loss
from flawsmith.nn.inpaint import Known, known_of, paint, with_negative
from flawsmith.nn.methods.control import control_from_unet
from flawsmith.nn.text import Text
from flawsmith.types import Batch, Condition, Encoded, Generated


class ControlNetInpaintSettings(config.Settings):
    """The settings of AnomalyControl-Inpaint."""

    renamed = {"sound_prompt": "normal_prompt"}

    prompt: str = prompts.PROMPT
    """The prompt (the paper's); {defect} and {product} are filled in. With {product} big models draw a whole one."""
    normal_prompt: str = prompts.NORMAL_PROMPT
    """The prompt for a mask that is to be repainted as normal."""
    text_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of training samples without text, which guidance needs."""
    outside_weight: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Loss weight outside the mask; 1 = plain squared error, 0 = the mask alone."""
    control_scale: Annotated[float, Field(ge=0, le=4), Affects("generate")] = 1.0
    """Strength of the ControlNet when sampling."""
    start: Annotated[Literal["noise", "shot", "patches"], Affects("generate")] = "noise"
    """Sample from noise (the paper's), from a re-posed shot blended in, or from damage made of patches of shots."""
    strength: Annotated[float, Field(gt=0, le=1), Affects("generate")] = 0.7
    """With start = shot or patches: how much is made anew; 1 = everything."""
    detail: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 1.0
    """With start = shot or patches: how much of what the autoencoder loses (grain, colour, hairlines) is given back."""
    sampler: Annotated[Sampler, Affects("generate")] = "dpm"
    """dpm (DPM-Solver++ 2M), ddim, euler or unipc; lcm or tcd for a backbone that was distilled for it."""
    negative_prompt: Annotated[str, Affects("generate")] = ""
    """What guidance leads away from; empty = no text."""
    guidance_rescale: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 0.0
    """How far strong guidance is brought back to the spread of its text alone; 0 = not at all, 1 = wholly."""

    @field_validator("prompt")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        return prompts.checked(value)

    @classmethod
    def paper(cls) -> ControlNetInpaintSettings:
        """Return the settings with every value that the paper states."""
        return cls(prompt="a photo of a {defect}", start="noise")


class ControlNetInpaint(Generator):
    """See the module's text. A plain UNet serves as well: the known latent is then held at every step."""

    Settings: ClassVar[type[config.Settings]] = ControlNetInpaintSettings
    settings: ControlNetInpaintSettings
    paper: ClassVar[dict[str, Any]] = {"train.normal_views": 0.0}

    def __init__(self, backbone: Backbone | None, settings: config.Settings) -> None:
        if backbone is None:
            raise ConfigError("controlnet_inpaint needs a backbone")
        super().__init__(backbone, settings)
        self.backbone: Backbone = backbone
        self.control = control_from_unet(backbone.unet, backbone.latent_channels, backbone.factor).to(backbone.device)
        self._sampling: tuple[int, Any] | None = None

    def trainable(self) -> dict[str, nn.Module]:
        return {"control": self.control}

    def prompt(self, defect: str, product: str) -> str:
        """Return the prompt of a defect type; an empty one means normal."""
        return prompts.filled_in(self.settings.prompt if defect else self.settings.normal_prompt, defect, product)

    def told(self, defect: str, product: str) -> str:
        return self.prompt(defect, product)

    def attention(self, defect: str, product: str) -> tuple[Backbone, str]:
        return self.backbone, self.prompt(defect, product)

    def encode(self, shots: Batch, known: Known | None = None) -> Encoded:
        known = known or known_of(self.backbone, shots.image, shots.mask)
        tokens = self.backbone.tokens([self.prompt(*pair) for pair in zip(shots.defect, shots.product, strict=True)])
        return Encoded({**known.tensors(), "mask": shots.mask.cpu().to(torch.uint8), "tokens": tokens})

    def draw(self, views: Encoded, rng: torch.Generator) -> Encoded:
        count, tokens = len(views), views["tokens"].clone()
        tokens[torch.rand(count, generator=rng) < self.settings.text_dropout] = self.backbone.tokens([None])
        t = torch.randint(len(self.backbone.noise), (count,), generator=rng)
        noise = torch.randn(views["latent"].shape, generator=rng)
        return Encoded({**views.tensors, "tokens": tokens, "t": t, "noise": noise})

    def loss_of(self, drawn: Encoded) -> Tensor:
        back, device = self.backbone, self.backbone.device
        latent, masked, cells, t, noise = (
            drawn[name].to(device) for name in ("latent", "masked", "cells", "t", "noise")
        )
        text, noisy = back.read(drawn["tokens"]), back.noise.add(latent, noise, t)
        hint = drawn["mask"].to(device).float().expand(-1, 3, -1, -1)
        residuals = back.residuals(self.control, noisy, t, text, hint)
        prediction = back.predict(noisy, t, text, mask=cells, masked=masked, residuals=residuals)
        weight = self.settings.outside_weight + (1 - self.settings.outside_weight) * cells
        return weighted_loss(prediction, back.noise.target_of(latent, noise, t), weight)

    @torch.no_grad()
    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        back, settings = self.backbone, self.settings
        known = known_of(back, asked.normal, asked.mask)
        return paint(
            back,
            asked,
            known,
            self.predictor(asked, known, guidance),
            seeds,
            steps=steps,
            sampler=settings.sampler,
            start=settings.start,
            strength=settings.strength,
            detail=settings.detail,
        )

    def predictor(self, asked: Condition, known: Known, guidance: float) -> Predict:
        """Return what `sample` denoises with; see `nn.anomaly_maps.words`."""
        text = self.backbone.embed([self.prompt(*names) for names in asked.named()])
        return self._predictor(known, asked.mask, text, guidance)

    def guided_predictor(self, views: Encoded, guidance: float) -> Predict:
        """Return what predicts for some views as sampling does; a student learns from it (`few_steps`)."""
        known = Known(*(views[name].to(self.backbone.device) for name in ("latent", "masked", "cells")))
        return self._predictor(known, views["mask"].float(), self.backbone.read(views["tokens"]), guidance)

    def _predictor(self, known: Known, mask: Tensor, text: Text, guidance: float) -> Predict:
        """Bind all that sampling gives the networks of B rows: text and guidance, mask (B,1,H,W), what is known."""
        back, settings = self.backbone, self.settings
        free = back.free_guidance(guidance)
        text = with_negative(back, text, free, settings.negative_prompt)
        control, rows = self._sampling_copy(), known.guided(free)
        # The hint does not change from step to step: embed it once.
        hint = control.embed_hint(mask.to(back.device).expand(-1, 3, -1, -1).to(back.dtype))
        hint = hint if free == 1.0 else torch.cat([hint, hint])

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            residuals = back.residuals(control, latent, t, text, hint, scale=settings.control_scale)
            given: dict[str, Any] = {"mask": rows.cells, "masked": rows.masked, "guidance": guidance}
            return back.predict(latent, t, text, **given, residuals=residuals)

        return guided(predict, free, settings.guidance_rescale)

    def _sampling_copy(self) -> Any:
        """Return the ControlNet in the backbone's precision; made anew only when its weights have changed."""
        version = sum(parameter._version for parameter in self.control.parameters())
        if self._sampling is None or self._sampling[0] != version:
            copied = copy.deepcopy(self.control).eval().requires_grad_(False)
            cast(copied, self.backbone.dtype)
            self._sampling = (version, copied)
        return self._sampling[1]
