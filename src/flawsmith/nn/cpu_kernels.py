"""Layers of diffusers' networks that suit a CPU, with the same weights under the same names: the same but for rounding.

GroupNorm in the memory layout that is quickest for each picture size, and gated linear units (GEGLU, Shazeer 2020) in
two products. diffusers makes value and gate in one product and cuts it: both halves then lie in strides, and everything
that follows, forward and backward, is slow on a CPU. Two products of half the width leave both whole.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

_LARGE = 1024
"""Positions from which on torch's kernel for channels_last is the quick one (forward only)."""


class PlaneGroupNorm(nn.GroupNorm):
    """torch's GroupNorm, computed on a CPU in the memory layout that is quickest for each picture size.

    Convolutions are quickest in channels_last, where torch's CPU kernel for this one walks small pictures in strides:
    it took about as long as all convolutions of the built-in UNet together. Two copies and the kernel for whole planes
    are quicker. For large pictures the kernel for channels_last is ten times quicker forward, and still slower
    backward. The result is the same but for rounding.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or input.dim() != 4 or (places := input.shape[-1] * input.shape[-2]) < 64:
            return super().forward(input)
        if places < _LARGE or self.weight is None or self.weight.requires_grad:
            return super().forward(input.contiguous()).contiguous(memory_format=torch.channels_last)
        inside = input.contiguous(memory_format=torch.channels_last)
        if not (torch.is_grad_enabled() and input.requires_grad):
            return super().forward(inside)
        normed: Tensor = _Norm.apply(inside, self.weight, self.bias, self.num_groups, self.eps)
        return normed


class _Norm(torch.autograd.Function):
    """Forward in channels_last, backward by planes; weight and bias are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        count, channels = x.shape[:2]
        ctx.sizes = count, channels, x.shape[2] * x.shape[3], groups
        normed, mean, scale = torch.ops.aten.native_group_norm(x, weight, bias, *ctx.sizes, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        planes = grads[0].contiguous(), x.contiguous(), mean, scale, weight
        back, _, _ = torch.ops.aten.native_group_norm_backward(*planes, *ctx.sizes, [True, False, False])
        return back.contiguous(memory_format=torch.channels_last), None, None, None, None


def use_plane_norms(network: nn.Module) -> None:
    """Let every GroupNorm of a network work as above; weights and their names stay as they are."""
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = PlaneGroupNorm


class SplitGEGLU(GEGLU):
    """diffusers' layer with the same weights under the same names; the result is the same but for rounding."""

    def forward(self, hidden_states: Tensor, *args: Any, **named: Any) -> Tensor:
        if hidden_states.device.type != "cpu":
            whole: Tensor = super().forward(hidden_states, *args, **named)
            return whole
        value, gate = self.proj.weight.chunk(2)
        value_bias, gate_bias = (None, None) if self.proj.bias is None else self.proj.bias.chunk(2)
        return linear(hidden_states, value, value_bias) * gelu(linear(hidden_states, gate, gate_bias))


def use_split_gates(network: nn.Module) -> None:
    """Let every GEGLU of a network work as above."""
    for module in network.modules():
        if type(module) is GEGLU:
            module.__class__ = SplitGEGLU
