"""A photograph's label: its masks, read by their product's rule, turned as the photograph was, and united."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flawsmith.data import images
from flawsmith.data.annotations.parts import part_of
from flawsmith.data.codecs.coding import upright
from flawsmith.data.masks.stored import StoredMask, stored_mask
from flawsmith.errors import DataError
from flawsmith.types import Example

ON_ITS_SIDE = 5
"""EXIF orientations from here on exchange rows and columns."""


def read_label(example: Example, shape: tuple[int, ...]) -> np.ndarray:
    """Read what the masks of a photograph call damaged, together: bool (H,W); all False when it has none.

    Args:
        example: The photograph. Without a `mask_rule` its masks must be flawsmith's own.
        shape: Shape of the photograph, upright; only rows and columns are compared.

    Raises:
        DataError: unreadable, of another size than the photograph, or neither judged nor flawsmith's own.
    """
    damage = np.zeros(shape[:2], bool)
    for path in example.masks:
        if (part := part_of(path)) is not None:
            damage |= part.drawn(example.image, shape)[0]
        elif example.mask_rule is None:
            damage |= images.read_mask(path, shape)
        else:
            stored = stored_mask(path)
            damage |= upright(stored.damage(example.mask_rule), turn_of(path, stored, example, shape))
    return damage


def read_ignored(example: Example, shape: tuple[int, ...]) -> np.ndarray | None:
    """Read what the masks of a photograph leave open, neither damage nor background: bool (H,W); None = nothing.

    Raises:
        DataError: as `read_label`.
    """
    ignored = np.zeros(shape[:2], bool)
    for path in example.masks:
        if (part := part_of(path)) is not None:
            ignored |= part.drawn(example.image, shape)[1]
            continue
        if example.mask_rule is None or not example.mask_rule.ignore:
            return None
        stored = stored_mask(path)
        ignored |= upright(stored.ignored(example.mask_rule), turn_of(path, stored, example, shape))
    if not ignored.any():
        return None
    ignored &= ~read_label(example, shape)
    return ignored if ignored.any() else None


def turn_of(path: Path, stored: StoredMask, example: Example, shape: tuple[int, ...]) -> int:
    """Return the EXIF orientation by which a mask is turned: its own, or else the one that gives the right size.

    A photograph may say that it is turned and its mask not, because it was drawn without regard to the tag; or the
    mask kept the tag of a photograph that was turned since.

    Raises:
        DataError: the mask has another size than its photograph, however it is turned.
    """
    wanted = tuple(shape[:2])

    def fits(orientation: int) -> bool:
        return (stored.values.shape[::-1] if orientation >= ON_ITS_SIDE else stored.values.shape) == wanted

    if fits(stored.orientation):
        return stored.orientation
    other = images.orientation(example.image)
    for orientation in (other, 1):
        if max(other, stored.orientation) >= ON_ITS_SIDE and fits(orientation):
            return orientation
    turned = stored.values.shape[::-1] if stored.orientation >= ON_ITS_SIDE else stored.values.shape
    raise DataError(f"{path}: {images.other_size(turned, shape)}")
