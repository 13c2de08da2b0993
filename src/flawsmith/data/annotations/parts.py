"""A part of an annotation file as the mask of a photograph: `labels.json#coco#7#scratch`.

So written it goes wherever the path of a mask goes: into records, hashes and data.json. It names the file, its format,
the picture in it, and the defect type; what is marked as another type is neither damage nor background there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from flawsmith.data import images
from flawsmith.data.annotations import coco, label_studio, labelme, yolo
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


@dataclass(frozen=True, slots=True)
class Part:
    """What one annotation file marks as one defect type on one picture."""

    file: Path
    format: str
    """A key of `READERS`."""
    picture: str
    """Which picture of the file, as its format names it."""
    defect: str
    """As the file names it."""

    @property
    def path(self) -> Path:
        """The part as the path of a mask."""
        return self.file.with_name(PART.join([self.file.name, self.format, _safe(self.picture), _safe(self.defect)]))

    def marked(self) -> MarkedPicture:
        """Return its picture with all that is marked on it.

        Raises:
            DataError: the file cannot be read, or does not hold the picture any more.
        """
        pictures = marked_pictures(self.format, self.file)
        if self.picture not in pictures:
            raise DataError(f"{self.file}: holds no picture {self.picture!r} any more")
        return pictures[self.picture]

    def drawn(self, image: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return its damage, and what is marked as other types alone: bool (H,W) each, upright as the photograph.

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
        for one in picture.marked:
            try:
                pixels = one.draw(size)
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(f"{self.path}: {error}") from None
            if one.defect == self.defect:
                damage |= pixels
            else:
                other |= pixels
        return upright(damage, turn), upright(other & ~damage, turn)


def _safe(text: str) -> str:
    return text.replace("%", "%25").replace("/", "%2F").replace(PART, "%23")


_ON_ITS_SIDE = 5
"""EXIF orientations from here on exchange rows and columns."""


def part_of(path: Path) -> Part | None:
    """Return the part that a mask's path names; None = it names a whole file."""
    file = whole_file(path)
    if file == path:
        return None
    form, picture, defect = path.name[len(file.name) + 1 :].split(PART)
    return Part(file, form, unquote(picture), unquote(defect))


def marked_pictures(form: str, file: Path) -> dict[str, MarkedPicture]:
    """Return the pictures of an annotation file; read once while its state stays.

    Raises:
        DataError: it cannot be read, or is of another format.
    """
    return _read(form, file, *file_state(file))


@lru_cache(maxsize=4096)
def _read(form: str, file: Path, *state: int) -> dict[str, MarkedPicture]:
    return READERS[form](file)
