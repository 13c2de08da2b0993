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
