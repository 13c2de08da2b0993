"""A proof's trainings, several at the same time: each keeps one core busy, and two hardly more than one.

Pieces are `train_one`, an arm with a seed. They go to the machines that `flawsmith run --on` names, or to processes of
this one, as many as cores and memory allow. On a card they follow one another, in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from flawsmith.config import Config
from flawsmith.data.split import Split
from flawsmith.evaluation.trainings import Trainings, device_of, proof_extractor
from flawsmith.processes import Workers, cores, fitting, in_order, work_for_parent
from flawsmith.run.dataset import recorded_dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.stage import Result, Spread

_WORTH = 30.0
"""Seconds that must be left for one process: a worker loads torch and reads the photographs first."""
_PROCESS = 1.2e9
"""Bytes of a process that trains, without its pictures."""
_PICTURE = 12
"""Bytes it takes per pixel of a picture that it learns from or is asked about: pixels, mask, features."""
_DESCRIBED = 16
"""Pictures whose features are computed in one piece."""


def train_all(
    trainer: Trainings, run: Run, rivals: dict[str, Run], splits: dict[str, Split], stamp: str, spread: Spread | None
) -> int:
    """Train every arm with every seed that is not on disk yet; return how many.

    Args:
        trainer: Knows what is missing.
        run: The run.
        rivals: Runs of other generators, by name.
        splits: The photographs of each product.
        stamp: Identifies what detectors learn from.
        spread: Trains on whichever machine is free; None = on this one.
    """
    todo = [one for product, split in splits.items() for one in trainer.missing(product, split)]
    if not todo:
        return 0
    _TRAINERS.clear()
    _TRAINERS[str(run.folder.absolute()), stamp] = trainer, splits
    try:
        if spread is None:
            spread = _described(trainer, run, rivals, {name: splits[name] for name, _, _ in todo}, stamp, len(todo))
        calls = ((run, rivals, *one, stamp) for one in todo)
        with progress("prove", len(todo), "trainings") as advance:
            for number, sizes in spread(train_one, calls, network=True):
                trainer.remember(sizes)
                product, arm, seed = todo[number]
                advance(1, f"{product}, {arm}, seed {seed}")
    finally:
        _TRAINERS.clear()
    return len(todo)


def _described(
    trainer: Trainings, run: Run, rivals: dict[str, Run], splits: dict[str, Split], stamp: str, trainings: int
) -> Spread:
    """Have the features computed that all arms share, which one training would do for the others; return who trains."""
    extents = {product: trainer.extent(product, split) for product, split in splits.items()}
    counts = {product: shared for product, (shared, _) in extents.items()}
    pixels = max(all_pixels for _, all_pixels in extents.values())
    # The last product's pictures are in memory now, and the first one's should be when its trainings begin.
    pieces = [(name, first) for name in reversed(counts) for first in range(0, counts[name], _DESCRIBED)]
    calls = ((run, rivals, name, range(first, min(first + _DESCRIBED, counts[name])), stamp) for name, first in pieces)
    with progress("prove, features", sum(counts.values()), "pictures") as advance:
        for number, sizes in _Here(run, len(pieces), pixels)(describe_some, calls, network=True):
            trainer.remember(sizes)
            name, first = pieces[number]
            advance(min(_DESCRIBED, counts[name] - first), name)
    return _Here(run, trainings, pixels)


class _Here:
    """A `Spread` over processes of this machine.

    Args:
        run: The run.
        total: How many pieces there will be.
        pixels: Of all pictures that a process has in memory, at most.
    """

    def __init__(self, run: Run, total: int, pixels: int) -> None:
        asked, self._total = run.config.prove.workers, total
        most = _most(run.config, pixels) if asked == "auto" else asked
        self._at_once, processes = asked != "auto", max(1, min(most, total))
        self._threads = max(1, cores() // processes)
        self._workers = Workers(processes, work_for_parent, (self._threads,), run.folder, "prove.workers")

    def __call__(
        self, piece: Callable[..., Result], calls: Iterable[tuple[Any, ...]], *, network: bool
    ) -> Iterator[tuple[int, Result]]:
        items = ((piece, arguments) for arguments in calls)
        with _threads(self._threads):
            answers = in_order(items, _called, _called, self._workers, self._total, at_once=self._at_once, worth=_WORTH)
            for number, (result,) in enumerate(answers):
                yield number, result


def _most(config: Config, pixels: int) -> int:
    """Return how many trainings may run at the same time here, each with so many pixels in memory."""
    return fitting(_PROCESS + _PICTURE * pixels) if device_of(config) == "cpu" else 1


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use so many in this process: as many as a worker will, for it may train some before they begin."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _called(item: tuple[Callable[..., Result], tuple[Any, ...]]) -> list[Result]:
    piece, arguments = item
    return [piece(*arguments)]


_TRAINERS: dict[tuple[str, str], tuple[Trainings, dict[str, Split]]] = {}
"""What the last piece in this process trained with, by run and stamp: its pictures are in memory."""


def train_one(run: Run, rivals: dict[str, Run], product: str, arm: str, seed: int, stamp: str) -> list[str]:
    """Train one arm of a proof with one seed: a piece for `Spread`.

    Args:
        run: The run.
        rivals: Runs of other generators, by name.
        product: The product that is proven.
        arm: The arm's name.
        seed: Its seed.
        stamp: Identifies what detectors learn from; names the folder of the outcomes.

    Returns:
        The sizes of pictures whose features it left in the run, as `FeatureCache.remembered` says them.
    """
    trainer, splits = _trainer(run, rivals, stamp)
    return trainer.train_one(product, splits[product], arm, seed)


def describe_some(run: Run, rivals: dict[str, Run], product: str, places: range, stamp: str) -> list[str]:
    """Compute and keep the features of some pictures that all arms of a product share; for `_Here` alone.

    Args:
        run: The run.
        rivals: Runs of other generators, by name.
        product: The product that is proven.
        places: Which of its pictures, of those that `Trainings.extent` counts.
        stamp: Identifies what detectors learn from.

    Returns:
        As `train_one`.
    """
    trainer, splits = _trainer(run, rivals, stamp)
    return trainer.describe(product, splits[product], places)


def _trainer(run: Run, rivals: dict[str, Run], stamp: str) -> tuple[Trainings, dict[str, Split]]:
    key = str(run.folder.absolute()), stamp
    if key not in _TRAINERS:
        _TRAINERS.clear()
        split = recorded_dataset(run).split
        products = {example.product for example in split.shots}
        trainer = Trainings(run, rivals, proof_extractor(run.config), stamp)
        _TRAINERS[key] = trainer, {name: split.of(name) for name in products}
    return _TRAINERS[key]
