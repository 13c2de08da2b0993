"""pattern: the user's own templates, `data.patterns`.

line*/{defect}/{stem}.jpg    a field is one part of a name, * anything within it, ** folders as well
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection

from flawsmith.config import DataConfig, Pattern, nfc
from flawsmith.data.layouts.reading import Reading, orphans
from flawsmith.data.layouts.tree import WILDCARDS, Tree, is_picture, posix
from flawsmith.errors import ConfigError, DataError, nearest
from flawsmith.types import Example

EXPECTED = "check data.patterns, and mark normal parts by normal = true or data.normal"
MASKS = "check the `mask` template, or draw them"
FIELDS = ("product", "defect", "stem", "split")
"""The names that may stand in braces in a template."""
_LABELS = "correct the templates of data.patterns, or the names"


def read_pattern(data: DataConfig, tree: Tree) -> Reading:
    """Read what the templates of `data.patterns` fit; the first that fits a picture has it."""
    if not data.patterns:
        raise ConfigError(
            'data.patterns: the layout "pattern" needs at least one, e.g. {image = "{defect}/{stem}.png"}'
        )
    files = [file for file in tree.everything() if is_picture(file)]
    normals = {nfc(name) for name in data.normal}
    examples: dict[str, Example] = {}
    normal_masks: dict[str, tuple[str, ...]] = {}
    of_the_absent: set[str] = set()
    lone: set[str] = set()
    defects: set[str] = set()
    for index, pattern in enumerate(data.patterns):
        where = f"data.patterns[{index}]"
        pictures, masks, unmatched = matches(where, pattern, files, tree.gone)
        lone |= unmatched
        for file in tree.gone & masks.keys():
            of_the_absent.update(tree.here(masks[file]))
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
            if file in examples:
                continue
            product = fields.get("product") or pattern.product or data.product or tree.name
            split = fields.get("split", "")
            split = split if split in ("train", "test") else ""
            label = tree.here(masks.get(file, ()))
            if normal and label:
                normal_masks[file] = label
            paths = () if normal else tuple(map(tree.path, label))
            examples[file] = Example(file, tree.path(file), product, None if normal else defect, paths, split)
    tree.require_known("data.normal", data.normal, defects - {""})
    claimed = {path for example in examples.values() for path in (example.image, *example.masks)}
    lost = [file for file in sorted(lone) if tree.path(file) not in claimed and file not in of_the_absent]
    left_out = orphans(tree.here(lost), _LABELS)
    return Reading(tuple(examples.values()), normal_masks, (), frozenset(of_the_absent), left_out)


def matches(
    where: str, pattern: Pattern, files: Collection[str], gone: Collection[str] = ()
) -> tuple[dict[str, dict[str, str]], dict[str, tuple[str, ...]], set[str]]:
    """Return what one pair of templates fits: {picture: its fields}, {picture: its masks}, and masks of no picture.

    Args:
        where: The setting, for sentences.
        pattern: The templates.
        files: Ids of all pictures.
        gone: Those of them that are not to be read; they are no mask, but may be a picture.
    """
    image_rule, image_fields = _compile(f"{where}.image", pattern.image)
    pictures = {name: match.groupdict() for name in files if (match := image_rule.fullmatch(nfc(name)))}
    if not pattern.mask:
        return pictures, {}, set()
    mask_rule, mask_fields = _compile(f"{where}.mask", pattern.mask)
    if extra := sorted(mask_fields - image_fields):
        raise ConfigError(f"{where}.mask: {{{extra[0]}}} is not in the image template, so it cannot be filled in")
    by_fields: dict[tuple[str, ...], list[str]] = defaultdict(list)
    order = sorted(mask_fields)
    for name in files:
        if name not in gone and (match := mask_rule.fullmatch(nfc(name))):
            by_fields[tuple(match[field] for field in order)].append(name)
    masks: dict[str, tuple[str, ...]] = {}
    used: set[str] = set()
    for name, fields in pictures.items():
        fitting = [mask for mask in by_fields[tuple(fields[field] for field in order)] if mask != name]
        used.update(fitting)
        # Without the picture's own name in the template, several masks are those of several pictures.
        if len(fitting) > 1 and "stem" not in mask_fields and name not in gone:
            raise DataError(
                f"{name}: {len(fitting)} masks fit {pattern.mask!r} ({', '.join(fitting[:3])}); write {{stem}} in it"
            )
        if fitting:
            masks[name] = tuple(fitting)
    # {stem}.png also fits x_mask.png; what serves as the mask of another picture is no picture.
    pictures = {name: fields for name, fields in pictures.items() if name not in used}
    lone = {name for names in by_fields.values() for name in names} - used - pictures.keys()
    return pictures, masks, lone


def _compile(where: str, template: str) -> tuple[re.Pattern[str], set[str]]:
    """Turn `line*/{defect}/{stem}.jpg` into a rule for whole ids; fields and * stay within a path part, ** does not."""
    rule, fields = "", set()
    for piece in re.split(r"(\{[^{}]*\}|\*\*/|\*\*|\*|\?)", posix(template)):
        if piece.startswith("{") and piece.endswith("}"):
            name = piece[1:-1]
            if name not in FIELDS:
                raise ConfigError(f"{where}: {piece} is no field{nearest(name, FIELDS)}")
            rule += f"(?P={name})" if name in fields else f"(?P<{name}>[^/]+?)"
            fields.add(name)
        else:
            rule += WILDCARDS.get(piece, re.escape(piece))
    return re.compile(rule, re.DOTALL), fields
