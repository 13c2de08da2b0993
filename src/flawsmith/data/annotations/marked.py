"""What every annotation format is read into: pictures, and what is marked on each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith.errors import DataError
from flawsmith.paths import open_file


@dataclass(frozen=True, slots=True)
class Marked:
    """One marked object."""

    defect: str
    """The defect type as the file names it; of YOLO, the number of the class."""
    draw: Callable[[tuple[int, int]], np.ndarray]
    """(H,W) of the picture -> its pixels, bool (H,W); raises ValueError with what is wrong as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class MarkedPicture:
    """A picture that an annotation file tells of."""

    name: str
    """Its file as the annotation file names it; "" = the picture lies beside, under the same name."""
    marked: tuple[Marked, ...]
    size: tuple[int, int] | None = None
    """(H,W); None = the file does not say it."""
    product: str = ""
    """Where the file says it, as our own do."""
    task: str = ""
    """The number by which Label Studio calls it in the names of brush strokes."""
    looked_at: bool = True
    """False: nobody has annotated it yet, so nothing marked does not mean that it is normal."""
    choices: tuple[str, ...] = ()
    """What was chosen for the whole picture, such as NG: where nothing is marked it may mean damage."""

    @property
    def defects(self) -> list[str]:
        """The defect types that are marked on it, sorted."""
        return sorted({one.defect for one in self.marked})


def read_tree(file: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: missing, not JSON, or not in UTF-8.
    """
    try:
        return json.loads(text_of(file))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: is no JSON ({error}); export it again from its tool, or name it in data.exclude"
        ) from None


def text_of(file: Path) -> str:
    """Return what a text file in UTF-8 holds, each line ended by a line feed.

    Raises:
        DataError: it cannot be read; a pipe is no file.
        UnicodeDecodeError: it is not in UTF-8.
    """
    try:
        with io.TextIOWrapper(open_file(file), encoding="utf-8-sig") as stream:
            return stream.read()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the path and its rights") from None


def size_of(height: Any, width: Any) -> tuple[int, int] | None:
    """Return (H,W) where both are whole numbers above 0, else None."""
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    return None


def name_of(value: Any) -> str:
    """Return the name of a label or category as text; "" where the file holds nothing there."""
    return "" if value is None else str(value)
