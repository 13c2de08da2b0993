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
    "센티미터": 10.0,
    "센치미터": 10.0,
    "센티": 10.0,
    "센치": 10.0,
}
_NUMBER = r"(?:\d+(?:[.,]\d+)*|\.\d+)"
_UNIT = rf"(?:millimet(?:re|er)s?|{'|'.join(_MM)})"
_SIGN = r"(?<!\w)[-−–]"
_LENGTH = re.compile(
    # Not behind half a number: "1/2 mm", "2.-3".
    rf"(?<![\d./⁄])(?P<sign>{_SIGN})?(?P<low>{_NUMBER})"
    rf"(?:\s*(?P<low_unit>{_UNIT})?\s*(?:-|–|~|to|에서)\s*(?P<high>{_NUMBER}))?\s*(?P<unit>{_UNIT})(?![a-z0-9²³])",
    re.IGNORECASE,
)
MARK = "§"
"""What stands before the number of a length in a text."""
_AWAY = {"beside", "next", "above", "over", "below", "under", "beneath"}
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
            ConfigError: a length is nothing or below, a range runs backwards, or a comma may mean two things.
        """
        lengths: list[tuple[float, float]] = []

        def marked(match: re.Match[str]) -> str:
            by = _MM.get(match["unit"].lower(), 1.0)
            low = _number(match["low"]) * (_MM.get(match["low_unit"].lower(), 1.0) if match["low_unit"] else by)
            high = _number(match["high"]) * by if match["high"] else low
            if match["sign"] or not 0 < low <= high:
                raise ConfigError(f"--prompt: {match[0]!r} is no size; write one such as 3 mm, or 2-4 mm")
            lengths.append((low, high))
            return f" {MARK}{len(lengths) - 1} "

        return _LENGTH.sub(marked, sentence.replace(MARK, " ")), cls(tuple(lengths))

    @staticmethod
    def is_length(word: str) -> bool:
        """Return whether a word is such a mark."""
        return word.startswith(MARK)

    def refuse_distances(self, words: Sequence[str]) -> None:
        """Refuse a length that says how far from a place damage lies, for it would be taken for the damage's own.

        Args:
            words: The sentence's, with marks for lengths.

        Raises:
            ConfigError: there is one.
        """
        for position, word in enumerate(words):
            if not self.is_length(word):
                continue
            before, behind = words[:position], [one for one in words[position + 1 : position + 5] if one != "the"]
            its_own = bool(before) and (before[-1] == "of" or meaning(before[-1])[0] == "extent")
            sideways = bool(behind[:1]) and not its_own and (behind[0] in _AWAY or _to_a_side(behind))
            korean = before[-1:] == ["에서"] and before[-2:-1] not in (["사진"], ["표면"])
            if behind[:1] == ["from"] or sideways or korean:
                mm = self.mm[int(word.removeprefix(MARK))][0]
                raise ConfigError(
                    f"--prompt: {mm:g} mm from a place is a distance, which is not read; say beside, and write the "
                    "size of damage as 3 mm long"
                )

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
            sizes[way] = self.mm[int(word.removeprefix(MARK))]
        return others, sizes


def _way(word: str) -> str:
    part, value = meaning(word)
    return value if part == "extent" else _WAYS.get((part, value), "")


def _to_a_side(words: Sequence[str]) -> bool:
    """Return whether words go on as "to the left of", the article left out."""
    words = words[1:] if words[0] == "to" else words
    return len(words) > 1 and meaning(words[0])[0] in ("across", "down") and words[1] == "of"


def _number(text: str) -> float:
    """Return a number with a decimal point or comma.

    Raises:
        ConfigError: its comma may part thousands.
    """
    whole, comma, share = text.partition(",")
    if comma and ((len(share) == 3 and int(whole)) or "." in text or "," in share):
        raise ConfigError(f"--prompt: {text!r} may be read in two ways; write it without a comma, as 1200 or 1.2")
    if text.count(".") > 1:
        raise ConfigError(f"--prompt: {text!r} is no number; write one such as 3 or 0.5")
    return float(text.replace(",", "."))
