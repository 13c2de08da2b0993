"""Plain sentences: thirty that are understood, and what is said of those that are not."""

from __future__ import annotations

import random
import unicodedata
from typing import Any

import pytest
import torch

from flawsmith import registry
from flawsmith.data.sentences.grammar import SIZES, ParsedPrompt, parse
from flawsmith.data.sentences.vocabulary import VOCABULARY
from flawsmith.errors import ConfigError
from flawsmith.testing import example_condition
from flawsmith.types import Condition

TILE = ["Blowhole", "Break", "Crack", "Fray", "Uneven"]
SCREW = ["manipulated_front", "scratch_head", "scratch_neck", "thread_side", "thread_top"]
PLAIN = ["scratch", "dent", "rust", "crack"]
PRODUCTS = ["screw", "magnetic-tile"]

SENTENCES: list[tuple[str, list[str], ParsedPrompt]] = [
    (
        "a long thin scratch near the top left",
        PLAIN,
        ParsedPrompt("scratch", across="left", down="top", length="long", width="thin"),
    ),
    ("A scratch.", PLAIN, ParsedPrompt("scratch")),
    ("small dent in the middle", PLAIN, ParsedPrompt("dent", across="middle", down="middle", size="small")),
    ("a very small dent", PLAIN, ParsedPrompt("dent", size="tiny")),
    ("a tiny blowhole at the bottom right", TILE, ParsedPrompt("Blowhole", across="right", down="bottom", size="tiny")),
    ("large faint rust", ["rust"], ParsedPrompt("rust", size="large", severity="faint")),
    ("severe corrosion on the left", PLAIN, ParsedPrompt("rust", across="left", severity="severe")),
    ("a fissure toward the top", PLAIN, ParsedPrompt("crack", down="top")),
    ("a chipped edge", TILE, ParsedPrompt("Break", edge=True)),
    ("break at the right edge", TILE, ParsedPrompt("Break", across="right", edge=True)),
    ("pinholes, upper-left corner", TILE, ParsedPrompt("Blowhole", across="left", down="top")),
    ("a scratch on the neck", SCREW, ParsedPrompt("scratch_neck")),
    (
        "a deep scratch on the head of the screw",
        SCREW,
        ParsedPrompt("scratch_head", product="screw", severity="severe"),
    ),
    ("thread side damage", SCREW, ParsedPrompt("thread_side")),
    ("manipulated front", SCREW, ParsedPrompt("manipulated_front")),
    ("an uneven patch on the magnetic tile", TILE, ParsedPrompt("Uneven", product="magnetic-tile")),
    ("short wide crack at the bottom", TILE, ParsedPrompt("Crack", down="bottom", length="short", width="wide")),
    (
        "왼쪽 위에 길고 가는 스크래치",
        PLAIN,
        ParsedPrompt("scratch", across="left", down="top", length="long", width="thin"),
    ),
    ("오른쪽 아래에 작은 찍힘", PLAIN, ParsedPrompt("dent", across="right", down="bottom", size="small")),
    ("가운데 큰 균열", PLAIN, ParsedPrompt("crack", across="middle", down="middle", size="large")),
    ("왼쪽위에 긁힘이 있는 사진", PLAIN, ParsedPrompt("scratch", across="left", down="top")),
    ("희미한 녹을 그려줘", PLAIN, ParsedPrompt("rust", severity="faint")),
    ("아주 작은 기공 하나", TILE, ParsedPrompt("Blowhole", size="tiny")),
    ("가장자리가 깨진 결함", TILE, ParsedPrompt("Break", edge=True)),
    (
        "우측 상단에 굵고 짧은 크랙",
        TILE,
        ParsedPrompt("Crack", across="right", down="top", length="short", width="wide"),
    ),
    ("심한 불균일", TILE, ParsedPrompt("Uneven", severity="severe")),
    ("중앙에 중간 크랙을 만들어줘", TILE, ParsedPrompt("Crack", across="middle", down="middle", size="medium")),
    ("아래쪽에 얇은 금", PLAIN, ParsedPrompt("crack", down="bottom", width="thin")),
    ("하단에 해짐", TILE, ParsedPrompt("Fray", down="bottom")),
    ("좌측 하단에 깊은 흠집", PLAIN, ParsedPrompt("scratch", across="left", down="bottom", severity="severe")),
    ("thin crack on the left 부분", PLAIN, ParsedPrompt("crack", across="left", width="thin")),
    ("긴 긁힘", ["긁힘", "찍힘"], ParsedPrompt("긁힘", length="long")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "defects", "parsed"), SENTENCES, ids=[row[0] for row in SENTENCES])
