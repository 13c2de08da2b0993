"""Painting in the mask of a window with a diffusion model: what the methods that inpaint share.

A method brings its own predictor; the window's latents, where to start from, the denoising loop, the unmasked latent
put back, and the fine detail that an autoencoder loses are the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from flawsmith.errors import ConfigError
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import Predict, denoise
from flawsmith.types import Condition, Generated

Start = Literal["noise", "normal", "shot"]
Known = tuple[Tensor, Tensor, Tensor]
"""Latents (B,C,h,w) of the window, and of the window with the mask greyed out; the latent mask (B,1,h,w)."""


def conditions(backbone: Backbone, image: Tensor, mask: Tensor) -> Known:
    """Return what an inpainting model is told of windows float32 (B,3,H,W) in [-1,1] and masks (B,1,H,W) in {0,1}."""
    image, mask = image.to(backbone.device), mask.to(backbone.device)
    known, masked = backbone.encode(torch.cat([image, image * (1 - mask)])).chunk(2)
    return known, masked, backbone.latent_mask(mask)


def paint(
    backbone: Backbone,
    asked: Condition,
    told: Known,
    predict: Predict,
    seeds: Sequence[int],
    *,
    steps: int,
    sampler: str,
    start: Start,
    strength: float,
    detail: float,
) -> Generated:
    """Denoise in the masks of B windows and decode; what was not asked for decodes exactly as the base does.

    Args:
        backbone: The frozen model.
        asked: B requests.
        told: What `conditions` returned for them.
        predict: The network with words, guidance and conditions bound.
        seeds: One a sample.
        steps: Of the whole schedule; from a start, only the last share `strength` of them is walked.
        sampler: "dpm" or "ddim".
        start: "noise", "normal" (the window itself) or "shot" (the re-posed shot blended in).
        strength: How much of the start is made anew; 1 = everything.
        detail: With start = shot, how much of what the autoencoder loses is given back.

    Raises:
        ConfigError: start is "shot" and there is none.
    """
    normal, mask = asked.normal.to(backbone.device), asked.mask.to(backbone.device)
    known, _, cells = told
    first = pasted = None
    if start == "shot":
        if asked.shot is None:
            raise ConfigError('generator.settings.start = "shot" needs masks from shots; set generate.masks = "shots"')
        pasted = paste_matched(normal, asked.shot.image.to(backbone.device), mask)
        if asked.sketch is not None:
            pasted = normal * (1 - mask) + asked.sketch.to(backbone.device) * mask
        first = cells * backbone.encode(pasted) + (1 - cells) * known
    elif start == "normal":
        first = known
    latent = denoise(
        predict,
        backbone.noise,
        seeds,
        tuple(known.shape[1:]),
        steps=steps,
        sampler=sampler,
        start=first,
        strength=strength if first is not None else 1.0,
        known=None if backbone.inpaints else known,
        known_mask=None if backbone.inpaints else cells,
        device=backbone.device,
    )
    latent = cells * latent + (1 - cells) * known
    image, base = backbone.decode(torch.cat([latent, known])).chunk(2)
    if first is not None and pasted is not None and detail > 0:
        # What a round trip through the autoencoder takes from the sketch and from the normal window is known:
        # given back to both, the paint is the sketch as the camera saw it plus what the model changed in it.
        image = (image + detail * (pasted - backbone.decode(first))).clamp(-1, 1)
        base = base + detail * (normal - base)
    return Generated(image.cpu(), asked.mask.cpu(), base.cpu())


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


def worded(prompt: str, defect: str, product: str) -> str:
    """Return a prompt with its fields filled in, names in words."""
    return prompt.format(defect=defect.replace("_", " "), product=product.replace("_", " "))


def prompt_fields(value: str) -> str:
    """Return a prompt unchanged when {defect} and {product} are all that it leaves open; ValueError otherwise."""
    try:
        value.format(defect="x", product="y")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"only {{defect}} and {{product}} can be filled in ({error})") from None
    return value


def filled(image: Tensor, mask: Tensor) -> Tensor:
    """Return windows with what lies under the mask made of what surrounds it, float32 (B,3,H,W) in [-1,1].

    A hole would tell BCM where the damage is, and when sampling there is none.

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
