"""What a detector may learn from: pictures of one shape with masks and defect types, and no test picture among them.

The guard is not a rule to be kept but a door: a `TrainingSet` is made with the content hashes of all test pictures, and
`add` raises on a picture that looks like one of them, whatever its name. Detectors accept nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from flawsmith.data import images
from flawsmith.data.fingerprints import fingerprint
from flawsmith.data.inspection_tiles import Tiles
from flawsmith.data.masks.reading import read_ignored, read_label
from flawsmith.data.scaling import as_detectors_see, scaled_mask
from flawsmith.data.tensors import image_tensor, mask_tensor
from flawsmith.errors import DataError
from flawsmith.types import Batch, Example

if TYPE_CHECKING:
    from torch import Tensor

Origin = Literal["real", "made", "control"]
"""A photograph (shot or normal part), a sample, or a negative control."""


@dataclass(frozen=True, slots=True)
class TrainingPicture:
    """One picture to learn from."""

    image: np.ndarray
    """uint8 (R,C,3), RGB."""
    mask: np.ndarray
    """bool (R,C); all False for a normal part or a control."""
    product: str
    defect: str | None
    origin: Origin
    id: str
    ignored: np.ndarray | None = None
    """bool (R,C): what is neither damage nor normal and shall teach nothing; None = nothing is."""
    painted: np.ndarray | None = None
    """bool (R,C): where a control was repainted, which is where a detector should look; None for everything else."""
    photograph: str = ""
    """Id of the normal photograph that it is, or that a sample or control was made from; of a shot its file; "" = none
    is known."""
    corner: tuple[int, int] | None = None
    """Row and column of a tile in its picture, scaled by `Tiles.size_of`; None = the picture is whole."""

    @property
    def example_id(self) -> str:
        """Return the id of the example that it shows, whole or a tile of it."""
        return self.id if self.corner is None else self.id.rpartition(" at ")[0]


class TrainingSet:
    """Pictures to learn from, all of one shape, kept in memory as 8 bits.

    Args:
        shape: Rows and columns that every picture is scaled to; with `tiles`, of a tile.
        defects: All defect types, in the order in which detectors count them.
        forbidden: Content hashes (`fingerprints.content_hash`) of the test pictures.
        tiles: How pictures are cut into tiles, each of which is then a picture to learn from; None = taken in whole.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        defects: Sequence[str],
        forbidden: Iterable[str] = (),
        *,
        tiles: Tiles | None = None,
    ) -> None:
        self.shape = shape
        self.defects = tuple(defects)
        self.tiles = tiles
        self._forbidden = frozenset(forbidden)
        self._read: dict[tuple[Path, tuple[Path, ...], Origin, Path | None], list[TrainingPicture]] = {}
        self.pictures: list[TrainingPicture] = []

    def __len__(self) -> int:
        return len(self.pictures)

    def add(
        self, example: Example, origin: Origin, *, painted: Path | None = None, photograph: str | None = None
    ) -> None:
        """Read a picture and take it in.

        In tiles, a damaged picture is learned from where it shows its marked damage, and a control where it was
        repainted. Their other tiles are left out: of a sample and a control they are the normal photograph's own
        pixels, and of a shot nobody can say that they would pass as normal. Of a normal picture the tiles are taken,
        all or as many as `Tiles.per_normal` says; which ones is drawn from its own pixels, so every arm learns from
        the same.

        Args:
            example: The picture, with its labels if it is damaged.
            origin: Where it comes from.
            painted: The mask picture of where a control was repainted.
            photograph: Id of the normal photograph that a sample or control was made from.

        Raises:
            DataError: it is a test picture, of an unknown defect type, damaged without a mask, or cannot be read.
        """
        key = example.image, example.masks, origin, painted
        if key not in self._read:
            itself = (example.id if example.defect is None else str(example.image)) if origin == "real" else ""
            self._read[key] = self._pictures(example, origin, painted, photograph or itself)
        self.pictures += self._read[key]

    def forbids(self, image: Path) -> bool:
        """Return whether a picture is one of the test set, whatever its name."""
        return fingerprint(image).pixels in self._forbidden

    def _pictures(
        self, example: Example, origin: Origin, painted: Path | None, photograph: str
    ) -> list[TrainingPicture]:
        content = fingerprint(example.image).pixels
        if self.forbids(example.image):
            raise DataError(
                f"{example.image}: is a picture of the test set, so no detector may learn from it; "
                "take it out of one of the two"
            )
        if example.defect is not None and example.defect not in self.defects:
            raise DataError(f"{example.id}: its defect type {example.defect!r} is none of {', '.join(self.defects)}")
        native = images.describe(example.image).shape
        size = self.shape if self.tiles is None else self.tiles.size_of(native)
        scaled = read_scaled(example, size)
        if example.defect is not None and not scaled.mask.any():
            raise DataError(f"{example.id}: is filed as {example.defect} but has no marked damage")
        where = None
        if painted is not None:
            where = scaled_mask(images.read_mask(painted, native), size)
        whole = TrainingPicture(
            scaled.image,
            scaled.mask,
            example.product,
            example.defect,
            origin,
            example.id,
            scaled.ignored,
            where,
            photograph,
        )
        return [whole] if self.tiles is None else _cut(whole, self.tiles, int(content[:16], 16))

    def clone(self) -> TrainingSet:
        """Return a set with the same pictures and the same door, to which others can be added.

        What one of the two reads, the other need not read again: the arms of a proof share most of their pictures.
        """
        other = TrainingSet(self.shape, self.defects, self._forbidden, tiles=self.tiles)
        other._read = self._read
        other.pictures = list(self.pictures)
        return other

    def content_hash(self) -> str:
        """Return what tells these pictures from others: bit by bit, in their order, with all that is known of them."""
        hasher = hashlib.sha256(f"{self.shape} {self.defects}".encode())
        for one in self.pictures:
            hasher.update(f"\n{one.id} {one.defect} {one.origin} {one.image.shape}".encode())
            for pixels in (one.image, one.mask, one.ignored):
                hasher.update(b"none" if pixels is None else pixels.tobytes())
        return hasher.hexdigest()

    def normal(self, *origins: Origin) -> list[int]:
        """Return the places of the normal pictures, of these origins or of all."""
        return [i for i, one in enumerate(self.pictures) if one.defect is None and one.origin in (origins or _ALL)]

    def damaged(self, defect: str | None = None, *origins: Origin) -> list[int]:
        """Return the places of the damaged pictures, of one defect type or all, of these origins or of all."""
        return [
            i
            for i, one in enumerate(self.pictures)
            if one.defect is not None and defect in (None, one.defect) and one.origin in (origins or _ALL)
        ]

    def label(self, index: int) -> int:
        """Return the defect type's number, or -1 for a normal picture."""
        defect = self.pictures[index].defect
        return -1 if defect is None else self.defects.index(defect)

    def batch(self, indices: Iterable[int]) -> Batch:
        """Return these pictures for a network; `defect` is "" for normal ones."""
        chosen = [self.pictures[index] for index in indices]
        image, mask = image_tensor([one.image for one in chosen]), mask_tensor([one.mask for one in chosen])
        return Batch(image, mask, tuple(one.product for one in chosen), tuple(one.defect or "" for one in chosen))

    def batches(self, indices: Sequence[int], size: int = 16) -> Iterator[Batch]:
        """Return these pictures a few at a time."""
        for start in range(0, len(indices), size):
            yield self.batch(indices[start : start + size])

    def counted(self, indices: Iterable[int]) -> Tensor | None:
        """Return float32 (B,1,R,C): 0 where a pixel is neither damage nor normal and shall teach nothing, else 1.

        None = every pixel of these pictures counts.
        """
        ignored = [self.pictures[index].ignored for index in indices]
        if all(one is None for one in ignored):
            return None
        nothing = np.zeros(self.shape, bool)
        return 1 - mask_tensor([nothing if one is None else one for one in ignored])


