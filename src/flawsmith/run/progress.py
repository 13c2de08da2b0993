"""Progress of long work: a bar with rate and time left on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from flawsmith.types import Advance

_SHOWN: ContextVar[bool] = ContextVar("shown", default=False)
"""Whether a bar is on the screen."""


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
    mark = _SHOWN.set(True)
    try:
        with _shown(what, total, unit, done) as advance:
            yield advance
    finally:
        _SHOWN.reset(mark)


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
    console = Console(stderr=True)
    begun, state = time.monotonic(), {"done": done, "told": time.monotonic()}

    def rate() -> str:
        return f"{(state['done'] - done) / max(time.monotonic() - begun, 1e-6):.2f} {unit}/s"

    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total, completed=done, rate="", note="")

            def advance(count: int = 1, note: str = "") -> None:
                state["done"] += count
                bar.update(task, advance=count, rate=rate(), note=note)

            yield advance
        return

    def tell(count: int = 1, note: str = "") -> None:
        state["done"] += count
        now = time.monotonic()
        if now - state["told"] > 15 or state["done"] >= total:
            state["told"] = now
            left = (total - state["done"]) * (now - begun) / max(state["done"] - done, 1)
            print(
                f"{what}: {state['done']:.0f}/{total} {rate()}, {left:.0f} s left {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    yield tell
