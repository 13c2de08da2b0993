"""Damage as the logarithm of a ratio: what is there over what would be there were the surface whole.

Light multiplies, so a pit keeps its share of darkness on a brighter part. What would be there is smooth: outside the
mask the local mean of the surroundings, inside it a membrane spanned from them (Laplace's equation; Perez et al.,
SIGGRAPH 2003). So the ratio holds the damage *and* the grain of the camera and the surface.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from flawsmith.data.poisson import DARK, grown, poisson

Floats = np.ndarray
Mask = np.ndarray

RIM = 2
"""Pixels beyond a label that do not count as normal surroundings: labels are tight, and edges are soft."""
_SMOOTH = 4.0
"""Sigma in px of the local mean."""
_STEP = 1.0
"""Sigma in px of the mean of what a made ratio misses beyond its mask."""
_JOINED = 2.0
"""Px inside a mask over which a made ratio is joined to its surroundings."""
_MOST = 12_000
"""Pixels under a mask up to which the membrane is solved at full size; a wider one is smooth, so half the size does."""


def logs(picture: Floats) -> Floats:
    """Return the logarithm of brightness, float32 (H,W,C), of a picture in [-1,1]."""
    return np.asarray(np.log(np.clip(picture, -1, 1) + np.float32(1 + DARK)), np.float32)


def from_logs(values: Floats) -> Floats:
    """Undo `logs`, clipped to [-1,1]."""
    return np.asarray(np.clip(np.exp(values) - (1 + DARK), -1, 1), np.float32)


def undamaged(logarithms: Floats, mask: Mask) -> Floats:
    """Return what the picture would be without damage and grain, float32 (H,W,C), as a logarithm.

    Args:
        logarithms: float32 (H,W,C), see `logs`.
        mask: bool (H,W): the damage. Where nothing of the surroundings is seen, their mean stands in.
    """
    inside = grown(mask, RIM) if mask.any() else mask
    if inside.all():
        return np.broadcast_to(logarithms.mean(axis=(0, 1)), logarithms.shape).astype(np.float32)
    weight = (~inside).astype(np.float32)
    total = cv2.GaussianBlur(weight, (0, 0), _SMOOTH)[:, :, None]
    smooth = _blurred(logarithms * weight[:, :, None], _SMOOTH) / np.maximum(total, 1e-4)
    smooth = np.where(total > 1e-3, smooth, logarithms[~inside].mean(axis=0)).astype(np.float32)
    return _spanned(smooth, inside) if inside.any() else smooth


def _spanned(smooth: Floats, inside: Mask) -> Floats:
    """Return a smooth field (H,W,C) with a membrane in place of what lies inside."""
    area = int(inside.sum())
    if area <= _MOST:
        return poisson(smooth, np.zeros_like(smooth), inside)
    share = float(np.sqrt(_MOST / area))
    size = max(int(inside.shape[1] * share), 2), max(int(inside.shape[0] * share), 2)
    small = np.atleast_3d(cv2.resize(smooth, size, interpolation=cv2.INTER_AREA))
    # Only cells that lie wholly inside are unknown: at half a cell from the border the mean is still the surroundings'.
    hidden = cv2.resize(inside.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.999
    spanned = poisson(small, np.zeros_like(small), hidden)
    large = np.atleast_3d(cv2.resize(spanned, inside.shape[::-1], interpolation=cv2.INTER_CUBIC))
    return np.where(inside[:, :, None], large, smooth).astype(np.float32)


def _blurred(values: Floats, sigma: float) -> Floats:
    return np.atleast_3d(cv2.GaussianBlur(np.ascontiguousarray(values, np.float32), (0, 0), sigma))


def joined(ratio: Floats, surroundings: Floats, distance: Floats, width: float) -> Floats:
    """Return a ratio (H,W,C) under a mask that meets the surroundings without a step.

    Damage goes a little beyond its label, and so does what was made after it; but outside the mask nothing may change.
    What is missing there is taken off inside, less and less over two pixels, and over less where the damage is thinner.

    Args:
        ratio: float32 (H,W,C), made under the mask grown by `RIM`.
        surroundings: float32 (H,W,C): what is there outside of the mask.
        distance: float32 (H,W), see `signed_distance`.
        width: Usual distance of the mask's middle line from its border, px.
    """
    rim = ((distance <= 0) & (distance > -RIM)).astype(np.float32)
    total = cv2.GaussianBlur(rim, (0, 0), _STEP)[:, :, None]
    step = _blurred((ratio - surroundings) * rim[:, :, None], _STEP) / np.maximum(total, 1e-3)
    near = np.clip(1 - distance / min(_JOINED, width), 0, 1)[:, :, None]
    return np.where(distance[:, :, None] > 0, ratio - near * step, ratio).astype(np.float32)


def relative_depth(distance: Floats) -> Floats:
    """Return how deep in a label each pixel lies, float32 (H,W): 0 at its border, 1 in its middle, else below 0.

    A share of the depth of the piece that the pixel belongs to, so that the middle of a thin line counts as deep as
    that of the blob beside it.
    """
    inside = distance > 0
    if not inside.any() or inside.all():
        return np.full(distance.shape, 1.0 if inside.any() else -0.5, np.float32)
    count, piece = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
    deepest = np.maximum(ndimage.maximum(distance, piece, np.arange(count)), 1.0)
    usual = np.median(deepest[piece[inside]])  # what lies outside belongs to no piece
    return np.clip(distance / np.where(inside, deepest[piece], usual), -0.5, 1.0).astype(np.float32)


def signed_distance(mask: Mask) -> Floats:
    """Return px from the mask's border, float32 (H,W): positive inside. Damage goes on beyond the picture's edge."""
    if mask.all() or not mask.any():
        return np.full(mask.shape, 1e3 if mask.any() else -1e3, np.float32)
    inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outer = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(np.where(mask, inner - 0.5, 0.5 - outer), np.float32)
