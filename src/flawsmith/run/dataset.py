"""Which photographs a run learns from, paints on and never looks at: written once to data.json, read by every stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flawsmith.config import Config
from flawsmith.data import images, layouts
from flawsmith.data.fingerprints import fingerprints_of
from flawsmith.data.masks.judging import with_rules
from flawsmith.data.masks.of_normals import marked_normals, masks_among_normals
from flawsmith.data.photographs import Photographs
from flawsmith.data.ranges import ranges_of, with_ranges
from flawsmith.data.sentences.descriptions import NOTHING_SAID, Descriptions
from flawsmith.data.split import (
    Split,
    duplicates,
    keeps_test,
    leaks,
    near_duplicate_warnings,
    near_duplicates,
    split,
    without_duplicates,
)
from flawsmith.errors import DataError, RunError
from flawsmith.files import digest, file_digest, file_state, read_json, reading, write_json
from flawsmith.paths import lies_below
from flawsmith.run.defect_types import require_defects, without_shots
from flawsmith.run.folder import Run
from flawsmith.run.mask_reading import MaskReading, read_masks, rule_from, rule_tree
from flawsmith.types import Example, MaskRule, Range

GROUPS = ("shots", "normals", "test_defects", "test_normals")
"""Of a division; each a list of rows in data.json."""
_DUPLICATES = "duplicates"
"""Rows of data.json beside the groups: test pictures that were left out as copies of normal parts to learn from."""
_RANGES = "ranges"
"""In data.json: the value range of each product."""
LEAST_SIDE = 16
"""Fewer rows or columns than this hold no part that a window could show."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Dataset:
    """A run's photographs: the folder was scanned and divided, and every file's bytes are hashed.

    `flawsmith run` opens it once and hands it to every stage; a stage that is called alone opens its own.
    """

    split: Split
    photographs: Photographs
    """Reads the photographs; each picture and mask once, as long as there is room."""
    hashes: Mapping[str, str]
    """Id of a photograph -> hash of its bytes and of its mask's; {} = the files were not hashed."""
    hash: str
    """Of the whole division: who is in which group, with what content."""
    descriptions: Descriptions = NOTHING_SAID
    """What was said of them (`generate.describe`)."""

    def content(self, examples: Iterable[Example]) -> str:
        """Return what identifies photographs with their masks, by id and content."""
        return digest([(example.id, self.hashes[example.id]) for example in examples])


def open_dataset(run: Run) -> Dataset:
    """Scan the photographs, divide them, leave out copies of normal parts, refuse a leak, and write data.json.

    A file whose size and times are those of the last time is not read again, and pictures that are the same as the last
    time are not looked at again.

    Raises:
        DataError: nothing usable is there, a picture cannot be read, a test defect is also a shot, or a picture
            is filed both as normal and as a defect.
        ConfigError: a defect type that the configuration names does not exist.
    """
    path = run.path("data.json")
    before = _before(path) if path.exists() else {}
    surveyed = layouts.survey(run.config.data)
    made, reading = _divide(surveyed, run.config, before.get("masks"))
    require_defects(run.config, _defects(run.config, made))
    known = {row["id"]: row for name in (*GROUPS, _DUPLICATES) for row in before.get(name, [])}
    rows = {name: [_row(example, known.get(example.id)) for example in getattr(made, name)] for name in GROUPS}
    scanned = _stamp(rows)
    unchanged = before.get("scanned") == scanned
    if not unchanged and (broken := _unusable(made)):
        raise DataError(_listed("1 picture cannot be used", f"{len(broken)} pictures cannot be used", broken))
    if not unchanged:
        everyone = [example for name in GROUPS for example in getattr(made, name)]
        marked = [*marked_normals(run.config.data.root, surveyed.normal_masks), *masks_among_normals(everyone)]
        if marked:
            raise DataError("\n".join(marked))
    copies = [row["id"] for row in before.get(_DUPLICATES, [])] if unchanged else duplicates(made)
    made = without_duplicates(made, copies)
    if not unchanged and (double := leaks(made)):
        head = "a picture is in the set twice:" if len(double) == 1 else f"{len(double)} pictures are in the set twice:"
        raise DataError("\n".join([head, *double]))  # all at once, for whoever removes one would be told of the next
    gone = set(copies)
    doubled = [row for row in rows["test_normals"] if row["id"] in gone]
    rows["test_normals"] = [row for row in rows["test_normals"] if row["id"] not in gone]
    known_ranges = _ranges(before) if unchanged else {}
    ranges = known_ranges or ranges_of(made)
    made = with_ranges(made, ranges)
    stamp = _stamp(rows, ranges)
    near = before["near_duplicates"] if unchanged else near_duplicate_warnings(made, near_duplicates(made))
    faulty = before.get("faulty", []) if unchanged else _faulty(made)
    tree: dict[str, Any] = {"root": run.config.data.root.as_posix()}
    tree |= {"hash": stamp, "scanned": scanned, "notes": list(made.notes), "near_duplicates": near}
    tree |= {"faulty": faulty} if faulty else {}
    tree |= {
        "warnings": [*surveyed.warnings, *faulty, *near, *reading.warnings(made)],
        "ledger": surveyed.ledger.to_json(),
    }
    tree |= {_RANGES: {product: span.to_json() for product, span in ranges.items()}}
    tree |= {**rows, _DUPLICATES: doubled, "masks": reading.tree()}
    if tree != before:
        write_json(path, tree)
    hashes = {row["id"]: row_identity(row) for group in rows.values() for row in group}
    return Dataset(made, Photographs(made.normals), hashes, stamp)


