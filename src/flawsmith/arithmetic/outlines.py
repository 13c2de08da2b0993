"""How steep brightness is on a mask's outline, against its surroundings: where something was pasted, a border shows."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class Steepness(NamedTuple):
    """Mean gradient magnitudes (Sobel) of one picture's brightness, in its own units."""

    on_outline: np.float32
    """On a band of two pixels along the outline."""
    nearby: np.float32
    """3 to 6 pixels away from it, on both sides."""


def outline(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask, bool (H,W), that touch its outside; beyond the picture is outside."""
    inner = cv2.erode(np.pad(mask, 1).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    return np.asarray(mask & (inner == 0))


def distance_to(edge: np.ndarray) -> np.ndarray:
    """Return each pixel's distance in px to the nearest True one of an edge, float32 (H,W)."""
    return np.asarray(cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def steepness(image: np.ndarray, edge: np.ndarray) -> Steepness | None:
    """Measure the steps of brightness on an outline and near it; None where there is nothing on or near it.

    Args:
        image: float32 (3,H,W).
        edge: bool (H,W), as `outline` gives it.
    """
    if not edge.any():
        return None
    grey = np.ascontiguousarray(image.mean(0), dtype=np.float32)
    steep = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    away = distance_to(edge)
    near = steep[(away >= 3) & (away <= 6)]
    return Steepness(steep[away <= 1].mean(), near.mean()) if len(near) else None
