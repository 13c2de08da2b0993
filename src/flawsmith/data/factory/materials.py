"""Surfaces that are no metal: wood, cloth, leather, plastic, glazed ceramic and concrete."""

from __future__ import annotations

import math

import numpy as np

from flawsmith.data.factory.matter import Frame, Matter, hue, plain
from flawsmith.data.factory.noise import Field, cells, cloud, smoothstep

_WOODS = ((0.42, 0.23, 0.1), (0.55, 0.36, 0.19), (0.24, 0.11, 0.05), (0.6, 0.44, 0.27), (0.36, 0.16, 0.07))
_YARNS = (
    (0.62, 0.58, 0.5), (0.1, 0.14, 0.28), (0.35, 0.06, 0.06), (0.3, 0.3, 0.3), (0.5, 0.4, 0.24), (0.06, 0.06, 0.07),
    (0.12, 0.25, 0.14), (0.7, 0.7, 0.7),
)  # fmt: skip
_HIDES = (
    (0.2, 0.09, 0.04),
    (0.03, 0.03, 0.03),
    (0.3, 0.05, 0.03),
    (0.4, 0.22, 0.1),
    (0.5, 0.4, 0.28),
    (0.07, 0.1, 0.16),
)
_PLASTICS = (
    (0.6, 0.05, 0.04), (0.04, 0.12, 0.45), (0.03, 0.03, 0.035), (0.7, 0.7, 0.68), (0.7, 0.42, 0.02), (0.05, 0.3, 0.1),
    (0.3, 0.3, 0.32),
)  # fmt: skip
_GLAZES = (
    (0.7, 0.69, 0.65), (0.6, 0.5, 0.36), (0.08, 0.2, 0.35), (0.35, 0.1, 0.05), (0.2, 0.22, 0.22), (0.3, 0.42, 0.36),
    (0.45, 0.45, 0.45),
)  # fmt: skip


def _pick(f: Frame, colours: tuple[tuple[float, float, float], ...], spread: float = 0.12) -> np.ndarray:
    return hue(f.look, colours[int(f.look.integers(len(colours)))], spread)


def wood(f: Frame) -> Matter:
    """Planed wood: growth rings that wander and close round knots, fibres, and dark pores."""
    light = _pick(f, _WOODS)
    dark = light * np.float32(f.look.uniform(0.45, 0.75)) * np.array([1.0, 0.92, 0.85], np.float32)
    m = plain(f.n, light, rough=f.look.uniform(0.35, 0.75), metal=0.0)
    angle = f.look.choice([0.0, math.pi / 2, 0.3, 1.2]) + f.own.normal(0, 0.02)
    along, across = f.turned(angle, f.own.normal(0, 30 * f.u), f.own.normal(0, 30 * f.u))
    period = f.u * f.look.uniform(7, 26)
    warp = np.float32(f.look.uniform(0.5, 1.6) * period) * cloud(
        f.own, f.n, 50 * f.u, octaves=2, stretch=6, angle=angle
    )
    tree = across + warp
    # Cut near the heart, the rings are long parabolas; cut at the side they are straight lines.
    bow = f.look.uniform(0.0, 0.9)
    tree = np.sqrt(tree * tree + np.float32(bow * bow * 0.04) * (along + np.float32(f.n * 0.6)) ** 2)
    if f.look.random() < 0.35:
        tree, knot = _knot(f, tree, along, across, period)
    else:
        knot = None
    phase = tree * np.float32(1 / period)
    phase = phase - np.floor(phase)
    ring = smoothstep(0.0, 0.75, phase) * smoothstep(1.0, 0.86, phase)
    fibre = cloud(f.own, f.n, max(1.0, 1.1 * f.u), stretch=22, angle=angle)
    tuft = cloud(f.own, f.n, 3.2 * f.u, stretch=16, angle=angle)
    m.tint(np.clip(ring * np.float32(f.look.uniform(0.5, 1.0)) + 0.1 * tuft, 0, 1), dark)
    m.dim(np.exp(np.float32(f.look.uniform(0.04, 0.1)) * (fibre + tuft) + 0.06 * cloud(f.own, f.n, 60 * f.u)))
    pore = cloud(f.own, f.n, max(1.0, 1.2 * f.u), stretch=f.look.uniform(6, 14), angle=angle)
    pores = smoothstep(1.5, 2.4, pore) * np.float32(f.look.choice([0.0, 0.6, 1.0]))
    m.dim(1.0 - 0.5 * pores)
    m.height += 0.12 * fibre + 0.1 * ring - 0.6 * pores
    if knot is not None:
        m.tint(0.85 * smoothstep(1.15, 0.7, knot), dark * np.float32(0.45))
    m.gleam = f.look.uniform(0.0, 0.12)
    m.level = f.look.uniform(0.16, 0.34)
    m.notes.update(angle=angle, fibre=angle)
    m.inner = tuple(np.minimum(light * 1.25, 0.85))
    return m


