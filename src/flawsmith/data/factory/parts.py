"""Single parts on a table or before a lamp: screw, washer, nut and tablet."""

from __future__ import annotations

import math

import numpy as np

from flawsmith.data.factory.matter import Frame, Matter, hue, plain
from flawsmith.data.factory.metals import metal_colour
from flawsmith.data.factory.noise import cloud, smoothstep


def _table(f: Frame, m: Matter, bright: float) -> None:
    """Put the part on a bright lamp, a pale sheet or a dark mat; `bright` is the share of the first two."""
    style = f.look.random()
    n = f.n
    dx, dy = f.look.normal(0, 0.12, 2)
    axis = np.linspace(-1, 1, n, dtype=np.float32)
    slope = 1.0 + np.float32(dx) * axis[None, :] + np.float32(dy) * axis[:, None]
    if style < bright * 0.6:
        tone, m.backlit = f.look.uniform(0.7, 1.6), f.look.uniform(0.75, 1.0)
        fleck = 0.01 * cloud(f.own, n, 30 * f.u)
    elif style < bright:
        tone, m.backlit = f.look.uniform(0.35, 0.75), f.look.uniform(0.0, 0.4)
        fleck = 0.012 * cloud(f.own, n, max(1.0, 1.5 * f.u)) + 0.02 * cloud(f.own, n, 40 * f.u)
    else:
        tone, m.backlit = f.look.uniform(0.01, 0.12), 0.0
        fleck = 0.12 * cloud(f.own, n, max(1.0, 1.4 * f.u)) + 0.05 * cloud(f.own, n, 30 * f.u)
    colour = hue(f.look, (tone, tone, tone), 0.06)
    m.under = (slope * (1.0 + fleck))[..., None] * colour


def screw(f: Frame) -> Matter:
    """A screw seen from the side at any turn: head, shank, thread and point."""
    black = f.look.random() < 0.6
    base = hue(f.look, (0.12, 0.12, 0.125), 0.25) if black else metal_colour(f, (0.4, 0.2, 0.25, 0.05, 0.1))
    m = plain(f.n, base, rough=f.look.uniform(0.2, 0.45) if black else f.look.uniform(0.08, 0.3), metal=0.95)
    unit = f.n * f.look.uniform(0.78, 1.0) / 100
    turn = f.own.uniform(0, 2 * math.pi)
    dx, dy = f.own.normal(0, 0.025 * f.n, 2)
    s, t = f.turned(turn, dx, dy)
    s, t = s * np.float32(1 / unit) + 50, t * np.float32(1 / unit)
    long, head, shank = f.look.uniform(66, 84), f.look.uniform(9.5, 15), f.look.uniform(5.2, 7.4)
    head_long, smooth_long = f.look.uniform(6, 10), f.look.uniform(4, 26)
    begin = 50 - long / 2
    pitch, depth = f.look.uniform(3.6, 6.5), f.look.uniform(1.2, 2.2)
    s = s - np.float32(begin)
    countersunk = f.look.random() < 0.6
    point_long = f.look.uniform(6, 14) if f.look.random() < 0.8 else 1.5
    # The thread climbs one pitch a turn: what the camera sees of it leans by half a pitch from edge to edge.
    around = np.arcsin(np.clip(t / np.float32(shank), -1, 1)) * np.float32(1 / (2 * math.pi))
    phase = s * np.float32(1 / pitch) + around + np.float32(f.own.uniform(0, 1))
    tooth = np.abs(phase - np.floor(phase) - 0.5) * 2.0
    tooth = smoothstep(0.25, 0.95, tooth)
    end = np.float32(long)
    taper = np.clip((end - s) * np.float32(1 / point_long), 0, 1)
    taper = np.sqrt(taper * (2 - taper)) if point_long < 3 else taper**0.8
    threaded = smoothstep(head_long + smooth_long, head_long + smooth_long + 4, s)
    radius = (np.float32(shank) - np.float32(depth) * (1 - tooth) * threaded) * taper
    if countersunk:
        cone = head + np.float32(shank - head) * np.clip((s - 2) * np.float32(1 / (head_long - 2)), 0, 1)
    else:
        cap = np.clip(s * np.float32(1 / head_long), 0, 1)
        cone = np.float32(head) * np.sqrt(np.clip(1 - (1 - cap) ** 2 * 0.85, 0, 1))
    in_head = smoothstep(head_long + 0.6, head_long - 0.2, s)
    radius = radius + in_head * (cone - radius)
    inside = np.minimum(radius - np.abs(t), np.minimum(s, end - s)) * np.float32(unit)
    m.alpha = np.clip(inside + 0.5, 0, 1)
    round_ = np.sqrt(np.maximum(radius * radius - t * t, 0.06 * radius * radius + 0.01))
    m.height = (round_ * np.float32(unit)).astype(np.float32)
    m.height += np.float32(0.06) * cloud(f.own, f.n, max(1.0, 1.5 * f.u), octaves=2)
    m.dim(np.exp(0.06 * cloud(f.own, f.n, 5 * f.u, octaves=3) - 0.35 * (1 - tooth) * threaded * (1 - in_head)))
    m.thick = shank * unit * 0.8
    _table(f, m, 0.85)
    m.level = f.look.uniform(0.03, 0.14) if m.backlit > 0.5 else f.look.uniform(0.1, 0.28)
    m.notes.update(angle=turn, tip=(dx + math.cos(turn) * long / 2 * unit, dy + math.sin(turn) * long / 2 * unit))
    m.inner = tuple(np.minimum(base * 2.2 + 0.08, 0.8))
    return m


