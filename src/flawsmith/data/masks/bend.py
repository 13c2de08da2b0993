"""A shot's picture and mask bent together by one smooth field, so that re-posed damage varies and its label stays true.

The field is a free-form deformation (Rueckert et al., IEEE TMI 1999): cubic B-splines over a lattice of random
displacements. There are two lattices, one in the scale of the damage's thickness and one between thickness and length,
so a hairline wriggles finely along its whole length and a blob changes its outline. Their spacings and amplitudes are
ours: both stretch matter by the same share, whatever the damage's size, and do not fold it up to amplitude 1.5 or so.

The field is fixed in the shot's own coordinates and reaches a little farther than the damage, so it is the same
wherever a part of it is computed. It fades to nothing, and is exactly nothing, where bending would tell a lie: at the
borders of the shot and of the picture that it is laid on, and at the outline of a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from flawsmith.data.patches.warping import LONGEST, Source
from flawsmith.data.tiling import Spot, box_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Mask = np.ndarray

_FINE = 1.25
"""Spacing of the finer lattice over the damage's thickness."""
_COARSE = 2.5
"""Spacing of the coarser lattice over the geometric mean of the damage's thickness and length."""
_LEAST = 4.0
"""Least spacing in px: what bends faster is noise."""
_STRAIN = 0.2
"""Length of a lattice's displacements over its spacing, at amplitude 1. The field's derivatives then have a standard
deviation of 0.08 per lattice."""
_FADE = 0.6
"""The field falls from full to nothing within so many spacings."""
_RIM = 4
"""Px round the damage that bend like it: blending reads them."""
_OUTLINE = 1 / 256
"""Share of a picture's longer side to which the outline of a part is known; see `parts.part_mask`."""


def touched(mask: Mask) -> tuple[tuple[bool, bool], tuple[bool, bool]]:
    """Return whether damage runs out of the picture at (left, right), (top, bottom): at two pixels of a side or more.

    Args:
        mask: bool (H,W).
    """
    left, right, top, bottom = (bool(side.sum() >= 2) for side in (mask[:, 0], mask[:, -1], mask[0], mask[-1]))
    return (left, right), (top, bottom)


@dataclass(frozen=True, slots=True)
class Bend:
    """How a shot is bent on its way to the normal's picture; a part of its pose."""

    amplitude: float
    """`generate.bend`: 1 = displacements of a fifth of each lattice's spacing."""
    seed: int
    thickness: float
    """Of the damage, in shot px."""
    box: tuple[int, int, int, int]
    """(top, left, bottom, right) of the damage in the shot, px; bottom and right are the first outside."""
    on_part: bool = False
    """Whether the shot shows a part on a backdrop, at whose outline the field fades."""

    @classmethod
    def of(cls, mask: Mask, amplitude: float, seed: int, *, thickness: float, on_part: bool = False) -> Bend | None:
        """Return how to bend a shot; None = not at all, for damage that runs through its picture is as it is.

        Args:
            mask: bool (H,W) of the shot, not empty.
            amplitude: As in `generate.bend`; None is returned for 0.
            seed: All randomness.
            thickness: Of the damage, px.
            on_part: Whether the shot shows a part on a backdrop.
        """
        if not amplitude or any(all(sides) for sides in touched(mask)):
            return None
        return cls(float(amplitude), int(seed), float(thickness), box_of(np.argwhere(mask)), on_part)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "box": list(self.box)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Bend:
        """Read what `to_json` wrote."""
        top, left, bottom, right = (int(end) for end in tree["box"])
        amplitude, seed, width = float(tree["amplitude"]), int(tree["seed"]), float(tree["thickness"])
        return cls(amplitude, seed, width, (top, left, bottom, right), bool(tree["on_part"]))

    @property
    def spacings(self) -> tuple[float, float]:
        """Of the finer and the coarser lattice, in shot px."""
        length = max(self.box[2] - self.box[0], self.box[3] - self.box[1])
        fine = max(_FINE * self.thickness, _LEAST)
        return fine, max(_COARSE * float(np.sqrt(self.thickness * length)), 2 * fine)

    @property
    def lengths(self) -> tuple[float, float]:
        """Length of each displacement of the finer and the coarser lattice, shot px; their sum bounds the field."""
        fine, coarse = (self.amplitude * _STRAIN * spacing for spacing in self.spacings)
        return fine, coarse

    def reach(self, shape: Sequence[int]) -> Spot:
        """Return the rows and columns of a shot of `shape` (H,W) outside which nothing is bent."""
        farthest = _STRAIN * sum(self.spacings) * max(self.amplitude, 1.0)
        margin = int(np.ceil(_FADE * self.spacings[1] + farthest)) + _RIM
        top, left, bottom, right = self.box
        rows = slice(max(top - margin, 0), min(bottom + margin, int(shape[0])))
        return rows, slice(max(left - margin, 0), min(right + margin, int(shape[1])))