def recorded_dataset(run: Run) -> Dataset:
    """Return the run's photographs as data.json names them; the folder is not scanned, and nothing is written.

    Raises:
        RunError: no stage has written data.json yet, or the photographs are not there.
    """
    path = run.path("data.json")
    made, tree = load_split(run), read_json(path)
    with reading(path):
        hashes = {row["id"]: row_identity(row) for name in GROUPS for row in tree[name]}
        return Dataset(made, Photographs(made.normals), hashes, str(tree["hash"]))


def scanned_dataset(config: Config) -> Dataset:
    """Scan and divide a folder that belongs to no run: what `open_dataset` does, as far as painting needs it.

    Nothing is written, and no pictures are compared, so copies and leaks are not found. The files are not hashed.

    Raises:
        DataError: nothing usable is there, or a mask cannot be read.
        ConfigError: a defect type that the configuration names does not exist.
    """
    made = divide(config)
    require_defects(config, _defects(config, made))
    made = with_ranges(made, ranges_of(made))
    return Dataset(made, Photographs(made.normals), {}, "")


def divide(config: Config) -> Split:
    """Scan and divide, without writing anything or comparing pictures; a defect with an empty mask is left out."""
    return _divide(layouts.survey(config.data), config, None)[0]


def _divide(surveyed: layouts.Survey, config: Config, known: Mapping[str, Any] | None) -> tuple[Split, MaskReading]:
    """Decide how the masks are read, and divide; `known` is what data.json keeps of the masks."""
    if wrong := surveyed.errors:
        raise DataError("\n".join(wrong))
    reading = read_masks(surveyed.examples, config.data, known)
    # No label to learn from, and nothing in a test picture that anybody could find.
    empty = set(reading.empty)
    examples = [one for one in with_rules(surveyed.examples, reading.rules) if one.id not in empty]
    if empty and config.data.shots and not any(example.defect for example in examples):
        raise DataError(
            f"{config.data.root}: every mask is empty, so there is nothing to learn; draw the damage in them"
        )
    made = split(examples, shots=config.data.shots, test=keeps_test(config))
    reading.require_clear(made.shots)
    for shot in made.shots:
        if not shot.masks:
            raise DataError(f"{shot.id}: has no mask, so it cannot be learned from; add one or take the picture out")
    notes = [f"{name}: its mask is empty, so it is left out" for name in sorted(empty)]
    return replace(made, notes=(*surveyed.notes, *reading.notes, *made.notes, *notes)), reading


def _defects(config: Config, made: Split) -> set[str]:
    learned = {example.defect for example in made.shots if example.defect}
    return learned | {defect for _, defect in without_shots(config, made)}


def _unusable(made: Split) -> list[str]:
    """Return a sentence for each picture that would stop a later stage, or spoil what is proven on it."""
    examples = [example for name in GROUPS for example in getattr(made, name)]
    wrong = []
    for example, fingerprint in zip(examples, fingerprints_of([example.image for example in examples]), strict=True):
        if fingerprint.problem:
            wrong.append(f"{example.image}: {fingerprint.problem}")
        elif min(shape := images.describe(example.image).shape) < LEAST_SIDE:
            size = f"{shape[1]} x {shape[0]}"
            wrong.append(
                f"{example.image}: {size} pixels are no photograph; it takes at least {LEAST_SIDE} x {LEAST_SIDE}"
            )
    return wrong


def _faulty(made: Split) -> list[str]:
    """Return a sentence for each picture that is read and may be damaged all the same."""
    paths = sorted({example.image for name in GROUPS for example in getattr(made, name)})
    prints = zip(paths, fingerprints_of(paths), strict=True)
    return [f"{path}: may be damaged: {one.fault}" for path, one in prints if one.fault]


def _listed(one: str, many: str, sentences: list[str]) -> str:
    more = [f"and {len(sentences) - _SHOWN} more; `flawsmith check` says all"] if len(sentences) > _SHOWN else []
    return "\n".join([f"{one if len(sentences) == 1 else many}:", *sentences[:_SHOWN], *more])