def _knot(f: Frame, tree: np.ndarray, along: np.ndarray, across: np.ndarray, period: float) -> tuple[Field, Field]:
    size = f.u * f.look.uniform(8, 20)
    a = along - np.float32(f.own.uniform(-0.3, 0.3) * f.n)
    b = across - np.float32(f.own.uniform(-0.3, 0.3) * f.n)
    near = np.sqrt((a / 1.35) ** 2 + b * b) * np.float32(1 / size)
    near *= np.exp(0.08 * cloud(f.own, f.n, size, octaves=2))
    weight = smoothstep(3.0, 0.9, near)
    return tree + weight * (near * np.float32(size * 1.1) - tree * 0.9 + np.float32(period)), near


def weave(f: Frame) -> Matter:
    """Woven cloth: warp over weft, plain, twill or basket, each thread of twisted fibres."""
    warp_colour = _pick(f, _YARNS)
    weft_colour = warp_colour * np.float32(f.look.uniform(0.75, 1.2)) if f.look.random() < 0.6 else _pick(f, _YARNS)
    m = plain(f.n, warp_colour, rough=0.9, metal=0.0)
    pitch = f.u * f.look.uniform(4.5, 13.0)
    angle = f.look.choice([0.0, 0.0, math.pi / 4, 0.2]) + f.own.normal(0, 0.02)
    a, b = f.turned(angle, f.own.uniform(0, 50), f.own.uniform(0, 50))
    slack = np.float32(pitch * f.look.uniform(0.05, 0.2))
    a = (a + slack * cloud(f.own, f.n, 9 * pitch)) * np.float32(1 / pitch) + np.float32(512)
    b = (b + slack * cloud(f.own, f.n, 9 * pitch)) * np.float32(1 / pitch) + np.float32(512)
    ia, ib = np.floor(a), np.floor(b)
    pa, pb = a - ia - 0.5, b - ib - 0.5
    style = str(f.look.choice(["plain", "twill", "basket"], p=[0.5, 0.3, 0.2]))
    if style == "plain":
        over = np.mod(ia + ib, 2.0) < 0.5
        swing_a, swing_b = np.cos(np.float32(math.pi) * pb), np.cos(np.float32(math.pi) * pa)
    elif style == "twill":
        over = np.mod(ia + ib, 4.0) < 1.5
        swing_a = swing_b = np.float32(0.8)
    else:
        over = np.mod(np.floor(ia / 2) + np.floor(ib / 2), 2.0) < 0.5
        swing_a = np.abs(np.cos(np.float32(math.pi / 2) * (b - np.floor(b / 2) * 2 - 1.0)))
        swing_b = np.abs(np.cos(np.float32(math.pi / 2) * (a - np.floor(a / 2) * 2 - 1.0)))
    fat = np.float32(f.look.uniform(1.7, 2.1))
    warp_top = np.sqrt(np.maximum(1.0 - (fat * pa) ** 2, 0.0)) * (0.45 + 0.55 * swing_a)
    weft_top = np.sqrt(np.maximum(1.0 - (fat * pb) ** 2, 0.0)) * (0.45 + 0.55 * swing_b)
    top = np.where(over, warp_top, weft_top)
    # Where the upper thread has ended, the lower one shows through the gap, darker and deeper.
    below = np.where(over, weft_top, warp_top) * 0.5
    shown = np.maximum(top, below)
    is_warp = over == (top >= below)
    m.tint(1.0 - is_warp.astype(np.float32), weft_colour)
    twist = cloud(f.own, f.n, max(1.0, pitch * 0.13), stretch=4, angle=angle + 0.5)
    twist2 = cloud(f.own, f.n, max(1.0, pitch * 0.13), stretch=4, angle=angle + math.pi / 2 + 0.5)
    fibre = np.where(is_warp, twist2, twist)
    m.height += np.float32(pitch * f.look.uniform(0.22, 0.36)) * shown + np.float32(0.03 * pitch) * fibre
    lines = f.own.normal(0, 0.06, (2, 1400)).astype(np.float32)
    each = np.where(is_warp, lines[0][ia.astype(int) % 1400], lines[1][ib.astype(int) % 1400])
    m.dim(np.exp(each + 0.1 * fibre) * (0.4 + 0.6 * shown))
    m.gleam = f.look.uniform(0.0, 0.03)
    m.level = f.look.uniform(0.12, 0.32)
    m.notes.update(angle=angle, pitch=pitch, yarn=tuple(warp_colour), pale=tuple(weft_colour))
    m.inner = (0.03, 0.028, 0.025) if f.look.random() < 0.7 else (0.5, 0.48, 0.44)
    return m


