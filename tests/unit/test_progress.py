"""Progress that another program takes: begun, how far, and over; seldom enough, and nothing on the screen."""

from __future__ import annotations

import io
import time
from functools import partial

import pytest

from flawsmith.run import progress as module
from flawsmith.run.progress import Progress, progress, span, tell_to, work_for, working


def test_a_listener_is_told_instead_of_the_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[Progress] = []
    now = 100.0
    monkeypatch.setattr(module, "_LISTENERS", [])
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    tell_to(heard.append)
    with progress("generate", 10, "samples", done=4) as advance:
        for _ in range(3):
            now += 0.5
            advance(1)
            with progress("inner", 2, "steps") as inside:
                inside(2)
        now += 0.01
        advance(1)  # too soon after the last
        now += 0.49
        advance(2)
    assert {one.what for one in heard} == {"generate"}
    assert [one.done for one in heard] == [4, 5, 6, 7, 10, 10]
    assert heard[0].left is None and heard[0].rate == 0
    assert heard[2].rate == pytest.approx(1 / 0.5) and heard[2].left == pytest.approx(4 / 2.0)
    assert heard[-1].left == 0 and heard[-1].unit == "samples"
    assert capsys.readouterr() == ("", "")


def test_work_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with work_for("nsa, for the proof"), progress("plan", 1, "samples") as advance:
        advance(1)
    with progress("plan", 1, "samples") as advance:
        advance(1)
    names = [line.split(": ")[0] for line in capsys.readouterr().err.splitlines()]
    assert names == ["plan (nsa, for the proof)", "plan"]


def test_progress_is_korean_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)

    def lines() -> list[str]:
        nonlocal now
        with progress("train tile-crack", 4, "steps") as advance:
            now += 20.0
            advance(2, "loss 0.1250")
        with work_for("nsa, for the proof"), progress("generate", 1, "samples") as advance:
            now += 2.0
            advance(1)
        return capsys.readouterr().err.splitlines()

    assert lines() == [
        "train tile-crack: 2/4 0.10 steps/s, 20 s left loss 0.1250",
        "generate (nsa, for the proof): 1/1 0.50 samples/s, 2 s in all",
    ]
    monkeypatch.setenv("FLAWSMITH_LANG", "ko")
    assert lines() == [
        "학습 tile-crack: 2/4 초당 0.10 단계, 20초 남음 손실 0.1250",
        "생성 (nsa, 효과 검증용): 1/1 초당 0.50 샘플, 모두 2초",
    ]


def test_the_time_to_set_up_does_not_count_for_the_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with progress("prove tile", 4, "trainings") as advance:
        for seconds in (160.0, 60.0, 60.0, 60.0):
            now += seconds
            advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "prove tile: 1/4 3 min each, 8 min left",  # nobody can know yet how much of it was for setting up
        "prove tile: 2/4 60 s each, 2 min left",
        "prove tile: 3/4 60 s each, 60 s left",
        "prove tile: 4/4 60 s each, 6 min in all",
    ]


def test_silence_is_broken_while_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_SILENCE", 0.3)
    with working("measure"):
        time.sleep(0.5)
        with progress("prove tile", 2, "trainings") as advance:
            time.sleep(0.5)
            advance(2)
        with progress("plan", 0, "samples") as advance:  # nothing of it
            advance(0)
    time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("measure: ") and lines[0].endswith(" s so far")
    assert lines[1].startswith("prove tile: 0/2, ") and lines[1].endswith(" s so far")
    assert lines[-1].startswith("prove tile: 2/2 ") and lines[-1].endswith(" s in all")
    assert all(line.startswith("prove tile: 0/2") for line in lines[1:-1]), "what is around it is silent meanwhile"


def test_a_listener_hears_what_is_done_now(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Progress] = []
    monkeypatch.setattr(module, "_LISTENERS", [])
    monkeypatch.setattr(module, "_SILENCE", 0.3)
    tell_to(heard.append)
    with working("prove"):
        with progress("features", 1, "pictures") as advance:
            advance(1)
        time.sleep(0.5)
    assert [(one.what, one.total) for one in heard[:2]] == [("prove", 0), ("features", 1)]
    assert {(one.what, one.total, one.left) for one in heard[-2:]} == {("prove", 0, None)}


def test_a_terminal_shows_one_bar_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once are refused by rich; the outer one comes back, and nothing of it stays."""
    screen = io.StringIO()
    terminal = partial(module.Console, file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(module, "Console", lambda stderr: terminal())
    with working("prove"), working("generate"):
        with progress("plan", 2, "samples") as advance:
            advance(2)
        time.sleep(0.2)
    last = screen.getvalue().splitlines()
    assert any("plan" in line and "2/2" in line for line in last)
    assert "generate" in screen.getvalue() and "prove" not in last[-1]


@pytest.mark.parametrize(("seconds", "said"), [(89.4, ("89", "s")), (90, ("2", "min")), (5399, ("90", "min"))])
def test_times_are_told_in_the_unit_that_people_use(seconds: float, said: tuple[str, str]) -> None:
    assert span(seconds) == said
    assert span(9000) == ("2.5", "h")
