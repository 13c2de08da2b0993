"""YOLO's text file of one picture: `class x y x y ...`, as shares of width and height.

Drawn as Ultralytics does it: corners rounded down to whole pixels, and filled together with the outline.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from flawsmith.data.annotations.marked import Marked, MarkedPicture, text_of
from flawsmith.data.annotations.polygons import filled_with_outline
from flawsmith.errors import DataError

_BOX = 4
_LEAST = 6
_ROUNDING = 1e-6
"""What shares that were reckoned in single precision go past the border."""


def holds_lines(file: Path) -> bool:
    """Tell a file of YOLO by its first line: the number of a class, and shares."""
    try:
        words = next((line for line in text_of(file).splitlines() if line.strip()), "").split()
        return len(words) > _BOX and words[0].isdecimal() and bool(np.array(words[1:], np.float64).size)
    except (DataError, ValueError):
        return False


def read(file: Path) -> dict[str, MarkedPicture]:
    """Return the one picture of a file, under ""; the defect types are the numbers of their classes.

    Raises:
        DataError: a line is no polygon.
    """
    try:
        lines = text_of(file).splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{file}: cannot be read as text; export it again from its tool") from None
    marked = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        where = f"{file}: line {number}"
        try:
            values = np.array(words[1:], np.float64)
        except ValueError:
            values = np.array([np.nan])
        if not words[0].isdecimal() or not np.isfinite(values).all():
            raise DataError(f"{where} should be the number of a class, then shares of width and height")
        if len(values) == _BOX:
            raise DataError(f"{where} is a box, and damage has an outline; export for segmentation")
        if len(values) < _LEAST or len(values) % 2:
            raise DataError(
                f"{where} has {len(values)} numbers behind its class; a polygon has x and y of three or more"
            )
        if values.min() < -_ROUNDING or values.max() > 1 + _ROUNDING:
            wrong = values.max() if values.max() > 1 + _ROUNDING else values.min()
            raise DataError(f"{where} holds {wrong:.9g}; shares are 0 to 1")
        values = values.clip(0, 1)
        marked.append(Marked(str(int(words[0])), partial(_drawn, values.reshape(-1, 2))))
    return {"": MarkedPicture("", tuple(marked))}


def _drawn(shares: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    corners = (shares * np.array(shape[::-1])).astype(np.int32)
    return filled_with_outline(np.minimum(corners, np.array(shape[::-1]) - 1), shape)
