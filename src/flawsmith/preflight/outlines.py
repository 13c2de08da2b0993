"""A page for people who would rather look: some photographs of each type with the outline of what was understood."""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path

import numpy as np

from flawsmith.data import images
from flawsmith.data.masks.reading import read_ignored, read_label
from flawsmith.data.previews import OUTLINE, fit, jpeg, outlined, shown
from flawsmith.data.split import Split
from flawsmith.errors import DataError
from flawsmith.files import write_text
from flawsmith.korean import language, spoken
from flawsmith.types import Example

PER_TYPE = 4
"""Shots of each defect type, and as many test pictures."""
_SIDE = 480
"""Longest side of a picture in px."""
_BYTES = 60_000
"""Most bytes of a picture."""
_IGNORED = (0, 132, 255)
_HEAD = """<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<title>flawsmith check</title>
<style>
body { font: 15px sans-serif; margin: 24px; color: #222 }
:lang(ko) { word-break: keep-all }
figure { display: inline-block; margin: 0 16px 16px 0; max-width: 290px; vertical-align: top }
figcaption { color: #666; overflow-wrap: anywhere }
img { max-width: 290px; max-height: 290px }
</style>
"""
_TITLE = "What flawsmith understood as damage"
_LEGEND = "Red runs round the damage, blue round what counts neither as damage nor as background."
_ORDER = "Shots come first, then test pictures."
_MORE = "There are more: `flawsmith studio CONFIG` shows all of them, under Data."


def write_page(path: Path, examples: Sequence[Example], divided: Split | None) -> int:
    """Write the page, as one HTML file with its pictures inside; return how many photographs it shows.

    It is in Korean where FLAWSMITH_LANG asks for that. Where it would show none, nothing is written.

    Args:
        path: Where to; replaced when it exists.
        examples: The photographs, with the rules by which their masks are read.
        divided: Which of them are shots; None = unknown.

    Raises:
        RunError: it cannot be written.
    """
    shots = {shot.id for shot in divided.shots} if divided else set()
    types: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        if example.defect is not None and example.masks and example.mask_rule is not None:
            types[example.product, example.defect].append(example)
    parts, number = [_HEAD.replace("{language}", language())], 0
    parts.append(f"<h1>{escape(spoken(_TITLE))}</h1>\n<p>{escape(spoken(_LEGEND))} {escape(spoken(_ORDER))}</p>\n")
    if any(len(members) > len(_chosen(members, shots)) for members in types.values()):
        code = re.sub("`(.+?)`", r"<code>\1</code>", escape(spoken(_MORE)))
        parts.append(f"<p>{code}</p>\n")
    for (product, defect), members in sorted(types.items()):
        chosen = _chosen(members, shots)
        shown_of = spoken(f"{len(chosen)} of {len(members)}")
        parts.append(f"<h2>{escape(product)}: {escape(defect)}, {shown_of}</h2>\n")
        for example in chosen:
            try:
                picture, caption = _drawn(example)
            except DataError:
                continue  # `check` names it
            kind = spoken("real shot" if example.id in shots else "test picture" if divided else "")
            text = ", ".join(part for part in (example.id, kind, caption) if part)
            data = base64.b64encode(jpeg(picture, _BYTES)).decode()
            image = f'<img alt="{escape(example.id)}" src="data:image/jpeg;base64,{data}">'
            parts.append(f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>\n")
            number += 1
    if number:
        write_text(path, "".join(parts))
    return number


def _chosen(members: Sequence[Example], shots: Collection[str]) -> list[Example]:
    """Return the photographs of a type that are shown: of shots and of others as many, where there are so many."""
    learned = [one for one in members if one.id in shots]
    others = [one for one in members if one.id not in shots]
    return learned[: max(PER_TYPE, 2 * PER_TYPE - len(others))] + others[: max(PER_TYPE, 2 * PER_TYPE - len(learned))]


def _drawn(example: Example) -> tuple[np.ndarray, str]:
    """Return a photograph with its outlines, uint8 (h,w,3), and how much of it is damage."""
    native = images.read(example.image)
    mask, ignored = read_label(example, native.shape), read_ignored(example, native.shape)
    drawn = fit(shown(native, example.span), _SIDE)
    if ignored is not None:
        drawn = outlined(drawn, ignored, _IGNORED)
    return outlined(drawn, mask, OUTLINE), spoken(f"{100 * mask.mean():.2g} % damaged")
