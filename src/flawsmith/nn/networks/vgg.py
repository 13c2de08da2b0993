"""LPIPS' network: VGG-16's five ReLU depths, unit length at each place, weighted by the published linear heads.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018; weights as published
with version 0.1: VGG-16 under torchvision's names (features.0.weight …), the heads as lin0.model.1.weight … lin4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith.errors import ConfigError
from flawsmith.nn.networks.extractor import Extractor, scaled

_CONVS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Numbers of the convolutions between two poolings; each depth ends with the last one's ReLU."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LpipsExtractor(Extractor):
    """VGG-16 with LPIPS' heads; `perceptual` gives the published distance."""

    name = "lpips-vgg"
    strides = (1, 2, 4, 8, 16)
    side = 256

    def __init__(self, state: Mapping[str, Tensor], fingerprint: str) -> None:
        super().__init__()
        self.fingerprint = fingerprint
        names = [f"features.{number}.{part}" for group in _CONVS for number in group for part in ("weight", "bias")]
        names += [f"lin{depth}.model.1.weight" for depth in range(5)]
        if missing := [name for name in names if name not in state]:
            raise ConfigError(
                f"features.source: lpips-vgg's weights lack {missing[0]}; the folder needs VGG-16 "
                "(features.0.weight …) and LPIPS' heads (lin0.model.1.weight …)"
            )
        for name in names:
            self.register_buffer(name.replace(".", "_"), state[name].float())
        self.channels = tuple(int(state[f"features.{group[-1]}.weight"].shape[0]) for group in _CONVS)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))

    @torch.inference_mode()
    def maps(self, image: Tensor) -> list[Tensor]:
        x = (image - self.get_buffer("shift")) / self.get_buffer("scale")
        depths = []
        for depth, group in enumerate(_CONVS):
            if depth:
                x = F.max_pool2d(x, 2)
            for number in group:
                weight, bias = (self.get_buffer(f"features_{number}_{part}") for part in ("weight", "bias"))
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            depths.append(x)
        return depths

    @torch.inference_mode()
    def vector(self, image: Tensor) -> Tensor:
        return self.maps(scaled(image, self.side))[-1].mean((2, 3))

    @torch.inference_mode()
    def perceptual_of(self, maps: list[Tensor]) -> list[Tensor]:
        weighted = []
        for depth, x in enumerate(maps):
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            weighted.append(unit * self.get_buffer(f"lin{depth}_model_1_weight").clamp_min(0).sqrt())
        return weighted
