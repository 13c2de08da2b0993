"""Start an autoencoder where a linear one would end: at the principal components of its patches.

Idea: of all linear codes of k numbers a patch, principal components lose least (Eckart & Young 1936). A random network
needs thousands of steps to get there; here its convolutions pass pixels through untouched, its residual blocks add
nothing yet, and only its innermost layers, fitted in closed form, choose the k numbers. Training goes on from there.

Components with more variance keep more of it (the fourth root, not unit variance): while noise is taken away, tone and
shape are then settled before grain.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_CONSTANT = 100.0
"""Of a channel that outweighs all others, so that the decoder's last norm, which divides by their size, is linear."""


def can_start(vae: Any) -> bool:
    """Return whether the autoencoder is wide enough to pass every pixel of a patch through its layers."""
    config = vae.config
    widths = config.encoder_block_out_channels
    return (
        vae.spatial_compression_ratio == 8
        and list(widths) == list(config.decoder_block_out_channels)
        and widths[1] >= 25
        and widths[2] >= 48
        and widths[3] >= 192
    )


@torch.no_grad()
def start_from_components(vae: Any, pictures: Tensor) -> None:
    """Set the weights of an `AutoencoderDC` of factor 8 so that it codes patches by their principal components.

    Args:
        vae: Untrained, of diffusers' class, whose blocks have `rms_norm`; changed in place.
        pictures: float32 (B,3,H,W) RGB in [-1,1], sides a multiple of 8; some thousand patches in all.
    """
    encoder, decoder = vae.encoder, vae.decoder
    for block in vae.modules():
        if type(block).__name__ == "ResBlock":
            block.norm.weight.zero_()
            if block.norm.bias is not None:
                block.norm.bias.zero_()
    _pass_through(encoder.conv_in.conv, 3)
    downs = [block[-1].conv for block in encoder.down_blocks[1:-1]]
    for conv, kept in zip(downs, (12, 48), strict=True):
        _pass_through(conv, kept)

    patches = _patches(pictures).double()
    centre = patches.mean(0)
    variance, axes = torch.linalg.eigh(torch.cov(patches.T))
    count = vae.config.latent_channels
    variance, axes = variance[-count:].flip(0), axes[:, -count:].flip(1)
    size = variance.clamp(min=1e-12) ** -0.25
    size = size / ((variance * size.square()).mean().sqrt())
    code = (patches - centre) @ axes * size

    encoder.conv_out.weight.zero_()
    encoder.conv_out.bias.zero_()
    inputs = _before(encoder, pictures).double()
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], 1)
    gram = inputs.T @ inputs
    gram += torch.eye(len(gram), dtype=gram.dtype) * 1e-8 * gram.diagonal().mean()
    solved = torch.linalg.solve(gram, inputs.T @ code)
    encoder.conv_out.weight[:, :, 1, 1] = solved[:-1].T.float()
    encoder.conv_out.bias.copy_(solved[-1])

    _set(decoder.conv_in, (axes / size)[_ORDER], centre[_ORDER])
    ups = [block[0].conv for block in reversed(decoder.up_blocks[1:-1])]
    _spread(ups[0], torch.arange(192))
    last = torch.arange(48)
    _spread(ups[1], torch.cat([last, last]), torch.cat([torch.ones(48), -torch.ones(48)]))
    constant = slice(96, 100)
    ups[1].weight[constant] = 0
    for row in range(96, 100):
        ups[1].weight[row, row // 2, 1, 1] = -1
    ups[1].bias[constant] = _CONSTANT
    decoder.norm_out.weight.fill_(_CONSTANT / decoder.norm_out.weight.numel() ** 0.5)
    decoder.norm_out.bias.zero_()
    out = decoder.conv_out.conv
    out.weight.zero_()
    out.bias.zero_()
    for row in range(12):
        out.weight[row, row, 1, 1], out.weight[row, 12 + row, 1, 1] = 1, -1


def _order() -> Tensor:
    """Return where each of the innermost channels' pixels lies in a flat (3,8,8) patch, int64 (192,)."""
    # Each of three pixel shuffles turns four channels into a 2x2 square: the innermost channel's number is
    # ((colour, finest), middle, coarsest), and a pixel's row is made of one bit of each.
    number = torch.arange(192)
    coarse, middle, fine, colour = number % 4, number // 4 % 4, number // 16 % 4, number // 64
    row = 4 * (coarse // 2) + 2 * (middle // 2) + fine // 2
    column = 4 * (coarse % 2) + 2 * (middle % 2) + fine % 2
    return colour * 64 + row * 8 + column


_ORDER = _order()


def _patches(pictures: Tensor) -> Tensor:
    """Cut pictures into flat patches, (N,192), in the order of the latent's cells."""
    return nn.functional.pixel_unshuffle(pictures, 8).permute(0, 2, 3, 1).flatten(0, 2)


def _before(encoder: Any, pictures: Tensor) -> Tensor:
    """Return the inputs of the encoder's last layer, (N,width), in the order of the latent's cells."""
    kept: list[Tensor] = []
    hook = encoder.conv_out.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    encoder(pictures)
    hook.remove()
    return kept[0].permute(0, 2, 3, 1).flatten(0, 2)


def _pass_through(conv: nn.Conv2d, count: int) -> None:
    """Let the first `count` channels pass unchanged; the others keep their random weights."""
    conv.weight[:count] = 0
    for channel in range(count):
        conv.weight[channel, channel, 1, 1] = 1
    if conv.bias is not None:
        conv.bias[:count] = 0


def _set(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    conv.weight[: len(weight)] = 0
    conv.weight[: len(weight), :, 1, 1] = weight.float()
    assert conv.bias is not None
    conv.bias[: len(weight)] = bias.float()


def _spread(conv: nn.Conv2d, source: Tensor, sign: Tensor | None = None) -> None:
    """Let output row i, before the shuffle, be input `source[i]` (times a sign), whatever the block's shortcut adds."""
    repeats = conv.out_channels // conv.in_channels
    conv.weight[: len(source)] = 0
    assert conv.bias is not None
    conv.bias[: len(source)] = 0
    for row, channel in enumerate(source.tolist()):
        conv.weight[row, channel, 1, 1] += 1.0 if sign is None else float(sign[row])
        conv.weight[row, row // repeats, 1, 1] -= 1
