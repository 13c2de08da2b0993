"""Clocks that jump, and runs that are renamed, moved or copied between stages: the results stay as they are."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Outcome, flawsmith
from results import differing, results
from runs import TABLE, words_of
from tally import TALLY, often

YEAR = 365.25 * 86400
TIMES = (0.0, 1.0, 2e9, 2**31 + 5.0, 4e9, 1e10)
"""Seconds since 1970: at the beginning, in the future, and beyond the end of a 32-bit clock."""
STAGES = ("train", "generate", "screen", "measure", "prove", "export", "report")


def do(here: Path, words: list[str], run: Path, **conditions: Any) -> Outcome:
    (here / "run.toml").write_text("")
    return flawsmith(here / "log", "run", here / "run.toml", "--out", run, *words, **conditions)


def set_times(folder: Path, dice: random.Random) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and dice.random() < 0.5:
            when = dice.choice(TIMES)
            os.utime(path, (when, when))


@pytest.mark.parametrize("seed", range(often(1, 4)))
def test_clocks_that_jump(seed: int, home: Path, parts: Path, finished: Path) -> None:
    """Stages are done ten years ahead and ten years back, and between them files get times of any year."""
    dice = random.Random(seed)
    photographs = home / "photographs"
    shutil.copytree(parts, photographs)
    words = words_of({"data.root": photographs.as_posix(), **TABLE})
    for stage in dice.sample(STAGES, often(1, 4)):
        # a stage that comes too early says which is missing
        clock = dice.choice([-10, 10, 100]) * YEAR
        outcome = do(home, words, home / "run", clock=clock) if stage == "train" else do_stage(home, stage, clock)
        TALLY.tried("a clock that jumps", refused=outcome.code == 2)
        assert outcome.wrong((0, 2)) == ""
        set_times(home / "run", dice) if (home / "run").exists() else None
        set_times(photographs, dice)
    assert do(home, words, home / "run", clock=-20 * YEAR).code == 0
    made = results(home / "run", photographs)
    wanted = results(finished, parts)
    assert differing(without_times(made), without_times(wanted)) == []


def do_stage(home: Path, stage: str, clock: float) -> Outcome:
    return flawsmith(home / "log", stage, home / "run", clock=clock)


def without_times(made: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out data.json, which keeps the times of the photographs' files."""
    return {name: raw for name, raw in made.items() if name != "data.json"}


def renamed(run: Path, dice: random.Random) -> Path:
    target = run.with_name(dice.choice(["renamed", "with a space", "찍힘", "a;b'c"]) + str(dice.randint(0, 9)))
    return run.rename(target)


def moved(run: Path, dice: random.Random) -> Path:
    target = run.parent / f"deeper{dice.randint(0, 9)}" / "still" / "run"
    target.parent.mkdir(parents=True, exist_ok=True)
    return run.rename(target)


def copied(run: Path, dice: random.Random) -> Path:
    """As a tool copies it that keeps no times; the first is gone."""
    target = run.with_name(f"copy{dice.randint(10, 99)}")
    shutil.copytree(run, target, copy_function=shutil.copy)
    folder = run.resolve()
    if run.is_symlink():
        run.unlink()
    shutil.rmtree(folder)
    return target


def linked(run: Path, dice: random.Random) -> Path:
    """Reached through a link from now on."""
    link = run.with_name(f"link{dice.randint(100, 999)}")
    link.symlink_to(run, target_is_directory=True)
    return link


@pytest.mark.parametrize("seed", range(often(1, 5)))
def test_runs_that_move(seed: int, home: Path, parts: Path, finished: Path) -> None:
    dice = random.Random(seed)
    words = words_of({"data.root": parts.as_posix(), **TABLE})
    run = home / "run"
    before: list[Path] = [run]
    stop_after = dice.choice(["samples", "gate", "proof.json", "export"])
    outcome = do(home, words, run, at_event=2, below=str(run / stop_after))
    assert outcome.wrong((0, -9)) == ""
    for _ in range(often(1, 3)):
        run = dice.choice([renamed, moved, copied, linked])(run, dice)
        before.append(run)
        outcome = flawsmith(home / "log", dice.choice(STAGES), run)
        TALLY.tried("a run that was renamed, moved or copied", refused=outcome.code == 2)
        assert outcome.wrong((0, 2)) == ""
    assert do(home, words, run).code == 0
    made = {name: raw for name, raw in results(run, *before[::-1]).items() if "report" not in name}
    wanted = {name: raw for name, raw in results(finished).items() if "report" not in name}  # it says the folder's name
    assert differing(made, wanted) == []


@pytest.mark.parametrize("seed", range(often(1, 2)))
def test_photographs_that_move(seed: int, home: Path, parts: Path, finished: Path) -> None:
    """The set is moved and told with --set data.root: nothing is made again, for what is in it is the same."""
    first, second = home / "photographs", home / "elsewhere" / "photographs"
    shutil.copytree(parts, first)
    assert do(home, words_of({"data.root": first.as_posix(), **TABLE}), home / "run").code == 0
    second.parent.mkdir()
    first.rename(second)
    for stage in random.Random(seed).sample(STAGES, 2):
        outcome = flawsmith(home / "log", stage, home / "run")
        TALLY.tried("photographs that were moved", refused=outcome.code == 2)
        assert outcome.wrong((0, 2)) == ""
    outcome = do(home, words_of({"data.root": second.as_posix(), **TABLE}), home / "run")
    assert outcome.code == 0, outcome.text
    samples = {name: raw for name, raw in results(home / "run").items() if name.startswith("samples/")}
    wanted = {name: raw for name, raw in results(finished).items() if name.startswith("samples/")}
    assert differing(samples, wanted) == []
