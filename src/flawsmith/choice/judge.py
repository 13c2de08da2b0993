"""One fold's work: samples are made without its left-out photographs, detectors learn, and those photographs judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from flawsmith.choice.candidates import Candidate, Samples, Way
from flawsmith.choice.folds import Fold
from flawsmith.choice.records import Figures
from flawsmith.config import Config
from flawsmith.evaluation.arms import REAL, Arm, Made, common_set, made_of, training_set
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.shape import proof_shape, proof_tiles, shapes_of
from flawsmith.evaluation.statistics import LEADS, Task
from flawsmith.evaluation.trainings import device_of, load_detector
from flawsmith.files import digest, read_json, reading, write_json
from flawsmith.locks import locked
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.run.dataset import Dataset
from flawsmith.run.folder import Run
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train


class Judge:
    """Makes samples in one fold of one product, trains on them, and asks about what was left out.

    Args:
        fold: The fold.
        data: All photographs of the run, hashed.
        rows: data.json of the run.
        config: The run's configuration.
        folder: Where this fold's runs and answers are kept.
        features: The extractor; shared by all folds, it remembers the features of photographs.
        forbidden: Content hashes of the run's test pictures: none of them can enter.
    """

    def __init__(
        self,
        fold: Fold,
        data: Dataset,
        rows: dict[str, Any],
        config: Config,
        folder: Path,
        features: FeatureCache,
        forbidden: Collection[str],
    ) -> None:
        split = fold.split
        self.fold, self.features, self._config, self._folder = fold, features, config, folder
        self.product = split.shots[0].product
        self.shots = dict(Counter(str(shot.defect) for shot in split.shots))
        """Defect type -> shots that are learned from in this fold."""
        self._rows = _of_fold(rows, fold)
        content = data.content((*split.shots, *split.normals))
        self._data = Dataset(split, data.photographs.beside(split.normals), data.hashes, content)
        self.defects = tuple(sorted(self.shots))
        photographs = shapes_of(split.normals)
        shape, tiles = proof_shape(config.prove, photographs), proof_tiles(config.prove, photographs)
        self._evaluator = Evaluator(split, self.defects, shape, drop_near_duplicates=False, tiles=tiles)
        self._forbidden = frozenset({*forbidden, *self._evaluator.forbidden})
        self._made: dict[Candidate, Samples] = {}

    def made(self, candidate: Candidate) -> Samples:
        """Return what a candidate makes of this fold's shots."""
        if candidate not in self._made:
            self._made[candidate] = self._samples(candidate)
        return self._made[candidate]

    def samples_of(self, way: Way) -> Samples:
        """Return what an arm learns from beside the shots."""
        if way is None:
            return Samples((), ())
        if isinstance(way, Candidate):
            return self.made(way)
        samples: list[Made] = []
        controls: list[Made] = []
        for defect in sorted(way.of.keys() & self.shots.keys()):
            made = self.made(way.of[defect]).of(defect, way.per_shot * self.shots[defect])
            samples += made.samples
            controls += made.controls if way.controls else ()
        return Samples(tuple(samples), tuple(controls))

    def _samples(self, candidate: Candidate) -> Samples:
        config = candidate.configured(self._config, self.shots)
        # Another process may be at the same samples, for another mixture of them: it waits, and finds them made.
        with locked(self._folder / f"{candidate.name}.lock"):
            run = Run.create(self._folder / candidate.name, config)
            write_json(run.path("data.json"), self._rows)
            train(run, self._data)
            generate(run, data=self._data)
            return Samples(*(tuple(group) for group in made_of(run, self.product)))

    def figures(self, way: Way) -> Figures:
        """Return what is found of the left-out shots after learning from samples beside the shots.

        It is kept by what was learned from: a mixture that takes all of one candidate is not learned again.
        """
        name, made = REAL if way is None else way.name, self.samples_of(way)
        files = [one.example.image.relative_to(self._folder) for one in (*made.samples, *made.controls)]
        identity = digest(sorted(file.as_posix() for file in files))
        path = self._folder / "answers" / f"{identity[:16]}.json"
        if not path.is_file():
            write_json(path, {"arm": name, "figures": self._learned(Arm(name, "", made.samples, made.controls))})
        answers = read_json(path)
        with reading(path):
            return {
                task: {str(d): float(figure) for d, figure in row.items()} for task, row in answers["figures"].items()
            }

    def _learned(self, arm: Arm) -> Figures:
        """Train on an arm, and ask about what was left out."""
        config, evaluator, split = self._config, self._evaluator, self.fold.split
        # Read anew each time: the pictures of all folds and candidates together are too many to keep.
        common = common_set(split, (), evaluator.shape, self.defects, self._forbidden, evaluator.tiles)
        training = training_set(common, arm, split)
        figures: dict[Task, dict[str, float]] = {}
        for name in config.prove.detectors:
            detector = load_detector(config, name, self.defects, self.features, device_of(config), evaluator.tiles)
            tasks = set(detector.tells) - figures.keys()
            if not tasks:
                continue
            rng = torch.Generator().manual_seed(config.seed * 1000 + self.fold.number)
            for _ in detector.fit(training, rng, budget=config.prove.budget):
                pass
            outcome = evaluator.evaluate(detector, tasks)
            for task in LEADS:
                if task in tasks:
                    figures[task] = {defect: outcome.figures[task][defect][LEADS[task]] for defect in self.fold.judged}
        return figures


def _of_fold(rows: dict[str, Any], fold: Fold) -> dict[str, Any]:
    """Return what data.json says of a fold's pictures: what is left out stands where test pictures stand."""
    known = {row["id"]: row for name in ("shots", "normals") for row in rows[name]}
    groups = {
        name: [known[example.id] for example in getattr(fold.split, name)]
        for name in ("shots", "normals", "test_defects", "test_normals")
    }
    return {**rows, **groups, "duplicates": [], "notes": []}