@dataclass(frozen=True, slots=True)
class Bent:
    """Where pixels of the normal's picture come from when a shot is posed and bent; the same for picture and mask."""

    spot: Spot
    """The part of the normal's picture that the field may reach."""
    source: Spot
    """The part of the shot that it comes from."""
    at: np.ndarray
    """float32 (2,h,w): x and y in `source` for each pixel of `spot`, px."""
    inside: Mask
    """bool (h,w): whether the field reaches it; elsewhere the pose alone says where it comes from."""

    def bend(self, laid: Source, shot: Source, interpolation: int, border: int) -> None:
        """Write what is bent into what was laid without bending.

        Args:
            laid: The shot, posed: a part of the normal's picture with `spot` in it; changed.
            shot: The shot itself, with `source` in it.
            interpolation: OpenCV's; as `laid` was made.
            border: OpenCV's border mode; as `laid` was made.
        """
        source = shot.part(self.source)
        shown = cv2.remap(source, self.at[0], self.at[1], interpolation, borderMode=border, borderValue=0)
        inside = self.inside if shown.ndim == 2 else self.inside[:, :, None]
        np.copyto(laid.part(self.spot), shown, where=inside)


def bent(
    bend: Bend, matrix: np.ndarray, shot: Sequence[int], shape: Sequence[int], part: Mask | None, spot: Spot | None
) -> Bent | None:
    """Return where pixels of a posed and bent shot come from; None = the field reaches none of the wanted ones.

    What is said of a pixel does not depend on the spot.

    Args:
        bend: How it is bent.
        matrix: float64 (2,3): from shot px (x, y) to px of the normal's picture.
        shot: (H,W) of the shot.
        shape: (H',W') of the normal's picture.
        part: bool (H,W): the part in the shot; read where `bend.on_part`.
        spot: The wanted part of the normal's picture; None = where the damage lies, bent or not.

    Raises:
        ValueError: the part is needed, and was not given.
    """
    if bend.on_part and part is None:
        raise ValueError("a shot of a part is bent only where its part is known: give the part's mask")
    reach = bend.reach(shot)
    reached = _carried(reach, matrix, shape)
    if max(ends.stop - ends.start for ends in (*reach, *reached)) > LONGEST:
        return None
    if spot is None:
        farthest = int(np.ceil(sum(bend.lengths)))
        top, left, bottom, right = bend.box
        damage = slice(top - farthest, bottom + farthest), slice(left - farthest, right + farthest)
        spot = _carried(damage, matrix, shape)
    spot = _both(reached, (slice(*spot[0].indices(int(shape[0]))), slice(*spot[1].indices(int(shape[1])))))
    back = cv2.invertAffineTransform(matrix)
    needed = _both(_carried(spot, back, shot), reach)
    if any(ends.stop <= ends.start for ends in (*spot, *needed)):
        return None
    field = _field(bend, reach, needed, _room(reach, needed, matrix, shape, part if bend.on_part else None))
    x, y = np.arange(spot[1].start, spot[1].stop)[None, :], np.arange(spot[0].start, spot[0].stop)[:, None]
    at = np.stack([by_x * x + by_y * y + shift for by_x, by_y, shift in back]) - _corner(reach)
    last = np.array([ends.stop - ends.start - 1 for ends in reach[::-1]])[:, None, None]
    inside = ((at >= 0) & (at <= last)).all(axis=0)
    at = at.astype(np.float32)
    # A smaller number less a whole one is exact, so the field is read alike whatever part of it is needed.
    read = at - (_corner(needed) - _corner(reach))
    moved = cv2.remap(field, read[0], read[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    # Interpolation reads a few pixels more than lie in reach.
    source = _grown(reach[0], shot[0]), _grown(reach[1], shot[1])
    at += np.moveaxis(moved, 2, 0) + (_corner(reach) - _corner(source))
    return Bent(spot, source, at, inside)


def _corner(spot: Spot) -> np.ndarray:
    """Return x and y of a spot's first pixel, float32 (2,1,1)."""
    return np.array([spot[1].start, spot[0].start], np.float32)[:, None, None]


def _carried(spot: Spot, matrix: np.ndarray, shape: Sequence[int]) -> Spot:
    """Return the part of a picture of `shape` in which a matrix (2,3) of x, y puts part of another one, and a rim."""
    corners = np.array([[x, y, 1.0] for x in (spot[1].start, spot[1].stop) for y in (spot[0].start, spot[0].stop)])
    places = corners @ matrix.T
    low, high = np.floor(places.min(axis=0)).astype(int) - 2, np.ceil(places.max(axis=0)).astype(int) + 2
    return slice(max(low[1], 0), min(high[1], int(shape[0]))), slice(max(low[0], 0), min(high[0], int(shape[1])))


def _both(one: Spot, other: Spot) -> Spot:
    """Return the rows and columns that two parts of a picture share."""
    rows, columns = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return rows, columns


def _grown(ends: slice, size: int) -> slice:
    return slice(max(ends.start - _RIM, 0), min(ends.stop + _RIM, int(size)))


def _room(reach: Spot, needed: Spot, matrix: np.ndarray, shape: Sequence[int], part: Mask | None) -> np.ndarray:
    """Return how far each pixel of a part of a shot's reach is from all that must not move, float32 (h,w) in shot px.

    At most 0 at such places themselves, and at their neighbours where they lie between pixels.
    """
    y, x = (np.arange(ends.start, ends.stop, dtype=np.float32) for ends in needed)
    down, along = (np.minimum(at - ends.start, ends.stop - 1 - at) for at, ends in zip((y, x), reach, strict=True))
    room = np.minimum(down[:, None], along[None, :])
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    for (by_x, by_y, shift), size in zip(matrix, (shape[1], shape[0]), strict=True):
        place = np.float32(by_x) * x[None, :] + (by_y * y + shift).astype(np.float32)[:, None]
        room = np.minimum(room, np.minimum(place, int(size) - 1 - place) / np.float32(scale) - 1.5)
    if part is not None and not part[reach].all():
        depth = cv2.distanceTransform(part[reach].astype(np.uint8), cv2.DIST_L2, 5)
        rows, columns = (slice(s.start - r.start, s.stop - r.start) for s, r in zip(needed, reach, strict=True))
        room = np.minimum(room, depth[rows, columns] - np.float32(1 + _OUTLINE * max(part.shape)))
    return np.asarray(room, np.float32)


def _field(bend: Bend, reach: Spot, needed: Spot, room: np.ndarray) -> np.ndarray:
    """Return by how much each pixel of a part of a shot's reach is displaced, float32 (h,w,2) as x, y in shot px."""
    rng = np.random.default_rng((bend.seed, 35))
    field = np.zeros((*room.shape, 2), np.float32)
    for spacing, length in zip(bend.spacings, bend.lengths, strict=True):
        rows, columns = (_splines(*ends, spacing) for ends in zip(reach, needed, strict=True))
        angles = rng.uniform(0, 2 * np.pi, (rows.shape[1], columns.shape[1]))
        share = np.clip(room / np.float32(_FADE * spacing), 0, 1)
        weight = np.float32(length) * share * share * (3 - 2 * share)
        for axis, component in enumerate((np.cos(angles), np.sin(angles))):
            field[:, :, axis] += weight * (columns @ (rows @ component).T).T
    return field


def _splines(reach: slice, needed: slice, spacing: float) -> csr_array:
    """Return the cubic B-splines of a lattice over one side of a reach, sparse (needed pixels, lattice points)."""
    from scipy.interpolate import BSpline  # half of what a command that only reads records would import

    cells = int(np.ceil((reach.stop - reach.start - 1) / spacing)) + 1
    knots = spacing * np.arange(-3, cells + 4, dtype=np.float64)
    return BSpline.design_matrix(np.arange(needed.start, needed.stop, dtype=np.float64) - reach.start, knots, 3)
