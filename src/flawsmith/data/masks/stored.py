"""A mask file as it is stored: which values it holds, how they lie, and where; decoded once per process.

What the values mean is decided from all masks of a product together (`judging`), so here they are only counted.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.codecs.label import StoredLabel, decode_label
from flawsmith.files import file_state
from flawsmith.types import MaskRule

_LIMIT = 128 << 20
"""Bytes of decoded masks, compressed, that are kept."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One number per pixel, as levels that are counted and a compressed map of their places."""

    levels: np.ndarray
    """The distinct values, rising: (L,), uint8, uint16, float32, or int64 for colours."""
    count: np.ndarray
    """int64 (L,): pixels of each level, among those that are opaque."""
    border: np.ndarray
    """int64 (L,): those on the picture's outermost rows and columns."""
    flat: np.ndarray
    """int64 (L,): those whose 8 neighbours all have the same value. Soft edges have none, areas of a class many."""
    edge: np.ndarray
    """int64 (L,): those with a value below a quarter and one above three quarters of the file's largest within 2 px."""
    shape: tuple[int, int]
    coded: bytes
    """The index of each pixel's level, row by row, compressed."""

    def indices(self) -> np.ndarray:
        """Return (H,W): the index of each pixel's level."""
        return np.frombuffer(zlib.decompress(self.coded), _index_type(len(self.levels))).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class StoredMask:
    """One decoded mask file; rows and columns as stored, not turned."""

    storage: Literal["grey", "palette", "colour"]
    """What `values` hold: greys, palette indices, or colours 0xRRGGBB (16 bits: 0xRRRRGGGGBBBB)."""
    values: Layer
    palette: np.ndarray | None
    """uint8 (N,3): the colours of the indices."""
    alpha: Layer | None
    """None where every pixel is opaque."""
    orientation: int
    """The EXIF orientation of the file, 1 to 8."""
    lossy: bool
    pages: int = 1
    """Pictures in the file; this is the first."""

    def levels(self, source: str) -> np.ndarray:
        """Return the levels of the layer that `source` names (see `MaskRule`), as numbers of that source."""
        levels = self.values.levels
        if source == "alpha":
            return np.array([255]) if self.alpha is None else self.alpha.levels
        if source == "index" or source == self.storage:
            return levels
        if self.palette is not None:
            colours = self.palette[levels].astype(np.int64)
            return colours.max(1) if source == "grey" else packed(colours)
        if source == "colour":
            return packed(np.repeat(levels[:, None].astype(np.int64), 3, axis=1))
        bits = _bits(levels)
        return np.stack([levels >> shift & (1 << bits) - 1 for shift in (2 * bits, bits, 0)]).max(0)

    def layer(self, source: str) -> Layer:
        """Return the layer that `source` names."""
        if source == "alpha":
            return self.values if self.alpha is None else self.alpha
        return self.values

    def damage(self, rule: MaskRule) -> np.ndarray:
        """Return what a rule calls damage: bool (H,W), not turned."""
        if rule.source == "alpha" and self.alpha is None:
            return np.full(self.values.shape, not rule.inverted)
        damaged = damaged_levels(self.levels(rule.source), rule)[self.layer(rule.source).indices()]
        if rule.source != "alpha" and rule.alpha and self.alpha is not None:
            damaged &= (self.alpha.levels > self.alpha.levels[-1] / 2)[self.alpha.indices()]
        return np.asarray(damaged)

    def ignored(self, rule: MaskRule) -> np.ndarray:
        """Return what a rule calls neither damage nor background: bool (H,W), not turned."""
        if rule.source == "alpha" and self.alpha is None:
            return np.zeros(self.values.shape, bool)
        return np.asarray(np.isin(self.levels(rule.source), rule.ignore)[self.layer(rule.source).indices()])


def damaged_levels(levels: np.ndarray, rule: MaskRule) -> np.ndarray:
    """Return which of a file's levels are damage: bool (L,)."""
    ignored = np.isin(levels, rule.ignore)
    if rule.soft:
        damaged = levels > max(float(levels.max()), rule.soft / 4) / 2
    elif rule.damage:
        damaged = np.isin(levels, rule.damage)
    else:
        damaged = ~np.isin(levels, rule.background)
    return np.asarray((~damaged if rule.inverted else damaged) & ~ignored)


def packed(colours: np.ndarray) -> np.ndarray:
    """Return colours (..., 3) as one number each, int64: 0xRRGGBB."""
    bits = 16 if colours.dtype == np.uint16 else 8
    wide = colours.astype(np.int64)
    return np.asarray(wide[..., 0] << 2 * bits | wide[..., 1] << bits | wide[..., 2])


