"""Defects that take matter away or deform it: scratch, crack, dent, hole, chip, pores, cut, bend, burr, abrasion."""

from __future__ import annotations

import math

import cv2
import numpy as np

from flawsmith.data.factory.hit import Hit
from flawsmith.data.factory.matter import Matter
from flawsmith.data.factory.noise import Field, cells, cloud, smoothstep, stroke, walk


def scratch(m: Matter, h: Hit) -> Field:
    """Plough one groove, or a few side by side, with thrown-up lips; the bared bulk glints."""
    rng = h.rng
    count = 1 if rng.random() < 0.65 else int(rng.integers(2, 5))
    total = np.zeros((h.n, h.n), np.float32)
    curl = rng.normal(0, 0.012)
    for k in range(count):
        long = 2 * h.r * rng.uniform(0.7, 1.1) * (1.0 if k == 0 else rng.uniform(0.3, 1.0))
        side = (k - (count - 1) / 2) * h.u * rng.uniform(2.5, 6)
        turn = h.angle + rng.normal(0, 0.05 if k else 0.0)
        x = h.x - math.cos(turn) * long / 2 - math.sin(turn) * side
        y = h.y - math.sin(turn) * long / 2 + math.cos(turn) * side
        path = walk(rng, x, y, long, turn, step=4 * h.u, wander=0.03, curl=curl)
        at = np.linspace(0, 1, len(path) - 1)
        swell = np.sqrt(np.clip(np.sin(np.pi * at ** rng.uniform(0.6, 1.4)), 0.05, 1))
        wide = h.u * (0.8 + 1.7 * h.power * rng.uniform(0.4, 1.0)) * swell
        total = np.maximum(total, stroke(h.n, path, np.maximum(wide, 0.5)))
    # A tool skips: the groove is deeper here and shallower there.
    total *= np.clip(0.85 + 0.3 * cloud(rng, h.n, 9 * h.u), 0.25, 1.0)
    lips = np.maximum(cv2.GaussianBlur(total, (0, 0), 1.5 * h.u) - 0.8 * total, 0)
    m.height -= np.float32(h.u * (0.5 + 1.3 * h.power)) * total
    m.height += np.float32(h.u * (0.3 + 1.1 * h.power)) * lips
    bare = total * np.float32(min(1.0, 0.4 + 0.6 * h.power * rng.uniform(0.3, 1.2)))
    bright = rng.random() < 0.6
    m.tint(bare, np.minimum(np.asarray(m.inner) * (1.35 if bright else 0.8), 0.95))
    # Torn metal scatters in place of mirroring: bright wherever the lamp can reach it.
    m.set_metal(bare, 0.25 if bright else float(m.metal.mean()))
    m.set_rough(total, 0.8)
    return total


def crack(m: Matter, h: Hit) -> Field:
    """Part the matter along a jagged, forking hairline of uneven width, dark to the bottom."""
    rng = h.rng
    total = np.zeros((h.n, h.n), np.float32)
    long = 2 * h.r * rng.uniform(0.8, 1.1)
    if "fibre" in m.notes and rng.random() < 0.8:
        # Wood splits along its grain.
        h.angle = float(m.notes["fibre"]) + rng.normal(0, 0.06)
    branches = [(h.x - math.cos(h.angle) * long / 2, h.y - math.sin(h.angle) * long / 2, long, h.angle, 1.0)]
    made = 0
    while branches and made < 8:
        x, y, reach, turn, thick = branches.pop()
        made += 1
        path = walk(rng, x, y, reach, turn, step=3.2 * h.u, wander=0.0)
        # Cracks run straight, then kick: noise across the run at two scales, pinned at the start.
        across = np.array([-math.sin(turn), math.cos(turn)])
        kicks = np.cumsum(rng.normal(0, 1.1 * h.u, len(path))) * 0.7 + rng.normal(0, 0.7 * h.u, len(path))
        path = path + across * (kicks - kicks[0])[:, None]
        at = np.linspace(0, 1, len(path) - 1)
        wide = h.u * thick * (0.7 + 1.3 * h.power) * (1 - 0.7 * at) * np.exp(rng.normal(0, 0.3, len(at)))
        total = np.maximum(total, stroke(h.n, path, np.clip(wide, 0.4, None)))
        for _ in range(int(rng.integers(0, 3)) if reach > 12 * h.u else 0):
            k = int(rng.integers(1, len(path)))
            fork = turn + rng.choice([-1, 1]) * rng.uniform(0.35, 1.1)
            branches.append((path[k, 0], path[k, 1], reach * rng.uniform(0.2, 0.55), fork, thick * 0.7))
    m.height -= np.float32(2.6 * h.u) * total
    m.dim(1.0 - np.float32(min(0.96, 0.6 + 0.4 * h.power)) * total)
    m.set_rough(total, 1.0)
    m.set_metal(total, 0.1)
    return total


