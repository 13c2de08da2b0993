"""What flawsmith raises when the user can put something right.

Every message is one sentence (or a short list) that says what was wrong, where, and what would be right. The CLI prints
it without a traceback and ends with exit code 2.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """A setting with the value that answers a sentence: the sentence names it, the studio's button writes it.

    >>> str(Answer("generate.count", "balance"))
    'generate.count = "balance"'
    """

    setting: str
    """Dotted name, as after `--set`."""
    value: str | int | float | bool | list[str]

    def __str__(self) -> str:
        """Return the line as a TOML file has it."""
        return f"{self.setting} = {json.dumps(self.value, ensure_ascii=False)}"  # of such values JSON is TOML


class FlawsmithError(Exception):
    """Something that the user can put right; the message says how.

    Args:
        words: The message.
        answers: Settings that the message names and that would put it right; one of them is enough.
    """

    def __init__(self, *words: object, answers: Sequence[Answer] = ()) -> None:
        super().__init__(*words)
        self.answers = tuple(answers)


class ConfigError(FlawsmithError):
    """A setting that is unknown, of the wrong type or out of range."""


class DataError(FlawsmithError):
    """A picture, mask or folder that cannot be used as it is."""


class RunError(FlawsmithError):
    """A run folder that is missing, incomplete, foreign or damaged."""


class RenamedSetting(FutureWarning):
    """A setting is given under a name that it had in an earlier release; the message says the new one."""


class BackboneError(FlawsmithError):
    """Model weights that are missing, or of a shape that cannot serve."""


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"`, or the known names when none is near; "" where nothing is known.

    >>> nearest("shot", ["shots", "root"])
    "; did you mean 'shots'?"
    >>> nearest("zzz", ["shots", "root"])
    '; known: root, shots'
    """
    names = sorted(known)
    if not names:
        return ""
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Return the first names of many for a sentence.

    >>> first_few(["a", "b"]), first_few(["a", "b", "c", "d"])
    ('a, b', 'a, b, c, ...')
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
