"""The ledger: what became of every file below the root, and what of it stops a run.

What is left out is an error when it could be a defect or its mask, else a warning; what a user would expect to be left
out (hidden files, notes, what `data.exclude` names) is only counted.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flawsmith.config import nfc
from flawsmith.data.codecs.coding import format_of
from flawsmith.data.layouts.mask_names import FOLDERS, of_a_tool
from flawsmith.data.layouts.reading import LeftOut, Reading, Severity
from flawsmith.data.layouts.tree import Tree, is_picture
from flawsmith.errors import first_few
from flawsmith.files import whole_file
from flawsmith.paths import open_file
from flawsmith.types import Example

PHOTOGRAPHS, MASKS, NORMAL_MASKS = "photographs", "masks", "masks of normal parts"
EXCLUDED, OF_EXCLUDED = "left out by data.exclude", "masks of pictures left out"
UNSELECTED, TABLES, ANNOTATIONS = "of products or types not asked for", "tables", "annotation files"
HIDDEN, OTHER = "hidden files", "other files"
DAMAGE = frozenset(
    "test val valid validation ground_truth anomaly anomalies anomalous defect defects defective ng nok bad damaged "
    "broken ko 불량 결함".split()
)
"""Names of folders that hold defects or their masks, in lower case, besides those of the defect types."""
_ANNOTATIONS = (".json", ".jsonl", ".manifest", ".txt")
_TEXT = frozenset(".txt .md .csv .json .xml .yaml .yml .toml .pdf .html .ini .log .py .zip .doc .docx .xlsx".split())
"""What is not opened to see whether it is a picture."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What became of every file below the root."""

    uses: Mapping[str, int]
    """Use, or the reason why not -> number of files; together, all files below the root."""
    left_out: tuple[LeftOut, ...]
    """What a user would not expect to be left out, and rows of tables that match nothing."""

    @property
    def files(self) -> int:
        """How many files lie below the root."""
        return sum(self.uses.values())

    def sentences(self, severity: Severity) -> list[str]:
        """Return what is left out as errors, warnings or notes; a sentence per reason."""
        return [_sentence(one) for one in self.left_out if one.severity == severity]

    def to_json(self) -> dict[str, Any]:
        """Return what data.json keeps."""
        rows = [
            {"reason": one.reason, "count": len(one.names), "example": one.names[0], "severity": one.severity}
            for one in self.left_out
        ]
        return {"files": self.files, "uses": dict(self.uses), "left_out": rows}


def account(tree: Tree, reading: Reading, chosen: Collection[str], layout: str) -> Ledger:
    """Say of every file below the root what became of it.

    Args:
        tree: All files.
        reading: What the layout made of them.
        chosen: Ids of the photographs of the products and defect types that are asked for.
        layout: The layout's name, for sentences.
    """
    use = dict.fromkeys(reading.of_the_absent, OF_EXCLUDED) | dict.fromkeys(tree.excluded, EXCLUDED)
    folders: dict[bool, set[str]] = {True: set(), False: set()}  # of what is asked for, and of what is not
    for example in reading.examples:
        asked = example.id in chosen
        photograph = example.image.relative_to(tree.root).as_posix()
        if use.get(photograph) != PHOTOGRAPHS:
            use[photograph] = PHOTOGRAPHS if asked else UNSELECTED
        masks = [whole_file(path).relative_to(tree.root).as_posix() for path in example.masks]
        use |= dict.fromkeys(masks, MASKS if asked else UNSELECTED)
        folders[asked].update(file.rpartition("/")[0] for file in (photograph, *masks))
    use |= {mask: NORMAL_MASKS for masks in reading.normal_masks.values() for mask in masks}
    strokes = {file for file in reading.tables if of_a_tool(file)}
    use |= {
        file: ANNOTATIONS if file.lower().endswith(_ANNOTATIONS) else TABLES for file in {*reading.tables} - strokes
    }
    use = dict.fromkeys(strokes, ANNOTATIONS) | use  # Label Studio's, which the JSON holds too, or which are masks
    files = set(tree.everything())
    elsewhere = folders[False] - folders[True]
    unasked = {file for file in files if file.rpartition("/")[0] in elsewhere}
    use |= {file: UNSELECTED for file in unasked - use.keys()}
    left_out = [
        replace(one, names=tuple(name for name in one.names if name not in unasked)) for one in reading.left_out
    ]
    for one in left_out:
        use |= {name: f"left out: {one.reason}" for name in one.names if name in files}
    rest = sorted(files - use.keys())
    places = _Places(tree, reading.examples)
    for group in (_dangling(tree, rest), *_unclaimed(rest, places, layout), *_by_content(tree, rest, places)):
        named = [name for name in group.names if name not in use]
        use |= dict.fromkeys(named, f"left out: {group.reason}")
        left_out += [LeftOut(group.reason, tuple(named), group.severity, group.remedy)] if named else []
    for loop in tree.loops:
        left_out.append(LeftOut("a link to a folder above it", (loop,), "note", noun="folder"))
    for run in tree.runs:
        left_out.append(LeftOut("a run of flawsmith", (run,), "note", noun="folder"))
    uses = Counter({PHOTOGRAPHS: 0, MASKS: 0})
    uses.update(use[file] for file in files & use.keys())
    uses[OTHER] = len(files) - sum(uses.values())
    uses[HIDDEN] = tree.hidden
    return Ledger({name: count for name, count in uses.items() if count}, tuple(_merged(left_out)))


