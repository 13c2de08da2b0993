"""Paths below the root: which files are pictures, which of them are excluded, and what a template says of a path.

line*/{defect}/{stem}.jpg    a field is one part of a name, * anything within it, ** folders as well

Names are compared in Unicode's composed form (NFC): macOS writes the decomposed one, in which `가` is two characters.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from flawsmith.config import DataConfig, Pattern, nfc
from flawsmith.data.images import SUFFIXES
from flawsmith.errors import ConfigError, DataError, nearest

FIELDS = ("product", "defect", "stem", "split")
"""The names that may stand in braces in a template."""
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def excluded(data: DataConfig, path: Path) -> bool:
    """Tell whether a glob of `data.exclude` fits a file below the root."""
    if not data.exclude:
        return False
    name = nfc(path.relative_to(data.root).as_posix())
    return any(_glob(glob).fullmatch(name) for glob in data.exclude)


def exclusions(data: DataConfig) -> list[str]:
    """Return a note that counts the pictures and masks that `data.exclude` leaves out; [] = it names none.

    Raises:
        DataError: a glob fits no picture; a sentence per glob, with the picture whose id is nearest.
    """
    if not data.exclude:
        return []
    files = {nfc(path.relative_to(data.root).as_posix()): path for path in pictures_below(data.root)}
    wrong = []
    for glob in data.exclude:
        if not any(map(_glob(glob).fullmatch, files)):
            near = "".join(f"; the nearest is {name!r}" for name in difflib.get_close_matches(nfc(glob), files, 1, 0.0))
            folder = glob.rstrip("/")
            hint = f"; a whole folder is '{folder}/**'" if folder and (data.root / folder).is_dir() else ""
            wrong.append(f"data.exclude: {glob!r} fits no picture below {data.root}{hint or near}")
    if wrong:
        raise DataError("\n".join(wrong))
    count = sum(excluded(data, path) for path in files.values())
    text = "1 picture or mask is" if count == 1 else f"{count} pictures and masks are"
    return [f"data.exclude: {text} left out"]


def folders_in(folder: Path) -> list[Path]:
    """Return the folders directly in one; names that begin with a dot are the work of other programs."""
    if not folder.is_dir():
        return []
    return sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))


def same_named(folder: Path, name: str) -> list[Path]:
    """Return the folders directly in one that have a name, the one that is written in the same form first."""
    return sorted(
        (item for item in folders_in(folder) if nfc(item.name) == nfc(name)), key=lambda item: item.name != name
    )


def pictures_in(data: DataConfig, *folders: Path) -> list[Path]:
    """Return the pictures directly in folders, without those that are excluded."""
    return [
        item
        for folder in folders
        if folder.is_dir()
        for item in sorted(folder.iterdir())
        if _is_picture(item.name) and not excluded(data, item) and item.is_file()
    ]


def pictures_below(folder: Path) -> list[Path]:
    """Return the pictures below a folder at any depth, through linked folders too, each real folder once."""
    pictures, walked = [], set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if real not in walked else []
        if real not in walked:
            pictures += [Path(here, name) for name in sorted(names) if _is_picture(name)]
        walked.add(real)
    return pictures


def matches(
    where: str, pattern: Pattern, files: Collection[str], out: Collection[str] = ()
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return {picture id: its fields} and {picture id: mask id} for one template pair; ids of `out` are in neither."""
    image_rule, image_fields = _compile(f"{where}.image", pattern.image)
    pictures = {name: match.groupdict() for name in files if (match := image_rule.fullmatch(nfc(name)))}
    if not pattern.mask:
        return {name: fields for name, fields in pictures.items() if name not in out}, {}
    mask_rule, mask_fields = _compile(f"{where}.mask", pattern.mask)
    if extra := sorted(mask_fields - image_fields):
        raise ConfigError(f"{where}.mask: {{{extra[0]}}} is not in the image template, so it cannot be filled in")
    by_fields: dict[tuple[str, ...], list[str]] = defaultdict(list)
    order = sorted(mask_fields)
    for name in files:
        if name not in out and (match := mask_rule.fullmatch(nfc(name))):
            by_fields[tuple(match[field] for field in order)].append(name)
    masks: dict[str, str] = {}
    used: set[str] = set()
    for name, fields in pictures.items():
        fitting = [mask for mask in by_fields[tuple(fields[field] for field in order)] if mask != name]
        used.update(fitting)
        if name in out:
            continue
        if len(fitting) > 1:
            raise DataError(f"{name}: {len(fitting)} masks fit {pattern.mask!r} ({', '.join(fitting[:3])}); one must")
        if fitting:
            masks[name] = fitting[0]
    # {stem}.png also fits x_mask.png; what serves as the mask of another picture is no picture.
    gone = used.union(out)
    return {name: fields for name, fields in pictures.items() if name not in gone}, masks


def _compile(where: str, template: str) -> tuple[re.Pattern[str], set[str]]:
    """Turn `line*/{defect}/{stem}.jpg` into a rule for whole ids; fields and * stay within a path part, ** does not."""
    rule, fields = "", set()
    for piece in re.split(r"(\{[^{}]*\}|\*\*/|\*\*|\*|\?)", _posix(template)):
        if piece.startswith("{") and piece.endswith("}"):
            name = piece[1:-1]
            if name not in FIELDS:
                raise ConfigError(f"{where}: {piece} is no field{nearest(name, FIELDS)}")
            rule += f"(?P={name})" if name in fields else f"(?P<{name}>[^/]+?)"
            fields.add(name)
        else:
            rule += _WILD.get(piece, re.escape(piece))
    return re.compile(rule, re.DOTALL), fields


@lru_cache
def _glob(glob: str) -> re.Pattern[str]:
    """Turn a glob into a rule for whole ids; braces and brackets stand for themselves."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", _posix(glob))
    return re.compile("".join(_WILD.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)


def _posix(template: str) -> str:
    return nfc(template.replace("\\", "/").removeprefix("./"))


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)
