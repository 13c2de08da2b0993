"""Where a sentence names one of the user's places, and how it speaks of it: on it, beside it, along its edge."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from flawsmith.data.sentences.vocabulary import HANGUL, PARTS, VOCABULARY

_ARTICLES = {"a", "an", "the", "its"}
_ON = {"on", "in", "at", "inside", "within", "from"}
_NEAR = {"near", "by", "around", "close", "근처", "부근"}
_OVER, _UNDER = {"above", "over"}, {"below", "under", "beneath"}
_SIDE = {"side", "part", "end", "area"}
_WITHIN = {"top", "upper", "bottom", "lower"}
"""`top of the head` is a part of it; `left of the head` is not."""
_PARTICLES = {"에", "에서", "를", "을", "쪽", "쪽에", "으로", "로", "안", "안에", "부분", "표면"}


@dataclass(frozen=True, slots=True)
class Mention:
    """A named place in a sentence."""

    place: str
    """One of the names in `data.places`."""
    beside: bool = False
    """True: outside the place, near it; False: on it."""
    along: bool = False
    """True: in the direction of its edge."""
    edge: bool = False
    """True: at its edge."""
    across: str = ""
    """left or right side of it; "" = any."""
    down: str = ""
    """top or bottom side of it; "" = any."""


Item = str | Mention
"""A word, or several that name a place."""


def aliases(places: Mapping[str, Sequence[str]]) -> dict[tuple[str, ...], str]:
    """Return {the words that name a place: its name}.

    A place answers to its name, to the user's other words for it, to these with parts named in the other language
    (`screw_head`: 나사 머리), and to its last word alone where no other place has that.
    """
    table: dict[tuple[str, ...], str] = {}
    tails: dict[str, set[str]] = {}
    for name, others in places.items():
        for text in (name, *others):
            words = [word for word in re.split(r"[\W_]+", unicodedata.normalize("NFKC", text).lower()) if word]
            for spelling in product(*(sorted(same_part(word)) for word in words)):
                table.setdefault(spelling, name)
                tails.setdefault(spelling[-1], set()).add(name)
    for tail, names in tails.items():
        if len(names) == 1:
            table.setdefault((tail,), next(iter(names)))
    return table


def same_part(word: str) -> frozenset[str]:
    """Return the names of a part of a product that mean the same, this one among them."""
    return next((group for group in PARTS if word in group), frozenset({word}))


def with_mentions(words: Sequence[str], names: Mapping[tuple[str, ...], str], damage: frozenset[str]) -> list[Item]:
    """Return a sentence's words with a `Mention` for each place, and for the words that say how it is meant.

    Args:
        words: As the user wrote them.
        names: What `aliases` returned.
        damage: Words that name a defect type: where they also name a place ("hole"), a word such as "beside" must
            stand with them.
    """
    longest = max(map(len, names), default=0)
    items: list[Item] = []
    start = 0
    while start < len(words):
        length = next(
            (n for n in range(min(longest, len(words) - start), 0, -1) if tuple(words[start : start + n]) in names), 0
        )
        if not length:
            items.append(words[start])
            start += 1
            continue
        alias = tuple(words[start : start + length])
        before, kept = _before(items)
        after, stop = _after(words, start + length)
        if before is None and after is None and damage & set(alias):
            items += alias
            start += length
        else:
            items = [*items[:kept], _mention(names[alias], {**(before or {}), **(after or {})})]
            start = stop
    return items


def _mention(place: str, spoken: Mapping[str, bool | str]) -> Mention:
    return Mention(
        place,
        beside=bool(spoken.get("beside")),
        along=bool(spoken.get("along")),
        edge=bool(spoken.get("edge")),
        across=str(spoken.get("across", "")),
        down=str(spoken.get("down", "")),
    )


def _before(items: Sequence[Item]) -> tuple[dict[str, bool | str] | None, int]:
    """Return how the words before a place speak of it (None = not at all), and how many items stand before these."""

    def back(end: int, skipped: set[str]) -> int:
        while end and items[end - 1] in skipped:
            end -= 1
        return end

    end = back(len(items), _ARTICLES)
    word = items[end - 1] if end else ""
    if word == "to" and end > 1 and items[end - 2] in ("next", "close"):
        return {"beside": True}, end - 2
    if word in _OVER or word in _UNDER:
        return {"beside": True, "down": "top" if word in _OVER else "bottom"}, end - 1
    if meaning(word) == ("relation", "along"):
        return {"along": True, "edge": True}, end - 1
    if meaning(word) == ("relation", "beside") or word in _NEAR:
        return {"beside": True}, end - 1
    if word != "of":
        return ({}, end - 1) if word in _ON else (None, len(items))
    first = back(end - 1, _SIDE)
    inside = first < end - 1
    spoken: dict[str, bool | str] = {}
    if first and meaning(items[first - 1])[0] == "edge":
        spoken["edge"], inside, first = True, True, first - 1
    while first and meaning(items[first - 1])[0] in ("across", "down"):
        part, value = meaning(items[first - 1])
        inside |= items[first - 1] in _WITHIN
        spoken[part] = value
        first -= 1
    if not spoken:
        return {}, end - 1
    if not inside:
        spoken["beside"] = True
    first = back(first, _ARTICLES)
    if first and meaning(items[first - 1]) == ("relation", "along"):
        spoken |= {"along": True, "edge": True}
        return spoken, first - 1
    return spoken, back(first, _ON | {"to"})


def _after(words: Sequence[str], start: int) -> tuple[dict[str, bool | str] | None, int]:
    """Return how the words behind a place speak of it (Korean does so), and where the sentence goes on."""
    spoken: dict[str, bool | str] = {}
    inside, stop = False, start
    while stop < len(words):
        word = words[stop]
        part, value = meaning(word)
        if word in ("의", "s"):
            inside = True
        elif part == "edge" and (HANGUL.search(word) or stop <= start + 1):
            spoken["edge"], inside = True, True
        elif not HANGUL.search(word):
            break
        elif (part, value) == ("relation", "along"):
            spoken |= {"along": True, "edge": True}
            inside = True
        elif (part, value) == ("relation", "beside") or word in _NEAR:
            spoken["beside"] = True
        elif part in ("across", "down"):
            if word != "위" or "across" in spoken or inside:  # right behind a place it means "on"
                spoken[part] = value
        elif word not in _PARTICLES:
            break
        stop += 1
    if stop == start:
        return None, start
    if ("across" in spoken or "down" in spoken) and not inside:
        spoken["beside"] = True
    return spoken, stop


def meaning(item: Item) -> tuple[str, str]:
    """Return what a word speaks of and its value; ("", "") where it says nothing."""
    return VOCABULARY.get(item, ("", "")) if isinstance(item, str) else ("", "")
