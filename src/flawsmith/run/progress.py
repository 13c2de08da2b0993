"""Progress of long work: a bar with rate and time left on a terminal, a line at least every 15 seconds in a log.

Work that cannot be counted says how long it has taken. Whoever runs a command for another program (the studio) takes
the numbers instead, with `tell_to`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from flawsmith.korean import spoken
from flawsmith.types import Advance

_SHOWN: ContextVar[bool] = ContextVar("shown", default=False)
"""Whether counted work is shown: work inside it is not."""
_PURPOSE: ContextVar[str] = ContextVar("purpose", default="")
"""What the work is for, where that is not the work's own name."""
_OFTEN = 0.2
"""Seconds between two times that a listener is told, at least."""
_SILENCE = 15.0
"""Seconds after which a log or a listener is told, whatever was done."""
_SLOW = 0.1
"""Per second; what is slower is told by how long each takes."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is."""

    what: str
    """Short name of the work, such as "generate"."""
    done: float
    total: float
    """0 = it cannot be counted."""
    unit: str
    """What is counted, e.g. "samples"; "" = it cannot be counted."""
    rate: float
    """Of them per second. As soon as two were told: since the first, for that one took the time to set up too."""
    left: float | None
    """Seconds left at this rate; None = nobody can tell yet."""
    note: str = ""


Listener = Callable[[Progress], None]
_LISTENERS: list[Listener] = []
"""At most one; a thread that works for the command tells it too, so it is no ContextVar."""


def tell_to(listener: Listener) -> None:
    """Hand progress to a listener instead of showing it, for as long as this process lives.

    It is called when work begins and ends, and in between no oftener than five times a second and no more seldom than
    every 15 seconds; then from another thread.
    """
    _LISTENERS[:] = [listener]


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show progress on stderr; inside work that shows its own, nothing is shown.

    Args:
        what: Short name of the work.
        total: How many there are; of none, nothing is shown.
        unit: What is counted, e.g. "samples".
        done: How many were done before (a resumed run); they do not count for the rate.
    """
    if _SHOWN.get() or not total:
        yield lambda count=1, note="": None
        return
    mark = _SHOWN.set(True)
    try:
        with _instead_of_what_is_around(_Work(_named(what), total, unit, done)) as view:
            yield view.advance
    finally:
        _SHOWN.reset(mark)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say how long work takes that cannot be counted; counted work inside it is shown in its place."""
    if _SHOWN.get():
        yield
        return
    with _instead_of_what_is_around(_Work(_named(what), 0, "", 0)) as view:
        mark = _AROUND.set(view)
        try:
            yield
        finally:
            _AROUND.reset(mark)


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


def span(seconds: float) -> tuple[str, str]:
    """Return a time as a number and its unit: ("45", "s"), ("13", "min"), ("2.5", "h")."""
    if seconds < 90:
        return f"{seconds:.0f}", "s"
    return (f"{seconds / 60:.0f}", "min") if seconds < 5400 else (f"{seconds / 3600:.1f}", "h")


def _named(what: str) -> str:
    return f"{what} ({purpose})" if (purpose := _PURPOSE.get()) else what


@dataclass(slots=True)
class _Work:
    """What is being done, and since when."""

    what: str
    total: float
    """0 = it cannot be counted."""
    unit: str
    before: float
    """Done when it began."""
    note: str = ""
    done: float = field(init=False)
    begun: float = field(init=False)
    first: tuple[float, float] | None = field(init=False, default=None)
    """When the first was done, and how many were then."""

    def __post_init__(self) -> None:
        self.done, self.begun = float(self.before), time.monotonic()

    def advance(self, count: float, note: str) -> None:
        self.done, self.note = self.done + count, note
        if self.first is None:
            self.first = time.monotonic(), self.done

    def now(self) -> Progress:
        """Return how far it is."""
        since, of_then = self.first if self.first and self.done > self.first[1] else (self.begun, self.before)
        rate = (self.done - of_then) / max(time.monotonic() - since, 1e-6)
        left = (self.total - self.done) / rate if rate > 0 else None
        return Progress(self.what, self.done, self.total, self.unit, rate, left, self.note)

    def lasted(self) -> tuple[str, str]:
        return span(time.monotonic() - self.begun)


class _View(Protocol):
    """Where work is shown; between `show` and `hide` it is on the screen."""

    def show(self) -> None: ...
    def hide(self) -> None: ...
    def advance(self, count: int = 1, note: str = "") -> None: ...


_AROUND: ContextVar[_View | None] = ContextVar("around", default=None)
"""The work that cannot be counted and is shown while nothing inside it is."""


