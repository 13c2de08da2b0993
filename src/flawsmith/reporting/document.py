"""The records that a report consists of: made once, then written by `html.py` and by `markdown.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text; a row has a cell per column."""

    heads: tuple[str, ...]
    """Column names; () = the first column names each row."""
    rows: tuple[tuple[str, ...], ...]
    numbers: range = range(0)
    """Places of the columns that hold numbers."""
    total: bool = False
    """Whether the last row is the sum of the others."""
    mono: bool = False
    """Whether cells are set in a monospaced font."""


def table(
    heads: Iterable[str],
    rows: Iterable[Iterable[object]],
    *,
    numbers: range = range(0),
    total: bool = False,
    mono: bool = False,
) -> Table:
    """Return a table whose cells are these values as text."""
    return Table(tuple(heads), tuple(tuple(str(cell) for cell in row) for row in rows), numbers, total, mono)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A diagram."""

    title: str
    svg: str
    name: str
    """Its file beside report.md, without suffix."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A real defect on a sheet."""

    id: str
    tile: np.ndarray
    """uint8 (h,w,3) RGB."""


@dataclass(frozen=True, slots=True)
class PictureRow:
    """Small pictures side by side."""

    caption: str
    tiles: tuple[np.ndarray, ...]
    """uint8 (h,w,3) RGB each."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Rows of small pictures, below some real shots. HTML shows each picture, Markdown one picture of the sheet."""

    title: str
    name: str
    """Its file beside report.md, without suffix."""
    heads: tuple[str, ...]
    """What each column shows; () = the captions say it."""
    rows: tuple[PictureRow, ...]
    rows_title: str = ""
    shots: tuple[Shot, ...] = ()
    shots_title: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report. Its parts stand in the order of the fields."""

    title: str
    lead: str = ""
    """The sentence to read first."""
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences of a list."""
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    code: str = ""
    """TOML."""
    folded: bool = False
    """Whether HTML shows the title alone until it is clicked."""
    subsections: tuple[Section, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """A number worth a box of its own."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    title: str
    opening: Sheet | None
    """Real shots beside samples, which are seen before anything is read; None = there are no samples."""
    proof: str
    """What the samples are worth, as a sentence; "" = that is not proven."""
    summary: str
    exact: bool
    """Whether every pixel outside the masks is the photograph's own."""
    verdict: str
    """The same as a sentence."""
    problems: tuple[str, ...]
    """What is not exact, a sentence per picture."""
    figures: tuple[KeyFigure, ...]
    sections: tuple[Section, ...]
    footer: str


def plain_name(text: str) -> str:
    """Return a text as a part of a file name: letters, digits and hyphens of ASCII, `_` for the rest, 60 at most."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_")[:60] or "x"  # file systems end a name at 255


def number_of(count: int, noun: str) -> str:
    """Return "1 sample", "2 samples", "1,200 samples"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