def test_a_sentence_is_understood(sentence: str, defects: list[str], parsed: ParsedPrompt) -> None:
    assert parse(sentence, defects, PRODUCTS) == (parsed,)


def decomposed(text: str) -> str:
    """As macOS writes names, and some editors text: each letter of a syllable by itself."""
    return unicodedata.normalize("NFD", text)


def mm(low: float, high: float = 0.0) -> ParsedPrompt:
    return ParsedPrompt("scratch", length_mm=(low, high or low))


NUMBERED, SIZED, LONG = ["class_1", "class_2"], ["broken_large", "broken_small"], ["crack", "crack_long"]
KOREAN = ["긁힘", "찍힘"]

AS_PEOPLE_WRITE: list[tuple[str, list[str], ParsedPrompt]] = [
    ("a .5 mm scratch", PLAIN, mm(0.5)),
    ("a 2,5mm scratch", PLAIN, mm(2.5)),
    ("a 0,200 mm scratch", PLAIN, mm(0.2)),
    ("a scratch - 3 mm", PLAIN, mm(3.0)),
    ("3㎜ 스크래치", PLAIN, mm(3.0)),
    ("500㎛ 스크래치", PLAIN, mm(0.5)),
    ("3mm~5mm 스크래치", PLAIN, mm(3.0, 5.0)),
    ("0.5cm ~ 8mm 스크래치", PLAIN, mm(5.0, 8.0)),
    ("1센티미터 스크래치", PLAIN, mm(10.0)),
    ("1센치 스크래치", PLAIN, mm(10.0)),
    ("사진에서 3mm 스크래치", PLAIN, mm(3.0)),
    ("a scratch of 3 mm beside the hole", PLAIN, ParsedPrompt("scratch", region="hole", beside=True, length_mm=(3, 3))),
    (decomposed("왼쪽에 긴 긁힘"), PLAIN, ParsedPrompt("scratch", across="left", length="long")),
    (decomposed("긁힘"), [decomposed("긁힘")], ParsedPrompt(decomposed("긁힘"))),
    ("a class_1", NUMBERED, ParsedPrompt("class_1")),
    ("class 2", NUMBERED, ParsedPrompt("class_2")),
    ("two class_2", NUMBERED, ParsedPrompt("class_2", number=2)),
    ("a crack", LONG, ParsedPrompt("crack")),
    ("a fissure", LONG, ParsedPrompt("crack")),
    ("a crack_long", LONG, ParsedPrompt("crack_long")),
    ("a small broken_large", SIZED, ParsedPrompt("broken_large", size="small")),
    ("a 2", ["1", "2"], ParsedPrompt("2")),
    ("three 2", ["1", "2"], ParsedPrompt("2", number=3)),
    ("2 dents", ["1_scratch", "2_dent"], ParsedPrompt("2_dent")),
    ("a 2 mm 0", ["0", "2"], ParsedPrompt("0", length_mm=(2.0, 2.0))),
    ("긁힘_소를 왼쪽에", ["긁힘_대", "긁힘_소"], ParsedPrompt("긁힘_소", across="left")),
    ("긁힘 2개", ["긁힘", "2"], ParsedPrompt("긁힘", number=2)),
    ("스크래치", ["긁힘"], ParsedPrompt("긁힘")),
    ("긁힌 자국", KOREAN, ParsedPrompt("긁힘")),
    ("눌림", KOREAN, ParsedPrompt("찍힘")),
    ("a scratch", KOREAN, ParsedPrompt("긁힘")),
    ("a scratch", ["표면긁힘", "찍힘"], ParsedPrompt("표면긁힘")),
    ("긁힘", ["흠집", "긁힘"], ParsedPrompt("긁힘")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "defects", "parsed"), AS_PEOPLE_WRITE)
