"""Fill a mask with patches of other pictures, coarse to fine, so that every patch of it has a like in one of them.

Image analogies (Hertzmann et al., SIGGRAPH 2001): patches carry a guide beside their pixels, here where in the mask
they lie, and the guide leads the search. Patches, their exact nearest neighbours by matrix products, and the term that
makes every patch of the sources be used (completeness, alpha) are those of Granot et al., "Drop the GAN" (CVPR 2022);
overlapping patches vote for each pixel (Wexler et al., PAMI 2007). Ours: keys are principal components of pixels and
guide; where a mask is wide, the search ends at a bounded scale, and full scale follows where the patches came from; in
the end what is coarse is voted for by whole patches and details by their middles; grain, which votes would average
away, is parted before and laid on top in whole pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from scipy import ndimage

from flawsmith.data.patches.grain import PIECE
from flawsmith.data.patches.layers import HALF, Layer, Stack, offsets, patches_of, weights_of
from flawsmith.data.patches.search import GUIDE, Keys, coherent, nearest_of

Floats = np.ndarray
Mask = np.ndarray

_SEARCHED = 3000
"""Pixels of a mask up to which patches are searched for; wider ones are searched at a smaller scale."""
_PAIRS = 30_000_000
"""Pairs of patches that are compared in one round."""
_KEYS = 12_000
_WORTH = 8_000
"""Pixels of one source, at most, from which patches are taken at one scale."""
_COARSEST = 60
"""Pixels that a mask has at the coarsest scale, at least."""
_POSITION = np.float32(0.5)
"""Weight of the place in the whole damage, beside the guide, in what a search begins with."""
_FAVOUR = 0.5
"""How much one source is preferred to another in what a search begins with, over the guide's own deviation."""
_ALPHA = 0.7
"""Completeness: the smaller, the more a patch is preferred that nothing resembles yet (Granot et al., section 3.2)."""
_LIKE = 0.06
"""Difference, as the logarithm of a ratio, at which a patch is hardly exchanged for another one."""
_ROUNDS = (5, 3, 2)
"""Rounds of search at the coarsest scale, between, and at the finest that is searched."""
_DETAIL = 1.0
"""Sigma in px of what is coarse, and voted for by whole patches; details are voted for by their middles."""
_WIDE, _NARROW = 2.0, 0.7
"""Sigma in px of the weights of such votes."""


def filled(target: Layer, sources: Sequence[Layer], rng: np.random.Generator) -> Floats:
    """Return the target's values with its grain, float32 (H,W,C), those under its mask made of patches of the sources.

    Args:
        target: What to fill; its values outside the mask are the surroundings, which the patches must suit.
        sources: Pictures of as many channels; one of them at least has a pixel in its mask.
        rng: All randomness.
    """
    if not target.mask.any():
        return np.asarray(target.values + target.grain)
    scales = _scales(int(target.mask.sum()))
    filling: Floats | None = None
    origin = np.zeros(0, np.int64)
    for number, scale in enumerate(scales):
        here = target.at(scale, 0.4)
        stack = Stack.of([_bounded(source.at(scale, 0.6), rng) for source in sources])
        rounds = _ROUNDS[0] if number == 0 else _ROUNDS[2] if number == len(scales) - 1 else _ROUNDS[1]
        filling, origin = _searched(here, stack, filling, rounds, rng)
    if scales[-1] == 1:
        return _finished(here, stack, origin)
    return _followed(target, sources, here, stack, origin)


def retextured(target: Layer, sources: Sequence[Layer], rng: np.random.Generator) -> Floats:
    """Return the target's values with its grain, float32 (H,W,C), under its mask exchanged for the nearest patches.

    Only where these come close: what no source has a like of stays. So structure is kept, and texture changes.
    """
    whole = target.values + target.grain
    if not target.mask.any() or target.mask.sum() > 4 * _SEARCHED:
        return whole
    stack = Stack.of([_bounded(source, rng) for source in sources])
    exchanged = _finished(target, stack, _searched(target, stack, target.values, 1, rng)[1])
    apart = cv2.GaussianBlur(np.sqrt(((exchanged - whole) ** 2).mean(axis=2)), (0, 0), 2.0)
    likeness = np.exp(-((apart / _LIKE) ** 2)).astype(np.float32)[:, :, None]
    return np.asarray(whole + likeness * (exchanged - whole), np.float32)


