"""Marks that every mask of a product has at the same place: a legend, a time or a logo that was drawn into them."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

FEWEST = 4
"""Of fewer masks, damage at one place may be chance."""
_AREA = 4
"""Pixels; what is smaller is a speck."""


@dataclass(slots=True)
class Stamps:
    """The labels of one product, put on each other; those of another size than the first are left out."""

    count: int = 0
    everywhere: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    """bool (H,W): damage in all labels."""
    anywhere: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    """bool (H,W): damage in one label or more."""
    areas: list[int] = field(default_factory=list)
    """Damaged pixels of each label."""

    def add(self, damage: np.ndarray) -> None:
        """Add a label, bool (H,W); an empty one says nothing."""
        if not damage.any():
            return
        if not self.count:
            self.everywhere, self.anywhere = damage.copy(), damage.copy()
        elif damage.shape != self.everywhere.shape:
            return
        self.everywhere &= damage
        self.anywhere |= damage
        self.areas.append(int(damage.sum()))
        self.count += 1

    def area(self) -> int:
        """Return the pixels of pieces that are the same in every label, where most labels have other damage too.

        A piece is the same where no label has damage that touches it: damage that varies about one place is no stamp.
        """
        if self.count < FEWEST or not self.everywhere.any():
            return 0
        number, pieces = cv2.connectedComponents(self.everywhere.astype(np.uint8), connectivity=8)
        near = cv2.dilate(pieces.astype(np.uint16), np.ones((3, 3)))
        touched = set(np.unique(near[self.anywhere & (pieces == 0)]).tolist())
        sizes = np.bincount(pieces.ravel(), minlength=number)
        same = sum(int(sizes[one]) for one in range(1, number) if one not in touched and sizes[one] >= _AREA)
        others = sum(area > same for area in self.areas)
        return same if 2 * others > self.count else 0
