"""Light: one lamp with shadows, a room of soft boxes that glossy matter mirrors, and the shading of Matter by them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.data.factory.matter import Matter
from flawsmith.data.factory.noise import Field, Rng

_ROOM = 96
_SPAN = 1.25
_SMOOTH, _ROUGH = 0.16, 0.75


@dataclass(slots=True)
class Light:
    """Everything the shading needs to know of the lamps."""

    azimuth: float
    """Radians, picture axes: the side the key lamp stands on."""
    elevation: float
    """Radians above the table."""
    key: float
    """Strength of the key lamp; the ambient light has `1 - key`."""
    tint: np.ndarray
    """float32 (3,): colour of the key lamp."""
    room: Field
    """float32 (96,96): brightness seen in a mirror whose normal has (nx,ny) = the pixel's place in [-1.25,1.25]."""
    drift: tuple[float, float]
    """How far the mirrored place moves over the picture: near lamps and a near camera make gradients on flat metal."""


def lamps(look: Rng, own: Rng) -> Light:
    """Return the light of a production line, with the small drift from piece to piece that real rigs have."""
    azimuth = look.uniform(0.0, 2 * math.pi) + own.normal(0.0, 0.03)
    elevation = math.radians(look.uniform(24.0, 62.0)) + own.normal(0.0, 0.01)
    key = look.uniform(0.5, 0.85)
    warm = look.normal(0.0, 0.05)
    tint = np.array([1 + warm, 1.0, 1 - warm], np.float32)
    walls = look.uniform(0.1, 0.26), look.uniform(-0.12, 0.12), look.uniform(-0.12, 0.12)
    # A mirror sees a lamp at elevation e where its normal leans half way towards it.
    lean = math.sin((math.pi / 2 - elevation) / 2)
    boxes = [(azimuth, lean, look.uniform(0.8, 1.8), look.uniform(0.1, 0.25))]
    for _ in range(int(look.integers(1, 4))):
        boxes.append((look.uniform(0, 6.28), look.uniform(0.05, 0.75), look.uniform(0.3, 1.2), look.uniform(0.06, 0.3)))
    long = [(*box, box[3] * look.uniform(1.0, 3.0)) for box in boxes]
    drift = (look.normal(0.0, 0.3), look.normal(0.0, 0.3))
    return Light(azimuth, elevation, key, tint, _room(walls, long), drift)


def lamp(azimuth: float, hardness: float) -> Light:
    """Return the light of one lamp over a flat surface.

    Args:
        azimuth: Radians, picture axes: the side it stands on.
        hardness: 0 = a wide soft box high up, 1 = a small lamp that stands low.
    """
    elevation = math.radians(58.0 - 28.0 * hardness)
    lean, wide = math.sin((math.pi / 2 - elevation) / 2), 0.3 - 0.18 * hardness
    room = _room((0.22, 0.0, 0.0), [(azimuth, lean, 0.9 + 0.7 * hardness, wide, 1.6 * wide)])
    return Light(azimuth, elevation, 0.45 + 0.4 * hardness, np.ones(3, np.float32), room, (0.0, 0.0))


def _room(walls: tuple[float, float, float], boxes: Sequence[tuple[float, float, float, float, float]]) -> Field:
    """Return a room of soft boxes.

    Args:
        walls: Brightness of the walls, and how much of it comes along x and along y.
        boxes: Side (radians), how far from the zenith, strength, width and length of each.
    """
    axis = np.linspace(-_SPAN, _SPAN, _ROOM, dtype=np.float32)
    nx, ny = np.meshgrid(axis, axis)
    room: Field = np.float32(walls[0]) + np.float32(walls[1]) * nx
    room += np.float32(walls[2]) * ny
    for side, far, strength, wide, long in boxes:
        cx, cy = far * math.cos(side), far * math.sin(side)
        c, s = math.cos(side), math.sin(side)
        dx, dy = nx - np.float32(cx), ny - np.float32(cy)
        a, b = dx * np.float32(c) + dy * np.float32(s), dy * np.float32(c) - dx * np.float32(s)
        a2, b2 = (a * np.float32(1 / wide)) ** 2, (b * np.float32(1 / long)) ** 2
        room += np.float32(strength) * np.exp(-a2 * a2 - b2 * b2)
    lit: Field = np.maximum(room, 0.02).astype(np.float32)
    return lit


