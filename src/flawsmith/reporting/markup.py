"""Pieces of HTML that every section of the report is made of."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from flawsmith.reporting.contact_sheets import jpeg


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], *, total: bool = False, mono: bool = False) -> str:
    """Draw a table; a head that begins with # is a column of numbers."""
    right = [head.startswith("#") for head in heads]
    top = "".join(
        f"<th{' class=number' if r else ''}>{escape(h.removeprefix('#'))}</th>"
        for h, r in zip(heads, right, strict=True)
    )
    lines = []
    for place, row in enumerate(rows):
        cells = "".join(_cell(value, number < len(right) and right[number], mono) for number, value in enumerate(row))
        last = total and place == len(rows) - 1
        lines.append(f"<tr{' class=total' if last else ''}>{cells}</tr>")
    head = f"<thead><tr>{top}</tr></thead>" if heads else ""
    return f'<div class="wide"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _cell(value: Any, right: bool, mono: bool) -> str:
    names = " ".join(name for name, on in (("number", right), ("mono", mono)) if on)
    return (f'<td class="{names}">' if names else "<td>") + f"{escape(str(value))}</td>"


def listed(lines: Iterable[str]) -> str:
    """Draw a list of sentences."""
    return '<ul class="notes">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def picture(tile: np.ndarray, name: str, budget: int) -> str:
    """Return an image that holds its own JPEG of at most `budget` bytes."""
    data = base64.b64encode(jpeg(tile, budget)).decode()
    return f'<img alt="{escape(name)}" src="data:image/jpeg;base64,{data}">'
