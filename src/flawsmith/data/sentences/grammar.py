"""A plain sentence -> what to paint: defect type, place, size, shape, severity. English and Korean, no model.

    parse("a long thin scratch near the top left", ["scratch", "dent"], ["steel"])
    parse("왼쪽 위에 길고 가는 스크래치", ["scratch", "dent"], ["steel"])
    parse("two short scratches beside the hole and a 3 mm dent", ["scratch", "dent"], places={"hole": ()})

The words of `vocabulary.py` are known, and the words in the names of the data's defect types, products and places. A
sentence with any other word is refused with the nearest known one: a word that is passed over in silence would be a
wish that is not met.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flawsmith.data.sentences.lengths import Lengths
from flawsmith.data.sentences.mentions import Item, Mention, aliases, meaning, same_part, with_mentions
from flawsmith.data.sentences.naming import defect_of, glued, is_mark, plain, split_name, with_marks
from flawsmith.data.sentences.vocabulary import HANGUL, VOCABULARY
from flawsmith.errors import ConfigError

MOST = 9
"""Damages that a sentence may ask for on one photograph."""


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """A damage that a sentence asks for; "" and None = it does not say."""

    defect: str
    """One of the data's defect types."""
    product: str = ""
    """One of the data's products."""
    across: str = ""
    """left, middle or right: of the picture, or of the place that is named."""
    down: str = ""
    """top, middle or bottom, likewise."""
    edge: bool = False
    """At the edge: of the picture, or of the place that is named."""
    size: str = ""
    """tiny, small, medium or large; see SIZES."""
    length: str = ""
    """long or short, among the defect's own."""
    width: str = ""
    """thin or wide, among the defect's own."""
    severity: str = ""
    """faint or severe, among the defect's own."""
    region: str = ""
    """A place that `data.places` names."""
    beside: bool = False
    """True: near that place and outside it."""
    along: bool = False
    """True: in the direction of the edge."""
    direction: str = ""
    """horizontal or vertical."""
    number: int = 1
    """How many of them are on one photograph."""
    length_mm: tuple[float, float] | None = None
    """Least and greatest length in mm."""
    width_mm: tuple[float, float] | None = None
    """Least and greatest width in mm."""

    @property
    def appearance(self) -> str:
        """The words of size and severity for the backbone's prompt; the built-in backbone was taught with them."""
        return " ".join(word for word in (self.size, self.severity) if word and word != "medium")

    @property
    def place(self) -> tuple[float, float] | None:
        """Where the damage is asked for, as shares of width and height of the picture (or place); None = anywhere."""
        if not (self.across or self.down):
            return None
        return _SHARE[self.across or "middle"], _SHARE[self.down or "middle"]


SIZES = {"tiny": (0.03, 0.07), "small": (0.07, 0.17), "medium": (0.17, 0.4), "large": (0.4, 0.8)}
"""Word -> least and most longer side, as a share of the picture's (or of a place that the damage lies on); the bounds
are those of the factory's captions."""
_SHARE = {"left": 0.2, "top": 0.2, "middle": 0.5, "right": 0.8, "bottom": 0.8}


