"""What patches are taken from: a shot's damage as a ratio, with how deep in its label each pixel lies, and how it runs.

A source is turned so that its damage runs as the asked mask does, or, where the surroundings have a direction of their
own (a brushed surface, a thread), so that they agree; and it is scaled to the asked thickness, within limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from flawsmith.data.patches.grain import grain_in, grain_round, grain_under, laid_unscaled
from flawsmith.data.patches.ratios import RIM, logs, relative_depth, signed_distance, undamaged

Floats = np.ndarray
Mask = np.ndarray

_SURROUNDINGS = 12.0
"""Px beyond the label that are surroundings."""
_RUNS = 0.35
"""Strength of a direction, 0..1, above which surroundings or damage are said to run one way."""
_IS_LINE = 0.5
"""Strength of a label's direction above which it is a line."""
_LINE = 4.0
"""A mask is a line where its area is that of so many discs of its width."""
_RIGHT_ANGLE = np.deg2rad(8)
"""A turn this near a multiple of a right angle becomes one: then no pixel is interpolated, and grain stays as it is."""
_SAME_SIZE = 1.25
"""A scale within this factor is left out, for the same reason."""
_SCALES = (0.6, 1.6)
_ALIKE = 1.0
"""Deviations of the shots' contrast within which two of them look alike: a blue stain is not mixed with a brown one."""
_UNSURE = 0.5
"""Standard error of that slope at which it is drawn half the way to 1."""
_MIDDLE = 0.85
"""Relative depth from which on a pixel lies on the middle line of a label."""
_COVERS = 0.7
"""Of the change in the middle of a label: so much hides the ground wholly, as far as it does not shine through."""
_EDGE = 3.0
"""Px from a label's border over which its rim is told from its inside."""


class Direction(NamedTuple):
    """Which way something runs."""

    angle: float
    """Radians, x to the right and y down; lines have no sense, so it holds modulo pi."""
    strength: float
    """0 = no direction at all, 1 = all lines are parallel."""


@dataclass(frozen=True, slots=True)
class Source:
    """A place to take patches from."""

    ratio: Floats
    """float32 (h,w,C): logarithm of the picture over what it would be undamaged."""
    grain: Floats
    """float32 (h,w,C): the part of it that is grain, see `grain.grain_in`; 0 of parts."""
    grain_under: float
    """Standard deviation of the grain inside the label, see `grain.grain_under`."""
    grain_round: float
    """Standard deviation of the surroundings' grain, see `grain.grain_round`."""
    distance: Floats
    """float32 (h,w): px from the label's border, positive inside."""
    depth: Floats
    """float32 (h,w), see `ratios.relative_depth`."""
    usable: Mask
    """bool (h,w): pixels that were photographed, not filled in by turning."""
    width: float
    """Usual distance of the label's middle line from its border, px; at least 1."""
    ground: Floats
    """float32 (C,): mean logarithm of what the label covers, were it undamaged."""
    contrast: Floats
    """float32 (C,): mean ratio of the inner half of the label: below 0 is darker than the surroundings."""
    tangent: Direction
    """How the label runs."""
    course: Direction
    """How the surroundings run."""

    @classmethod
    def of(cls, picture: Floats, mask: Mask, *, surface: bool = True) -> Source:
        """Make a source of a picture at native scale, float32 (h,w,C) in [-1,1], and its label, bool (h,w).

        Without `surface`, nothing of it is parted as grain.
        """
        logarithms = logs(picture)
        smooth = undamaged(logarithms, mask)
        ratio = logarithms - smooth
        distance = signed_distance(mask)
        depth = relative_depth(distance)
        inner = _inner(depth)
        return cls(
            ratio=ratio,
            grain=grain_in(ratio, distance) if surface else np.zeros_like(ratio),
            grain_under=grain_under(ratio, mask),
            grain_round=grain_round(ratio, distance),
            distance=distance,
            depth=depth,
            usable=np.ones(mask.shape, bool),
            width=width_of(distance, depth),
            ground=smooth[mask].mean(axis=0) if mask.any() else smooth.mean(axis=(0, 1)),
            contrast=ratio[inner].mean(axis=0),
            tangent=tangent_of(distance),
            course=course_of(ratio, distance),
        )

    def guide(self) -> Floats:
        """Return `guide_of` this source."""
        return guide_of(self.distance, self.depth)

    def turned(self, angle: float, *, mirrored: bool, scale: float) -> Source:
        """Return it mirrored (left to right) or not, then turned by an angle in radians, then scaled."""
        planes = [
            self.ratio,
            self.distance[:, :, None],
            self.depth[:, :, None],
            self.grain,
            self.usable[:, :, None].astype(np.float32),
        ]
        stacked = np.concatenate(planes, axis=2).astype(np.float32)
        stacked = stacked[:, ::-1] if mirrored else stacked
        quarter, channels = round(angle / (np.pi / 2)), self.ratio.shape[2]
        if abs(angle - quarter * np.pi / 2) < _RIGHT_ANGLE and scale == 1:
            moved = np.rot90(stacked, -quarter)  # y runs down, so a positive angle turns clockwise
        else:
            moved = _warped(stacked, channels + 2, angle, scale)
        return replace(
            self,
            ratio=np.ascontiguousarray(moved[:, :, :channels]),
            grain=np.ascontiguousarray(moved[:, :, channels + 2 : -1]),
            distance=np.ascontiguousarray(moved[:, :, channels]) * np.float32(scale),
            depth=np.ascontiguousarray(moved[:, :, channels + 1]),
            usable=moved[:, :, -1] > 0.99,
            width=self.width * scale,
        )


