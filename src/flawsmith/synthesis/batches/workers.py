"""Batches painted one after another, or by several processes of this machine; their lines come back in order.

A generator that works on pixels keeps one core busy, so its batches go to a process per core. A network keeps the card
busy, or all cores: its batches are painted here, while a thread encodes and writes those painted before.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType

from flawsmith.data.photographs import Photographs
from flawsmith.data.split import Split
from flawsmith.errors import RunError
from flawsmith.run.dataset import Dataset, recorded_dataset
from flawsmith.run.folder import Run
from flawsmith.run.records import PlanLine, Sample
from flawsmith.run.stage import Spread
from flawsmith.synthesis.batches.controls import with_donor
from flawsmith.synthesis.batches.made import write_sample
from flawsmith.synthesis.painters import Painters, Room
from flawsmith.synthesis.train import backbone_of, generator_classes

_TRIAL = 1.0
"""With workers = auto: seconds that are painted here before it is decided whether processes pay."""
_WORTH = 10.0
"""Seconds that must be left for one process; a worker takes two or three to start."""
_AHEAD = 3
"""Batches that wait for each worker."""
_CGROUP = Path("/sys/fs/cgroup/cpu.max")
_BESIDE = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
"""Variables in which torchrun, Open MPI and MPICH say how many of their processes share this machine."""

Batch = list[PlanLine]


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


def painted(
    run: Run, data: Dataset, room: Room, batches: Iterable[Batch], count: int, spread: Spread | None = None
) -> Iterator[list[Sample]]:
    """Paint and write batches, and yield the lines of each, in order; the same bytes however many processes do it.

    Args:
        run: The run.
        data: Its photographs.
        room: Paints here.
        batches: What is to be painted; controls without seed and donor.
        count: How many samples or controls that is.
        spread: Has each batch painted on whichever machine is free; their lines come as they are done.

    Raises:
        RunError: a process was killed; or as `Room.paint`.
    """
    waiting = iter(batches)
    if spread is not None:
        calls = ((run, batch, room.stamp) for batch in waiting)
        for _, rows in spread(paint_batch, calls, network=backbone_of(run) is not None):
            yield rows
        return
    if not all(plugin.native for plugin in generator_classes(run.config).values()):
        yield from _overlapping(run, data, room, waiting)
        return
    asked = run.config.generate.workers
    workers = cores() if asked == "auto" else asked
    begun, made = time.monotonic(), 0
    while workers == 1 or asked == "auto":
        batch = next(waiting, None)
        if batch is None:
            return
        rows = _task(run, data, room, batch)()
        made += len(rows)
        yield rows
        spent = time.monotonic() - begun
        if workers > 1 and spent > _TRIAL:
            if spent / made * (count - made) > _WORTH:
                break
            workers = 1
    yield from _by_processes(run, data, room, waiting, workers)


def _task(run: Run, data: Dataset, room: Room, batch: Batch) -> Callable[[], list[Sample]]:
    """Paint a batch; return what writes it."""
    lines = [with_donor(run.config, data, line) if line.is_control else line for line in batch]
    return room.paint(lines, partial(write_sample, run, data.photographs))


_ROOMS: dict[tuple[str, str], tuple[Dataset, Room]] = {}
"""What the last piece in this process painted with, by run and stamp: opening it takes seconds."""


def paint_batch(run: Run, batch: Batch, stamp: str) -> list[Sample]:
    """Paint and write a batch of a run whose photographs are on record, and return its lines: a piece for `Spread`.

    Args:
        run: The run; its generators are trained.
        batch: The plan's lines of the batch; controls without seed and donor.
        stamp: Identifies what `generate` makes.
    """
    key = str(run.folder.absolute()), stamp
    if key not in _ROOMS:
        _ROOMS.clear()
        data = recorded_dataset(run)
        painters = Painters(run.config, data, backbone_of(run), run.path("weights"))
        _ROOMS[key] = data, Room(run, "", stamp, painters)
    return _task(run, *_ROOMS[key], batch)()


def _overlapping(run: Run, data: Dataset, room: Room, batches: Iterator[Batch]) -> Iterator[list[Sample]]:
    """Paint each batch while the one before is written."""
    with ThreadPoolExecutor(1, "writer") as writer:
        before: Future[list[Sample]] | None = None
        for batch in batches:
            write = _task(run, data, room, batch)
            if before is not None:
                yield before.result()
            before = writer.submit(write)
        if before is not None:
            yield before.result()


def _by_processes(
    run: Run, data: Dataset, room: Room, batches: Iterator[Batch], workers: int
) -> Iterator[list[Sample]]:
    context = multiprocessing.get_context("spawn")
    room_of = run, data.split, room.shard, room.stamp
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=room_of)
    pending: deque[Future[list[Sample]]] = deque()
    try:
        for batch in batches:
            with _without_main():  # a process starts when there is work for it
                pending.append(pool.submit(_paint, batch))
            if len(pending) > _AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise RunError(
            f"{run.folder}: a process that painted was killed, perhaps because the memory ran out; run this again, "
            "with fewer generate.workers if it happens again; nothing is lost"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_main() -> Iterator[None]:
    """Let processes start without the main module, which is the user's: a script would run once more in each."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_painting: tuple[Run, Dataset, Room]
"""What a worker process paints with."""


def _begin(run: Run, split: Split, shard: str, stamp: str) -> None:
    """Make a new process a worker."""
    global _painting
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    data = Dataset(split, Photographs(split.normals), {}, "")
    painters = Painters(run.config, data, None, run.path("weights"))
    _painting = run, data, Room(run, shard, stamp, painters)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a process that was killed tells nobody


def _paint(batch: Batch) -> list[Sample]:
    run, data, room = _painting
    return _task(run, data, room, batch)()
