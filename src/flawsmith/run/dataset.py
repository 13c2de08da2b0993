"""Which pictures a run learns from, paints on and never looks at: written once to data.json, read by every stage."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from flawsmith.config import Config
from flawsmith.data import images, layouts
from flawsmith.data import split as shots
from flawsmith.data.fingerprints import fingerprints_of
from flawsmith.errors import ConfigError, DataError, nearest
from flawsmith.files import digest, read_json, write_json
from flawsmith.run.folder import Run
from flawsmith.types import Example

_GROUPS = ("shots", "normals", "test_defects", "test_normals")
LEAST_SIDE = 16
"""Fewer rows or columns than this hold no part that a window could show."""
_SHOWN = 5


def split_data(run: Run) -> shots.Split:
    """Scan the photographs, divide them, refuse a leak, and write data.json; read it back when the data are unchanged.

    Raises:
        DataError: nothing usable is there, a picture cannot be read, or a test picture is also a shot or a normal.
        ConfigError: a defect type that the configuration names does not exist.
    """
    made = make_split(run.config)
    _require_defects(run.config, made)
    # With sizes: a picture that was replaced under its old name is looked at again.
    pictures = [(_row(e), _size(e.image)) for name in _GROUPS for e in getattr(made, name)]
    stamp = digest(run.config.data.model_dump(mode="json"), pictures)
    path = run.path("data.json")
    if path.exists() and read_json(path).get("hash") == stamp:
        return made
    if broken := _unusable(made):
        raise DataError(_listed("1 picture cannot be used", f"{len(broken)} pictures cannot be used", broken))
    if leaks := shots.leaks(made):
        raise DataError(_listed("a picture is on both sides", f"{len(leaks)} pictures are on both sides", leaks))
    rows: dict[str, Any] = {"hash": stamp, "notes": list(made.notes), "warnings": shots.near_duplicate_warnings(made)}
    rows |= {name: [_row(example) for example in getattr(made, name)] for name in _GROUPS}
    write_json(path, rows)
    return made


def make_split(config: Config) -> shots.Split:
    """Scan and divide, without writing anything; a shot whose mask is empty is left out, with a note."""
    examples = layouts.scan(config.data)
    notes: list[str] = []
    while True:
        if notes and not any(example.defect for example in examples):
            raise DataError(
                f"{config.data.root}: every mask is empty, so there is nothing to learn; draw the damage in them"
            )
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


def _require_defects(config: Config, made: shots.Split) -> None:
    names = {example.defect for example in made.shots if example.defect}
    if wrong := unknown_defects(config, names, "count", "paint"):
        raise ConfigError(wrong[0])


def unknown_defects(config: Config, defects: Collection[str], *fields: str) -> list[str]:
    """Return a sentence for each type that fields of `generate`, tables by type, name and that is none of these."""
    tables = {field: table for field in fields if isinstance(table := getattr(config.generate, field), dict)}
    return [
        f"generate.{field}: there is no defect type {defect!r}{nearest(defect, defects)}"
        for field, table in tables.items()
        for defect in table
        if defect not in defects
    ]


def _unusable(made: shots.Split) -> list[str]:
    """Return a sentence for each picture that would stop a later stage, or spoil what is proven on it."""
    examples = [example for name in _GROUPS for example in getattr(made, name)]
    wrong = []
    for example, seen in zip(examples, fingerprints_of([example.image for example in examples]), strict=True):
        if seen.problem:
            wrong.append(f"{example.image}: {seen.problem}")
        elif min(shape := images.describe(example.image).shape) < LEAST_SIDE:
            size = f"{shape[1]} x {shape[0]}"
            wrong.append(
                f"{example.image}: {size} pixels are no photograph; it takes at least {LEAST_SIDE} x {LEAST_SIDE}"
            )
    return wrong


def _listed(one: str, many: str, sentences: list[str]) -> str:
    more = [f"and {len(sentences) - _SHOWN} more; `flawsmith check` says all"] if len(sentences) > _SHOWN else []
    return "\n".join([f"{one if len(sentences) == 1 else many}:", *sentences[:_SHOWN], *more])


def load_split(run: Run) -> shots.Split:
    """Read data.json.

    Raises:
        RunError: no stage has written it yet.
    """
    rows = read_json(run.path("data.json"))
    groups = {name: tuple(_example(row) for row in rows[name]) for name in _GROUPS}
    return shots.Split(**groups, notes=tuple(rows["notes"]))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # a link to nowhere; `_unusable` names it


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