def _scales(area: int) -> list[float]:
    """The scales at which patches are searched for, from coarse to fine."""
    scales = [min(1.0, float(np.sqrt(_SEARCHED / area)))]
    while area * scales[-1] ** 2 > 4 * _COARSEST:
        scales.append(scales[-1] / 2)
    return scales[::-1]


def _bounded(source: Layer, rng: np.random.Generator) -> Layer:
    """Return a source of no more pixels than are worth comparing: of a wide one a square on the damage's border."""
    if source.mask.sum() <= _WORTH:
        return source
    border = source.mask & (np.abs(source.guide[:, :, 0]) < 0.9)
    pixels = np.argwhere(border if border.any() else source.mask)
    low = np.maximum(pixels[int(rng.integers(len(pixels)))] - int(np.sqrt(_WORTH)) // 2, 0)
    high = low + int(np.sqrt(_WORTH))
    kept = np.zeros_like(source.mask)
    square = slice(low[0], high[0]), slice(low[1], high[1])
    kept[square] = source.mask[square]
    return replace(source, mask=kept)


def _searched(
    here: Layer, stack: Stack, filling: Floats | None, rounds: int, rng: np.random.Generator
) -> tuple[Floats, np.ndarray]:
    """Fill the mask at one scale, from what the coarser one was filled with; return the values (h,w,C), and of each
    pixel under the mask the pixel of the stack that it comes from, int64 (Q,)."""
    asked = np.flatnonzero(here.mask)
    most = int(np.clip(_PAIRS // len(asked), 2000, _KEYS))
    compared = np.arange(len(stack.centres))
    if len(compared) > most:
        compared = np.sort(rng.choice(compared, most, replace=False))
    centres = stack.centres[compared]
    keys = Keys(stack)
    vectors = np.concatenate([keys.pixels, keys.guide], axis=1)
    guide = keys.of_guide(patches_of(here.guide, asked))
    if filling is None:
        # Nothing is there yet: the guide decides, and where in the damage a pixel lies; chance says which source leads.
        favour = rng.random(len(stack.corners)).astype(np.float32) * np.float32(_FAVOUR * GUIDE**2)
        wanted = np.concatenate([guide, _POSITION * here.position.reshape(-1, 2)[asked]], axis=1)
        offered = np.concatenate([keys.guide[compared], _POSITION * stack.position[centres]], axis=1)
        nearest = nearest_of(wanted, offered, noise=favour[stack.locate(centres)[0]])
        values = _voted(here, stack, centres[nearest], _WIDE)
    else:
        size = here.mask.shape[::-1]
        larger = cv2.resize(filling, size, interpolation=cv2.INTER_LINEAR).reshape(here.values.shape)
        values = np.where(here.mask[:, :, None], larger, here.values)
    origin = np.zeros(0, np.int64)
    for _ in range(rounds):
        wanted = np.concatenate([keys.of_pixels(patches_of(values, asked)), guide], axis=1)
        nearest = compared[nearest_of(wanted, vectors[compared], alpha=_ALPHA)]
        origin = stack.centres[coherent(wanted, vectors, nearest, here.mask, stack)]
        values = _voted(here, stack, origin, _WIDE)
    return values, origin


def _voted(here: Layer, stack: Stack, origin: np.ndarray, sigma: float) -> Floats:
    """Return the values (h,w,C) with each pixel under the mask the weighted mean of the patches that cover it."""
    height, width, channels = here.values.shape
    row, column = np.nonzero(here.mask)
    total = np.zeros((height + 2 * HALF, width + 2 * HALF, channels), np.float32)
    weight = np.zeros((height + 2 * HALF, width + 2 * HALF), np.float32)
    for down, across, share in zip(*offsets(), weights_of(sigma), strict=True):
        if share < 1e-3:
            continue
        at = row + HALF + down, column + HALF + across
        total[at] += share * stack.values[origin + down * stack.width[origin] + across]
        weight[at] += share
    inner = slice(HALF, HALF + height), slice(HALF, HALF + width)
    voted = total[inner] / np.maximum(weight[inner], 1e-6)[:, :, None]
    return np.where(here.mask[:, :, None], voted, here.values).astype(np.float32)


def _finished(here: Layer, stack: Stack, origin: np.ndarray) -> Floats:
    """Return values with grain (h,w,C): what is coarse voted for by whole patches, details by their middles."""
    wide, narrow = _voted(here, stack, origin, _WIDE), _voted(here, stack, origin, _NARROW)
    coarse = cv2.GaussianBlur(np.ascontiguousarray(narrow - wide), (0, 0), _DETAIL).reshape(narrow.shape)
    grain = here.grain.copy()
    grain[here.mask] = _grain(here, stack, origin)
    return np.where(here.mask[:, :, None], narrow - coarse, here.values) + grain


def _grain(here: Layer, stack: Stack, origin: np.ndarray) -> Floats:
    """Return the grain of the pixels under the mask, float32 (Q,C): whole pieces from where their middles come from.

    Votes would average grain away, and single pixels side by side would agree less than those of a photograph do.
    """
    row, column = np.nonzero(here.mask)
    piece = row // PIECE * here.mask.shape[1] + column // PIECE
    off_middle = (row % PIECE - PIECE // 2) ** 2 + (column % PIECE - PIECE // 2) ** 2
    order = np.lexsort((off_middle, piece))
    _, first, member = np.unique(piece[order], return_index=True, return_inverse=True)
    middle = np.empty(len(row), np.int64)
    middle[order] = order[first][member]
    source, from_row, from_column = stack.locate(origin[middle])
    laid = stack.pixels(source, from_row + row - row[middle], from_column + column - column[middle])
    # Damage may have other grain than its surroundings, so a piece gives none across the border of its label.
    inside = here.guide[here.mask][:, 0] > 0
    return stack.grain[np.where((stack.guide[laid, 0] > 0) == inside, laid, origin)]


def _followed(target: Layer, sources: Sequence[Layer], coarse: Layer, stack: Stack, origin: np.ndarray) -> Floats:
    """Fill the mask at full scale with what lies where the coarse patches came from."""
    full = Stack.of(sources)
    scale = np.array(coarse.mask.shape) / np.array(target.mask.shape)
    # The nearest filled cell of each pixel: at the mask's border it need not be the one that it lies in.
    number = np.full(coarse.mask.shape, -1, np.int64)
    number[coarse.mask] = np.arange(len(origin))
    near = ndimage.distance_transform_edt(~coarse.mask, return_distances=False, return_indices=True)
    row, column = np.nonzero(target.mask)
    cell_row = np.minimum(((row + 0.5) * scale[0]).astype(int), coarse.mask.shape[0] - 1)
    cell_column = np.minimum(((column + 0.5) * scale[1]).astype(int), coarse.mask.shape[1] - 1)
    cell_row, cell_column = near[:, cell_row, cell_column]
    source, from_row, from_column = stack.locate(origin[number[cell_row, cell_column]])
    sizes = full.shapes[source] / stack.shapes[source]
    # A pixel lies as far from the middle of its cell as its origin does from the middle of the origin's cell.
    from_row = (from_row + 0.5) * sizes[:, 0] + row - (cell_row + 0.5) / scale[0]
    from_column = (from_column + 0.5) * sizes[:, 1] + column - (cell_column + 0.5) / scale[1]
    fine = full.pixels(source, np.rint(from_row).astype(np.int64), np.rint(from_column).astype(np.int64))
    return _finished(target, full, fine)
