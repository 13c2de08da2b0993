"""A populated circuit board: traces under solder mask, plated pads and vias, chips with legs, and print."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.data.factory.matter import Frame, Matter, hue, plain
from flawsmith.data.factory.noise import Field, Rng, cloud

_STEPS = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)])


@dataclass(slots=True)
class _Layers:
    """The board's drawing: uint8 (n,n) layers, and which places of the grid are taken."""

    used: np.ndarray
    grid: float
    u: float
    look: Rng
    trace: np.ndarray
    pad: np.ndarray
    ink: np.ndarray
    chips: np.ndarray


def board(f: Frame) -> Matter:
    """A printed circuit board: solder mask over traces, plated pads and vias, chips with legs, print."""
    masks = ((0.02, 0.14, 0.05), (0.015, 0.05, 0.2), (0.02, 0.02, 0.022), (0.25, 0.02, 0.02), (0.05, 0.2, 0.12))
    base = hue(f.look, masks[int(f.look.choice(5, p=[0.5, 0.18, 0.14, 0.06, 0.12]))], 0.15)
    m = plain(f.n, base, rough=f.look.uniform(0.2, 0.4), metal=0.0)
    m.gleam = f.look.uniform(0.06, 0.16)
    n, u = f.n, f.u * f.look.uniform(0.85, 1.3)
    # The layout is the line's; the piece only lies a little differently under the camera.
    move: Field = cv2.getRotationMatrix2D(((n - 1) / 2, (n - 1) / 2), f.own.normal(0, 0.7), 1.0)
    move[:, 2] += f.own.normal(0, 1.5 * f.u, 2)
    layers = _layout(f.look, n, u)
    trace, pad, print_, chips = (cv2.warpAffine(k, move, (n, n), borderMode=cv2.BORDER_REFLECT_101) for k in layers)
    m.dim(1.0 + 0.9 * trace)
    m.height += 0.55 * cv2.GaussianBlur(trace, (0, 0), 0.7)
    m.height += 0.05 * cloud(f.own, n, max(1.0, 1.6 * f.u), octaves=2) + 0.9 * cloud(f.own, n, 80 * f.u)
    gold = hue(f.look, (0.72, 0.52, 0.2) if f.look.random() < 0.5 else (0.62, 0.62, 0.62), 0.08)
    m.tint(pad, gold)
    m.set_metal(pad, 1.0)
    m.set_rough(pad, 0.3)
    m.height += pad * (0.8 + 0.35 * cloud(f.own, n, 5 * f.u))
    m.tint(0.9 * print_ * (1 - chips) * (1 - pad), hue(f.look, (0.7, 0.7, 0.66), 0.08))
    m.set_rough(print_, 0.8)
    body = hue(f.look, (0.022, 0.022, 0.024), 0.2)
    m.tint(chips, body)
    m.tint(0.35 * print_ * chips, (0.5, 0.5, 0.5))
    m.set_metal(chips, 0.0)
    m.set_rough(chips, 0.65)
    m.height += np.float32(4.5 * f.u) * cv2.GaussianBlur(chips, (0, 0), max(0.6, 0.9 * f.u))
    m.height += chips * 0.12 * cloud(f.own, n, 1.0)
    m.dim(np.exp(0.03 * cloud(f.own, n, 30 * f.u, octaves=3)))
    m.level = f.look.uniform(0.09, 0.22)
    m.notes["relief"] = 0.4
    m.inner = tuple(hue(f.look, (0.5, 0.45, 0.28), 0.1))
    return m


def _layout(look: Rng, n: int, u: float) -> tuple[Field, ...]:
    """Return (trace, pad, print, chips): float32 (n,n) in [0,1] each."""
    grid = 7.0 * u
    count = int(n / grid) + 2
    flat = [np.zeros((n, n), np.uint8) for _ in range(4)]
    d = _Layers(np.zeros((count + 1, count + 1), bool), grid, u, look, *flat)
    for _ in range(int(look.integers(1, 4))):
        _chip(d)
    for _ in range(int(look.integers(4, 12))):
        _passive(d)
    wide = max(1, round(1.7 * u))
    for _ in range(int(look.integers(18, 40))):
        _route(d, count, wide)
    for _ in range(int(look.integers(1, 5))):
        text = str(look.choice(list("RCUQLD"))) + str(int(look.integers(1, 99)))
        x, y = (look.uniform(0.02, 0.85, 2) * n).astype(int).tolist()
        cv2.putText(d.ink, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.3 * u, 255, max(1, round(0.8 * u)), cv2.LINE_AA)
    return tuple(layer.astype(np.float32) * np.float32(1 / 255) for layer in flat)


