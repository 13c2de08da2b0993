"""The rows of a sweep: the same pair at several values of one setting, read back and cut for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flawsmith.data import images
from flawsmith.errors import DataError
from flawsmith.files import read_json
from flawsmith.reporting.contact_sheets import closeup, closeup_side, tone_of
from flawsmith.run.folder import Run
from flawsmith.synthesis.sweep import has_sweep
from flawsmith.types import Example


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One pair at several values of the sweep, as small pictures."""

    product: str
    defect: str
    heads: tuple[str, ...]
    tiles: tuple[np.ndarray, ...]
    """uint8 (h,w,3) RGB, one a head."""


def sweep_sentence(name: str) -> str:
    """Return what the rows show, in words."""
    return (
        f"The first pair of each defect type, painted again with other values of generator.settings.{name}, all else equal, "
        "seed included; at the right the reference that was shown."
    )


def read_sweep(run: Run, examples: Mapping[str, Example]) -> tuple[str, list[SweepRow]]:
    """Return the sweep's name and its rows: normal, each value, the reference; ("", []) when there are none.

    Args:
        run: A run.
        examples: Its photographs by id.
    """
    if not has_sweep(run):
        return "", []
    tree = read_json(run.path("sweep.json"))
    found = []
    for row in tree["rows"]:
        try:
            found.append(_row(run, tree["setting"], row, examples))
        except (DataError, KeyError, ValueError):
            continue  # a photograph has gone since; the report shows what is left
    return tree["setting"], found


def _row(run: Run, name: str, row: Mapping[str, Any], examples: Mapping[str, Example]) -> SweepRow:
    before = images.read(examples[row["normal"]].image)
    seen = [(one, images.read(run.path(one["image"]))) for one in row["pictures"] if one["image"]]
    masks = [images.read_mask(run.path(one["image"]).with_suffix(".mask.png"), before.shape) for one, _ in seen]
    side, where = closeup_side(masks), max(masks, key=np.count_nonzero)
    tone = tone_of(before)
    pictures = {one["value"]: native for one, native in seen}
    heads, tiles = ["normal photograph"], [closeup(before, tone, where, side)]
    for one in row["pictures"]:
        heads.append(f"{name} = {one['value']:g}" + ("" if one["image"] else ", too faint to keep"))
        tiles.append(closeup(pictures.get(one["value"], before), tone, where, side))
    reference = examples[row.get("reference", row["shot"])]
    native = images.read(reference.image)
    mask = images.read_mask(reference.mask, native.shape) if reference.mask else np.ones(native.shape[:2], bool)
    heads.append(f"reference: {reference.id}")
    tiles.append(closeup(native, tone_of(native), mask, closeup_side([mask])))
    return SweepRow(row["product"], row["defect"], tuple(heads), tuple(tiles))