def test_numbers_and_names_are_read_as_people_write_them(
    sentence: str, defects: list[str], parsed: ParsedPrompt
) -> None:
    assert parse(sentence, defects, PRODUCTS, {"hole": ()}) == (parsed,)


def test_places_are_found_in_whichever_form_they_are_written() -> None:
    for sentence, name in (("구멍에 긁힘", decomposed("구멍")), (decomposed("구멍에 긁힘"), "구멍")):
        assert parse(sentence, ["scratch"], (), {name: ()}) == (ParsedPrompt("scratch", region=name),)


PLACES = {"screw_head": (), "hole": (), "rim": ("outer ring", "바깥 테")}
SCRATCH, HOLE = ["scratch"], ["scratch", "hole"]

OF_PLACES: list[tuple[str, list[str], tuple[ParsedPrompt, ...]]] = [
    ("a large scratch on the screw head", SCRATCH, (ParsedPrompt("scratch", size="large", region="screw_head"),)),
    ("나사 머리의 큰 긁힘", SCRATCH, (ParsedPrompt("scratch", size="large", region="screw_head"),)),
    ("나사머리에 큰 긁힘", SCRATCH, (ParsedPrompt("scratch", size="large", region="screw_head"),)),
    (
        "two short scratches beside the hole",
        HOLE,
        (ParsedPrompt("scratch", length="short", region="hole", beside=True, number=2),),
    ),
    (
        "구멍 옆에 짧은 긁힘 두 개",
        HOLE,
        (ParsedPrompt("scratch", length="short", region="hole", beside=True, number=2),),
    ),
    ("a hole above the hole", HOLE, (ParsedPrompt("hole", down="top", region="hole", beside=True),)),
    ("a scratch along the left edge", SCRATCH, (ParsedPrompt("scratch", across="left", edge=True, along=True),)),
    ("왼쪽 가장자리를 따라 긁힘", SCRATCH, (ParsedPrompt("scratch", across="left", edge=True, along=True),)),
    (
        "a long, thin scratch along the edge of the head",
        SCRATCH,
        (ParsedPrompt("scratch", edge=True, length="long", width="thin", region="screw_head", along=True),),
    ),
    (
        "a scratch at the left side of the hole and a dent to the right of it",
        PLAIN,
        (ParsedPrompt("scratch", across="left", region="hole"), ParsedPrompt("dent", across="right")),
    ),
    ("a dent to the left of the hole", PLAIN, (ParsedPrompt("dent", across="left", region="hole", beside=True),)),
    ("구멍 왼쪽에 찍힘", PLAIN, (ParsedPrompt("dent", across="left", region="hole", beside=True),)),
    ("구멍의 왼쪽에 찍힘", PLAIN, (ParsedPrompt("dent", across="left", region="hole"),)),
    ("a dent on the outer ring", PLAIN, (ParsedPrompt("dent", region="rim"),)),
    ("바깥 테의 찍힘", PLAIN, (ParsedPrompt("dent", region="rim"),)),
    (
        "a scratch, long and thin, and two dents at the top",
        PLAIN,
        (ParsedPrompt("scratch", length="long", width="thin"), ParsedPrompt("dent", down="top", number=2)),
    ),
    (
        "위쪽에 긁힘과 아래쪽에 작은 찍힘 3개",
        PLAIN,
        (ParsedPrompt("scratch", down="top"), ParsedPrompt("dent", down="bottom", size="small", number=3)),
    ),
    (
        "a 3 mm long and 0.2-0.4mm wide scratch",
        SCRATCH,
        (ParsedPrompt("scratch", length_mm=(3.0, 3.0), width_mm=(0.2, 0.4)),),
    ),
    ("길이 3mm, 폭 0.2 mm 긁힘", SCRATCH, (ParsedPrompt("scratch", length_mm=(3.0, 3.0), width_mm=(0.2, 0.2)),)),
    ("a vertical scratch of 1 cm", SCRATCH, (ParsedPrompt("scratch", direction="vertical", length_mm=(10.0, 10.0)),)),
    ("a scratch on the head", ["scratch_head", "scratch_neck"], (ParsedPrompt("scratch_head", region="screw_head"),)),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "defects", "parsed"), OF_PLACES, ids=[row[0] for row in OF_PLACES])
