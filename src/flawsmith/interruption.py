"""Stopped from outside: by Ctrl-C, or by whoever ends processes (kill, a scheduler, a container that shuts down)."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from flawsmith.korean import spoken

_TERMINATED = threading.Event()
"""The interruption that is under way came from SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM interrupt the block as Ctrl-C does, so that what is half-written is cleared away."""
    if threading.current_thread() is not threading.main_thread():  # only there may it be asked for
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stopped() -> NoReturn:
    """Say how to go on, and end the process with the code that a shell expects: 128 + the signal's number."""
    print(f"flawsmith: {spoken('stopped; the same command goes on from here')}", file=sys.stderr)
    sys.exit(128 + (signal.SIGTERM if _TERMINATED.is_set() else signal.SIGINT))


def _interrupt(number: int, frame: FrameType | None) -> None:
    _TERMINATED.set()
    raise KeyboardInterrupt
