"""Metal surfaces: brushed, milled and cast; and the dark ground ceramic of magnets, which is made and lit alike."""

from __future__ import annotations

import math

import numpy as np

from flawsmith.data.factory.matter import Frame, Matter, hue, plain
from flawsmith.data.factory.noise import cloud, smoothstep

_METALS = {
    "steel": (0.46, 0.46, 0.47),
    "aluminium": (0.66, 0.67, 0.69),
    "brass": (0.62, 0.45, 0.18),
    "copper": (0.62, 0.32, 0.2),
    "dark": (0.22, 0.22, 0.23),
}


def metal_colour(f: Frame, weights: tuple[float, ...] = (0.45, 0.3, 0.08, 0.05, 0.12)) -> np.ndarray:
    """Return the linear RGB of one of the metals, picked for the line."""
    name = f.look.choice(list(_METALS), p=weights)
    return hue(f.look, _METALS[str(name)], 0.1)


def steel(f: Frame) -> Matter:
    """Brushed metal sheet: long fine scratches all one way, and highlights smeared across them."""
    m = plain(f.n, metal_colour(f), rough=f.look.uniform(0.18, 0.42), metal=1.0)
    angle = f.look.uniform(0, math.pi) + f.own.normal(0, 0.015)
    cell = max(1.0, f.u * f.look.uniform(0.8, 1.7))
    long = f.look.uniform(25, 90)
    fine = cloud(f.own, f.n, cell, stretch=long, angle=angle)
    broad = cloud(f.own, f.n, cell * 3.2, stretch=long, angle=angle)
    depth = f.look.uniform(0.04, 0.13)
    m.height += np.float32(depth) * (fine + np.float32(0.8) * broad)
    m.height += np.float32(f.look.uniform(0.0, 0.9)) * cloud(f.own, f.n, 70 * f.u)
    streak = f.look.uniform(0.02, 0.07)
    m.dim(np.exp(np.float32(streak) * (fine + broad) + np.float32(0.025) * cloud(f.own, f.n, 40 * f.u)))
    m.rough += np.float32(0.05) * broad
    m.grain = (angle, f.look.uniform(2.5, 6.0))
    m.level = f.look.uniform(0.16, 0.4)
    m.inner = tuple(np.minimum(m.albedo.mean((0, 1)) * 1.25, 0.9))
    return m


def milled(f: Frame) -> Matter:
    """Metal face with the marks of a cutter: straight, arcs, or rings of a turned face."""
    m = plain(f.n, metal_colour(f), rough=f.look.uniform(0.22, 0.4), metal=1.0)
    style = f.look.choice(["arcs", "rings", "straight"], p=[0.5, 0.25, 0.25])
    pitch = f.u * f.look.uniform(3.5, 10.0)
    side = f.look.uniform(0, 2 * math.pi)
    far = {"arcs": f.look.uniform(0.5, 2.0), "rings": f.look.uniform(0.0, 0.35), "straight": 40.0}[str(style)] * f.n
    x, y = f.grid
    dx = x - np.float32(far * math.cos(side) + f.own.normal(0, 2 * f.u))
    dy = y - np.float32(far * math.sin(side) + f.own.normal(0, 2 * f.u))
    radius = np.sqrt(dx * dx + dy * dy)
    # One height and tone for each pass of the tool: a table over the radius, read with interpolation.
    low, high = float(radius.min()), float(radius.max())
    step = 0.5
    count = int((high - low) / step) + 3
    at = np.arange(count) * step + low
    passes = np.arange(low, high + 4 * pitch, pitch)
    chatter = np.interp(at, passes, f.own.normal(0, 1, len(passes)))
    wave = np.abs(np.sin(np.pi * (at + 0.12 * pitch * chatter) / pitch)) + 0.25 * chatter
    wave += 0.12 * f.own.normal(0, 1, count)
    index = np.clip((radius - np.float32(low)) * np.float32(1 / step), 0, count - 2)
    whole = index.astype(np.int32)
    part = index - whole
    table = wave.astype(np.float32)
    groove = table[whole] * (1 - part) + table[whole + 1] * part
    fine = cloud(f.own, f.n, 1.0)
    m.height += np.float32(f.look.uniform(0.08, 0.3) * pitch / 5) * groove + np.float32(0.03) * fine
    m.dim(1.0 + np.float32(f.look.uniform(0.03, 0.1)) * (groove - 0.6) + np.float32(0.02) * fine)
    m.level = f.look.uniform(0.18, 0.4)
    m.inner = tuple(np.minimum(m.albedo.mean((0, 1)) * 1.25, 0.9))
    return m