def dent(m: Matter, h: Hit) -> Field:
    """Press a smooth hollow, with a low rim round it."""
    d = h.blob(ragged=0.12, aspect=h.rng.uniform(1, 1.9))
    bowl = np.exp(-((d / 0.62) ** 2) * np.float32(1.0))
    rim = np.exp(-(((d - 1.05) / 0.28) ** 2))
    deep = h.r * (0.1 + 0.28 * h.power)
    m.height -= np.float32(deep) * bowl
    m.height += np.float32(deep * 0.12) * rim
    m.set_rough(0.3 * bowl, 0.25)
    return bowl


def hole(m: Matter, h: Hit) -> Field:
    """Go right through, or deep: dark inside, a lit wall, a worn rim."""
    rng = h.rng
    d = h.blob(max(0.55 * h.r, 2.2 * h.u), ragged=rng.uniform(0.02, 0.28), aspect=rng.uniform(1, 1.4))
    radius = max(0.55 * h.r, 2.2 * h.u)
    inside = smoothstep(1.0 + 0.8 / radius, 1.0 - 0.8 / radius, d)
    wall = smoothstep(1.0, 0.62, d)
    m.height -= np.float32(min(0.8 * radius, 9 * h.u)) * wall
    rim = np.exp(-(((d - 1.12) / 0.14) ** 2))
    m.height += np.float32(0.8 * h.u * h.power) * rim
    m.tint(inside, np.asarray(m.inner) * 0.35)
    dark = smoothstep(1.0, 0.72, d)
    m.dim(1.0 - 0.95 * dark)
    m.set_rough(inside, 0.95)
    m.set_metal(inside, 0.1)
    m.tint(0.35 * rim * np.float32(h.power), m.inner)
    if "yarn" in m.notes:
        _loose_ends(m, h, radius)
    return inside


def _loose_ends(m: Matter, h: Hit, radius: float) -> None:
    """Let torn yarn stick out into a hole in cloth."""
    rng = h.rng
    wide = min(float(m.notes["pitch"]) * 0.3, 2.2 * h.u)
    ends = np.zeros((h.n, h.n), np.float32)
    for _ in range(int(rng.integers(5, 16))):
        turn, start = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.8, 1.15)
        x, y = h.x + start * math.cos(turn), h.y + start * math.sin(turn)
        inwards = turn + math.pi + rng.normal(0, 0.5)
        path = walk(rng, x, y, radius * rng.uniform(0.25, 0.8), inwards, step=2 * h.u, wander=0.2)
        ends = np.maximum(
            ends, stroke(h.n, path, max(0.6, wide * rng.uniform(0.3, 1.0))) * np.float32(rng.uniform(0.5, 1))
        )
    m.height += np.float32(1.5 * h.u) * ends
    m.tint(0.9 * ends, np.asarray(m.notes["yarn" if rng.random() < 0.6 else "pale"], np.float32))
    m.set_rough(ends, 0.9)


