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
GROUPS = {
    "config.json": 0, "data.json": 0, "weights": 0, "state": 0, "manifest.json": 0, "log.jsonl": 0, "plan.jsonl": 1,
    "samples": 1, "controls": 1, "gate": 2, "scores.jsonl": 2, "rounds.json": 2, "metrics.json": 3, "proof.json": 4,
    "export": 5, "report": 6,
}  # fmt: skip
"""What a run writes, and the number of the stage that does it first; a signal strikes at a file of one of these."""
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
    """How often each of GROUPS is opened, renamed or removed, and with a dot before it its temporary file."""
    seconds: dict[str, float]
    """How long each stage took."""


def undisturbed(run: Path, table: dict[str, Any]) -> Undisturbed:
    paths = run.with_name("events").read_text().splitlines()
    names = [dot + group for group in GROUPS for dot in ("", ".")]
    events = Counter({name: sum(path.startswith(str(run / name)) for path in paths) for name in names})
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    seconds = {stage: sum(row["seconds"] for row in rows if row["stage"] == stage) for stage in STAGES}
    return Undisturbed(run, words_of(table), events, seconds)


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


@dataclass(frozen=True)
class Strike:
    """Where a command is hit."""

    stage: int
    """The number of the stage in which that is likely."""
    below: str = ""
    """When it opens, renames or removes a file whose path in the run begins so; "" = at any time of the stage."""


def strikes(good: Undisturbed, dice: random.Random, count: int) -> list[Strike]:
    """Return strikes in the order in which a run gets to them."""
    at_files = [Strike(GROUPS[name.lstrip(".")], name) for name, number in good.events.items() if number]
    at_times = [Strike(number) for number, stage in enumerate(STAGES) if good.seconds[stage]]
    return sorted(
        (dice.choice(dice.choice([at_files, at_files, at_times])) for _ in range(count)), key=lambda one: one.stage
    )


def struck_at_a_file(here: Path, good: Undisturbed, dice: random.Random, at: Strike, sort: signal.Signals) -> Outcome:
    """Let a command be hit when it opens, renames or removes one of the run's files."""
    number = dice.randint(1, max(1, good.events[at.below] // 2))  # what is done already is not done again
    return do(here, good.settings, at_event=number, below=str(here / "run" / at.below), signal=sort)


def struck_at_a_time(here: Path, good: Undisturbed, dice: random.Random, at: Strike, sort: signal.Signals) -> Outcome:
    """Let a command be hit at any time of one of its stages, from outside."""
    (here / "run.toml").write_text("")
    words = ["run", here / "run.toml", "--out", here / "run", *good.settings]
    stage = STAGES[at.stage]
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


def hit(here: Path, good: Undisturbed, dice: random.Random, at: Strike) -> bool:
    """Strike a command once; return whether it was ended by that."""
    sort = dice.choice(SIGNALS)
    strike = struck_at_a_file if at.below else struck_at_a_time
    outcome = strike(here, good, dice, at, sort)
    assert outcome.wrong({0} | STOPPED[sort]) == "", (at, sort.name)
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
        for at in strikes(good, dice, min(dice.randint(3, 8), wanted - hits)):
            hits += (ended := hit(here, good, dice, at))
            if not ended:  # it came to its end
                break
        require_equal(here, good)
        if hits >= wanted:
            return


@pytest.mark.parametrize("seed", range(often(1, 8)))
def test_every_stage(seed: int, home: Path, of_pixels: Undisturbed) -> None:
    disturbed(home, of_pixels, often(6, 20), seed)


@pytest.mark.parametrize("seed", range(often(1, 3)))
def test_training(seed: int, home: Path, trained: Undisturbed) -> None:
    disturbed(home, trained, often(4, 16), seed)
