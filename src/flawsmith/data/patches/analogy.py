"""Fill a mask with patches of other pictures, coarse to fine, so that every patch of it has a like in one of them.

Image analogies (Hertzmann et al., SIGGRAPH 2001): patches carry a guide beside their pixels, here where in the mask
they lie, and the guide leads the search. Patches, their exact nearest neighbours by matrix products, and the term that
makes every patch of the sources be used (completeness, alpha) are those of Granot et al., "Drop the GAN" (CVPR 2022);
overlapping patches vote for each pixel (Wexler et al., PAMI 2007). Ours: keys are principal components of pixels and
guide; where a mask is wide, the search ends at a bounded scale, and the finer scales follow where the patches came from;
in the end the coarse half of each pixel is voted for and its grain is copied, for voting would average grain away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

Floats = np.ndarray
Mask = np.ndarray

PATCH = 7
"""Side of a patch, px at every scale."""
_HALF = PATCH // 2
_SEARCHED = 3000
"""Pixels of a mask up to which patches are searched for; wider ones are searched at a smaller scale."""
_PAIRS = 30_000_000
"""Pairs of patches that are compared in one round."""
_KEYS = 12_000
_COARSEST = 60
"""Pixels that a mask has at the coarsest scale, at least."""
_COMPONENTS = 24
_GUIDE = 2.0
"""Weight of the guide beside the pixels; each counts by its own deviation."""
_PLACE = np.float32(0.5)
"""Weight of the place in the whole damage, beside the guide, in what a search begins with."""
_FAVOUR = 0.5
"""How much one source is preferred to another in what a search begins with, over the guide's own deviation."""
_ALPHA = 0.7
"""Completeness: the smaller, the more a patch is preferred that nothing resembles yet (Granot et al., section 3.2)."""
_ROUNDS = (5, 3, 2)
"""Rounds of search at the coarsest scale, between, and at the finest that is searched."""
_GRAIN = 1.0
"""Sigma in px below which a pixel's detail is copied and not voted for."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A picture with its guide at one scale."""

    values: Floats
    """float32 (h,w,C)."""
    guide: Floats
    """float32 (h,w,G): leads every search."""
    place: Floats
    """float32 (h,w,2): where in the whole damage a pixel lies; says only what to begin with."""
    mask: Mask
    """bool (h,w): where a patch may be taken from; of the target, where it is to be filled."""

    def at(self, scale: float, share: float) -> Layer:
        """Return it smaller; `share` of a cell's area must lie in the mask for it to count."""
        if scale == 1:
            return self
        size = max(round(self.mask.shape[1] * scale), 1), max(round(self.mask.shape[0] * scale), 1)
        cover, *planes = (
            cv2.resize(np.ascontiguousarray(plane, np.float32), size, interpolation=cv2.INTER_AREA)
            for plane in (self.mask, self.values, self.guide, self.place)
        )
        values, guide, place = (np.reshape(plane, (*cover.shape, -1)) for plane in planes)
        return Layer(values, guide, place, cover >= min(share, float(cover.max())))


def filled(target: Layer, sources: Sequence[Layer], rng: np.random.Generator) -> Floats:
    """Return the target's values, float32 (H,W,C), with those under its mask made of patches of the sources.

    Args:
        target: What to fill; its values outside the mask are the surroundings, which the patches must suit.
        sources: Pictures of as many channels; one of them at least has a pixel in its mask.
        rng: All randomness.
    """
    if not target.mask.any():
        return target.values
    scales = _scales(int(target.mask.sum()))
    filling: Floats | None = None
    origin = np.zeros(0, np.int64)
    for number, scale in enumerate(scales):
        here = target.at(scale, 0.4)
        stack = _Stack.of([source.at(scale, 0.6) for source in sources])
        rounds = _ROUNDS[0] if number == 0 else _ROUNDS[2] if number == len(scales) - 1 else _ROUNDS[1]
        filling, origin = _searched(here, stack, filling, rounds, rng)
    if scales[-1] == 1:
        return _finished(here, stack, origin)
    return _followed(target, sources, here, stack, origin)


