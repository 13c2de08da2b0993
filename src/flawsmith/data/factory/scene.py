"""The piece: matter built, struck, lit and photographed twice with one camera, normal and damaged."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from flawsmith.data.factory.camera import Camera, camera, expose, project, tone, windowed
from flawsmith.data.factory.catalogue import EXTENT, MAKERS, STRIKES, SURFACES, check, defects_of
from flawsmith.data.factory.hit import Hit, aim
from flawsmith.data.factory.light import Light, lamps, lay, shade
from flawsmith.data.factory.matter import Frame, Matter
from flawsmith.data.factory.noise import Field
from flawsmith.data.factory.words import caption, describe

VISIBLE = 4.0
"""Grey levels (of 255) by which a pixel must differ, before noise, to belong to the mask."""
_CLEAR = 17.0
_SHOWN = 0.35
"""Least share of the struck place that must be seen."""
_LARGEST = 0.33
"""Share of the picture that a mask may cover."""
_AT_EDGE = {"chip": 1.0, "burr": 0.85, "crack": 0.3, "fray": 0.3}

_OF_WIDTH = {
    "chip": 0.75, "burr": 0.8, "dent": 0.6, "hole": 0.5, "scratch": 2.2, "crack": 1.2, "bend": 9.0, "fray": 0.8,
    "contamination": 0.9,
}  # fmt: skip
"""Largest extent of a defect on a part, in widths of the part."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One photographed piece and all that is known of it."""

    image: np.ndarray
    """uint8 (size,size,3) RGB, or (size,size) when grey."""
    mask: np.ndarray
    """bool (size,size): where the defect changed the picture, before noise; all False for a normal piece."""
    part: np.ndarray
    """bool (size,size): where the part lies; all True for a surface."""
    normal: np.ndarray
    """uint8, shape of `image`: the same piece, light and noise without the defect; equal to `image` outside `mask`."""
    surface: str
    defect: str | None
    caption: str
    """One English phrase."""
    facts: dict[str, Any]
    """kind, place, size, severity in words; x, y, extent as shares of the side; share, power, zoom, grey."""


def make(
    surface: str,
    defect: str | None,
    *,
    seed: int,
    size: int = 256,
    grey: bool = False,
    line: int | None = None,
    zoom: float | None = None,
) -> Piece:
    """Make one piece of a surface (see SURFACES), with a defect or without (None); equal seeds, equal bytes.

    `line` names a production line: its pieces share material, colours, scale, light and camera, and `seed` makes only
    the natural differences from piece to piece; without it, `seed` decides the look too. `zoom` (default: drawn from
    the look) is the scale of the texture. DataError for unknown names, a defect type that makes no sense, or size < 32.
    """
    check(surface, defect, size)
    tag = zlib.crc32(surface.encode())
    look = np.random.default_rng([tag, 0, abs(seed if line is None else line), int(line is not None)])
    own = np.random.default_rng([tag, 1, abs(seed), int(seed < 0)])
    drawn = float(np.exp(look.uniform(math.log(0.75), math.log(1.5))))
    scale = drawn if zoom is None else zoom
    frame = Frame(size, size / 256 * scale, look, own)
    matter = MAKERS[surface](frame)
    light = lamps(look, own)
    cam = camera(look, own, size, grey, vignette=float(matter.notes.get("vignette", 0.0)))
    everywhere = (slice(0, size), slice(0, size))
    lit = shade(matter, light, everywhere, size)
    gain = _exposure(matter, lit, cam) * math.exp(own.normal(0, 0.03))
    signal = project(cam, lay(matter, light, lit, 1 / gain), gain)
    normal = expose(cam, signal)
    solid = np.ones((size, size), bool) if matter.alpha is None else matter.alpha > 0.5
    facts: dict[str, Any] = {"surface": surface, "grey": grey, "zoom": round(scale, 3)}
    if defect is None:
        mask = np.zeros((size, size), bool)
        facts |= {"kind": None, "share": 0.0}
        return Piece(normal.copy(), mask, solid, normal, surface, None, caption(surface, facts), facts)
    chance = np.random.default_rng([tag, 2, abs(seed), zlib.crc32(defect.encode())])
    hit, mask, window, struck = _strike(matter, defect, chance, light, cam, signal, gain, solid, frame.u)
    damaged = expose(windowed(cam, window), struck)
    image = normal.copy()
    image[window][mask[window]] = damaged[mask[window]]
    facts |= describe(defect, hit, mask)
    return Piece(image, mask, solid, normal, surface, defect, caption(surface, facts), facts)


