"""Small pictures for a screen: native pixels as 8-bit RGB, scaled, with the outline of a mask, as JPEG."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.types import Range

OUTLINE = (255, 64, 32)
"""The colour of a label's outline."""
PART_OUTLINE = (0, 190, 90)
"""The colour of the outline of a part on its backdrop."""


def shown(native: np.ndarray, span: Range | None) -> np.ndarray:
    """Return a native picture as uint8 (H,W,3) RGB for a screen, in its product's value range."""
    level = images.to_bytes(native, span)
    return level if level.ndim == 3 else np.repeat(level[..., None], 3, axis=2)


def fit(picture: np.ndarray, most: int) -> np.ndarray:
    """Scale a picture so that its longer side is `most` px."""
    height, width = picture.shape[:2]
    scale = most / max(height, width)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=way))


def outlined(small: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return a copy of a small picture with a mask's outline just outside of it.

    Args:
        small: uint8 (h,w,3).
        mask: bool (H,W), of any size.
        colour: RGB.
    """
    height, width = small.shape[:2]
    area = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    if area.max() <= 0:  # enlarging by area may step over a speck
        area = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    # Two px wider than the damage, so that the line stands round it and not on it.
    wide = cv2.dilate((area > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(wide, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(small.copy(), outlines, -1, colour, 1))


def jpeg(tile: np.ndarray, budget: int | None = None) -> bytes:
    """Return uint8 (h,w,3) RGB as JPEG, coarser and at last smaller until it needs at most `budget` bytes."""
    while True:
        for quality in (90, 82, 72):
            _, data = cv2.imencode(".jpg", tile[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            if budget is None or len(data) <= budget:
                return bytes(data.tobytes())
        if max(tile.shape[:2]) <= 96:
            return bytes(data.tobytes())
        tile = fit(tile, int(max(tile.shape[:2]) * 0.8))
