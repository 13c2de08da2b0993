"""The command line's Korean: nothing is missing, nothing is stale, and what is typed stays as it is typed."""

from __future__ import annotations

import json
import re
import sys

import pytest
import typer

from flawsmith import cli
from flawsmith.cli.korean import CATALOGUE, HELP_OF_HELP, PANELS, holders, translate

KOREAN: dict[str, str] = json.loads(CATALOGUE.read_text(encoding="utf-8"))


def command() -> typer.core.TyperGroup:
    return typer.main.get_command(cli.app)  # type: ignore[return-value]


def said() -> set[str]:
    """Return every English text of the help, Typer's own among them."""
    return {holder.help for holder in holders(command()) if getattr(holder, "help", None)} | {
        HELP_OF_HELP,
        *PANELS.values(),
    }


def test_nothing_is_missing() -> None:
    missing = sorted(said() - set(KOREAN))
    assert not missing, f"put the Korean of these into {CATALOGUE.name}: {missing}"


def test_nothing_is_there_twice() -> None:
    keys = re.findall(r'^"(.+?)": "', CATALOGUE.read_text(encoding="utf-8"), re.M)
    assert len(keys) == len(set(keys)) == len(KOREAN)


def test_nothing_is_stale() -> None:
    stale = sorted(set(KOREAN) - said())
    assert not stale, f"nobody says these any more; take them out of {CATALOGUE.name}: {stale}"


@pytest.mark.parametrize("english", sorted(KOREAN))
def test_what_is_typed_is_the_same_in_both(english: str) -> None:
    korean = re.sub(r"\d+분의 \d+", "", KOREAN[english])  # a quarter
    assert re.search("[가-힣]", korean), f"no Korean in {korean!r}"
    typed = r"--\w+|`[^`]+`|\w+\.(?:jsonl?|html|md|toml|png)|\b[A-Z]{3,}\b(?=/)|flawsmith\[\w+\]|\{\}|\d+(?:[./]\d+)?"
    assert sorted(set(re.findall(typed, english, re.ASCII))) == sorted(set(re.findall(typed, korean, re.ASCII))), korean


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    monkeypatch.setattr(sys, "argv", ["flawsmith", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code or 0) == code
    out, err = capsys.readouterr()
    return out + err


@pytest.mark.parametrize("verb", [[], ["run"], ["studio"]])
def test_the_help_is_korean_where_it_is_asked_for(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer import rich_utils

    for name in PANELS:  # put back what `translate` sets in this process
        monkeypatch.setattr(rich_utils, name, getattr(rich_utils, name))
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("FLAWSMITH_LANG", "ko_KR.UTF-8")
    korean = shown(monkeypatch, capsys, *verb, "--help")
    for english in said():
        assert english not in korean or english in ("Arguments", "Options", "Commands"), english
    assert KOREAN[HELP_OF_HELP] in korean and KOREAN["Options"] in korean
    monkeypatch.undo()
    monkeypatch.setenv("COLUMNS", "400")
    assert not re.search("[가-힣]", shown(monkeypatch, capsys, *verb, "--help"))


def test_another_language_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLAWSMITH_LANG", "de")
    assert shown(monkeypatch, capsys, "list", code=2) == (
        "flawsmith: FLAWSMITH_LANG=de: the help is there in en (English) and ko (Korean)\n"
    )


def test_what_has_no_korean_stays_english(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer import rich_utils

    for name in PANELS:
        monkeypatch.setattr(rich_utils, name, getattr(rich_utils, name))
    group = command()
    group.params[0].help = "An option of tomorrow."  # type: ignore[attr-defined]
    translate(group)
    assert group.params[0].help == "An option of tomorrow."  # type: ignore[attr-defined]
