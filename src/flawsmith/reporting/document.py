"""The records that a report consists of: made once, then written by `html.py` and by `markdown.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from html import escape, unescape

import numpy as np

from flawsmith.korean import with_comments


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
    kind: str = "flawsmith report"
    language: str = "en"
    """As HTML calls it."""

    def said(self, say: Callable[[str], str], language: str) -> Document:
        """Return the same report in another language.

        Args:
            say: Returns a text in that language. It is asked for no single word that may be somebody's name.
            language: As HTML calls it.
        """
        words = _Words(say)
        return replace(
            self,
            title=say(self.title),
            opening=self.opening and words.sheet(self.opening),
            proof=say(self.proof),
            summary=say(self.summary),
            verdict=say(self.verdict),
            problems=tuple(map(say, self.problems)),
            figures=tuple(replace(figure, label=say(figure.label)) for figure in self.figures),
            sections=tuple(map(words.section, self.sections)),
            footer=say(self.footer),
            kind=say(self.kind),
            language=language,
        )


@dataclass(frozen=True, slots=True)
class _Words:
    """Says the parts of a report in another language."""

    say: Callable[[str], str]

    def section(self, section: Section) -> Section:
        return replace(
            section,
            title=self._text(section.title),
            lead=self.say(section.lead),
            sentences=tuple(map(self.say, section.sentences)),
            notes=tuple(map(self.say, section.notes)),
            tables=tuple(map(self._table, section.tables)),
            drawings=tuple(map(self._drawing, section.drawings)),
            sheets=tuple(map(self.sheet, section.sheets)),
            code=with_comments(section.code, self._text),
            subsections=tuple(map(self.section, section.subsections)),
        )

    def sheet(self, sheet: Sheet) -> Sheet:
        return replace(
            sheet,
            title=self._text(sheet.title),
            heads=tuple(map(self.say, sheet.heads)),
            rows=tuple(replace(row, caption=self._text(row.caption)) for row in sheet.rows),
            rows_title=self.say(sheet.rows_title),
            shots_title=self.say(sheet.shots_title),
        )

    def _table(self, table: Table) -> Table:
        rows = tuple(tuple(map(self._text, row)) for row in table.rows)
        return replace(table, heads=tuple(map(self._text, table.heads)), rows=rows)

    def _drawing(self, drawing: Drawing) -> Drawing:
        def said(found: re.Match[str]) -> str:
            return f"{found[1]}{escape(self._text(unescape(found[2])))}{found[3]}"

        svg = re.sub(r'(aria-label=")([^"]*)(")', said, drawing.svg)
        return replace(drawing, title=self._text(drawing.title), svg=re.sub(r"(>)([^<]+)(</text>)", said, svg))

    def _text(self, text: str) -> str:
        """Say a text; a single word in small letters is left as it is, for it may be somebody's name."""
        return self.say(text) if " " in text or text[:1].isupper() else text


def plain_name(text: str) -> str:
    """Return a text as a part of a file name: letters, digits and hyphens of ASCII, `_` for the rest, 60 at most."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_")[:60] or "x"  # file systems end a name at 255


def number_of(count: int, noun: str) -> str:
    """Return "1 sample", "2 samples", "1,200 samples"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
