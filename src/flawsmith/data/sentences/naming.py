"""Which defect type a sentence names: by its whole name, by words of it, or by words that mean the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import lru_cache

from flawsmith.data.sentences.lengths import MARK as LENGTH
from flawsmith.data.sentences.mentions import meaning
from flawsmith.data.sentences.vocabulary import HANGUL, VOCABULARY
from flawsmith.errors import ConfigError

_MARK = "¶"


def plain(text: str) -> str:
    """Return a text in the form in which words are compared: small letters, and one way to write each (NFKC)."""
    return unicodedata.normalize("NFKC", text).lower()


def split_name(name: str) -> tuple[str, ...]:
    """Return the words of a name: MT_Blowhole -> blowhole; a leading abbreviation counts for nothing."""
    words = _parts(name)
    return tuple(word for word in words if len(word) > 2 or HANGUL.search(word)) or tuple(words)


def _parts(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", plain(name)) if word]


def meant_by(name: str) -> list[str]:
    """Return the built-in defect types that the words of a name mean: "MT_Blowhole" -> ["pores"]; [] = none."""
    meanings = [meaning(word) for word in split_name(name)]
    return list(dict.fromkeys(value for part, value in meanings if part == "defect"))


def with_marks(text: str, defects: Sequence[str]) -> str:
    """Return a sentence, in its plain form, with a mark for each defect type that it calls by its whole name.

    Only names that are no plain word are looked for: `broken_large`, of which "large" is no size, `class_2` and `2`,
    of which "2" is no number.
    """
    text = text.replace(_MARK, " ")
    names = [(plain(name), number) for number, name in enumerate(defects)]
    for name, number in sorted(names, key=lambda item: -len(item[0])):
        if re.search(r"[\W_\d]", name) and re.search(r"\w", name):
            # Behind it a particle may stand in Korean; behind a number also "pieces", and then it is a number.
            end = r"(?![a-z0-9_]|[.,]\d|\s*개)" if name[-1].isdecimal() else r"(?![a-z0-9_])"
            begin = r"(?<![a-z0-9_가-힣])" if HANGUL.match(name) else rf"(?<![a-z0-9_.{_MARK}{LENGTH}])"
            text = re.sub(rf"{begin}{re.escape(name)}{end}", f" {_MARK}{number} ", text)
    return text


def is_mark(word: str) -> bool:
    """Return whether a word stands for a whole name."""
    return word.startswith(_MARK)


def defect_of(
    sentence: str,
    words: Sequence[str],
    of_places: Collection[str],
    meant: Sequence[str],
    defects: Sequence[str],
    known: str,
) -> str:
    """Return the defect type that a part of a sentence names.

    That is the one whose whole name stands there, else the one with the most words of its name in the sentence. Words
    that name a place count where others leave it open: "a scratch on the head" is a scratch_head, if there is that and
    a scratch_neck. Of equals the one with a number that is said counts, then the one all of whose words are said.

    Args:
        sentence: All of it, for sentences.
        words: Those of the part, marks among them.
        of_places: Words that may name the places that are mentioned.
        meant: The built-in types that the words mean.
        defects: The types that there are.
        known: What can be said, for sentences.

    Raises:
        ConfigError: it names none, or several.
    """
    heard = {word for word in words if not is_mark(word)}
    best = _best(defects, heard, meant)
    if whole := list(dict.fromkeys(defects[int(word.removeprefix(_MARK))] for word in words if is_mark(word))):
        # "small" beside a broken_large does not speak for a broken_small.
        others = [one for one in best if all(_heard(word, heard, meant) for word in split_name(one))]
        best = list(dict.fromkeys([*whole, *others]))
    if len(best) > 1 and not whole:
        best = _best(best, heard | set(of_places), meant)
        numbered = [defect for defect in best if any(part.isdecimal() and part in heard for part in _parts(defect))]
        best = numbered or best
        in_full = [defect for defect in best if all(_heard(word, heard, meant) for word in split_name(defect))]
        best = in_full if len(in_full) == 1 and not numbered else best
    if len(best) == 1:
        return best[0]
    if best:
        raise ConfigError(f"--prompt: {sentence!r} may mean {' or '.join(best)}; say which")
    missing = f"no shots show {', '.join(meant)} here" if meant else f"{sentence!r} names no defect type"
    raise ConfigError(f"--prompt: {missing}; {known}")


def _best(candidates: Sequence[str], heard: Collection[str], meant: Sequence[str]) -> list[str]:
    """Return the types that most words speak for; [] = none does."""
    score = {}
    for defect in candidates:
        name_words = split_name(defect)
        direct = sum(word in heard for word in name_words)
        # A word of the same meaning names it too: "fissure" a crack, "scratch" what is called 긁힘.
        same = len({concept for word in name_words for concept in _concepts(word)} & set(meant))
        score[defect] = max(direct, same) + min(direct, same)
    most = max(score.values(), default=0)
    return [defect for defect in candidates if score[defect] == most] if most else []


def _heard(word: str, heard: Collection[str], meant: Sequence[str]) -> bool:
    return word in heard or bool(_concepts(word) & set(meant))


@lru_cache(maxsize=512)
def _concepts(word: str) -> frozenset[str]:
    """Return the built-in types that a word of a name means; in Korean, of what it is glued of."""
    meanings = [meaning(piece) for piece in (glued(word, frozenset()) if HANGUL.search(word) else (word,))]
    return frozenset(value for part, value in meanings if part == "defect")


@lru_cache(maxsize=512)
def glued(word: str, names: frozenset[str]) -> tuple[str, ...]:
    """Return the known words that a Korean word is made of; () = it holds others."""
    for length in range(len(word), 0, -1):
        first = word[:length]
        if first not in names and first not in VOCABULARY:
            continue
        if length == len(word):
            return (first,)
        following = glued(word[length:], names)
        if following:
            return (first, *following)
    return ()
