"""A plain sentence -> what to paint: defect type, place, size, shape, severity. English and Korean, no model.

    parse("a long thin scratch near the top left", ["scratch", "dent"], ["steel"])
    parse("왼쪽 위에 길고 가는 스크래치", ["scratch", "dent"], ["steel"])

The built-in vocabulary is known, and the words in the names of the data's defect types and products. A sentence with
any other word is refused with what is known: a word that is passed over in silence would be a wish that is not met.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from flawsmith.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """What a sentence asks for; "" and None = it does not say."""

    defect: str
    """One of the data's defect types."""
    product: str = ""
    """One of the data's products."""
    across: str = ""
    """left, middle or right."""
    down: str = ""
    """top, middle or bottom."""
    edge: bool = False
    """At the picture's edge."""
    size: str = ""
    """tiny, small, medium or large; see SIZES."""
    length: str = ""
    """long or short, among the defect's own."""
    width: str = ""
    """thin or wide, among the defect's own."""
    severity: str = ""
    """faint or severe, among the defect's own."""

    @property
    def appearance(self) -> str:
        """The words of size and severity for the backbone's prompt; the built-in backbone was taught with them."""
        return " ".join(word for word in (self.size, self.severity) if word and word != "medium")

    @property
    def place(self) -> tuple[float, float] | None:
        """Where the damage is asked for, as shares of the picture's width and height; None = anywhere."""
        if not (self.across or self.down):
            return None
        return _SHARE[self.across or "middle"], _SHARE[self.down or "middle"]


SIZES = {"tiny": (0.03, 0.07), "small": (0.07, 0.17), "medium": (0.17, 0.4), "large": (0.4, 0.8)}
"""Word -> least and most longer side, as a share of the picture's; the bounds are those of the factory's captions."""
_SHARE = {"left": 0.2, "top": 0.2, "middle": 0.5, "right": 0.8, "bottom": 0.8}

