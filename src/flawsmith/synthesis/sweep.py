"""Show what one setting of a generator does: the same samples painted again at several of its values, side by side.

A generator names the setting (`Generator.sweep`); `cross_modal`'s is the weight of the reference beside the text. For
the first sample of each defect type, `sweep/` holds a picture per value, and sweep.json says what they are; the report
shows the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from flawsmith.config import Settings
from flawsmith.data import images
from flawsmith.files import read_json, write_json
from flawsmith.run.folder import Run
from flawsmith.run.records import PlanLine

if TYPE_CHECKING:
    from flawsmith.synthesis.paint import Painter

MOST = 8
"""Defect types that get a row."""
_NAME = re.compile(r"\d{6,}-[^/]+\.(png|tif)")
"""A picture or a mask of a sweep."""


def with_value(settings: Settings, name: str, value: float) -> Settings:
    """Return settings with one of them at a value; `part.name` is a key of the table `part`."""
    part, dot, key = name.rpartition(".")
    change = {part: {**getattr(settings, part), key: value}} if dot else {name: value}
    return settings.model_copy(update=change)


def paint_sweep(
    run: Run, lines: Iterable[PlanLine], name: str, values: Sequence[float], painter_of: Callable[[str], Painter]
) -> None:
    """Paint the rows of a run whose samples are all made; nothing is done when they are there for these samples.

    Args:
        run: Its folder gets sweep.json and sweep/.
        lines: The plan's lines.
        name: The setting, as `Generator.sweep` names it.
        values: Its values.
        painter_of: Job -> what paints it; its generator's settings are put back afterwards.
    """
    if has_sweep(run):
        return
    run.remove_made("sweep", _NAME)
    rows: list[dict[str, Any]] = []
    for line in first_of_each(lines):
        painter = painter_of(line.job)
        settings = painter.generator.settings
        pictures = []
        for value in values:
            painter.generator.settings = with_value(settings, name, value)
            (painted,) = painter.paint([line])
            file = ""
            if painted.picture is not None and painted.mask is not None:
                file = f"sweep/{line.index:06d}-{value:g}{images.lossless_suffix(painted.picture)}"
                images.write(run.path(file), painted.picture)
                images.write_mask(run.path(file).with_suffix(".mask.png"), painted.mask)
            pictures.append({"value": value, "image": file})
        painter.generator.settings = settings
        row = {part: getattr(line, part) for part in ("product", "defect", "normal", "shot")}
        rows.append({**row, "reference": line.reference or line.shot, "pictures": pictures})
    write_json(run.path("sweep.json"), {"hash": run.stage_hash("generate"), "setting": name, "rows": rows})


def has_sweep(run: Run) -> bool:
    """Return whether sweep.json is there and belongs to the run's samples."""
    return is_of_samples(run, "sweep.json")


def first_of_each(lines: Iterable[PlanLine]) -> list[PlanLine]:
    """Return the first line of each product and defect type, of at most MOST."""
    first: dict[tuple[str, str], PlanLine] = {}
    for line in lines:
        first.setdefault((line.product, line.defect), line)
    return list(first.values())[:MOST]


def is_of_samples(run: Run, name: str) -> bool:
    """Return whether a JSON file of the run is there and its "hash" is that of the samples that the run has now."""
    mark = run.path(name)
    return mark.is_file() and read_json(mark).get("hash") == run.stage_hash("generate")