def load_split(run: Run) -> Split:
    """Read data.json, without looking at the photographs; where the folder was moved, they are named where it is now.

    Raises:
        RunError: no stage has written it yet, it names a file outside `data.root`, or that folder is not there.
    """
    path = run.path("data.json")
    rows = read_json(path)
    root = run.config.data.root.absolute()
    with reading(path):
        before = Path(rows.get("root", root)).absolute()
        groups = {name: tuple(_example(row) for row in rows[name]) for name in GROUPS}
        notes = tuple(rows["notes"])
    for example in (example for group in groups.values() for example in group):
        for file in (example.image, *example.masks):
            if not lies_below(file.absolute(), before):
                again = "delete it, and `flawsmith run CONFIG --out` writes it anew"
                raise RunError(f"{path}: {file} does not lie below data.root ({before}); {again}")
    if not root.is_dir():
        raise RunError(
            f"{root}: the photographs of {run.folder} are not there; if they were moved, say where to with "
            "--set data.root=FOLDER"
        )
    if root != before:
        groups = {name: tuple(_moved(example, before, root) for example in group) for name, group in groups.items()}
    with reading(path):
        return with_ranges(Split(**groups, notes=notes), _ranges(rows))


def _moved(example: Example, before: Path, root: Path) -> Example:
    image, *masks = (root / file.absolute().relative_to(before) for file in (example.image, *example.masks))
    return replace(example, image=image, masks=tuple(masks))


def load_ranges(run: Run) -> dict[str, Range]:
    """Read each product's value range from data.json.

    Raises:
        RunError: no stage has written it yet.
    """
    path = run.path("data.json")
    rows = read_json(path)
    with reading(path):
        return _ranges(rows)


def _before(path: Path) -> dict[str, Any]:
    """Read data.json as `open_dataset` left it the last time.

    Raises:
        RunError: it holds something else.
    """
    rows = read_json(path)
    with reading(path):
        for name in (*GROUPS, _DUPLICATES):
            for row in rows.get(name, []):
                _example(row)
                _require_text(row["hash"])
        _ranges(rows)
        if (masks := rows.get("masks")) is not None:
            for rule in masks["rules"]:
                rule_from(rule)
                _require_text(rule["product"], rule["defect"])
            doubts = [words for name, why in masks["doubts"] for words in (name, why)]
            _require_text(masks["stamp"], *doubts, *masks["notes"], *masks["warnings"], *masks.get("empty", []))
        if "scanned" in rows:
            _require_text(*rows["near_duplicates"], *rows.get("faulty", []))
    return rows


def _require_text(*values: Any) -> None:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is no text")


def _ranges(tree: Mapping[str, Any]) -> dict[str, Range]:
    return {product: Range.from_json(row) for product, row in tree.get(_RANGES, {}).items()}


def _row(example: Example, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return an example's row of data.json; the hash of unchanged files is taken from the row before."""
    files = [example.image, *example.masks]
    state = [file_state(path) for path in files]
    same = known is not None and known.get("files") == state
    return {
        "id": example.id,
        "image": example.image.as_posix(),
        "product": example.product,
        "defect": example.defect,
        "masks": [path.as_posix() for path in example.masks],
        "split": example.split,
        "mask_rule": None if example.mask_rule is None else rule_tree(example.mask_rule),
        "hash": known["hash"] if same and known else digest([file_digest(path) for path in files]),
        "files": state,
    }


def _stamp(rows: Mapping[str, Sequence[Mapping[str, Any]]], ranges: Mapping[str, Range] | None = None) -> str:
    """Return what identifies a division: who is in which group, with what content, and how deep pictures are read."""
    identity = [
        [*(row[key] for key in ("id", "product", "defect")), row_identity(row)]
        for group in rows.values()
        for row in group
    ]
    deep = {product: span.to_json() for product, span in (ranges or {}).items() if span.depth > 8}
    return digest([len(group) for group in rows.values()], identity, *([deep] if deep else []))


def row_identity(row: Mapping[str, Any]) -> str:
    """Return the hash of a row's bytes, and of how its masks are read where that is not what any mask says itself."""
    rule = _rule(row)
    return (
        row["hash"] if rule is None or replace(rule, soft=0) == MaskRule() else digest([row["hash"], rule_tree(rule)])
    )


def _rule(row: Mapping[str, Any]) -> MaskRule | None:
    stored = row["mask_rule"]
    return None if stored is None else rule_from(stored)


def _example(row: Mapping[str, Any]) -> Example:
    masks = tuple(Path(file) for file in row["masks"])
    _require_text(row["id"], row["product"], row["defect"] or "", row["split"])
    return Example(row["id"], Path(row["image"]), row["product"], row["defect"], masks, row["split"], _rule(row))
