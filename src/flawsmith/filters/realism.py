"""Realism: does made damage look like the real damage that was learned from?

Stage 1 of the filter of AnomalyControl-Inpaint (Ali, Fioraio, Salti, Di Stefano: "Few-Shot Anomaly Generation by
ControlNet Inpainting", IEEE Access 2024): embeddings of made pictures are compared with those of the real training
defects, and the closest are kept. The paper's is the embedding of the whole picture (`realism.whole`) with DINOv2.

Ours, for the paper does not say or does not do it: cosine distance to the mean of the nearest 3; only shots of the same
defect type; the window and the tokens inside the mask as two more levels, since small damage vanishes in a whole
picture; the distance as a multiple of what is usual among the defect type's own shots, so that one threshold serves all
defect types; and the grain, for networks that know objects care little about it: noise in a defect's place lies among
shots of odd defect types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from flawsmith import config
from flawsmith.interfaces import Filter
from flawsmith.types import ScreeningSet

_LEVELS = ("whole", "window", "tokens")
_STEP = 0.004
"""Half a step of an 8-bit camera: grain below it is none."""
_FEW = 3
"""Shots below which a defect type borrows the product's usual distance."""


class RealismSettings(config.Settings):
    """How near is measured."""

    neighbours: Annotated[int, Field(ge=1, le=50)] = 3
    """Real shots of the defect type whose distances are averaged: the nearest so many."""


class Realism(Filter):
    """Minus the distance to the nearest real shots, over what is usual among them: -1 is typical, 0 a copy.

    `realism.grain` is the strongest grain inside a shot's damage over the picture's: below 1 it is noisier than any.
    """

    Settings: ClassVar[type[config.Settings]] = RealismSettings
    settings: RealismSettings
    scores: ClassVar[dict[str, str]] = {
        "realism.whole": "the picture is unlike the real ones",
        "realism.window": "the surroundings of the damage are unlike real ones",
        "realism.tokens": "the damage is unlike real damage of its defect type",
        "realism.grain": "the damage is noisier than any real damage",
    }

    def __init__(self, settings: config.Settings, defects: Sequence[str]) -> None:
        super().__init__(settings, defects)
        self._vectors: dict[str, Tensor] = {}
        self._usual: dict[str, Tensor] = {}
        self._defect = torch.zeros(0, dtype=torch.int64)
        self._grain = torch.zeros(0)

    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, Tensor]:
        self._defect = torch.tensor([self.defects.index(defect) for defect in shots.defect])
        self._grain = shots.grain
        found = {"realism.grain": torch.full((len(shots),), torch.nan)}
        for place in range(len(shots) if len(shots) > 1 else 0):
            others = torch.cat([shots.grain[:place], shots.grain[place + 1 :]])
            found["realism.grain"][place] = _calm(others, shots.grain[place])
        for level in _LEVELS:
            self._vectors[level] = F.normalize(shots.vector[level].double(), dim=1)
            away = self._away(level, shots, leave_out=True)
            everywhere = _median(away)
            usual = []
            for number in range(len(self.defects)):
                own = away[self._defect == number]
                usual.append(_median(own) if len(own) >= _FEW else everywhere)
            self._usual[level] = torch.stack(usual).clamp_min(1e-9)
            found[f"realism.{level}"] = (-away / self._usual[level][self._defect]).float()
        return found

    def score(self, made: ScreeningSet) -> dict[str, Tensor]:
        asked = torch.tensor([self.defects.index(defect) for defect in made.defect], dtype=torch.int64)
        found = {}
        for level in _LEVELS:
            found[f"realism.{level}"] = (-self._away(level, made) / self._usual[level][asked]).float()
        return found | {"realism.grain": _calm(self._grain, made.grain)}

    def state(self) -> dict[str, Tensor]:
        tensors = {"defect": self._defect, "grain": self._grain}
        for level in _LEVELS:
            tensors |= {f"vectors.{level}": self._vectors[level], f"usual.{level}": self._usual[level]}
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        self._defect, self._grain = state["defect"], state["grain"]
        self._vectors = {level: state[f"vectors.{level}"] for level in _LEVELS}
        self._usual = {level: state[f"usual.{level}"] for level in _LEVELS}

    def _away(self, level: str, pictures: ScreeningSet, *, leave_out: bool = False) -> Tensor:
        """Return each picture's mean distance to its nearest shots of the same defect type, float64 (N,).

        A defect type with a single shot that is left out looks at the product's other shots.
        """
        found = []
        for place, (defect, vector) in enumerate(zip(pictures.defect, pictures.vector[level], strict=True)):
            others = torch.ones(len(self._defect), dtype=torch.bool)
            if leave_out:
                others[place] = False
            kin = others & (self._defect == self.defects.index(defect))
            rows = self._vectors[level][kin if kin.any() else others]
            if not len(rows):
                found.append(torch.tensor(torch.nan, dtype=torch.float64))
                continue
            gaps = 1 - (rows * F.normalize(vector.double(), dim=0)).sum(1)
            found.append(gaps.sort().values[: self.settings.neighbours].mean().clamp_min(0))
        return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)


def _calm(real: Tensor, grain: Tensor) -> Tensor:
    """Return the strongest real grain over a picture's own."""
    return (real.max() + _STEP) / (grain + _STEP) if len(real) else torch.full_like(grain, torch.nan)


def _median(values: Tensor) -> Tensor:
    values = values[values.isfinite()]
    return values.quantile(0.5) if len(values) else torch.tensor(1.0, dtype=torch.float64)
