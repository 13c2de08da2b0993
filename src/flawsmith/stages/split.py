"""Which pictures a run learns from, paints on and never looks at: written once to data.json, read by every stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from flawsmith.config import Config
from flawsmith.data import images, layouts, shots
from flawsmith.errors import DataError
from flawsmith.files import digest, read_json, write_json
from flawsmith.runs import Run
from flawsmith.types import Example

_GROUPS = ("shots", "normals", "test_defects", "test_normals")


def split_data(run: Run) -> shots.Split:
    """Scan the photographs, divide them, refuse a leak, and write data.json; read it back when the data are unchanged.

    Raises:
        DataError: nothing usable is there, or a test picture is also a shot or a normal.
    """
    made = make_split(run.config)
    stamp = digest(run.config.data.model_dump(mode="json"), [_row(e) for name in _GROUPS for e in getattr(made, name)])
    path = run.path("data.json")
    if path.exists() and read_json(path).get("hash") == stamp:
        return made
    leaks = shots.leaks(made)
    if leaks:
        raise DataError("a test picture is also learned from:\n" + "\n".join(leaks[:5]))
    rows: dict[str, Any] = {"hash": stamp, "notes": list(made.notes), "warnings": shots.twins(made)}
    rows |= {name: [_row(example) for example in getattr(made, name)] for name in _GROUPS}
    write_json(path, rows)
    return made


def make_split(config: Config) -> shots.Split:
    """Scan and divide, without writing anything. A shot whose mask is empty teaches nothing: it is left out, and said."""
    examples = layouts.scan(config.data)
    notes: list[str] = []
    while True:
        made = shots.split(examples, shots=config.data.shots)
        empty = {example.id for example in made.shots if not _has_damage(example)}
        if not empty:
            return replace(made, notes=(*made.notes, *notes))
        notes += [f"{name}: its mask is empty, so it is left out" for name in sorted(empty)]
        examples = [example for example in examples if example.id not in empty]


def _has_damage(example: Example) -> bool:
    if example.mask is None:
        raise DataError(f"{example.id}: has no mask, so it cannot be learned from; add one or take the picture out")
    return bool(images.read_mask(example.mask, images.describe(example.image).shape).any())


def load_split(run: Run) -> shots.Split:
    """Read data.json.

    Raises:
        RunError: no stage has written it yet.
    """
    rows = read_json(run.path("data.json"))
    groups = {name: tuple(_example(row) for row in rows[name]) for name in _GROUPS}
    return shots.Split(**groups, notes=tuple(rows["notes"]))


def _row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "image": example.image.as_posix(),
        "product": example.product,
        "defect": example.defect,
        "mask": example.mask.as_posix() if example.mask else None,
        "split": example.split,
    }


def _example(row: dict[str, Any]) -> Example:
    mask = Path(row["mask"]) if row["mask"] else None
    return Example(row["id"], Path(row["image"]), row["product"], row["defect"], mask, row["split"])
