"""Generators whose worth is known beforehand: they paint nothing, noise, one defect type alone, or test pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch

from flawsmith import config
from flawsmith.data import images
from flawsmith.data.tensors import image_tensor
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


class Copier(Blank):
    """Gives back test pictures, which it was never handed: it looks for them below the folder `COPIED`."""

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        paths = sorted(Path(os.environ["COPIED"]).glob(f"{asked.defect[0]}/*.png"))
        pictures = [images.to_model(images.read(paths[seed % len(paths)])) for seed in seeds]
        return Generated(image_tensor(pictures), asked.mask.clone(), whole=True)


class Noise(Blank):
    """Fills the mask with white noise, whatever the defect type."""

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        rows = [torch.randn(asked.normal[0].shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        noise = torch.stack(rows).mul(0.5).clamp(-1, 1)
        return Generated(torch.where(asked.mask > 0.5, noise, asked.normal), asked.mask.clone())


class ChipsAlone(Noise):
    """Fills the mask of a chip, and paints nothing where another defect type is asked for."""

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        painted = super().sample(asked, seeds)
        chips = torch.tensor([defect == "chip" for defect in asked.defect]).view(-1, 1, 1, 1)
        return Generated(torch.where(chips, painted.image, asked.normal), painted.mask)
