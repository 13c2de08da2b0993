"""Defects that lie on the matter or change its colour: stain, contamination, fray, discolouration, rust, unevenness."""

from __future__ import annotations

import math

import cv2
import numpy as np

from flawsmith.data.factory.hit import Hit
from flawsmith.data.factory.matter import Matter
from flawsmith.data.factory.noise import Field, cloud, smoothstep, stroke, walk

_LIQUIDS = (
    (0.25, 0.14, 0.06), (0.05, 0.05, 0.06), (0.3, 0.05, 0.04), (0.06, 0.1, 0.3), (0.45, 0.36, 0.12), (0.7, 0.7, 0.68),
    (0.1, 0.2, 0.08),
)  # fmt: skip
_DIRT = (
    (0.04, 0.035, 0.03),
    (0.7, 0.68, 0.62),
    (0.4, 0.06, 0.04),
    (0.06, 0.12, 0.4),
    (0.25, 0.18, 0.1),
    (0.6, 0.5, 0.1),
)
_OXIDES = (
    (1.0, 1.0, 1.0), (1.0, 0.85, 0.5), (0.85, 0.55, 0.3), (0.6, 0.38, 0.55), (0.35, 0.45, 0.85), (0.7, 0.8, 0.95),
)  # fmt: skip


def stain(m: Matter, h: Hit) -> Field:
    """Let a liquid dry: a soft or sharp-edged blot with a darker rim, or a gloss of oil; the ground shows through."""
    rng = h.rng
    d = h.blob(ragged=rng.uniform(0.15, 0.5), aspect=rng.uniform(1, 1.8))
    soft = rng.uniform(0.06, 0.4)
    body = smoothstep(1.0 + soft, 1.0 - soft, d)
    rim = np.exp(-(((d - 1.0) / np.float32(0.07 + soft * 0.3)) ** 2)) * np.float32(rng.choice([0.0, 0.5, 1.0]))
    cover = np.clip(body * (0.75 + 0.2 * cloud(rng, h.n, max(h.r * 0.5, 3), octaves=2)) + 0.6 * rim, 0, 1)
    if rng.random() < 0.3:
        # Drops thrown off beside the main blot.
        for _ in range(int(rng.integers(2, 7))):
            far, turn, size = h.r * rng.uniform(1.1, 1.8), rng.uniform(0, 6.28), max(1.2, h.r * rng.uniform(0.05, 0.16))
            x, y = h.x + far * math.cos(turn), h.y + far * math.sin(turn)
            drop = np.hypot(np.arange(h.n)[None, :] - x, np.arange(h.n)[:, None] - y)
            cover = np.maximum(cover, smoothstep(size + 0.8, size - 0.8, drop.astype(np.float32)))
    colour = np.asarray(_LIQUIDS[int(rng.choice(7, p=[0.3, 0.28, 0.07, 0.07, 0.08, 0.15, 0.05]))], np.float32)
    strength = np.float32(min(0.95, 0.3 + 0.6 * h.power))
    c = (cover * strength)[..., None]
    if rng.random() < 0.65:
        # Soaked in: filters the ground's own colour.
        hint = colour / max(float(colour.max()), 0.05)
        m.albedo *= 1.0 - c * (1.0 - np.float32(0.45) * hint)
    else:
        m.albedo += 0.8 * c * (colour - m.albedo)
    m.set_rough(cover * strength, float(rng.choice([0.25, 0.5, 0.9])))
    m.set_metal(cover * strength * 0.5, 0.1)
    return cover


