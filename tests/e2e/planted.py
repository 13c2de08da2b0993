"""Generators whose worth is known beforehand: one paints nothing, one paints noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from flawsmith import config
from flawsmith.interfaces import Generator
from flawsmith.types import Condition, Generated


class NoSettings(config.Settings):
    """Nothing to set."""


class Blank(Generator):
    """Returns the normal window as it is."""

    Settings: ClassVar[type[config.Settings]] = NoSettings
    needs_backbone: ClassVar[bool] = False
    native: ClassVar[bool] = True

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        return Generated(asked.normal.clone(), asked.mask.clone())


class Noise(Blank):
    """Fills the mask with white noise, whatever the defect type."""

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        rows = [torch.randn(asked.normal[0].shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        noise = torch.stack(rows).mul(0.5).clamp(-1, 1)
        return Generated(torch.where(asked.mask > 0.5, noise, asked.normal), asked.mask.clone())
