"""One writer at a time: locks on files, which the system takes back when a process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from flawsmith.errors import RunError

try:
    import fcntl
except ImportError:  # Windows: there whoever starts two processes must take care himself
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(path: Path, busy: str = "", *, shared: bool = False) -> Iterator[None]:
    """Hold a lock while the block runs; where files cannot be locked or made, nothing is held.

    Args:
        path: The lock's own file; it and its folder are made, and it stays.
        busy: What to say when another process holds it; "" = wait until that is done.
        shared: True: others may hold it too, if they share it.

    Raises:
        RunError: another process holds it.
    """
    with ExitStack() as opened:
        # A folder that may only be read, or a full disk: whoever writes there will say so.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context(open(path, "a"))
            if fcntl is not None:
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                try:
                    fcntl.flock(file, kind | (fcntl.LOCK_NB if busy else 0))
                except BlockingIOError:
                    raise RunError(busy) from None
        yield
