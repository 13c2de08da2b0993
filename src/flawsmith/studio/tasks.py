"""What the worker process does: paint candidates, propose a mask, look a set over. Nothing here knows of the page."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import registry
from flawsmith.config import overridden
from flawsmith.data import images
from flawsmith.errors import ConfigError, DataError
from flawsmith.files import file_state
from flawsmith.run.dataset import Dataset
from flawsmith.run.folder import Run
from flawsmith.studio.candidates import Candidate
from flawsmith.studio.commands.trees import tree_of
from flawsmith.studio.masks import mask_of, runs_of
from flawsmith.studio.workspace import Workspace
from flawsmith.synthesis.by_hand.brush import Brush
from flawsmith.synthesis.by_hand.painted import Painted
from flawsmith.synthesis.by_hand.source import DEFAULT_GENERATOR
from flawsmith.synthesis.plan import asked_mask, plan_line

_BRUSHES = 2
"""Generators that are kept open, with the photographs that each keeps."""
_AT_ONCE = 2
"""Candidates that a generator of pixels paints side by side: each its own seed, so the same bytes come out."""
_OF_EACH_SORT = 2
"""Pictures of a product's normal parts and of each defect type that a preview of an export is made with."""
_TRIES = 8
"""Seeds that are tried for a proposed mask."""
_ON_PART = 0.8
"""Share of a proposed mask that lies on the part: with less another seed is tried. What lies off it is cut away."""


@contextmanager
def _side_by_side(
    work: Callable[[int], Painted | DataError], seeds: Sequence[int], count: int
) -> Iterator[Iterator[Painted | DataError]]:
    """Give the answers for the seeds in their order, up to `count` made at once; what is not begun at the end is not
    made."""
    if count == 1:
        yield map(work, seeds)
        return
    pool = ThreadPoolExecutor(count)
    try:
        yield pool.map(work, seeds)
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Errand:
    """One request, as the worker sees it."""

    number: int
    """Of the job."""
    tell: Callable[[dict[str, Any]], None]
    """Hands the page what is done so far."""
    stopped: Callable[[], bool]
    """Whether the page has taken its request back."""


