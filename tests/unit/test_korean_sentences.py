"""Sentences in Korean: none is missing, none is stale, and each says the same values as its English."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
from functools import cache
from pathlib import Path

import pytest

from flawsmith.cli.korean import CATALOGUE as HELP
from flawsmith.config import Config, validate
from flawsmith.errors import ConfigError
from flawsmith.korean import CATALOGUE, in_korean, with_particles

KOREAN: dict[str, str] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
SOURCE = CATALOGUE.parent
SPOKEN = (
    *("choice", "cli", "cluster", "config", "detectors", "exports", "filters", "metrics", "preflight", "reporting"),
    *("run", "screening", "studio", "synthesis", "errors.py", "files.py", "interruption.py", "paths.py"),
    *("pipeline.py", "registry.py", "data/annotations", "data/codecs", "data/exported", "data/layouts", "data/masks"),
    *("data/fingerprints.py", "data/images.py", "data/photographs.py", "data/ranges.py", "data/split.py"),
    *("data/sentences/grammar.py", "data/sentences/lengths.py", "data/sentences/naming.py"),
    *("data/sentences/regions.py", "evaluation/arms.py"),
    *("evaluation/at_once.py", "evaluation/calibration.py"),
    *("evaluation/operating_point.py", "evaluation/proof.py", "evaluation/shape.py", "evaluation/shifts.py"),
    *("evaluation/statistics.py", "evaluation/trainings.py", "inspection/calibrate.py", "inspection/deliver.py"),
    *("inspection/inspect.py", "inspection/inspector.py", "inspection/model.py", "inspection/network.py"),
    *("inspection/weights.py", "nn/device.py", "nn/features.py", "nn/loading", "nn/networks", "nn/processes.py"),
    *("nn/trainer.py", "nn/weights.py"),
)
"""Files whose sentences reach a person: what a verb says and refuses, the report, the studio."""
WRITTEN = re.compile(
    r"<|#|: \S+px|default-src|private, |test val valid|system volume|\.txt \.md"  # pages, headers, names of folders
    r"|^fill=|^font-family|^:lang|^ours, no controls"  # drawings, styles, an arm
    r"|, unable to parse|^generate.transfer: kind|^from the package|seconds per step|as it is|^; delete it and run"
    r"|Answer with one short phrase|^The photograph shows|last answer was not understood|near the top, bottom"
    r"|progressive DCT|lossless JPEG|do not fit|: still at it|to be done again|^Stable Diffusion|`magick |^Value error"
    r"|^screen: |^; \{\} more are asked|^round \{\}|^left out: |^\{\} changed: |at once from batch|scaled to 8 bits"
    r"|^torch: |^card: |GiB of memory|^Made by flawsmith|: images/|^Detected call|painted anew$"
    r"|^attention of words|per shot from|show one piece|of the other types|, for the proof$|\[blue\]|is done again$"
)
"""Texts that nobody is told: pages, settings files, what a model is asked, the log, names."""
SIDEWAYS = " (one of them lies on its side: is an EXIF orientation missing?)"
OF_A_TOOL = " ({} is a labelling tool's file, which other layouts read: labelme, coco, yolo, label_studio)"
PUT_TOGETHER = {
    *("1 model", "{} models", "1 training", "{} trainings", "1 error", "{} errors", "{} {}s are", "1 {} is"),
    *("help on {}", "show no effect on {}", "harm on {}", "help on {} and show no effect on {}"),
    *("help on {} and harm on {}", "show no effect on {} and harm on {}", "{}-bit {}", "{}-bit {} {}"),
    *("{} samples and {} negative controls", "{}: {} left out: {}; {}", "{} backbone ({})", "{} ({} of {})"),
    *("{}: {} no mask: {}; {}", f"{{}}: {{}} no mask: {{}}; {{}}{OF_A_TOOL}"),
    f"the mask has {{}}; they must be the same{SIDEWAYS}",
    "{} ({} of {}, {} tiles of {} px per photograph)",
    "{} ({} windows each); what the gate rejects is made again in up to {} rounds",
    *("localization: {}", "detection: {}", "classification: {}", "{} after correction ({})"),
    *("localization ({})", "detection ({})", "classification ({})", "mean {}"),
    *("helps: {}", "no effect: {}", "harms: {}", "helps ({}): {}", "no effect ({}): {}", "harms ({}): {}"),
    *("helps ({})", "no effect ({})", "harms ({})", "This is a first look with {} seed{} (a verdict needs {})."),
    *("Darker", "Brighter", "Blurred", "Noisy", "Uneven light", "As photographed"),
    *("Darker: {}", "Brighter: {}", "Blurred: {}", "Noisy: {}", "Uneven light: {}", "{}, {} per shot"),
    *("Distance in features to {}", "Distance in features to normal patches of {}, and to {}"),
    *("The generator's own settings.", ": {} changed", "help on {}, show no effect on {} and harm on {}"),
    *("({}, for the proof)", "{}: {} per shot from {} in {} ({})", "{} of {} samples kept ({})"),
    "{}: {} per shot from {} in {} (its shots show one piece, so this follows the other types: {})",
    "{}: {} per shot from {} in {} (beside the samples of the other types {})",
    "{} of {} samples kept; {} more are asked for: run `flawsmith generate {}` and screen again",
    "{} of {} samples kept ({}); {} more are asked for: run `flawsmith generate {}` and screen again",
    *("{} of {} pictures kept; {}", "{} of {} pictures kept ({}); {}"),
    *("shots and normal photographs", "{} shot{}", "{} control{}"),
    *("{} called defective, {} ok", "{} called defective, {} ok, {} unreadable"),
    *("{} called defective ({}), {} ok", "{} called defective ({}), {} ok, {} unreadable"),
    "{} inspected ({}/s): no verdict, for the model has no threshold; `flawsmith calibrate` sets one; {}",
}
"""What the code makes of several texts."""
OF_TYPER = re.compile(
    r"Missing (argument|option) \{|No such (option|command)|Option \{option\} |Got unexpected extra argument"
    r"|Invalid value for \{option\}: "
)
"""What Typer says of wrong words, in this release and in the lowest that we take; test_korean_help.py has it said."""
BASES = ("Settings", "Place")
"""What classes of settings derive from."""
HOLE = re.compile(r"\{[a-z_0-9]+\}")
SETTING = re.compile(r"\w+(\.\w+)+")
WORD = re.compile(r"[A-Za-z][a-z'-]+")


@cache
def texts_of(path: Path) -> set[str]:
    """Return the texts of a file that are no documentation, with {} for each value."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    beside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    beside |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in beside:
            texts.append("".join(map(part_of, node.values)))
        elif isinstance(node, ast.Call) and (noun := counted(node)):
            beside.add(id(node.args[1]))
            texts.append(noun)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in beside:
            texts.append(node.value)
    return {line for text in texts for line in HOLE.sub("{}", text).split("\n")}