def cast(f: Frame) -> Matter:
    """Cast iron or aluminium: lumpy, grainy, dull."""
    base = hue(f.look, (0.17, 0.165, 0.16) if f.look.random() < 0.6 else (0.42, 0.42, 0.43), 0.15)
    m = plain(f.n, base, rough=f.look.uniform(0.5, 0.75), metal=f.look.uniform(0.45, 0.8))
    cell = f.u * f.look.uniform(5, 12)
    lumps = cloud(f.own, f.n, cell, octaves=3, gain=0.6)
    grit = cloud(f.own, f.n, max(1.0, 1.6 * f.u))
    m.height += np.float32(f.look.uniform(0.2, 0.55) * cell / 8) * lumps + np.float32(0.14) * grit
    m.height += np.float32(2.0) * cloud(f.own, f.n, 60 * f.u)
    m.dim(np.exp(0.09 * lumps + 0.07 * grit))
    m.level = f.look.uniform(0.1, 0.25)
    m.inner = tuple(np.minimum(m.albedo.mean((0, 1)) * 1.7, 0.8))
    return m


def magnet(f: Frame) -> Matter:
    """Ferrite magnet tile: dark, matt, ground one way, with faint streaks and a picture that falls off to the sides."""
    tone = f.look.uniform(0.05, 0.13)
    m = plain(f.n, hue(f.look, (tone, tone, tone), 0.06), rough=f.look.uniform(0.55, 0.8), metal=0.35)
    angle = f.look.choice([0.0, math.pi / 2]) + f.look.normal(0, 0.03) + f.own.normal(0, 0.01)
    streaks = cloud(f.own, f.n, max(1.0, 1.3 * f.u), stretch=f.look.uniform(8, 40), angle=angle)
    bands = cloud(f.own, f.n, 9 * f.u, stretch=f.look.uniform(3, 9), angle=angle)
    grit = cloud(f.own, f.n, 1.0)
    flecks = cloud(f.own, f.n, max(1.0, 2.0 * f.u))
    m.height += np.float32(f.look.uniform(0.03, 0.1)) * streaks + np.float32(f.look.uniform(0.06, 0.14)) * grit
    m.height += np.float32(f.look.uniform(1.0, 4.0)) * cloud(f.own, f.n, 90 * f.u)
    m.dim(np.exp(np.float32(f.look.uniform(0.02, 0.08)) * streaks + np.float32(f.look.uniform(0.02, 0.07)) * bands
                 + np.float32(f.look.uniform(0.05, 0.13)) * grit + 0.04 * flecks))  # fmt: skip
    # The tile is the segment of a ring, so it curves away from the lamp across the grinding.
    _, across = f.turned(angle)
    bow = f.look.uniform(0.0, 0.35)
    m.height -= np.float32(bow / f.n) * across * across
    m.level = f.look.uniform(0.035, 0.13)
    m.notes.update(vignette=f.look.uniform(0.1, 0.8), relief=0.6)
    m.inner = (tone * 1.6,) * 3
    if f.look.random() < 0.3:
        _chamfer(f, m, angle)
    return m


def _chamfer(f: Frame, m: Matter, angle: float) -> None:
    along, _ = f.turned(angle + math.pi / 2)
    inset = np.float32(f.n * f.look.uniform(0.36, 0.46) + f.own.normal(0, f.u))
    past = along * np.float32(f.look.choice([-1.0, 1.0])) - inset
    m.height -= np.maximum(past, 0.0) * np.float32(f.look.uniform(0.3, 0.9))
    m.dim(1.0 + np.float32(f.look.uniform(-0.4, 0.8)) * smoothstep(-1.0, 1.5, past))
