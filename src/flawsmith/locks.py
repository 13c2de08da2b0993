"""One writer at a time: locks on files, which the system takes back when a process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flawsmith.errors import RunError

_POLL = 0.02
"""Seconds between two tries while a lock is waited for."""


class BusyError(RunError):
    """Another process holds a lock."""

    def __init__(self, sentence: str, lock: Path) -> None:
        super().__init__(sentence)
        self.lock = lock
        """The lock's file."""

    def __reduce__(self) -> tuple[type[BusyError], tuple[str, Path]]:
        """Return how another process gets it: a pool whose worker raises what cannot be read again is broken."""
        return BusyError, (str(self), self.lock)


@contextmanager
def locked(path: Path, busy: str = "", *, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock while the block runs; where files cannot be locked or made, nothing is held.

    Args:
        path: The lock's own file; it and its folder are made, and it stays.
        busy: What to say when another process holds it; "" = wait until that is done.
        patience: How many seconds to wait before saying so.

    Raises:
        BusyError: another process holds it.
    """
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, timeout=patience if busy else -1, poll_interval=_POLL)
            held.enter_context(lock)
        except Timeout:
            raise BusyError(busy, path) from None
        except (OSError, NotImplementedError):
            pass  # a drive without locks; or a folder that may only be read, a full disk: whoever writes there says so
        yield