def make_random(seed: int, *, size: int = 256, sound_share: float = 0.2) -> Piece:
    """Make a piece of a random surface, defect type, look, zoom, greyness; a `sound_share` of them without a defect."""
    rng = np.random.default_rng([7, abs(seed)])
    surface = str(SURFACES[int(rng.integers(len(SURFACES)))])
    defects = defects_of(surface)
    defect = None if rng.random() < sound_share else defects[int(rng.integers(len(defects)))]
    zoom = float(np.exp(rng.uniform(math.log(0.6), math.log(1.9))))
    grey = bool(rng.random() < 0.5)
    return make(surface, defect, seed=int(rng.integers(2**31)), size=size, grey=grey, zoom=zoom)


def _exposure(matter: Matter, lit: Field, cam: Camera) -> float:
    """Return the gain that brings the part to its level."""
    lum = cv2.transform(lit, np.full((1, 3), 1 / 3, np.float32)) * cam.falloff
    if matter.alpha is None:
        bright = float(lum.mean())
    else:
        bright = float((lum * matter.alpha).sum()) / max(float(matter.alpha.sum()), 1.0)
    return float(matter.level) / max(bright, 1e-4)


def _strike(
    matter: Matter,
    defect: str,
    chance: np.random.Generator,
    light: Light,
    cam: Camera,
    signal: Field,
    gain: float,
    solid: np.ndarray,
    u: float,
) -> tuple[Hit, np.ndarray, tuple[slice, slice], Field]:
    """Strike until the damage can be seen and lies on the part; return the hit, mask, window, and the signal in it."""
    n = solid.shape[0]
    before = tone(cam, signal)
    low, high = EXTENT[defect]
    wish = math.exp(chance.uniform(math.log(low), math.log(high)))
    power = chance.uniform(0.3, 1.0)
    if matter.alpha is not None:
        # Damage to a part is measured by the part: a screw is narrow, and what is broken off it must leave some.
        deep = cv2.distanceTransform(solid.astype(np.uint8), cv2.DIST_L2, 5)
        wide = 2.0 * float(np.percentile(deep[deep > 0], 85))
        wish = min(wish, _OF_WIDTH.get(defect, 1.6) * wide * chance.uniform(0.6, 1.0) / u)
    passable = None
    for attempt in range(7):
        r = max(wish * u, 3.0)
        at_edge = chance.random() < _AT_EDGE.get(defect, 0.0)
        hit = aim(matter, chance, n, u, r, power * 1.35**attempt, at_edge)
        struck = matter.copy()
        footprint = STRIKES[defect](struck, hit)
        if attempt >= 4:
            # What the light hides is given another tone, so that no mask is ever empty.
            cover = np.clip(footprint * np.float32(attempt - 2), 0, 1)
            if float(before[solid].mean()) > 70:
                struck.dim(1.0 - np.float32(0.2 * (attempt - 2)) * cover)
            else:
                struck.tint(cover, (0.15 * attempt,) * 3)
            struck.set_metal(0.8 * cover, 0.0)
        window = _window(matter, struck, n)
        if window is None:
            wish *= 1.2
            continue
        piece = struck.cut(window)
        lit = shade(piece, light, window, n)
        after = project(windowed(cam, window), lay(piece, light, lit, 1 / gain), gain)
        mask = np.zeros((n, n), bool)
        inside = _changed(before[window], _edged(tone(cam, after), before, window, n), solid[window], n)
        share = 0.0 if inside is None else float(inside.sum()) / (n * n)
        struck_at = (footprint > 0.5) & solid
        # A stroke that shows only here and there would have a mask in crumbs, or one corner of itself.
        missed = inside is not None and int((struck_at[window] & inside).sum()) < _SHOWN * int(struck_at.sum())
        if inside is not None and share <= _LARGEST:
            mask[window] = inside
            passable = hit, mask, window, after
            if not missed:
                return passable
        wish *= 0.65 if share > _LARGEST else 1.2
    # A plain dark spot in the middle of the part is the last resort, so that no mask can ever be empty.
    return passable or _spot(hit, before, signal, solid)


