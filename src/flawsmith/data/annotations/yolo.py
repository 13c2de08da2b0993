"""YOLO's text file of one picture: `class x y x y ...`, as shares of width and height.

Drawn as Ultralytics does it: corners rounded down to whole pixels, and filled together with the outline.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from flawsmith.data.annotations.marked import Marked, MarkedPicture
from flawsmith.data.annotations.polygons import filled_with_outline
from flawsmith.errors import DataError

_BOX = 4
_LEAST = 6


def read(file: Path) -> dict[str, MarkedPicture]:
    """Return the one picture of a file, under ""; the defect types are the numbers of their classes.

    Raises:
        DataError: a line is no polygon.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
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
        if values.min() < 0 or values.max() > 1:
            raise DataError(f"{where} holds {values.max() if values.max() > 1 else values.min():g}; shares are 0 to 1")
        marked.append(Marked(str(int(words[0])), partial(_drawn, values.reshape(-1, 2))))
    return {"": MarkedPicture("", tuple(marked))}


def _drawn(shares: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    corners = (shares * np.array(shape[::-1])).astype(np.int32)
    return filled_with_outline(np.minimum(corners, np.array(shape[::-1]) - 1), shape)
