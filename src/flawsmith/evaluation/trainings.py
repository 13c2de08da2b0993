"""The trainings of a proof: every arm's detectors, with every seed, each kept on disk as soon as it has answered."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from flawsmith import registry
from flawsmith.config import Config, validate
from flawsmith.data.inspection_tiles import Tiles
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet
from flawsmith.evaluation.arms import (
    OURS,
    REAL,
    Arm,
    Made,
    common_set,
    held_out,
    made_of,
    make_arms,
    training_set,
)
from flawsmith.evaluation.calibration import calibration_normals, kept_away
from flawsmith.evaluation.evaluator import Evaluator, describe_ahead
from flawsmith.evaluation.explain import Explained, Explainer
from flawsmith.evaluation.proof import Tried, proof_tree
from flawsmith.evaluation.shape import proof_shape, proof_tiles, shapes_of
from flawsmith.evaluation.statistics import ALL, NONE, Outcome
from flawsmith.evaluation.tiled import Tiled
from flawsmith.files import digest, read_json
from flawsmith.interfaces import Detector
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.run.folder import Run

REFERENCE = "patchcore"
"""What stands for "no defects at all"."""
_DECIDES = (("localization", "ap"), ("detection", "auroc"), ("classification", "accuracy"))
"""By which figure the field protocol calls an epoch the best."""


def outcome_file(product: str, arm: str, seed: int) -> str:
    """Return the name of the file that holds the outcome of one training; no two products share one.

    >>> outcome_file("magnet", "ours, no controls", 0)
    'magnet-ours-no-controls-0.npz'
    """
    plain = _plain(product)[:60]
    # "a b" looks like "a-b" then, and a name in Korean like any other.
    distinct = plain if plain == product else f"{plain}-{digest(product)[:8]}"
    return f"{_plain(f'{distinct} {arm} {seed}')}.npz"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)


@dataclass(frozen=True)
class _Bench:
    """What all arms of one product have in common."""

    split: Split
    evaluator: Evaluator
    held: list[Made]
    """Controls that judge artefacts."""
    arms: list[Arm]
    load: Callable[[], TrainingSet]
    """Reads the pictures that every arm learns from."""

    @cached_property
    def common(self) -> TrainingSet:
        """What every arm learns from; read when something is to be trained."""
        return self.load()


class Trainings:
    """Trains every arm's detectors, and has them evaluated."""

    def __init__(self, run: Run, rivals: dict[str, Run], extractor: Extractor, stamp: str) -> None:
        self._run, self._config, self._part, self._rivals = run, run.config, run.config.prove, rivals
        self._extractor = FeatureCache(extractor, run.path("state", "features"), half=True)
        self._device, self._stamp = device_of(run.config), stamp
        self._folder = run.path("state", "prove", stamp)
        self._benches: dict[str, _Bench] = {}
        self._training: tuple[Arm, TrainingSet] | None = None

    def reduced(self) -> list[str]:
        """Say what a budget below 1 leaves out."""
        names = dict.fromkeys([*self._part.detectors, REFERENCE])
        return [text for name in names if (text := self._detector(name, ("x",)).reduced(self._part.budget))]

    def forget(self) -> None:
        """Remove the features of the proof's pictures."""
        self._extractor.forget()

    def missing(self, product: str, split: Split) -> list[tuple[str, str, int]]:
        """Return the trainings of a product that are not on disk yet: (product, arm, seed) each."""
        arms, seeds = self._bench(product, split).arms, range(self._part.seeds)
        return [
            (product, arm.name, seed) for arm in arms for seed in seeds if not self._path(product, arm, seed).is_file()
        ]

    def extent(self, product: str, split: Split) -> tuple[int, int]:
        """Return how many pictures all arms of a product share, and about how many pixels all pictures have together.

        Shared is what each arm learns from beside its samples, and what detectors are asked about.
        """
        bench = self._bench(product, split)
        common, asked = len(bench.common), bench.evaluator.asked
        made = {one.example.id for arm in bench.arms for one in (*arm.samples, *arm.controls)}
        # What is asked about is held whole, also where what is learned from is cut in tiles.
        whole = sum(math.prod(bench.evaluator.size_of(example)) for example in asked)
        return common + len(asked), (common + len(made)) * math.prod(bench.evaluator.shape) + whole

    def describe(self, product: str, split: Split, places: Iterable[int]) -> list[str]:
        """Compute and keep the features of some of the shared pictures; return the sizes of pictures looked at."""
        bench = self._bench(product, split)
        describe_ahead(self._extractor, bench.common, bench.evaluator, places)
        return self._extractor.remembered()

    def remember(self, sizes: Iterable[str]) -> None:
        """Have `forget` remove what a training in another process left."""
        self._extractor.remember(sizes)

    def prove(self, product: str, split: Split) -> dict[str, Any]:
        """Return one product's part of proof.json; all its trainings are on disk."""
        bench = self._bench(product, split)
        tried = Tried(bench.arms, {}, {}, {}, {}, {})
        for arm in bench.arms:
            self._read(arm, bench, tried)
        return proof_tree(self._config, split, bench.evaluator, tried, len(bench.held))

    def train_one(self, product: str, split: Split, name: str, seed: int) -> list[str]:
        """Train an arm, by its name, with one seed, unless it is on disk; return the sizes of pictures it looked at."""
        bench = self._bench(product, split)
        self._train(next(arm for arm in bench.arms if arm.name == name), bench, seed)
        return self._extractor.remembered()

    def _bench(self, product: str, split: Split) -> _Bench:
        if product not in self._benches:
            self._benches.clear()  # it holds the pictures of a product
            self._benches[product] = self._set_up(product, split)
        return self._benches[product]

    def _set_up(self, product: str, split: Split) -> _Bench:
        defects = tuple(sorted({str(example.defect) for example in split.shots}))
        photographs = shapes_of(split.normals)
        shape, tiles = proof_shape(self._part, photographs), proof_tiles(self._part, photographs)
        made = [one for run in (self._run, *self._rivals.values()) for group in made_of(run, product) for one in group]
        held = held_out(made_of(self._run, product)[1], split.normals)
        beneath = {control.normal for control in held}
        calibration = calibration_normals(
            split.normals, beneath, [name for one in made for name in {one.normal, one.donor}]
        )
        evaluator = Evaluator(
            split,
            defects,
            shape,
            drop_near_duplicates=self._part.near_duplicates == "drop",
            calibration=calibration,
            tiles=tiles,
        )
        away = kept_away(split.normals, beneath | {example.id for example in calibration})
        arms = make_arms(self._run, self._rivals, product, split, away)
        arms.append(Arm(NONE, f"normal parts alone ({REFERENCE})"))
        load = partial(common_set, split, away, shape, defects, evaluator.forbidden, tiles)
        return _Bench(split, evaluator, held, arms, load)

    def _path(self, product: str, arm: Arm, seed: int) -> Path:
        """Return the file of a training's outcome; those of its best epoch and of what it looked at lie beside it."""
        return self._folder / outcome_file(product, arm.name, seed)

    def _train(self, arm: Arm, bench: _Bench, seed: int) -> None:
        """Train an arm with one seed, unless it is on disk already."""
        path = self._path(bench.split.shots[0].product, arm, seed)
        if path.is_file():
            return
        if self._training is None or self._training[0] is not arm:
            self._training = None  # two would be in memory
            common = bench.common
            self._training = arm, common if arm.name == NONE else training_set(common, arm, bench.split)
        training = self._training[1]
        parts = bench.split, bench.evaluator, training, self._extractor, self._device
        explainer = Explainer(*parts) if self._explains(arm, seed) else None
        last, best, explained = self._learn(arm, training, seed, bench.evaluator, bench.held, explainer, path)
        if explained is not None and explained.faults:
            explained.save(path.with_suffix(".explained.json"))
        if best is not None:
            best.save(path.with_suffix(".best.npz"))
        last.save(path)
        for name in self._part.detectors:
            for unfinished in _unfinished(path, name):
                unfinished.unlink(missing_ok=True)

    def _explains(self, arm: Arm, seed: int) -> bool:
        """Return whether a training says what it looked at: the last seed of ours; the report shows a few faults."""
        return arm.name == OURS and seed == self._part.seeds - 1

    def _read(self, arm: Arm, bench: _Bench, tried: Tried) -> None:
        """Read what came of an arm's trainings."""
        for seed in range(self._part.seeds):
            path = self._path(bench.split.shots[0].product, arm, seed)
            best_path, explained_path = path.with_suffix(".best.npz"), path.with_suffix(".explained.json")
            outcome = Outcome.load(path)
            root = self._run.path("state", "prove")
            tried.thumbs.setdefault(arm.name, path.relative_to(root).as_posix())
            if self._explains(arm, seed) and explained_path.is_file():  # not there where an earlier release trained it
                maps = explained_path.with_suffix(".png").relative_to(root).as_posix()
                tried.explanations = {"seed": seed, "maps": maps, **read_json(explained_path)}
            tried.outcomes.setdefault(arm.name, []).append(outcome)
            for name, rows in (("artefact", tried.artefacts), ("facts", tried.facts)):
                if figures := outcome.figures.pop(name, None):
                    rows.setdefault(arm.name, []).append(figures[ALL])
            if best_path.is_file():
                tried.best.setdefault(arm.name, []).append(Outcome.load(best_path))

    def _learn(
        self,
        arm: Arm,
        training: TrainingSet,
        seed: int,
        evaluator: Evaluator,
        held: Sequence[Made],
        explainer: Explainer | None,
        path: Path,
    ) -> tuple[Outcome, Outcome | None, Explained | None]:
        """Train one seed's detectors, from where a killed training kept how far it was, beside `path`.

        Returns:
            Their answers; in the field protocol those of the best epochs; and what the explainer says of the one that
            told localization, None = it was not asked.
        """
        last, best = Outcome(), Outcome() if self._part.protocol == "field" else None
        explained = None
        open_tasks = {"localization", "detection", "classification"}
        for name in [REFERENCE] if arm.name == NONE else self._part.detectors:
            detector = self._detector(name, training.defects, training.tiles)
            tasks = open_tasks & detector.tells
            if not tasks:
                continue
            open_tasks -= tasks
            rng = torch.Generator().manual_seed(self._config.seed * 1000 + seed)
            detector.checkpoint, tested = _unfinished(path, name)
            goes_on = best is not None and detector.checkpoint.is_file() and tested.is_file()
            top = Outcome.load(tested) if goes_on else None
            for _ in detector.fit(training, rng, budget=self._part.budget):
                if best is not None and (one := evaluator.evaluate(detector, tasks)) is _better(top, one):
                    top = one
                    top.save(tested)
            last.take(evaluator.evaluate(detector, tasks))
            if facts := detector.facts():
                last.figures.setdefault("facts", {}).setdefault(ALL, {}).update(facts)
            if best is not None and top is not None:
                best.take(top)
            if "detection" in tasks and evaluator.calibration:
                shifts = arm.name in (REAL, OURS, NONE, *self._part.against)
                last.take(evaluator.operate(detector, shifts=shifts))
            if "localization" in tasks and held:
                last.figures["artefact"] = {ALL: evaluator.artefact(detector, held)}
            if "localization" in tasks and explainer is not None:
                explained = explainer.explain(detector, name)
        return last, best, explained

    def _detector(self, name: str, defects: Sequence[str], tiles: Tiles | None = None) -> Detector:
        return load_detector(self._config, name, defects, self._extractor, self._device, tiles)


