"""Which photograph a mask belongs to, by its name: the ways in which people and labelling tools name masks.

x.png                 as the photograph itself, in another folder or with another suffix
x_mask.png, x_gt_2    what it is (`ENDINGS`) behind the photograph's name, and a number where there are several
mask_x.png            the same before it
x.bmp.png             the photograph's whole file name
x/0.png, x/1.png      a folder with the photograph's name, a file per region
task-3-annotation-3-by-1-tag-scratch-0.png    Label Studio: tells the task and not the photograph
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from flawsmith.config import nfc
from flawsmith.data.images import SUFFIXES
from flawsmith.data.layouts.tree import below, last_part, without_suffix

ENDINGS = (
    *("mask", "masks", "label", "labels", "gt", "groundtruth", "ground_truth", "seg", "segmentation"),
    *("마스크", "라벨", "레이블", "정답"),
)
"""What may follow or precede a photograph's name in the name of its mask, behind `_`, `-` or a dot; case is free."""
FOLDERS = (*ENDINGS, "masks_machine", "annotation", "annotations", "segmentationclass", "segmentationobject")
"""Names of folders that hold masks and no photographs; case is free."""

_ENDINGS = "|".join(sorted(ENDINGS, key=len, reverse=True))
_BEHIND = re.compile(rf"(?P<base>.+?)[_.\- ](?:{_ENDINGS})(?:[_.\- ]?\d+)?", re.IGNORECASE | re.DOTALL)
_BEFORE = re.compile(rf"(?:{_ENDINGS})[_.\- ](?P<base>.+)", re.IGNORECASE | re.DOTALL)
_LABEL_STUDIO = re.compile(r"task-(?P<task>\d+)-annotation-\d+-by-.+-tag-(?P<tag>.+)-\d+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Matches:
    """Which masks belong to which photographs."""

    masks: Mapping[str, tuple[str, ...]]
    """Photograph -> its masks, in order."""
    orphans: tuple[str, ...]
    """Masks that belong to no photograph."""
    unclear: Mapping[str, tuple[str, ...]]
    """Photograph -> files of which only one can be its mask, as they are named in different ways, or alike but for the
    suffix; no key of `masks`."""
    of_several: tuple[str, ...]
    """Masks that may as well belong to one photograph as to another."""


def match(
    photographs: Mapping[str, str], masks: Iterable[tuple[str, str]], gone: Collection[str] = frozenset()
) -> Matches:
    """Find each mask's photograph; several masks of one photograph are all its own.

    Args:
        photographs: Path of each without its suffix, in composed Unicode, below the folder of photographs -> its id.
        masks: (path below the folder of masks, id) of each.
        gone: Ids that are not to be read. A photograph of them has a mask where no other photograph may have it.
    """
    by_last: defaultdict[str, list[str]] = defaultdict(list)
    for name in photographs:
        by_last[last_part(name).casefold()].append(name)
    ways: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    orphans: list[str] = []
    of_several: list[str] = []
    for path, mask in masks:
        named = bases(path)
        exact = [(way, name) for way, name in named if name in photographs]
        close = [(way, _alike(name, by_last[last_part(name).casefold()])) for way, name in named] if not exact else []
        close = [(way, [name for name in names if photographs[name] not in gone] or names) for way, names in close]
        alone = [(way, names[0]) for way, names in close if len(names) == 1]
        present = [(way, name) for way, name in alone if photographs[name] not in gone]
        for way, name in (exact or present or alone)[:1]:
            ways[photographs[name]][way].append(mask)
        if not exact and not alone:
            (of_several if any(names for _, names in close) else orphans).append(mask)
    single: dict[str, list[str]] = {}
    several: dict[str, list[str]] = {}
    for photograph, named_so in ways.items():
        kept = [[file for file in files if file not in gone] for files in named_so.values()]
        here = [file for files in kept for file in files]
        twice = len({without_suffix(file) for file in here}) < len(here)
        (several if twice or sum(map(bool, kept)) > 1 else single)[photograph] = sum(named_so.values(), [])
    return Matches(
        {photograph: tuple(sorted(files)) for photograph, files in single.items()},
        tuple(orphans),
        {photograph: tuple(sorted(files)) for photograph, files in several.items()},
        tuple(of_several),
    )


def _alike(name: str, candidates: Iterable[str]) -> list[str]:
    """Return the photographs that may be meant where only the last part agrees: one lies flat, the other in folders."""
    folders = {part for part in name.split("/")[:-1] if part.casefold() not in FOLDERS}
    return [
        candidate
        for candidate in candidates
        if folders <= (others := set(candidate.split("/")[:-1])) or others <= folders
    ]


def bases(path: str) -> list[tuple[str, str]]:
    """Return what a mask's photograph may be called, the likeliest first: (way of naming, path without suffix)."""
    stem = without_suffix(path)
    folder, slash, name = stem.rpartition("/")
    likely = [("same", stem)]
    likely += [("marked", folder + slash + base) for base in (behind(name), before(name)) if base]
    likely += [("whole", whole) for _, other in tuple(likely) if (whole := _without_picture_suffix(other))]
    if folder:
        likely.append(("folder", folder))
    return likely


def behind(name: str) -> str:
    """Return a name without an ending that says mask, and a number behind that: `x_mask_2` -> `x`; "" = none."""
    fit = _BEHIND.fullmatch(name)
    return fit["base"] if fit else ""


def before(name: str) -> str:
    """Return a name without a word before it that says mask: `mask_x` -> `x`; "" = none."""
    fit = _BEFORE.fullmatch(name)
    return fit["base"] if fit else ""


def of_a_tool(name: str) -> bool:
    """Tell a name that no photograph has: Label Studio's export of brush strokes."""
    return bool(task_and_tag(name))


def task_and_tag(name: str) -> tuple[str, str] | None:
    """Return the number of the task and the defect type in a name that Label Studio gives to brush strokes."""
    fit = _LABEL_STUDIO.fullmatch(without_suffix(last_part(name)))
    return (fit["task"], fit["tag"]) if fit else None


def in_mask_folder(path: str) -> bool:
    """Tell whether a folder on the way to a file says that it holds masks."""
    return any(part.casefold() in FOLDERS for part in path.split("/")[:-1])


def names_below(folder: str, files: Iterable[str]) -> dict[str, str]:
    """Return {path below a folder, without suffix, in composed Unicode: id}."""
    return {without_suffix(below(folder, file)): file for file in files}


def _without_picture_suffix(stem: str) -> str:
    return without_suffix(stem) if nfc(stem).lower().endswith(SUFFIXES) else ""