def test_named_places_several_damages_and_sizes_are_understood(
    sentence: str, defects: list[str], parsed: tuple[ParsedPrompt, ...]
) -> None:
    assert parse(sentence, defects, ["plate"], PLACES) == parsed


def test_a_damage_lies_in_one_place() -> None:
    with pytest.raises(ConfigError, match="hole and screw_head: a damage lies in one place"):
        parse("a scratch beside the hole on the head", SCRATCH, (), PLACES)


@pytest.mark.parametrize(
    ("sentence", "defects", "said"),
    [
        ("a purple scratch", PLAIN, "unknown: purple; known are the defect types scratch, dent, rust, crack"),
        ("보라색 스크래치", PLAIN, "unknown: 보라색"),
        ("a scratch", SCREW, "may mean scratch_head or scratch_neck"),
        ("a scratch dent", PLAIN, "may mean scratch or dent"),
        ("a long scrach", PLAIN, "unknown: scrach (nearest: scratch); known are"),
        ("긴 긁흠", PLAIN, "unknown: 긁흠 (nearest: 긁힘)"),
        ("a scratch beside the top", PLAIN, "does not say beside which place; name places in data.places"),
        ("20 scratches", PLAIN, "20 damages of the type scratch; say 1 to 9"),
        ("0 scratches", PLAIN, "0 damages of the type scratch"),
        ("a large 3 mm scratch", PLAIN, "large and a size in mm exclude each other"),
        ("a scratch of 3-2 mm", PLAIN, "'3-2 mm' is no size"),
        ("a 3 mm long scratch of 4 mm", PLAIN, "two sizes in mm for the length"),
        ("a 1,200 um scratch", PLAIN, "'1,200' may be read in two ways"),
        ("a 1.2.3 mm scratch", PLAIN, "'1.2.3' is no number"),
        ("a -3 mm scratch", PLAIN, "'-3 mm' is no size"),
        ("3 mm2 dent", PLAIN, "unknown: mm2"),
        ("3 mm² dent", PLAIN, "unknown: mm2"),
        ("a 1/2 mm dent", PLAIN, "unknown: mm"),
        ("a scratch 2 mm from the edge", PLAIN, "2 mm from a place is a distance, which is not read"),
        ("a scratch 2 mm to the left of the middle", PLAIN, "2 mm from a place is a distance"),
        ("a scratch 2 mm above the middle", PLAIN, "2 mm from a place is a distance"),
        ("구멍에서 3mm 스크래치", PLAIN, "3 mm from a place is a distance"),
        ("class_1 scratch", ["scratch", "class_1"], "may mean class_1 or scratch"),
        ("a class", ["class_1", "class_2"], "may mean class_1 or class_2"),
        ("a vertical scratch along the edge", PLAIN, "along and vertical exclude each other"),
        ("a dent", TILE, "no shots show dent here; known are the defect types Blowhole"),
        ("near the top", PLAIN, "names no defect type"),
        ("", PLAIN, "names no defect type"),
        ("a long short scratch", PLAIN, "long and short exclude each other"),
    ],
)
def test_what_is_not_understood_is_answered_with_what_is_known(sentence: str, defects: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(sentence, defects, PRODUCTS)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_any_words_in_any_order_are_understood_or_answered() -> None:
    """A thousand sentences of known words, marks, numbers and nonsense: damages, or one sentence."""
    rng = random.Random(0)
    words = [
        *VOCABULARY,
        "screw",
        "head",
        "나사",
        "머리의",
        "구멍",
        "hole",
        "of",
        "the",
        ",",
        "and",
        "3",
        "0.5 mm",
        "2-4mm",
    ]
    words += ["and", "0.5 mm", "2-4mm", "!!", "§0", "e\u0301", "100000000000", "\U0001f600", "12mm", "mm", "-", "'s"]
    for _ in range(1000):
        sentence = " ".join(rng.choice(words) for _ in range(rng.randint(0, 9)))
        try:
            parsed = parse(sentence, ["scratch", "scratch_head", "hole", "!!"], ["screw", "__"], PLACES)
        except ConfigError as error:
            assert "\n" not in str(error)
        else:
            assert parsed and all(one.number > 0 and not (one.along and not one.edge) for one in parsed)


def test_every_caption_of_the_factory_is_understood() -> None:
    """The built-in vocabulary is that of the captions: each names its own defect type, size and severity."""
    from flawsmith.data import factory

    for seed in range(12):
        piece = factory.make_random(seed, size=64, sound_share=0.0)
        assert piece.defect is not None
        severity = piece.facts["severity"].replace("moderate", "")
        words = f"{piece.facts['size']} {severity} {piece.defect}"
        (parsed,) = parse(f"a {words}, {piece.facts['place']}", [piece.defect])
        assert (parsed.defect, parsed.size) == (piece.defect, piece.facts["size"])
        assert bool(parsed.severity) == bool(severity)
        assert parsed.place is not None


def test_sizes_agree_with_the_captions() -> None:
    from flawsmith.data.factory.words import size

    for word, (low, high) in SIZES.items():
        assert size((low + high) / 2) == word


def test_a_wish_without_a_place_has_none() -> None:
    assert ParsedPrompt("scratch").place is None
    assert ParsedPrompt("scratch", down="top").place == (0.5, 0.2)


def test_size_and_severity_go_into_the_prompt_and_the_rest_does_not() -> None:
    said = {
        "a large faint rust patch on the left": "large faint",
        "a long thin crack near the top": "",
        "a medium dent": "",
        "아주 작은 균열": "tiny",
    }
    assert {words: parse(words, PLAIN, PRODUCTS)[0].appearance for words in said} == said


def test_a_request_names_its_defect_type_with_its_appearance_and_normal_without() -> None:
    blank = torch.zeros(3, 3, 8, 8)
    asked = Condition(blank, blank[:, :1], ("tile",) * 3, ("crack", "hole", ""), appearance=("tiny faint", "", "large"))
    assert asked.named() == [("tiny faint crack", "tile"), ("hole", "tile"), ("", "tile")]
    assert Condition(blank, blank[:, :1], ("tile",) * 3, ("crack", "hole", "")).named()[0] == ("crack", "tile")


def test_the_words_reach_every_generator_that_reads_words(backbone: Any) -> None:
    from dataclasses import replace

    plain = example_condition(backbone.size, 2)
    told = replace(plain, appearance=("small", "small"))
    for name in ("controlnet_inpaint", "cross_modal", "dual_branch"):
        plugin = registry.get("generators", name)
        made = [
            plugin(backbone, plugin.Settings()).sample(x, [1, 2], steps=2, guidance=2.0).image for x in (plain, told)
        ]
        assert not torch.equal(*made), name