def washer(f: Frame) -> Matter:
    """A ring: turned metal, or dark rubber."""
    rubber = f.look.random() < 0.25
    base = hue(f.look, (0.035, 0.035, 0.037), 0.2) if rubber else metal_colour(f)
    m = plain(f.n, base, rough=0.6 if rubber else f.look.uniform(0.25, 0.45), metal=0.0 if rubber else 1.0)
    m.gleam = 0.1
    outer = f.n * f.look.uniform(0.33, 0.44)
    inner = outer * f.look.uniform(0.4, 0.68)
    x, y = f.turned(0.0, f.own.normal(0, 0.02 * f.n), f.own.normal(0, 0.02 * f.n))
    far = np.sqrt(x * x + y * y)
    inside = np.minimum(far - np.float32(inner), np.float32(outer) - far)
    m.alpha = np.clip(inside + 0.5, 0, 1)
    if rubber:
        half = (outer - inner) / 2
        rise = half * half - (half - np.clip(inside, 0, half)) ** 2
        m.height = np.sqrt(np.maximum(rise, 0.0)).astype(np.float32) * np.float32(0.8)
        m.height += 0.08 * cloud(f.own, f.n, max(1.0, 1.5 * f.u))
    else:
        bevel = f.u * f.look.uniform(1.5, 5)
        m.height = np.float32(bevel * 0.7) * smoothstep(0.0, bevel, inside)
        turns = np.arange(0, outer + 5, 1.0)
        rings = np.interp(np.arange(0, outer + 4, 0.5), turns, f.own.normal(0, 1, len(turns))).astype(np.float32)
        mark = rings[np.clip(far * 2, 0, len(rings) - 1).astype(np.int32)]
        m.height += np.float32(f.look.uniform(0.02, 0.1)) * mark
        m.dim(np.exp(0.05 * mark + 0.04 * cloud(f.own, f.n, 20 * f.u, octaves=3)))
    m.thick = 6 * f.u
    _table(f, m, 0.6)
    m.level = f.look.uniform(0.05, 0.14) if m.backlit > 0.5 or rubber else f.look.uniform(0.14, 0.34)
    m.inner = tuple(np.minimum(base * 1.4 + 0.03, 0.85))
    return m