def contamination(m: Matter, h: Hit) -> Field:
    """Drop something foreign: a fibre, dust, a crumb or chip, or a smear of paste."""
    rng = h.rng
    kind = str(rng.choice(["fibre", "dust", "crumb", "smear"], p=[0.35, 0.2, 0.3, 0.15]))
    colour = np.asarray(_DIRT[int(rng.integers(len(_DIRT)))], np.float32)
    ground = float(m.albedo.mean())
    if abs(float(colour.mean()) - ground) < 0.12 + 0.1 * h.power:
        colour = np.asarray((0.75, 0.73, 0.7) if ground < 0.3 else (0.03, 0.03, 0.03), np.float32)
    if kind == "fibre":
        path = walk(rng, h.x - math.cos(h.angle) * h.r * 0.7, h.y - math.sin(h.angle) * h.r * 0.7, 2 * h.r, h.angle,
                    step=2.5 * h.u, wander=0.16, curl=rng.normal(0, 0.06))  # fmt: skip
        cover = stroke(h.n, path, max(0.7, h.u * rng.uniform(0.8, 2.2)))
        rise = 2.2 * h.u
    elif kind == "dust":
        cover = np.zeros((h.n, h.n), np.float32)
        for _ in range(int(rng.integers(5, 30))):
            x, y = h.x + rng.normal(0, h.r * 0.6), h.y + rng.normal(0, h.r * 0.6)
            bit = walk(rng, x, y, h.u * rng.uniform(1, 4.5), rng.uniform(0, 6.28), step=1.2 * h.u, wander=0.6)
            cover = np.maximum(cover, stroke(h.n, bit, max(0.7, h.u * rng.uniform(0.7, 2.4))))
        rise = 1.2 * h.u
    elif kind == "crumb":
        d = h.blob(max(0.5 * h.r, 2.5 * h.u), ragged=0.35, aspect=rng.uniform(1, 2.2), detail=0.7)
        cover = smoothstep(1.06, 0.92, d)
        rise = max(0.25 * h.r, 2.0 * h.u)
        lumps = cloud(rng, h.n, max(h.r * 0.25, 2.0), octaves=2)
        m.height += cover * np.float32(rise * 0.3) * lumps + np.float32(rise * 0.6) * np.clip(1 - d * d, 0, 1)
        m.tint(cover, colour)
        m.dim(1.0 + cover * 0.12 * lumps)
    else:
        d = h.blob(ragged=0.45, aspect=rng.uniform(1.5, 3.5))
        wipe = cloud(rng, h.n, max(1.2, 2.0 * h.u), stretch=9, angle=h.angle)
        cover = smoothstep(1.05, 0.8, d) * np.clip(0.85 + 0.2 * wipe, 0.3, 1.0)
        rise = 1.4 * h.u
        m.height += np.float32(0.12 * h.u) * cover * wipe
    m.height += np.float32(rise) * cover
    if m.alpha is not None:
        # What lies on a part may stick out over its outline.
        m.alpha = np.maximum(m.alpha, cover)
    m.tint(cover * np.float32(min(1.0, 0.6 + 0.5 * h.power)), colour)
    m.set_metal(cover, 1.0 if kind == "crumb" and rng.random() < 0.2 else 0.0)
    m.set_rough(cover, float(rng.choice([0.3, 0.9])))
    return cover


def fray(m: Matter, h: Hit) -> Field:
    """Pull the matter apart: broken yarn ends over a gap in cloth, splinters along wood, a torn edge elsewhere."""
    rng = h.rng
    d = h.blob(0.75 * h.r, ragged=0.35, aspect=rng.uniform(1, 2.0))
    gap = smoothstep(1.0, 0.7, d)
    cloth = "yarn" in m.notes
    fibrous = cloth or "fibre" in m.notes
    axis = float(m.notes.get("angle", h.angle))
    wide = float(m.notes["pitch"]) * 0.35 if cloth else 1.3 * h.u
    if not fibrous:
        # Pressed powder has no threads: it crumbles to a ragged, pitted patch.
        crumble = cloud(rng, h.n, max(2.6 * h.u, 1.5), octaves=2)
        gap = gap * np.clip(0.75 + 0.5 * crumble, 0.1, 1.2)
    m.height -= np.float32(max(2.0 * h.u, wide)) * gap
    m.tint(0.85 * gap, np.asarray(m.inner) * (1.0 if cloth else 0.55))
    m.dim(1.0 - 0.3 * gap)
    m.set_rough(gap, 0.95)
    m.set_metal(gap, 0.15 * float(m.metal.mean()))
    ends = np.zeros((h.n, h.n), np.float32)
    for _ in range(int(8 + 26 * h.power)):
        turn = rng.uniform(0, 6.28)
        start = h.r * 0.75 * rng.uniform(0.3, 1.1)
        x, y = h.x + start * math.cos(turn), h.y + start * math.sin(turn)
        lean = axis + (rng.choice([0, 0.5, 1, 1.5]) if cloth else rng.choice([0, 1]) + rng.normal(0, 0.08)) * math.pi
        reach = h.r * rng.uniform(0.35, 1.0) * (1.0 if fibrous else 0.35)
        path = walk(rng, x, y, reach, lean + rng.normal(0, 0.3), step=2.5 * h.u, wander=0.14)
        thread = stroke(h.n, path, max(0.6, min(wide, 2.5 * h.u) * rng.uniform(0.3, 0.9)))
        ends = np.maximum(ends, thread * np.float32(rng.uniform(0.5, 1)))
    m.height += np.float32(1.8 * h.u) * ends
    colour = np.asarray(m.notes["yarn"], np.float32) * 1.15 if cloth else np.asarray(m.inner, np.float32) * 1.05
    m.tint(0.9 * ends, np.minimum(colour, 0.9))
    m.set_rough(ends, 0.9)
    torn: Field = np.maximum(gap, ends)
    return torn if m.alpha is None else torn * m.alpha


