"""What flawsmith says of its own accord, in Korean: errors, the findings of `check`, reports, the help of settings.

`korean.json` has the Korean of every such sentence by its English. Both are templates: a {name} stands for what the
sentence is about, in Korean for the same. The code makes English sentences and nothing else, and so do the records in
a run folder; whoever shows one, the command line or the studio's page, looks for the template that it was made of. A
value may hold a sentence of its own, which is then looked for too, and so are the sides of a colon, and each of several
sentences. A single word is looked for only where the value is called {word}: any other may be the name that somebody
gave to a product. A {digits} is a number, an {_s} the s of several, a {_be} "was" or its like, {clauses} several
sentences. What has no Korean stays English. `FLAWSMITH_LANG` says whether Korean is wanted.
tests/unit/test_korean_sentences.py finds a sentence that is missing, and one that nobody says.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from flawsmith.errors import ConfigError

VARIABLE = "FLAWSMITH_LANG"
CATALOGUE = Path(__file__).with_name("korean.json")
_HOLE = re.compile(r"\{([a-z_0-9]+)\}")

_VALUE = r"((?:(?!: |; |\. [A-Z]).)*?)"
"""A value within a sentence holds no second one; the last may."""
_CLAUSE = r"((?:; .*?| \(.*?)?)"
"""What follows a value at once, if anything does: "; did you mean 'dent'?"."""
_KINDS = {
    "digits": "([0-9][0-9.,]*)",
    "_s": "(s?)",
    "_be": "(was|were|is|are|says|say)",
    "clauses": "(.*)",
    "word": "([^():;]*?)",
}
"""Values that are told by their names, digits behind them aside."""
_PARTED = re.compile(r"(.*?)(: |; )(.*)")
"""Two sentences, or what one is about and itself."""
_SENTENCE = re.compile(r"(?<=\.)(?<!e\.g\.) (?=[A-Z0-9])")
"""Between two sentences of a paragraph."""
_PARTICLES = {
    "은(는)": ("은", "는"),
    "이(가)": ("이", "가"),
    "을(를)": ("을", "를"),
    "와(과)": ("과", "와"),
    "(으)로": ("으로", "로"),
    "(이)라": ("이라", "라"),
}
"""Particles in both forms -> behind a final consonant, and behind none; the page has them too (words.js)."""
_PARTICLE = re.compile(rf"([가-힣0-9])([\"'`)\]}}]*)({'|'.join(map(re.escape, _PARTICLES))})")
"""What is read aloud last, what closes it, and a particle."""


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
            kind = _KINDS.get(parts[2 * number - 1].rstrip("0123456789"))
            pattern += (kind or (_CLAUSE if follows else "(.*)" if ends else _VALUE)) + re.escape(part)
        size = sum(map(len, fixed))
        made.append((size, Template(max(fixed, key=len), f"^{pattern}$", tuple(parts[1::2]), korean)))
    return tuple(template for _, template in sorted(made, key=lambda one: -one[0]))


def wanted() -> bool:
    """Return whether Korean is wanted.

    Raises:
        ConfigError: FLAWSMITH_LANG names another language.
    """
    language = os.environ.get(VARIABLE, "").strip()
    name = language.replace("-", "_").split("_")[0].split(".")[0].lower()
    if name not in ("", "en", "ko", "c", "posix"):
        raise ConfigError(f"{VARIABLE}={language}: the help is there in en (English) and ko (Korean)")
    return name == "ko"


def language() -> str:
    """Return "ko" where Korean is wanted, else "en"; the command line says it when FLAWSMITH_LANG is another."""
    with suppress(ConfigError):
        return "ko" if wanted() else "en"
    return "en"


def spoken(text: str) -> str:
    """Return a sentence as it is to be said: in Korean where that is wanted."""
    return in_korean(text) if language() == "ko" else text


def with_comments(toml: str, say: Callable[[str], str]) -> str:
    """Return a settings file with its comments, those that are lines of their own, said in another language."""
    return re.sub(r"^(# +)(.+)$", lambda found: f"{found[1]}{say(found[2])}", toml, flags=re.M)


def in_korean(text: str) -> str:
    """Return a sentence, or several in lines, in Korean; what the catalogue does not know stays as it is."""
    return "\n".join(_line(line, words=True) for line in text.split("\n"))


def _filled(template: Template, match: re.Match[str]) -> str:
    fields = zip(template.holes, match.groups(), strict=True)
    values = {name: _line(value, words=name == "word") for name, value in fields}
    # "a, b, ..." ends a sentence in Korean more often than in English: without a fourth dot.
    return with_particles(_HOLE.sub(lambda hole: values[hole[1]], template.korean).replace("....", "..."))


def with_particles(text: str) -> str:
    """Return Korean with each particle that was written in both forms in the one that fits what stands before it.

    How a Latin name is read aloud nobody can tell from its letters: behind one both forms stay.

    >>> with_particles("균열은(는) 3(으)로, 사진을(를) 'steps'이(가)")
    "균열은 3으로, 사진을 'steps'이(가)"
    """
    return _PARTICLE.sub(_fitting, text)


def _fitting(found: re.Match[str]) -> str:
    before, closers, both = found.groups()
    if before.isdigit():
        ends, in_l = before in "013678", before in "178"
    else:
        last = (ord(before) - ord("가")) % 28  # its final consonant, 0 = none; 8 = ㄹ
        ends, in_l = last > 0, last == 8
    closed, open_ = _PARTICLES[both]
    return before + closers + (open_ if not ends or (in_l and both.startswith("(으)로")) else closed)


@cache
def _line(text: str, words: bool = False) -> str:
    """Return a line in Korean; without `words` a single word, which may be the name of a product, stays as it is."""
    if not words and " " not in text:
        return text
    swallowing: tuple[Template, re.Match[str]] | None = None
    for template in templates():
        if template.anchor in text and (match := re.match(template.pattern, text)):
            if not match.groups() or not _SENTENCE.search(match.groups()[-1]):
                return _filled(template, match)
            swallowing = swallowing or (template, match)  # its last value takes the sentences that follow
    sentences = _SENTENCE.split(text)
    said = [_line(sentence) for sentence in sentences] if len(sentences) > 1 else []
    if said and all(one != sentence for one, sentence in zip(said, sentences, strict=True)):
        return " ".join(said)
    if swallowing:
        return _filled(*swallowing)
    if said:
        return " ".join(said)
    if text.endswith(":") and (line := _line(text[:-1])) != text[:-1]:
        return f"{line}:"
    if (parted := _PARTED.match(text)) is not None:
        before, between, after = parted.groups()
        return f"{_line(before)}{between}{_line(after)}"
    return text
