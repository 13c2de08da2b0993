"""Lines of the plan for damage that no shot lends: a place on the part, from the settings or a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flawsmith.config import Config
from flawsmith.data.masks.prompt_parser import SIZES, ParsedPrompt
from flawsmith.data.photographs import Photographs
from flawsmith.data.rendering.places import axes_of, place_on
from flawsmith.run.dataset import Dataset
from flawsmith.run.records import PlanLine
from flawsmith.synthesis.prompt import parsed_prompt
from flawsmith.types import Example

_ROUND = 0.15
"""A sentence's place reaches so far on each side, as a share of the picture."""
_QUARTER = {"long": (0.5, 1.0), "short": (0.0, 0.5)}
"""Of the range of lengths, on a logarithmic scale, the part that a word means."""


def placed(
    config: Config,
    data: Dataset,
    shots: Sequence[Example],
    normals: Sequence[Example],
    line: PlanLine,
    rng: np.random.Generator,
) -> PlanLine:
    """Return a line that asks for damage in a place on the part.

    Args:
        config: `generate.without_shots` and `generate.prompt` decide.
        data: The photographs.
        shots: Of the line's type; where there are any, damage is as long as theirs.
        normals: Of the line's product.
        line: With all but photograph and place.
        rng: Decides both.
    """
    normal, drawn = normals[int(rng.integers(len(normals)))], config.generate.without_shots
    part = data.photographs.part(normal)
    part = part if part.any() else np.ones_like(part)
    size = _size_of_shots(shots, part, data.photographs) if shots else drawn.size_of(line.defect)
    within, border, appearance = drawn.place, False, ""
    if config.generate.prompt:
        parsed = parsed_prompt(config, data.split)
        size, within, border = _size(parsed, size, part), _within(parsed, drawn.place), parsed.edge
        appearance = parsed.appearance
    pose = place_on(part, rng, size=size, within=within, border=border)
    return replace(line, normal=normal.id, mask_source="place", pose=pose, appearance=appearance)


def _size_of_shots(shots: Sequence[Example], part: np.ndarray, photographs: Photographs) -> tuple[float, float]:
    """Return least and greatest length of shots' damage, as shares of the longer side of a part's box."""
    masks = [mask for mask in (photographs.read(shot).mask for shot in shots) if mask is not None]
    lengths = [2 * axes_of(mask)[2] / _longest(part) for mask in masks]
    return min(max(min(lengths), 1e-3), 1.0), min(max(lengths), 1.0)


def _size(parsed: ParsedPrompt, size: tuple[float, float], part: np.ndarray) -> tuple[float, float]:
    """Return the range of lengths that a sentence asks for; its words are shares of the picture."""
    low, high = size
    if parsed.size:
        low, high = (share * max(part.shape) / _longest(part) for share in SIZES[parsed.size])
    if parsed.length:
        start, end = _QUARTER[parsed.length]
        low, high = low * (high / low) ** start, low * (high / low) ** end
    return min(low, 1.0), min(high, 1.0)


def _within(parsed: ParsedPrompt, place: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of where a sentence wants the damage."""
    left, top, right, bottom = place
    if parsed.place is not None:
        x, y = parsed.place
        if parsed.across:
            left, right = x - _ROUND, x + _ROUND
        if parsed.down:
            top, bottom = y - _ROUND, y + _ROUND
    return left, top, right, bottom


def _longest(part: np.ndarray) -> int:
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    return max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