_ALL: tuple[Origin, ...] = ("real", "made", "control")


def _cut(whole: TrainingPicture, tiles: Tiles, seed: int) -> list[TrainingPicture]:
    """Return the tiles of a picture that are learned from; `seed` draws those of a normal one."""
    grid = tiles.grid(whole.mask.shape)
    if whole.defect is not None or whole.painted is not None:
        chosen = grid.best_seen(whole.mask if whole.painted is None else whole.painted)
    else:
        count = min(len(grid), tiles.per_normal or len(grid))
        chosen = sorted(np.random.default_rng(seed).choice(len(grid), count, replace=False).tolist())
    cut = []
    for window in (grid.windows[number] for number in chosen):
        ignored, painted = (None if one is None else grid.seen(one, window) for one in (whole.ignored, whole.painted))
        image, mask = grid.seen(whole.image, window), grid.seen(whole.mask, window)
        name = f"{whole.id} at {window.top}, {window.left}"
        corner = window.top, window.left
        cut.append(replace(whole, image=image, mask=mask, ignored=ignored, painted=painted, id=name, corner=corner))
    return cut


class Scaled(NamedTuple):
    """A picture with its label, scaled to one shape."""

    image: np.ndarray
    """uint8 (R,C,3), RGB."""
    mask: np.ndarray
    """bool (R,C), scaled as `scaling.scaled_mask` does; all False without a mask."""
    ignored: np.ndarray | None
    """bool (R,C): what is neither damage nor normal; None = nothing is."""


def read_scaled(example: Example, shape: tuple[int, int]) -> Scaled:
    """Read a picture with its label and scale both to a shape (rows, columns).

    Raises:
        DataError: the picture or a mask cannot be read.
    """
    native = images.read(example.image)
    image = as_detectors_see(native, example.span, shape)
    if not example.masks:
        return Scaled(image, np.zeros(shape, bool), None)
    mask = scaled_mask(read_label(example, native.shape), shape)
    ignored = read_ignored(example, native.shape)
    return Scaled(image, mask, None if ignored is None else scaled_mask(ignored, shape) & ~mask)
