"""Overlapping square tiles that cover a whole photograph, so that a detector sees damage a few pixels wide as it is.

A tile is cut at the photograph's own resolution, or after one scaling that all photographs of a product share. The
fewest tiles cover a photograph; neighbours overlap by an eighth of their side or more. A photograph smaller than a tile
is shown whole in one, filled up by reflection, so no photograph is stretched. Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flawsmith.data.tiling import Window
from flawsmith.data.windows import reflected

OVERLAP = 1 / 8
"""Least overlap of neighbours, as a share of the side: what lies at the edge of one tile is shown with context by the
next. At 384 px that is 48 px; a photograph of 1024 px takes 3 x 3 tiles."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """How the photographs of a product are cut."""

    side: int
    """Rows and columns of a tile, px."""
    scale: float = 1.0
    """Enlarges (above 1) or shrinks every photograph before it is cut."""
    per_normal: int = 0
    """So many tiles of a normal photograph are learned from, at most; 0 = all."""

    def size_of(self, photograph: Sequence[int]) -> tuple[int, int]:
        """Return the rows and columns of a photograph (H,W[,C]) after scaling."""
        rows, columns = (max(1, round(length * self.scale)) for length in photograph[:2])
        return rows, columns

    def grid(self, size: Sequence[int]) -> TileGrid:
        """Return the tiles of a picture of this size, which is scaled already."""
        return TileGrid((size[0], size[1]), self.side)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles that cover one picture, row by row."""

    size: tuple[int, int]
    """Rows and columns of the picture."""
    side: int

    def __len__(self) -> int:
        return len(_starts(self.size[0], self.side)) * len(_starts(self.size[1], self.side))

    @property
    def windows(self) -> list[Window]:
        """Where the tiles lie."""
        rows, columns = (_starts(length, self.side) for length in self.size)
        return [Window(top, left, self.side) for top in rows for left in columns]

    def seen(self, picture: np.ndarray, window: Window) -> np.ndarray:
        """Return what a tile shows of a picture (H,W[,C]) of any type: (side,side[,C])."""
        rows, columns = reflected(window, self.size)
        return np.ascontiguousarray(picture[rows[:, None], columns])

    def cut(self, picture: np.ndarray) -> list[np.ndarray]:
        """Return all tiles (side,side[,C]) of a picture (H,W[,C])."""
        return [self.seen(picture, window) for window in self.windows]

    def joined(self, maps: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 (H,W): the anomaly maps float32 (side,side) of all tiles as one map of the picture.

        Where tiles overlap it is their mean, weighted by the distance to the tile's edge. A network fills up with zeros
        beyond the edge of what it sees, so a tile tells least there; a maximum would keep what it makes of the zeros.
        """
        weights = [self._weight(window) for window in self.windows]
        total = np.zeros(self.size, np.float32)
        for window, weight in zip(self.windows, weights, strict=True):
            total[window.inside(self.size)] += weight
        whole = np.zeros(self.size, np.float32)
        for window, weight, tile in zip(self.windows, weights, maps, strict=True):
            rows, columns = window.inside(self.size)
            inside = tile[rows.start - window.top : rows.stop - window.top, columns.start - window.left :]
            whole[rows, columns] += inside[:, : columns.stop - columns.start] * (weight / total[rows, columns])
        return whole

    def best_seen(self, mask: np.ndarray) -> list[int]:
        """Return the tiles that show a pixel of a mask bool (H,W) farther from their edge than every other tile does.

        Together they show the whole mask; a tile that has but a sliver of damage at its edge is not among them, because
        its neighbour shows that sliver better. Where several show a pixel equally well it is the first.
        """
        best, owner = np.zeros(self.size, np.float32), np.full(self.size, -1)
        for number, window in enumerate(self.windows):
            place, weight = window.inside(self.size), self._weight(window)
            better = weight > best[place]
            best[place][better] = weight[better]
            owner[place][better] = number
        return [int(number) for number in np.unique(owner[mask])]

    def _weight(self, window: Window) -> np.ndarray:
        """Return float32 of the pixels that a tile shows: their distances to its nearest edges, px, multiplied."""
        distance = np.minimum(np.arange(1, self.side + 1), np.arange(self.side, 0, -1)).astype(np.float32)
        rows, columns = window.inside(self.size)
        down = distance[rows.start - window.top : rows.stop - window.top]
        along = distance[columns.start - window.left : columns.stop - window.left]
        return down[:, None] * along


def _starts(length: int, side: int) -> list[int]:
    """Return where tiles begin along an axis: evenly spread; one that overhangs on either side where it is longer."""
    if length <= side:
        return [-((side - length) // 2)]
    count = 1 + math.ceil((length - side) / (side * (1 - OVERLAP)))
    return [round(start) for start in np.linspace(0, length - side, count)]
