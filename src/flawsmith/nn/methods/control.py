"""A ControlNet (Zhang et al. 2023) for any diffusers UNet, whatever its number of input channels."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from flawsmith.nn.attention import use_small_attention
from flawsmith.nn.cpu_kernels import use_plane_norms, use_split_gates
from flawsmith.nn.weights import fresh_layers


class Control(nn.Module):
    """A ControlNet that sees the noisy latent and a hint picture, which can be embedded once for all steps."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def embed_hint(self, hint: Tensor) -> Tensor:
        """Return the embedding (B,D,h,w) of a hint (B,3,H,W); pass it to `forward` in the hint's place."""
        return self.net.controlnet_cond_embedding(hint)

    def forward(
        self,
        latent: Tensor,
        t: Tensor,
        encoder_hidden_states: Tensor,
        hint: Tensor,
        *,
        scale: float = 1.0,
        added_cond_kwargs: dict[str, Tensor] | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Return (down blocks' residuals, middle block's); `Backbone.residuals` calls it with a text.

        Args:
            latent: Noisy latent (B,C,h,w).
            t: int64 (B,).
            encoder_hidden_states: (B,T,D).
            hint: (B,3,H,W) in {0,1}, or what `embed_hint` returned.
            scale: Strength of the control.
            added_cond_kwargs: What a UNet of the family gets beside the hidden states; None = nothing.
        """
        given = latent, t, encoder_hidden_states, hint
        named = {"conditioning_scale": scale, "added_cond_kwargs": added_cond_kwargs, "return_dict": False}
        if hint.shape[-2:] == latent.shape[-2:]:
            if hint.shape[1] != self.net.conv_in.out_channels:
                raise ValueError(f"a hint of the latent's size must be embed_hint's, not {tuple(hint.shape)}")
            embedding, self.net.controlnet_cond_embedding = self.net.controlnet_cond_embedding, nn.Identity()
            try:
                return self.net(*given, **named)
            finally:
                self.net.controlnet_cond_embedding = embedding
        return self.net(*given, **named)


def control_from_unet(unet: Any, latent_channels: int, factor: int) -> Control:
    """Return a ControlNet that starts as the UNet's own encoder and at first changes nothing (its outputs are zero).

    An inpainting UNet's first convolution also takes mask and masked latent; the ControlNet's is cut to its first
    `latent_channels` inputs, for the noisy latent. The network is float32, whatever the UNet is in.

    Args:
        unet: A diffusers UNet2DConditionModel.
        latent_channels: C.
        factor: Pixels a latent cell, 2, 4, 8 or 16: the hint is halved that often.
    """
    halvings = factor.bit_length() - 1
    widths = (16, 32, 96, 256, 256)[: halvings + 1]
    # The copy draws random numbers for layers that it then overwrites or zeroes.
    with fresh_layers():
        # A ControlNet has no place for the weight of guidance, which some UNets read with the timestep.
        times, projection = unet.time_embedding, getattr(unet.time_embedding, "cond_proj", None)
        times.cond_proj = None
        try:
            net = ControlNetModel.from_unet(unet, conditioning_channels=3, conditioning_embedding_out_channels=widths)
        finally:
            times.cond_proj = projection
        if net.conv_in.in_channels != latent_channels:
            whole, kernel = net.conv_in, net.conv_in.kernel_size
            net.conv_in = nn.Conv2d(latent_channels, whole.out_channels, kernel, padding=whole.padding)
            with torch.no_grad():
                net.conv_in.weight.copy_(whole.weight[:, :latent_channels])
                net.conv_in.bias.copy_(whole.bias)
            net.register_to_config(in_channels=latent_channels)
    nn.Module.to(net, dtype=torch.float32)
    use_small_attention(net)
    use_plane_norms(net)
    use_split_gates(net)
    nn.Module.to(net, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Control(net).train().requires_grad_(True)
