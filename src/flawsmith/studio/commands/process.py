"""The command that runs, as the page sees it: one at a time, each in a process of its own.

A command is one of the command line, word by word, so a run that was started here goes on there, and the other way
round. It ends as done, failed (with the sentence that the terminal would show), cancelled or lost. It is lost when its
process was killed; what is made stays, and the same command goes on from there.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Literal

from flawsmith.errors import FlawsmithError
from flawsmith.korean import VARIABLE
from flawsmith.studio.commands.child import GRACE
from flawsmith.studio.commands.doing import Doing, Purpose, Step, doing
from flawsmith.studio.workshop import how_it_ended

State = Literal["running", "done", "failed", "cancelled", "lost"]
_MOST_LINES = 200
_ERROR = "flawsmith: "
"""Before the sentence that a command ends with when it cannot go on."""


class Command:
    """A command while it runs and after.

    Args:
        number: Tells it from others.
        purpose: Which part of the page started it.
        words: After `flawsmith`.
        run: The run's folder.
        language: "ko" or "en": of what it says and of the reports that it writes; "" = as the studio was started.
    """

    def __init__(self, number: int, purpose: Purpose, words: Sequence[str], run: Path, language: str = "") -> None:
        self.number, self.purpose, self.words, self.run = number, purpose, list(words), run
        self.state: State = "running"
        self.problem = ""
        """Why it failed or was lost, in a sentence."""
        self.version = 0
        """Grows with everything that is told."""
        self._steps: dict[str, Step] = {}
        self._stage: Step | None = None
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._cancelled = False
        self._begun, self._ended = time.monotonic(), 0.0
        environment = {**os.environ, "PYTHONPATH": _path(), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        environment |= {VARIABLE: language} if language else {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flawsmith.studio.commands.child", *self.words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=os.name == "posix",  # Ctrl-C in the terminal stops the studio, which stops this
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        readers = [
            threading.Thread(target=self._hear, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True),
        ]
        self._thread = threading.Thread(target=self._follow, args=(readers,), daemon=True)
        for thread in (*readers, self._thread):
            thread.start()

    @property
    def process(self) -> int:
        """Return the process id."""
        return self._process.pid

    def cancel(self) -> None:
        """Stop it as Ctrl-C does, and kill it where it does not stop; what is made stays."""
        if self.state != "running" or self._cancelled:
            return
        self._cancelled = True
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        threading.Thread(target=self._kill_late, name="studio-cancel", daemon=True).start()

    def _kill_late(self) -> None:
        self._thread.join(timeout=2 * GRACE)
        if self._process.poll() is None:
            self._kill_rest()

    def close(self) -> None:
        """Stop it, and wait until it is over."""
        self.cancel()
        self._thread.join(timeout=GRACE)
        if self._thread.is_alive():
            self._kill_rest()
        self._thread.join(timeout=10)

    def _kill_rest(self) -> None:
        """Kill what is left of the process's group, its leader among it."""
        with suppress(OSError):  # nothing is left
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def to_json(self) -> dict[str, Any]:
        """Return what the page is told."""
        ended = self._ended or time.monotonic()
        return {
            "number": self.number,
            "purpose": self.purpose,
            "command": said(self.words),
            "run": str(self.run),
            "state": self.state,
            "stopping": self._cancelled and self.state == "running",
            "steps": [dict(step.told) for step in self._steps.values()],
            "doing": asdict(now) if (now := self.doing()) else None,
            "lines": list(self._lines)[-12:],
            "problem": self.problem,
            "seconds": round(ended - self._begun, 1),
        }

    def doing(self) -> Doing | None:
        """Return what it does at this moment; None = it is over."""
        if self.state != "running":
            return None
        return doing(self._steps, self._stage, self._begun)

    def done_of(self, what: str) -> int:
        """Return how much of a piece of work is done, such as "screen"; 0 = it is not begun."""
        step = self._steps.get(what)
        return int(step.told["done"]) if step else 0

    def _hear(self, stream: IO[bytes]) -> None:
        for line in stream:
            with suppress(ValueError, KeyError, TypeError):
                told = json.loads(line)
                counted, now = told["total"] > 0, time.monotonic()
                known = self._steps.get(told["what"]) if counted else self._stage
                step = known.after(told) if known else Step(told, now, now)
                if counted:
                    self._steps = {**self._steps, told["what"]: step}
                else:
                    self._stage = step
                self.version += 1

    def _read(self, stream: IO[bytes]) -> None:
        for raw in stream:
            if line := raw.decode("utf-8", "replace").rstrip():
                self._lines.append(line)
                self.version += 1

    def _follow(self, readers: Sequence[threading.Thread]) -> None:
        code = self._process.wait()
        self._kill_rest()  # processes that it started hold its pipes open, and would go on working for nobody
        for reader in readers:
            reader.join(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with suppress(OSError):  # its buffer may hold nothing that anyone could still read
                pipe.close()
        self._ended = time.monotonic()
        if code == 0:
            self.state = "done"
        elif self._cancelled:
            self.state = "cancelled"
        elif code < 0:
            self.problem = f"the process {how_it_ended(code)}; what is made stays, go on from there"
            self.state = "lost"
        else:
            self.problem = self._sentence() or f"the command {how_it_ended(code)}"
            self.state = "failed"
        self.version += 1

    def _sentence(self) -> str:
        """Return what a failed command said last: its error, which may have several lines."""
        lines = list(self._lines)
        starts = [place for place, line in enumerate(lines) if line.startswith(_ERROR)]
        if starts:
            return "\n".join(lines[starts[-1] :]).removeprefix(_ERROR)
        return lines[-1] if lines else ""


class Commands:
    """The commands of a studio: one runs at a time, and the last one is remembered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Command | None = None
        self._count = 0
        self._held = False

    @property
    def last(self) -> Command | None:
        """Return the command that runs or ran last; None = there was none yet."""
        return self._last

    @property
    def running(self) -> Command | None:
        """Return the command that runs."""
        return self._last if self._last and self._last.state == "running" else None

    def start(self, purpose: Purpose, words: Sequence[str], run: Path, language: str = "") -> Command:
        """Start a command; the arguments are those of `Command`.

        Raises:
            FlawsmithError: one is running, or none may start now.
        """
        with self._lock:
            if self.running:
                raise FlawsmithError(f"`{said(self.running.words)}` is still running; let it end, or cancel it")
            self._refuse_held()
            self._count += 1
            self._last = Command(self._count, purpose, words, run, language)
            return self._last

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no command start while the block opens another source.

        Raises:
            FlawsmithError: one is running, or another source is being opened already.
        """
        with self._lock:
            if running := self.running:
                raise FlawsmithError(f"{running.run}: something is being made there; let it end, or cancel it")
            self._refuse_held()
            self._held = True
        try:
            yield
        finally:
            self._held = False

    def _refuse_held(self) -> None:
        if self._held:
            raise FlawsmithError("a folder is just being opened; try again when it is there")

    def close(self) -> None:
        """Stop what runs."""
        if self._last:
            self._last.close()


def language_of(accepted: str) -> str:
    """Return "ko" or "en" as a page's Accept-Language begins, in which a command that it starts is to speak; "" = it
    names neither."""
    first = accepted.strip()[:2].lower()
    return first if first in ("en", "ko") else ""


def said(words: Sequence[str]) -> str:
    """Return a command as one types it into a shell."""
    return shlex.join(["flawsmith", *words])


def _path() -> str:
    """Return PYTHONPATH with this very package in front."""
    here = str(Path(__file__).parents[3])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH", ""))))
