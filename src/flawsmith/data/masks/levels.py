"""What the values of a product's masks mean, from all of them together: soft edges, classes, instances, ignore rims.

One mask alone often cannot tell: 0 and 128 may be damage half covered or a class. The set can: soft edges lie between
background and damage and have no area of their own, classes have areas, instances count up from 1 in every mask.
Whatever the set leaves open is a sentence to the user, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from flawsmith.data.masks.stored import StoredMask
from flawsmith.errors import FlawsmithError
from flawsmith.types import MaskSource

MANY = 32
"""More values than this over all masks are no list of classes that somebody chose."""
_FLAT = 0.25
"""Least share of flat pixels among those of values that have areas of their own."""
_AT_EDGES = 0.8
"""Least share at edges of the pixels of a few intermediate values that are soft edges."""
_NOISE = 0.05
"""As far from 0 or from the largest value, as a share of that, compression moves a value."""
_FEW = 8
"""More values than this close to the two ends are noise, even where they have areas."""
_FEWEST = 3
"""Most values in one mask, at least, before values that count up from 1 are instances."""
_PIECE = 0.9
"""Least share of values that are one piece each, of instances."""
_SPECKS = 0.1
"""Least area of small numbers, as a share of that of the rim beside them."""
_STEPS, _PEAK = 5, 0.4
"""Steps into which the middle half of the values is divided; more than this share in one of them is a class."""
RIMS = (255, 65535)
"""What tools write for pixels that shall count for nothing."""


class Undecided(FlawsmithError):
    """What the masks of a product leave open, as a sentence that does not name the product."""


@dataclass(frozen=True)
class Levels:
    """The values of all masks of a product in one source (see `MaskRule`), counted together."""

    masks: tuple[StoredMask, ...]
    source: MaskSource

    @cached_property
    def each(self) -> tuple[np.ndarray, ...]:
        """The values that each mask holds."""
        return tuple(np.unique(mask.levels(self.source)[mask.layer(self.source).count > 0]) for mask in self.masks)

    @cached_property
    def values(self) -> np.ndarray:
        """All values, rising."""
        return np.unique(np.concatenate(self.each))

    @property
    def top(self) -> float:
        """The largest value."""
        return float(self.values[-1])

    def total(self, name: str) -> np.ndarray:
        """Return float64 (values,): the sum of a count of `stored.Layer` over all masks."""
        total = np.zeros(len(self.values))
        for mask in self.masks:
            counts, levels = getattr(mask.layer(self.source), name), mask.levels(self.source)
            kept = np.isin(levels, self.values)
            np.add.at(total, self.values.searchsorted(levels[kept]), counts[kept])
        return total

    def is_soft(self) -> bool | None:
        """Return whether the values between 0 and the largest are soft edges; None = neither that nor classes."""
        many = tuple(mask for mask, one in zip(self.masks, self.each, strict=True) if len(one) > 2)
        if not many:
            return False
        if len(many) < len(self.masks):  # 0 and one other value, on whichever scale, say nothing of edges
            return Levels(many, self.source).is_soft()
        whole = not (self.values != np.floor(self.values)).any()
        if len(self.values) <= 2 or self.top <= 0 or whole and (self.top < MANY or self.source == "index"):
            return False
        middle = self._between(0.25)
        middle = middle if middle.any() else self._between(_NOISE)
        if not middle.any():  # all lie close to one of the two ends
            middle = self._between(0)
            return len(self.values) > _FEW or self._share("flat", middle) < _FLAT
        flat, edge = self._share("flat", middle), self._share("edge", middle)
        if len(self.values) <= MANY and whole:
            return flat < _FLAT and edge >= _AT_EDGES
        if flat < _FLAT and edge >= _AT_EDGES / 2:
            return True
        return False if self.are_instances(()) else None

    def has_middle_areas(self) -> bool:
        """Return whether values in the middle of each mask's own scale are those of classes: they lie away from edges,
        and most of them close to one value; wide soft edges hold all of them alike."""
        middle, edge = np.zeros(_STEPS), 0
        for mask, each in zip(self.masks, self.each, strict=True):
            top = float(each[-1]) if len(each) else 0.0
            if top < self.top / 4:
                continue  # the noise of an empty mask
            levels, layer = mask.levels(self.source).astype(np.float64), mask.layer(self.source)
            between = (levels > top / 4) & (levels < 3 * top / 4)
            steps = (2 * _STEPS * (levels[between] / top - 0.25)).astype(int)
            middle += np.bincount(steps, layer.count[between], _STEPS)
            edge += int(layer.edge[between].sum())
        return bool(edge < _AT_EDGES / 2 * middle.sum() and middle.max() > _PEAK * middle.sum())

    def rims(self) -> tuple[float, ...]:
        """Return 255 or 65535 where masks hold it beside small numbers, with nothing between.

        Raises:
            Undecided: some masks hold it alone, so that it would leave them without damage; or the small numbers are
                so few pixels beside it that they may be specks.
        """
        rest = self.values[(self.values != 0) & (self.values != self.top)]
        if self.top not in RIMS or not len(rest) or (rest % 1).any():
            return ()
        if rest[-1] >= MANY and self.source != "index":
            return ()
        with_rim = [mask for mask, one in zip(self.masks, self.each, strict=True) if self.top in one]
        beside = [bool(np.isin(rest, one).any()) for one in self.each if self.top in one]
        if not any(beside):
            return ()
        alone, area, small = len(beside) - sum(beside), self.total("count"), np.isin(self.values, rest)
        few = area[small].sum() < _SPECKS * area[-1]
        strewn = Levels(tuple(with_rim), self.source)._are_strewn(rest)
        if alone or few or strewn:
            where = (
                f"alone in {alone} others" if alone else "covers far more than they do" if few else "is not round them"
            )
            raise Undecided(
                f"{self.top:g} stands beside small numbers in {sum(beside)} of its masks and {where}: set "
                f"data.mask.ignore = [{self.top:g}] when it shall count for nothing, or = [] when it is damage"
            )
        return (self.top,)

    def are_instances(self, beside: Iterable[float]) -> bool:
        """Return whether the values beside these are numbers of single pieces: they differ from mask to mask in how
        many there are and count up from 1, or there are more of them than classes; and each is one piece."""
        numbers = [np.setdiff1d(one, [0, *beside]) for one in self.each]
        counts = [len(one) for one in numbers if len(one)]
        if not counts or max(counts) < _FEWEST:
            return False
        counted = all(np.array_equal(one, np.arange(1, len(one) + 1)) for one in numbers) and len(set(counts)) > 1
        if not counted and len(np.unique(np.concatenate(numbers))) <= MANY:
            return False
        pieces = [
            cv2.connectedComponents((mask.layer(self.source).indices() == index).astype(np.uint8), connectivity=8)[0]
            for mask, values in zip(self.masks[:MANY], numbers, strict=False)
            for index in np.flatnonzero(np.isin(mask.levels(self.source), values))[:MANY]
        ]
        return bool(np.mean(np.array(pieces) == 2) >= _PIECE)  # the background is counted as one

    def _are_strewn(self, values: np.ndarray) -> bool:
        """Return whether most pixels of some values are specks: neither areas nor within two pixels of the largest."""
        these = np.isin(self.values, values)
        placed = (self.total("flat") + self.total("edge"))[these].sum()
        return bool(placed < self.total("count")[these].sum() / 2)

    def _between(self, margin: float) -> np.ndarray:
        """Return which values lie between the ends, further from them than a share of the largest: bool (values,)."""
        return np.asarray((self.values > margin * self.top) & (self.values < (1 - margin) * self.top))

    def _share(self, name: str, middle: np.ndarray) -> float:
        """Return the share of a count of `stored.Layer` among the pixels of some values."""
        return float(self.total(name)[middle].sum() / max(1.0, self.total("count")[middle].sum()))
