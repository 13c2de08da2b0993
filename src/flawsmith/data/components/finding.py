"""Find components on one picture: closed, compact places that stand out from their surroundings.

What surrounds a place is the median of a neighbourhood larger than it (three sizes are tried, for nobody says how large
components are). Places that depart from that median by more than a limit, at some of several limits, are candidates;
one counts that lies wholly in the picture, is compact, has an edge all round it (a corner of a part has none towards
the part), and departs far more than the ring round it. Ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.data.poisson import grown

_WORK = 256
"""Px of the longer side at which components are looked for."""
_NEAR = (0.12, 0.3, 0.9)
"""Sides of the neighbourhoods, as shares of the picture's longer side."""
_SHARE = (0.0015, 0.45)
"""Of the picture's area: the smallest and largest component."""
_FEWEST = 36
"""Px at the working size that a component has."""
_LEVELS = 7
_SOLID = 0.65
"""Least share of its convex hull that a component fills."""
_STEP = 0.12
"""Least departure from the surroundings, on the scale -1..1."""
_CLEAR = 4.0
"""A component departs by so many times as the ring round it does, and as noise does."""
_EDGE, _EDGED = 0.1, 0.85
"""An edge is a slope of this share of the step, per px; and so much of the outline has one."""
_LIKE = 0.15
"""Most of the ring that may look as the inside does: round a corner of a part much of it is the part."""
_TAIL = 0.3
"""What is thinner than this share of the root of the area, a trace that leads to it say, is no part of it."""
_SOFT, _RING = 2, 5
"""Px at the working size: the soft edge that goes with a component, and the ring that it is compared with."""
_ALIKE = 0.5
"""Overlap from which two are one."""
MOST = 16
"""Components of one picture; more say little that is new."""


@dataclass(frozen=True, slots=True)
class Component:
    """A component on a picture."""

    mask: np.ndarray
    """bool (H,W), its soft edge included."""
    contrast: float
    """How far it departs from its surroundings, over how far the ring round it does; higher = clearer."""


def components_in(picture: np.ndarray, allowed: np.ndarray) -> list[Component]:
    """Return the components of a picture, the clearest first; [] where nothing stands out.

    Args:
        picture: float32 (H,W,3), RGB, [-1,1].
        allowed: bool (H,W): where a component may lie.
    """
    scale = min(1.0, _WORK / max(allowed.shape))
    size = max(round(allowed.shape[1] * scale), 1), max(round(allowed.shape[0] * scale), 1)
    if min(size) < 16:
        return []
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    room = cv2.resize(allowed.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.99
    smooth = cv2.GaussianBlur(small, (0, 0), 0.7)
    slopes = [
        cv2.magnitude(*(cv2.Sobel(plane, cv2.CV_32F, *way, ksize=3, scale=0.125) for way in ((1, 0), (0, 1))))
        for plane in cv2.split(smooth)
    ]
    slope = cv2.dilate(np.max(slopes, axis=0), np.ones((3, 3), np.uint8))
    candidates: list[Component] = []
    for share in _NEAR:
        away = _departure(smooth, share)
        noise = 1.4826 * float(np.median(away)) + 0.01
        lowest = max(_STEP, 2 * noise)
        for limit in np.geomspace(lowest, max(0.7 * float(away.max()), 1.05 * lowest), _LEVELS):
            candidates += _over(smooth, away, slope, float(limit), noise, room)
    candidates.sort(key=lambda one: -min(one.contrast, 20.0) * float(np.sqrt(one.mask.sum())))
    kept: list[Component] = []
    for one in candidates:
        if len(kept) < MOST and all(overlap(one.mask, other.mask) < _ALIKE for other in kept):
            kept.append(one)
    return [_at_full_size(one, allowed) for one in kept]


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of the smaller of two masks that lies in the other, 0 to 1."""
    return float((first & second).sum()) / max(float(min(first.sum(), second.sum())), 1.0)


def _departure(picture: np.ndarray, share: float) -> np.ndarray:
    """Return how far each pixel is from the median of its neighbourhood, float32 (h,w)."""
    side = int(share * max(picture.shape[:2])) | 1
    half = side // 2
    levels = np.clip((picture + 1) * 127.5, 0, 255).astype(np.uint8)
    around = cv2.copyMakeBorder(
        levels, half, half, half, half, cv2.BORDER_REFLECT_101 if half < min(levels.shape[:2]) else cv2.BORDER_REPLICATE
    )
    median = cv2.medianBlur(around, min(side, 255))[half : half + levels.shape[0], half : half + levels.shape[1]]
    return np.asarray(np.abs(picture - (median.astype(np.float32) / 127.5 - 1)).max(axis=2))


def _over(
    picture: np.ndarray, away: np.ndarray, slope: np.ndarray, limit: float, noise: float, room: np.ndarray
) -> list[Component]:
    """Return the components among the places that depart by more than a limit."""
    height, width = away.shape
    outlines, _ = cv2.findContours((away > limit).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    components = []
    for outline in outlines:
        left, top, wide, high = cv2.boundingRect(outline)
        margin = _SOFT + 1
        if left < margin or top < margin or left + wide > width - margin or top + high > height - margin:
            continue
        region = cv2.drawContours(np.zeros(away.shape, np.uint8), [outline], -1, 1, -1)
        thin = int(_TAIL * np.sqrt(region.sum())) | 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thin, thin))
        opened = np.minimum(
            region, cv2.dilate(cv2.morphologyEx(region, cv2.MORPH_OPEN, disc), disc)
        )  # corners come back
        pieces, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if not pieces:
            continue
        outline = max(pieces, key=cv2.contourArea)
        filled = cv2.drawContours(np.zeros(away.shape, np.uint8), [outline], -1, 1, -1) > 0
        area = int(filled.sum())
        if not max(_FEWEST, _SHARE[0] * away.size) <= area <= _SHARE[1] * away.size:
            continue
        if area < _SOLID * max(cv2.contourArea(cv2.convexHull(outline)), 1.0):
            continue
        mask = grown(filled, _SOFT)
        if not room[mask].all():
            continue
        ring = grown(mask, _RING) & ~mask
        step, beside = float(np.median(away[filled])), float(np.median(away[ring]))
        contrast = step / max(beside, noise)
        edged = float((slope[outline[:, 0, 1], outline[:, 0, 0]] > _EDGE * step).mean())
        like = np.abs(picture[ring] - np.median(picture[filled], axis=0)).max(axis=1) < step / 2
        if contrast >= _CLEAR and edged >= _EDGED and like.mean() <= _LIKE:
            components.append(Component(mask, contrast * edged**4))
    return components


def _at_full_size(component: Component, allowed: np.ndarray) -> Component:
    if component.mask.shape == allowed.shape:
        return component
    soft = cv2.resize(component.mask.astype(np.float32), allowed.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return Component(np.asarray((soft > 0.4) & allowed), component.contrast)
