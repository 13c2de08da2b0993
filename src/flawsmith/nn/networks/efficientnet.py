"""EfficientNet-Lite0, the trunk only, for inference: batch norms folded into the convolutions, maps of four depths out.

Tan & Le, "EfficientNet" (ICML 2019); the Lite variant (TensorFlow, 2020) has ReLU6 and no squeeze-and-excitation, so it
suits plain processors. Input is RGB, (x - 127) / 128 on 0..255. Convolutions pad as TensorFlow's SAME does: where the
stride is 2, more on the right and below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = (
    # (widening, kernel, stride, channels, blocks)
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
TAPS = {2: 4, 4: 8, 10: 16, 15: 32}
"""Blocks whose output is a depth -> its stride."""
CHANNELS = (24, 40, 112, 320)
_EPS = 1e-3


# Anomalib cuts networks with torch.fx, which cannot follow sums of sizes, nor save a memory format: those are one step.
@torch.fx.wrap
def _entering(image: Tensor) -> Tensor:
    """Scale [-1,1] as the network was trained; channels last, which is quicker."""
    return (((image + 1) * 127.5 - 127) / 128).contiguous(memory_format=torch.channels_last)


@torch.fx.wrap
def _padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow's SAME does."""
    down, right = (max((math.ceil(length / stride) - 1) * stride + kernel - length, 0) for length in x.shape[-2:])
    return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))


class _Conv(nn.Module):
    """A convolution with the batch norm that follows it folded in, and ReLU6 unless it is linear."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        state: Mapping[str, Tensor],
        conv: str,
        norm: str,
        *,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _EPS).sqrt()
        weight = state[f"{conv}.weight"] * scale.view(-1, 1, 1, 1)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)
        self.stride, self.groups, self.linear = stride, groups, linear
        self.kernel = weight.shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel > 1:
            x = _padded(x, self.kernel, self.stride)
        x = F.conv2d(x, self.weight, self.bias, stride=self.stride, groups=self.groups)
        return x if self.linear else F.relu6(x)


class EfficientNetLite0(nn.Module):
    """The trunk; built from the published state_dict.

    Raises:
        KeyError: the state_dict is of another network.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stem = _Conv(state, "_conv_stem", "_bn0", stride=2)
        self.blocks = nn.ModuleList()
        self.skips: list[bool] = []
        incoming = 32
        for widening, _, stride, channels, count in STAGES:
            for position in range(count):
                name = f"_blocks.{len(self.blocks)}."
                wide = incoming * widening
                parts = [_Conv(state, f"{name}_expand_conv", f"{name}_bn0")] if widening > 1 else []
                parts.append(
                    _Conv(
                        state,
                        f"{name}_depthwise_conv",
                        f"{name}_bn1",
                        stride=stride if position == 0 else 1,
                        groups=wide,
                    )
                )
                parts.append(_Conv(state, f"{name}_project_conv", f"{name}_bn2", linear=True))
                self.blocks.append(nn.Sequential(*parts))
                self.skips.append(position > 0)
                incoming = channels
        self.head = _Conv(state, "_conv_head", "_bn1")

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of four depths (strides 4, 8, 16, 32) for float32 (B,3,H,W) in [-1,1]."""
        x = self.stem(_entering(image))
        maps = []
        for number, (block, skip) in enumerate(zip(self.blocks, self.skips, strict=True)):
            x = block(x) + x if skip else block(x)
            if number in TAPS:
                maps.append(x)
        return maps

    def embed(self, deepest: Tensor) -> Tensor:
        """Return float32 (B,1280): the head's mean over the picture, from the deepest map."""
        return self.head(deepest).mean((2, 3))