_ENGLISH: dict[tuple[str, str], str] = {
    ("defect", "scratch"): "scratch scratches scratched scrape scrapes score",
    ("defect", "crack"): "crack cracks cracked fissure fissures fracture",
    ("defect", "dent"): "dent dents dented ding",
    ("defect", "hole"): "hole holes puncture",
    ("defect", "chip"): "chip chips chipped break breaks broken breakage",
    ("defect", "pores"): "pore pores blowhole blowholes pinhole pinholes porosity bubble bubbles",
    ("defect", "cut"): "cut cuts",
    ("defect", "abrasion"): "abrasion abraded rubbed wear worn",
    ("defect", "bend"): "bend bends bent",
    ("defect", "burr"): "burr burrs",
    ("defect", "fold"): "fold folds folded crease creases",
    ("defect", "blister"): "blister blisters",
    ("defect", "stain"): "stain stains stained spot spots",
    ("defect", "contamination"): "contamination contaminated dirt",
    ("defect", "fray"): "fray frayed fraying frays",
    ("defect", "discolouration"): "discolouration discoloration discoloured discolored",
    ("defect", "rust"): "rust rusty corrosion corroded",
    ("defect", "uneven"): "uneven unevenness",
    ("defect", "solder"): "solder splash",
    ("defect", "manipulated"): "manipulated manipulation",
    ("defect", "thread"): "thread threads",
    ("across", "left"): "left lefthand",
    ("across", "right"): "right righthand",
    ("down", "top"): "top upper above",
    ("down", "bottom"): "bottom lower below",
    ("centre", "middle"): "middle centre center central",
    ("edge", "edge"): "edge edges border rim margin",
    ("size", "tiny"): "tiny minute minuscule",
    ("size", "small"): "small little",
    ("size", "medium"): "medium mediumsized",
    ("size", "large"): "large big huge great",
    ("length", "long"): "long",
    ("length", "short"): "short",
    ("width", "thin"): "thin narrow fine hairline",
    ("width", "wide"): "wide thick broad",
    ("severity", "faint"): "faint light slight subtle weak shallow",
    ("severity", "severe"): "severe deep strong heavy bad dark clear",
    ("very", "very"): "very extremely really",
    ("", ""): "a an the one some there is in on at near by to of with and side corner part surface area toward towards "
    "around close hand picture image photo defect damage please paint make draw put add show patch piece quarter it",
}
_KOREAN: dict[tuple[str, str], str] = {
    ("defect", "scratch"): "스크래치 긁힘 긁힌 흠집 긁힌자국 기스",
    ("defect", "crack"): "크랙 균열 금 갈라짐 갈라진",
    ("defect", "dent"): "찍힘 찍힌 눌림 덴트 움푹",
    ("defect", "hole"): "구멍",
    ("defect", "chip"): "깨짐 깨진 파손 이빠짐 치핑 떨어짐",
    ("defect", "pores"): "기공 블로우홀 핀홀 기포",
    ("defect", "cut"): "베임 베인 절단",
    ("defect", "abrasion"): "마모 쓸림",
    ("defect", "bend"): "휨 휘어짐 구부러짐 굽음",
    ("defect", "burr"): "버",
    ("defect", "fold"): "접힘 주름",
    ("defect", "blister"): "부풀음 물집",
    ("defect", "stain"): "얼룩",
    ("defect", "contamination"): "오염 이물 이물질",
    ("defect", "fray"): "해짐 올풀림 닳음 풀림",
    ("defect", "discolouration"): "변색",
    ("defect", "rust"): "녹 부식",
    ("defect", "uneven"): "불균일 고르지않음 울퉁불퉁",
    ("defect", "solder"): "납땜",
    ("defect", "manipulated"): "변형",
    ("defect", "thread"): "나사산",
    ("across", "left"): "왼쪽 왼편 좌측 좌",
    ("across", "right"): "오른쪽 오른편 우측 우",
    ("down", "top"): "위 위쪽 윗부분 상단 상부",
    ("down", "bottom"): "아래 아래쪽 아랫부분 하단 하부 밑",
    ("centre", "middle"): "가운데 중앙 중심 한가운데",
    ("edge", "edge"): "가장자리 테두리",
    ("size", "tiny"): "미세한 미세",
    ("size", "small"): "작은 작고 조그만 조그마한 소형",
    ("size", "medium"): "중간 보통",
    ("size", "large"): "큰 크고 커다란 대형",
    ("length", "long"): "긴 길고 길쭉한 기다란",
    ("length", "short"): "짧은 짧고",
    ("width", "thin"): "가는 가늘고 얇은 얇고 좁은",
    ("width", "wide"): "굵은 굵고 두꺼운 넓은 넓고",
    ("severity", "faint"): "희미한 희미하고 옅은 옅고 흐릿한 약한 얕은",
    ("severity", "severe"): "심한 심하고 깊은 깊고 뚜렷한 진한 강한",
    ("very", "very"): "아주 매우 몹시 엄청",
    (
        "",
        "",
    ): "에 의 을 를 이 가 은 는 로 으로 에서 쪽 쪽에 근처 부근 하나 한 개 있는 있다 부분 표면 구석 모서리 그려줘 그려 "
    "만들어줘 만들어 넣어줘 넣어 자국 결함 불량 사진 좀 된 난 생긴",
}
_VOCABULARY = {
    word: meaning for table in (_ENGLISH, _KOREAN) for meaning, words in table.items() for word in words.split()
}
_NAMED = {meaning[1]: tuple(words.split()) for meaning, words in _ENGLISH.items() if meaning[0] == "defect"}
_HANGUL = re.compile(r"[가-힣]")


