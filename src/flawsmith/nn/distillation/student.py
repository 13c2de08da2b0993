"""The student's network: a backbone's UNet that is given the mask at its own resolution too, or one half as wide.

A ControlNet is told the mask pixel by pixel. A student, which is one network, gets the same in its first layer: the f x
f pixels of each cell as so many more channels, whose weights begin at zero; a plain UNet is made an inpainting one in
the same way. Half as wide, a quarter of the weights: every second channel of every layer is kept, and what sums over
channels counts twice, so that sums stay what they were in the mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from flawsmith.errors import ConfigError
from flawsmith.nn.attention import use_small_attention
from flawsmith.nn.cpu_kernels import use_plane_norms, use_split_gates
from flawsmith.nn.loading.networks import quiet
from flawsmith.nn.weights import fresh_layers


def student_of(unet: Any, latent_channels: int, factor: int, *, half: bool = False) -> Any:
    """Return a UNet, float32, that begins as a backbone's; the backbone's is not changed.

    It takes latent (C), latent mask (1), masked latent (C) and the pixels of the mask (f x f) side by side.

    Args:
        unet: A diffusers UNet2DConditionModel of C or 2C + 1 input channels.
        latent_channels: C.
        factor: f: pixels a latent cell.
        half: True: half as wide.

    Raises:
        ConfigError: the widths of this UNet cannot be halved.
    """
    channels = 2 * latent_channels + 1 + factor**2
    config = {**unet.config, "in_channels": channels}
    if half:
        config["block_out_channels"] = [width // 2 for width in unet.config.block_out_channels]
    try:
        with fresh_layers(), quiet():
            student = type(unet).from_config(config)
        given, taken = unet.state_dict(), student.state_dict()
        weights = {name: _cut(given[name].float().cpu(), taken[name].shape, name) for name in taken}
    except ValueError as error:
        raise ConfigError(f"this backbone's UNet has no student half as wide ({error}); leave `quarter` out") from None
    student.load_state_dict(weights)
    use_small_attention(student)
    use_plane_norms(student)
    use_split_gates(student)
    nn.Module.to(student, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return student.train().requires_grad_(True)


def pixels_of(mask: Tensor, factor: int) -> Tensor:
    """Return a mask (B,1,H,W) as (B,f*f,h,w): a channel for each pixel of a cell."""
    return pixel_unshuffle(mask.float(), factor)


def _cut(weight: Tensor, shape: torch.Size, name: str) -> Tensor:
    """Return a layer's weights in another shape.

    Raises:
        ValueError: a side is neither kept nor halved.
    """
    if name == "conv_in.weight":  # new inputs count for nothing at first
        weight = nn.functional.pad(weight, (0, 0, 0, 0, 0, shape[1] - weight.shape[1]))
    for side, (before, after) in enumerate(zip(weight.shape, shape, strict=True)):
        if before == after:
            continue
        if before != 2 * after:
            raise ValueError(f"{name}: {before} channels are not twice {after}")
        weight = weight.index_select(side, torch.arange(0, before, 2)) * (2 if side == 1 else 1)
    return weight.contiguous()
