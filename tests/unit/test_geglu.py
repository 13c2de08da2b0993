"""Gates in two products are diffusers' gates."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.activations import GEGLU
from torch import nn

from flawsmith.nn.cpu_kernels import SplitGEGLU, use_split_gates


@pytest.mark.parametrize("bias", [True, False])
def test_equals_diffusers(bias: bool) -> None:
    torch.manual_seed(0)
    plain, network = GEGLU(8, 24, bias=bias), nn.Sequential(GEGLU(8, 24, bias=bias))
    network[0].load_state_dict(plain.state_dict())
    names = list(network.state_dict())
    use_split_gates(network)
    assert type(network[0]) is SplitGEGLU and list(network.state_dict()) == names
    found = []
    for module in (plain, network[0]):
        seen = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = module(seen)
        out.square().sum().backward()
        found.append((out.detach(), seen.grad, *(p.grad for p in module.parameters())))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
