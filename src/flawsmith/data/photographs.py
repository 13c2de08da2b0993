"""A run's photographs in memory, each with its mask and the part in it: read once, kept while there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.masks.parts import part_mask
from flawsmith.data.masks.reading import read_label
from flawsmith.data.tiling import Spot, Window, plan_windows, thickness
from flawsmith.errors import DataError
from flawsmith.types import Example


@dataclass(frozen=True, slots=True)
class Photograph:
    """A picture from disk."""

    native: np.ndarray
    """(H,W) or (H,W,3), uint8, uint16 or float32, as the file holds it."""
    span: images.Range
    """What -1 and +1 mean in it."""
    mask: np.ndarray | None
    """bool (H,W), for a defect."""

    def bytes(self) -> int:
        """Return how much memory it takes."""
        return self.native.nbytes + (0 if self.mask is None else self.mask.nbytes)

    def model(self, spot: Spot | None = None) -> np.ndarray:
        """Return float32 (H,W,3) RGB in [-1,1], of the whole picture or a part of it."""
        return images.to_model(self.native if spot is None else self.native[spot], self.span)

    def brightness(self, spot: Spot | None = None) -> np.ndarray:
        """Return the mean of the channels of `model`, float32 (H,W); a few rows at a time become three channels."""
        native = self.native if spot is None else self.native[spot]
        strips = [native[row : row + images.STRIP] for row in range(0, len(native), images.STRIP)]
        return np.concatenate([images.to_model(strip, self.span).mean(axis=2) for strip in strips])


class Appearance(NamedTuple):
    """What a shot's damage looks like, in three numbers."""

    elongation: float
    """Length over width."""
    thickness: float
    """Median width, in native px; at least 1."""
    contrast: float
    """Mean brightness inside against that outside, on the scale -1..1; >= 0."""


class _Bits(NamedTuple):
    """A mask with a bit per pixel: a run has hundreds of parts, and finding one takes longer than reading it."""

    shape: tuple[int, int]
    packed: np.ndarray
    """uint8; of an all-true mask nothing."""

    @classmethod
    def of(cls, mask: np.ndarray) -> _Bits:
        return cls(mask.shape, np.packbits(mask) if not mask.all() else np.zeros(0, np.uint8))

    def mask(self) -> np.ndarray:
        if not len(self.packed):
            return np.broadcast_to(True, self.shape)  # one byte; a whole mask of them would be a picture's size
        return np.unpackbits(self.packed, count=self.shape[0] * self.shape[1]).reshape(self.shape).view(bool)


GAPS = 0.02
"""Share of a surface's picture that was not measured, up to which it counts as measured throughout."""
KEPT = 152 << 20
"""Bytes of photographs that are kept, with their masks and parts; the one read last is kept whatever its size."""
T = TypeVar("T")


class _Kept(Generic[T]):
    """What was computed of the examples used last, as much as fits into `limit` bytes."""

    def __init__(self, compute: Callable[[Example], T], size: Callable[[T], int], limit: int) -> None:
        self._compute, self._size, self._limit, self._bytes, self._last = compute, size, limit, 0, 0
        self._kept: OrderedDict[Example, T] = OrderedDict()
        self._lock = Lock()

    def __call__(self, example: Example) -> T:
        with self._lock:
            if example in self._kept:
                self._kept.move_to_end(example)
                return self._kept[example]
            # Room for one like the last: reading a large photograph beside one that must go soon takes both.
            self._make_room(self._last)
        value = self._compute(example)
        with self._lock:
            if example not in self._kept:
                self._last = self._size(value)
                self._make_room(self._last)
                self._kept[example] = value
                self._bytes += self._last
        return value

    def _make_room(self, size: int) -> None:
        while self._kept and self._bytes + size > self._limit:
            self._bytes -= self._size(self._kept.popitem(last=False)[1])