def chip(m: Matter, h: Hit) -> Field:
    """Break a piece out, at an outline or from the face: a steep wall and rough fracture facets."""
    rng = h.rng
    if "tip" in m.notes and rng.random() < 0.35:
        return _snapped(m, h)
    d = h.blob(ragged=0.22, aspect=rng.uniform(0.75, 1.5), detail=0.65)
    _, tone = cells(rng, h.n, max(h.r * rng.uniform(0.4, 0.8), 4.0))
    d = d + np.float32(0.14) * (tone - 0.5)
    inside = smoothstep(1.0 + 1.0 / h.r, 1.0 - 1.0 / h.r, d)
    rough = cloud(rng, h.n, max(h.r * 0.35, 3.0), octaves=3, gain=0.65)
    if "fibre" in m.notes:
        rough = cloud(rng, h.n, 1.6 * h.u, octaves=2, stretch=12, angle=float(m.notes["fibre"]))
        tone = 0.5 + 0.3 * cloud(rng, h.n, 4 * h.u, stretch=8, angle=float(m.notes["fibre"]))
    # Brittle matter breaks in facets; metal and laminate tear smoothly and shallowly.
    relief = float(m.notes.get("relief", 0.4 if float(m.metal.mean()) > 0.5 else 1.0))
    deep = h.r * (0.14 + 0.22 * h.power) * (0.5 + 0.5 * relief)
    bowl = np.clip(1.15 - d * d * 0.8, 0, 1)
    m.height += (
        inside * np.float32(deep) * (np.float32(relief) * (0.3 * rough + 0.45 * (tone - 0.5)) - 0.5 - 0.8 * bowl)
    )
    m.tint(0.92 * inside, m.inner)
    m.dim(1.0 + inside * (0.1 * rough + 0.12 * (tone - 0.5)))
    m.set_rough(inside, 0.85)
    m.set_metal(inside, 0.35 * float(m.metal.mean()))
    if m.alpha is not None:
        rest = rng.uniform(0.72, 0.92)
        gone = smoothstep(rest + 1.0 / h.r, rest - 1.0 / h.r, d)
        inside = inside * m.alpha
        m.alpha *= 1.0 - gone
    return inside


def _snapped(m: Matter, h: Hit) -> Field:
    """Break a long part's end off: a jagged, brighter fracture where it was."""
    assert m.alpha is not None
    rng = h.rng
    tip_x, tip_y = m.notes["tip"]
    axis = float(m.notes["angle"])
    half = (h.n - 1) / 2
    yy, xx = np.mgrid[0 : h.n, 0 : h.n].astype(np.float32)
    along = (xx - np.float32(half + tip_x)) * np.float32(math.cos(axis))
    along += (yy - np.float32(half + tip_y)) * np.float32(math.sin(axis))
    lost = h.n * (0.06 + 0.16 * min(h.power, 1.0))
    past = along + np.float32(lost) + np.float32(1.6 * h.u) * cloud(rng, h.n, 4 * h.u, octaves=2)
    gone = smoothstep(-0.6, 0.6, past)
    face = smoothstep(-4.0 * h.u, -1.0 * h.u, past) * (1 - gone)
    m.height -= face * np.float32(2.0 * h.u) * (1.0 + 0.4 * cloud(rng, h.n, 2.5 * h.u))
    m.tint(0.8 * face, m.inner)
    m.set_rough(face, 0.8)
    before = m.alpha.copy()
    m.alpha *= 1 - gone
    lost_part: Field = before * np.maximum(gone, face)
    return lost_part


def pores(m: Matter, h: Hit) -> Field:
    """Blow gas holes: one, or a cluster of dark pits of uneven size."""
    rng = h.rng
    count = int(rng.integers(1, 4)) if rng.random() < 0.55 else int(rng.integers(4, 16))
    total = np.zeros((h.n, h.n), np.float32)
    xx, yy = np.arange(h.n, dtype=np.float32)[None, :], np.arange(h.n, dtype=np.float32)[:, None]
    wobble = np.exp(0.22 * cloud(rng, h.n, 5 * h.u, octaves=2))
    for k in range(count):
        spread = 0.0 if k == 0 else h.r * 0.6
        x, y = h.x + rng.normal(0, spread + 1e-6), h.y + rng.normal(0, spread + 1e-6)
        size = max(1.2, h.u * rng.uniform(1.4, 2.6 + 3.6 * h.power) * (1.4 if k == 0 else 0.8))
        s = rng.uniform(1, 1.5)
        a, b = (xx - np.float32(x)) / np.float32(size * s), (yy - np.float32(y)) / np.float32(size / s)
        d = np.sqrt(a * a + b * b) * wobble
        total = np.maximum(total, smoothstep(1.0 + 0.7 / size, 1.0 - 0.7 / size, d))
    m.height -= np.float32(h.u * (1.5 + 2.0 * h.power)) * cv2.GaussianBlur(total, (0, 0), 0.7 * h.u + 0.2)
    m.dim(1.0 - np.float32(min(0.97, 0.65 + 0.35 * h.power)) * total)
    m.set_rough(total, 0.95)
    m.set_metal(total, 0.15)
    return total