def _route(d: _Layers, count: int, wide: int) -> None:
    """Draw one trace of straight runs and 45 degree turns, with a via at each end."""
    at = d.look.integers(0, count, 2)
    way = int(d.look.integers(0, 4)) * 2
    points = [at * d.grid]
    for _ in range(int(d.look.integers(2, 6))):
        at = at + _STEPS[way % 8] * int(d.look.integers(1, 6))
        points.append(at * d.grid)
        way += int(d.look.choice([-1, 1]))
    cv2.polylines(d.trace, [np.rint(np.array(points) * 16).astype(np.int32)], False, 255, wide, cv2.LINE_AA, 4)
    for end in (points[0], points[-1]):
        x, y = np.rint(end * 16).astype(int).tolist()
        cv2.circle(d.pad, (x, y), round(2.3 * d.u * 16), 255, -1, cv2.LINE_AA, 4)
        cv2.circle(d.pad, (x, y), round(1.0 * d.u * 16), 0, -1, cv2.LINE_AA, 4)


def _box(layer: np.ndarray, x: float, y: float, w: float, h: float, fill: int = 255, thick: int = -1) -> None:
    low = (round((x - w / 2) * 16), round((y - h / 2) * 16))
    high = (round((x + w / 2) * 16), round((y + h / 2) * 16))
    cv2.rectangle(layer, low, high, fill, thick, cv2.LINE_AA, 4)


def _chip(d: _Layers) -> None:
    """Place one integrated circuit with a row of legs on either side, where there is room."""
    count, look, u = d.used.shape[0], d.look, d.u
    w, h = int(look.integers(3, 9)), int(look.integers(4, 10))
    if count <= max(w, h) + 2:
        return
    i, j = int(look.integers(0, count - w)), int(look.integers(0, count - h))
    if d.used[j : j + h, i : i + w].any():
        return
    d.used[max(j - 1, 0) : j + h + 1, max(i - 1, 0) : i + w + 1] = True
    x, y = (i + w / 2) * d.grid, (j + h / 2) * d.grid
    wide, high = (w - 1.4) * d.grid, (h - 0.4) * d.grid
    legs = max(2, round(high / (4.6 * u)))
    for k in range(legs):
        _box(d.pad, x, y - high / 2 + (k + 0.5) * high / legs, wide + 1.76 * d.grid, high / legs * 0.52)
    _box(d.ink, x, y, wide + 2.4 * d.grid, high + 4 * u, 255, 1)
    _box(d.chips, x, y, wide, high)
    _box(d.pad, x, y, wide, high, 0)
    first = (round(x - wide / 2 + 3 * u), round(y - high / 2 + 3 * u))
    cv2.circle(d.ink, first, max(1, round(1.4 * u)), 255, -1, cv2.LINE_AA)
    if wide > 18 * u:
        spot = (round(x - wide * 0.36), round(y + 2 * u))
        text = str(int(look.integers(100, 9999)))
        cv2.putText(d.ink, text, spot, cv2.FONT_HERSHEY_SIMPLEX, 0.28 * u, 255, max(1, round(0.7 * u)), cv2.LINE_AA)


def _passive(d: _Layers) -> None:
    """Place one resistor or capacitor between two pads, where there is room."""
    count, look, u = d.used.shape[0], d.look, d.u
    if count < 5:
        return
    i, j = int(look.integers(1, count - 2)), int(look.integers(1, count - 2))
    if d.used[j - 1 : j + 2, i - 1 : i + 2].any():
        return
    d.used[j - 1 : j + 2, i - 1 : i + 2] = True
    x, y = i * d.grid, j * d.grid
    w, h = (11 * u, 5.5 * u) if look.random() < 0.5 else (5.5 * u, 11 * u)
    _box(d.ink, x, y, w + 6 * u, h + 6 * u, 255, 1)
    _box(d.pad, x, y, w + 2.5 * u, h + 2.5 * u)
    body = (w * 0.55, h) if w > h else (w, h * 0.55)
    _box(d.chips, x, y, *body)
    _box(d.pad, x, y, *body, 0)
