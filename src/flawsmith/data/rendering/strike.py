"""The factory's damage in somebody's photograph: struck into flat matter of its colours, lit, and laid on as a change.

The photograph's pixels are the albedo of flat matter; the factory strikes it and lights it before and after
(`data.factory`). What the light changes is a ratio per pixel, so the photograph keeps its own texture and shading
beneath the damage. The change is blurred as the photograph is, and where damage hides the grain it gets grain again.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from flawsmith.data.factory.catalogue import EXTENT, STRIKES
from flawsmith.data.factory.hit import Hit
from flawsmith.data.factory.light import lamp, shade
from flawsmith.data.factory.matter import Matter
from flawsmith.data.images import is_grey
from flawsmith.data.rendering.observed import Lighting, grain_from, grain_of
from flawsmith.data.rendering.sites import axes_of
from flawsmith.data.windows import feathered

Floats = np.ndarray
Mask = np.ndarray

KINDS = tuple(name for name in STRIKES if name not in ("bend", "solder"))
"""What can be drawn on any matter: a bend moves a whole part, solder belongs on boards."""
LONG = frozenset({"scratch", "crack", "cut", "fold", "burr"})
"""Drawn along a line; the others fill their site."""
_GAMMA = 2.2
_DARK = 0.004
"""Linear brightness below which nothing reflects: a ratio of less would be another colour."""
_USUAL_ALBEDO = 0.35
_MARGIN = 24
"""Px round a site that light and blur need."""
_SEEN = 0.03
"""Least change, of 2, that belongs to the mask; or 1.5 deviations of the grain, where that is more."""
_SOFT = 3.0
"""Px over which a change fades in from the border of its site."""
_CRUMB, _HOLE = 4, 12
"""Px: less is no part of a damage, and no hole in it; nor is a hole of less than a fifth of it."""
_UNIT = (0.45, 6.0)
"""Least and greatest px to the factory's unit of length."""


def struck(
    normal: Floats,
    site: Mask,
    kind: str,
    rng: np.random.Generator,
    *,
    power: float,
    metal: float,
    contrast: float,
    lighting: Lighting,
    blur: float,
) -> tuple[Floats, Mask]:
    """Return a photograph with damage in a site, and the damage's mask.

    Args:
        normal: float32 (h,w,3) in [-1,1].
        site: bool (h,w), not empty: where damage may lie; its length and direction are the damage's.
        kind: One of `KINDS`.
        rng: Decides the shape.
        power: Severity, about 0.3 to 1: depth, width and how much is bared.
        metal: How metallic the matter is, 0 to 1.
        contrast: Factor on the finished change.
        lighting: Where light comes from.
        blur: Sigma in px by which the change is blurred.

    Returns:
        float32 (h,w,3), equal to `normal` outside the mask, and bool (h,w) inside `site`.
    """
    x, y, long, narrow, angle = axes_of(site)
    half = long if kind in LONG else 0.85 * math.sqrt(long * max(narrow, 0.4 * long))
    side = 2 * math.ceil(1.3 * long + _MARGIN) + 1
    top, left = round(y) - side // 2, round(x) - side // 2
    ground = _cut(normal, top, left, side)
    linear = ((ground + 1) / 2) ** _GAMMA
    matter = _flat(linear * _exposure(linear), metal, rng)
    scale = float(np.clip(half / math.sqrt(math.prod(EXTENT[kind])), *_UNIT)) * math.exp(rng.normal(0, 0.2))
    hit = Hit(side, scale, rng, x - left, y - top, max(half, 3.0), angle + math.pi * float(rng.integers(2)), power)
    light, everywhere = lamp(lighting.azimuth, lighting.hardness), (slice(0, side), slice(0, side))
    before = shade(matter, light, everywhere, side)
    STRIKES[kind](matter, hit)
    after = shade(matter, light, everywhere, side)
    ratio = (np.maximum(after, 0) + _DARK) / (before + _DARK)
    if is_grey(ground):
        ratio = np.repeat(ratio.mean(axis=2, keepdims=True), 3, axis=2)
    change = 2 * np.clip(np.maximum(linear, _DARK) * ratio, 0, 1) ** (1 / _GAMMA) - 1 - ground
    # What lies below the dark level is not lifted by a ratio of 1.
    change = np.where(np.abs(ratio - 1) < 1e-3, 0, change).astype(np.float32)
    if blur > 0:
        change = cv2.GaussianBlur(change, (0, 0), blur)
    inside = _cut(site.astype(np.uint8), top, left, side, beyond=0) > 0
    change *= np.float32(contrast) * feathered(inside, _SOFT)[:, :, None]
    mask = inside & _whole(np.abs(change).max(axis=2) > max(_SEEN, 1.5 * grain_of(normal)))
    made = ground + change + _grain_again(ground, ratio, rng)
    if is_grey(ground):  # powers of equal channels differ in the last bit
        made = np.repeat(made[:, :, :1], 3, axis=2)
    picture, whole = normal.copy(), np.zeros_like(site)
    spot, part = _overlap(normal.shape, top, left, side)
    whole[spot] = mask[part]
    picture[spot][mask[part]] = np.clip(made, -1, 1)[part][mask[part]]
    return picture, whole


