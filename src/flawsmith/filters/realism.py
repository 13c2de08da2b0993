"""Realism: does made damage look like the real damage that was learned from?

Stage 1 of the filter of AnomalyControl-Inpaint (Ali, Fioraio, Salti, Di Stefano: "Few-Shot Anomaly Generation by
ControlNet Inpainting", IEEE Access 2024): embeddings of made pictures are compared with those of the real training
defects, and the closest are kept. The paper's is the embedding of the whole picture (`realism.whole`) with DINOv2.

Ours: the mean cosine distance to the nearest 3 shots of the same defect type; two more levels, the window and the
tokens inside the mask, since small damage vanishes in a whole picture; the distance as a multiple of what is usual
among the defect type's own shots, so that one threshold serves all defect types. The grain is ours too: networks that
were trained on objects care little about it, and place noise among the shots of odd defect types.
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
"""Shots below which a defect type takes the product's usual distance."""


class RealismSettings(config.Settings):
    """How distance to the shots is measured."""

    neighbours: Annotated[int, Field(ge=1, le=50)] = 3
    """How many of the nearest real shots of the defect type the distance is averaged over."""


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
        left_out = {"realism.grain": torch.full((len(shots),), torch.nan)}
        for row in range(len(shots) if len(shots) > 1 else 0):
            others = torch.cat([shots.grain[:row], shots.grain[row + 1 :]])
            left_out["realism.grain"][row] = _calm(others, shots.grain[row])
        for level in _LEVELS:
            self._vectors[level] = F.normalize(shots.vector[level].double(), dim=1)
            away = self._away(level, shots, leave_out=True)
            of_product = _median(away)
            usual = []
            for number in range(len(self.defects)):
                of_type = away[self._defect == number]
                usual.append(_median(of_type) if len(of_type) >= _FEW else of_product)
            self._usual[level] = torch.stack(usual).clamp_min(1e-9)
            left_out[f"realism.{level}"] = (-away / self._usual[level][self._defect]).float()
        return left_out

    def score(self, made: ScreeningSet) -> dict[str, Tensor]:
        intended = torch.tensor([self.defects.index(defect) for defect in made.defect], dtype=torch.int64)
        scores = {"realism.grain": _calm(self._grain, made.grain)}
        for level in _LEVELS:
            scores[f"realism.{level}"] = (-self._away(level, made) / self._usual[level][intended]).float()
        return scores

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

        Where a defect type's single shot is left out, the product's other shots stand in for it.
        """
        away = []
        for row, (defect, vector) in enumerate(zip(pictures.defect, pictures.vector[level], strict=True)):
            others = torch.ones(len(self._defect), dtype=torch.bool)
            if leave_out:
                others[row] = False
            same_type = others & (self._defect == self.defects.index(defect))
            shots = self._vectors[level][same_type if same_type.any() else others]
            if not len(shots):
                away.append(torch.tensor(torch.nan, dtype=torch.float64))
                continue
            distances = 1 - (shots * F.normalize(vector.double(), dim=0)).sum(1)
            away.append(distances.sort().values[: self.settings.neighbours].mean().clamp_min(0))
        return torch.stack(away) if away else torch.zeros(0, dtype=torch.float64)


def _calm(real: Tensor, grain: Tensor) -> Tensor:
    """Return the strongest real grain over each picture's own; NaN without real ones."""
    return (real.max() + _STEP) / (grain + _STEP) if len(real) else torch.full_like(grain, torch.nan)


def _median(values: Tensor) -> Tensor:
    values = values[values.isfinite()]
    return values.quantile(0.5) if len(values) else torch.tensor(1.0, dtype=torch.float64)