def leather(f: Frame) -> Matter:
    """Leather: pebbles of many sizes parted by soft creases."""
    base = _pick(f, _HIDES)
    m = plain(f.n, base, rough=f.look.uniform(0.4, 0.65), metal=0.0)
    size = f.u * f.look.uniform(6, 13)
    edge, tone = cells(f.own, f.n, size)
    edge2, _ = cells(f.own, f.n, size * 0.55)
    pebble = 1.0 - np.exp(-edge * np.float32(2.2 / size)) + 0.3 * (1.0 - np.exp(-edge2 * np.float32(3.0 / size)))
    crease = np.abs(cloud(f.own, f.n, 40 * f.u, octaves=2))
    fold = smoothstep(0.12, 0.0, crease)
    m.height += np.float32(f.look.uniform(0.18, 0.36) * size) * pebble - np.float32(0.8) * fold
    m.height += np.float32(1.5) * cloud(f.own, f.n, 60 * f.u) + 0.05 * cloud(f.own, f.n, 1.0)
    m.dim((0.72 + 0.3 * pebble) * np.exp(0.05 * (tone - 0.5) + 0.05 * cloud(f.own, f.n, 50 * f.u)))
    m.gleam = f.look.uniform(0.03, 0.1)
    m.level = f.look.uniform(0.07, 0.26)
    m.inner = tuple(np.clip(np.asarray(base) * 0.5 + np.array([0.25, 0.18, 0.12]), 0, 0.7))
    return m


def plastic(f: Frame) -> Matter:
    """Moulded plastic: saturated, fine spark-eroded grain or nearly smooth, with broad soft highlights."""
    base = _pick(f, _PLASTICS)
    m = plain(f.n, base, rough=f.look.uniform(0.15, 0.5), metal=0.0)
    cell = max(1.0, f.u * f.look.uniform(1.5, 4.5))
    grain = cloud(f.own, f.n, cell, octaves=2)
    depth = f.look.choice([0.02, 0.1, 0.22])
    m.height += np.float32(depth * cell / 2) * grain + np.float32(f.look.uniform(0.5, 2.5)) * cloud(
        f.own, f.n, 80 * f.u
    )
    m.dim(np.exp(0.015 * grain))
    if f.look.random() < 0.35:
        _, across = f.turned(f.look.uniform(0, math.pi))
        every = f.u * f.look.uniform(28, 60)
        rib = np.abs(np.mod(across + np.float32(f.own.uniform(0, 4)), np.float32(every)) - np.float32(every / 2))
        m.height += np.float32(2.4 * f.u) * smoothstep(4.0 * f.u, 1.5 * f.u, rib)
    m.gleam = f.look.uniform(0.02, 0.09)
    m.level = (0.05 + 0.4 * float(base.mean())) * f.look.uniform(0.8, 1.5)
    m.inner = tuple(np.clip(base * 0.9 + 0.05, 0, 0.8))
    m.notes["relief"] = 0.4
    return m


