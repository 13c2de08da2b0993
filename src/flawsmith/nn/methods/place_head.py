"""A small head on frozen maps: it answers for places of a picture, one by one or all at once.

A place is described by what all depths of the maps show there, fine ones for the outline and coarse ones for what
surrounds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 4
"""Pixels a place of the grid covers along each side."""
_LOUDEST = 0.003
"""Share of a picture's places that say whether it is damaged and which defect type it shows."""
_FAR = 10.0
"""Standard deviations at which a feature is cut."""


class PlaceHead(nn.Module):
    """Standardise, then two layers; on places (`together`) or, as 1 x 1 convolutions, on maps (B,D_i,h_i,w_i).

    Args:
        mean: float32 (D,): of each feature over normal places.
        scale: float32 (D,): one over its standard deviation.
        width: Units of the hidden layer.
        outputs: Logits per place.
        rng: Draws the first weights.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, width: int, outputs: int, rng: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())
        # Filled from `rng` below: torch's own start would move the global stream.
        self.first = nn.utils.skip_init(nn.Linear, len(mean), width)
        self.second = nn.utils.skip_init(nn.Linear, width, outputs)
        for layer in (self.first, self.second):
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=rng)
            nn.init.zeros_(layer.bias)

    def dense(self, maps: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
        """Answer for every place of a grid (rows, columns), from maps (B,D_i,h_i,w_i) of all depths.

        The first layer is linear and so is interpolation, so each depth goes through its own columns at its own
        resolution first: several times less work than describing every place, and the same up to rounding but where a
        value was cut at `_FAR`.
        """
        # One picture's maps stay in the processor's cache.
        rows = range(len(maps[0]))
        return torch.cat([self.every_place([m[row : row + 1] for m in maps], grid) for row in rows])

    def every_place(self, maps: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
        """Do the work of `dense` for all pictures at once."""
        hidden, start = self.first.bias[None, :, None, None], 0
        for depth in maps:
            own = slice(start, start := start + depth.shape[1])
            mean, scale = self.mean[own].view(-1, 1, 1), self.scale[own].view(-1, 1, 1)
            part = F.conv2d(standardised(depth, mean, scale), self.first.weight[:, own, None, None])
            if part.shape[-2:] != tuple(grid):
                # Many times faster than on rows of channels.
                part = part.contiguous(memory_format=torch.channels_last)
                part = F.interpolate(part, tuple(grid), mode="bilinear", align_corners=False)
            hidden = part.add_(hidden)  # in place: new memory costs more than the sum
        return F.conv2d(F.gelu(hidden), self.second.weight[:, :, None, None], self.second.bias)


class PlaceGraph(nn.Module):
    """Heads on the maps of a frozen network, as one network.

    Args:
        maps: From pictures float32 (B,3,R,C) to maps of all depths.
        heads: Their mean answers.
    """

    def __init__(self, maps: nn.Module, heads: Sequence[PlaceHead]) -> None:
        super().__init__()
        self.maps, self.heads = maps, nn.ModuleList(heads)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.answer(self.maps(image), image.shape[-2:])

    def answer(self, maps: Sequence[Tensor], shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return anomaly map, score and probabilities of pictures of this shape from their maps."""
        heads, grid = cast("Sequence[PlaceHead]", self.heads), cells_of(shape)
        return answer([head.every_place(maps, grid) for head in heads], shape)


def together(heads: Sequence[PlaceHead], places: Tensor, kept: Tensor) -> Tensor:
    """Return the logits float32 (N,H,1+K) of H heads for places (N,D) that are `standardised` already.

    The first layers are one product, so that places are drawn and converted once for all heads.

    Args:
        heads: Of one width.
        places: float32.
        kept: float32 (N,H*width), what the hidden units are multiplied by.
    """
    weights = torch.cat([head.first.weight for head in heads])
    biases = torch.cat([head.first.bias for head in heads])
    hidden = (F.gelu(F.linear(places, weights, biases)) * kept).unflatten(1, (len(heads), -1))
    second = torch.stack([head.second.weight for head in heads])
    return torch.einsum("nhw,hkw->nhk", hidden, second) + torch.stack([head.second.bias for head in heads])


def kept_units(places: int, units: int, dropout: float, rng: torch.Generator) -> Tensor:
    """Draw which hidden units stay, float32 (places,units): 0, or what makes up for those that are left out."""
    # One random byte each: eight times fewer draws, which are a good part of a training step.
    random_words = torch.empty(-(-places * units // 8), dtype=torch.int64).random_(-(2**63), None, generator=rng)
    dropped = min(255, round(dropout * 256))
    return (random_words.view(torch.uint8)[: places * units].view(places, units) >= dropped) / (1 - dropped / 256)


def standardised(features: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return features less their mean, in standard deviations, cut where they are far from normal."""
    return (features - mean).mul_(scale).clamp_(-_FAR, _FAR)


def cells_of(shape: Sequence[int], cell: int = CELL) -> tuple[int, int]:
    """Return rows and columns of the cells that cover a picture."""
    return -(-shape[0] // cell), -(-shape[1] // cell)


def answer(logits: Sequence[Tensor], shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Join what heads say of every cell.

    Args:
        logits: float32 (B,1+K,rows,columns) of each head: normal, then the defect types.
        shape: Rows and columns of the pictures.

    Returns:
        Anomaly map float32 (B,1,R,C) in 0..1, score (B,) in 0..1, probabilities (B,K).
    """
    # Heads that disagree on the defect type may agree that it is damage, so the two are averaged apart.
    odds = torch.stack([one[:, 1:].logsumexp(1, keepdim=True) - one[:, :1] for one in logits]).mean(0)
    types = torch.stack([one[:, 1:].softmax(1) for one in logits]).mean(0)
    anomaly_map = odds.sigmoid()
    few = max(1, round(odds.shape[-2] * odds.shape[-1] * _LOUDEST))
    loudest = odds.flatten(2).topk(few, dim=2)
    score = loudest.values.mean((1, 2)).sigmoid()
    flat = (anomaly_map * types).flatten(2)
    share = flat.gather(2, loudest.indices.expand(-1, flat.shape[1], -1)).sum(2).clamp_min(1e-12)
    whole = F.interpolate(anomaly_map, tuple(shape), mode="bilinear", align_corners=False)
    return whole, score, share / share.sum(1, keepdim=True)


def described_places(maps: Sequence[Tensor], row: int, places: Tensor, grid: Sequence[int]) -> Tensor:
    """Return float16 (N,D): what all depths show at places of a grid (rows, columns) on one picture."""
    rows, columns = grid
    scale = torch.tensor([2 / columns, 2 / rows])
    at = torch.stack([places % columns, places // columns], 1).add(0.5).mul(scale).sub(1)[None, None]
    parts = [F.grid_sample(m[row : row + 1], at, padding_mode="border", align_corners=False) for m in maps]
    return torch.cat(parts, 1)[0, :, 0].T.half()
