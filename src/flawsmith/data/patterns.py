"""Templates of paths: which files are photographs, what their names say of them, and which file is whose mask.

line*/{defect}/{stem}.jpg    a field is one part of a name, * anything within it, ** folders as well
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from flawsmith.config import Pattern
from flawsmith.errors import ConfigError, DataError, nearest

FIELDS = ("product", "defect", "stem", "split")
"""The names that may stand in braces in a template."""


def matches(where: str, pattern: Pattern, files: dict[str, Path]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return {picture id: its fields} and {picture id: mask id} for one template pair."""
    image_rule, image_fields = _compile(f"{where}.image", pattern.image)
    pictures = {name: match.groupdict() for name in files if (match := image_rule.fullmatch(name))}
    if not pattern.mask:
        return pictures, {}
    mask_rule, mask_fields = _compile(f"{where}.mask", pattern.mask)
    if extra := sorted(mask_fields - image_fields):
        raise ConfigError(f"{where}.mask: {{{extra[0]}}} is not in the image template, so it cannot be filled in")
    by_fields: dict[tuple[str, ...], list[str]] = defaultdict(list)
    order = sorted(mask_fields)
    for name in files:
        if match := mask_rule.fullmatch(name):
            by_fields[tuple(match[field] for field in order)].append(name)
    masks = {}
    for name, fields in pictures.items():
        fitting = [mask for mask in by_fields[tuple(fields[field] for field in order)] if mask != name]
        if len(fitting) > 1:
            raise DataError(f"{name}: {len(fitting)} masks fit {pattern.mask!r} ({', '.join(fitting[:3])}); one must")
        if fitting:
            masks[name] = fitting[0]
    # {stem}.png also fits x_mask.png; what serves as the mask of another picture is no picture.
    used = set(masks.values())
    return {name: fields for name, fields in pictures.items() if name not in used}, masks


def _compile(where: str, template: str) -> tuple[re.Pattern[str], set[str]]:
    """Turn `line*/{defect}/{stem}.jpg` into a rule for whole ids; fields and * stay within a path part, ** does not."""
    rule, fields = "", set()
    for piece in re.split(r"(\{[^{}]*\}|\*\*/|\*\*|\*|\?)", template.replace("\\", "/").removeprefix("./")):
        if piece.startswith("{") and piece.endswith("}"):
            name = piece[1:-1]
            if name not in FIELDS:
                raise ConfigError(f"{where}: {piece} is no field{nearest(name, FIELDS)}")
            rule += f"(?P={name})" if name in fields else f"(?P<{name}>[^/]+?)"
            fields.add(name)
        else:
            rule += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))
    return re.compile(rule, re.DOTALL), fields
