"""BCM, the background compensation module of DualAnoDiff (CVPR 2025): the whole picture's branch sees a background.

A pass over the noised background keeps what enters each self-attention; the first branch's keys and values are then
made of its own hidden states mixed with those (`BCM`). Two ways to noise the background: `noised_anew` is the authors'
code, `noised_once` is ours and shares passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from flawsmith.nn.diffusion import Noise, stacked_noise
from flawsmith.nn.text import Text

_NARROW = 320
"""Width in the middle of BCM's mixing layers, as published."""
Hidden = dict[str, Tensor]
"""What enters each self-attention, (B,T,C), by the layer's name."""
BackgroundPass = Callable[[Tensor, Tensor, Text, Sequence[int]], Hidden]
"""(noisy backgrounds (N,C,h,w), t int64 (N,), text of N rows, N numbers of adapter pairs) -> hidden states."""


class BCM(nn.Module):
    """BCM of one self-attention: (1 - a) hidden + a MLP(background's hidden), the MLP without an activation.

    Args:
        width: C of the layer.
        start: a at first; 0 as published (the MLP then learns nothing until a has moved).
    """

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor([start]))
        self.inner = nn.Linear(width, _NARROW)
        self.outer = nn.Linear(_NARROW, width)

    def forward(self, hidden: Tensor, background: Tensor) -> Tensor:
        """Return what keys and values are made of, (B,T,C); `background` is (B,T,C)."""
        weights = [p.to(hidden.dtype) for layer in (self.inner, self.outer) for p in (layer.weight, layer.bias)]
        compensation = linear(linear(background, *weights[:2]), *weights[2:])
        return torch.lerp(hidden, compensation.to(hidden.dtype), self.share.to(hidden.dtype))


def noised_anew(
    run: BackgroundPass, noise: Noise, latent: Tensor, text: Text, pair: Sequence[int], seeds: Sequence[int]
) -> Callable[[Tensor], Hidden]:
    """Return what gives the hidden states at a timestep, with new noise in every row and at every step.

    Args:
        run: The UNet's pass.
        noise: The schedule.
        latent: Backgrounds (N,C,h,w), one per row of the batch; with guidance its halves one after the other.
        text: Their text, N rows.
        pair: Their adapters.
        seeds: One per request; a row's noise does not depend on its neighbours.
    """
    streams = [torch.Generator().manual_seed(int(seed) * 2 + 1) for seed in seeds]
    halves = len(latent) // len(streams)

    def at(t: Tensor) -> Hidden:
        drawn = [torch.randn(latent.shape[1:], generator=rng) for _ in range(halves) for rng in streams]
        return run(noise.add(latent, torch.stack(drawn).to(latent.device), t), t, text, pair)

    return at


def noised_once(
    run: BackgroundPass, noise: Noise, latent: Tensor, text: Text, tokens: Tensor, pair: Sequence[int]
) -> Callable[[Tensor], Hidden]:
    """Return what gives the hidden states at a timestep, with one noise for all rows and steps.

    Rows with the same photograph, text and adapters then share one pass; so do the halves of a guided batch.

    Args:
        run: The UNet's pass.
        noise: The schedule.
        latent: Backgrounds (B,C,h,w), one per request.
        text: Their text, B rows.
        tokens: The text as token rows, int64 (B,N).
        pair: Their adapters.
    """
    first: dict[tuple[bytes, tuple[int, ...], int], int] = {}
    shared_by = []
    for row in range(len(latent)):
        content = (latent[row].cpu().numpy().tobytes(), tuple(tokens[row].tolist()), pair[row])
        first.setdefault(content, row)
        shared_by.append(list(first).index(content))
    chosen = torch.tensor(list(first.values()), device=latent.device)
    distinct, words, adapters = latent[chosen], text[chosen], [pair[row] for row in first.values()]
    drawn = stacked_noise([0], tuple(latent.shape[1:])).to(latent.device)

    def at(t: Tensor) -> Hidden:
        hidden = run(noise.add(distinct, drawn, t[: len(chosen)]), t[: len(chosen)], words, adapters)
        rows = torch.tensor(shared_by * (len(t) // len(latent)), device=latent.device)
        return {name: part[rows] for name, part in hidden.items()}

    return at
