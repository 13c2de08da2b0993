"""From a sentence (`generate.prompt`) to plan lines: which shot lends its damage, where it is laid, and how large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flawsmith.config import Config
from flawsmith.data.masks.poses import Pose, Turn, apply_pose_mask, pose_mask
from flawsmith.data.masks.prompt_parser import SIZES, ParsedPrompt, parse
from flawsmith.data.photographs import Photographs
from flawsmith.data.split import Split
from flawsmith.run.defect_types import without_shots
from flawsmith.types import Example

_TRIES = 24
"""Poses that are looked at; the one that meets the sentence best is taken."""
_SHARE = 0.34
"""Of a type's shots, the share that counts as long, thin, faint ..."""


def parsed_prompt(config: Config, split: Split) -> ParsedPrompt:
    """Return what `generate.prompt` asks for.

    Raises:
        ConfigError: it is not understood; the sentence says what is known.
    """
    defects = sorted({str(e.defect) for e in split.shots} | {defect for _, defect in without_shots(config, split)})
    return parse(config.generate.prompt, defects, sorted({e.product for e in split.normals}))


def prompted_counts(config: Config, split: Split, asked: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Keep of the counts those of the defect type, and of the product, that the sentence names."""
    parsed = parsed_prompt(config, split)
    return {
        (product, defect): count
        for (product, defect), count in asked.items()
        if defect == parsed.defect and parsed.product in ("", product)
    }


def prompted_pose(
    parsed: ParsedPrompt,
    shots: Sequence[Example],
    normal: Example,
    photographs: Photographs,
    rng: np.random.Generator,
    *,
    turn: Turn,
) -> tuple[Example, Pose]:
    """Return a shot and how to lay its damage on the normal so that the sentence comes true as nearly as it can.

    Length, width and severity choose among the shots; size and place among poses. On a surface the damage is moved
    and scaled to where it was asked for; on a part it stays where such damage lies on the part, and the nearest of
    many poses is taken.
    """
    fitting = _fitting(parsed, shots, photographs)
    part = photographs.part(normal)
    shape = photographs.read(normal).native.shape[:2]
    best: tuple[float, Example, Pose] | None = None
    for _ in range(_TRIES):
        shot = fitting[int(rng.integers(len(fitting)))]
        mask = photographs.read(shot).mask
        assert mask is not None
        pose = pose_mask(mask, photographs.part(shot), part, rng, turn=turn)
        if part.all():
            pose = _moved(pose, mask, shape, parsed, rng)
        miss = _miss(parsed, apply_pose_mask(mask, pose, shape), float(mask.sum()) * pose.scale**2)
        if best is None or miss < best[0]:
            best = miss, shot, pose
        if miss == 0:
            break
    assert best is not None
    return best[1], best[2]


def _fitting(parsed: ParsedPrompt, shots: Sequence[Example], photographs: Photographs) -> list[Example]:
    """Return the third of the shots that are longest, thinnest, faintest ... of their type."""
    wants = [
        (number, -1.0 if word in ("long", "wide", "severe") else 1.0)
        for number, word in enumerate((parsed.length, parsed.width, parsed.severity))
        if word
    ]
    if not wants:
        return list(shots)
    measures = np.array([photographs.appearance(example) for example in shots])
    ranks = measures.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    score = sum(sign * ranks[:, number] for number, sign in wants)
    order = np.argsort(score, kind="stable")
    return [shots[index] for index in order[: max(1, round(_SHARE * len(shots)))]]


def _moved(pose: Pose, mask: np.ndarray, shape: Sequence[int], parsed: ParsedPrompt, rng: np.random.Generator) -> Pose:
    """Return the pose with its damage brought to the size and place that were asked for, inside the picture."""
    points = np.argwhere(mask)[:, ::-1].astype(np.float64)
    matrix = pose.array.copy()
    size = np.array([shape[1], shape[0]], np.float64)
    if parsed.size:
        extent = float(np.ptp(points @ matrix[:, :2].T, axis=0).max() + 1) / float(size.max())
        low, high = SIZES[parsed.size]
        aim = float(np.exp(rng.uniform(np.log(low * 1.1), np.log(high * 0.9))))
        matrix[:, :2] *= aim / extent
    moved = points @ matrix[:, :2].T
    half = np.ptp(moved, axis=0) / 2
    middle = moved.min(axis=0) + half
    if parsed.place is not None:
        to = np.array(parsed.place) + rng.uniform(-0.08, 0.08, 2)
        # A sentence that names one side alone leaves the other free.
        free = rng.uniform(0.15, 0.85, 2)
        to = np.where([not parsed.across, not parsed.down], free, to)
    else:
        to = (pose.array[:, :2] @ points.mean(axis=0) + pose.array[:, 2]) / size
    if parsed.edge:
        sides = {"left": (0, 0.0), "right": (0, 1.0), "top": (1, 0.0), "bottom": (1, 1.0)}
        named = [sides[word] for word in (parsed.across, parsed.down) if word in sides]
        axis, end = named[0] if named else list(sides.values())[int(rng.integers(4))]
        to[axis] = end
    centre = np.clip(to * size, half + 1, np.maximum(size - half - 2, half + 1))
    matrix[:, 2] = centre - middle
    return Pose.of(matrix)


def _miss(parsed: ParsedPrompt, posed: np.ndarray, area: float) -> float:
    """Return how far a posed mask is from what the sentence asks for; 0 = it is met."""
    ys, xs = np.nonzero(posed)
    if not len(xs):
        return float("inf")
    height, width = posed.shape
    miss = max(0.0, 0.7 - len(xs) / max(area, 1.0))
    if parsed.place is not None:
        x, y = parsed.place
        gap = [
            abs(xs.mean() / width - x) if parsed.across else 0.0,
            abs(ys.mean() / height - y) if parsed.down else 0.0,
        ]
        miss += max(0.0, max(gap) - 0.15)
    if parsed.size:
        low, high = SIZES[parsed.size]
        extent = (max(np.ptp(xs) / width, np.ptp(ys) / height)) or 1 / max(width, height)
        miss += max(0.0, low - extent) + max(0.0, extent - high)
    if parsed.edge:
        miss += min(xs.min() / width, ys.min() / height, 1 - xs.max() / width, 1 - ys.max() / height)
    return float(miss)
