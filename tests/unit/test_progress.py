"""Progress that another program takes: begun, how far, and over; seldom enough, and nothing on the screen."""

from __future__ import annotations

import pytest

from flawsmith.run import progress as module
from flawsmith.run.progress import Progress, progress, tell_to, work_for


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
    assert heard[2].rate == pytest.approx(2 / 1.0) and heard[2].left == pytest.approx(4 / 2.0)
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
        "generate (nsa, for the proof): 1/1 0.50 samples/s, 0 s left",
    ]
    monkeypatch.setenv("FLAWSMITH_LANG", "ko")
    assert lines() == [
        "학습 tile-crack: 2/4 초당 0.10 단계, 20초 남음 손실 0.1250",
        "생성 (nsa, 효과 검증용): 1/1 초당 0.50 샘플, 0초 남음",
    ]