def discolouration(m: Matter, h: Hit) -> Field:
    """Change the colour of a patch with no edge: heat tints on metal, bleach, mould or a wrong batch elsewhere."""
    rng = h.rng
    d = h.blob(1.1 * h.r, ragged=0.4, aspect=rng.uniform(1, 2.0))
    patch = smoothstep(1.3, 0.3, d)
    strength = np.float32(min(0.9, 0.3 + 0.5 * h.power))
    if float(m.metal.mean()) > 0.5 and rng.random() < 0.7:
        # Oxide films on hot metal: straw, brown, purple, blue, from the rim inwards.
        film = np.clip(patch * rng.uniform(2.5, 5.0), 0, 4.99)
        stops = np.array(_OXIDES)
        tint = np.stack([np.interp(film, np.arange(6), stops[:, k]) for k in range(3)], -1).astype(np.float32)
        m.albedo *= 1.0 + strength * (tint - 1.0)
        return patch
    if rng.random() < 0.4:
        patch = patch * smoothstep(-0.5, 0.9, cloud(rng, h.n, max(h.r * 0.22, 2.5), octaves=3, gain=0.6))
    if float(m.albedo.mean()) < 0.1 and rng.random() < 0.8:
        # On a dark ground a film shows pale: flux, bloom, lime.
        m.tint(
            patch * strength * np.float32(rng.uniform(0.3, 0.9)), np.array([0.3, 0.29, 0.25]) * rng.uniform(0.7, 1.3)
        )
        m.set_rough(patch, 0.9)
        return patch
    shift = rng.choice([0.35, 0.5, 1.7]) * np.exp(rng.normal(0, 0.13, 3))
    if float(m.albedo.mean()) > 0.45:
        shift = np.minimum(shift, 0.7)
    c = (patch * strength)[..., None]
    m.albedo *= 1.0 + c * (shift.astype(np.float32) - 1.0)
    np.minimum(m.albedo, 0.98, out=m.albedo)
    return patch


def rust(m: Matter, h: Hit) -> Field:
    """Corrode: orange-brown scale, rough and pitted, with a stained halo."""
    rng = h.rng
    d = h.blob(ragged=0.5, aspect=rng.uniform(1, 1.8), detail=0.7)
    texture = cloud(rng, h.n, max(5 * h.u, 2), octaves=4, gain=0.7)
    scale = smoothstep(-0.1, 0.35, 1.05 - d + 0.2 * texture)
    halo = smoothstep(1.7, 0.7, d) * np.float32(0.35)
    strength = np.float32(min(1.0, 0.5 + 0.5 * h.power))
    m.tint(halo * strength, (0.3, 0.17, 0.08))
    mix = smoothstep(-1.0, 1.2, texture)[..., None]
    colour = (1 - mix) * np.array([0.1, 0.035, 0.015], np.float32) + mix * np.array([0.36, 0.15, 0.045], np.float32)
    m.albedo += (scale * strength)[..., None] * (colour - m.albedo)
    m.height += scale * (0.5 * np.float32(h.u) * texture + np.float32(0.4 * h.u))
    m.set_rough(np.maximum(scale, halo), 0.95)
    m.set_metal(np.maximum(scale, 0.6 * halo), 0.0)
    return scale


def uneven(m: Matter, h: Hit) -> Field:
    """Let the finish vary broadly: a band or field ground, pressed or glazed to another depth and tone."""
    rng = h.rng
    d = h.blob(1.25 * h.r, ragged=0.3, aspect=rng.uniform(1.0, 3.0))
    field = smoothstep(1.25, 0.55, d)
    mottle = cloud(rng, h.n, max(h.r * 0.35, 3.0), octaves=3, gain=0.6)
    waves = cloud(rng, h.n, 5 * h.u, stretch=5, angle=h.angle)
    change = float(rng.choice([-1, 1])) * (0.18 + 0.4 * h.power)
    m.dim(np.exp(field * np.float32(change) * (0.9 + 0.22 * mottle)))
    np.minimum(m.albedo, 0.98, out=m.albedo)
    m.height += field * (np.float32(0.1 * h.u * h.power) * waves + np.float32(0.01 * h.r * h.power) * mottle)
    m.set_rough(0.6 * field, float(rng.choice([0.3, 0.85])))
    return field


def solder(m: Matter, h: Hit) -> Field:
    """Spill solder on a board: a shiny blob, a bridge or splashed balls."""
    rng = h.rng
    total: Field = np.zeros((h.n, h.n), np.float32)
    xx, yy = np.arange(h.n, dtype=np.float32)[None, :], np.arange(h.n, dtype=np.float32)[:, None]
    balls = [(h.x, h.y, max(2.5 * h.u, h.r * rng.uniform(0.25, 0.5)))]
    if rng.random() < 0.6:
        far = h.r * rng.uniform(0.4, 1.0)
        dx, dy = far * math.cos(h.angle), far * math.sin(h.angle)
        balls += [(h.x + k * dx, h.y + k * dy, h.r * 0.22 + 1.5 * h.u) for k in (-1, -0.5, 0.5, 1)]
    for _ in range(int(rng.integers(0, 7))):
        balls.append((h.x + rng.normal(0, h.r), h.y + rng.normal(0, h.r), h.u * rng.uniform(1.3, 3.0)))
    for x, y, size in balls:
        d = ((xx - np.float32(x)) ** 2 + (yy - np.float32(y)) ** 2) * np.float32(1 / size**2)
        total = np.maximum(total, np.sqrt(np.maximum(1.0 - d, 0.0)) * np.float32(size))
    total = cv2.GaussianBlur(total, (0, 0), 0.8 * h.u)
    cover = smoothstep(0.25 * h.u, 1.1 * h.u, total)
    m.height += total * np.float32(0.8)
    m.tint(cover, (0.72, 0.72, 0.74))
    m.set_metal(cover, 1.0)
    m.set_rough(cover, 0.2)
    return cover
