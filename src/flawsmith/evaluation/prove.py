"""Do the samples help? Train detectors with and without them, and let test pictures that nobody has seen decide.

Protocol "clean": every arm and seed is trained to its end before it looks at the test set, once. Protocol "field": the
papers' way; detectors are tested after every epoch too, and best-on-test stands beside last, both labelled. A product
is proven at a time. Each trained arm is kept in state/prove/, so a killed proof goes on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from flawsmith import registry
from flawsmith.config import Config, validate
from flawsmith.data.inspection_tiles import Tiles
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import DataError, RunError
from flawsmith.evaluation.arms import (
    NONE,
    OURS,
    REAL,
    Arm,
    Made,
    Synthesize,
    common_set,
    held_out,
    made_of,
    make_arms,
    rival_run,
    training_set,
)
from flawsmith.evaluation.calibration import calibration_normals, kept_away
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.explain import Explained, Explainer
from flawsmith.evaluation.false_discovery import correct
from flawsmith.evaluation.proof import Tried, proof_tree
from flawsmith.evaluation.shape import proof_shape, proof_tiles, shapes_of
from flawsmith.evaluation.statistics import ALL, Outcome
from flawsmith.evaluation.tiled import Tiled
from flawsmith.files import digest, read_json, write_json
from flawsmith.interfaces import Detector
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.stage import Inputs, stage
from flawsmith.run.unchanged import require_as_learned, require_as_made
from flawsmith.types import Advance

REFERENCE = "patchcore"
"""What stands for "no defects at all"."""
_DECIDES = (("localization", "ap"), ("detection", "auroc"), ("classification", "accuracy"))
"""By which figure the field protocol calls an epoch the best."""
_READ_AFTERWARDS = {"prove.false_alarm_rate", "prove.resamples", "prove.confidence"}
"""Settings that are read when all detectors have answered: another value trains none of them again."""


def prove(run: Run, synthesize: Synthesize, data: Dataset | None = None) -> Path:
    """Run the stage; does nothing when it is done already with the same input; returns the path of proof.json.

    Args:
        run: The run.
        synthesize: Trains and generates the runs of other generators (`prove.against`).
        data: Its photographs, when they are open already.

    Raises:
        RunError: no samples were generated yet, or they or their photographs were changed since.
        DataError: the run has no shots or no test pictures to prove anything on, or one of these is learned from.
    """
    config, path = run.config, run.path("proof.json")
    for name in config.prove.detectors:
        registry.require("detectors", name, "prove.detectors")
    registry.known_rivals(config)
    made = run.samples_hash()
    if not made:
        raise RunError(f"{run.folder}: no samples are made yet; run `flawsmith generate {run.folder}` first")
    data = data or open_dataset(run)
    if not data.split.shots:
        raise DataError(f"{run.folder}: a proof compares with real shots, and this run learns from none; give it some")
    require_as_learned(run, data)
    require_as_made(run, [*run.kept(), *run.controls()])
    split, part, device = data.split, config.features, device_of(config)
    extractor = load_extractor(part.extractor, part.source, offline=config.backbone.offline, device=device)
    tests = data.content((*split.test_defects, *split.test_normals))
    inputs = Inputs.of(config, "prove", samples=made, tests=tests, extractor=extractor.fingerprint)
    with stage(run, "prove", inputs, outputs=[path]) as work:
        if work.done:
            return path
        rivals = {name: rival_run(run, name, data, synthesize) for name in config.prove.against}
        cached = FeatureCache(extractor, run.path("state", "features"), half=True)
        trainer = _Trainer(run, cached, device, run.path("state", "prove", _learned_from(inputs)[:12]))
        names = sorted({example.product for example in split.shots})
        products = {name: trainer.prove(name, split.of(name), rivals) for name in names}
        correct(products, 1 - config.prove.confidence)
        tree = {
            "protocol": config.prove.protocol,
            "detectors": config.prove.detectors,
            "reference": REFERENCE,
            "reduced": trainer.reduced(),
            "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
            "seeds": config.prove.seeds,
            "resamples": config.prove.resamples,
            "confidence": config.prove.confidence,
            "generator": config.generator.label,
            "products": products,
        }
        write_json(path, tree)
        cached.forget()
        work.what = f"{trainer.trained} trainings"
    return path


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


class _Trainer:
    """Trains every arm's detectors, and has them evaluated."""

    def __init__(self, run: Run, extractor: FeatureCache, device: str, folder: Path) -> None:
        self._run, self._config, self._part = run, run.config, run.config.prove
        self._extractor, self._device, self._folder = extractor, device, folder
        self.trained = 0

    def reduced(self) -> list[str]:
        """Say what a budget below 1 leaves out."""
        names = dict.fromkeys([*self._part.detectors, REFERENCE])
        return [text for name in names if (text := self._detector(name, ("x",)).reduced(self._part.budget))]

    def prove(self, product: str, split: Split, rivals: dict[str, Run]) -> dict[str, Any]:
        """Return one product's part of proof.json."""
        defects = tuple(sorted({str(example.defect) for example in split.shots}))
        photographs = shapes_of(split.normals)
        shape, tiles = proof_shape(self._part, photographs), proof_tiles(self._part, photographs)
        made = [one for run in (self._run, *rivals.values()) for group in made_of(run, product) for one in group]
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
        arms = [*make_arms(self._run, rivals, product, split, away), Arm(NONE, f"normal parts alone ({REFERENCE})")]
        common = common_set(split, away, shape, defects, evaluator.forbidden, tiles)
        tried = Tried(arms, {}, {}, {}, {}, {})
        name = f"prove {product}"
        with progress(name, len(arms) * self._part.seeds, "trainings") as advance:
            for arm in arms:
                self._try(arm, common, split, evaluator, held, tried, advance)
        return proof_tree(self._config, split, evaluator, tried, len(held))

    def _try(
        self,
        arm: Arm,
        common: TrainingSet,
        split: Split,
        evaluator: Evaluator,
        held: Sequence[Made],
        tried: Tried,
        advance: Advance,
    ) -> None:
        """Train an arm with every seed, unless it is on disk already."""
        training = None
        for seed in range(self._part.seeds):
            path = self._folder / outcome_file(split.shots[0].product, arm.name, seed)
            best_path, explained_path = path.with_suffix(".best.npz"), path.with_suffix(".explained.json")
            # The last seed of ours says what it looked at: the report shows a few faults with it.
            explains = arm.name == OURS and seed == self._part.seeds - 1
            if not path.is_file():
                if training is None:
                    training = common if arm.name == NONE else training_set(common, arm, split)
                explainer = Explainer(split, evaluator, training, self._extractor, self._device) if explains else None
                last, best, explained = self._learn(arm, training, seed, evaluator, held, explainer)
                if explained is not None and explained.faults:
                    explained.save(explained_path)
                if best is not None:
                    best.save(best_path)
                last.save(path)
                self.trained += 1
            outcome = Outcome.load(path)
            root = self._run.path("state", "prove")
            tried.thumbs.setdefault(arm.name, path.relative_to(root).as_posix())
            if explains and explained_path.is_file():  # not there where an earlier release trained it
                maps = explained_path.with_suffix(".png").relative_to(root).as_posix()
                tried.explanations = {"seed": seed, "maps": maps, **read_json(explained_path)}
            tried.outcomes.setdefault(arm.name, []).append(outcome)
            for name, rows in (("artefact", tried.artefacts), ("facts", tried.facts)):
                if figures := outcome.figures.pop(name, None):
                    rows.setdefault(arm.name, []).append(figures[ALL])
            if best_path.is_file():
                tried.best.setdefault(arm.name, []).append(Outcome.load(best_path))
            advance(1, f"{arm.name}, seed {seed}")

    def _learn(
        self,
        arm: Arm,
        training: TrainingSet,
        seed: int,
        evaluator: Evaluator,
        held: Sequence[Made],
        explainer: Explainer | None,
    ) -> tuple[Outcome, Outcome | None, Explained | None]:
        """Train one seed's detectors.

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
            top: Outcome | None = None
            for _ in detector.fit(training, rng, budget=self._part.budget):
                if best is not None:
                    top = _better(top, evaluator.evaluate(detector, tasks))
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


def _learned_from(inputs: Inputs) -> str:
    """Identify what detectors learn from; arms of releases without calibration normals have other names."""
    settings = {name: value for name, value in inputs.settings.items() if name not in _READ_AFTERWARDS}
    return digest(settings, dict(inputs.content), "calibration normals are kept away")


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