def part_of(part: ast.expr) -> str:
    """Return a part of an f-string with {} for its value, and a counted noun in it as `number_of` writes that."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    return (isinstance(part, ast.FormattedValue) and counted(part.value)) or "{}"


def counted(node: ast.expr) -> str:
    """Return "{} sample{}" for number_of(..., "sample"); "" = this is no such call."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "number_of":
        noun = node.args[1]
        return f"{{}} {noun.value}{{}}" if isinstance(noun, ast.Constant) else ""
    return ""


@cache
def helps(path: Path) -> set[str]:
    """Return the help of all settings in a file, and the first lines of the configuration's sections."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith(BASES) for base in node.bases):
            if node.name.endswith("Config") and node.name != "Config":
                found.add((ast.get_docstring(node) or "").splitlines()[0])
            found |= {
                inspect.cleandoc(below.value.value)
                for field, below in itertools.pairwise(node.body)
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr)
                if isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
            }
    return found


def files(*names: str) -> list[Path]:
    paths = [SOURCE / name for name in names]
    return [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]


def test_nothing_is_missing() -> None:
    known = {HOLE.sub("{}", english) for english in KOREAN} | {*json.loads(HELP.read_text(encoding="utf-8"))}
    missing = [
        f"{path.relative_to(SOURCE)}: {text}"
        for path in files(*SPOKEN)
        for text in sorted(texts_of(path) - known)
        if len(WORD.findall(SETTING.sub("", text))) >= 3 and " " in text and not WRITTEN.search(text)
    ]
    assert not missing, f"put the Korean of these into {CATALOGUE.name}:\n" + "\n".join(missing)


def test_the_studio_says_the_same_of_plug_ins() -> None:
    words = json.loads((SOURCE / "studio" / "page" / "words.json").read_text(encoding="utf-8"))
    named = [one for name, one in words.items() if name.startswith(("generator.", "format.")) and one["en"] in KOREAN]
    assert len(named) > 20
    assert [one["ko"] for one in named] == [KOREAN[one["en"]] for one in named]


def test_the_help_of_no_setting_is_missing() -> None:
    known = {path for name in ("config", "generators", "filters", "detectors", "exports") for path in files(name)}
    missing = {text for path in known for text in helps(path)} - set(KOREAN)
    assert not missing, f"put the Korean of these into {CATALOGUE.name}:\n" + "\n".join(sorted(missing))


def test_every_setting_is_among_these() -> None:
    """Guards the guard: what `helps` reads from the files is what the settings themselves say."""
    from flawsmith import registry
    from flawsmith.config.settings import sections

    read = {text for path in files(".") for text in helps(path)}
    known = [*(section for _, section in sections(Config())), registry.get("generators", "crop_paste").Settings()]
    said = {field.description for section in known for field in type(section).model_fields.values()} - {None}
    assert said and said <= read


def test_nothing_is_stale() -> None:
    said = {HOLE.sub("{}", text) for path in files(".") for text in texts_of(path) | helps(path)}
    library = {english for english in KOREAN if english.startswith("should be ") and english.endswith(", not {value}")}
    library |= {english for english in KOREAN if OF_TYPER.match(english)}
    stale = {one for one in {*KOREAN} - library if HOLE.sub("{}", one) not in said | PUT_TOGETHER}
    assert not stale, f"nobody says these any more; take them out of {CATALOGUE.name}:\n" + "\n".join(sorted(stale))


def test_nothing_is_there_twice() -> None:
    assert CATALOGUE.read_text(encoding="utf-8").count('": "') == len(KOREAN)
    assert len({HOLE.sub("{}", english) for english in KOREAN}) == len(KOREAN)


def test_both_hold_the_same() -> None:
    typed = re.compile(
        r"--[a-z]+|`[^`]+`|\b(?!e\.g|family\.name)[a-z_]+\.[a-z_]+\b", re.ASCII
    )  # as a shell or a file has it
    for english, korean in KOREAN.items():
        holes, used = HOLE.findall(english), HOLE.findall(korean)
        left_out = [hole for hole in holes if hole not in used]
        assert set(used) <= set(holes), english
        assert all(hole.startswith("{_") for hole in left_out), f"call a value that Korean leaves out _: {english}"
        assert re.search("[가-힣]", korean) or korean != english, f"no Korean in {korean!r}"
        both = [set(typed.findall(HOLE.sub("", text))) for text in (english, korean)]
        assert both[0] == both[1], english


@pytest.mark.parametrize(
    ("both", "fitting"),
    [
        ("균열이(가) 사진을(를) 파일(으)로", "균열이 사진을 파일로"),
        ("'긁힘'은(는) 나사와(과) 3(으)로", "'긁힘'은 나사와 3으로"),
        ("7(으)로 10(으)로 2이(가) 0을(를)", "7로 10으로 2가 0을"),
        ("'steps'을(를) x.png이(가)", "'steps'을(를) x.png이(가)"),  # how it is read aloud nobody can tell
        ("폴더(set)은(는)", "폴더(set)은(는)"),
    ],
)
def test_a_particle_fits_what_it_follows(both: str, fitting: str) -> None:
    assert with_particles(both) == fitting


def test_values_and_the_sides_of_a_colon_are_translated_too() -> None:
    sentence = (
        "a.png, b.png: 2 masks deserve a look: the mask calls the whole picture damaged: inverted? Draw it again, or "
        "set data.mask.inverted = false when it really is damage"
    )
    assert in_korean(sentence) == (
        "a.png, b.png: 마스크 2개를 확인하세요: 마스크가 사진 전체를 결함으로 표시합니다. 반전된 마스크인가요? "
        "다시 그리거나, 정말 결함이면 data.mask.inverted = false로 설정하세요"
    )
    assert in_korean("photographs: mask has 2 pictures, files 9; x fills the gap").startswith(
        "photographs: mask 사진은 2장, files"
    )
    heading = "flawsmith: written by `flawsmith new --from`, which understood set as the layout mvtec:"
    assert in_korean(heading) == "flawsmith: `flawsmith new --from`이 set을(를) 레이아웃 mvtec(으)로 읽고 썼습니다:"
    assert in_korean("photographs") == "사진" and in_korean("3 pictures are") == "사진 3개를"
    assert in_korean("one {odd} thing\nof 1 sort") == "one {odd} thing\nof 1 sort"


@pytest.mark.parametrize(
    ("settings", "korean"),
    [
        ({"train": {"step": 3}}, "train.step: 모르는 키입니다. 'steps'을(를) 뜻하나요?"),
        ({"train": {"steps": -1}}, "train.steps: -1이 아니라 0 이상이어야 합니다"),
        (
            {"generate": {"turn": "left"}},
            "generate.turn: 'left'이(가) 아니라 'free', 'right', 'none' 중 하나여야 합니다",
        ),
        ({"train": {"turn": "often"}}, "true 또는 false"),
    ],
)
def test_a_wrong_setting_is_refused_in_korean(settings: dict[str, object], korean: str) -> None:
    with pytest.raises(ConfigError) as refused:
        validate(Config, settings)
    assert korean in in_korean(str(refused.value))


@pytest.mark.parametrize(
    ("english", "korean"),
    [
        (
            "8 pictures inspected (3.2/s): 3 called defective (2 rust), 4 ok, 1 unreadable; out/inspection.csv",
            "사진 8장을 검사했습니다(초당 3.2장): 결함 3장(2 rust), 정상 4장, 읽을 수 없음 1장. out/inspection.csv",
        ),
        (
            "9 of 12 samples kept (2 because no damage is visible; 1 because no damage is visible); "
            "3 more are asked for: run `flawsmith generate runs/x` and screen again",
            "샘플 12장 중 9장을 남겼습니다(2장: 결함이 보이지 않습니다; 1장: 결함이 보이지 않습니다). "
            "3장을 더 만들어야 합니다. `flawsmith generate runs/x`를 실행하고 다시 선별하세요",
        ),
        (
            "chip: 1 sample per shot from nsa in new shapes (+3.2 points, standard error 1.0)",
            "chip: nsa로 샷당 샘플 1개, 새 모양 (+3.2점, 표준 오차 1.0)",
        ),
        ("crack: missed", "crack: 미검"),
        (
            "--shard 3: expected i/n with i from 0 to n-1, e.g. 0/4, or auto",
            "--shard 3: i/n이어야 하고 i는 0부터 n-1까지입니다. 예: 0/4. 또는 auto",
        ),
    ],
)
def test_what_a_verb_ends_with_is_said_in_korean(english: str, korean: str) -> None:
    assert in_korean(english) == korean
