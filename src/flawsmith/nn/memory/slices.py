"""An autoencoder's two ways, a few pictures at a time: memory follows the slice, and not the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flawsmith.nn.memory.parking import at_work

PIXELS_AT_ONCE = 2**19
"""Two pictures of 512 px or 32 of 128: enough to keep a card busy. Larger pictures go one at a time."""
_FAR = 1e3  # Latents vary by about 1 and pictures lie in [-1,1]: beyond this, numbers have overflowed.


def encoded(vae: Any, image: Tensor, device: torch.device) -> Tensor:
    """Return latents float32 (B,C,h,w) on `device`, the posterior's mean, scaled as the UNet knows them.

    Args:
        vae: A diffusers autoencoder.
        image: float32 (B,3,H,W), RGB, [-1,1].
        device: Where the autoencoder computes.
    """

    def work(pictures: Tensor) -> Tensor:
        out = vae.encode(_given(pictures, vae))
        latent = next((out[name] for name in ("latent", "latents") if name in out), None)
        latent = out.latent_dist.mean if latent is None else latent
        return (latent.float() - _shift(vae)) * float(vae.config.scaling_factor)

    with at_work([vae], device):
        return in_slices(work, image, image.shape[-2] * image.shape[-1])


def decoded(vae: Any, latent: Tensor, factor: int, device: torch.device) -> Tensor:
    """Return images float32 (B,3,H,W) RGB in [-1,1] on `device`; NaN where numbers overflowed.

    Args:
        vae: A diffusers autoencoder.
        latent: (B,C,h,w), scaled.
        factor: Pixels a cell of the latent, along a side.
        device: Where the autoencoder computes.
    """

    def work(latents: Tensor) -> Tensor:
        plain = latents.float() / float(vae.config.scaling_factor) + _shift(vae)
        image = vae.decode(_given(plain, vae)).sample.float()
        # Clamped, an overflow would be plain white or black; as NaN it is refused where a result is painted.
        sane = (latents.float().abs() <= _FAR).flatten(1).all(1).view(-1, 1, 1, 1).to(image.device)
        return torch.where(sane & (image.abs() <= _FAR), image, torch.nan).clamp(-1, 1)

    with at_work([vae], device):
        return in_slices(work, latent, latent.shape[-2] * latent.shape[-1] * factor**2)


def in_slices(work: Callable[[Tensor], Tensor], rows: Tensor, pixels: int) -> Tensor:
    """Return what `work` makes of B rows, done in slices of `PIXELS_AT_ONCE` pixels; a row has `pixels` of them."""
    count = max(1, PIXELS_AT_ONCE // pixels)
    if len(rows) <= count:
        return work(rows)
    return torch.cat([work(part) for part in rows.split(count)])


def _given(tensor: Tensor, vae: Any) -> Tensor:
    like = next(vae.parameters())
    return tensor.to(like.device, like.dtype).contiguous(memory_format=torch.channels_last)


def _shift(vae: Any) -> float:
    return float(getattr(vae.config, "shift_factor", None) or 0.0)
