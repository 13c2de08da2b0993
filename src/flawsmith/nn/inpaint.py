"""Painting in a window with a diffusion model: what is ours and no paper's, and the same for every method.

A method brings its own predictor. Shared are the latents of a window, where to start from (noise, the normal window, a
re-posed shot), the unmasked latent put back, the fine detail that an autoencoder loses, and the transplant: damage of a
method that draws its own mask, grown into a real background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from flawsmith.errors import ConfigError
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import Noise, Predict, Sampler, denoise
from flawsmith.nn.text import Text
from flawsmith.types import Condition, Generated

Start = Literal["noise", "normal", "shot", "patches"]
NO_SKETCH = "generator.settings.start: it is to start from damage, and the request brings neither sketch nor shot"


@dataclass(frozen=True, slots=True)
class Known:
    """What an inpainting model is given of B windows, on the backbone's device."""

    latent: Tensor
    """float32 (B,C,h,w): the window."""
    masked: Tensor
    """float32 (B,C,h,w): the window with the mask greyed out."""
    cells: Tensor
    """float32 (B,1,h,w) in {0,1}: the latent mask."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, on the CPU, as `Encoded` keeps them."""
        return {"latent": self.latent.cpu().float(), "masked": self.masked.cpu().float(), "cells": self.cells.cpu()}

    def guided(self, guidance: float) -> Known:
        """Return the same for a guided batch: twice as many rows unless guidance is 1."""
        if guidance == 1.0:
            return self
        return Known(*(torch.cat([part, part]) for part in (self.latent, self.masked, self.cells)))


def known_of(backbone: Backbone, image: Tensor, mask: Tensor) -> Known:
    """Encode windows float32 (B,3,H,W) in [-1,1] under masks float32 (B,1,H,W) in {0,1}."""
    image, mask = image.to(backbone.device), mask.to(backbone.device)
    latent, masked = backbone.encode(torch.cat([image, image * (1 - mask)])).chunk(2)
    return Known(latent, masked, backbone.latent_mask(mask))


def guided_text(backbone: Backbone, prompts: Sequence[str], guidance: float, negative: str = "") -> Text:
    """Return the text for a guided batch: that of `negative` first, then the prompts; the prompts alone at 1.

    Args:
        backbone: The frozen model.
        prompts: B phrases.
        guidance: Weight of the text.
        negative: What guidance leads away from; "" = dropped text.
    """
    return with_negative(backbone, backbone.embed(prompts), guidance, negative)


def with_negative(backbone: Backbone, text: Text, guidance: float, negative: str = "") -> Text:
    """Return text of B rows for a guided batch: that of `negative` first; it alone where the weight is 1."""
    return text if guidance == 1.0 else Text.cat([backbone.embed([negative or None] * len(text)), text])


def paint(
    backbone: Backbone,
    asked: Condition,
    known: Known,
    predict: Predict,
    seeds: Sequence[int],
    *,
    steps: int,
    sampler: Sampler,
    start: Start,
    strength: float,
    detail: float,
    adjust: Predict | None = None,
) -> Generated:
    """Denoise in the masks of B windows and decode; what was not asked for decodes exactly as the base does.

    Args:
        backbone: The frozen model.
        asked: B requests.
        known: What `known_of` returned for them.
        predict: The network with text, guidance and conditions bound.
        seeds: One per sample.
        steps: Of the whole schedule; from a start, only the last share `strength` of them is taken.
        sampler: See `nn.diffusion.Sampler`.
        start: "noise", "normal" (the window itself), "shot" or "patches" (the sketch, or else the re-posed shot).
        strength: How much of the start is made anew; 1 = everything.
        detail: With start = shot or patches, how much of what the autoencoder loses is given back.
        adjust: As for `nn.diffusion.denoise`.

    Raises:
        ConfigError: start is "shot" or "patches" and there is neither sketch nor shot.
    """
    normal, mask = asked.normal.to(backbone.device), asked.mask.to(backbone.device)
    latent, cells = known.latent, known.cells
    first = sketch = None
    if start in ("shot", "patches"):
        if asked.sketch is not None:
            picture = normal * (1 - mask) + asked.sketch.to(backbone.device) * mask
        elif asked.shot is not None:
            picture = paste_matched(normal, asked.shot.image.to(backbone.device), mask)
        else:
            raise ConfigError(NO_SKETCH)
        first = cells * backbone.encode(picture) + (1 - cells) * latent
        sketch = Sketch(normal, picture, first, detail)
    elif start == "normal":
        first = latent
    painted = denoise(
        predict,
        backbone.noise,
        seeds,
        tuple(latent.shape[1:]),
        steps=steps,
        sampler=sampler,
        start=first,
        strength=strength if first is not None else 1.0,
        known=None if backbone.inpaints else latent,
        known_mask=None if backbone.inpaints else cells,
        adjust=adjust,
        device=backbone.device,
    )
    image, base = decoded_over(backbone, painted, latent, cells)
    if sketch is not None:
        image, base = sketch.give_back(backbone, image, base)
    return Generated(image.cpu(), asked.mask.cpu(), base.cpu())


