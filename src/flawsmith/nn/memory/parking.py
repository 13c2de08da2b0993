"""Frozen networks that wait in the host's memory while the card is needed for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def parked(networks: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Keep networks in the host's memory for the length of the block; without a card nothing moves.

    Args:
        networks: They come back to `device`. In the block, `at_work` fetches one for as long as it computes.
        device: Where they compute.
    """
    if device.type == "cpu":
        yield
        return
    try:
        for network in networks:
            nn.Module.to(network, "cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()
        yield
    finally:
        for network in networks:
            nn.Module.to(network, device)


@contextmanager
def at_work(networks: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Have networks on their device for the length of the block; those that were parked go back afterwards."""
    away = [network for network in networks if device.type != "cpu" and _device_of(network).type == "cpu"]
    for network in away:
        nn.Module.to(network, device)
    try:
        yield
    finally:
        for network in away:
            nn.Module.to(network, "cpu")


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