def shade(matter: Matter, light: Light, window: tuple[slice, slice], n: int) -> Field:
    """Return linear RGB, float32 (h,w,3), of the lit matter, as if it filled the picture (no exposure yet).

    `matter` is cut out of a picture of side `n` at `window` already: lamps and camera mind where in it they look.
    """
    h = matter.height
    gx = cv2.Sobel(h, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
    gy = cv2.Sobel(h, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
    nz = 1.0 / np.sqrt(1.0 + gx * gx + gy * gy)
    nx, ny = -gx * nz, -gy * nz
    ce, se = math.cos(light.elevation), math.sin(light.elevation)
    lx, ly = math.cos(light.azimuth) * ce, math.sin(light.azimuth) * ce
    diffuse = np.maximum(nx * np.float32(lx) + ny * np.float32(ly) + nz * np.float32(se), 0.0)
    diffuse *= np.float32(light.key / se)
    shadow = _shadow(h, light)
    diffuse *= shadow
    open_sky = _cavity(h)
    diffuse += np.float32(1 - light.key) * (0.5 + 0.5 * nz) * open_sky
    mirror = _mirror(matter, light, nx, ny, window, n)
    mirror *= open_sky * (0.55 + 0.45 * shadow)
    metal = matter.metal
    body = diffuse * (1.0 - np.float32(0.82) * metal) + mirror * metal
    gloss = mirror * (1.0 - metal) * np.float32(matter.gleam)
    lit: Field = matter.albedo * body[..., None]
    lit += gloss[..., None]
    lit *= light.tint
    return lit


def _shadow(h: Field, light: Light) -> Field:
    """Return (h,w) in [0,1]: how much of the key lamp each place sees past its neighbours."""
    rows, columns = h.shape
    blocked = np.zeros_like(h)
    rise = math.tan(light.elevation)
    padded = cv2.copyMakeBorder(h, 12, 12, 12, 12, cv2.BORDER_REPLICATE)
    for far in (1.0, 2.0, 3.5, 5.5, 8.0, 11.5):
        x, y = round(12 + far * math.cos(light.azimuth)), round(12 + far * math.sin(light.azimuth))
        over: Field = padded[y : y + rows, x : x + columns] - h
        over -= np.float32(far * rise)
        np.maximum(blocked, over, out=blocked)
    blocked *= blocked
    return 1.0 / (1.0 + np.float32(2.0) * blocked)


def _cavity(h: Field) -> Field:
    """Return (h,w) in (0,1]: how much of the sky a pit sees; flat and raised places see all of it."""
    total = np.ones_like(h)
    for sigma, weight in ((1.2, 0.5), (4.0, 0.22)):
        deep = cv2.GaussianBlur(h, (0, 0), sigma) - h
        total += np.float32(weight) * np.maximum(deep, 0.0)
    return 1.0 / total


def _mirror(matter: Matter, light: Light, nx: Field, ny: Field, window: tuple[slice, slice], n: int) -> Field:
    """Return (h,w): the brightness of the room that each place mirrors, blurred by its roughness."""
    texel = _ROOM / (2 * _SPAN)
    angle, stretch = matter.grain
    smooth, rough = _SMOOTH * 0.5 * texel, _ROUGH * 0.5 * texel
    if stretch > 1.0:
        sharp = _smear(light.room, angle, smooth * 0.6, smooth * stretch)
        broad = _smear(light.room, angle, rough * 0.5, rough * min(stretch, 1.6))
    else:
        sharp = cv2.GaussianBlur(light.room, (0, 0), smooth)
        broad = cv2.GaussianBlur(light.room, (0, 0), rough)
    ramp = np.linspace(-1.0, 1.0, n, dtype=np.float32)
    x = (nx + np.float32(light.drift[0]) * ramp[None, window[1]]) * np.float32(texel) + np.float32(_ROOM / 2 - 0.5)
    y = (ny + np.float32(light.drift[1]) * ramp[window[0], None]) * np.float32(texel) + np.float32(_ROOM / 2 - 0.5)
    near = cv2.remap(sharp, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    far = cv2.remap(broad, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    blend = np.clip((matter.rough - _SMOOTH) * np.float32(1 / (_ROUGH - _SMOOTH)), 0.0, 1.0)
    return near + blend * (far - near)


def _smear(room: Field, angle: float, along: float, across: float) -> Field:
    """Blur the room by `along` px in direction `angle` and by `across` px perpendicular to it."""
    centre = (_ROOM / 2 - 0.5, _ROOM / 2 - 0.5)
    turn = cv2.getRotationMatrix2D(centre, math.degrees(angle), 1.0)
    turned = cv2.warpAffine(room, turn, (_ROOM, _ROOM), borderMode=cv2.BORDER_REPLICATE)
    turned = cv2.GaussianBlur(turned, (0, 0), sigmaX=max(along, 0.3), sigmaY=max(across, 0.3))
    back = cv2.getRotationMatrix2D(centre, -math.degrees(angle), 1.0)
    return cv2.warpAffine(turned, back, (_ROOM, _ROOM), borderMode=cv2.BORDER_REPLICATE)


def lay(matter: Matter, light: Light, lit: Field, glow: float) -> Field:
    """Return the lit part on its table: the table (`under` times `glow`), the part's shadow on it, and the outline."""
    if matter.alpha is None or matter.under is None:
        return lit
    alpha = matter.alpha
    table = matter.under * np.float32(glow)
    if matter.backlit < 1.0 and matter.thick > 0:
        far = matter.thick / math.tan(light.elevation)
        move = np.array(
            [[1, 0, -far * math.cos(light.azimuth)], [0, 1, -far * math.sin(light.azimuth)]], dtype=np.float64
        )
        fallen = cv2.warpAffine(alpha, move, alpha.shape[::-1], flags=cv2.INTER_LINEAR)
        fallen = cv2.GaussianBlur(fallen, (0, 0), max(0.8, matter.thick * 0.35))
        close = cv2.GaussianBlur(alpha, (0, 0), max(1.0, matter.thick * 0.6))
        dark = 1.0 - np.float32(1 - matter.backlit) * (np.float32(light.key * 0.6) * fallen + 0.25 * close)
        table = table * dark[..., None]
    cover = alpha[..., None]
    return table + cover * (lit - table)
