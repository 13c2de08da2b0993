"""Progress of long work: a bar with rate and time left on a terminal, a line now and then in a log.

Whoever runs a command for another program (the studio) takes the numbers instead, with `tell_to`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from flawsmith.korean import spoken
from flawsmith.types import Advance

_SHOWN: ContextVar[bool] = ContextVar("shown", default=False)
"""Whether a bar is on the screen."""
_PURPOSE: ContextVar[str] = ContextVar("purpose", default="")
"""What the work is for, where that is not the work's own name."""
_OFTEN = 0.2
"""Seconds between two times that a listener is told, at least."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is."""

    what: str
    """Short name of the work, such as "generate"."""
    done: float
    total: float
    unit: str
    """What is counted, e.g. "samples"."""
    rate: float
    """Of them per second, since this process began; those done before do not count."""
    left: float | None
    """Seconds left at this rate; None = nobody can tell yet."""
    note: str = ""


Listener = Callable[[Progress], None]
_LISTENERS: list[Listener] = []
"""At most one; a thread that works for the command tells it too, so it is no ContextVar."""


def tell_to(listener: Listener) -> None:
    """Hand progress to a listener instead of showing it, for as long as this process lives.

    It is called when work begins and ends, and in between no oftener than five times a second.
    """
    _LISTENERS[:] = [listener]


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show progress on stderr; inside work that shows its own, nothing is shown.

    Args:
        what: Short name of the work.
        total: How many there are.
        unit: What is counted, e.g. "samples".
        done: How many were done before (a resumed run); they do not count for the rate.
    """
    if _SHOWN.get():
        yield lambda count=1, note="": None
        return
    if purpose := _PURPOSE.get():
        what = f"{what} ({purpose})"
    mark = _SHOWN.set(True)
    try:
        with _shown(what, total, unit, done) as advance:
            yield advance
    finally:
        _SHOWN.reset(mark)


@contextmanager
def work_for(purpose: str) -> Iterator[None]:
    """Say beside the name of all work that is shown in the block what it is for: "plan (nsa, for the proof)"."""
    mark = _PURPOSE.set(purpose)
    try:
        yield
    finally:
        _PURPOSE.reset(mark)


@contextmanager
def unshown() -> Iterator[None]:
    """Show no progress while the block runs: another process shows the same."""
    mark = _SHOWN.set(True)
    try:
        yield
    finally:
        _SHOWN.reset(mark)


@contextmanager
def _shown(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    if _LISTENERS:
        with _told(_LISTENERS[0], what, total, unit, done) as advance:
            yield advance
        return
    console, name = Console(stderr=True), _spoken_name(what)
    per_second = spoken(f"{0:.2f} {unit}/s")  # once: a rate is said at every step
    begun, state = time.monotonic(), {"done": done, "told": time.monotonic()}

    def rate() -> str:
        return per_second.replace("0.00", f"{(state['done'] - done) / max(time.monotonic() - begun, 1e-6):.2f}")

    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn(spoken("time left")),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bar(*columns, console=console) as bar:
            task = bar.add_task(name, total=total, completed=done, rate="", note="")

            def advance(count: int = 1, note: str = "") -> None:
                state["done"] += count
                bar.update(task, advance=count, rate=rate(), note=spoken(note))

            yield advance
        return

    def tell(count: int = 1, note: str = "") -> None:
        state["done"] += count
        now = time.monotonic()
        if now - state["told"] > 15 or state["done"] >= total:
            state["told"] = now
            left = (total - state["done"]) * (now - begun) / max(state["done"] - done, 1)
            ahead = spoken(f"{left:.0f} s left")
            print(
                f"{name}: {state['done']:.0f}/{total} {rate()}, {ahead} {spoken(note)}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    yield tell


def _spoken_name(what: str) -> str:
    """Return a work's name in the language that is asked for: what is done is its first word, the rest says to what."""
    verb, _, rest = what.partition(" ")
    return f"{spoken(verb)} {spoken(rest) if ' ' in rest else rest}".rstrip()


@contextmanager
def _told(listener: Listener, what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    begun, state = time.monotonic(), {"done": float(done), "told": 0.0}

    def tell(note: str = "") -> None:
        now = time.monotonic()
        state["told"] = now
        rate = (state["done"] - done) / max(now - begun, 1e-6)
        left = (total - state["done"]) / rate if rate > 0 else None
        listener(Progress(what, state["done"], total, unit, rate, left, note))

    def advance(count: int = 1, note: str = "") -> None:
        state["done"] += count
        if time.monotonic() - state["told"] > _OFTEN or state["done"] >= total:
            tell(note)

    tell()
    yield advance
    tell()
