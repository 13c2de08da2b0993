"""Show what a generator's dial does: the same pairs painted again with other values of one setting, side by side.

A generator names its dial (`Generator.dial`); `cross_modal`'s is the weight of the reference beside the words. For the
first pair of each kind, `dial/` holds a picture a value, and dial.json says what they are; the report shows the rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flawsmith.config import Settings
from flawsmith.data import images
from flawsmith.errors import DataError
from flawsmith.files import read_json, write_json
from flawsmith.runs import Run
from flawsmith.stages.sheets import closeup, closeup_side, tone_of
from flawsmith.types import Example

if TYPE_CHECKING:
    from flawsmith.stages.paint import Painter
    from flawsmith.stages.plan import Line

MOST = 8
"""Kinds that get a row."""


@dataclass(frozen=True, slots=True)
class Turned:
    """One pair at several values of the dial, as small pictures."""

    product: str
    defect: str
    heads: tuple[str, ...]
    tiles: tuple[np.ndarray, ...]
    """uint8 (h,w,3) RGB, one a head."""


def turned(settings: Settings, name: str, value: float) -> Settings:
    """Return settings with the dial at a value; `part.name` is a key of the table `part`."""
    part, dot, key = name.rpartition(".")
    change = {part: {**getattr(settings, part), key: value}} if dot else {name: value}
    return settings.model_copy(update=change)


def paint_dial(
    run: Run, lines: Sequence[Line], name: str, values: Sequence[float], painter_of: Callable[[str], Painter]
) -> None:
    """Paint the rows of a run whose pairs are all made; nothing is done when they are there for these pairs.

    Args:
        run: Its folder gets dial.json and dial/.
        lines: The plan's lines.
        name: The dial.
        values: What it is turned to.
        painter_of: Job -> what paints it; its generator's settings are put back afterwards.
    """
    if is_turned(run):
        return
    first: dict[tuple[str, str], Line] = {}
    for line in lines:
        first.setdefault((line["product"], line["defect"]), line)
    shutil.rmtree(run.path("dial"), ignore_errors=True)
    rows: list[dict[str, Any]] = []
    for line in list(first.values())[:MOST]:
        painter = painter_of(line["job"])
        told = painter.generator.settings
        made = []
        for value in values:
            painter.generator.settings = turned(told, name, value)
            (pair,) = painter.paint([line])
            file = f"dial/{line['index']:06d}-{value:g}.png"
            if pair.picture is not None and pair.mask is not None:
                images.write(run.path(file), pair.picture)
                images.write_mask(run.path(file).with_suffix(".mask.png"), pair.mask)
            made.append({"value": value, "image": file if pair.picture is not None else ""})
        painter.generator.settings = told
        kept = ("product", "defect", "normal", "shot", "reference")
        rows.append({**{key: line[key] for key in kept if key in line}, "made": made})
    write_json(run.path("dial.json"), {"hash": run.stage_hash("generate"), "dial": name, "rows": rows})


def is_turned(run: Run) -> bool:
    """Return whether dial.json is there and belongs to the run's pairs."""
    mark = run.path("dial.json")
    return mark.is_file() and read_json(mark).get("hash") == run.stage_hash("generate")


def dial_sentence(name: str) -> str:
    """Return what the rows show, in words."""
    return (
        f"The first pair of each kind, painted again with other values of generator.settings.{name}, all else equal, "
        "seed included; at the right the reference that was shown."
    )


def read_dial(run: Run, examples: Mapping[str, Example]) -> tuple[str, list[Turned]]:
    """Return the dial's name and its rows: sound, each value, the reference; ("", []) when there are none.

    Args:
        run: A run.
        examples: Its photographs by id.
    """
    if not is_turned(run):
        return "", []
    tree = read_json(run.path("dial.json"))
    found = []
    for row in tree["rows"]:
        try:
            found.append(_row(run, tree["dial"], row, examples))
        except (DataError, KeyError, ValueError):
            continue  # a photograph has gone since; the report shows what is left
    return tree["dial"], found


def _row(run: Run, name: str, row: Mapping[str, Any], examples: Mapping[str, Example]) -> Turned:
    before = images.read(examples[row["normal"]].image)
    seen = [(one, images.read(run.path(one["image"]))) for one in row["made"] if one["image"]]
    masks = [images.read_mask(run.path(one["image"]).with_suffix(".mask.png"), before.shape) for one, _ in seen]
    side, where = closeup_side(masks), max(masks, key=np.count_nonzero)
    tone = tone_of(before)
    pictures = {one["value"]: native for one, native in seen}
    heads, tiles = ["sound photograph"], [closeup(before, tone, where, side)]
    for one in row["made"]:
        heads.append(f"{name} = {one['value']:g}" + ("" if one["image"] else ", too faint to keep"))
        tiles.append(closeup(pictures.get(one["value"], before), tone, where, side))
    reference = examples[row.get("reference", row["shot"])]
    native = images.read(reference.image)
    mask = images.read_mask(reference.mask, native.shape) if reference.mask else np.ones(native.shape[:2], bool)
    heads.append(f"reference: {reference.id}")
    tiles.append(closeup(native, tone_of(native), mask, closeup_side([mask])))
    return Turned(row["product"], row["defect"], tuple(heads), tuple(tiles))
