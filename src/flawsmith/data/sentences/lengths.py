"""Lengths in a sentence: "3 mm long", "0.2-0.4 mm wide", "길이 3 mm"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flawsmith.data.sentences.mentions import meaning
from flawsmith.errors import ConfigError

_MM = {
    "mm": 1.0,
    "cm": 10.0,
    "um": 1e-3,
    "µm": 1e-3,
    "μm": 1e-3,
    "밀리미터": 1.0,
    "밀리": 1.0,
    "미리": 1.0,
    "센티": 10.0,
}
_NUMBER = r"\d+(?:\.\d+)?"
_LENGTH = re.compile(
    rf"({_NUMBER})(?:\s*(?:-|–|~|to|에서)\s*({_NUMBER}))?\s*(millimet(?:re|er)s?|{'|'.join(_MM)})(?![a-z])",
    re.IGNORECASE,
)
_MARK = "§"
_BETWEEN = {"of", "in", "a", "의", "짜리"}
_WAYS = {("length", "long"): "length_mm", ("width", "wide"): "width_mm"}


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of a sentence; in its text each is a mark: §0, §1 ..."""

    mm: tuple[tuple[float, float], ...]
    """Least and greatest, in mm."""

    @classmethod
    def taken_from(cls, sentence: str) -> tuple[str, Lengths]:
        """Return a sentence with marks for its lengths, and these.

        Raises:
            ConfigError: a length is nothing, or a range runs backwards.
        """
        lengths: list[tuple[float, float]] = []

        def marked(match: re.Match[str]) -> str:
            by = _MM.get(match[3].lower(), 1.0)
            low = float(match[1]) * by
            high = float(match[2]) * by if match[2] else low
            if not 0 < low <= high:
                raise ConfigError(f"--prompt: {match[0]!r} is no size; write one such as 3 mm, or 2-4 mm")
            lengths.append((low, high))
            return f" {_MARK}{len(lengths) - 1} "

        return _LENGTH.sub(marked, sentence.replace(_MARK, " ")), cls(tuple(lengths))

    @staticmethod
    def is_length(word: str) -> bool:
        """Return whether a word is such a mark."""
        return word.startswith(_MARK)

    def of(self, words: Sequence[str]) -> tuple[list[str], dict[str, tuple[float, float]]]:
        """Return the words without lengths, and these as "length_mm" and "width_mm".

        A length whose words do not say ("a 3 mm scratch") is that of the longer side.

        Raises:
            ConfigError: there are two lengths, or two widths.
        """
        others: list[str] = []
        sizes: dict[str, tuple[float, float]] = {}
        position = 0
        while position < len(words):
            word = words[position]
            position += 1
            if not self.is_length(word):
                others.append(word)
                continue
            before, behind = len(others), position
            while before and others[before - 1] in _BETWEEN:
                before -= 1
            while behind < len(words) and words[behind] in _BETWEEN:
                behind += 1
            way = meaning(others[before - 1])[1] if before and meaning(others[before - 1])[0] == "extent" else ""
            if way:
                del others[before - 1 :]
            elif behind < len(words) and (way := _way(words[behind])):
                position = behind + 1
            way = way or "length_mm"
            if way in sizes:
                raise ConfigError(f"--prompt: two sizes in mm for the {way.removesuffix('_mm')} of a damage; say one")
            sizes[way] = self.mm[int(word.removeprefix(_MARK))]
        return others, sizes


def _way(word: str) -> str:
    part, value = meaning(word)
    return value if part == "extent" else _WAYS.get((part, value), "")
