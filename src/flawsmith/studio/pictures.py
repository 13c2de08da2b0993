"""Pictures for the page: tiles of native pixels with a chosen black and white, thumbnails with outlines, crops.

Decoded by the product's own codecs. Of decoded pictures and of thumbnails as many are kept as fit into a fixed memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.masks.parts import part_mask
from flawsmith.data.masks.reading import read_label
from flawsmith.data.previews import OUTLINE, PART_OUTLINE, fit, jpeg, outlined, shown
from flawsmith.errors import DataError
from flawsmith.files import file_state
from flawsmith.types import Example, Range

TILE = 512
"""Side of a tile in px of the screen."""
DEEPEST = 8
"""The coarsest level of tiles: one px of the screen shows 2^8 x 2^8 px of the picture."""
_KEPT_PIXELS = 320 << 20
_KEPT_THUMBS = 48 << 20
_CONTEXT = 1.8
"""Side of a thumbnail's crop over that of the damage's box."""
_LEAST_CROP = 96

T = TypeVar("T")
Box = tuple[int, int, int, int]
"""Top, left, bottom, right."""


class _Kept(Generic[T]):
    """What was made last, as much as fits into `limit` bytes; several threads may ask."""

    def __init__(self, size: Callable[[T], int], limit: int) -> None:
        self._size, self._limit = size, limit
        self._made: OrderedDict[tuple[str, ...], T] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """Return what has this key; it is made where it is not kept."""
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        value = make()
        with self._lock:
            self._made[key] = value
            while len(self._made) > 1 and sum(map(self._size, self._made.values())) > self._limit:
                self._made.popitem(last=False)
        return value


class PictureStore:
    """Reads pictures and keeps those used last; several threads may ask."""

    def __init__(self) -> None:
        self._pictures = _Kept[np.ndarray](lambda picture: picture.nbytes, _KEPT_PIXELS)
        self._thumbs = _Kept[bytes](len, _KEPT_THUMBS)
        self._decoding = Lock()

    def native(self, path: Path) -> np.ndarray:
        """Return a picture as its file holds it; DataError as `images.read`."""
        with self._decoding:  # one at a time: many tiles of one picture are asked for at once
            return self._pictures.get((str(path), str(file_state(path))), lambda: images.read(path))

    def tile(self, path: Path, level: int, column: int, row: int, span: Range | None, window: Range | None) -> bytes:
        """Return a tile as PNG of 8 bits.

        Args:
            path: The picture.
            level: 0 = native pixels; n = 2^n x 2^n of them are averaged.
            column: Which tile, from the left.
            row: Which tile, from the top.
            span: The product's value range.
            window: What is shown black and white; None = as `images.to_bytes` shows it.

        Raises:
            DataError: the tile lies outside the picture.
        """
        picture = self.native(path)
        side = TILE << level
        part = picture[row * side : (row + 1) * side, column * side : (column + 1) * side]
        if not part.size:
            raise DataError(f"tile {column}, {row} of level {level}: lies outside the picture")
        part = images.filled(part, images.range_of(picture, span)) if picture.dtype == np.float32 else part
        if level:
            height, width = (-(-length // (1 << level)) for length in part.shape[:2])
            part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        return png(visible(np.asarray(part), images.range_of(picture, span), window))

    def thumb(self, example: Example, side: int, *, outline: bool) -> bytes:
        """Return a photograph as JPEG, its longer side `side` px.

        Args:
            example: The photograph.
            side: In px.
            outline: True = with the outline of its label; in a normal photograph, of the part if one lies there.
        """
        files = [str(value) for path in (example.image, *example.masks) for value in (path, file_state(path))]
        key = (*files, str(example.mask_rule), str(side), str(outline), str(example.span))

        def make() -> bytes:
            native = images.read(example.image)
            small = fit(shown(native, example.span), side)
            if outline and example.masks:
                small = outlined(small, read_label(example, native.shape), OUTLINE)
            elif outline and example.defect is None and not (part := part_mask(native, example.span)).all():
                small = outlined(small, part, PART_OUTLINE)
            return jpeg(small)

        return self._thumbs.get(key, make)

    def damage(self, picture: Path, mask: Path, span: Range | None, side: int, *, outline: bool, whole: bool) -> bytes:
        """Return a made picture as JPEG, cut to the surroundings of its damage or whole, `side` px."""
        files = [str(value) for path in (picture, mask) for value in (path, file_state(path))]
        key = (*files, str(side), str(outline), str(whole), str(span))

        def make() -> bytes:
            native = images.read(picture)
            label = images.read_mask(mask, native.shape)
            span_here = images.range_of(native, span)
            if not whole and label.any():
                top, left, bottom, right = around(box_around(label), native.shape[:2])
                native, label = native[top:bottom, left:right], label[top:bottom, left:right]
            small = fit(shown(native, span_here), side)
            return jpeg(outlined(small, label, OUTLINE) if outline else small)

        return self._thumbs.get(key, make)


def visible(native: np.ndarray, span: Range, window: Range | None) -> np.ndarray:
    """Return native pixels as 8 bits: `window` becomes 0 to 255; without one, 8 bits as they are and others by `span`.

    Args:
        native: (h,w) or (h,w,3), of any depth.
        span: The value range of the whole picture.
        window: Native values that become black and white.
    """
    if window is None:
        return images.to_bytes(native, span)
    level = (native.astype(np.float32) - window.low) * (255 / (window.high - window.low))
    return np.asarray(np.rint(np.clip(level, 0, 255)), np.uint8)


def box_around(mask: np.ndarray) -> Box:
    """Return the box of a mask, bool (H,W), that is not empty; quick also where it has many millions of pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def around(box: Box, shape: tuple[int, ...]) -> Box:
    """Return a square round a box, inside a picture of this shape: what is damaged, and what is round it."""
    top, left, bottom, right = box
    side = int(max(_CONTEXT * max(bottom - top, right - left), _LEAST_CROP))

    def along(low: int, high: int, length: int) -> tuple[int, int]:
        start = min(max((low + high - side) // 2, 0), max(length - side, 0))
        return start, min(start + side, length)

    rows, columns = along(top, bottom, shape[0]), along(left, right, shape[1])
    return rows[0], columns[0], rows[1], columns[1]


def png(picture: np.ndarray) -> bytes:
    """Return 8 bits, (h,w) or (h,w,3) RGB, as PNG; quick rather than small, for it does not leave the machine."""
    shown_order = picture if picture.ndim == 2 else picture[..., ::-1]
    _, encoded = cv2.imencode(".png", shown_order, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return bytes(encoded.tobytes())
