"""The nearest patches: keys of few numbers, every pair compared by matrix products, and whole pieces preferred."""

from __future__ import annotations

import numpy as np

from flawsmith.data.patches.layers import Stack, weights_of

Floats = np.ndarray
Mask = np.ndarray

_COMPONENTS = 24
GUIDE = 2.0
"""Weight of the guide beside the pixels; each counts by its own deviation."""
_KAPPA = 1.0
"""Coherence: how much farther a patch may be per neighbour that it continues."""
_SWEEPS = 3
_PAIRS = 1_000_000
"""Pairs of vectors whose distances are held at once: as many as a processor keeps near, for all passes over them."""


class Keys:
    """All patches of a stack as short vectors: principal components of their pixels and of their guide."""

    def __init__(self, stack: Stack) -> None:
        centres = stack.centres
        self._root = np.sqrt(weights_of(2.0))[None, :, None]
        pixels = self._flat(stack.patches(stack.values, centres))
        guide = self._flat(stack.patches(stack.guide, centres))
        self._pixels, self._guide = _principal(pixels, 1.0), _principal(guide, GUIDE)
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


def nearest_of(wanted: Floats, keys: Floats, *, alpha: float = 0.0, noise: Floats | None = None) -> np.ndarray:
    """Return the number of the nearest key of each wanted vector, int64 (Q,): every pair is compared.

    Args:
        wanted: float32 (Q,D).
        keys: float32 (K,D).
        alpha: Above 0: distances count against how near the best wanted vector comes to that key.
        noise: float32 (K,): added to the squared distance of each key.
    """
    lengths = np.einsum("kd,kd->k", keys, keys) + (0 if noise is None else noise)
    # One product gives the squared distance of each pair: -2 <q,k> + |q|^2 + |k|^2.
    ones = np.ones((len(wanted), 1), np.float32), np.ones((len(keys), 1), np.float32)
    asked = np.hstack([-2 * wanted, np.einsum("qd,qd->q", wanted, wanted)[:, None], ones[0]])
    offered = np.ascontiguousarray(np.hstack([keys, ones[1], lengths[:, None]], dtype=np.float32).T)
    at_once = max(_PAIRS // max(len(keys), 1), 1)
    blocks = [asked[row : row + at_once] for row in range(0, len(asked), at_once)]
    apart = np.empty((min(at_once, len(asked)), len(keys)), np.float32)
    if not alpha:
        return np.concatenate([np.matmul(block, offered, out=apart[: len(block)]).argmin(axis=1) for block in blocks])
    # Every distance counts against the least of its key, so the blocks are compared twice instead of being kept.
    best = np.full(len(keys), np.inf, np.float32)
    least = []
    for block in blocks:
        part = np.matmul(block, offered, out=apart[: len(block)])
        np.minimum(best, part.min(axis=0), out=best)
        least.append(part.min(axis=1))
    usual = max(float(np.median(np.concatenate(least))), 1e-6)
    # Bounded: what resembles nothing because it belongs at another depth must not win by that.
    share = 1 / (np.float32(alpha) + np.minimum(np.maximum(best, 0) / np.float32(usual), 1))
    nearest = []
    for block in blocks:
        part = np.matmul(block, offered, out=apart[: len(block)])
        np.maximum(part, 0, out=part)
        part *= share
        nearest.append(part.argmin(axis=1))
    return np.concatenate(nearest)


def coherent(wanted: Floats, vectors: Floats, nearest: np.ndarray, mask: Mask, stack: Stack) -> np.ndarray:
    """Return the patch of each pixel, int64 (Q,): its nearest, or one that goes on where a neighbour's comes from.

    Hertzmann et al., section 3.1 (after Ashikhmin, 2001): what continues a neighbour's patch may be somewhat farther,
    for then pieces of a source stay whole. Here it may be the farther, the more neighbours it continues.
    """
    number = np.full((mask.shape[0] + 2, mask.shape[1] + 2), -1, np.int64)
    row, column = np.nonzero(mask)
    number[row + 1, column + 1] = np.arange(len(row))
    patch_at = np.full(len(stack.values), -1, np.int64)
    patch_at[stack.centres] = np.arange(len(stack.centres))
    around = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if down or across]
    for _ in range(_SWEEPS):
        origin = stack.centres[nearest]
        offers = [nearest]
        for down, across in around:
            neighbour = number[row + 1 + down, column + 1 + across]
            known = origin[neighbour]
            offers.append(np.where(neighbour >= 0, patch_at[known - down * stack.width[known] - across], -1))
        offered = np.stack(offers)
        agreeing = np.stack([(offered[1:] == offer).sum(axis=0) for offer in offers])
        apart = np.stack([((vectors[offer] - wanted) ** 2).sum(axis=1) for offer in offers])
        apart = np.where(offered < 0, np.inf, (apart + 1e-6) / (1 + _KAPPA * agreeing))
        nearest = np.take_along_axis(offered, apart.argmin(axis=0)[None], axis=0)[0]
    return nearest