def proof_extractor(config: Config) -> Extractor:
    part = config.features
    return load_extractor(part.extractor, part.source, offline=config.backbone.offline, device=device_of(config))


def load_detector(
    config: Config,
    name: str,
    defects: Sequence[str],
    extractor: Extractor,
    device: str,
    tiles: Tiles | None = None,
) -> Detector:
    """Return an untrained detector with the settings of `prove`; where there are tiles, one that is asked in tiles.

    Raises:
        ConfigError: it is unknown, or one of its settings.
    """
    part, plugin = config.prove, registry.get("detectors", name)
    given = dict(part.settings.get(name, {}))
    if "controls" in plugin.Settings.model_fields:
        given = {"controls": part.controls} | given
    settings = validate(plugin.Settings, given, where=f"prove.settings.{name}")
    with registry.making("detectors", name):
        detector: Detector = plugin(
            settings, defects, extractor=extractor if plugin.needs_extractor else None, device=device
        )
    return detector if tiles is None else Tiled(detector, tiles)


def _unfinished(path: Path, name: str) -> tuple[Path, Path]:
    """Return where a detector keeps how far it is, and its best answers so far; both go when the training is over."""
    return path.with_suffix(f".{name}.training"), path.with_suffix(f".{name}.tested.npz")


def _better(top: Outcome | None, one: Outcome) -> Outcome:
    task, figure = next((task, figure) for task, figure in _DECIDES if task in one.figures)
    if top is None or one.figures[task][ALL][figure] > top.figures[task][ALL][figure]:
        return one
    return top


def device_of(config: Config) -> str:
    """Return where detectors compute."""
    if config.backbone.device != "auto":
        return config.backbone.device
    return "cuda" if torch.cuda.is_available() else "cpu"
