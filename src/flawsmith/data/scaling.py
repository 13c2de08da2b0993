"""Pictures and masks in another size, so that nothing aliases and no label vanishes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.types import Range


def scaled(picture: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return a picture in another size: by area where a side shrinks, else bilinear.

    Args:
        picture: float32 (H,W) or (H,W,C), any range.
        shape: (rows, columns) of the result.
    """
    shrinks = picture.shape[0] > shape[0] or picture.shape[1] > shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(picture), (shape[1], shape[0]), interpolation=way))


def as_detectors_see(native: np.ndarray, span: Range | None, shape: Sequence[int]) -> np.ndarray:
    """Return a native picture as detectors learn from it, in training and on the line: uint8 (R,C,3) RGB.

    Args:
        native: (H,W) or (H,W,3), uint8, uint16 or float32.
        span: The value range of its product; None = `images.range_of(native)`.
        shape: (rows, columns) of the result.
    """
    return eight_bits(scaled(images.to_model(native, images.range_of(native, span)), shape))


def eight_bits(model: np.ndarray) -> np.ndarray:
    """Return a picture of model values, float32 in [-1,1], as uint8 of the same shape; what lies outside is clipped."""
    return np.asarray(np.rint((np.clip(model, -1, 1) + 1) * 127.5), np.uint8)


def scaled_mask(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return a mask in another size: True where at least half a pixel is covered.

    Damage that is thinner than that everywhere keeps the pixels that it covers most: only an empty mask becomes empty.

    Args:
        mask: bool (H,W).
        shape: (rows, columns) of the result.
    """
    covered = scaled(mask.astype(np.float32), shape)
    kept = np.asarray((covered >= min(0.5, float(covered.max()))) & (covered > 0))
    if not kept.any() and mask.any():  # shrinking one side and enlarging the other may step over a speck
        rows, columns = np.nonzero(mask)
        kept[rows * shape[0] // mask.shape[0], columns * shape[1] // mask.shape[1]] = True
    return kept