class Photographs:
    """Reads examples, and keeps those used last in memory.

    Args:
        normals: Normal parts, by which it is known which products are surfaces.
        keep: How many bytes of them are kept; a quarter of it for the parts in them, a bit per pixel.
    """

    def __init__(self, normals: Sequence[Example], keep: int = KEPT) -> None:
        self.normals = {example.id: example for example in normals}
        """The normal parts by id."""
        self._normals_of: dict[str, list[Example]] = {}
        for example in normals:
            self._normals_of.setdefault(example.product, []).append(example)
        self.read = _Kept(self._read, Photograph.bytes, keep * 3 // 4)
        self._outlines = _Kept(self._outline, lambda part: part.packed.nbytes, keep * 3 // 16)
        self._measured = _Kept(self._measure, lambda part: part.packed.nbytes, keep // 16)
        self.appearance = _Kept(self._appearance, lambda _: 100, keep)
        self._shares: dict[str, dict[str, float]] = {}

    def part(self, example: Example) -> np.ndarray:
        """Return where the part is in a photograph, bool (H,W); of a surface, where something was measured.

        Read it, do not write it.
        """
        kept = self._measured if self.is_surface(example.product) else self._outlines
        return kept(example).mask()

    def normals_of(self, product: str) -> Sequence[Example]:
        """Return the normal parts of a product, in their order."""
        return self._normals_of.get(product, [])

    def with_only(self, normal: Example) -> Photographs:
        """Return the same photographs with one normal part of its product to choose; what was read is shared."""
        self.part_shares(normal.product)  # of all: they vote, and are kept
        chosen = copy(self)
        chosen._normals_of = {**self._normals_of, normal.product: [normal]}
        return chosen

    def beside(self, normals: Sequence[Example]) -> Photographs:
        """Return photographs with other normal parts, which vote anew; what was read of single pictures is shared."""
        made = Photographs(normals)
        made.read, made._outlines, made.appearance = self.read, self._outlines, self.appearance
        return made

    def is_surface(self, product: str) -> bool:
        """Return whether a product fills its pictures, by a vote of up to nine of its normal photographs."""
        shares = self.part_shares(product).values()
        return sum(share == 1 for share in shares) * 2 >= len(shares)

    def part_shares(self, product: str) -> Mapping[str, float]:
        """Return what share of its picture the part covers in up to nine normal photographs, by their ids.

        1 where no part was found on a backdrop.
        """
        if product not in self._shares:
            own = self.normals_of(product)
            asked = own[:: max(1, len(own) // 9)][:9]
            self._shares[product] = {one.id: float(self._outlines(one).mask().mean()) for one in asked}
        return self._shares[product]

    def _read(self, example: Example) -> Photograph:
        native = images.read(example.image)
        mask = read_label(example, native.shape) if example.masks else None
        if mask is not None and not mask.any():
            raise DataError(f"{example.masks[0]}: the mask is empty; mark the damage, or take the pair out of the set")
        return Photograph(native, images.range_of(native, example.span), mask)

    def _outline(self, example: Example) -> _Bits:
        photograph = self.read(example)
        return _Bits.of(part_mask(photograph.native, photograph.span))

    def _measure(self, example: Example) -> _Bits:
        photograph = self.read(example)
        native = photograph.native
        gone = images.missing(native, photograph.span) if example.defect is None else None
        # Damage is thrown where something was measured; a few gaps would only keep it from the picture's borders.
        if gone is None or not GAPS < gone.mean() < 1:
            return _Bits.of(np.broadcast_to(True, native.shape[:2]))
        return _Bits.of(~gone)

    def _appearance(self, example: Example) -> Appearance:
        photograph = self.read(example)
        assert photograph.mask is not None
        width = max(thickness(photograph.mask, 0.5), 1.0)
        grey = photograph.brightness()
        gone = images.missing(photograph.native, photograph.span)
        measured = np.ones_like(photograph.mask) if gone is None else ~gone
        inside, outside = grey[photograph.mask & measured], grey[~photograph.mask & measured]
        contrast = abs(float(inside.mean()) - float(outside.mean())) if len(inside) and len(outside) else 0.0
        return Appearance(float(photograph.mask.sum()) / width**2, width, contrast)


LONE_THICKNESS = 1.0
"""Least thickness of damage, in px at the working size, in a window of a generator that draws its own masks."""


def windows_over(config: Config, damage: np.ndarray, size: int, *, lone: bool = False) -> list[Window]:
    """Return the windows over a damage, as the configuration's [windows] asks; [] when the mask is empty.

    Args:
        config: The whole configuration.
        damage: bool (H,W) at native resolution.
        size: Working size in px.
        lone: True = as few windows as possible, for a generator that draws its own masks: it would draw one damage
            into each of them. Damage may then be as thin as `LONE_THICKNESS`.
    """
    part = config.windows
    return plan_windows(
        damage,
        size,
        context=part.context,
        min_thickness=min(LONE_THICKNESS, part.min_thickness) if lone else part.min_thickness,
        max_zoom=part.max_zoom,
        overlap=part.overlap,
    )


def fullest(windows: Sequence[Window], damage: np.ndarray) -> Window:
    """Return the window that shows most of a damage."""
    return max(windows, key=lambda window: int(damage[window.inside(damage.shape)].sum()))
