"""A page for people who would rather look: photographs with the outlines of what was understood as damage and part."""

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
from flawsmith.data.photographs import Photographs
from flawsmith.data.previews import OUTLINE, PART_OUTLINE, fit, jpeg, outlined, shown
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
_PARTS_LAST = "Normal photographs with the outline of the part come last."
_MORE = "There are more: `flawsmith studio CONFIG` shows all of them, under Data."
_PARTS_TITLE = "What flawsmith understood as part"
_PARTS_LEGEND = (
    "Green runs round the part in a normal photograph. Damage is laid on it, where it lay on the part in the shot."
)


def write_page(path: Path, examples: Sequence[Example], divided: Split | None, normals: Photographs | None) -> int:
    """Write the page, as one HTML file with its pictures inside; return how many photographs it shows.

    It is in Korean where FLAWSMITH_LANG asks for that. Where it would show none, nothing is written.

    Args:
        path: Where to; replaced when it exists.
        examples: The photographs, with the rules by which their masks are read.
        divided: Which of them are shots; None = unknown.
        normals: The normal photographs, of products that are parts some are shown; None = unknown.

    Raises:
        RunError: it cannot be written.
    """
    shots = {shot.id for shot in divided.shots} if divided else set()
    types: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        if example.defect is not None and example.masks and example.mask_rule is not None:
            types[example.product, example.defect].append(example)
    on_parts = _on_parts(normals) if normals is not None else {}
    legend = [_LEGEND, _ORDER, *([_PARTS_LAST] if on_parts else [])]
    page, number = [_HEAD.replace("{language}", language())], 0
    page.append(f"<h1>{escape(spoken(_TITLE))}</h1>\n<p>{' '.join(escape(spoken(one)) for one in legend)}</p>\n")
    if any(len(members) > len(_chosen(members, shots)) for members in types.values()):
        code = re.sub("`(.+?)`", r"<code>\1</code>", escape(spoken(_MORE)))
        page.append(f"<p>{code}</p>\n")
    for (product, defect), members in sorted(types.items()):
        chosen = _chosen(members, shots)
        shown_of = spoken(f"{len(chosen)} of {len(members)}")
        page.append(f"<h2>{escape(product)}: {escape(defect)}, {shown_of}</h2>\n")
        for example in chosen:
            try:
                picture, caption = _drawn(example)
            except DataError:
                continue  # `check` names it
            kind = spoken("real shot" if example.id in shots else "test picture" if divided else "")
            page.append(_figure(example.id, picture, kind, caption))
            number += 1
    if not number:
        return 0
    if on_parts:
        page.append(f"<h1>{escape(spoken(_PARTS_TITLE))}</h1>\n<p>{escape(spoken(_PARTS_LEGEND))}</p>\n")
    for heading, figures in on_parts.items():
        page += [f"<h2>{escape(heading)}</h2>\n", *figures]
        number += len(figures)
    write_text(path, "".join(page))
    return number


def _on_parts(normals: Photographs) -> dict[str, list[str]]:
    """Return a heading and figures of normal photographs for each product that is a part."""
    sections: dict[str, list[str]] = {}
    for product in sorted({normal.product for normal in normals.normals.values()}):
        try:
            if normals.is_surface(product):
                continue
            looked_at = [normals.normals[name] for name in normals.part_shares(product)]
            chosen = looked_at[:: max(1, len(looked_at) // PER_TYPE)][:PER_TYPE]
            figures = [_with_part(normals, normal) for normal in chosen]
        except DataError:
            continue  # `check` names it
        sections[f"{product}, {spoken(f'{len(chosen)} of {len(normals.normals_of(product))}')}"] = figures
    return sections


def _with_part(normals: Photographs, normal: Example) -> str:
    """Return the figure of a normal photograph with the outline of its part."""
    photograph, part = normals.read(normal), normals.part(normal)
    drawn = fit(shown(photograph.native, photograph.span), _SIDE)
    if part.all():
        return _figure(normal.id, drawn, spoken("no part found"))
    return _figure(normal.id, outlined(drawn, part, PART_OUTLINE))


def _figure(name: str, picture: np.ndarray, *captions: str) -> str:
    """Return a picture, uint8 (h,w,3) RGB, with its name and what else is said of it."""
    text = ", ".join(caption for caption in (name, *captions) if caption)
    data = base64.b64encode(jpeg(picture, _BYTES)).decode()
    image = f'<img alt="{escape(name)}" src="data:image/jpeg;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>\n"


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
