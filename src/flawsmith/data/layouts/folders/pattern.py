"""pattern: the user's own templates, `data.patterns`.

line*/{defect}/{stem}.jpg    a field is one part of a name, * anything within it, ** folders as well
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from typing import TypeAlias

from flawsmith.config import DataConfig, Pattern, nfc
from flawsmith.data.layouts.reading import Gathering, Reading, orphans
from flawsmith.data.layouts.tree import WILDCARDS, Tree, is_picture, posix
from flawsmith.errors import ConfigError, DataError, nearest

EXPECTED = "check data.patterns, and mark normal parts by normal = true or data.normal"
MASKS = "check the `mask` template, or draw them"
FIELDS = ("product", "defect", "stem", "split")
"""The names that may stand in braces in a template."""
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
"""What {split} may stand for, in any case."""
_Folders: TypeAlias = tuple[str, ...]
_LABELS = "correct the templates of data.patterns, or the names"


def read_pattern(data: DataConfig, tree: Tree) -> Reading:
    """Read what the templates of `data.patterns` fit; the first that fits a picture has it."""
    if not data.patterns:
        raise ConfigError(
            'data.patterns: the layout "pattern" needs at least one, e.g. {image = "{defect}/{stem}.png"}'
        )
    files = [file for file in tree.everything() if is_picture(file)]
    normals = {nfc(name) for name in data.normal}
    gathering = Gathering(tree, _LABELS)
    lone: set[str] = set()
    other_splits: set[str] = set()
    defects: set[str] = set()
    for index, pattern in enumerate(data.patterns):
        where = f"data.patterns[{index}]"
        pictures, masks, unmatched = matches(where, pattern, files, tree.gone)
        lone |= unmatched
        for file in tree.gone & masks.keys():
            gathering.of_the_absent.update(tree.here(masks[file]))
        here = {file: fields for file, fields in pictures.items() if file not in tree.gone}
        if not here:
            known = tree.here(files)
            shown = f"e.g. {min(known)}" if known else "there is none"
            raise DataError(
                f"{where}.image: {pattern.image!r} fits none of the {len(known)} pictures below {data.root}; {shown}"
            )
        for file, fields in here.items():
            defect = fields.get("defect", nfc(pattern.defect))
            defects.add(defect)
            normal = pattern.normal or defect in normals
            if not normal and not defect:
                raise ConfigError(
                    f"{where}: say what is damaged: a {{defect}} in the template, defect = ..., or normal = true"
                )
            if file in gathering.examples:
                continue
            product = fields.get("product") or pattern.product or data.product or tree.name
            written = fields.get("split", "").casefold()
            split = _SPLITS.get(written, "")
            if written and not split:
                other_splits.add(fields["split"])
            gathering.take(file, masks.get(file, ()), product, None if normal else defect, split)
    tree.require_known("data.normal", data.normal, defects - {""})
    examples = gathering.examples.values()
    claimed = {path for example in examples for path in (example.image, *example.masks)}
    lost = [file for file in sorted(lone) if tree.path(file) not in claimed and file not in gathering.of_the_absent]
    gathering.left_out += orphans(tree.here(lost), _LABELS)
    shared: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        for path in example.masks:
            shared[path.relative_to(tree.root).as_posix()].append(example.id)
    gathering.warnings += _shared({mask: names for mask, names in shared.items() if len(names) > 1})
    if other_splits:
        words = ", ".join(map(repr, sorted(other_splits)))
        gathering.warnings.append(
            f"data.patterns: {{split}} stands for {words}, which is neither train nor test, so these "
            "pictures are divided as if they had no split; call the folders train and test"
        )
    return gathering.reading()


def _shared(masks: dict[str, list[str]]) -> tuple[str, ...]:
    """Say which masks serve several photographs: one part under several lights, or two parts of one name."""
    if not masks:
        return ()
    mask, names = min(masks.items())
    count = "1 mask serves" if len(masks) == 1 else f"{len(masks)} masks serve"
    return (
        f"{mask}: {count} several photographs each ({', '.join(names[:3])}); where they show several parts, write the "
        "folders that tell them apart in both templates of data.patterns",
    )


def matches(
    where: str, pattern: Pattern, files: Collection[str], gone: Collection[str] = ()
) -> tuple[dict[str, dict[str, str]], dict[str, tuple[str, ...]], set[str]]:
    """Return what one pair of templates fits: {picture: its fields}, {picture: its masks}, and masks of no picture.

    A mask lies where its picture does: what `*` and `**` of the folders stand for is the same in both, as soon as it is
    so for one of them.

    Args:
        where: The setting, for sentences.
        pattern: The templates.
        files: Ids of all pictures.
        gone: Those of them that are not to be read; they are no mask, but may be a picture.
    """
    image_rule, image_fields = _compile(f"{where}.image", pattern.image)
    fits = {name: fit for name in files if (fit := image_rule.fullmatch(nfc(name)))}
    pictures = {name: {field: fit[field] for field in image_fields} for name, fit in fits.items()}
    if not pattern.mask:
        return pictures, {}, set()
    mask_rule, mask_fields = _compile(f"{where}.mask", pattern.mask)
    if extra := sorted(mask_fields - image_fields):
        raise ConfigError(f"{where}.mask: {{{extra[0]}}} is not in the image template, so it cannot be filled in")
    # Fields -> what is called so: the pictures and the masks, each with the folders that no field of the mask names.
    same: dict[tuple[str, ...], tuple[dict[str, _Folders], dict[str, _Folders]]] = defaultdict(lambda: ({}, {}))
    order = sorted(mask_fields)
    for name, fit in fits.items():
        same[tuple(fit[field] for field in order)][0][name] = _folders(fit, mask_fields)
    for name in files:
        if name not in gone and (fit := mask_rule.fullmatch(nfc(name))):
            same[tuple(fit[field] for field in order)][1][name] = _folders(fit, mask_fields)
    correspond = any(
        folders and folders in labels.values() for named, labels in same.values() for folders in named.values()
    )
    masks: dict[str, tuple[str, ...]] = {}
    users: dict[str, list[str]] = defaultdict(list)
    for named, labels in same.values():
        at: dict[_Folders, list[str]] = defaultdict(list)
        for mask, place in labels.items():
            at[place if correspond else ()].append(mask)
        for name, folders in named.items():
            place = folders if correspond else ()
            places = [place]
            if place not in at:
                places = [other for other in at if set(other) <= set(place) or set(place) <= set(other)]
            fitting = [mask for place in places for mask in at[place] if mask != name]
            if fitting:
                masks[name] = tuple(fitting)
            for mask in fitting:
                users[mask].append(name)
    for name, several in masks.items():
        # Without the picture's own name in the template, several masks are those of several pictures.
        if name in gone or len(several) < 2:
            continue
        if "stem" not in mask_fields:
            raise DataError(
                f"{name}: {len(several)} masks fit {pattern.mask!r} ({', '.join(several[:3])}); write {{stem}} in it"
            )
        if others := [other for mask in several for other in users[mask] if other != name and other not in gone]:
            raise DataError(
                f"{name} and {others[0]}: each of {', '.join(several[:3])} fits both by {where}.mask; write what tells "
                "them apart as a field, or as the same * for their folders, in both templates"
            )
    # {stem}.png also fits x_mask.png; what serves as the mask of another picture is no picture.
    pictures = {name: fields for name, fields in pictures.items() if name not in users}
    lone = {mask for _, labels in same.values() for mask in labels} - users.keys() - pictures.keys()
    return pictures, masks, lone


def _folders(fit: re.Match[str], fields: Collection[str]) -> _Folders:
    """Return the folders that a template leaves open beside these fields, in their order."""
    texts = [text for name, text in fit.groupdict().items() if name not in fields and name != "stem" and text]
    return tuple(part for text in texts for part in text.split("/") if part)


def _compile(where: str, template: str) -> tuple[re.Pattern[str], set[str]]:
    """Turn `line*/{defect}/{stem}.jpg` into a rule for whole ids; fields and * stay within a path part, ** does not.

    What * and ** stand for in a folder is a group of its own: `_0`, `_1`, ...
    """
    rule, fields, folders = "", set(), 0
    pieces = re.split(r"(\{[^{}]*\}|\*\*/|\*\*|\*|\?)", posix(template))
    for index, piece in enumerate(pieces):
        if piece.startswith("{") and piece.endswith("}"):
            name = piece[1:-1]
            if name not in FIELDS:
                raise ConfigError(f"{where}: {piece} is no field{nearest(name, FIELDS)}")
            rule += f"(?P={name})" if name in fields else f"(?P<{name}>[^/]+?)"
            fields.add(name)
        elif piece in WILDCARDS and any("/" in rest for rest in (piece, *pieces[index + 1 :])):
            rule += f"(?P<_{folders}>{WILDCARDS[piece]})"
            folders += 1
        else:
            rule += WILDCARDS.get(piece, re.escape(piece))
    return re.compile(rule, re.DOTALL), fields
