"""Two processes at once on one run: both end well, or one says who is at it; what is made is that of one alone."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest
from commands import Command, Conditions
from results import differing, results
from runs import TABLE, words_of
from tally import FULL, TALLY, often

STAGES = ("train", "generate", "screen", "measure", "prove", "export", "report")
BUSY = "another process is at"
UNDONE = {
    "train": ("weights",),
    "generate": ("plan.jsonl", "samples", "samples.jsonl", "controls", "controls.jsonl", "state"),
    "screen": ("gate", "scores.jsonl", "rounds.json"),
    "measure": ("metrics.json",),
    "prove": ("proof.json", "state/prove"),
    "export": ("export", "state/export.json"),
    "report": ("report", "report.md", "report.html"),
}
"""Stage -> what goes so that it has to be done again."""
PAIRS = [("run", "run"), ("export", "export"), ("report", "report"), ("run", "export"), ("run", "report"),
         ("generate", "generate"), ("screen", "screen"), ("prove", "prove"), ("measure", "prove"), ("train", "run"),
         ("shard", "shard"), ("export", "report"), ("prove", "run"), ("screen", "run")]  # fmt: skip


def undo(run: Path, first: str) -> None:
    """Take a finished run back to where a stage is next."""
    manifest = json.loads((run / "manifest.json").read_text())
    for stage in STAGES[STAGES.index(first) :]:
        manifest["stages"].pop(stage, None)
        for name in UNDONE[stage]:
            path = run / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("pair", PAIRS if FULL else PAIRS[:2], ids="+".join)
@pytest.mark.parametrize("seed", range(often(1, 2)))
def test_two_at_once(pair: tuple[str, str], seed: int, home: Path, run: Path, parts: Path, finished: Path) -> None:
    dice = random.Random(f"{pair}{seed}")
    every = ["run", home / "run.toml", "--out", run, *words_of({"data.root": parts.as_posix(), **TABLE})]
    (home / "run.toml").write_text("")
    named = [stage for stage in STAGES if stage in pair]
    undo(run, named[0] if named else "generate" if "shard" in pair else dice.choice(STAGES))
    commands = []
    for number, stage in enumerate(pair):
        words = every if stage == "run" else [stage, run]
        if stage == "shard":
            words = ["generate", run, "--shard", f"{number}/2"]
        commands.append(Command(words, home / f"log{number}", Conditions()))
        time.sleep(dice.choice([0, 0, 0.02, 0.2]))
    for command in commands:
        outcome = command.end()
        TALLY.tried("two writers at once", refused=outcome.code == 2)
        assert outcome.wrong((0, 2)) == ""
    last = Command(every, home / "log", Conditions()).end()
    assert last.code == 0, last.text
    made = results(run, finished)
    if "shard" in pair:  # the lines of each shard are in a file of its own
        made = {name: raw for name, raw in made.items() if ".jsonl" not in name}
    wanted = {name: raw for name, raw in results(finished).items() if name in made or "shard" not in pair}
    assert differing(made, wanted) == []