class _Places:
    """Tells where defects and their masks may lie."""

    def __init__(self, tree: Tree, examples: Iterable[Example]) -> None:
        damaged = [example for example in examples if example.defect is not None]
        self._types = {example.defect.casefold() for example in damaged if example.defect}
        files = [path.relative_to(tree.root) for example in damaged for path in (example.image, *example.masks)]
        self._folders = {path.parent.as_posix() for path in files}

    def may_be_damage(self, file: str) -> bool:
        """Return whether a picture may show a defect, or be the mask of one, by the folders that it lies in."""
        parts = nfc(file).split("/")[:-1]
        words = {part.casefold() for part in parts}
        if words & DAMAGE or words & set(FOLDERS) or words & self._types:
            return True
        return any("/".join(parts[:depth]) in self._folders for depth in range(1, len(parts) + 1)) or (
            not parts and "." in self._folders
        )


def _dangling(tree: Tree, rest: Iterable[str]) -> LeftOut:
    names = tuple(file for file in rest if file in tree.dangling and is_picture(file))
    return LeftOut("links to files that are not there", names, "error", "copy the files there, or mend the links")


def _unclaimed(rest: Iterable[str], places: _Places, layout: str) -> Iterable[LeftOut]:
    """Pictures that lie where the layout does not look."""
    groups: dict[Severity, list[str]] = defaultdict(list)
    for file in rest:
        if is_picture(file):
            groups["error" if places.may_be_damage(file) else "warning"].append(file)
    for severity, names in groups.items():
        yield LeftOut(
            f"the layout {layout} does not look there",
            tuple(names),
            severity,
            "move them where it does, or name them in data.exclude",
        )


def _by_content(tree: Tree, rest: Iterable[str], places: _Places) -> Iterable[LeftOut]:
    """Pictures whose names do not say so."""
    groups: dict[tuple[str, Severity], list[str]] = defaultdict(list)
    for file in rest:
        suffix = os.path.splitext(file)[1].lower()
        if suffix in _TEXT or is_picture(file) or file in tree.dangling:
            continue
        try:
            with open_file(tree.path(file)) as stream:
                name = format_of(stream.read(64))
        except OSError:
            continue
        if name:
            reason = f"{name} in files {f'named {suffix}' if suffix else 'without a suffix'}"
            groups[reason, "error" if places.may_be_damage(file) else "warning"].append(file)
    for (reason, severity), names in groups.items():
        remedy = "rename or convert them to PNG, JPEG, TIFF, BMP or WebP, or name them in data.exclude"
        yield LeftOut(reason, tuple(names), severity, remedy)


def _merged(left_out: Sequence[LeftOut]) -> list[LeftOut]:
    """Return one record per reason, with the names of all."""
    merged: dict[tuple[str, Severity], LeftOut] = {}
    for one in left_out:
        if not one.names:
            continue
        key = one.reason, one.severity
        before = merged[key].names if key in merged else ()
        merged[key] = LeftOut(one.reason, (*before, *one.names), one.severity, one.remedy, one.noun)
    return list(merged.values())


def _sentence(one: LeftOut) -> str:
    shown = first_few(one.names)
    count = f"1 {one.noun} is" if len(one.names) == 1 else f"{len(one.names)} {one.noun}s are"
    return f"{shown}: {count} left out: {one.reason}" + (f"; {one.remedy}" if one.remedy else "")
