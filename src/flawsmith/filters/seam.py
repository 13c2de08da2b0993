"""Seam: does the label's border show, as it does where something was pasted?

Brightness is steeper on an outline than near it wherever a border shows. Real damage has borders too, so what is too
steep is learned from the shots. Ours; AnomalyControl-Inpaint's filter looks at embeddings alone.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from flawsmith import config
from flawsmith.arithmetic.outlines import outline, steepness
from flawsmith.interfaces import Filter
from flawsmith.types import ScreeningSet


class SeamSettings(config.Settings):
    """Nothing to set."""


class Seam(Filter):
    """Minus the logarithm of the gradient on the outline over that 3 to 6 pixels away; lower = the border shows."""

    Settings: ClassVar[type[config.Settings]] = SeamSettings
    scores: ClassVar[dict[str, str]] = {"seam": "its border shows"}

    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, Tensor]:
        return self.score(shots)

    def score(self, made: ScreeningSet) -> dict[str, Tensor]:
        scores = [_calm(image, mask) for image, mask in zip(made.image.numpy(), made.mask.numpy(), strict=True)]
        return {"seam": torch.tensor(scores, dtype=torch.float32)}

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        return None


def _calm(image: np.ndarray, mask: np.ndarray) -> float:
    """Return the score of one picture (3,H,W) with its mask (H,W); NaN where there is no outline."""
    edge = outline(mask)
    # The window's own edge is no outline: nothing lies beyond it.
    edge[[0, -1]] = edge[:, [0, -1]] = False
    steep = steepness(image, edge)
    if steep is None:
        return float("nan")
    return float(-np.log((steep.on_outline + 1e-3) / (steep.nearby + 1e-3)))
