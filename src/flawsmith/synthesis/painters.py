"""What paints: a painter for each job, with the weights that the job learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from flawsmith.config import Config, GeneratorConfig
from flawsmith.errors import RunError
from flawsmith.files import read_json, reading, write_json
from flawsmith.interfaces import Generator
from flawsmith.nn.memory.exhausted import give_back, ran_out
from flawsmith.run.dataset import Dataset
from flawsmith.run.folder import Run
from flawsmith.run.records import PlanLine, Sample
from flawsmith.synthesis.backbones.of_run import RunBackbone
from flawsmith.synthesis.learning import Job
from flawsmith.synthesis.paint import PaintedLine, Painter
from flawsmith.synthesis.train import (
    generator_class,
    generator_settings,
    jobs_of,
    untrained_generator,
    working_size,
)

if TYPE_CHECKING:
    from flawsmith.nn.backbone import Backbone


SKETCHER = "patch_synthesis"
"""The generator that paints what others start from, where that is not a shot."""
_KEPT_JOBS, _KEPT_BYTES = 4, 64 << 20
"""So many jobs' trained weights are kept for the next time that they paint, while their files are no larger."""


class Painters:
    """Loads what paints a job. Large weights are those of one job at a time: products are many, and memory is one.

    Args:
        config: Names the generator and its settings.
        data: The photographs.
        backbone: What the generator stands on, loaded or to be loaded when something is painted; None = it needs none.
        weights: The folder that holds a folder for each job; None = the generator learns nothing, and none is read.
    """

    def __init__(
        self, config: Config, data: Dataset, backbone: Backbone | RunBackbone | None, weights: Path | None
    ) -> None:
        self._config, self._data, self._weights = config, data, weights
        self._given = backbone
        self.at_once = 0
        """Windows that go through a network together; 0 = all of a batch."""
        self._generators: dict[str, Generator] = {}
        self._sketchers: dict[str, Generator] = {}

    @property
    def _backbone(self) -> Backbone | None:
        return self._given.loaded if isinstance(self._given, RunBackbone) else self._given

    def of(self, job: str) -> Painter:
        """Return a painter of a job, a folder below `weights`."""
        if job not in self._generators:
            if self._weights is not None:
                total = sum(_weights_size(self._weights, one) for one in (job, *self._generators))
                if len(self._generators) >= _KEPT_JOBS or total > _KEPT_BYTES:
                    self._generators.clear()
            self._generators[job] = self._loaded(job)
        data, backbone = self._data, self._backbone
        generator = self._generators[job]
        size = working_size(self._config, backbone if generator.needs_backbone else None)
        parts = self._config, generator, size, data.split, data.photographs
        return Painter(*parts, lambda: self._sketcher(job), self.at_once)

    def _sketcher(self, job: str) -> Generator:
        """Return what sketches damage of patches for generators that start from it; it learns from the job's shots."""
        if job not in self._sketchers:
            asked = replace(self._job(job), generator=SKETCHER)
            sketching = self._config.model_copy(update={"generator": GeneratorConfig(name=SKETCHER)})
            self._sketchers[job] = untrained_generator(sketching, None, asked, self._data.photographs)
        return self._sketchers[job]

    def _loaded(self, job: str) -> Generator:
        asked = self._job(job)
        if self._weights is None:
            return untrained_generator(self._config, self._backbone, asked, self._data.photographs)
        config = self._config.with_generator(asked.generator)
        plugin = generator_class(config)
        backbone = self._backbone if plugin.needs_backbone else None
        generator = plugin.load(self._weights.joinpath(*job.split("/")), backbone)
        generator.settings = generator_settings(config)
        return generator

    def _job(self, name: str) -> Job:
        return next(job for job in jobs_of(self._config, self._data.split) if job.name == name)


class Room:
    """How many windows memory has room for at once: halved when it runs out, and kept, so that a run which goes on
    after a kill paints the same windows together.

    Args:
        run: The run.
        shard: The name of the part that this process makes; "" = all of it.
        stamp: Identifies what is made.
        painters: Are told.
    """

    def __init__(self, run: Run, shard: str, stamp: str, painters: Painters) -> None:
        self._run, self._painters = run, painters
        self.shard, self.stamp = shard, stamp
        self._path = run.path("state", f"at_once.{shard}.json" if shard else "at_once.json")
        known = read_json(self._path) if self._path.is_file() else {}
        with reading(self._path):
            painters.at_once = int(known["windows"]) if known.get("stamp") == stamp else 0

    def paint(self, group: Sequence[PlanLine], write: Callable[[PaintedLine], Sample]) -> Callable[[], list[Sample]]:
        """Paint a batch; return what writes it, one picture at a time in memory, and returns its lines.

        What a generator of pixels makes is written here already: it paints one line after another. Where memory runs
        out, the whole batch is painted anew, half as many windows at once.

        Raises:
            RunError: memory ran out over a single window.
        """
        while True:
            painter = self._painters.of(group[0].job)
            painted = painter.paint(group)
            try:
                if painter.generator.native:
                    rows = self._written(group, painted, write)
                    return lambda: rows
                first = next(painted)  # with it a network has painted all of them
                return lambda: self._written(group, chain([first], painted), write)
            except Exception as error:
                if not ran_out(error):
                    raise
            self._halve(group)

    def _written(
        self, group: Sequence[PlanLine], painted: Iterable[PaintedLine], write: Callable[[PaintedLine], Sample]
    ) -> list[Sample]:
        try:
            return list(map(write, painted))
        except Exception:
            self._run.remove_pictures(group[0].role, (line.index for line in group))
            raise

    def _halve(self, group: Sequence[PlanLine]) -> None:
        give_back()
        before = min(self._painters.at_once or len(group), len(group))
        if before == 1:
            raise RunError(
                f"{group[0].generator}: the memory ran out over a single window; take a smaller windows.size or "
                "backbone, or end what else uses this memory"
            )
        self._painters.at_once = count = (before + 1) // 2
        write_json(self._path, {"windows": count, "stamp": self.stamp})
        windows = "one window" if count == 1 else f"{count} windows"
        self._run.log(stage="generate", what=f"the memory ran out: {windows} at once from batch {group[0].batch} on")


def _weights_size(weights: Path, job: str) -> int:
    """Return the size in bytes of the files of a job's trained weights."""
    return sum(path.stat().st_size for path in weights.joinpath(*job.split("/")).glob("*.safetensors"))
