"""What flawsmith says of its own accord, in Korean: errors, the findings of `check`, verdicts.

`korean.json` has the Korean of every such sentence by its English. Both are templates: a {name} stands for what the
sentence is about, in Korean for the same. The code makes English sentences and nothing else, and so do the records in
a run folder; whoever shows one, the command line or the studio's page, looks for the template that it was made of. A
value may hold a sentence of its own, which is then looked for too, and so are the sides of a colon. A single word is
looked for only where the value is called {word}: any other may be the name that somebody gave to a product. What has no
Korean stays English. tests/unit/test_korean_sentences.py finds a sentence that is missing, and one that nobody says.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

CATALOGUE = Path(__file__).with_name("korean.json")
_HOLE = re.compile(r"\{([a-z_0-9]+)\}")

_VALUE = r"((?:(?!: |; ).)*?)"
"""A value within a sentence holds no second one; the last may."""
_CLAUSE = r"((?:; .*?| \(.*?)?)"
"""What follows a value at once, if anything does: "; did you mean 'dent'?"."""
_PARTED = re.compile(r"(.*?)(: |; )(.*)")
"""Two sentences, or what one is about and itself."""


class Template(NamedTuple):
    """A sentence of the catalogue."""

    anchor: str
    """Its longest part without a hole: what does not hold this was not made of it."""
    pattern: str
    """A regular expression for the whole English sentence, with a group for each hole; Python's and JavaScript's."""
    holes: tuple[str, ...]
    """Their names, in the order of the groups."""
    korean: str


@cache
def templates() -> tuple[Template, ...]:
    """Return all sentences; the one with the most words first, so that the plainest serves where several fit."""
    catalogue: dict[str, str] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    made = []
    for english, korean in catalogue.items():
        parts = _HOLE.split(english)
        fixed = parts[::2]
        pattern = re.escape(fixed[0])
        for number, part in enumerate(fixed[1:], 1):
            follows = number > 1 and not fixed[number - 1]  # another value, with nothing between
            ends = number == len(fixed) - 1 and not part
            pattern += (_CLAUSE if follows else "(.*)" if ends else _VALUE) + re.escape(part)
        size = sum(map(len, fixed))
        made.append((size, Template(max(fixed, key=len), f"^{pattern}$", tuple(parts[1::2]), korean)))
    return tuple(template for _, template in sorted(made, key=lambda one: -one[0]))


def in_korean(text: str) -> str:
    """Return a sentence, or several in lines, in Korean; what the catalogue does not know stays as it is."""
    return "\n".join(_line(line, words=True) for line in text.split("\n"))


def _line(text: str, words: bool = False) -> str:
    """Return a line in Korean; without `words` a single word, which may be the name of a product, stays as it is."""
    if not words and " " not in text:
        return text
    for template in templates():
        if template.anchor in text and (match := re.match(template.pattern, text)):
            fields = zip(template.holes, match.groups(), strict=True)
            values = {name: _line(value, words=name == "word") for name, value in fields}
            return _HOLE.sub(lambda hole, values=values: values[hole[1]], template.korean)  # type: ignore[misc]
    if text.endswith(":"):
        return f"{_line(text[:-1])}:"
    if (parted := _PARTED.match(text)) is not None:
        before, between, after = parted.groups()
        return f"{_line(before)}{between}{_line(after)}"
    return text
