"""Random fields: the grain, clouds, streaks and cells that every material is made of. All float32, all from one rng."""

from __future__ import annotations

import math

import cv2
import numpy as np

Field = np.ndarray
Rng = np.random.Generator


def cloud(
    rng: Rng, n: int, cell: float, *, octaves: int = 1, gain: float = 0.5, stretch: float = 1.0, angle: float = 0.0
) -> Field:
    """Return float32 (n,n) of about zero mean and unit variance, with features of `cell` pixels.

    `stretch` makes them that much longer along `angle` (radians, picture axes); octaves halve the cell each time.
    """
    total = np.zeros((n, n), np.float32)
    power, weight = 0.0, 1.0
    for _ in range(octaves):
        total += np.float32(weight) * _octave(rng, n, cell, stretch, angle)
        power += weight * weight
        weight *= gain
        cell *= 0.5
        if cell * max(stretch, 1.0) < 0.8:
            break
    total *= np.float32(1.0 / math.sqrt(power))
    return total


def _octave(rng: Rng, n: int, cell: float, stretch: float, angle: float) -> Field:
    if cell < 1.5 and stretch == 1.0:
        raw = rng.standard_normal((n, n), dtype=np.float32)
        return raw if cell < 1.1 else cv2.GaussianBlur(raw, (3, 3), 0.6) * np.float32(1.9)
    along, across = max(cell * stretch, 1.0), max(cell, 1.0)
    # A lattice that covers the picture's diagonal, so that any angle and offset stays inside it.
    reach = n * 1.45 if angle else n
    rows, columns = int(reach / across) + 6, int(reach / along) + 6
    lattice = rng.standard_normal((rows, columns), dtype=np.float32)
    offset = rng.uniform(0.0, 1.0, 2)
    c, s = math.cos(angle), math.sin(angle)
    half = (n - 1) / 2.0
    turn = np.array(
        [
            [c / along, s / along, columns / 2 - (c + s) * half / along + offset[0] - 0.5],
            [-s / across, c / across, rows / 2 - (c - s) * half / across + offset[1] - 0.5],
        ]
    )
    field = cv2.warpAffine(
        lattice, turn, (n, n), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
    )
    return field * np.float32(1.35)


def blob(
    rng: Rng,
    n: int,
    x: float,
    y: float,
    radius: float,
    *,
    ragged: float = 0.35,
    aspect: float = 1.0,
    angle: float = 0.0,
    detail: float = 0.5,
) -> Field:
    """Return float32 (n,n): an irregular distance-like field, 0 at the centre, 1 on the outline, growing outwards."""
    yy, xx = np.mgrid[0:n, 0:n].astype(np.float32)
    dx, dy = xx - np.float32(x), yy - np.float32(y)
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    a = (c * dx + s * dy) / np.float32(radius * math.sqrt(aspect))
    b = (c * dy - s * dx) / np.float32(radius / math.sqrt(aspect))
    distance: Field = np.sqrt(a * a + b * b)
    if ragged > 0:
        # Noise that is weak at the outline's distance and fades beyond it: a ragged outline, few islands.
        wobble = cloud(rng, n, max(radius * 0.8, 2.0), octaves=3, gain=detail)
        distance = distance * np.exp(np.float32(0.7 * ragged) * wobble / (1.0 + 0.35 * distance))
    return distance


def smoothstep(low: float, high: float, value: Field) -> Field:
    """Return 0 below `low`, 1 above `high`, and a smooth rise between; `low` may exceed `high` (then it falls)."""
    t = np.clip((value - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    eased: Field = t * t * (3.0 - 2.0 * t)
    return eased


def cells(rng: Rng, n: int, size: float, jitter: float = 0.9) -> tuple[Field, Field]:
    """Return (edge, tone): float32 (n,n) distance in px to the nearest cell border, and one random number a cell."""
    count = int(n / size) + 3
    grid = (np.stack(np.meshgrid(np.arange(count), np.arange(count)), -1) - 1.0) * size
    points = grid + rng.uniform(0.0, size * jitter, grid.shape)
    seeds = np.full((n + 2 * int(size) + 2,) * 2, 255, np.uint8)
    pad = int(size)
    xy = np.clip(points + pad, 0, seeds.shape[0] - 1).astype(int).reshape(-1, 2)
    seeds[xy[:, 1], xy[:, 0]] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    border = np.ones(labels.shape, np.uint8)
    border[:, 1:][labels[:, 1:] != labels[:, :-1]] = 0
    border[1:][labels[1:] != labels[:-1]] = 0
    edge = cv2.distanceTransform(border, cv2.DIST_L2, 5)
    tones = rng.uniform(0.0, 1.0, int(labels.max()) + 1).astype(np.float32)
    window = slice(pad, pad + n)
    return edge[window, window], tones[labels[window, window]]


def walk(
    rng: Rng,
    x: float,
    y: float,
    length: float,
    angle: float,
    *,
    step: float = 3.0,
    wander: float = 0.1,
    curl: float = 0.0,
) -> np.ndarray:
    """Return float64 (k,2): a random path from (x,y); `wander` is the turn (radians) a step, `curl` a steady bend."""
    count = max(2, int(length / step))
    turns = rng.normal(curl, wander, count)
    heading = angle + np.cumsum(turns) - turns[0]
    moves = np.stack([np.cos(heading), np.sin(heading)], -1) * (length / count)
    return np.concatenate([[[x, y]], [x, y] + np.cumsum(moves, 0)])


def stroke(n: int, path: np.ndarray, widths: np.ndarray | float, *, soft: float = 0.0) -> Field:
    """Return float32 (n,n) in [0,1]: an anti-aliased line along `path` (k,2) with a width (px) for each segment."""
    canvas = np.zeros((n, n), np.uint8)
    width = np.broadcast_to(np.asarray(widths, float), (len(path) - 1,))
    # cv2 draws whole-pixel widths only, so a line is drawn 4 times as large in its own box and shrunk by area.
    low = np.floor(np.clip(path.min(0) - width.max() - 2, 0, n)).astype(int)
    high = np.ceil(np.clip(path.max(0) + width.max() + 3, 0, n)).astype(int)
    if (high - low < 1).any():
        return canvas.astype(np.float32)
    fine = np.zeros(((high[1] - low[1]) * 4, (high[0] - low[0]) * 4), np.uint8)
    points = np.rint((path - low + 0.5) * 4).astype(int)
    for k in range(len(path) - 1):
        cv2.line(fine, points[k].tolist(), points[k + 1].tolist(), 255, max(1, round(width[k] * 4)))
    small = cv2.resize(fine, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    canvas[low[1] : high[1], low[0] : high[0]] = small
    field = canvas.astype(np.float32) * np.float32(1 / 255)
    return cv2.GaussianBlur(field, (0, 0), soft) if soft > 0 else field
