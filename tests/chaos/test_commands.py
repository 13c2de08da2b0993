"""The suite's own eyes: a traceback, a hang and a touched file are seen, or nothing else here says anything."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import commands
import pytest
from commands import Canary, Command, Conditions, Outcome, flawsmith


def test_what_is_wrong_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Outcome((), 0, "").wrong() == "" and Outcome((), 2, "flawsmith: no such run\n").wrong() == ""
    assert "without a sentence" in Outcome((), 2, "").wrong()
    assert "exit code -11" in Outcome((), -11, "").wrong()
    monkeypatch.setattr("flawsmith.cli.main", lambda: [][0])
    assert "a traceback" in flawsmith(tmp_path / "log", "list").wrong()
    monkeypatch.setattr("flawsmith.cli.main", lambda: signal.pause())
    monkeypatch.setattr(commands, "PATIENCE", 0.2)
    assert "hangs" in flawsmith(tmp_path / "log", "list").wrong()


def test_conditions_are_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        for number in range(9):
            (tmp_path / f"{number}.txt").write_text("x" * 100)

    monkeypatch.setattr("flawsmith.cli.main", main)
    struck = Conditions(at_event=4, signal=signal.SIGKILL, below=str(tmp_path))
    assert Command(["list"], tmp_path / "log", struck).end().code == -signal.SIGKILL
    assert (tmp_path / "2.txt").exists() and not (tmp_path / "3.txt").exists()
    assert "File too large" in flawsmith(tmp_path / "log", "list", file_size=50).text


def test_a_canary_sees_what_is_touched(tmp_path: Path) -> None:
    for name in ("kept", "changed", "gone", "older"):
        (tmp_path / name).write_text(name)
    canary = Canary(tmp_path, allowed=("run",))
    assert canary.touched() == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x").write_text("")
    assert canary.touched() == []
    (tmp_path / "changed").write_text("CHANGED")
    (tmp_path / "gone").unlink()
    os.utime(tmp_path / "older", (0, 0))
    (tmp_path / "new").symlink_to("kept")
    assert canary.touched() == ["changed", "gone", "new", "older"]
