"""Duplicates: is it a copy of a shot, which a model learned by heart, or of another made picture?

Likeness is the greatest correlation of brightness at 32 x 32 over the eight mirrored and turned views. The score is
one minus that, divided by the same of the two shots that are most alike (0.02 at most). So 0 is a copy, and what scores
below 1 is more like a shot than any two shots are like each other. Of two made pictures that are alike, the earlier one
is the original. Two that share a photograph are alike all but for the paint, so the changes (picture minus photograph)
must be alike too. Ours; AnomalyControl-Inpaint has no such step.

Where some shots are near-duplicates (second photographs of the same damage), only what is nearer than these is a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith import config
from flawsmith.arithmetic.likeness import SIDE, likeness
from flawsmith.interfaces import Filter
from flawsmith.types import ScreeningSet

_LEAST, _MOST = 0.0002, 0.02
"""Bounds of the scale: a correlation above 0.9998 is a copy in any set, one below 0.98 in none."""


class DuplicatesSettings(config.Settings):
    """Nothing to set."""


class Duplicates(Filter):
    """How unlike it is the nearest shot, and the nearest earlier picture of the set; below 1 = a copy."""

    Settings: ClassVar[type[config.Settings]] = DuplicatesSettings
    scores: ClassVar[dict[str, str]] = {
        "duplicates.shot": "it is a copy of a shot",
        "duplicates.made": "it is a copy of an earlier picture",
    }

    def __init__(self, settings: config.Settings, defects: Sequence[str]) -> None:
        super().__init__(settings, defects)
        self._shots = torch.zeros(0, SIDE, SIDE)
        self._least = torch.tensor(_MOST)

    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, Tensor]:
        self._shots = _small(shots.image)
        alike = _likeness(self._shots, self._shots)
        alike.fill_diagonal_(-1)
        nearest = alike.max(dim=1).values if len(shots) > 1 else torch.full((len(shots),), torch.nan)
        if len(shots) > 1:
            self._least = (1 - nearest).min().clamp(_LEAST, _MOST)
        return {"duplicates.shot": (1 - nearest) / self._least, "duplicates.made": torch.full((len(shots),), torch.nan)}

    def score(self, made: ScreeningSet) -> dict[str, Tensor]:
        small = _small(made.image)
        to_shot = torch.full((len(made),), torch.nan)
        to_made = torch.full((len(made),), torch.nan)
        if len(made) and len(self._shots):
            to_shot = 1 - _likeness(small, self._shots).max(dim=1).values
        if len(made) > 1:
            alike = _likeness(small, small)
            both = made.own[:, None] & made.own[None]
            change = _small(made.image - made.below)
            alike = torch.where(both, torch.minimum(alike, _likeness(change, change)), alike)
            earlier = torch.ones(len(made), len(made), dtype=torch.bool).tril(-1)
            to_made[1:] = 1 - alike.masked_fill(~earlier, -1).max(dim=1).values[1:]
        return {"duplicates.shot": to_shot / self._least, "duplicates.made": to_made / self._least}

    def state(self) -> dict[str, Tensor]:
        return {"shots": self._shots, "least": self._least}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._shots, self._least = state["shots"], state["least"]


def _small(image: Tensor) -> Tensor:
    """Return float32 (N,32,32): brightness without its mean, of unit length."""
    grey = image.mean(1, keepdim=True)
    grey = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)[:, 0]
    grey = grey - grey.mean((1, 2), keepdim=True)
    return grey / grey.flatten(1).norm(dim=1).clamp_min(1e-6)[:, None, None]


def _likeness(one: Tensor, other: Tensor) -> Tensor:
    """Return the greatest correlation over the eight views, float32 (N,M)."""
    return torch.from_numpy(likeness(one.numpy(), other.numpy())).float()
