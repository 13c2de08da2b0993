"""A batch of windows painted in portions, where memory has no room for all of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from flawsmith.types import Condition, Generated


def in_portions(
    generator: Any, asked: Condition, seeds: Sequence[int], windows: int, steps: int, guidance: float
) -> Generated:
    """Return what a generator paints for B requests, so many windows at a time.

    Args:
        generator: An `interfaces.Generator`.
        asked: B requests.
        seeds: One per row, which keeps it. Another number at a time rounds otherwise, as another batch does.
        windows: How many at a time; 0 = all.
        steps: As for `Generator.sample`.
        guidance: Likewise.
    """
    parts = [
        generator.sample(_rows(asked, rows), seeds[rows], steps=steps, guidance=guidance)
        for rows in _portions(len(asked), windows)
    ]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _portions(count: int, windows: int) -> list[slice]:
    return [slice(first, first + (windows or count)) for first in range(0, count, windows or count)]


def _rows(asked: Condition, rows: slice) -> Condition:
    if rows == slice(0, len(asked)):
        return asked
    return Condition(
        asked.normal[rows],
        asked.mask[rows],
        asked.product[rows],
        asked.defect[rows],
        None if asked.shot is None else asked.shot[rows],
        None if asked.sketch is None else asked.sketch[rows],
        None if asked.reference is None else asked.reference[rows],
        asked.appearance[rows],
    )


def _joined(parts: Sequence[Generated]) -> Generated:
    bases = [part.base for part in parts if part.base is not None]
    refused = tuple(word for part in parts for word in part.refused or ("",) * len(part.image))
    return Generated(
        torch.cat([part.image for part in parts]),
        torch.cat([part.mask for part in parts]),
        torch.cat(bases) if len(bases) == len(parts) else None,
        refused if any(refused) else (),
        parts[0].whole,
    )
