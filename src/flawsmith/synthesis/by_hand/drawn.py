"""What is handed over to be painted on: a photograph, and a mask that somebody drew on it; files or arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flawsmith.config import DataConfig
from flawsmith.data import images
from flawsmith.data.masks.judging import judge, with_rules
from flawsmith.data.masks.reading import read_label
from flawsmith.errors import DataError
from flawsmith.types import Example

Picture = str | Path | np.ndarray
"""A file, or its pixels."""


def photograph_of(photograph: Picture) -> tuple[np.ndarray, str]:
    """Return a native picture, (H,W) or (H,W,3), and the path of its file; "" for an array.

    Raises:
        DataError: it cannot be read, or the array is no picture.
    """
    if not isinstance(photograph, np.ndarray):
        return images.read(Path(photograph)), str(photograph)
    shape, dtype = photograph.shape, photograph.dtype
    if photograph.size == 0 or photograph.ndim != 2 and (photograph.ndim != 3 or shape[2] != 3):
        raise DataError(f"photograph: {shape} is not the shape of a picture; (H,W) or (H,W,3) is")
    if dtype not in (np.uint8, np.uint16, np.float32):
        raise DataError(f"photograph: {dtype} pixels are not painted on; uint8, uint16 and float32 are")
    return photograph, ""


def asked_area(mask: Picture, native: np.ndarray, photograph: str) -> np.ndarray:
    """Return a drawn mask: bool (H,W), not empty.

    Args:
        mask: bool (H,W), or a file. A file is read as those of a set are: white or coloured on black or on nothing,
            with soft edges, turned as the photograph was.
        native: The photograph.
        photograph: Its file; "" = it has none.

    Raises:
        DataError: the mask cannot be read, is empty, of another size, or leaves open what is damage.
    """
    name = "mask" if isinstance(mask, np.ndarray) else str(mask)
    if not isinstance(mask, np.ndarray):
        mask = _read(Path(mask), Path(photograph or mask), native.shape)
    elif mask.dtype != np.bool_ or mask.ndim != 2:
        raise DataError(f"mask: {mask.dtype} {mask.shape} is no mask; bool (H,W) is")
    elif mask.shape != native.shape[:2]:
        raise DataError(f"mask: {images.other_size(mask.shape, native.shape)}")
    if not mask.any():
        raise DataError(f"{name}: the mask is empty; draw where the damage is to be")
    return mask


def _read(mask: Path, photograph: Path, shape: tuple[int, ...]) -> np.ndarray:
    example = Example(str(mask), photograph, str(mask), "drawn", (mask,))
    judgement = judge([example], DataConfig())
    for problem in (*(f"{path}: {why}" for _, path, why in judgement.broken), *judgement.errors):
        raise DataError(problem)
    (example,) = with_rules([example], judgement.rules)
    return read_label(example, shape)