def _warped(stacked: Floats, count: int, angle: float, scale: float) -> Floats:
    """Turn and scale planes (h,w,K) on a canvas that holds them.

    After `count` planes comes the grain that is in the first of them, which is turned but not scaled; the last one says
    which pixels are real.
    """
    height, width = stacked.shape[:2]
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    size = int(np.ceil(abs(cos) * width + abs(sin) * height)), int(np.ceil(abs(sin) * width + abs(cos) * height))
    linear = np.array([[cos, -sin], [sin, cos]])
    shift = (np.array(size) - 1) / 2 - linear @ (np.array([width, height]) - 1) / 2
    matrix = np.column_stack([linear, shift])
    grain = stacked[:, :, count:-1]
    laid, channels = laid_unscaled(grain, matrix, size), grain.shape[2]
    smooth = stacked[:, :, :count].copy()
    smooth[:, :, :channels] -= grain
    if scale < 1:
        smooth = cv2.GaussianBlur(smooth, (0, 0), 0.3 / scale)
    planes = []
    for number in range(count):
        plane = np.ascontiguousarray(smooth[:, :, number])
        moved = cv2.warpAffine(plane, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        # Beside a hard dark edge cubic sampling overshoots: in logarithms of ratios that is a row of white pixels.
        moved = np.clip(moved, plane.min(), plane.max())
        moved = moved + laid[:, :, number] if number < channels else moved
        planes.append(np.clip(moved, stacked[:, :, number].min(), stacked[:, :, number].max()))
    real = cv2.warpAffine(np.ascontiguousarray(stacked[:, :, -1]), matrix, size, flags=cv2.INTER_LINEAR, borderValue=0)
    return np.concatenate([np.stack(planes, axis=2), laid, real[:, :, None]], axis=2)


def chosen(
    sources: Sequence[Source], width: float, rng: np.random.Generator, *, most: int, like: Floats | None = None
) -> list[Source]:
    """Return a random few of a defect type's sources that look alike: as dark or as bright as the first of them.

    Args:
        sources: All that there are.
        width: Of the asked mask, see `width_of`; sources of about this width are likelier.
        rng: All randomness.
        most: How many are drawn, at most.
        like: float32 (C,): the contrast of the shot that the mask comes from, which the first resembles; None = any.
    """
    contrast = np.stack([source.contrast for source in sources])
    spread = float(np.sqrt(contrast.var(axis=0).sum())) + 1e-3

    def apart_from(one: Floats) -> Floats:
        return np.asarray(np.sqrt(((contrast - one) ** 2).sum(axis=1)) / spread)

    unlike = np.array([abs(np.log(source.width / width)) for source in sources]) / 0.5
    first = int(rng.choice(len(sources), p=_odds(unlike if like is None else unlike + apart_from(like) / 0.2)))
    apart = apart_from(contrast[first])
    drawn = rng.choice(len(sources), len(sources), replace=False, p=_odds(unlike + apart / 0.5))
    order = [first, *(int(number) for number in drawn if number != first and apart[number] < _ALIKE)]
    return [sources[number] for number in order[:most]]


def laid(
    sources: Sequence[Source], distance: Floats, width: float, course: Direction, rng: np.random.Generator, turns: int
) -> list[Source]:
    """Return sources turned several times each to run as the asked mask does, and scaled to its width within limits.

    Args:
        sources: What to turn.
        distance: float32 (H,W): of the asked mask, see `signed_distance`.
        width: Of the asked mask, see `width_of`.
        course: How the surroundings of the asked mask run.
        rng: All randomness.
        turns: How often each is turned.
    """
    angles = _tangents(distance, rng, turns)
    line = (distance > 0).sum() > _LINE * np.pi * width**2
    return [
        _laid(source, width, angle, course, line, rng)
        for source in sources
        for angle in (angles if source.tangent.strength > _RUNS else angles[: max(1, turns - 1)])
    ]


def shine_through(sources: Sequence[Source]) -> float:
    """Return how much of the ground's tone a type of damage lets through: 1 = all, as a shadow; 0 = none, as a chip.

    The slope, over the shots, of the damage's tone against the ground's, drawn towards 1 by as much as it is unsure:
    few shots, or shots on like grounds, say nothing of it.
    """
    grounds = np.stack([source.ground for source in sources]).astype(np.float64)
    tones = grounds + np.stack([source.contrast for source in sources])
    grounds, tones = grounds - grounds.mean(axis=0), tones - tones.mean(axis=0)
    spread, freedom = float((grounds**2).sum()), len(sources) - 2
    if freedom < 1 or spread < 1e-6:
        return 1.0
    slope = float((grounds * tones).sum()) / spread
    # Channels move together, so they count as one: the mean square is over the shots alone.
    error = float(((tones - slope * grounds) ** 2).sum()) / freedom / spread
    return float(np.clip(1 + (slope - 1) * _UNSURE**2 / (_UNSURE**2 + error), 0, 1))


def on_ground(source: Source, ground: Floats, through: float) -> Source:
    """Return a source as it would look on another ground, float32 (C,), of which so much shines through."""
    shift = ((1 - through) * (source.ground - ground)).astype(np.float32)
    if not shift.any():
        return source
    # Where nothing is changed nothing of the ground that it came from is to be seen.
    size = cv2.GaussianBlur(np.sqrt((source.ratio**2).sum(axis=2)), (0, 0), 2.0)
    inner = _inner(source.depth)
    usual = max(float(size[inner].mean()) if inner.any() else 0.0, 1e-3)
    cover = np.clip(size / (_COVERS * usual), 0, 1) * (source.distance > -RIM)
    return replace(source, ratio=source.ratio + cover[:, :, None] * shift)


def _inner(depth: Floats) -> Mask:
    """The inner half of a label; all of one that is too thin to have one."""
    return np.asarray(depth > min(0.5, float(depth.max()) - 0.05))


def _odds(unlike: Floats) -> Floats:
    weights = np.exp(-np.minimum(unlike - unlike.min(), 12))
    return np.asarray(weights / weights.sum())


def _laid(
    source: Source, width: float, tangent: float, course: Direction, line: bool, rng: np.random.Generator
) -> Source:
    """Return a source turned to a tangent if both are lines, else to surroundings that run one way, and scaled."""
    mirrored = bool(rng.random() < 0.5)
    sense = np.pi * float(rng.integers(2))  # a line looks the same from both ends
    free = float(rng.uniform(-np.pi, np.pi))
    if line and source.tangent.strength > _IS_LINE:
        runs, goal = source.tangent.angle, tangent  # across a brushed surface too, a scratch is a scratch
    elif min(course.strength, source.course.strength) > _RUNS:
        runs, goal = source.course.angle, course.angle
    elif source.tangent.strength > _RUNS:
        runs, goal = source.tangent.angle, tangent
    else:
        runs, goal, sense = 0.0, free, 0.0
    angle = goal - (np.pi - runs if mirrored else runs) + sense
    scale = float(np.clip(width / source.width, *_SCALES))
    scale = 1.0 if max(scale, 1 / scale) < _SAME_SIZE else scale
    return source.turned(float((angle + np.pi) % (2 * np.pi) - np.pi), mirrored=mirrored, scale=scale)


def _tangents(distance: Floats, rng: np.random.Generator, count: int) -> list[float]:
    """Return how the mask runs at a few random places of it, radians, one from each part of the range they cover."""
    across, down = _gradient(distance)
    # The distance climbs across the run. On the ridge itself it has no slope, so neighbours are asked too.
    doubled = (across.astype(np.float64) + 1j * down) ** 2
    parts = (cv2.GaussianBlur(np.ascontiguousarray(part), (0, 0), 2.0) for part in (doubled.real, doubled.imag))
    smooth = next(parts) + 1j * next(parts)
    inside = distance > 0
    if not inside.any():
        return [0.0] * count
    runs = np.angle(smooth[inside]) / 2 + np.pi / 2
    mean = np.angle(smooth[inside].sum()) / 2 + np.pi / 2
    apart = np.sort((runs - mean + np.pi / 2) % np.pi - np.pi / 2)
    # Not from the ends, where the border of a line's mask runs across it.
    ranks = (0.15 + 0.7 * (np.arange(count) + rng.random(count)) / count) * len(apart)
    return [float(mean + apart[min(int(rank), len(apart) - 1)]) for rank in ranks]


def width_of(distance: Floats, depth: Floats) -> float:
    """Return the usual distance of a mask's middle line from its border, px; at least 1."""
    middle = distance[depth > _MIDDLE]
    return max(float(min(np.median(middle), max(distance.shape))) if len(middle) else 1.0, 1.0)


def guide_of(distance: Floats, depth: Floats) -> Floats:
    """Return what leads the search, float32 (h,w,2): how near the label's border is in px, and how deep inside it."""
    return np.stack([np.tanh(distance / _EDGE), depth], axis=2).astype(np.float32)


def position_of(distance: Floats) -> Floats:
    """Return where in the damage each pixel lies, float32 (h,w,2): from its middle, in its standard deviations."""
    rows, columns = np.nonzero(distance > 0)
    height, width = distance.shape
    points = np.stack([columns, rows], axis=1) if len(rows) else np.array([[width / 2, height / 2]])
    spread = max(float(np.sqrt(points.var(axis=0).sum())), 1.0)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return ((np.stack([x, y], axis=2) - points.mean(axis=0)) / spread).astype(np.float32)


def tangent_of(distance: Floats) -> Direction:
    """Return how a mask runs: across the slope of its distance."""
    across, down = _gradient(distance)
    return _direction(across, down, (distance > -RIM) & (distance < 1e2))


def course_of(ratio: Floats, distance: Floats) -> Direction:
    """Return how the surroundings of a label run, by the structure tensor of their brightness."""
    grey = cv2.GaussianBlur(np.ascontiguousarray(ratio.mean(axis=2)), (0, 0), 1.0)
    across, down = _gradient(grey)
    return _direction(across, down, (distance < -(RIM + 2)) & (distance > -_SURROUNDINGS))


def _gradient(values: Floats) -> tuple[Floats, Floats]:
    field = np.ascontiguousarray(values, np.float32)
    return tuple(cv2.Sobel(field, cv2.CV_32F, *way, ksize=3, scale=0.125) for way in ((1, 0), (0, 1)))  # type: ignore[return-value]


def _direction(across: Floats, down: Floats, where: Mask) -> Direction:
    """Return the direction of least change, by the structure tensor over a region."""
    x, y = across[where].astype(np.float64), down[where].astype(np.float64)
    total = float((x * x + y * y).sum())
    if total <= 1e-12:
        return Direction(0.0, 0.0)
    doubled = complex((x * x - y * y).sum(), 2 * (x * y).sum()) / total
    return Direction(float(np.angle(doubled) / 2 + np.pi / 2), float(abs(doubled)))