def parse(
    sentence: str,
    defects: Sequence[str],
    products: Sequence[str] = (),
    places: Mapping[str, Sequence[str]] | None = None,
) -> tuple[ParsedPrompt, ...]:
    """Understand a sentence.

    Args:
        sentence: English or Korean, e.g. "a long thin scratch near the top left".
        defects: The data's defects: one of them must be named, by a word of its name or one that means the same.
        products: The data's products, which may be named.
        places: Name of a place on the product -> other words for it.

    Returns:
        The damages that it asks for, in its order; those of one type are wanted on one photograph.

    Raises:
        ConfigError: a word is unknown, or a damage has no defect type, more than one, or two wishes that exclude each
            other.
    """
    known_places = places or {}
    spellings = aliases(known_places)
    names = frozenset(
        {word for name in defects for word in split_name(name)}
        | {word for name in products for part in split_name(name) for word in same_part(part)}
        | {word for spelling in spellings for word in spelling}
    )
    text, lengths = Lengths.taken_from(plain(sentence))
    text = with_marks(text, defects)
    words: list[str] = []
    unknown: list[str] = []
    for word in _words(text):
        pieces = _pieces(word, names)
        words += pieces
        if not pieces:
            unknown.append(word)
    if unknown:
        options = {*VOCABULARY, *names} - {""}
        answers = ", ".join(word + _nearest(word, options) for word in unknown)
        raise ConfigError(f"--prompt: unknown: {answers}; {known(defects, products, known_places)}")
    lengths.refuse_distances(words)
    heads = frozenset(words_of[0] for words_of in map(split_name, defects) if words_of) | set(filter(is_mark, words))
    damage = heads | {word for word in names | set(words) if meaning(word)[0] == "defect"}
    items = with_mentions(words, spellings, damage)
    clauses = _clauses(items, heads)
    parsed = tuple(_parsed(clause, sentence, lengths, defects, products, known_places) for clause in clauses)
    for defect in dict.fromkeys(one.defect for one in parsed):
        if not 0 < (total := sum(one.number for one in parsed if one.defect == defect)) <= MOST:
            raise ConfigError(f"--prompt: {total} damages of the type {defect}; say 1 to {MOST} for a photograph")
    return parsed


def known(defects: Sequence[str], products: Sequence[str] = (), places: Iterable[str] = ()) -> str:
    """Return the words that may be used, as a sentence's end."""
    return (
        f"known are the defect types {', '.join(defects)}; the places left, right, top, bottom, middle, edge"
        + "".join(f", {place}" for place in places)
        + f"; the sizes {', '.join(SIZES)}, or mm; long, short, thin, wide; faint, severe"
        + (f"; the products {', '.join(products)}" if products else "")
        + "; and their Korean words"
    )


def _clauses(items: Sequence[Item], heads: frozenset[str]) -> list[list[Item]]:
    """Divide a sentence at its commas and its words for "and", so that each part names one damage.

    What has no damage of its own belongs to the next damage when it only describes ("a long, thin scratch"), unless
    that begins with an article or a number; else to the one before ("a scratch, top left").
    """
    segments: list[list[Item]] = [[]]
    for item in items:
        if item == "," or meaning(item) == ("and", "and"):
            segments.append([])
        else:
            segments[-1].append(item)
    segments = [segment for segment in segments if segment]
    clauses: list[list[Item]] = []
    waiting: list[Item] = []
    for segment in segments:
        if any(item in heads or meaning(item)[0] == "defect" for item in segment):
            opens = segment[0] in ("a", "an", "the") or meaning(segment[0])[0] == "number"
            if waiting and clauses and opens:
                clauses[-1] += waiting
                waiting = []
            clauses.append([*waiting, *segment])
            waiting = []
        elif clauses and any(isinstance(item, Mention) or meaning(item)[0] in _PLACES for item in segment):
            clauses[-1] += [*waiting, *segment]
            waiting = []
        else:
            waiting += segment
    if waiting and clauses:
        clauses[-1] += waiting
        waiting = []
    return [*clauses, waiting] if waiting or not clauses else clauses


_PLACES = ("across", "down", "centre", "edge", "relation")


