"""A part of an annotation file as the mask of a photograph: `labels.json#coco#7#scratch`.

So written it goes wherever the path of a mask goes: into records, hashes and data.json. It names the file, its format,
the picture in it, the defect type, and perhaps one object of the type; what else is marked on the picture is neither
damage nor background there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.annotations import coco, label_studio, labelme, lookout, yolo
from flawsmith.data.annotations.marked import MarkedPicture
from flawsmith.data.codecs.coding import upright
from flawsmith.errors import DataError
from flawsmith.files import PART, file_state, whole_file

READERS: dict[str, Callable[[Path], dict[str, MarkedPicture]]] = {
    "coco": coco.read,
    "labelme": labelme.read,
    "yolo": yolo.read,
    "label_studio": label_studio.read,
}
"""Format -> the function that reads a file of it."""
COLOURS = "lookout"
"""The format of coloured masks: a file is one picture, and what its colours mean stands in place of the picture."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one annotation file marks as one defect type on one picture."""

    file: Path
    format: str
    """A key of `READERS`, or `COLOURS`."""
    picture: str
    """Which picture of the file, as its format names it; of `COLOURS`, the colours and their meaning."""
    defect: str
    """As the file names it."""
    object: int = 0
    """Which of the objects of this type, from 1; 0 = all of them."""

    @property
    def path(self) -> Path:
        """The part as the path of a mask."""
        names = [self.file.name, self.format, _safe(self.picture), _safe(self.defect)]
        return self.file.with_name(PART.join([*names, str(self.object)] if self.object else names))

    def marked(self) -> MarkedPicture:
        """Return its picture with all that is marked on it.

        Raises:
            DataError: the file cannot be read, or does not hold the picture any more.
        """
        if self.format == COLOURS:
            return _coloured(self.file, self.picture, *file_state(self.file))
        pictures = marked_pictures(self.format, self.file)
        if self.picture not in pictures:
            raise DataError(f"{self.file}: holds no picture {self.picture!r} any more")
        return pictures[self.picture]

    def drawn(self, image: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return its damage, and what else is marked: bool (H,W) each, upright as the photograph.

        Args:
            image: The photograph, whose EXIF orientation turns what was drawn on its pixels as they are stored.
            shape: Of the photograph, upright; only rows and columns are compared.

        Raises:
            DataError: it cannot be drawn, or is of another size than the photograph.
        """
        picture = self.marked()
        wanted = int(shape[0]), int(shape[1])
        size = picture.size or wanted
        turn = images.orientation(image) if size == wanted[::-1] and size != wanted else 1
        if size != wanted and turn < _ON_ITS_SIDE:
            raise DataError(f"{self.path}: {images.other_size(size, wanted)}")
        damage, other = np.zeros(size, bool), np.zeros(size, bool)
        number = 0
        for one in picture.marked:
            try:
                pixels = one.draw(size)
            except _OTHER_SHAPES as error:
                what = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:160]
                raise DataError(f"{self.path}: {what}") from None
            number += one.defect == self.defect
            if one.defect == self.defect and self.object in (0, number):
                damage |= pixels
            else:
                other |= pixels
        if number < self.object:
            raise DataError(f"{self.path}: there are {number} of {self.defect!r} now; run again from a new folder")
        return upright(damage, turn), upright(other & ~damage, turn)


def _safe(text: str) -> str:
    return text.replace("%", "%25").replace("/", "%2F").replace(PART, "%23")


_OTHER_SHAPES = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, cv2.error)
"""What is stumbled over in a file that is of the format and yet holds other values: text for numbers, 10**30 pixels."""
_ON_ITS_SIDE = 5
"""EXIF orientations from here on exchange rows and columns."""


def part_of(path: Path) -> Part | None:
    """Return the part that a mask's path names; None = it names a whole file."""
    file = whole_file(path)
    if file == path:
        return None
    form, picture, defect, *number = path.name[len(file.name) + 1 :].split(PART)
    return Part(file, form, unquote(picture), unquote(defect), *map(int, number))


def marked_pictures(form: str, file: Path) -> dict[str, MarkedPicture]:
    """Return the pictures of an annotation file; read once while its state stays.

    Raises:
        DataError: it cannot be read, or is of another format.
    """
    return _read(form, file, *file_state(file))


@lru_cache(maxsize=4096)
def _read(form: str, file: Path, *state: int) -> dict[str, MarkedPicture]:
    try:
        pictures = READERS[form](file)
        for picture in pictures.values():
            # JSON may hold half a character, which can be neither printed nor written.
            "".join([picture.name, picture.product, *picture.defects]).encode("utf-8")
            if not all(map(str.strip, picture.defects)):
                whose = f"{file}, {picture.name}" if picture.name else str(file)
                raise DataError(f"{whose}: a label has no name; give it one in its tool")
            if any("\0" in name for name in (picture.product, *picture.defects)):
                raise DataError(f"{file}: a name holds the character NUL, which no path can; change it in its tool")
        return pictures
    except _OTHER_SHAPES as error:
        what = " ".join(str(error).split())[:160]
        raise DataError(f"{file}: is not written as files of {form} are ({what}); export it again") from None


@lru_cache(maxsize=4096)
def _coloured(file: Path, meaning: str, *state: int) -> MarkedPicture:
    return lookout.coloured(file, meaning)
