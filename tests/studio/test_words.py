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
    names = ["prove my screw, features", "generate (nsa, for the proof)", "train screw/rust", "sweep x"]
    said = page.evaluate("(names) => import('./page/work.js').then(({ nameOf }) => names.map(nameOf))", names)
    assert said == ["효과 검증 my screw: 특징 계산", "샘플 생성 (nsa, 효과 검증용)", "학습 screw/rust", "sweep x"]
    units = ["defect types", "models", "%"]
    said = page.evaluate("(units) => import('./page/work.js').then(({ unitOf }) => units.map(unitOf))", units)
    assert said == ["유형", "개", "%"]
