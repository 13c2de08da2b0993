"""The catalogue of words: nothing is missing in either language, and nothing is there that nobody says."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

from flawsmith import registry
from flawsmith.studio.server import PAGE

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
