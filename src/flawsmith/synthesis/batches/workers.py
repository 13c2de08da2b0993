"""Lines planned and batches painted, one after another or by several processes; the bytes are the same.

A generator that works on pixels keeps one core busy, so its batches go to a process per core. A network keeps the card
busy, or all cores: its batches are painted here, while a thread encodes and writes those painted before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import islice

from flawsmith.data.photographs import Photographs
from flawsmith.data.sentences.descriptions import Descriptions
from flawsmith.data.split import Split
from flawsmith.processes import Workers, cores, in_order, work_for_parent
from flawsmith.run.dataset import Dataset, recorded_dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.records import PlanLine, Sample
from flawsmith.run.stage import Spread
from flawsmith.synthesis.batches.controls import with_donor
from flawsmith.synthesis.batches.made import write_sample
from flawsmith.synthesis.painters import Painters, Room
from flawsmith.synthesis.plan import Place, plan_line
from flawsmith.synthesis.train import backbone_of, generator_classes

_PLACES = 64
"""Lines that a process plans before it hands them over."""

Batch = list[PlanLine]


def planned_lines(run: Run, data: Dataset, places: Iterable[Place], count: int) -> Iterator[PlanLine]:
    """Yield the plan's lines of some places, in order; at most a few hundred are in memory.

    Args:
        run: The run.
        data: Its photographs.
        places: What is asked for, see `plan.places`.
        count: How many they are.
    """
    workers = Workers(_workers(run), _begin, (run, data.split, data.descriptions, "", ""), run.folder)
    here = partial(_lines_of, run, data)
    with progress("plan", count, "samples") as advance:
        for lines in in_order(_portions(iter(places)), here, _plan, workers, count):
            yield from lines
            advance(len(lines))


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
    if spread is not None:
        calls = ((run, batch, room.stamp) for batch in batches)
        for _, rows in spread(paint_batch, calls, network=backbone_of(run) is not None):
            yield rows
        return
    if not all(plugin.native for plugin in generator_classes(run.config).values()):
        yield from _overlapping(run, data, room, batches)
        return
    workers = Workers(_workers(run), _begin, (run, data.split, data.descriptions, room.shard, room.stamp), run.folder)
    at_once = run.config.generate.workers != "auto"
    yield from in_order(batches, lambda batch: _task(run, data, room, batch)(), _paint, workers, count, at_once=at_once)


def _workers(run: Run) -> int:
    asked = run.config.generate.workers
    return cores() if asked == "auto" else asked


def _portions(places: Iterator[Place]) -> Iterator[list[Place]]:
    while portion := list(islice(places, _PLACES)):
        yield portion


def _lines_of(run: Run, data: Dataset, places: list[Place]) -> list[PlanLine]:
    return [plan_line(run.config, data, **asdict(place)) for place in places]


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


def _overlapping(run: Run, data: Dataset, room: Room, batches: Iterable[Batch]) -> Iterator[list[Sample]]:
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


_working: tuple[Run, Dataset, Room]
"""What a worker process works with."""


def _begin(run: Run, split: Split, descriptions: Descriptions, shard: str, stamp: str) -> None:
    """Make a new process a worker."""
    global _working
    work_for_parent(threads=1)
    data = Dataset(split, Photographs(split.normals), {}, "", descriptions)
    painters = Painters(run.config, data, None, run.path("weights"))
    _working = run, data, Room(run, shard, stamp, painters)


def _plan(places: list[Place]) -> list[PlanLine]:
    run, data, _ = _working
    return _lines_of(run, data, places)


def _paint(batch: Batch) -> list[Sample]:
    run, data, room = _working
    return _task(run, data, room, batch)()
