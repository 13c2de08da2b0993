"""The catalogue of words: nothing is missing in either language, and nothing is there that nobody says."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

from flawsmith import registry
from flawsmith.korean import with_particles
from flawsmith.preflight.recognise import SETTING
from flawsmith.studio.server import PAGE
from flawsmith.studio.session import Studio

CATALOGUE: dict[str, dict[str, str]] = json.loads((PAGE / "words.json").read_text(encoding="utf-8"))
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in PAGE.iterdir() if path.suffix in (".js", ".html")}
KEY = re.compile(r"""["'`]([a-z]+\.[a-zA-Z]+)["'`]""")
MADE = re.compile(r"""`([a-z]+)\.\$\{""")


def said() -> set[str]:
    """Return every key that the page says, as far as it is written out."""
    families = {key.partition(".")[0] for key in CATALOGUE}
    keys = {key for text in SOURCES.values() for key in KEY.findall(text)}
    return {key for key in keys if key.partition(".")[0] in families and not key.endswith((".js", ".css", ".json"))}


def made() -> set[str]:
    """Return the families of which keys are put together, such as `tool.${name}`."""
    return {family for text in SOURCES.values() for family in MADE.findall(text)}


@pytest.mark.parametrize("key", sorted(CATALOGUE))
def test_every_word_has_both_languages(key: str) -> None:
    words = CATALOGUE[key]
    assert set(words) == {"en", "ko"} and all(words.values())
    assert re.search("[가-힣]", words["ko"]), f"{key}: no Korean in {words['ko']!r}"
    assert not re.search("[가-힣]", words["en"])
    holes = [sorted(re.findall(r"\{\w+\}", words[language])) for language in ("en", "ko")]
    assert holes[0] == holes[1], f"{key}: other values in Korean than in English"


def test_the_gate_speaks_both_languages() -> None:
    for name in registry.entries("filters"):
        for score, sentence in registry.get("filters", name).scores.items():
            assert CATALOGUE[f"reason.{score}"]["en"] == sentence
            assert CATALOGUE[f"score.{score}"]["ko"]


def test_generators_are_summarized_in_both_languages() -> None:
    for name, entry in registry.entries("generators").items():
        assert CATALOGUE[f"generator.{name}"]["en"] == entry.summary


def test_every_setting_that_answers_has_plain_words() -> None:
    answered = {SETTING}
    for path in PAGE.parents[1].rglob("*.py"):
        answered |= set(re.findall(r"""\bAnswer\("([a-z_.]+)",""", path.read_text(encoding="utf-8")))
    assert len(answered) > 6
    missing = {name for name in answered if not any(f"{key}.".startswith(f"answer.{name}.") for key in CATALOGUE)}
    assert not missing


def test_every_module_of_the_page_is_asked_for_at_once() -> None:
    asked = re.findall(r'rel="modulepreload" href="page/([a-z]+\.js)"', SOURCES["index.html"])
    assert sorted([*asked, "app.js"]) == sorted(name for name in SOURCES if name.endswith(".js"))


def test_only_one_module_asks_the_browser_to_keep_something() -> None:
    assert [name for name, text in SOURCES.items() if re.search("(local|session)Storage", text)] == ["memory.js"]


def test_every_word_that_is_said_is_there() -> None:
    assert len(said()) > 60
    assert not said() - set(CATALOGUE)


def test_every_word_that_is_there_is_said() -> None:
    assert not {key for key in set(CATALOGUE) - said() if key.partition(".")[0] not in made()}


def told_work() -> Iterator[tuple[str, str]]:
    """Yield how the work of commands that the page starts is called, its first word, and what is counted."""
    for room in ("choice", "evaluation", "exports", "screening", "synthesis"):
        for path in (PAGE.parents[1] / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "progress":
                    name, _, unit, *_ = (ast.unparse(argument) for argument in node.args)
                    yield name, unit


def test_the_work_of_commands_has_words() -> None:
    works = dict(told_work())
    assert len(works) > 8
    for name, unit in works.items():
        for word in re.findall(r"'([a-z]+)\b", name):
            assert f"step.{word}" in CATALOGUE or word in ("replay", "sample"), name
        for word in re.findall(r"([a-z]+)'", unit):
            assert f"unit.{word}" in CATALOGUE or "role" in unit, unit


@pytest.mark.browser
def test_work_is_called_by_the_words_of_the_page(opened: Any, studio: Studio) -> None:
    page = opened(studio)
    page.get_by_label("Language").select_option("ko")
    page.wait_for_selector("html[lang=ko]")
    names = [
        "prove my screw, features",
        "prove, intervals",
        "generate (nsa, for the proof)",
        "train screw/rust",
        "sweep x",
    ]
    said = page.evaluate("(names) => import('./page/work.js').then(({ nameOf }) => names.map(nameOf))", names)
    assert said == [
        "효과 검증 my screw: 특징 계산",
        "효과 검증: 구간 계산",
        "샘플 생성 (nsa, 효과 검증용)",
        "학습 screw/rust",
        "sweep x",
    ]
    units = ["defect types", "models", "%"]
    said = page.evaluate("(units) => import('./page/work.js').then(({ unitOf }) => units.map(unitOf))", units)
    assert said == ["유형", "개", "%"]


@pytest.mark.browser
def test_a_browser_that_keeps_nothing_shows_the_page(browser: Any, studio: Studio) -> None:
    """In a private window of some browsers the name `localStorage` alone throws."""
    page, problems = browser.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    for name in ("localStorage", "sessionStorage"):
        page.add_init_script(f"Object.defineProperty(window, '{name}', {{ get() {{ throw new Error('no') }} }})")
    page.goto(studio.address)
    page.wait_for_selector("html[data-ready=yes]")
    page.get_by_label("Language").select_option("ko")
    page.get_by_role("tab", name="그리기").click()
    page.wait_for_selector("html[lang=ko]")
    assert not problems and page.locator("#part-paint").is_visible()
    page.close()


@pytest.mark.browser
def test_the_page_has_a_frame_before_the_server_has_answered(browser: Any, studio: Studio) -> None:
    page, held = browser.new_page(locale="en-GB"), []
    page.route("**/api/source", lambda route: held.append(route))
    page.goto(studio.address)
    page.get_by_text("Loading the photographs").wait_for()
    assert page.get_by_role("tab").count() == 6 and page.get_by_role("tab", name="Export").is_disabled()
    held[0].continue_()
    page.wait_for_selector("html[data-ready=yes]")
    assert page.locator("#loading").count() == 0
    page.close()


@pytest.mark.browser
def test_particles_fit_on_the_page_too(opened: Any, studio: Studio) -> None:
    page = opened(studio)
    both = ["균열이(가) 사진을(를)", "7(으)로 10(으)로 '나사'와(과)", "x.png(으)로"]
    said = page.evaluate("(all) => import('./page/words.js').then(({ withParticles }) => all.map(withParticles))", both)
    assert said == [with_particles(one) for one in both] == ["균열이 사진을", "7로 10으로 '나사'와", "x.png(으)로"]
