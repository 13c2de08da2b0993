"""The report as Markdown, with its pictures and diagrams as files in a folder beside it.

Of a sheet, HTML alone shows the caption of each row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flawsmith.data.previews import jpeg
from flawsmith.files import write_bytes, write_text
from flawsmith.korean import in_korean
from flawsmith.reporting.contact_sheets import compose
from flawsmith.reporting.document import Document, Drawing, Section, Sheet, Table

_SUFFIXES = (".jpg", ".svg")
"""Of the files in a report's folder."""


def write_markdown(document: Document, path: Path) -> None:
    """Write the report and its pictures; what an earlier report left in the pictures' folder goes.

    Args:
        document: What to write.
        path: The Markdown file; `report.md` has its pictures in `report/`.
    """
    folder = path.with_suffix("")
    if folder.is_dir():
        for file in folder.iterdir():
            if file.suffix in _SUFFIXES:
                file.unlink()
    say = in_korean if document.language == "ko" else str
    blocks = [f"# {_text(document.title)}"]
    exactness = [f"**{_text(document.verdict)}**", *_list(document.problems)]
    opening = [*_sheet(document.opening, folder, say)] if document.opening else []
    opening += [f"**{_text(document.proof)}**"] if document.proof else []
    blocks += [*opening, *exactness] if document.exact else [*exactness, *opening]
    blocks.append(_paragraph(document.summary))
    blocks += _list([f"{figure.value} {figure.label}" for figure in document.figures])
    for section in document.sections:
        blocks += _section(section, 2, folder, say)
    write_text(path, "\n\n".join([*blocks, _paragraph(document.footer)]) + "\n")


def _section(section: Section, level: int, folder: Path, say: Callable[[str], str]) -> Iterator[str]:
    """Write a section's pictures; return its blocks, between which a line stays empty."""
    yield f"{'#' * level} {_text(section.title)}"
    if section.lead:
        yield f"**{_text(section.lead)}**"
    yield from (_paragraph(sentence) for sentence in section.sentences)
    yield from _list(section.notes)
    yield from (_table(table) for table in section.tables if table.rows)
    for drawing in section.drawings:
        write_text(folder / f"{drawing.name}.svg", drawing.svg)
        yield _image(drawing, folder, "svg")
    for sheet in section.sheets:
        yield from _sheet(sheet, folder, say)
    if section.code:
        yield f"```toml\n{section.code.rstrip()}\n```"
    for part in section.subsections:
        yield from _section(part, level + 1, folder, say)


def _sheet(sheet: Sheet, folder: Path, say: Callable[[str], str]) -> Iterator[str]:
    """Write a sheet as one picture; return what it shows, and the picture."""
    write_bytes(folder / f"{sheet.name}.jpg", jpeg(compose(sheet)))
    yield _paragraph(" ".join(map(say, _shown_on(sheet))))
    yield _image(sheet, folder, "jpg")


def _shown_on(sheet: Sheet) -> list[str]:
    """Return what a sheet shows, as sentences."""
    if not sheet.heads:
        return [f"From the left: {' / '.join(row.caption for row in sheet.rows)}."]
    sentences = [f"Above: {sheet.shots_title}."] if sheet.shots else []
    if sheet.rows and sheet.rows_title:
        sentences.append(f"Below: {sheet.rows_title}." if sheet.shots else f"{sheet.rows_title}.")
    if sheet.rows:
        sentences.append(f"Columns: {'; '.join(sheet.heads)}.")
        if not sheet.rows_title:
            sentences.append(f"From above: {'; '.join(row.caption for row in sheet.rows)}.")
    return sentences


def _image(picture: Drawing | Sheet, folder: Path, suffix: str) -> str:
    title = re.sub(r"[\[\]\\]", " ", _text(picture.title))
    return f"![{title}]({folder.name}/{picture.name}.{suffix})"


def _table(table: Table) -> str:
    heads = table.heads or ("",) * len(table.rows[0])
    return "\n".join(_row(cells) for cells in (heads, ("---",) * len(heads), *table.rows))


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_text(cell).replace("|", "\\|") for cell in cells) + " |"


def _list(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {_paragraph(line)}" for line in lines)] if lines else []


def _paragraph(text: str) -> str:
    """Return a text that stays a paragraph, whatever it begins with."""
    line = re.sub(r"^(\d+)(?=[.)](\s|$))", r"\g<1>\\", _text(text).lstrip())
    return re.sub(r"^(?=[#>+\-=|\[])", r"\\", line)


def _text(text: str) -> str:
    """Return a text in one line that is shown as it is: names of folders and files are anyone's.

    Neither tags, links nor emphasis, code or entities come of it, as in report.html.
    """
    line = re.sub(r"[\r\n]+", " ", text)
    line = re.sub(r"\\(?=[!-/:-@\[-`{-~])", r"\\\\", line)  # a backslash before punctuation would vanish
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line)
    line = re.sub(r"\*(?=\S)|(?<=\S)\*|(?<![^\W_])_|_(?![^\W_])|`|~(?=~)|(?<=~)~", r"\\\g<0>", line)
    return line.replace("<", "&lt;").replace("](", "]\\(")
