"""Previews, heat maps and overlays that tools write beside photographs: none of them is one to learn from."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flawsmith.data.layouts.tree import last_part, without_suffix
from flawsmith.types import Example

_WORDS = (
    *("thumb", "thumbnail", "preview", "overlay", "heatmap", "heat_map", "anomaly_map", "viz", "visualization"),
    *("썸네일", "미리보기"),
)
_ONE = "|".join(_WORDS)
_BEHIND = re.compile(rf"(?P<base>.+?)[_.\- ](?:{_ONE})s?", re.IGNORECASE | re.DOTALL)
_BEFORE = re.compile(rf"(?:{_ONE})s?[_.\- ](?P<base>.+)", re.IGNORECASE | re.DOTALL)
_FOLDER = re.compile(r"(?:thumb|thumbnail|preview|heatmap|heat_map|anomaly_map)s?|썸네일|미리보기", re.IGNORECASE)


def previews_among(examples: Sequence[Example]) -> set[str]:
    """Return the ids of what is called as another photograph is, with a word that says preview.

    The word lies behind or before the name (`7_thumb.jpg` with `7.png`), or is a folder in that of the photographs or
    beside it (`thumbnails/7.jpg`). Without such another photograph it may be a name like any other; and what has masks
    is a photograph.
    """
    names = {example.id: without_suffix(example.id) for example in examples}
    plain = {name for name in names.values() if not _other_names(name)}
    beside = {(name.rpartition("/")[0].rpartition("/")[0], last_part(name)) for name in plain}
    return {
        example.id
        for example in examples
        if not example.masks and any(other in plain or other in beside for other in _other_names(names[example.id]))
    }


def _other_names(name: str) -> list[str | tuple[str, str]]:
    """Return what the photograph may be called of which this name says that it is a preview; [] = it says nothing.

    A pair is (the folder above the photograph's own, its name).
    """
    folder, slash, last = name.rpartition("/")
    fits = (_BEHIND.fullmatch(last), _BEFORE.fullmatch(last))
    others: list[str | tuple[str, str]] = [folder + slash + fit["base"] for fit in fits if fit]
    above, _, own = folder.rpartition("/")
    if above and _FOLDER.fullmatch(own):
        others += [f"{above}/{last}", (above, last)]
    return others
