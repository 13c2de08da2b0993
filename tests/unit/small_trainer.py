"""A network of three layers and its trainer: what tests of the training loop train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flawsmith.nn.trainer import Trainer

STEPS = 12


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.SiLU(), nn.GroupNorm(2, 6), nn.Conv2d(6, 2, 3, padding=1))


def small_trainer(network: nn.Module, state: Path | None = None, **changes: Any) -> Trainer:
    def loss_of(step: int, rng: torch.Generator) -> Tensor:
        x = torch.randn(3, 2, 6, 6, generator=rng)
        return (network(x) - x.flip(-1)).square().flatten(1).mean(1)

    options: dict[str, Any] = {"steps": STEPS, "learning_rate": 1e-2, "average": 0.9, "save_every": 1, "seed": 3}
    return Trainer({"net": network}, loss_of, state=state, **{**options, **changes})