def tile(f: Frame) -> Matter:
    """Glazed ceramic: glossy, mottled, speckled or clouded, sometimes with the grout between tiles."""
    base = _pick(f, _GLAZES)
    m = plain(f.n, base, rough=f.look.uniform(0.08, 0.3), metal=0.0)
    mottle = cloud(f.own, f.n, f.u * f.look.uniform(14, 45), octaves=4, gain=0.65)
    style = str(f.look.choice(["speckle", "cloud", "granite", "plain"]))
    if style == "speckle":
        spots = cloud(f.own, f.n, max(1.2, f.u * f.look.uniform(2.0, 5.0)))
        m.tint(0.8 * smoothstep(1.3, 2.0, spots), base * np.float32(0.3))
        m.tint(0.5 * smoothstep(-1.5, -2.2, spots), np.minimum(base * 1.5, 0.9))
    elif style == "cloud":
        m.tint(0.7 * smoothstep(-0.6, 1.6, mottle), base * np.float32(f.look.uniform(0.5, 0.8)))
    elif style == "granite":
        grains = cloud(f.own, f.n, f.u * f.look.uniform(4, 9), octaves=3, gain=0.7)
        m.tint(smoothstep(0.1, 0.45, grains), base * np.float32(0.45))
        m.tint(0.8 * smoothstep(0.5, 0.7, cloud(f.own, f.n, 5 * f.u, octaves=2)), np.minimum(base * 1.4, 0.9))
    m.dim(np.exp(0.03 * mottle))
    m.height += np.float32(f.look.uniform(0.1, 0.8)) * cloud(f.own, f.n, 24 * f.u)
    m.height += 0.02 * cloud(f.own, f.n, max(1.0, 1.5 * f.u))
    m.gleam = f.look.uniform(0.15, 0.45)
    m.level = f.look.uniform(0.18, 0.42)
    m.inner = tuple(hue(f.look, (0.55, 0.42, 0.32), 0.15))
    if f.look.random() < 0.35:
        _grout(f, m)
    return m


def _grout(f: Frame, m: Matter) -> None:
    angle = f.look.normal(0, 0.06) + f.own.normal(0, 0.01)
    a, b = f.turned(angle)
    side = np.float32(f.n * f.look.uniform(0.45, 1.1))
    shift = f.look.uniform(0, 1, 2) * side + f.own.normal(0, 1.5 * f.u, 2)
    away = np.minimum(
        np.abs(np.mod(a + np.float32(shift[0]), side) - side / 2),
        np.abs(np.mod(b + np.float32(shift[1]), side) - side / 2),
    )
    wide = f.u * f.look.uniform(2.0, 4.5)
    inside = smoothstep(wide + 1.2, wide, away)
    m.height -= np.float32(2.2 * f.u) * smoothstep(wide + 3.0 * f.u, wide, away)
    m.tint(inside, hue(f.look, (0.42, 0.41, 0.38), 0.25))
    m.dim(1.0 + inside * 0.1 * cloud(f.own, f.n, max(1.0, 1.5 * f.u)))
    m.set_rough(inside, 0.95)
    m.height += inside * 0.25 * cloud(f.own, f.n, max(1.0, 1.5 * f.u))


def concrete(f: Frame) -> Matter:
    """Concrete: mottled grey, sandy, with air holes."""
    tone = f.look.uniform(0.25, 0.5)
    m = plain(f.n, hue(f.look, (tone, tone * 0.98, tone * 0.94), 0.08), rough=0.95, metal=0.0)
    mottle = cloud(f.own, f.n, 45 * f.u, octaves=4, gain=0.6)
    sand = cloud(f.own, f.n, max(1.0, 1.8 * f.u), octaves=2)
    m.height += 0.3 * sand + np.float32(f.look.uniform(0.3, 1.0)) * mottle
    m.dim(np.exp(np.float32(f.look.uniform(0.05, 0.13)) * mottle + np.float32(f.look.uniform(0.03, 0.09)) * sand))
    edge, tone_of = cells(f.own, f.n, 13 * f.u)
    pits = smoothstep(1.5, 3.0, edge / np.float32(f.u)) * (tone_of > f.look.uniform(0.93, 0.99))
    m.height -= np.float32(1.3 * f.u) * pits
    m.gleam = 0.01
    m.level = f.look.uniform(0.2, 0.38)
    m.inner = (tone * 0.8, tone * 0.78, tone * 0.72)
    return m
