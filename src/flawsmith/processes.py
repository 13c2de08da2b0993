"""Work spread over processes of this machine; what comes back is in the order of what went out."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from flawsmith.errors import RunError

_TRIAL = 1.0
"""Seconds that are worked here before it is decided whether processes pay."""
_WORTH = 10.0
"""Seconds that must be left for one process; a worker takes two or three to start."""
_AHEAD = 3
"""Items that wait for each worker."""
_CONTAINER = Path("/sys/fs/cgroup")
_CGROUP = _CONTAINER / "cpu.max"
_MEMORY = Path("/proc/meminfo")
_BESIDE = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
"""Variables in which torchrun, Open MPI and MPICH say how many of their processes share this machine."""
T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return how many cores this process may keep busy, as its scheduler, container and launcher say."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = _CGROUP.read_text().split()
        count = min(count, max(1, int(quota) // int(period)))  # "max" is no number: no quota
    for name in _BESIDE:
        if os.environ.get(name, "").isdecimal():
            return max(1, count // max(1, int(os.environ[name])))
    return count


def busy() -> float:
    """Return how many times as long work takes with what else runs on this computer now; 1 = nothing does."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # not told, as on Windows
        return 1.0
    share = load / (os.cpu_count() or 1)
    return 1.0 + share if share > 0.5 else 1.0


def rest_while_waiting() -> None:
    """Let the threads of torch sleep while they wait for each other; to be called before torch is loaded.

    GNU OpenMP has them spin, which is faster where nothing else runs. Beside one other busy process, two threads on two
    cores are ten times as slow so.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def memory_left() -> float:
    """Return how many bytes of memory processes may still take, as the system and the container say; inf = unknown."""
    left = math.inf
    with suppress(OSError, ValueError, IndexError):
        left = 1024.0 * int(_MEMORY.read_text().partition("MemAvailable:")[2].split()[0])
    with suppress(OSError, ValueError):
        most, taken = ((_CONTAINER / name).read_text() for name in ("memory.max", "memory.current"))
        left = min(left, int(most) - int(taken))  # "max" is no number: no limit
    return left


def fitting(each: float) -> int:
    """Return how many processes may work at the same time here, each with so many bytes of memory; at least 1."""
    return max(1, int(min(cores(), 0.8 * memory_left() / each)))


@dataclass(frozen=True, slots=True)
class Workers:
    """Processes that may be started."""

    count: int
    """How many; 1 = none beside this one."""
    begin: Callable[..., None]
    """What each calls first, with `arguments`; a function of a module."""
    arguments: tuple[Any, ...]
    folder: Path
    """The run, for an error."""
    setting: str = "generate.workers"
    """What says how many there are, for an error."""


def in_order(
    items: Iterable[T],
    here: Callable[[T], list[R]],
    there: Callable[[T], list[R]],
    workers: Workers,
    total: int,
    *,
    at_once: bool = False,
    worth: float | None = None,
) -> Iterator[list[R]]:
    """Yield what is made of each item, in order: here, and by workers once so much is left that they pay.

    Args:
        items: What is worked on.
        here: Does it in this process.
        there: Does it in a worker: a function of a module.
        workers: How many there may be.
        total: How many results there will be in all.
        at_once: True: workers begin, however little there is to do.
        worth: Seconds that must be left for one process, or no workers begin; None = those that pay for a light worker.

    Raises:
        RunError: a worker was killed.
    """
    waiting, begun, done, count = iter(items), time.monotonic(), 0, workers.count
    while count == 1 or not at_once:
        try:
            item = next(waiting)
        except StopIteration:
            return
        results = here(item)
        done += len(results)
        yield results
        spent = time.monotonic() - begun
        if count > 1 and spent > _TRIAL:
            if spent / max(done, 1) * (total - done) > (_WORTH if worth is None else worth):
                break
            count = 1
    yield from _by_workers(waiting, there, workers)


def _by_workers(items: Iterator[T], there: Callable[[T], list[R]], workers: Workers) -> Iterator[list[R]]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers.count, context, initializer=workers.begin, initargs=workers.arguments)
    pending: deque[Future[list[R]]] = deque()
    try:
        with ending_at_once():
            for item in items:
                with without_main():  # a process starts when there is work for it
                    pending.append(pool.submit(there, item))
                if len(pending) > _AHEAD * workers.count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    except BrokenProcessPool:
        raise RunError(
            f"{workers.folder}: a process that worked for it was killed, perhaps because the memory ran out; run this "
            f"again, with fewer {workers.setting} if it happens again; nothing is lost"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Where an exception leaves the block, Ctrl-C too, end the processes that began in it, whatever they are at.

    A pool would wait until each has done its piece. What they write is there as a whole or not at all.
    """
    others = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise


@contextmanager
def without_main() -> Iterator[None]:
    """Let processes start without the main module, which is the user's: a script would run once more in each."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def work_for_parent(threads: int) -> None:
    """Make this process one that leaves Ctrl-C to the process that started it, and ends when that one is gone.

    Args:
        threads: How many torch and OpenCV may use in it. Never more than torch has, which OMP_NUM_THREADS says: that
            is the person's word, and in a forked process more would never answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import cv2  # here, for commands that only read records use this module too
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), threads))
    cv2.setNumThreads(threads)


def _end_with_parent() -> None:
    """Wait until the process that started this one is gone, then end: one that was killed tells nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