def cut(m: Matter, h: Hit) -> Field:
    """Slit the skin with a blade: a gaping lens, dark inside, its lips curled up."""
    rng = h.rng
    long = 2 * h.r
    path = walk(rng, h.x - math.cos(h.angle) * h.r, h.y - math.sin(h.angle) * h.r, long, h.angle, step=3 * h.u,
                wander=0.03, curl=rng.normal(0, 0.02))  # fmt: skip
    at = np.linspace(0, 1, len(path) - 1)
    gape = h.u * (1.2 + 4.5 * h.power * rng.uniform(0.3, 1.0)) * np.sin(np.pi * np.clip(at, 0.03, 0.97)) ** 0.8
    slit = stroke(h.n, path, np.maximum(gape, 0.6))
    lip = cv2.GaussianBlur(slit, (0, 0), 2.4 * h.u)
    m.height += np.float32(h.u * (1.0 + 2.2 * h.power)) * np.maximum(lip - 0.2 * slit, 0) * 1.6
    m.height -= np.float32(5 * h.u) * slit
    m.tint(slit, np.asarray(m.inner) * 0.5)
    core = stroke(h.n, path, np.maximum(gape * 0.6, 0.4))
    m.dim(1.0 - 0.85 * core)
    m.set_rough(slit, 0.95)
    m.set_metal(slit, 0.1)
    return slit


def abrasion(m: Matter, h: Hit) -> Field:
    """Rub a patch: many short fine scratches one way, a duller ground between them."""
    rng = h.rng
    d = h.blob(ragged=0.4, aspect=rng.uniform(1, 2.2))
    patch = smoothstep(1.15, 0.5, d)
    lines = cloud(rng, h.n, max(1.0, 1.1 * h.u), stretch=rng.uniform(9, 25), angle=h.angle)
    cross = cloud(rng, h.n, max(1.0, 1.4 * h.u), stretch=rng.uniform(6, 12), angle=h.angle + rng.normal(0, 0.5))
    marks = smoothstep(0.2, 1.4, lines + 0.4 * cross) * patch
    m.height -= np.float32(h.u * (0.25 + 0.6 * h.power)) * marks
    m.height += np.float32(0.2 * h.power) * patch * cross
    bright = np.minimum(np.asarray(m.inner) * rng.choice([0.65, 1.0, 1.35]), 0.95)
    m.tint(np.float32(min(0.9, 0.35 + 0.6 * h.power)) * (0.75 * marks + 0.25 * patch), bright)
    m.set_metal(0.7 * marks, 0.3 * float(m.metal.mean()))
    m.set_rough(patch, 0.75)
    rubbed: Field = np.maximum(marks, 0.3 * patch)
    return rubbed


def bend(m: Matter, h: Hit) -> Field:
    """Bend the part's end aside: the whole matter is carried along an arc."""
    assert m.alpha is not None
    axis = float(m.notes.get("angle", h.angle))
    centre = (h.n - 1) / 2
    if h.rng.random() < 0.5:
        axis += math.pi
    yy, xx = np.mgrid[0 : h.n, 0 : h.n].astype(np.float32)
    c, s = np.float32(math.cos(axis)), np.float32(math.sin(axis))
    along = c * (xx - np.float32(centre)) + s * (yy - np.float32(centre))
    past = np.maximum(along - np.float32(h.n * h.rng.uniform(0.05, 0.18)), 0.0)
    push = np.float32(h.rng.choice([-1, 1]) * (0.0018 + 0.004 * h.power) * 256 / h.n) * past * past
    push = np.clip(push, -0.16 * h.n, 0.16 * h.n)
    x, y = xx - s * push, yy + c * push

    def carry(field: Field, border: int) -> Field:
        return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=border)

    before = m.alpha
    m.alpha = carry(m.alpha, cv2.BORDER_CONSTANT)
    same = cv2.BORDER_REPLICATE
    m.height, m.rough, m.metal, m.albedo = (carry(k, same) for k in (m.height, m.rough, m.metal, m.albedo))
    moved: Field = np.abs(m.alpha - before)
    return moved


