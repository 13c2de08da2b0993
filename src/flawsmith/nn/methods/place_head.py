"""A small head on frozen maps: it answers for places of a picture, one by one or all at once.

A place is described by what all depths of the maps show there, fine ones for the outline and coarse ones for what
surrounds it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FAR = 10.0
"""Standard deviations at which a feature is cut."""


class PlaceHead(nn.Module):
    """Standardise, then two layers; on places (N,D) or, as 1 x 1 convolutions, on maps (B,D_i,h_i,w_i).

    Args:
        mean: float32 (D,): of each feature over normal places.
        std: float32 (D,): its standard deviation.
        width: Units of the hidden layer.
        outputs: Logits per place.
        rng: Draws the first weights.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, std: Tensor, width: int, outputs: int, rng: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", 1 / (std + 1e-3))
        # Filled from `rng` below: torch's own start would move the global stream.
        self.first = nn.utils.skip_init(nn.Linear, len(mean), width)
        self.second = nn.utils.skip_init(nn.Linear, width, outputs)
        for layer in (self.first, self.second):
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=rng)
            nn.init.zeros_(layer.bias)

    def forward(self, places: Tensor, kept: Tensor | None = None) -> Tensor:
        hidden = F.gelu(self.first(((places - self.mean) * self.scale).clamp(-_FAR, _FAR)))
        return self.second(hidden if kept is None else hidden * kept)

    def dense(self, maps: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
        """Answer for every place of a grid (rows, columns), from maps (B,D_i,h_i,w_i) of all depths.

        The first layer is linear and so is interpolation, so each depth goes through its own columns at its own
        resolution first: several times less work than describing every place, and the same up to rounding but where a
        value was cut at `_FAR`.
        """
        if len(maps[0]) > 1:
            # One picture's maps stay in the processor's cache.
            return torch.cat([self.dense([m[row : row + 1] for m in maps], grid) for row in range(len(maps[0]))])
        hidden, start = self.first.bias[None, :, None, None], 0
        for depth in maps:
            own = slice(start, start := start + depth.shape[1])
            mean, scale = self.mean[own].view(-1, 1, 1), self.scale[own].view(-1, 1, 1)
            plain = (depth - mean).mul_(scale).clamp_(-_FAR, _FAR)
            part = F.conv2d(plain, self.first.weight[:, own, None, None])
            if part.shape[-2:] != tuple(grid):
                # Many times faster than on rows of channels.
                part = part.contiguous(memory_format=torch.channels_last)
                part = F.interpolate(part, tuple(grid), mode="bilinear", align_corners=False)
            hidden = part.add_(hidden)  # in place: new memory costs more than the sum
        return F.conv2d(F.gelu(hidden), self.second.weight[:, :, None, None], self.second.bias)


def described_places(maps: Sequence[Tensor], row: int, places: Tensor, grid: Sequence[int]) -> Tensor:
    """Return float16 (N,D): what all depths show at places of a grid (rows, columns) on one picture."""
    rows, columns = grid
    scale = torch.tensor([2 / columns, 2 / rows])
    at = torch.stack([places % columns, places // columns], 1).add(0.5).mul(scale).sub(1)[None, None]
    parts = [F.grid_sample(m[row : row + 1], at, padding_mode="border", align_corners=False) for m in maps]
    return torch.cat(parts, 1)[0, :, 0].T.half()
