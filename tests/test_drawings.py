"""The pictures of docs/architecture.md are what the tables of the house say today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SPEC = importlib.util.spec_from_file_location("draw", DOCS / "draw.py")
assert SPEC is not None and SPEC.loader is not None
draw = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(draw)


@pytest.mark.parametrize("file", sorted(draw.PICTURES))
def test_the_pictures_are_of_today(file: str) -> None:
    picture = (DOCS / file).read_text(encoding="utf-8")
    assert picture == draw.PICTURES[file](), f"docs/{file} is out of date; run `python docs/draw.py`"


def test_every_room_says_what_it_is_for() -> None:
    from test_floors import FLOORS

    for _, rooms in FLOORS:
        for room in rooms:
            assert 10 < len(draw.purpose(room)) < 90, f"{room}: its first docstring line is what the picture shows"
