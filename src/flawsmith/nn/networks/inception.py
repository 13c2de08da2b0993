"""The Inception-v3 of the Fréchet and kernel Inception distances and of the Inception score.

Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, in the form of 2015-12-05 that those figures are
defined on: its average poolings leave the padding out, its last block pools by maximum, and it tells 1008 classes. The
weights are a file under the names that PyTorch's ports of it use (Conv2d_1a_3x3.conv.weight … fc.bias). Pictures are
scaled by PyTorch's bilinear, not by TensorFlow 1's, so figures agree with published ones to about a hundredth, not to
the digit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith.errors import ConfigError
from flawsmith.nn.networks.extractor import Extractor, scaled

_EPS = 1e-3


class InceptionExtractor(Extractor):
    """pool3 (2048 numbers) at 299 px, and class probabilities."""

    name = "inception"
    strides = (4, 8, 16, 32)
    side = 299

    def __init__(self, state: Mapping[str, Tensor], fingerprint: str) -> None:
        super().__init__()
        self.fingerprint = fingerprint
        convs = sorted({name.removesuffix(".conv.weight") for name in state if name.endswith(".conv.weight")})
        needed = [*_CONVS, *(f"{block}.{conv}" for block, defect in _BLOCKS.items() for conv in _NAMES[defect])]
        absent = [name for name in needed if name not in convs] + (["fc"] if "fc.weight" not in state else [])
        if absent:
            raise ConfigError(
                f"features.source: inception's weights lack {absent[0]}; give the file of the FID Inception "
                "(pt_inception-2015-12-05), whose names begin with Conv2d_1a_3x3"
            )
        for name in needed:
            bn = f"{name}.bn"
            scale = state[f"{bn}.weight"] / (state[f"{bn}.running_var"] + _EPS).sqrt()
            plain = name.replace(".", "_")
            self.register_buffer(f"{plain}_w", (state[f"{name}.conv.weight"] * scale.view(-1, 1, 1, 1)).float())
            self.register_buffer(f"{plain}_b", (state[f"{bn}.bias"] - state[f"{bn}.running_mean"] * scale).float())
        self.register_buffer("fc", state["fc.weight"].float())
        self.channels = (
            self._width("Conv2d_2b_3x3"),
            self._width("Conv2d_4a_3x3"),
            sum(
                self._width(f"Mixed_6e.{last}")
                for last in ("branch1x1", "branch7x7_3", "branch7x7dbl_5", "branch_pool")
            ),
            int(self.get_buffer("fc").shape[1]),
        )

    @torch.inference_mode()
    def maps(self, image: Tensor) -> list[Tensor]:
        x = self._conv(image, "Conv2d_1a_3x3", stride=2)
        x = self._conv(self._conv(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", padding=1)
        maps = [x := F.max_pool2d(x, 3, 2)]
        x = self._conv(self._conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3")
        maps.append(x := F.max_pool2d(x, 3, 2))
        for block, defect in _BLOCKS.items():
            x = getattr(self, f"_{defect}")(x, block)
            if block == "Mixed_6e":
                maps.append(x)
        return [*maps, x]

    @torch.inference_mode()
    def vector(self, image: Tensor) -> Tensor:
        return self.maps(scaled(image, self.side))[-1].mean((2, 3))

    @torch.inference_mode()
    def probabilities(self, image: Tensor) -> Tensor | None:
        # The score's usual code leaves the last layer's bias out.
        return (self.vector(image) @ self.get_buffer("fc").T).softmax(1)

    def _width(self, name: str) -> int:
        return int(self.get_buffer(f"{name.replace('.', '_')}_w").shape[0])

    def _conv(self, x: Tensor, name: str, *, stride: int = 1, padding: int | tuple[int, int] = 0) -> Tensor:
        plain = name.replace(".", "_")
        weight, bias = self.get_buffer(f"{plain}_w"), self.get_buffer(f"{plain}_b")
        return F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))

    def _chain(self, x: Tensor, block: str, *names: str) -> Tensor:
        """A branch of convolutions that keep the size: each pads by half its kernel."""
        for name in names:
            kernel = self.get_buffer(f"{block}_{name}_w").shape[-2:]
            x = self._conv(x, f"{block}.{name}", padding=(kernel[0] // 2, kernel[1] // 2))
        return x

    def _pooled(self, x: Tensor, block: str, *, maximum: bool = False) -> Tensor:
        if maximum:
            return self._chain(F.max_pool2d(x, 3, 1, 1), block, "branch_pool")
        return self._chain(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), block, "branch_pool")

    def _a(self, x: Tensor, block: str) -> Tensor:
        five = self._chain(x, block, "branch5x5_1", "branch5x5_2")
        three = self._chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        return torch.cat([self._chain(x, block, "branch1x1"), five, three, self._pooled(x, block)], 1)

    def _b(self, x: Tensor, block: str) -> Tensor:
        three = self._conv(x, f"{block}.branch3x3", stride=2)
        double = self._chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2")
        double = self._conv(double, f"{block}.branch3x3dbl_3", stride=2)
        return torch.cat([three, double, F.max_pool2d(x, 3, 2)], 1)

    def _c(self, x: Tensor, block: str) -> Tensor:
        seven = self._chain(x, block, "branch7x7_1", "branch7x7_2", "branch7x7_3")
        double = self._chain(x, block, *(f"branch7x7dbl_{number}" for number in range(1, 6)))
        return torch.cat([self._chain(x, block, "branch1x1"), seven, double, self._pooled(x, block)], 1)

    def _d(self, x: Tensor, block: str) -> Tensor:
        three = self._conv(self._chain(x, block, "branch3x3_1"), f"{block}.branch3x3_2", stride=2)
        seven = self._chain(x, block, "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3")
        seven = self._conv(seven, f"{block}.branch7x7x3_4", stride=2)
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    def _e(self, x: Tensor, block: str) -> Tensor:
        three = self._chain(x, block, "branch3x3_1")
        double = self._chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2")
        parts = [
            self._chain(x, block, "branch1x1"),
            self._chain(three, block, "branch3x3_2a"),
            self._chain(three, block, "branch3x3_2b"),
            self._chain(double, block, "branch3x3dbl_3a"),
            self._chain(double, block, "branch3x3dbl_3b"),
            self._pooled(x, block, maximum=block == "Mixed_7c"),
        ]
        return torch.cat(parts, 1)


_CONVS = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_BLOCKS = {
    **{f"Mixed_5{letter}": "a" for letter in "bcd"},
    "Mixed_6a": "b",
    **{f"Mixed_6{letter}": "c" for letter in "bcde"},
    "Mixed_7a": "d",
    **{f"Mixed_7{letter}": "e" for letter in "bc"},
}
"""Blocks in order -> their defect type."""
_DOUBLE = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
_NAMES = {
    "a": ("branch1x1", "branch5x5_1", "branch5x5_2", *_DOUBLE, "branch_pool"),
    "b": ("branch3x3", *_DOUBLE),
    "c": (
        "branch1x1",
        *(f"branch7x7_{number}" for number in range(1, 4)),
        *(f"branch7x7dbl_{number}" for number in range(1, 6)),
        "branch_pool",
    ),
    "d": ("branch3x3_1", "branch3x3_2", *(f"branch7x7x3_{number}" for number in range(1, 5))),
    "e": (
        "branch1x1",
        "branch3x3_1",
        "branch3x3_2a",
        "branch3x3_2b",
        *_DOUBLE[:2],
        "branch3x3dbl_3a",
        "branch3x3dbl_3b",
        "branch_pool",
    ),
}
"""Convolutions of each sort of block."""
