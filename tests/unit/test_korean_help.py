"""The command line's Korean: nothing is missing, nothing is stale, and what is typed stays as it is typed."""

from __future__ import annotations

import json
import re
import sys

import pytest
import typer

from flawsmith import cli
from flawsmith.cli.korean import CATALOGUE, HELP_OF_HELP, PANELS, USAGE, holders, translate

KOREAN: dict[str, str] = json.loads(CATALOGUE.read_text(encoding="utf-8"))


def command() -> typer.core.TyperGroup:
    return typer.main.get_command(cli.app)  # type: ignore[return-value]


def said() -> set[str]:
    """Return every English text of the help, Typer's own among them."""
    return {holder.help for holder in holders(command()) if getattr(holder, "help", None)} | {
        HELP_OF_HELP,
        USAGE,
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


def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what `translate` sets in this process put back after the test."""
    from typer import rich_utils

    for name in (*PANELS, "rich_format_error"):
        monkeypatch.setattr(rich_utils, name, getattr(rich_utils, name))


@pytest.mark.parametrize("verb", [[], ["run"], ["studio"]])
def test_the_help_is_korean_where_it_is_asked_for(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_back(monkeypatch)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("FLAWSMITH_LANG", "ko_KR.UTF-8")
    korean = shown(monkeypatch, capsys, *verb, "--help")
    for english in said():
        assert english not in korean or english in ("Arguments", "Options", "Commands"), english
    assert KOREAN[HELP_OF_HELP] in korean and KOREAN["Options"] in korean
    monkeypatch.undo()
    monkeypatch.setenv("COLUMNS", "400")
    assert not re.search("[가-힣]", shown(monkeypatch, capsys, *verb, "--help"))


@pytest.mark.parametrize(
    ("words", "korean"),
    [
        ("run", "'CONFIG|RUN' 인자가 빠졌습니다."),
        ("paint x", "'--photograph' 옵션이 빠졌습니다."),
        ("frob", "그런 명령은 없습니다: 'frob'"),
        ("lst", "그런 명령은 없습니다: 'lst' (비슷한 명령: 'list')"),
        ("list --frobnicate", "그런 옵션은 없습니다: --frobnicate"),
        ("list --jsn", "그런 옵션은 없습니다: --jsn (비슷한 옵션: --json)"),
        ("run x --out", "'--out' 옵션에는 값이 필요합니다."),
        ("list --json=3", "'--json' 옵션에는 값을 쓰지 않습니다."),
        ("report a b", "쓰지 않는 인자가 있습니다: b"),
        ("studio --port x", "정수"),
        ("deliver x --rate y", "수"),
        ("run x --until y", "'y'이(가) 아니라 'train', 'generate'"),
    ],
)
def test_an_error_of_typer_is_korean_where_it_is_asked_for(
    words: str, korean: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_back(monkeypatch)
    monkeypatch.setenv("COLUMNS", "400")
    english = re.compile(r"Error|Usage|Missing|Invalid|No such|Try '|Did you|unexpected|requires|does not|one of|valid")
    assert english.search(shown(monkeypatch, capsys, *words.split(), code=2))
    monkeypatch.setenv("FLAWSMITH_LANG", "ko")
    told = shown(monkeypatch, capsys, *words.split(), code=2)
    assert korean in told and not english.search(told)


def test_another_language_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLAWSMITH_LANG", "de")
    assert shown(monkeypatch, capsys, "list", code=2) == (
        "flawsmith: FLAWSMITH_LANG=de: the help is there in en (English) and ko (Korean)\n"
    )


def test_what_has_no_korean_stays_english(monkeypatch: pytest.MonkeyPatch) -> None:
    put_back(monkeypatch)
    group = command()
    group.params[0].help = "An option of tomorrow."  # type: ignore[attr-defined]
    translate(group)
    assert group.params[0].help == "An option of tomorrow."  # type: ignore[attr-defined]


def test_being_stopped_is_said_in_korean(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from flawsmith.interruption import stopped

    monkeypatch.setenv("FLAWSMITH_LANG", "ko")
    with pytest.raises(SystemExit, match="130"):
        stopped()
    assert capsys.readouterr().err == "flawsmith: 멈췄습니다. 같은 명령을 다시 실행하면 여기서부터 이어집니다\n"
