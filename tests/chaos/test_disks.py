"""Full disks and folders that may only be read: one sentence, nothing lost, and the same command goes on."""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Outcome, flawsmith
from results import differing, results
from runs import TABLE, words_of
from tally import FULL, TALLY, often

ROOM = 64 << 20
"""Bytes of the disk that is large enough."""
BLOCK = 4096


def do(here: Path, parts: Path, **conditions: Any) -> Outcome:
    (here / "run.toml").write_text("")
    words = words_of({"data.root": parts.as_posix(), **TABLE})
    return flawsmith(here / "log", "run", here / "run.toml", "--out", here / "disk" / "run", *words, **conditions)


def mount(*words: str | Path) -> bool:
    return subprocess.run(["mount", *map(str, words)], stderr=subprocess.DEVNULL).returncode == 0


def may_mount(folder: Path) -> bool:
    """Return whether this user may mount a small disk of its own."""
    try:
        folder.mkdir()
        done = mount("-t", "tmpfs", "-o", f"size={BLOCK}", "none", folder)
    except FileNotFoundError:
        return False
    if done:
        subprocess.run(["umount", str(folder)], check=True)
    return done


@pytest.fixture
def disk(home: Path) -> Iterator[Path]:
    """A disk of its own, below home."""
    if not may_mount(home / "try"):
        pytest.skip("a disk of its own can be mounted by root alone; files of limited size are tried all the same")
    (home / "disk").mkdir()
    assert mount("-t", "tmpfs", "-o", f"size={ROOM}", "none", home / "disk")
    yield home / "disk"
    subprocess.run(["umount", "--lazy", str(home / "disk")], check=True)


def require_sentence(outcome: Outcome, *words: str) -> None:
    assert outcome.wrong({0, 2}) == ""
    if outcome.code:
        last = outcome.text.rstrip().splitlines()[-1]
        assert last.startswith("flawsmith: ") and any(word in last for word in words), outcome.text


@pytest.mark.parametrize("seed", range(often(1, 4)))
def test_files_that_may_not_grow(seed: int, home: Path, parts: Path, finished: Path) -> None:
    """RLIMIT_FSIZE, which needs no rights: every file beyond a size is refused in the middle of its writing.

    The log of a command is such a file too, and needs its 4 kB.
    """
    dice = random.Random(seed)
    for _ in range(often(2, 6)):
        outcome = do(home, parts, file_size=int(2 ** dice.uniform(12, 18)))
        TALLY.tried("a file that may not grow", refused=outcome.code == 2)
        require_sentence(outcome, "cannot be written", "cannot be used", "too large")
        assert not list((home / "disk").rglob("*.part"))
    assert do(home, parts).code == 0
    assert differing(results(home / "disk" / "run"), results(finished)) == []


@pytest.mark.parametrize("seed", range(often(1, 4)))
def test_a_full_disk(seed: int, home: Path, disk: Path, parts: Path, finished: Path) -> None:
    """The disk is full at some moment, gets a little room, is full again, and is large enough in the end."""
    dice = random.Random(seed)
    used = 0
    for _ in range(often(2, 6)):
        used += dice.randint(1, 60)
        assert mount("-o", f"remount,size={used * BLOCK}", disk)
        outcome = do(home, parts)
        TALLY.tried("a full disk", refused=outcome.code == 2)
        require_sentence(outcome, "the disk is full", f"({errno.ENOSPC}", "No space left")
        assert not list(disk.rglob("*.part"))
    assert mount("-o", f"remount,size={ROOM}", disk)
    assert do(home, parts).code == 0
    assert differing(results(disk / "run"), results(finished)) == []


COMMANDS = ("run", "train", "generate", "screen", "measure", "prove", "export", "report")
PLACES = ("", "samples", "state", "export", "gate", "report")
"""What may only be read; "" = the whole run."""


@pytest.mark.parametrize("place", PLACES if FULL else PLACES[:2])
def test_a_folder_that_may_only_be_read(place: str, home: Path, disk: Path, parts: Path, finished: Path) -> None:
    """Whether a stage has nothing to do or much: it ends well, or says in a sentence what may not be written."""
    shutil.copytree(finished, disk / "run")
    wanted = results(disk / "run")
    folder = disk / "run" / place
    assert mount("--bind", folder, folder) and mount("-o", "remount,ro,bind", folder)
    try:
        for command in COMMANDS if FULL else COMMANDS[::3]:
            outcome = do(home, parts) if command == "run" else flawsmith(home / "log", command, disk / "run")
            TALLY.tried("a folder that may only be read", refused=outcome.code == 2)
            require_sentence(outcome, "may not be written", "cannot be used", "cannot be written", "may it be read")
        if place == "samples":  # and where all of it is to be made again, with another seed
            outcome = do_again(home, parts)
            require_sentence(outcome, "may not be written", "cannot be used", "cannot be written")
            assert outcome.code == 2
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    if place != "samples":
        assert differing(results(disk / "run"), wanted) == []


def do_again(here: Path, parts: Path) -> Outcome:
    words = words_of({"data.root": parts.as_posix(), **TABLE, "seed": 5})
    return flawsmith(here / "log", "run", here / "run.toml", "--out", here / "disk" / "run", *words)
