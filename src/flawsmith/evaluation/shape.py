"""The shape in which a product is proven: a square while its photographs are nearly square, else their own shape.

A square would take from a photograph of 500 x 1250 pixels most of what is narrow along its longer side. A shape of its
own costs no more, for it holds as many pixels. Where damage is too small for either, photographs are shown in tiles
(`prove.tile`). Needs no torch: `flawsmith check` asks too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from flawsmith.config import ProveConfig
from flawsmith.data import images
from flawsmith.data.inspection_tiles import Tiles
from flawsmith.types import Example

Shape = tuple[int, int]
"""(rows, columns)."""
NEARLY_SQUARE = 1.5
"""Up to so much longer than wide, or wider than long, a product is proven in a square; more than that is far."""
_FIELD_SIDE = 256
_LEAST, _LARGEST, _STEP = 64, 384, 32
_NORMAL_PIXELS = 1 << 27
"""Pixels of normal tiles that are learned from, at most: 910 tiles of 384 pixels, 540 MB in memory and 1.6 GB of
features on disk; but always one tile of every normal photograph."""


def proof_shape(part: ProveConfig, photographs: Sequence[Shape]) -> Shape:
    """Return the shape in which detectors see every picture of a product.

    Args:
        part: Protocol, size and tile. The field protocol is a square whatever the photographs are, as in the papers.
        photographs: The shapes of the product's normal photographs, not empty. The geometric mean of their
            proportions counts: with photographs that lie and photographs that stand, it stays between them.
    """
    if part.tile:
        return part.tile, part.tile
    if part.protocol == "field":
        side = part.size or _FIELD_SIDE
        return side, side
    proportion = float(np.exp(np.mean([math.log(rows / columns) for rows, columns in photographs])))
    if max(proportion, 1 / proportion) <= NEARLY_SQUARE:
        side = part.size or int(np.clip(_stepped(_median(max(shape) for shape in photographs)), _LEAST, _LARGEST))
        return side, side
    edge = part.size or float(np.clip(_median(math.sqrt(math.prod(shape)) for shape in photographs), _LEAST, _LARGEST))
    return _stepped(edge * math.sqrt(proportion)), _stepped(edge / math.sqrt(proportion))


def proof_tiles(part: ProveConfig, photographs: Sequence[Shape]) -> Tiles | None:
    """Return how photographs are cut into tiles of `prove.tile`; None = detectors see them whole.

    Args:
        part: With a size of 0 photographs keep their own resolution; else they are scaled, all by one factor, so that
            the median one has as many pixels as a square of that side.
        photographs: The shapes of the product's normal photographs, not empty.
    """
    if not part.tile:
        return None
    scale = part.size / _median(math.sqrt(math.prod(shape)) for shape in photographs) if part.size else 1.0
    return Tiles(part.tile, scale, max(1, _NORMAL_PIXELS // (part.tile**2 * len(photographs))))


def shapes_of(examples: Iterable[Example]) -> list[Shape]:
    """Return the shapes of photographs, from their headers."""
    return [images.describe(example.image).shape for example in examples]


def distorted(shape: Shape, photographs: Sequence[Shape]) -> str:
    """Return a sentence about the photographs that the shape of the proof stretches far; "" = there are none."""
    rows, columns = shape
    stretches = [(own_rows * columns) / (own_columns * rows) for own_rows, own_columns in photographs]
    far = [max(stretch, 1 / stretch) for stretch in stretches if max(stretch, 1 / stretch) > NEARLY_SQUARE]
    if not far:
        return ""
    return (
        f"{len(far)} of {len(photographs)} photographs have other proportions than the {rows} x {columns} pixels "
        f"at which the proof shows all of them, so it stretches them, up to {max(far):.1f} times"
    )


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def _stepped(side: float) -> int:
    return max(_STEP, round(side / _STEP) * _STEP)