def _parsed(
    clause: Sequence[Item],
    sentence: str,
    lengths: Lengths,
    defects: Sequence[str],
    products: Sequence[str],
    places: Mapping[str, Sequence[str]],
) -> ParsedPrompt:
    """Return the damage that a part of a sentence asks for."""
    mentions = [item for item in clause if isinstance(item, Mention)]
    if len({mention.place for mention in mentions}) > 1:
        named = " and ".join(dict.fromkeys(mention.place for mention in mentions))
        raise ConfigError(f"--prompt: {named}: a damage lies in one place; say one, or name two damages")
    words, in_mm = lengths.of([item for item in clause if isinstance(item, str)])
    meanings: dict[str, list[str]] = {}
    for word in words:
        part, value = ("number", str(int(word[:9]))) if word.isdecimal() else meaning(word)
        if part and value not in meanings.setdefault(part, []):
            meanings[part].append(value)
    relations = meanings.get("relation", [])
    if "beside" in relations:
        listed = f"known are {', '.join(places)}" if places else "name places in data.places"
        raise ConfigError(f"--prompt: {sentence!r} does not say beside which place; {listed}")
    within = {
        word for name, spelling in _spellings(places) for word in spelling if any(m.place == name for m in mentions)
    }
    defect = defect_of(sentence, words, within, meanings.get("defect", []), defects, known(defects))
    if len(numbers := meanings.get("number", [])) and not any(map(is_mark, words)):
        # "class 2" names one class_2.
        meanings["number"] = [one for one in numbers if one not in re.split(r"\D+", plain(defect))]
    named_products = [
        name for name in products if split_name(name) and all(same_part(part) & set(words) for part in split_name(name))
    ]
    fields = ("across", "down", "size", "length", "width", "severity", "direction", "number")
    one = {part: _single(meanings.get(part, [])) for part in fields}
    number = int(one.pop("number") or "1")
    if "centre" in meanings and not (one["across"] or one["down"]):
        one["across"] = one["down"] = "middle"
    if "very" in meanings:
        one["size"] = {"small": "tiny"}.get(one["size"], one["size"])
    for word, length in ((one["size"], "length_mm"), (one["length"], "length_mm"), (one["width"], "width_mm")):
        if word and length in in_mm:
            raise ConfigError(f"--prompt: {word} and a size in mm exclude each other; say one")
    along, edge = "along" in relations, "edge" in meanings
    if mentions:
        mention = mentions[0]
        along, edge = along or mention.along, edge or mention.edge
        one["across"], one["down"] = mention.across or one["across"], mention.down or one["down"]
    if along and one["direction"]:
        raise ConfigError(f"--prompt: along and {one['direction']} exclude each other; say one")
    return ParsedPrompt(
        defect,
        named_products[0] if len(named_products) == 1 else "",
        edge=edge or along,
        region=mentions[0].place if mentions else "",
        beside=any(mention.beside for mention in mentions),
        along=along,
        number=number,
        length_mm=in_mm.get("length_mm"),
        width_mm=in_mm.get("width_mm"),
        **one,
    )


def _spellings(places: Mapping[str, Sequence[str]]) -> list[tuple[str, tuple[str, ...]]]:
    return [(name, spelling) for spelling, name in aliases(places).items()]


def _single(values: Sequence[str]) -> str:
    if len(values) > 1:
        raise ConfigError(f"--prompt: {' and '.join(values)} exclude each other; say one")
    return values[0] if values else ""


def _words(sentence: str) -> Iterator[str]:
    """Yield the words of a sentence, commas among them."""
    for word in re.findall(r"\d+(?=[가-힣])|[^\s,.;:!?\"'()/_-]+|[,;]", sentence):
        yield "," if word == ";" else word


def _nearest(word: str, options: Iterable[str]) -> str:
    """Return " (nearest: ...)" with the known word that is most alike, "" where none is."""
    letters = {unicodedata.normalize("NFD", option): option for option in sorted(options)}  # Korean by its letters
    close = difflib.get_close_matches(unicodedata.normalize("NFD", word), letters, n=1, cutoff=0.7)
    return f" (nearest: {letters[close[0]]})" if close else ""


def _pieces(word: str, names: frozenset[str]) -> tuple[str, ...]:
    """Return the known words that a word is made of, () when it is not; only Korean glues its words."""
    if word in names or word in VOCABULARY or word == "," or Lengths.is_length(word) or is_mark(word):
        return (word,)
    if word.isdecimal():
        return (word,)
    if word.endswith("s") and word[:-1] in names:
        return (word[:-1],)
    if word == "s":  # of "the head's edge"
        return (word,)
    return glued(word, names) if HANGUL.search(word) else ()