class Bench:
    """What a worker keeps between two requests.

    Args:
        workspace: What is open.
        folder: Where candidates are left.
    """

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.workspace, self._folder = workspace, folder
        self._brushes: dict[str, tuple[object, Brush]] = {}

    def brush(self, generator: str) -> Brush:
        """Return the source, opened for painting with a generator."""
        known = [choice.name for choice in self.workspace.generators]
        if generator not in known:
            raise ConfigError(f"generator: {generator[:80]!r} cannot paint here; these can: {', '.join(known)}")
        run = Run.open(self.workspace.run.folder) if self.workspace.run else None
        # A command may have changed the run's settings, or learned anew.
        state = (file_state(run.path("config.json")), run.stage_hash("train")) if run else None
        known_state, brush = self._brushes.get(generator, (None, None))
        if brush is None or known_state != state:
            self._brushes.pop(generator, None)
            while len(self._brushes) >= _BRUSHES:
                del self._brushes[next(iter(self._brushes))]
            brush = Brush.open(run or self.workspace.source, generator=generator, settings=self.workspace.settings)
            self._brushes[generator] = state, brush
        return brush

    def warm(self, errand: Errand) -> dict[str, Any]:
        """Open the default generator, let it learn and try it, so that the first candidate need not wait for that."""
        brush = self.brush(self.workspace.default_generator)
        for product, defects in self.workspace.defects.items():
            example = next((one for one in self.workspace.normals if one.product == product), None)
            for defect in defects:
                if errand.stopped():
                    return {}
                brush.painters.of(brush.job_of(product, defect))
                if example is not None:
                    native = images.read(example.image)
                    spot = np.zeros(native.shape[:2], bool)
                    rows, columns = native.shape[:2]
                    spot[rows // 2 - 2 : rows // 2 + 3, columns // 2 - 2 : columns // 2 + 3] = True
                    with suppress(DataError):  # so little may not show; what is read of the shots is kept
                        brush.paint(native, spot, defect, 0, product=product)
        return {}

    def paint(
        self,
        errand: Errand,
        *,
        photograph: str,
        mask: list[int],
        defect: str,
        generator: str,
        seeds: list[int],
    ) -> dict[str, Any]:
        """Paint a candidate for each seed, and tell of each as soon as it is there."""
        example = self.workspace.normal(photograph)
        brush, native = self.brush(generator), images.read(example.image)
        asked = mask_of(mask, (native.shape[0], native.shape[1]))
        if not asked.any():
            raise DataError("the mask is empty; draw where the damage is to be")
        made: list[dict[str, Any]] = []

        def painted(seed: int) -> Painted | DataError:
            try:
                return brush.paint(native, asked, defect, seed, product=example.product)
            except DataError as error:  # of this seed nothing shows; the next may do
                return error

        with _side_by_side(painted, seeds, _AT_ONCE if self._by_pixels(generator) else 1) as answers:
            for number, (seed, answer) in enumerate(zip(seeds, answers, strict=True)):
                if isinstance(answer, DataError):
                    made.append({"seed": seed, "problem": str(answer)})
                else:
                    candidate = Candidate.of(f"{errand.number}-{number}", example, native, answer, tuple(mask))
                    candidate.save(self._folder)
                    made.append({"seed": seed, "name": candidate.name, "box": candidate.box, **_facts(candidate)})
                errand.tell({"candidates": made, "of": len(seeds)})
                if errand.stopped():
                    break
        return {"candidates": made, "of": len(seeds)}

    def _by_pixels(self, generator: str) -> bool:
        """Whether a generator is of pixels alone: no network that several threads would share."""
        return registry.entries("generators")[generator].pixels

    def propose(
        self, errand: Errand, *, photograph: str, way: str, defect: str, seed: int, sentence: str
    ) -> dict[str, Any]:
        """Return a mask for a photograph: of a re-posed shot, a new shape like the shots', or as a sentence asks."""
        example = self.workspace.normal(photograph)
        brush = self.brush(DEFAULT_GENERATOR)
        if way not in ("shots", "procedural", "sentence"):
            raise ConfigError(f"way: {way[:40]!r} is unknown; shots, procedural and sentence are known")
        if way == "sentence" and not sentence.strip():
            raise ConfigError('say what the damage shall be like, e.g. "a long thin scratch near the top left"')
        asked = {"masks": "procedural" if way == "procedural" else "shots", "prompt": sentence}
        if way != "sentence":
            asked["prompt"] = ""
        config = brush.config.model_copy(update={"generate": brush.config.generate.model_copy(update=asked)})
        if way == "sentence":
            from flawsmith.synthesis.sentences.prompt import parsed_prompts

            parsed = parsed_prompts(config, brush.data.split)
            if others := [one.product for one in parsed if one.product not in ("", example.product)]:
                raise ConfigError(f"the sentence asks for {others[0]}, and the photograph shows {example.product}")
            if len(types := sorted({one.defect for one in parsed})) > 1:
                raise ConfigError(f"the sentence asks for {' and '.join(types)}; one mask is of one defect type")
            defect = types[0]
        if defect not in self.workspace.defects.get(example.product, ()):
            raise ConfigError(f"defect: there are no shots of {defect[:80]!r} on {example.product}")
        # The planner chooses among the set's normal photographs: here there is one to choose.
        only = replace(brush.data.split, normals=(example,))
        photographs = brush.data.photographs.with_only(example)
        data = Dataset(only, photographs, brush.data.hashes, brush.data.hash)
        job = brush.job_of(example.product, defect)
        part = photographs.part(example)  # of a ring without its hole
        most, best = 0.0, dict[str, Any]()
        for number in range(_TRIES):
            index = seed + number
            try:
                line = plan_line(config, data, index=index, batch=0, job=job, product=example.product, defect=defect)
                shot = next(one for one in only.shots if one.id == line.shot)
                proposed = asked_mask(line, example, shot, only.shots, data.photographs, config.generate.turn)
            except DataError:  # this shot cannot be laid here; another can
                continue
            share = float((proposed & part).sum()) / max(int(proposed.sum()), 1)
            if share > most:
                most = share
                best = {"mask": runs_of(proposed & part), "defect": defect, "shot": line.shot, "seed": index}
            if most >= _ON_PART:
                break
        if best:
            return best
        raise DataError(f"of {_TRIES} shots and places none fits {example.id}; draw the mask by hand")

    def check(self, errand: Errand) -> dict[str, Any]:
        """Look the set over, as `flawsmith check` does."""
        from flawsmith.preflight.check import check

        found = check(self.workspace.config)
        return {**found.to_json(), "facts": found.facts}

    def export_tree(self, errand: Errand, *, settings: dict[str, Any]) -> dict[str, Any]:
        """Write the first pictures of each sort in the formats of the configuration, and return each one's tree."""
        from flawsmith.exports.export import exported, load_exporter, prepared, sizes

        run = Run.open(self.workspace.run.folder) if self.workspace.run else None
        if run is None:
            raise DataError("no run is open, so there is nothing to export")
        run = Run(run.folder, overridden(run.config, settings))
        examples, first = exported(run), []
        sorts: Counter[tuple[Any, ...]] = Counter()
        for example in examples:
            sort = example.product, example.defect, example.split
            sorts[sort] += 1
            if sorts[sort] <= _OF_EACH_SORT:
                first.append(example)
        trees = {}
        for name in run.config.export.formats:
            with tempfile.TemporaryDirectory(prefix="flawsmith-tree-") as folder:
                exporter = prepared(run, load_exporter(run.config, name))
                exporter.write(first, Path(folder), destination=run.path("export", name), advance=lambda *_: None)
                trees[name] = tree_of(sizes(Path(folder)))
            errand.tell({"trees": trees})
        types = Counter((example.product, example.defect) for example in examples)
        damaged = sum(count for (_, defect), count in types.items() if defect)
        counts = [
            {"product": product, "defect": defect, "pictures": types[product, defect]}
            for product, defect in sorted(types, key=lambda key: (key[0], key[1] or ""))
        ]
        return {
            "trees": trees,
            "pictures": len(examples),
            "shown": len(first),
            "defects": damaged,
            "normal": len(examples) - damaged,
            "counts": counts,
            "rejected": sum(one.made for one in run.samples()) - len(run.kept()),
        }


def _facts(candidate: Candidate) -> dict[str, Any]:
    made = candidate.provenance
    return {"area": made.area, "asked_area": made.asked_area, "shot": made.shot, "overlap": made.overlap}
