"""Ways to make a label wrong on purpose, by small steps: shifted, dilated, eroded, or at another place.

Suite `mask_quality.py` trains detectors on labels that are spoiled so.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import cv2
import numpy as np

from flawsmith.data.training_set import TrainingSet

_PLACES = 200
"""Random places that are tried for a label that shall cover no damage."""


@dataclass(frozen=True, slots=True)
class Spoiling:
    """One way to make labels wrong."""

    name: str
    spoil: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    """From a label bool (R,C) that is not empty to another of its shape that is not empty."""


def moved(mask: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return a label moved by so many pixels; what leaves the picture is lost."""
    rows, columns = np.nonzero(mask)
    rows, columns = rows + down, columns + right
    inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    result = np.zeros_like(mask)
    result[rows[inside], columns[inside]] = True
    return result


def shifted(mask: np.ndarray, rng: np.random.Generator, *, share: float) -> np.ndarray:
    """Return a label moved by a share of its box's height and width, at least a pixel each, towards a random corner.

    A corner is chosen towards which the label stays whole, where there is one; else its end is cut off. A label of
    which nothing would be left stays where it is.
    """
    top, left, height, width = _box(mask)
    down, right = max(1, round(share * height)), max(1, round(share * width))
    corners = [(down * a, right * b) for a, b in rng.permutation(list(product((-1, 1), (-1, 1)))).tolist()]
    whole = [
        (y, x) for y, x in corners if 0 <= top + y <= mask.shape[0] - height and 0 <= left + x <= mask.shape[1] - width
    ]
    result = moved(mask, *(whole or corners)[0])
    return result if result.any() else mask


def resized(mask: np.ndarray, rng: np.random.Generator, *, factor: float) -> np.ndarray:
    """Return a label dilated (factor > 1) or eroded (< 1) to so many times its area, to the pixel where there is room.

    The pixels nearest to the label are added, those nearest to its edge are taken away; among equally near ones the
    label's centre decides, so that hairlines become shorter and no dotted lines. At least one pixel is left.
    """
    area = int(mask.sum())
    wanted = min(max(1, round(factor * area)), mask.size)
    inside = factor < 1
    changed = mask if inside else ~mask
    distance = cv2.distanceTransform(changed.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).round(3)
    centre = np.argwhere(mask).mean(0)
    from_centre = np.hypot(*(np.indices(mask.shape) - centre[:, None, None]))
    places = np.flatnonzero(changed)
    depth = distance.ravel()[places]
    order = places[np.lexsort((from_centre.ravel()[places], -depth if inside else depth))]
    result = np.zeros_like(mask) if inside else mask.copy()
    result.ravel()[order[: wanted if inside else wanted - area]] = True
    return result


def misplaced(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a label whole at a random other place of the picture, covering no damage where there is room for that.

    Where none of the places that are tried is free of damage, it is the one that covers least.
    """
    top, left, height, width = _box(mask)
    tops = rng.integers(mask.shape[0] - height + 1, size=_PLACES)
    lefts = rng.integers(mask.shape[1] - width + 1, size=_PLACES)
    least, best = mask.size, mask
    for y, x in zip(tops.tolist(), lefts.tolist(), strict=True):
        candidate = moved(mask, y - top, x - left)
        covered = int((candidate & mask).sum())
        if covered < least:
            least, best = covered, candidate
        if not covered:
            break
    return best


SPOILINGS = (
    *(Spoiling(f"shifted by {share:.0%}", partial(shifted, share=share)) for share in (0.05, 0.1, 0.25)),
    *(Spoiling(f"dilated to {factor:.3g} times", partial(resized, factor=factor)) for factor in (4 / 3, 2, 4)),
    *(Spoiling(f"eroded to {factor:.0%}", partial(resized, factor=factor)) for factor in (0.75, 0.5, 0.25)),
    Spoiling("at a wrong place", misplaced),
)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two labels, not both empty."""
    return float((one & other).sum() / (one | other).sum())


def spoiled(training: TrainingSet, spoiling: Spoiling) -> TrainingSet:
    """Return a set with the labels of the samples spoiled; shots, normal parts and controls stay.

    A sample draws from a generator of its own, so that its label is spoiled the same in every set that it is in.
    """
    other = training.clone()
    for place in other.damaged(None, "made"):
        picture = other.pictures[place]
        rng = np.random.default_rng(zlib.crc32(picture.id.encode()))
        other.pictures[place] = replace(picture, mask=spoiling.spoil(picture.mask, rng))
    return other


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a label's box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
