"""The window round a damage through which features are computed: what metrics compare and filters judge."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.types import Example

SIDE = 128
"""Side in pixels to which windows are scaled."""
CONTEXT, LEAST = 1.5, 64
"""Side of a window over the damage's box, and its least side in camera pixels."""


def window(picture: np.ndarray, mask: np.ndarray, extra: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """Cut the square round a mask's damage from pictures of its size, and scale it to SIDE.

    Returns:
        float32 (SIDE,SIDE,3), bool (SIDE,SIDE), and the same cut of `extra` where it is given.
    """
    place = spot(mask)

    def scaled(part: np.ndarray) -> np.ndarray:
        way = cv2.INTER_AREA if place[0].stop - place[0].start > SIDE else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(np.ascontiguousarray(part[place], np.float32), (SIDE, SIDE), interpolation=way))

    cut = scaled(mask)
    found = scaled(picture), cut >= min(0.5, float(cut.max()))
    return found if extra is None else (*found, scaled(extra))


def spot(mask: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns of the square round a mask's damage; it may overhang a picture that is not square."""
    ys, xs = np.nonzero(mask)
    height, width = mask.shape
    box = max(int(np.ptp(ys)), int(np.ptp(xs))) + 1
    side = min(max(LEAST, round(CONTEXT * box)), max(height, width))
    top = int(np.clip((ys.min() + ys.max() + 1) // 2 - side // 2, 0, max(0, height - side)))
    left = int(np.clip((xs.min() + xs.max() + 1) // 2 - side // 2, 0, max(0, width - side)))
    return slice(top, top + side), slice(left, left + side)


def close_up(example: Example) -> tuple[np.ndarray, np.ndarray, None]:
    """Return the window round a labelled picture's damage, as `feature_set` takes it: picture, mask, nothing beneath."""
    native = images.read(example.image)
    assert example.mask is not None
    image, mask = window(images.to_model(native), images.read_mask(example.mask, native.shape))
    return image, mask, None
