"""The spatial embedding: a mask becomes words that say where and in what shape the damage is.

AnomalyDiffusion (Hu et al., AAAI 2024, section 3.2): features of the mask at several depths of a ResNet-50, fused as a
feature pyramid (Lin et al., CVPR 2017); a fully connected layer for each of the n words. One encoder serves all defect
types, so that a type's own words need not tell a place.

Ours: four convolutions in place of the ResNet-50, for a few shots are learned from and a mask is no photograph; the
finest map is kept as a grid of `GRID` x `GRID` cells, so that the words know left from right; and the words start as
the vocabulary's mean, whatever the mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flawsmith.nn.anomaly_diffusion.words import Vocabulary
from flawsmith.nn.text import TextEncoder
from flawsmith.nn.weights import fresh_layers

SIDE = 64
"""Rows and columns of the mask that the encoder sees."""
GRID = 4
_WIDTHS = (16, 32, 64, 64)
_FUSED = 32


def shrunk(mask: Tensor) -> Tensor:
    """Return a mask float32 (B,1,H,W) in {0,1} as float32 (B,1,SIDE,SIDE): a cell is 1 when any of its pixels is."""
    return F.adaptive_max_pool2d(mask.float(), SIDE)


class LocationEncoder(nn.Module):
    """Masks in, words out.

    Args:
        encoder: A backbone's text encoder, whose token embeddings the words are to be like.
        count: n, how many words.
    """

    def __init__(self, encoder: TextEncoder, count: int) -> None:
        super().__init__()
        self.vocabulary = Vocabulary(encoder)
        depths = list(zip((1, *_WIDTHS), _WIDTHS, strict=False))
        with fresh_layers():
            self.down = nn.ModuleList(nn.Conv2d(width, wider, 3, stride=2, padding=1) for width, wider in depths)
            self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in _WIDTHS)
            self.sideways = nn.ModuleList(nn.Conv2d(width, _FUSED, 1) for width in _WIDTHS)
            self.smooth = nn.Conv2d(_FUSED, _FUSED, 3, padding=1)
            self.heads = nn.ModuleList(
                nn.Linear(GRID * GRID * _FUSED, len(self.vocabulary.middle)) for _ in range(count)
            )
        for head in self.heads:
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def pyramid(self, mask: Tensor) -> list[Tensor]:
        """Return the fused maps of masks (B,1,SIDE,SIDE), coarse to fine, each float32 (B,_FUSED,h,w)."""
        maps, features = [], mask
        for conv, norm in zip(self.down, self.norms, strict=True):
            features = F.silu(norm(conv(features)))
            maps.append(features)
        fused = [self.sideways[-1](maps[-1])]
        for number in range(len(maps) - 2, -1, -1):
            finer = self.sideways[number](maps[number])
            fused.append(finer + F.interpolate(fused[-1], finer.shape[-2:], mode="nearest"))
        return fused

    def forward(self, mask: Tensor) -> Tensor:
        """Return words float32 (B,count,W) of masks float32 (B,1,SIDE,SIDE) in {0,1}."""
        cells = F.adaptive_avg_pool2d(F.silu(self.smooth(self.pyramid(mask)[-1])), GRID).flatten(1)
        words = [self.vocabulary.middle + self.vocabulary.spread * head(cells) for head in self.heads]
        return torch.stack(words, 1)