class _Decoded:
    """Masks decoded before; a file is decoded again when its state changes, or when room was needed."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], StoredMask] = OrderedDict()
        self._lock = Lock()

    def get(self, path: Path) -> StoredMask:
        key = (os.path.abspath(path), tuple(file_state(path)))
        if not key[1]:
            return decode_mask(path)  # says what is wrong
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        mask = decode_mask(path)
        with self._lock:
            self._kept[key] = mask
            self._bytes += _size(mask)
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
        return mask


_DECODED = _Decoded(_LIMIT)


def stored_mask(path: Path) -> StoredMask:
    """Return a mask file as it is stored; from memory where it was decoded before.

    Raises:
        DataError: as `images.read`.
    """
    return _DECODED.get(Path(path))


def decode_mask(path: Path) -> StoredMask:
    """Decode a mask file.

    Raises:
        DataError: as `images.read`.
    """
    label: StoredLabel = images.with_reasons(path, lambda stream: decode_label(stream.read()))
    alpha = None if label.alpha is None else _layer(label.alpha, None)
    full = 1.0 if label.values.dtype.kind == "f" else float(np.iinfo(label.values.dtype).max)
    if alpha is not None and len(alpha.levels) == 1 and alpha.levels[0] == full:
        alpha = None
    opaque = None if alpha is None or label.alpha is None else (label.alpha == alpha.levels[-1]) & (label.alpha > 0)
    values, brightness = label.values, None
    if values.ndim == 3 and (values[..., 1:] == values[..., :1]).all():
        values = values[..., 0]
    storage: Literal["grey", "palette", "colour"] = "grey" if label.palette is None else "palette"
    if values.ndim == 3:
        if values.dtype.kind == "f":  # nobody tells classes by float colours
            values = values.max(axis=2)
        else:
            storage, values, brightness = "colour", packed(values), values.max(axis=2)
    palette = label.palette
    if palette is not None:
        # An index beyond the palette, such as 255 for what counts for nothing, is black, as viewers show it.
        palette = np.pad(palette, ((0, max(int(values.max()) + 1 - len(palette), 0)), (0, 0)))
        brightness = palette.max(axis=1)[values]
    layer = _layer(values, opaque, brightness)
    return StoredMask(storage, layer, palette, alpha, label.orientation, label.lossy, label.pages)


def _layer(values: np.ndarray, opaque: np.ndarray | None, brightness: np.ndarray | None = None) -> Layer:
    """Count the values (H,W); `opaque` and `brightness`, of the same shape: what counts, and how bright it looks."""
    if values.dtype in (np.uint8, np.uint16):
        present = np.zeros(np.iinfo(values.dtype).max + 1, bool)
        present[values.ravel()] = True
        levels = np.flatnonzero(present).astype(values.dtype)
        positions = np.zeros(len(present), _index_type(len(levels)))
        positions[levels] = np.arange(len(levels))
        indices = positions[values]
    else:
        levels, flat = np.unique(values, return_inverse=True)
        indices = flat.reshape(values.shape).astype(_index_type(len(levels)))
    number = len(levels)
    count = _counted(indices, opaque, number)
    rim = np.zeros(values.shape, bool)
    rim[[0, -1]] = rim[:, [0, -1]] = True
    border = _counted(indices, rim if opaque is None else rim & opaque, number)
    solid, edge = np.zeros(number, np.int64), np.zeros(number, np.int64)
    if number > 2:
        smallest = indices.astype(np.float32) if indices.dtype == np.uint32 else indices
        same = cv2.erode(smallest, np.ones((3, 3))) == cv2.dilate(smallest, np.ones((3, 3)))
        height = values if brightness is None else brightness
        height = height if height.dtype in (np.uint8, np.uint16) else height.astype(np.float32)
        near = np.ones((5, 5))
        top = float(height.max())
        between = (cv2.erode(height, near) < top / 4) & (cv2.dilate(height, near) > 3 * top / 4)
        solid, edge = (
            _counted(indices, where if opaque is None else where & opaque, number) for where in (same, between)
        )
    coded = zlib.compress(np.ascontiguousarray(indices).data, 1)
    return Layer(levels, count, border, solid, edge, (values.shape[0], values.shape[1]), coded)


def _counted(indices: np.ndarray, where: np.ndarray | None, number: int) -> np.ndarray:
    """Return how often each of so many indices occurs where a mask is True, int64; some rows at a time."""
    count = np.zeros(number, np.int64)
    for row in range(0, len(indices), images.STRIP):
        strip = indices[row : row + images.STRIP]
        chosen = strip.ravel() if where is None else strip[where[row : row + images.STRIP]]
        count += np.bincount(chosen, minlength=number)
    return count


def _index_type(levels: int) -> type[np.unsignedinteger]:
    """Return the smallest type that holds the indices of so many levels."""
    return np.uint8 if levels <= 2**8 else np.uint16 if levels <= 2**16 else np.uint32


def _bits(colours: np.ndarray) -> int:
    return 16 if len(colours) and colours.max() >= 2**24 else 8


def _size(mask: StoredMask) -> int:
    return len(mask.values.coded) + (0 if mask.alpha is None else len(mask.alpha.coded))
