"""The report as one HTML file: styles, pictures and diagrams inside it, no script, nothing from the network."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from flawsmith.data.previews import jpeg
from flawsmith.reporting.document import Document, Section

PICTURE_BYTES = 10_000_000
"""All pictures of a page together, before base64 makes a third more of them."""


def html_page(document: Document) -> str:
    """Return the whole page."""
    opening = (document.opening,) if document.opening else ()
    tiles = sum(_tiles(section) for section in (Section("", sheets=opening), *document.sections))
    budget = PICTURE_BYTES // max(1, tiles)

    def data_uri(tile: np.ndarray) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg(tile, budget)).decode()}"

    return _template().render(document=document, data_uri=data_uri) + "\n"


@cache
def _template() -> Template:
    """Return the page's template; a process compiles it once."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _tiles(section: Section) -> int:
    """Return how many small pictures a section shows."""
    own = sum(len(sheet.shots) + sum(len(row.tiles) for row in sheet.rows) for sheet in section.sheets)
    return own + sum(_tiles(part) for part in section.subsections)
