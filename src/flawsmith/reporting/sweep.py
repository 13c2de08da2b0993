"""A sweep: the first sample of each defect type painted with several values of one setting, cut for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flawsmith.data import images
from flawsmith.data.masks.reading import read_label
from flawsmith.errors import DataError
from flawsmith.files import read_json, reading
from flawsmith.reporting.contact_sheets import closeup, closeup_side
from flawsmith.run.folder import Run
from flawsmith.synthesis.sweep import has_sweep
from flawsmith.types import Example


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One sample at several values, as small pictures."""

    product: str
    defect: str
    heads: tuple[str, ...]
    tiles: tuple[np.ndarray, ...]
    """uint8 (h,w,3) RGB, one per head."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every row of a sweep."""

    setting: str
    """The setting whose value changes, below `generator.settings`."""
    rows: tuple[SweepRow, ...]


def read_sweep(run: Run, examples: Mapping[str, Example]) -> Sweep | None:
    """Return the sweep of a run's samples, or None when there is none.

    Args:
        run: A run.
        examples: Its photographs by id.
    """
    if not has_sweep(run):
        return None
    tree = read_json(run.path("sweep.json"))
    rows = []
    with reading(run.path("sweep.json")):
        for row in tree["rows"]:
            try:
                rows.append(_row(run, str(tree["setting"]), row, examples))
            except DataError:
                continue  # a photograph has gone since; the report shows what is left
        kept = tuple(row for row in rows if row)
        return Sweep(str(tree["setting"]), kept) if kept else None


def _row(run: Run, setting: str, row: Mapping[str, Any], examples: Mapping[str, Example]) -> SweepRow | None:
    """Return the normal photograph, the sample at each value, and its reference; None = nothing is left to show."""
    painted = {one["value"]: run.path(one["image"]) for one in row["pictures"] if one["image"]}
    if not painted or not examples.keys() >= {row["normal"], row["reference"]} - {""}:
        return None
    normal = images.read(examples[row["normal"]].image)
    masks = [images.read_mask(path.with_suffix(".mask.png"), normal.shape) for path in painted.values()]
    side, widest, span = closeup_side(masks), max(masks, key=np.count_nonzero), examples[row["normal"]].span
    heads, tiles = ["normal photograph"], [closeup(normal, span, widest, side)]
    for one in row["pictures"]:
        path = painted.get(one["value"])
        head = f"{setting} = {one['value']:g}"
        heads.append(head if path else f"{head}, too faint to keep")
        tiles.append(closeup(images.read(path) if path else normal, span, widest, side))
    if not row["reference"]:  # made without a shot
        return SweepRow(row["product"], row["defect"], tuple(heads), tuple(tiles))
    reference = examples[row["reference"]]
    native = images.read(reference.image)
    mask = read_label(reference, native.shape) if reference.masks else np.ones(native.shape[:2], bool)
    heads.append(f"reference: {reference.id}")
    tiles.append(closeup(native, reference.span, mask, closeup_side([mask])))
    return SweepRow(row["product"], row["defect"], tuple(heads), tuple(tiles))
