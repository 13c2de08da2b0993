"""Visible: is there any damage at all?

Stage 2 of the filter of AnomalyControl-Inpaint (Ali, Fioraio, Salti, Di Stefano: "Few-Shot Anomaly Generation by
ControlNet Inpainting", IEEE Access 2024): among pictures that look real, those farthest from normal pictures are kept,
which removes pictures in which nothing was drawn. The paper's is the whole picture's embedding (`visible.whole`).

Ours: where the picture's own normal photograph is known, the distance is taken to that, so pose and background hardly
count; only where it is not, to the nearest of all normal pictures (`visible.*_all`). The window, and the tokens inside
the mask at the same places, are two more levels. How much is enough is learned from the shots: their damage is filled
in, to stand for the photograph before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith import config
from flawsmith.interfaces import Filter
from flawsmith.types import ScreeningSet

_LEVELS = ("whole", "window", "tokens")


class VisibleSettings(config.Settings):
    """Nothing to set."""


class Visible(Filter):
    """The distance to normal: 0 where nothing was painted."""

    Settings: ClassVar[type[config.Settings]] = VisibleSettings
    scores: ClassVar[dict[str, str]] = {
        **{f"visible.{level}": "no damage is visible" for level in _LEVELS},
        **{f"visible.{level}_all": "it looks like a normal part" for level in _LEVELS},
    }

    def __init__(self, settings: config.Settings, defects: Sequence[str]) -> None:
        super().__init__(settings, defects)
        self._normal: dict[str, Tensor] = {}

    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, Tensor]:
        self._normal = {level: F.normalize(normal.vector[level].double(), dim=1) for level in _LEVELS}
        # No shot is among the normal pictures, so none needs to be left out.
        return _to_own(shots, shots.compared) | self._to_all(shots, torch.ones(len(shots), dtype=torch.bool))

    def score(self, made: ScreeningSet) -> dict[str, Tensor]:
        return _to_own(made, made.own) | self._to_all(made, ~made.own)

    def state(self) -> dict[str, Tensor]:
        return {f"normal.{level}": self._normal[level] for level in _LEVELS}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._normal = {level: state[f"normal.{level}"] for level in _LEVELS}

    def _to_all(self, pictures: ScreeningSet, which: Tensor) -> dict[str, Tensor]:
        """Return the cosine distance of some pictures (bool (N,)) to the nearest normal one; NaN for the others."""
        scores = {}
        for level in _LEVELS:
            away = torch.full((len(pictures),), torch.nan)
            for row in which.nonzero()[:, 0].tolist() if len(self._normal[level]) else ():
                vector = F.normalize(pictures.vector[level][row].double(), dim=0)
                nearest = (self._normal[level] * vector).sum(1).max()
                away[row] = (1 - nearest).clamp_min(0)
            scores[f"visible.{level}_all"] = away
        return scores


def _to_own(pictures: ScreeningSet, which: Tensor) -> dict[str, Tensor]:
    """Return the distance of some pictures (bool (N,)) to the normal one beneath; NaN for the others."""
    scores = {}
    for level in ("whole", "window"):
        alike = F.cosine_similarity(pictures.vector[level].double(), pictures.beneath[level].double(), dim=1)
        scores[f"visible.{level}"] = torch.where(which, (1 - alike).clamp_min(0).float(), torch.nan)
    return scores | {"visible.tokens": torch.where(which, pictures.moved, torch.nan)}
