"""flawsmith's commands as processes of their own, and what each must keep to: a sentence, an end, and its own folder.

A command is a fork of the test's process, which has imported torch already: it dies by signals and meets the disk's
limits as any process does, but need not spend seconds on imports in which there is nothing to interrupt.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import resource
import signal
import stat
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 240.0
"""Seconds of wall time after which a command hangs; the slowest takes five on an idle core."""
STOPPED = {signal.SIGKILL: {-9}, signal.SIGTERM: {-15, 143}, signal.SIGINT: {130}}
"""Signal -> exit codes of a command that it ends; a command may also end by itself before."""
SIGNS = ("Traceback (most recent call last)", "Fatal Python error", "Segmentation fault", "core dumped")
"""What no user may ever see."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    words: tuple[str, ...]
    code: int
    """The exit code; negative: the signal that ended it."""
    text: str
    """All that it printed."""
    hung: bool = False
    """It did not end in PATIENCE and was killed."""

    def wrong(self, codes: Collection[int] = (0, 1, 2)) -> str:
        """Return what is wrong with how it ended, for the message of a failed test; "" = nothing."""
        if self.hung:
            return f"{self.words}: hangs\n{self.text[-2000:]}"
        if any(sign in self.text for sign in SIGNS):
            return f"{self.words}: a traceback\n{self.text[-3000:]}"
        if self.code not in codes:
            return f"{self.words}: exit code {self.code}\n{self.text[-2000:]}"
        if self.code == 2 and "flawsmith: " not in self.text and "Usage: " not in self.text:
            return f"{self.words}: exit code 2 without a sentence\n{self.text[-2000:]}"
        return ""


@dataclass
class Conditions:
    """What a command meets."""

    at_event: int = 0
    """It gets `signal` when it opens, renames or removes the n-th time something whose path begins with `below`."""
    signal: signal.Signals = signal.SIGKILL
    below: str = ""
    events: Path | None = None
    """Where the paths that are opened, renamed or removed below `below` are written, a line each."""
    file_size: int = 0
    """Bytes that a file may have, as on a full disk; 0 = any."""
    user: int = 0
    """Whom it runs as where the test runs as root, whom no rights stop."""
    clock: float = 0.0
    """Seconds that its clock is ahead."""
    folder: Path | None = None
    """Its working directory."""


class Command:
    """A running command.

    Args:
        words: As in the shell, without `flawsmith`.
        log: Where its output goes.
        conditions: What it meets.
    """

    def __init__(self, words: Sequence[str | Path], log: Path, conditions: Conditions | None = None) -> None:
        self.words = tuple(str(word) for word in words)
        self._log = log
        self._begun = time.monotonic()
        conditions = conditions or Conditions()
        sys.stdout.flush()
        sys.stderr.flush()
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12 warns of a fork beside threads
            self.process = os.fork()
        if self.process == 0:
            _become(self.words, target, conditions)
        os.close(target)

    def wait(self, until: Callable[[], bool] = lambda: False) -> Outcome | None:
        """Return how it ended; None as soon as `until` is true."""
        hung = False
        while True:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                text = self._log.read_bytes().decode("utf-8", "replace")
                return Outcome(self.words, os.waitstatus_to_exitcode(status), text, hung)
            if until():
                return None
            if time.monotonic() - self._begun > PATIENCE:
                hung = True
                self.send(signal.SIGKILL)
            time.sleep(0.001)

    def send(self, sort: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, sort)

    def end(self) -> Outcome:
        """Wait for its end."""
        outcome = self.wait()
        assert outcome is not None
        return outcome


def flawsmith(log: Path, *words: str | Path, **conditions: Any) -> Outcome:
    """Do a command and return how it ended."""
    return Command(words, log, Conditions(**conditions)).end()


def _become(words: Sequence[str], target: int, conditions: Conditions) -> None:
    """Be the command, from the fork to the end of the process."""
    code = 1
    try:
        for descriptor in (1, 2):
            os.dup2(target, descriptor)
        sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w"), "utf-8", "backslashreplace", write_through=True)
                                  for n in (1, 2))  # fmt: skip
        # Whatever started the tests may ignore Ctrl-C; what is tested here is a command in the foreground.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        warnings.resetwarnings()
        _meet(conditions)
        from flawsmith import cli

        sys.argv = ["flawsmith", *words]
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _meet(conditions: Conditions) -> None:
    if conditions.file_size:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does at its start: writing then fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (conditions.file_size, resource.RLIM_INFINITY))
    if conditions.folder is not None:
        os.chdir(conditions.folder)
    if conditions.clock:
        clock, ahead = time.time, conditions.clock
        time.time = lambda: clock() + ahead
    if conditions.at_event or conditions.events:
        _strike(conditions)
    if conditions.user and os.getuid() == 0:
        os.setgroups([])
        os.setgid(conditions.user)
        os.setuid(conditions.user)


def _strike(conditions: Conditions) -> None:
    """Let this process be hit by the signal when it is about to touch the n-th file."""
    left = conditions.at_event
    record = None if conditions.events is None else open(conditions.events, "w")

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(arguments[0]).startswith(conditions.below):
            left -= 1
            if record is not None:
                print(arguments[0], file=record, flush=True)
            if left == 0:
                os.kill(os.getpid(), conditions.signal)

    sys.addaudithook(watch)


@dataclass
class Canary:
    """A tree that no command may touch: contents, names, times and rights."""

    folder: Path
    """What is watched, with the exceptions below."""
    allowed: tuple[str, ...] = ()
    """Names in the folder itself in which commands may work: the runs, their logs, the configuration."""
    before: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = self.state()

    def state(self) -> dict[str, tuple[int, int, str]]:
        """Return (rights, time of the last change, hash of the content) of everything, by its path."""
        return {name: self._state(path) for name, path in self._paths()}

    def touched(self) -> list[str]:
        """Return what was changed, deleted or added."""
        after = self.state()
        return sorted(name for name in self.before.keys() | after.keys() if self.before.get(name) != after.get(name))

    def _paths(self) -> Iterator[tuple[str, Path]]:
        for top in sorted(self.folder.iterdir()):
            if top.name in self.allowed:
                continue
            for path in [top, *(sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else [])]:
                yield os.fsencode(path.relative_to(self.folder)).decode("utf-8", "backslashreplace"), path

    @staticmethod
    def _state(path: Path) -> tuple[int, int, str]:
        facts = path.lstat()
        regular = stat.S_ISREG(facts.st_mode)
        content = hashlib.sha256(path.read_bytes()).hexdigest() if regular else ""
        return facts.st_mode, facts.st_mtime_ns if regular else 0, content