def _exposure(linear: Floats) -> float:
    """Return by what a photograph's linear colours (n,n,3) are multiplied to be guessed as albedo.

    A dark picture shows dark matter in bright light or bright matter in little: half of each is taken, or paint and
    rust, whose colours are absolute, would glow in dark photographs.
    """
    middle, brightest = np.maximum(np.quantile(linear.mean(axis=2), (0.5, 0.99)), _DARK)
    return float(min(math.sqrt(_USUAL_ALBEDO / middle), max(0.9 / brightest, 1.0)))


def _flat(albedo: Floats, metal: float, rng: np.random.Generator) -> Matter:
    """Return flat matter of these colours, linear RGB float32 (n,n,3)."""
    n = len(albedo)
    middle = np.median(albedo[n // 4 : -n // 4, n // 4 : -n // 4].reshape(-1, 3), axis=0)
    # Beneath the skin metal is brighter, other matter lighter or darker.
    gain = rng.uniform(1.3, 2.4) if rng.random() < 0.3 + 0.6 * metal else rng.uniform(0.4, 0.8)
    inner = np.clip(middle * gain + (0.04 if gain > 1 else 0), 0.01, 0.9)
    return Matter(
        height=np.zeros((n, n), np.float32),
        albedo=np.maximum(albedo, _DARK).astype(np.float32),
        rough=np.full((n, n), 0.45, np.float32),
        metal=np.full((n, n), metal, np.float32),
        inner=(float(inner[0]), float(inner[1]), float(inner[2])),
    )


def _whole(seen: Mask) -> Mask:
    """Return what is seen of a damage without its crumbs: gaps of 2 px and small holes are closed, lone pixels go."""
    closed = cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    for value in (1, 0):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            (closed == value).astype(np.uint8), connectivity=8 if value else 4
        )
        small = stats[:, cv2.CC_STAT_AREA] < (_CRUMB if value else max(_HOLE, 0.2 * closed.sum()))
        small[0] = False
        closed[small[labels]] = 1 - value
    return closed > 0


def _grain_again(ground: Floats, ratio: Floats, rng: np.random.Generator) -> Floats:
    """Return the grain that darkened pixels lack, float32 (n,n,3): the photograph's own, from elsewhere."""
    n = len(ground)
    shift = rng.integers(n // 4, max(n - n // 4, n // 4 + 1), 2)
    grain = np.roll(grain_from(ground), shift, axis=(0, 1))
    left = np.minimum(ratio.mean(axis=2, keepdims=True), 1) ** (1 / _GAMMA)
    return np.asarray(grain * np.sqrt(1 - left**2), np.float32)


def _cut(picture: Floats, top: int, left: int, side: int, beyond: int | None = None) -> Floats:
    """Return a square of a picture; what lies beyond the picture is mirrored, or of one value."""
    rows, columns = np.arange(top, top + side), np.arange(left, left + side)
    square = picture[_mirrored(rows, picture.shape[0])][:, _mirrored(columns, picture.shape[1])]
    if beyond is not None:
        square[(rows < 0) | (rows >= picture.shape[0])] = beyond
        square[:, (columns < 0) | (columns >= picture.shape[1])] = beyond
    return np.ascontiguousarray(square)


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    index = np.mod(index, 2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def _overlap(shape: tuple[int, ...], top: int, left: int, side: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a square lies in a picture of a shape, and that part of the square."""
    rows, columns = (
        slice(max(start, 0), min(start + side, end)) for start, end in zip((top, left), shape, strict=False)
    )
    return (rows, columns), (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
