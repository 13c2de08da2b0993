"""The quick group norm is torch's group norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flawsmith.nn.cpu_kernels import PlaneGroupNorm, use_plane_norms


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("side", [4, 8, 16, 32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_torch(side: int, frozen: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain = nn.GroupNorm(4, 32)
    nn.init.normal_(plain.weight)
    network = nn.Sequential(nn.GroupNorm(4, 32))
    network[0].load_state_dict(plain.state_dict())
    names = list(network.state_dict())
    use_plane_norms(network)
    assert type(network[0]) is PlaneGroupNorm and list(network.state_dict()) == names
    grads = []
    for module in (plain, network):
        module.requires_grad_(not frozen)
        seen = torch.randn(2, 32, side, side, generator=torch.Generator().manual_seed(1))
        seen = seen.contiguous(memory_format=layout).requires_grad_()
        out = module(seen)
        out.square().sum().backward()
        grads.append((out.detach(), seen.grad))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(network(seen), grads[0][0], rtol=1e-5, atol=1e-5)
    if not frozen:
        torch.testing.assert_close(network[0].weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)