def nut(f: Frame) -> Matter:
    """A hexagon nut from above, with its thread in the bore."""
    base = metal_colour(f)
    m = plain(f.n, base, rough=f.look.uniform(0.25, 0.45), metal=1.0)
    flat = f.n * f.look.uniform(0.3, 0.4)
    bore = flat * f.look.uniform(0.45, 0.6)
    turn = f.own.uniform(0, math.pi)
    x, y = f.turned(turn, f.own.normal(0, 0.03 * f.n), f.own.normal(0, 0.03 * f.n))
    far = np.sqrt(x * x + y * y)
    hexagon = np.maximum(np.abs(x), np.abs(0.5 * x + np.float32(0.8660254) * y))
    hexagon = np.maximum(hexagon, np.abs(0.5 * x - np.float32(0.8660254) * y))
    outside = np.float32(flat) - hexagon
    m.alpha = np.clip(np.minimum(outside, far - np.float32(bore * 0.82)) + 0.5, 0, 1)
    chamfer = np.maximum(far - np.float32(flat * 0.98), 0.0)
    m.height = -0.55 * chamfer
    phase = (np.float32(bore) - far) * np.float32(1 / (bore * 0.06)) + np.arctan2(y, x) * np.float32(1 / (2 * math.pi))
    thread = smoothstep(bore + 0.7, bore - 0.7, far)
    m.height += thread * (-3.0 * f.u + 1.6 * np.float32(f.u) * np.abs(phase - np.floor(phase) - 0.5))
    m.height -= np.float32(2 * f.u) * smoothstep(bore * 1.12, bore, far)
    m.dim(1.0 - 0.55 * thread)
    lay = cloud(f.own, f.n, max(1.0, 1.3 * f.u), stretch=f.look.uniform(1, 14), angle=turn)
    m.height += np.float32(f.look.uniform(0.03, 0.12)) * lay
    m.dim(np.exp(0.05 * lay + 0.05 * cloud(f.own, f.n, 14 * f.u, octaves=3)))
    m.thick = 12 * f.u
    _table(f, m, 0.55)
    m.level = f.look.uniform(0.08, 0.16) if m.backlit > 0.5 else f.look.uniform(0.14, 0.34)
    m.inner = tuple(np.minimum(base * 1.3 + 0.03, 0.85))
    return m


def tablet(f: Frame) -> Matter:
    """A pressed tablet or coated pill, domed, with or without a score line."""
    colours = ((0.75, 0.74, 0.7), (0.7, 0.35, 0.3), (0.75, 0.65, 0.25), (0.35, 0.5, 0.65), (0.6, 0.3, 0.12))
    base = hue(f.look, colours[int(f.look.integers(len(colours)))], 0.08)
    m = plain(f.n, base, rough=f.look.uniform(0.35, 0.8), metal=0.0)
    m.gleam = f.look.uniform(0.02, 0.12)
    size = f.n * f.look.uniform(0.27, 0.38)
    aspect = f.look.choice([1.0, 1.0, 1.5, 2.0])
    turn = f.own.uniform(0, math.pi)
    x, y = f.turned(turn, f.own.normal(0, 0.03 * f.n), f.own.normal(0, 0.03 * f.n))
    stretch = np.maximum(np.abs(x) - np.float32(size * (aspect - 1) / aspect), 0.0)
    radius = size / (1.0 if aspect == 1.0 else aspect)
    far = np.sqrt(stretch * stretch + y * y)
    inside = np.float32(radius) - far
    m.alpha = np.clip(inside + 0.5, 0, 1)
    dome = f.look.uniform(0.25, 0.6)
    m.height = np.float32(dome * radius) * np.sqrt(np.maximum(1.0 - (far / np.float32(radius)) ** 2 * 0.9, 0.02))
    grit = cloud(f.own, f.n, max(1.0, 1.4 * f.u), octaves=2)
    m.height += np.float32(f.look.uniform(0.03, 0.14)) * grit
    if f.look.random() < 0.6:
        m.height -= np.float32(3 * f.u) * smoothstep(2.6 * f.u, 0.6 * f.u, np.abs(x)) * smoothstep(0, 4 * f.u, inside)
    if f.look.random() < 0.4:
        flecks = cloud(f.own, f.n, max(1.5, 3.0 * f.u))
        m.tint(0.6 * smoothstep(1.8, 2.4, flecks), hue(f.look, (0.4, 0.12, 0.08), 0.4))
    m.dim(np.exp(0.025 * grit))
    m.thick = 9 * f.u
    _table(f, m, 0.35)
    m.level = f.look.uniform(0.25, 0.5)
    m.inner = tuple(np.clip(np.array([0.72, 0.7, 0.66]) * f.look.uniform(0.8, 1.1), 0, 0.9))
    return m