def _scales(area: int) -> list[float]:
    """The scales at which patches are searched for, from coarse to fine."""
    scales = [min(1.0, float(np.sqrt(_SEARCHED / area)))]
    while area * scales[-1] ** 2 > 4 * _COARSEST:
        scales.append(scales[-1] / 2)
    return scales[::-1]


@dataclass(frozen=True, slots=True)
class _Stack:
    """Sources side by side in flat arrays, each with a border of half a patch, so that a patch is a set of offsets."""

    values: Floats
    """float32 (N,C)."""
    guide: Floats
    """float32 (N,G)."""
    place: Floats
    """float32 (N,2)."""
    centres: np.ndarray
    """int64 (K,): where patches may be taken."""
    width: np.ndarray
    """int64 (N,): length of a row of the source that a pixel belongs to."""
    corners: np.ndarray
    """int64 (S,): the first pixel of each source, its border included."""
    shapes: np.ndarray
    """int64 (S,2): rows and columns without borders."""

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> _Stack:
        around = ((_HALF, _HALF), (_HALF, _HALF), (0, 0))
        values, guides, places, centres, widths, corners = [], [], [], [], [], []
        start = 0
        for layer in layers:
            height, width = layer.mask.shape
            wide = width + 2 * _HALF
            corners.append(start)
            rows, columns = np.nonzero(layer.mask)
            centres.append(start + (rows + _HALF) * wide + columns + _HALF)
            values.append(np.pad(layer.values, around, mode="edge").reshape(-1, layer.values.shape[2]))
            guides.append(np.pad(layer.guide, around, mode="edge").reshape(-1, layer.guide.shape[2]))
            places.append(np.pad(layer.place, around, mode="edge").reshape(-1, layer.place.shape[2]))
            widths.append(np.full(len(values[-1]), wide))
            start += (height + 2 * _HALF) * wide
        shapes = np.array([layer.mask.shape for layer in layers])
        joined = [np.concatenate(parts) for parts in (values, guides, places, centres, widths)]
        return cls(*joined, np.array(corners), shapes)

    def patches(self, plane: Floats, centres: np.ndarray) -> Floats:
        """Return the patches of a plane (N,C) round the centres, float32 (K,PATCH*PATCH,C)."""
        rows, columns = _offsets()
        return np.asarray(plane[centres[:, None] + rows * self.width[centres][:, None] + columns])

    def places(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the source, the row and the column of pixels, int64 (K,) each."""
        source = np.searchsorted(self.corners, pixels, side="right") - 1
        row, column = np.divmod(pixels - self.corners[source], self.width[pixels])
        return source, row - _HALF, column - _HALF

    def pixels(self, source: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Undo `places`; what lies outside of a source becomes its nearest pixel."""
        row = np.clip(row, 0, self.shapes[source, 0] - 1)
        column = np.clip(column, 0, self.shapes[source, 1] - 1)
        wide = self.shapes[source, 1] + 2 * _HALF
        return np.asarray(self.corners[source] + (row + _HALF) * wide + column + _HALF)


def _offsets() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.divmod(np.arange(PATCH * PATCH), PATCH)
    return rows - _HALF, columns - _HALF


def _weights(sigma: float) -> Floats:
    """How much each pixel of a patch counts, float32 (PATCH*PATCH,): less towards its border."""
    rows, columns = _offsets()
    return np.exp(-(rows**2 + columns**2) / (2 * sigma**2)).astype(np.float32)


class _Keys:
    """Patches as short vectors: principal components of their pixels and of their guide."""

    def __init__(self, stack: _Stack, centres: np.ndarray) -> None:
        self.centres = centres
        self._root = np.sqrt(_weights(2.0))[None, :, None]
        pixels = self._flat(stack.patches(stack.values, centres))
        guide = self._flat(stack.patches(stack.guide, centres))
        self._pixels, self._guide = _principal(pixels, 1.0), _principal(guide, _GUIDE)
        self.pixels, self.guide = pixels @ self._pixels, guide @ self._guide

    def of_pixels(self, patches: Floats) -> Floats:
        """Return patches (Q,PATCH*PATCH,C) as vectors."""
        return np.asarray(self._flat(patches) @ self._pixels)

    def of_guide(self, patches: Floats) -> Floats:
        """Return a guide's patches (Q,PATCH*PATCH,G) as vectors."""
        return np.asarray(self._flat(patches) @ self._guide)

    def _flat(self, patches: Floats) -> Floats:
        return np.reshape(patches * self._root, (len(patches), -1)).astype(np.float32)


def _principal(patches: Floats, weight: float) -> Floats:
    """Return the first principal directions of patches (K,D) as columns (D,d), so scaled that these deviate by
    `weight` in all."""
    apart = patches - patches.mean(axis=0)
    covariance = (apart.T @ apart).astype(np.float64) / len(patches)
    strengths, directions = np.linalg.eigh(covariance)
    kept = directions[:, ::-1][:, :_COMPONENTS]
    total = float(np.sqrt(max(strengths.sum(), 1e-12)))
    return np.asarray(kept * (weight / total), np.float32)


def _searched(
    here: Layer, stack: _Stack, filling: Floats | None, rounds: int, rng: np.random.Generator
) -> tuple[Floats, np.ndarray]:
    """Fill the mask at one scale, from what the coarser one was filled with; return the values (h,w,C), and of each
    pixel under the mask the pixel of the stack that it comes from, int64 (Q,)."""
    asked = np.flatnonzero(here.mask)
    most = int(np.clip(_PAIRS // len(asked), 2000, _KEYS))
    centres = stack.centres
    if len(centres) > most:
        centres = np.sort(rng.choice(centres, most, replace=False))
    keys = _Keys(stack, centres)
    guide = keys.of_guide(_patches_of(here.guide, asked))
    if filling is None:
        # Nothing is there yet: the guide decides, and where in the damage a pixel lies; chance says which source leads.
        favour = rng.random(len(stack.corners)).astype(np.float32) * np.float32(_FAVOUR * _GUIDE**2)
        wanted = np.concatenate([guide, _PLACE * here.place.reshape(-1, 2)[asked]], axis=1)
        offered = np.concatenate([keys.guide, _PLACE * stack.place[centres]], axis=1)
        nearest = _nearest(wanted, offered, noise=favour[stack.places(centres)[0]])
        values = _voted(here, stack, centres[nearest])
    else:
        size = here.mask.shape[::-1]
        larger = cv2.resize(filling, size, interpolation=cv2.INTER_LINEAR).reshape(here.values.shape)
        values = np.where(here.mask[:, :, None], larger, here.values)
    origin = np.zeros(0, np.int64)
    for _ in range(rounds):
        wanted = np.concatenate([keys.of_pixels(_patches_of(values, asked)), guide], axis=1)
        nearest = _nearest(wanted, np.concatenate([keys.pixels, keys.guide], axis=1), alpha=_ALPHA)
        origin = centres[nearest]
        values = _voted(here, stack, origin)
    return values, origin


def _patches_of(plane: Floats, pixels: np.ndarray) -> Floats:
    """Return the patches of a plane (h,w,C) round flat pixels (Q,), float32 (Q,PATCH*PATCH,C)."""
    around = np.pad(plane, ((_HALF, _HALF), (_HALF, _HALF), (0, 0)), mode="edge")
    row, column = np.divmod(pixels, plane.shape[1])
    rows, columns = _offsets()
    return np.asarray(around[row[:, None] + _HALF + rows, column[:, None] + _HALF + columns])


def _nearest(wanted: Floats, keys: Floats, *, alpha: float = 0.0, noise: Floats | None = None) -> np.ndarray:
    """Return the number of the nearest key of each wanted vector, int64 (Q,): every pair is compared.

    Args:
        wanted: float32 (Q,D).
        keys: float32 (K,D).
        alpha: Above 0: distances count against how near the best wanted vector comes to that key.
        noise: float32 (K,): added to the squared distance of each key.
    """
    apart = wanted @ keys.T
    apart *= -2
    apart += np.einsum("kd,kd->k", keys, keys)[None]
    apart += np.einsum("qd,qd->q", wanted, wanted)[:, None]
    if noise is not None:
        apart += noise[None]
    if alpha:
        np.maximum(apart, 0, out=apart)
        usual = max(float(np.median(apart.min(axis=1))), 1e-6)
        # Bounded: what resembles nothing because it belongs at another depth must not win by that.
        apart /= (alpha + np.minimum(apart.min(axis=0) / usual, 1))[None]
    return np.asarray(apart.argmin(axis=1))


def _voted(here: Layer, stack: _Stack, origin: np.ndarray, sigma: float = 2.0) -> Floats:
    """Return the values (h,w,C) with each pixel under the mask the weighted mean of the patches that cover it."""
    height, width, channels = here.values.shape
    row, column = np.nonzero(here.mask)
    total = np.zeros((height + 2 * _HALF, width + 2 * _HALF, channels), np.float32)
    weight = np.zeros((height + 2 * _HALF, width + 2 * _HALF), np.float32)
    for down, across, share in zip(*_offsets(), _weights(sigma), strict=True):
        if share < 1e-3:
            continue
        at = row + _HALF + down, column + _HALF + across
        total[at] += share * stack.values[origin + down * stack.width[origin] + across]
        weight[at] += share
    inner = slice(_HALF, _HALF + height), slice(_HALF, _HALF + width)
    voted = total[inner] / np.maximum(weight[inner], 1e-6)[:, :, None]
    return np.where(here.mask[:, :, None], voted, here.values).astype(np.float32)


def _finished(here: Layer, stack: _Stack, origin: np.ndarray) -> Floats:
    """Return the values (h,w,C) with the coarse half of each pixel voted for and its grain copied from its origin."""
    voted = _voted(here, stack, origin)
    copied = here.values.copy()
    copied[here.mask] = stack.values[origin]
    both = cv2.GaussianBlur(np.ascontiguousarray(copied - voted), (0, 0), _GRAIN).reshape(copied.shape)
    return np.where(here.mask[:, :, None], copied - both, here.values).astype(np.float32)


def _followed(
    target: Layer, sources: Sequence[Layer], coarse: Layer, stack: _Stack, origin: np.ndarray
) -> Floats:
    """Fill the mask at full scale with what lies where the coarse patches came from."""
    full = _Stack.of(sources)
    scale = np.array(coarse.mask.shape) / np.array(target.mask.shape)
    # The nearest filled cell of each pixel: at the mask's border it need not be the one that it lies in.
    number = np.full(coarse.mask.shape, -1, np.int64)
    number[coarse.mask] = np.arange(len(origin))
    near = ndimage.distance_transform_edt(~coarse.mask, return_distances=False, return_indices=True)
    row, column = np.nonzero(target.mask)
    cell_row = np.minimum(((row + 0.5) * scale[0]).astype(int), coarse.mask.shape[0] - 1)
    cell_column = np.minimum(((column + 0.5) * scale[1]).astype(int), coarse.mask.shape[1] - 1)
    cell_row, cell_column = near[:, cell_row, cell_column]
    source, from_row, from_column = stack.places(origin[number[cell_row, cell_column]])
    sizes = full.shapes[source] / stack.shapes[source]
    # A pixel lies as far from the middle of its cell as its origin does from the middle of the origin's cell.
    from_row = (from_row + 0.5) * sizes[:, 0] + row - (cell_row + 0.5) / scale[0]
    from_column = (from_column + 0.5) * sizes[:, 1] + column - (cell_column + 0.5) / scale[1]
    fine = full.pixels(source, np.rint(from_row).astype(np.int64), np.rint(from_column).astype(np.int64))
    return _finished(target, full, fine)
