"""The judges of all folds, asked at once: each answer is work of its own, and a processor takes one at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flawsmith.choice.candidates import Way
from flawsmith.choice.folds import folds_of
from flawsmith.choice.judge import Judge
from flawsmith.choice.records import Figures
from flawsmith.config import Config
from flawsmith.data.fingerprints import content_hash
from flawsmith.errors import RunError
from flawsmith.evaluation.arms import REAL
from flawsmith.evaluation.trainings import device_of
from flawsmith.files import read_json
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.paths import confined
from flawsmith.processes import cores, ending_at_once, without_main, work_for_parent
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import Run


@dataclass(frozen=True, slots=True)
class Sitting:
    """What every process needs to hold the same judges."""

    run: Path
    config: Config
    """What is asked about; the run's own says nothing of generators."""
    work: Path
    """Below the run: samples, features and answers."""
    folds: int


class Panel:
    """Asks the judges of all folds.

    Args:
        sitting: What they are about.
        judges: They, in this process.
        workers: Answers that are worked out at the same time, each in a process of its own; 1 = in this one.
    """

    def __init__(self, sitting: Sitting, judges: Sequence[Judge], workers: int) -> None:
        self.judges = judges
        self._sitting, self._workers = sitting, workers
        self._pool: ProcessPoolExecutor | None = None

    @contextmanager
    def sitting(self) -> Iterator[None]:
        """Keep the processes for the length of the block."""
        if self._workers == 1:
            yield
            return
        threads = max(1, cores() // self._workers)
        pool = ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_take_seats,
            initargs=(self._sitting, threads),
        )
        self._pool = pool
        try:
            with ending_at_once():
                yield
        except BrokenProcessPool:
            raise RunError(
                f"{self._sitting.run}: a process that worked on a fold ended (killed, or memory ran out); "
                "run it again, and it goes on, or with --workers 1"
            ) from None
        finally:
            self._pool = None
            pool.shutdown(cancel_futures=True)

    def ask(self, ways: Sequence[Way], heard: Callable[[str], None]) -> list[list[Figures]]:
        """Return every judge's figures for every way, a row per way.

        Args:
            ways: What they are asked about.
            heard: Told after each answer what it was about.
        """
        # A fold's ways one after another: they share its normal photographs, and what is known of them stays in memory.
        asked = [(row, number) for number in range(len(self.judges)) for row in range(len(ways))]
        figures: dict[tuple[int, int], Figures] = {}
        if self._pool is None:
            for row, number in asked:
                figures[row, number] = self.judges[number].figures(ways[row])
                heard(self._title(ways[row], number))
        else:
            with without_main():
                futures = {self._pool.submit(_answer, number, ways[row]): (row, number) for row, number in asked}
            for future in as_completed(futures):
                row, number = futures[future]
                figures[row, number], kept = future.result()
                self.judges[number].features.remember(kept)
                heard(self._title(ways[row], number))
        return [[figures[row, number] for number in range(len(self.judges))] for row in range(len(ways))]

    def _title(self, way: Way, number: int) -> str:
        judge = self.judges[number]
        return f"{(way.name if way else REAL).partition(';')[0]}, {judge.product}, fold {judge.fold.number}"


def extractor_of(config: Config) -> Extractor:
    """Return the extractor that a configuration names, where its detectors compute."""
    part = config.features
    return load_extractor(part.extractor, part.source, offline=config.backbone.offline, device=device_of(config))


def judges_of(sitting: Sitting, data: Dataset, extractor: Extractor) -> tuple[list[Judge], FeatureCache]:
    """Return the judges of every product's folds, and the features that they share."""
    config, cached = sitting.config, FeatureCache(extractor, sitting.work / "features", half=True)
    rows: dict[str, Any] = read_json(Run.open(sitting.run).path("data.json"))
    tests = frozenset(content_hash(one.image) for one in (*data.split.test_defects, *data.split.test_normals))
    judges = [
        Judge(fold, data, rows, config, confined(sitting.work, product, f"fold {fold.number}"), cached, tests)
        for product in sorted({shot.product for shot in data.split.shots})
        for fold in folds_of(data.split.of(product), sitting.folds)
    ]
    return judges, cached


_SEATED: list[Judge] = []
"""In a worker's process: its judges."""


def _take_seats(sitting: Sitting, threads: int) -> None:
    work_for_parent(threads)
    _SEATED[:] = judges_of(sitting, open_dataset(Run.open(sitting.run)), extractor_of(sitting.config))[0]


def _answer(number: int, way: Way) -> tuple[Figures, list[str]]:
    """Return figures, and the folders of features that a process has kept."""
    judge = _SEATED[number]
    return judge.figures(way), judge.features.remembered()