def decoded_over(backbone: Backbone, painted: Tensor, latent: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Decode what was painted over the window's own latent, and the window's latent alone.

    Args:
        backbone: The frozen model.
        painted: float32 (B,C,h,w); what lies outside of `cells` is replaced by the window's own.
        latent: float32 (B,C,h,w): the window's.
        cells: float32 (B,1,h,w) in {0,1}.

    Returns:
        Image and base, float32 (B,3,H,W) in [-1,1].
    """
    image, base = backbone.decode(torch.cat([cells * painted + (1 - cells) * latent, latent])).chunk(2)
    return image, base


@dataclass(frozen=True, slots=True)
class Sketch:
    """The normal window with a re-posed shot blended in, from which painting starts."""

    normal: Tensor
    """float32 (B,3,H,W) in [-1,1]: the normal window."""
    image: Tensor
    """float32 (B,3,H,W) in [-1,1]."""
    latent: Tensor
    """float32 (B,C,h,w)."""
    detail: float
    """The share of what the autoencoder loses that is given back, 0..1."""

    def give_back(self, backbone: Backbone, image: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """Return a decoded picture and its base with what a round trip takes from the sketch and the normal window.

        Both losses are known. The paint is then the sketch as the camera saw it plus what the model changed in it.
        """
        if self.detail <= 0:
            return image, base
        image = (image + self.detail * (self.image - backbone.decode(self.latent))).clamp(-1, 1)
        return image, base + self.detail * (self.normal - base)


@dataclass(frozen=True, slots=True)
class Transplant:
    """Damage on a real background, for a method of two branches (whole picture, damage alone) that draws its own mask.

    The clean picture that each step implies is taken from the photograph wherever the second branch shows no damage.
    """

    latent: Tensor
    """float32 (B,C,h,w): the photograph's windows."""
    grey: Tensor
    """float32 (1,C,h,w): mid-grey, which the second branch shows where there is no damage."""
    allowed: Tensor
    """float32 (B,1,h,w) in {0,1}: the cells where damage may lie."""
    is_control: Tensor
    """bool (B,1,1,1): rows repainted as normal: all that is allowed is painted, and the second branch stays grey."""
    shows: Callable[[Tensor], Tensor]
    """(second branch's clean latent (B,C,h,w)) -> bool (B,1,h,w): the cells that show damage."""
    sketch: Sketch | None
    """What painting started from; None = noise."""
    hold: float
    """The noise level, as a share of the schedule, from which down the photograph is held."""

    def holding(self, predict: Predict, noise: Noise) -> Predict:
        """Return a predictor of latent pairs (B,2C,h,w) that holds grey and photograph where they are known."""

        def held(latent: Tensor, t: Tensor) -> Tensor:
            whole, alone = noise.clean(latent, predict(latent, t), t).chunk(2, dim=1)
            alone = torch.where((self.allowed > 0) & ~self.is_control, alone, self.grey)
            damage = _grown(self.shows(alone).float()) * self.allowed
            early = t.view(-1, 1, 1, 1) > self.hold * len(noise)
            cells = torch.where(early | self.is_control, self.allowed, damage)
            clean = torch.cat([cells * whole + (1 - cells) * self.latent, alone], 1)
            return noise.prediction_of(latent, clean, t)

        return held

    def decoded(self, backbone: Backbone, whole: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return image and base (B,3,H,W) in [-1,1]: the damage under a mask (B,1,H,W), and a cell round it."""
        image, base = decoded_over(backbone, whole, self.latent, _grown(backbone.latent_mask(mask)))
        return (image, base) if self.sketch is None else self.sketch.give_back(backbone, image, base)


def _grown(cells: Tensor) -> Tensor:
    """Return a latent mask (B,1,h,w) grown by one cell."""
    return max_pool2d(cells, 3, stride=1, padding=1)


def paste_matched(normal: Tensor, shot: Tensor, mask: Tensor) -> Tensor:
    """Return the normal with the shot inside the mask, shifted in tone so that the rings round the mask agree.

    Args:
        normal: float32 (B,3,H,W) in [-1,1].
        shot: float32 (B,3,H,W) in [-1,1], its damage under the mask.
        mask: float32 (B,1,H,W) in {0,1}.
    """
    ring = nn.functional.max_pool2d(mask, 9, stride=1, padding=4) - mask
    area = ring.flatten(2).sum(2).clamp_min(1)[..., None, None]
    shift = ((normal - shot) * ring).flatten(2).sum(2)[..., None, None] / area
    return (normal * (1 - mask) + (shot + shift) * mask).clamp(-1, 1)


def filled(image: Tensor, mask: Tensor) -> Tensor:
    """Return windows with what lies under the mask made of what surrounds it, float32 (B,3,H,W) in [-1,1].

    Args:
        image: float32 (B,3,H,W) in [-1,1].
        mask: float32 (B,1,H,W) in {0,1}.
    """
    out, known = image * (1 - mask), 1 - mask
    for size in (5, 9, 17, 33, 65, 129):
        near = [avg_pool2d(x, size, 1, size // 2, count_include_pad=False) for x in (out, known)]
        reached = (near[1] > 0).float() * (1 - known)
        out = out + reached * near[0] / near[1].clamp_min(1e-6)
        known = known + reached
    return out.clamp(-1, 1)