def parse(sentence: str, defects: Sequence[str], products: Sequence[str] = ()) -> ParsedPrompt:
    """Understand a sentence.

    Args:
        sentence: English or Korean, e.g. "a long thin scratch near the top left".
        defects: The data's defects: one of them must be named, by a word of its name or one that means the same.
        products: The data's products, which may be named.

    Raises:
        ConfigError: a word is unknown, or no defect, more than one, or two that exclude each other are named.
    """
    names = _words_of_names(defects, products)
    meanings: dict[str, list[str]] = {}
    words: set[str] = set()
    unknown: list[str] = []
    for word in _words(sentence):
        pieces = _pieces(word, names)
        if not pieces:
            unknown.append(word)
        for piece in pieces:
            words.add(piece)
            part, value = _VOCABULARY.get(piece, ("", ""))
            if part and value not in meanings.setdefault(part, []):
                meanings[part].append(value)
    if unknown:
        raise ConfigError(f"--prompt: unknown: {', '.join(unknown)}; {known(defects, products)}")
    defect = _defect(sentence, words, meanings.get("defect", []), defects)
    named = [product for product in products if set(_split(product)) <= words]
    one = {
        part: _single(part, meanings.get(part, []))
        for part in ("across", "down", "size", "length", "width", "severity")
    }
    if "centre" in meanings and not (one["across"] or one["down"]):
        one["across"] = one["down"] = "middle"
    if "very" in meanings:
        one["size"] = {"small": "tiny"}.get(one["size"], one["size"])
    return ParsedPrompt(defect, named[0] if len(named) == 1 else "", edge="edge" in meanings, **one)


def meant_by(name: str) -> list[str]:
    """Return the built-in defect types that the words of a name mean: "MT_Blowhole" -> ["pores"]; [] = none."""
    meanings = [_VOCABULARY.get(word, ("", "")) for word in _split(name)]
    return list(dict.fromkeys(value for part, value in meanings if part == "defect"))


def known(defects: Sequence[str], products: Sequence[str] = ()) -> str:
    """Return the words that may be used, as a sentence's end."""
    return (
        f"known are the defect types {', '.join(defects)}; the places left, right, top, bottom, middle, edge; "
        f"the sizes {', '.join(SIZES)}; long, short, thin, wide; faint, severe"
        + (f"; the products {', '.join(products)}" if products else "")
        + "; and their Korean words"
    )


def _defect(sentence: str, words: set[str], meant: Sequence[str], defects: Sequence[str]) -> str:
    """Return the defect type with the most words of its name in the sentence."""
    score = {}
    for defect in defects:
        name_words = _split(defect)
        direct = sum(word in words for word in name_words)
        # A word of the same meaning names the defect too: "fissure" a crack, "blowhole" what is called pores elsewhere.
        same = sum(any(word in (concept, *_NAMED[concept]) for word in name_words) for concept in meant)
        score[defect] = max(direct, same) + min(direct, same)
    most = max(score.values(), default=0)
    best = [defect for defect in defects if score[defect] == most] if most else []
    if len(best) == 1:
        return best[0]
    if best:
        raise ConfigError(f"--prompt: {sentence!r} may mean {' or '.join(best)}; say which")
    missing = f"no shots show {', '.join(meant)} here" if meant else f"{sentence!r} names no defect type"
    raise ConfigError(f"--prompt: {missing}; {known(defects)}")


def _single(part: str, values: Sequence[str]) -> str:
    if len(values) > 1:
        raise ConfigError(f"--prompt: {' and '.join(values)} exclude each other; say one")
    return values[0] if values else ""


def _words_of_names(defects: Sequence[str], products: Sequence[str]) -> frozenset[str]:
    return frozenset(word for name in (*defects, *products) for word in _split(name))


def _split(name: str) -> tuple[str, ...]:
    """Return the words of a name: MT_Blowhole -> mt, blowhole; a leading abbreviation counts for nothing."""
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    return tuple(word for word in words if len(word) > 2 or _HANGUL.search(word)) or tuple(words)


def _words(sentence: str) -> Iterator[str]:
    for word in re.split(r"[\s,.;:!?\"'()/_-]+", sentence.lower()):
        if word:
            yield word


def _pieces(word: str, names: frozenset[str]) -> tuple[str, ...]:
    """Return the known words that a word is made of, () when it is not; only Korean glues its words."""
    if word in names or word in _VOCABULARY:
        return (word,)
    if word.endswith("s") and word[:-1] in names:
        return (word[:-1],)
    return _glued(word, names) if _HANGUL.search(word) else ()


@lru_cache(maxsize=512)
def _glued(word: str, names: frozenset[str]) -> tuple[str, ...]:
    for length in range(len(word), 0, -1):
        first = word[:length]
        if first not in names and first not in _VOCABULARY:
            continue
        if length == len(word):
            return (first,)
        rest = _glued(word[length:], names)
        if rest:
            return (first, *rest)
    return ()