@contextmanager
def _instead_of_what_is_around(work: _Work) -> Iterator[_View]:
    """Show work; what is around it is hidden meanwhile."""
    with ExitStack() as stack:
        if around := _AROUND.get():
            around.hide()
            stack.callback(around.show)
        view = _view_of(work)
        view.show()
        stack.callback(view.hide)
        yield view


def _view_of(work: _Work) -> _View:
    if _LISTENERS:
        return _Told(work, _LISTENERS[0])
    console = Console(stderr=True)
    return _Bar(work, console) if console.is_terminal else _Log(work)


class _Bar:
    """A bar on a terminal, which moves by itself; of work that cannot be counted nothing stays there."""

    def __init__(self, work: _Work, console: Console) -> None:
        counted = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
        ahead = (TextColumn(spoken("time left")), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        columns = (*counted, *ahead) if work.total else (BarColumn(), TimeElapsedColumn())
        self._work = work
        self._bar = Bar(TextColumn("{task.description}"), *columns, console=console, transient=not work.total)
        total = work.total or None
        self._task = self._bar.add_task(
            _spoken_name(work.what), total=total, completed=int(work.done), rate="", note=""
        )

    def show(self) -> None:
        self._bar.start()

    def hide(self) -> None:
        self._bar.stop()

    def advance(self, count: int = 1, note: str = "") -> None:
        self._work.advance(count, note)
        self._bar.update(self._task, advance=count, rate=_rate(self._work.now()), note=spoken(note))


class _Beating:
    """Tells how far work is, every 15 seconds of silence; by a thread of its own while nothing advances."""

    _pause: float
    """Seconds after which it tells of what advances."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._told = time.monotonic()
        self._telling = threading.RLock()
        self._over = threading.Event()

    def tell(self) -> None:
        raise NotImplementedError

    def show(self) -> None:
        self._told, self._over = time.monotonic(), threading.Event()
        threading.Thread(target=self._beat, args=(self._over,), name="progress", daemon=True).start()

    def hide(self) -> None:
        with self._telling:  # after this no beat speaks
            self._over.set()

    def advance(self, count: int = 1, note: str = "") -> None:
        with self._telling:
            self._work.advance(count, note)
            if time.monotonic() - self._told > self._pause or self._work.done >= self._work.total:
                self._tell_now()

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(max(self._told + _SILENCE - time.monotonic(), 0.1)):
            with self._telling:
                if time.monotonic() - self._told >= _SILENCE and not over.is_set():
                    self._tell_now()

    def _tell_now(self) -> None:
        with self._telling:
            self._told = time.monotonic()
            self.tell()


class _Log(_Beating):
    """A line in a log at least every 15 seconds, and one at the end of counted work."""

    _pause = _SILENCE

    def tell(self) -> None:
        now, name = self._work.now(), _spoken_name(self._work.what)
        digits, word = self._work.lasted()
        if now.done == self._work.before:
            counted = f" {now.done:.0f}/{now.total:.0f}," if now.total else ""
            line = f"{name}:{counted} {spoken(f'{digits} {word} so far')}"
        elif now.done >= now.total or now.left is None:
            line = f"{name}: {now.done:.0f}/{now.total:.0f} {_rate(now)}, {spoken(f'{digits} {word} in all')}"
        else:
            digits, word = span(now.left)
            line = f"{name}: {now.done:.0f}/{now.total:.0f} {_rate(now)}, {spoken(f'{digits} {word} left')}"
        print(f"{line} {spoken(now.note)}".rstrip(), file=sys.stderr, flush=True)


class _Told(_Beating):
    """A listener: told at the beginning, seldom in between, and at the end."""

    _pause = _OFTEN

    def __init__(self, work: _Work, listener: Listener) -> None:
        super().__init__(work)
        self._listener = listener

    def show(self) -> None:
        super().show()
        self._tell_now()

    def hide(self) -> None:
        super().hide()
        if self._work.total:
            self._tell_now()

    def tell(self) -> None:
        self._listener(self._work.now())


def _rate(now: Progress) -> str:
    """Return how fast work is: "2.50 samples/s", or how long each takes where that is more than ten seconds."""
    if 0 < now.rate < _SLOW:
        digits, word = span(1 / now.rate)
        return spoken(f"{digits} {word} each")
    return spoken(f"{now.rate:.2f} {now.unit}/s")


def _spoken_name(what: str) -> str:
    """Return a work's name in the language that is asked for: what is done is its first word, the rest says to what."""
    verb, _, rest = what.partition(" ")
    return f"{spoken(verb)} {spoken(rest) if ' ' in rest else rest}".rstrip()