def _window(old: Matter, new: Matter, n: int) -> tuple[slice, slice] | None:
    """Return the box, in steps of 16 px (JPEG's blocks), outside which light cannot tell the two matters apart."""
    differs = old.height != new.height
    differs |= old.rough != new.rough
    differs |= old.metal != new.metal
    for k in range(3):
        differs |= old.albedo[..., k] != new.albedo[..., k]
    # Shadows, the cavity's blur and the lens carry a change so far.
    reach = 32
    if old.alpha is not None and new.alpha is not None:
        differs |= old.alpha != new.alpha
        reach += int(2.5 * old.thick)
    rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
    if len(rows) == 0:
        return None
    low = [max(0, (int(k[0]) - reach) // 16 * 16) for k in (rows, columns)]
    high = [min(n, -(-(int(k[-1]) + reach) // 16) * 16) for k in (rows, columns)]
    return slice(low[0], high[0]), slice(low[1], high[1])


def _edged(after: Field, before: Field, window: tuple[slice, slice], n: int) -> Field:
    """Put the old picture back along a window's rim inside the picture, where blurs miss what lies beyond the cut."""
    for axis in (0, 1):
        rows = [slice(None), slice(None)]
        if window[axis].start > 0:
            rows[axis] = slice(0, 14)
            after[tuple(rows)] = before[window][tuple(rows)]
        if window[axis].stop < n:
            rows[axis] = slice(-14, None)
            after[tuple(rows)] = before[window][tuple(rows)]
    return after


def _changed(before: Field, after: Field, solid: np.ndarray, n: int) -> np.ndarray | None:
    """Return the mask of visible change in a window of a picture of side n.

    None where the change is too faint, too small or off the part.
    """
    change: Field = np.abs(after - before)
    if change.ndim == 3:
        change = np.maximum(np.maximum(change[..., 0], change[..., 1]), change[..., 2])
    seen: np.ndarray = (change >= VISIBLE).astype(np.uint8)
    if n >= 64:
        seen = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(seen, connectivity=8)
    least = max(4, round(6 * (n / 256) ** 2))
    keep = stats[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False
    if count < 2 or not keep.any():
        return None
    mask = keep[labels]
    mask = _filled(mask, max(6, round(40 * (n / 256) ** 2)))
    area = int(mask.sum())
    if area < max(8, 0.0005 * n * n):
        return None
    if np.percentile(change[mask], 80) < _CLEAR:
        return None
    if (mask & solid).sum() < 0.45 * area:
        return None
    return mask


def _filled(mask: np.ndarray, most: int) -> np.ndarray:
    """Return the mask with its holes of up to `most` pixels closed: specks of ground inside a patch are not sound."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= most
    small[0] = False
    return mask | small[labels] if count > 1 else mask


def _spot(
    hit: Hit, before: Field, signal: Field, solid: np.ndarray
) -> tuple[Hit, np.ndarray, tuple[slice, slice], Field]:
    n = solid.shape[0]
    deep = cv2.distanceTransform(solid.astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(int(deep.argmax()), deep.shape)
    mask = np.zeros((n, n), np.uint8)
    cv2.circle(mask, (int(x), int(y)), max(2, n // 40), 1, -1)
    spot = mask.astype(bool)
    lit = float(before.mean()) > 60
    struck = signal.copy()
    struck[spot] = struck[spot] * np.float32(0.1) if lit else np.float32(0.5)
    hit.x, hit.y, hit.r = float(x), float(y), float(max(2, n // 40))
    return hit, spot, (slice(0, n), slice(0, n)), struck
