"""What flawsmith raises when the user can put something right.

Every message is one sentence (or a short list) that says what was wrong, where, and what would be right. The CLI prints
it without a traceback and ends with exit code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class FlawsmithError(Exception):
    """Something that the user can put right; the message says how."""


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
    """Return `"; did you mean 'x'?"`, or the known names when none is near.

    >>> nearest("shot", ["shots", "root"])
    "; did you mean 'shots'?"
    >>> nearest("zzz", ["shots", "root"])
    '; known: root, shots'
    """
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Return the first names of many for a sentence.

    >>> first_few(["a", "b"]), first_few(["a", "b", "c", "d"])
    ('a, b', 'a, b, c, ...')
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
