"""Where features are computed: the window round a damage, which metrics compare and filters judge, and the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.scaling import scaled, scaled_mask
from flawsmith.types import Example

SIDE = 128
"""Side in pixels to which windows are scaled."""
CONTEXT, LEAST = 1.5, 64
"""Side of a window over the damage's box, and its least side in camera pixels."""


@dataclass(frozen=True, slots=True)
class FeatureWindow:
    """The square round a damage, at SIDE x SIDE pixels."""

    image: np.ndarray
    """float32 (SIDE,SIDE,3), RGB, [-1,1]."""
    mask: np.ndarray
    """bool (SIDE,SIDE); not empty."""
    below: np.ndarray | None = None
    """float32 (SIDE,SIDE,3): the same square of the normal photograph; None = unknown."""


def feature_window(picture: np.ndarray, mask: np.ndarray, below: np.ndarray | None = None) -> FeatureWindow:
    """Cut the square round a mask's damage from pictures of its size.

    Args:
        picture: float32 (H,W,3), RGB, [-1,1].
        mask: bool (H,W), not empty.
        below: The normal photograph, like `picture`.
    """
    square, shape = square_round(mask), (SIDE, SIDE)
    normal = None if below is None else scaled(below[square], shape)
    return FeatureWindow(scaled(picture[square], shape), scaled_mask(mask[square], shape), normal)


def square_round(mask: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns of the square round a mask's damage; it may overhang a picture that is not square."""
    ys, xs = np.nonzero(mask)
    height, width = mask.shape
    box = max(int(np.ptp(ys)), int(np.ptp(xs))) + 1
    side = min(max(LEAST, round(CONTEXT * box)), max(height, width))
    top = int(np.clip((ys.min() + ys.max() + 1) // 2 - side // 2, 0, max(0, height - side)))
    left = int(np.clip((xs.min() + xs.max() + 1) // 2 - side // 2, 0, max(0, width - side)))
    return slice(top, top + side), slice(left, left + side)


def whole_picture(picture: np.ndarray, side: int) -> np.ndarray:
    """Return a whole picture, float32 (H,W,3) in [-1,1], as the square that is embedded: (side,side,3)."""
    way = cv2.INTER_AREA if min(picture.shape[:2]) > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (side, side), interpolation=way))


def window_of(example: Example) -> FeatureWindow:
    """Read a labelled photograph and return the window round its damage; `below` is None."""
    native = images.read(example.image)
    assert example.masks
    picture = images.to_model(native, images.range_of(native, example.span))
    return feature_window(picture, read_label(example, native.shape))
