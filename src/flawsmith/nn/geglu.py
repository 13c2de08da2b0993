"""Gated linear units (GEGLU, Shazeer 2020) in two products, for a CPU.

diffusers makes value and gate in one product and cuts it: both halves then lie in strides, and everything that follows,
forward and backward, is slow on a CPU. Two products of half the width leave both whole.
"""

from __future__ import annotations

from typing import Any

from diffusers.models.activations import GEGLU
from torch import Tensor, nn
from torch.nn.functional import gelu, linear


class SplitGEGLU(GEGLU):
    """diffusers' layer with the same weights under the same names; the result is the same but for rounding."""

    def forward(self, hidden_states: Tensor, *args: Any, **named: Any) -> Tensor:
        if hidden_states.device.type != "cpu":
            whole: Tensor = super().forward(hidden_states, *args, **named)
            return whole
        value, gate = self.proj.weight.chunk(2)
        shift, lean = (None, None) if self.proj.bias is None else self.proj.bias.chunk(2)
        return linear(hidden_states, value, shift) * gelu(linear(hidden_states, gate, lean))


def use_split_gates(network: nn.Module) -> None:
    """Let every GEGLU of a network work as above."""
    for module in network.modules():
        if type(module) is GEGLU:
            module.__class__ = SplitGEGLU
