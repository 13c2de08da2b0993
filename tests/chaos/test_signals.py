"""Signals at any moment of any stage: the same command goes on, and all that is made is that of an undisturbed run."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import STOPPED, Command, Conditions, Outcome, flawsmith
from results import differing, results
from runs import TABLE, made_run, words_of
from tally import TALLY, often

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
STOPPED_WORDS = "flawsmith: stopped; the same command goes on from here"
GROUPS = ("config.json", "data.json", "weights", "state", "manifest.json", "plan.jsonl", "samples", "controls", "gate",
          "scores.jsonl", "rounds.json", "metrics.json", "proof.json", "export", "report", "log.jsonl")  # fmt: skip
"""What a run writes, in about the order in which it does; a signal strikes at one of the files of one of these."""
STAGES = ("train", "generate", "screen", "measure", "prove", "export", "report")
TRAINED: dict[str, Any] = {
    "generator.name": "controlnet_inpaint", "backbone.dtype": "float32", "train.steps": 6, "train.views": 1,
    "train.batch": 2, "train.save_every": 2, "generate.steps": 2, "screen.enabled": False, "measure.enabled": False,
    "prove.enabled": False, "export.formats": ["mvtec"],
}  # fmt: skip
"""What makes a run learn a network."""


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody touched, and how to strike another of its sort."""

    folder: Path
    settings: list[str]
    events: Counter[str]
    """How often each of GROUPS is opened, renamed or removed."""
    seconds: dict[str, float]
    """How long each stage took."""


def undisturbed(run: Path, table: dict[str, Any]) -> Undisturbed:
    paths = [Path(line) for line in run.with_name("events").read_text().splitlines()]
    events = Counter(group for path in paths if (group := group_of(path, run)))
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    seconds = {stage: sum(row["seconds"] for row in rows if row["stage"] == stage) for stage in STAGES}
    return Undisturbed(run, words_of(table), events, seconds)


def group_of(path: Path, run: Path) -> str:
    """Return which of GROUPS a path belongs to; "" = none."""
    names = path.relative_to(run).parts if path.is_relative_to(run) else ()
    return next((group for group in GROUPS if names and names[0].lstrip(".").startswith(group)), "")


@pytest.fixture(scope="module")
def of_pixels(parts: Path, finished: Path) -> Undisturbed:
    return undisturbed(finished, {"data.root": parts.as_posix(), **TABLE})


@pytest.fixture(scope="module")
def trained(parts: Path, backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    table = {"data.root": parts.as_posix(), **TABLE, **TRAINED, "backbone.source": backbone_folder.as_posix()}
    return undisturbed(made_run(tmp_path_factory.mktemp("trained"), table), table)


def do(here: Path, settings: list[str], **conditions: Any) -> Outcome:
    (here / "run.toml").write_text("")
    return flawsmith(here / "log", "run", here / "run.toml", "--out", here / "run", *settings, **conditions)


def stage_at_work(run: Path) -> str:
    """Return the stage that is begun and not finished; "" = none."""
    try:
        stages = json.loads((run / "manifest.json").read_text())["stages"]
    except (OSError, ValueError):
        return ""
    return next((name for name, record in stages.items() if "finished" not in record), "")


def struck_at_a_file(here: Path, good: Undisturbed, dice: random.Random, sort: signal.Signals) -> Outcome:
    """Let a command be hit when it opens, renames or removes one of the run's files."""
    left = sorted(group for group in good.events if not (here / "run" / group).exists() or dice.random() < 0.2)
    group = dice.choice(left or sorted(good.events))
    number = dice.randint(1, good.events[group])
    # The temporary files beside it begin with a dot: half of the signals fall between writing and renaming.
    name = dice.choice(["", "."]) + group
    return do(here, good.settings, at_event=number, below=str(here / "run" / name), signal=sort)


def struck_at_a_time(here: Path, good: Undisturbed, dice: random.Random, sort: signal.Signals) -> Outcome:
    """Let a command be hit at any time of one of its stages, from outside."""
    (here / "run.toml").write_text("")
    words = ["run", here / "run.toml", "--out", here / "run", *good.settings]
    stage = dice.choice([name for name in STAGES if good.seconds[name]])
    pause = dice.random() * good.seconds[stage]
    command = Command(words, here / "log", Conditions())
    ended = command.wait(lambda: stage_at_work(here / "run") == stage)
    ended = ended or command.wait(after(pause))
    if ended is None:
        command.send(sort)
        # A signal that falls into a callback of C code may be swallowed; a user then presses again.
        while (ended := command.wait(after(20))) is None:
            command.send(sort)
    return ended


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def torn(run: Path, dice: random.Random) -> None:
    """Cut the last line of what is being appended to, as when the power fails."""
    if stage_at_work(run) == "generate" and (path := run / "samples.jsonl").is_file():
        raw = path.read_bytes()
        begin = raw.rfind(b"\n", 0, len(raw) - 1) + 1
        os.truncate(path, dice.randint(begin, len(raw)))


def hit(here: Path, good: Undisturbed, dice: random.Random) -> bool:
    """Strike a command once; return whether it was ended by that."""
    sort = dice.choice(SIGNALS)
    strike = dice.choice([struck_at_a_file, struck_at_a_file, struck_at_a_time])
    outcome = strike(here, good, dice, sort)
    assert outcome.wrong({0} | STOPPED[sort]) == "", (strike.__name__, sort.name)
    if outcome.code == 0:
        return False
    assert outcome.code < 0 or outcome.text.splitlines()[-1] == STOPPED_WORDS, outcome.text
    TALLY.signal(stage_at_work(here / "run") or "the start or between stages", sort.name)
    if sort == signal.SIGKILL and dice.random() < 0.3:
        torn(here / "run", dice)
    return True


def require_equal(here: Path, good: Undisturbed) -> None:
    """Let the run end, and compare all that it made."""
    outcome = do(here, good.settings)
    assert outcome.wrong({0}) == "" and outcome.code == 0
    assert differing(results(here / "run"), results(good.folder)) == []
    assert list((here / "run").rglob("*.part")) == []


def disturbed(home: Path, good: Undisturbed, wanted: int, seed: int) -> None:
    """Strike runs until so many signals ended a command; each run takes a few, and is then compared."""
    dice = random.Random(seed)
    hits = 0
    for number in itertools.count():
        here = home / str(number)
        here.mkdir()
        for _ in range(min(dice.randint(2, 8), wanted - hits)):
            hits += hit(here, good, dice)
        require_equal(here, good)
        if hits >= wanted:
            return


@pytest.mark.parametrize("seed", range(often(1, 8)))
def test_every_stage(seed: int, home: Path, of_pixels: Undisturbed) -> None:
    disturbed(home, of_pixels, often(6, 20), seed)


@pytest.mark.parametrize("seed", range(often(1, 3)))
def test_training(seed: int, home: Path, trained: Undisturbed) -> None:
    disturbed(home, trained, often(4, 16), seed)
