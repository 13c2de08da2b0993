"""Lines of the plan for damage that no shot lends: a site on the part, from the settings or a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from flawsmith.config import Config
from flawsmith.data.photographs import Photographs
from flawsmith.data.rendering.sites import axes_of, site_on
from flawsmith.data.sentences.grammar import SIZES, ParsedPrompt
from flawsmith.data.sentences.regions import outward, region_mask, room_for
from flawsmith.errors import ConfigError
from flawsmith.run.dataset import Dataset
from flawsmith.run.records import PlanLine
from flawsmith.synthesis.sentences.prompt import asks_for, parsed_prompts
from flawsmith.types import Example

_LEAST = 1e-3
"""Length of damage, as a share of the part's longer side; shots' shorter ones count so."""
_ROUND = 0.15
"""A sentence's place reaches so far on each side, as a share of the picture."""
_HALF = {"long": (0.5, 1.0), "short": (0.0, 0.5)}
"""Of the range of lengths, on a logarithmic scale, the part that a word means."""
Sizes = tuple[float, float]


def placed(
    config: Config,
    data: Dataset,
    shots: Sequence[Example],
    normals: Sequence[Example],
    line: PlanLine,
    rng: np.random.Generator,
) -> PlanLine:
    """Return a line that asks for damage in a site on the part.

    Args:
        config: `generate.without_shots` and `generate.prompt` decide.
        data: The photographs.
        shots: Of the line's type; where there are any, damage is as long as theirs.
        normals: Of the line's product.
        line: With all but photograph and site.
        rng: Decides both.

    Raises:
        ConfigError, DataError: the sentence asks for what cannot be laid here.
    """
    normal, drawn = normals[int(rng.integers(len(normals)))], config.generate.without_shots
    part = data.photographs.part(normal)
    part = part if part.any() else np.ones_like(part)
    size = _size_of_shots(shots, part, data.photographs) if shots else drawn.size_of(line.defect)
    if not config.generate.prompt:
        pose = site_on(part, rng, size=size, within=drawn.within)
        return replace(line, normal=normal.id, mask_source="site", pose=pose)
    wish = _wish(config, data, line)
    room, within = part, drawn.within
    size = _size(wish, size, part, config.data.pixel_mm)
    if wish.region or wish.along:
        region = region_mask(wish.region, config.data, normal, data.photographs) if wish.region else part
        room = room_for(wish, region, part, size[1] * _longest(part))
        size = min(size[0] * _longest(part) / _longest(room), 1.0), min(size[1] * _longest(part) / _longest(room), 1.0)
        turn_at = _along(region) if wish.along else _direction(wish)
    else:
        within, turn_at = _within(wish, within), _direction(wish)
    border = wish.edge and not wish.region and not wish.along
    pose = site_on(room, rng, size=size, within=within, border=border, turn_at=turn_at)
    return replace(line, normal=normal.id, mask_source="site", pose=pose, appearance=wish.appearance)


def _wish(config: Config, data: Dataset, line: PlanLine) -> ParsedPrompt:
    """Return the damage of the sentence that a line is of.

    Raises:
        ConfigError: the sentence wants several of the type on one photograph.
    """
    parsed = parsed_prompts(config, data.split)
    wishes = [one for one in parsed if asks_for(one, line.product, line.defect, config)]
    if len(wishes) > 1 or wishes[0].number > 1:
        raise ConfigError(
            f"--prompt: without a shot one {line.defect} is drawn on a photograph; ask for one, or for other types too"
        )
    return wishes[0]


def _size_of_shots(shots: Sequence[Example], part: np.ndarray, photographs: Photographs) -> Sizes:
    """Return least and greatest length of shots' damage, as shares of the longer side of a part's box."""
    masks = [mask for mask in (photographs.read(shot).mask for shot in shots) if mask is not None]
    lengths = [2 * axes_of(mask)[2] / _longest(part) for mask in masks]
    low, high = (min(max(length, _LEAST), 1.0) for length in (min(lengths), max(lengths)))
    return low, high


def _size(wish: ParsedPrompt, size: Sizes, part: np.ndarray, pixel_mm: float) -> Sizes:
    """Return the range of lengths that a sentence asks for; its words are shares of the picture."""
    low, high = size
    if wish.size:
        low, high = (share * max(part.shape) / _longest(part) for share in SIZES[wish.size])
    if wish.length_mm:
        low, high = (length / pixel_mm / _longest(part) for length in wish.length_mm)
        if low > 1:
            asked = wish.length_mm[0]
            raise ConfigError(f"--prompt: {asked:g} mm are longer than the part; ask for less, or see to data.pixel_mm")
    if wish.length:
        start, end = _HALF[wish.length]
        low, high = low * (high / low) ** start, low * (high / low) ** end
    return min(low, 1.0), min(high, 1.0)


def _within(wish: ParsedPrompt, place: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of where a sentence wants the damage."""
    left, top, right, bottom = place
    if wish.place is not None:
        x, y = wish.place
        if wish.across:
            left, right = x - _ROUND, x + _ROUND
        if wish.down:
            top, bottom = y - _ROUND, y + _ROUND
    return left, top, right, bottom


def _direction(wish: ParsedPrompt) -> Callable[[int, int], float] | None:
    """Return the direction that a sentence names, the same everywhere; None = any."""
    if not wish.direction:
        return None
    return lambda _, __: 0.0 if wish.direction == "horizontal" else np.pi / 2


def _along(region: np.ndarray) -> Callable[[int, int], float]:
    """Return the direction along a region's edge, at each column and row."""
    across = outward(region)
    return lambda x, y: float(np.arctan2(across[y, x, 1], across[y, x, 0])) + np.pi / 2


def _longest(part: np.ndarray) -> int:
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    return max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
