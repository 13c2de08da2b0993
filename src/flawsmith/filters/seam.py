"""Seam: does the label's border show, as it does where something was pasted?

Brightness is steeper on an outline than near it wherever a border shows. Real damage has borders too, so what is too
steep is learned from the shots. Ours; AnomalyControl-Inpaint's filter looks at embeddings alone.
"""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from flawsmith import config
from flawsmith.interfaces import Filter
from flawsmith.types import ScreeningSet


class SeamSettings(config.Settings):
    """Nothing to set."""


class Seam(Filter):
    """Minus the logarithm of the gradient on the outline (two pixels) over that 3 to 6 pixels away on both sides."""

    Settings: ClassVar[type[config.Settings]] = SeamSettings
    scores: ClassVar[dict[str, str]] = {"seam": "its border shows"}

    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, Tensor]:
        return self.score(shots)

    def score(self, made: ScreeningSet) -> dict[str, Tensor]:
        found = [_edge(image, mask) for image, mask in zip(made.image.numpy(), made.mask.numpy(), strict=True)]
        return {"seam": torch.tensor(found, dtype=torch.float32)}

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        return None


def _edge(image: np.ndarray, mask: np.ndarray) -> float:
    inner = cv2.erode(np.pad(mask, 1).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    outline = mask & (inner == 0)
    # The window's own edge is no outline: nothing lies beyond it.
    outline[[0, -1]] = outline[:, [0, -1]] = False
    if not outline.any():
        return float("nan")
    grey = np.ascontiguousarray(image.mean(0), dtype=np.float32)
    steep = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    away = cv2.distanceTransform((~outline).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    edge, near = steep[away <= 1], steep[(away >= 3) & (away <= 6)]
    return float(-np.log((edge.mean() + 1e-3) / (near.mean() + 1e-3))) if len(near) else float("nan")