def burr(m: Matter, h: Hit) -> Field:
    """Throw up a ragged lip of metal along an outline or a line, bright on its crest."""
    rng = h.rng
    along = h.angle + (math.pi / 2 if m.alpha is not None else 0.0)
    path = walk(
        rng, h.x - math.cos(along) * h.r, h.y - math.sin(along) * h.r, 2 * h.r, along, step=3 * h.u, wander=0.12
    )
    wide = h.u * min(1.6 + 3.2 * h.power, 0.35 * h.r / h.u + 1.0) * np.exp(rng.normal(0, 0.45, len(path) - 1))
    lip = stroke(h.n, path, np.clip(wide, 0.8, None), soft=0.5)
    jag = np.clip(0.8 + 0.4 * cloud(rng, h.n, 3.5 * h.u, octaves=2), 0.2, 1.6)
    m.height += np.float32(h.u * (1.6 + 2.8 * h.power)) * lip * jag
    m.tint(np.float32(min(0.9, 0.4 + 0.5 * h.power)) * lip, np.minimum(np.asarray(m.inner) * 1.2, 0.95))
    m.set_metal(lip * 0.6, 0.3)
    m.set_rough(lip, 0.35)
    if m.alpha is not None:
        m.alpha = np.maximum(m.alpha, smoothstep(0.25, 0.7, lip * jag))
    return lip


def fold(m: Matter, h: Hit) -> Field:
    """Crease soft or sheet matter: a long ridge with a valley at its foot."""
    rng = h.rng
    path = walk(rng, h.x - math.cos(h.angle) * h.r * 1.3, h.y - math.sin(h.angle) * h.r * 1.3, 2.6 * h.r, h.angle,
                step=4 * h.u, wander=0.07)  # fmt: skip
    at = np.linspace(0, 1, len(path) - 1)
    line = stroke(h.n, path, np.maximum(h.u * 3.0 * np.sin(np.pi * np.clip(at, 0.05, 0.95)), 0.6))
    sharp = cv2.GaussianBlur(line, (0, 0), 1.6 * h.u)
    broad = cv2.GaussianBlur(line, (0, 0), 4.5 * h.u)
    m.height += np.float32(h.u * (3.0 + 5.5 * h.power)) * (1.2 * broad + 0.5 * sharp)
    m.dim(1.0 + np.float32(0.2 * h.power * rng.choice([-1, 1])) * sharp)
    return sharp


def blister(m: Matter, h: Hit) -> Field:
    """Raise a bubble, or a few, under the skin."""
    rng = h.rng
    total: Field = np.zeros((h.n, h.n), np.float32)
    xx, yy = np.arange(h.n, dtype=np.float32)[None, :], np.arange(h.n, dtype=np.float32)[:, None]
    for k in range(int(rng.choice([1, 1, 2, 5]))):
        x, y = (h.x, h.y) if k == 0 else (h.x + rng.normal(0, h.r), h.y + rng.normal(0, h.r))
        size = max(2.5, h.r * (0.8 if k == 0 else rng.uniform(0.2, 0.6)))
        d = ((xx - np.float32(x)) ** 2 + (yy - np.float32(y)) ** 2) * np.float32(1 / size**2)
        total = np.maximum(total, np.sqrt(np.maximum(1.0 - d, 0.0)) * np.float32(size))
    total = cv2.GaussianBlur(total, (0, 0), 0.9 * h.u)
    m.height += np.float32(0.3 + 0.45 * h.power) * total
    return (total > 0.1 * h.r).astype(np.float32)
