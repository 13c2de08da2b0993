"""Do the pairs help? Train detectors with and without them, and let test pictures that nobody has seen decide.

Protocol "clean": every arm and seed is trained to its end before it looks at the test set, once. Protocol "field": the
papers' way; detectors are tested after every epoch too, and best-on-test stands beside last, both labelled. A product
is proven at a time. Each trained arm is kept in state/prove/, so a killed proof goes on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flawsmith import registry
from flawsmith.config import Config, validate
from flawsmith.data import images
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import RunError
from flawsmith.evaluation.arms import NONE, Arm, Piece, common_set, held_out, make_arms, other_run, pieces, training_set
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.proof import Tried, proof_tree
from flawsmith.evaluation.statistics import ALL, Outcome
from flawsmith.files import digest, write_json
from flawsmith.interfaces import Detector
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.run.dataset import split_data
from flawsmith.run.folder import Run
from flawsmith.run.progress import Advance, progress
from flawsmith.types import Example

REFERENCE = "patchcore"
"""What stands for "no defects at all"."""
_FIELD_SIZE, _LARGEST, _STEP = 256, 384, 32
_DECIDES = (("localization", "ap"), ("detection", "auroc"), ("classification", "accuracy"))
"""By which figure the field protocol calls an epoch the best."""


def prove(run: Run) -> Path:
    """Run the stage; does nothing when it is done already with the same input; returns the path of proof.json.

    Raises:
        RunError: no pairs were generated yet.
        DataError: there are no test pictures to prove anything on, or one of them is among what is learned from.
    """
    config, path = run.config, run.path("proof.json")
    for name in config.prove.detectors:
        registry.require("detectors", name, "prove.detectors")
    registry.known_rivals(config)
    made = run.pairs_hash()
    if not made:
        raise RunError(f"{run.folder}: no pairs are made yet; run `flawsmith generate {run.folder}` first")
    split, part, device = split_data(run), config.features, _device(config)
    extractor = load_extractor(part.extractor, part.source, offline=config.backbone.offline, device=device)
    stamp = _stamp(config, made, split, extractor.fingerprint)
    if run.stage_hash("prove") == stamp and path.is_file():
        return path
    begun = time.time()
    run.forget("prove", "report")
    others = {name: other_run(run, name) for name in config.prove.against}
    cached = FeatureCache(extractor, run.path("state", "features"))
    trainer = _Trainer(run, cached, device, run.path("state", "prove", stamp[:12]))
    products = sorted({example.product for example in split.shots})
    tree = {
        "protocol": config.prove.protocol,
        "detectors": config.prove.detectors,
        "reference": REFERENCE,
        "reduced": trainer.reduced(),
        "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
        "seeds": config.prove.seeds,
        "resamples": config.prove.resamples,
        "confidence": config.prove.confidence,
        "generator": config.generator.name,
        "products": {product: trainer.prove(product, split.of(product), others) for product in products},
    }
    write_json(path, tree)
    cached.forget()
    run.log(stage="prove", seconds=round(time.time() - begun, 1), what=f"{trainer.trained} trainings")
    run.finish("prove", stamp)
    return path


class _Trainer:
    """Trains every arm's detectors and sends them to the evaluation_set."""

    def __init__(self, run: Run, extractor: FeatureCache, device: str, folder: Path) -> None:
        self._run, self._config, self._part = run, run.config, run.config.prove
        self._extractor, self._device, self._folder = extractor, device, folder
        self.trained = 0

    def reduced(self) -> list[str]:
        """Say what a budget below 1 leaves out."""
        names = [*self._part.detectors, REFERENCE]
        return [text for name in names if (text := self._detector(name, ("x",)).reduced(self._part.budget))]

    def prove(self, product: str, split: Split, others: dict[str, Run]) -> dict[str, Any]:
        """Return one product's part of proof.json."""
        defects = tuple(sorted({str(example.defect) for example in split.shots}))
        size = proof_size(self._config, split.normals)
        evaluator = Evaluator(split, defects, size, drop_near_duplicates=self._part.near_duplicates == "drop")
        held = held_out(pieces(self._run, product)[1], split.normals)
        arms = [*make_arms(self._run, others, product, split, held), Arm(NONE, f"normal parts alone ({REFERENCE})")]
        common = common_set(split, held, size, defects, evaluator.forbidden)
        tried = Tried(arms, {}, {}, {}, {})
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
        held: Sequence[Piece],
        tried: Tried,
        advance: Advance,
    ) -> None:
        """Train an arm with every seed, unless it is on disk already."""
        training = None
        for seed in range(self._part.seeds):
            plain = re.sub(r"[^A-Za-z0-9.]+", "-", f"{split.shots[0].product} {arm.name} {seed}")
            place = self._folder / f"{plain}.npz"
            top = place.with_suffix(".best.npz")
            if not place.is_file():
                if training is None:
                    training = common if arm.name == NONE else training_set(common, arm, split)
                last, best = self._learn(arm, training, seed, evaluator, held)
                if best is not None:
                    best.save(top)
                last.save(place)
                self.trained += 1
            one = Outcome.load(place)
            tried.thumbs.setdefault(arm.name, place.relative_to(self._run.path("state", "prove")).as_posix())
            tried.outcomes.setdefault(arm.name, []).append(one)
            if artefact := one.figures.pop("artefact", None):
                tried.artefacts.setdefault(arm.name, []).append(artefact[ALL])
            if top.is_file():
                tried.best.setdefault(arm.name, []).append(Outcome.load(top))
            advance(1, f"{arm.name}, seed {seed}")

    def _learn(
        self, arm: Arm, training: TrainingSet, seed: int, evaluator: Evaluator, held: Sequence[Piece]
    ) -> tuple[Outcome, Outcome | None]:
        """Train one seed's detectors; return their answers, and in the field protocol those of the best epochs."""
        last, best = Outcome(), Outcome() if self._part.protocol == "field" else None
        asked = {"localization", "detection", "classification"}
        for name in [REFERENCE] if arm.name == NONE else self._part.detectors:
            detector = self._detector(name, training.defects)
            own = asked & detector.tells
            if not own:
                continue
            asked -= own
            rng = torch.Generator().manual_seed(self._config.seed * 1000 + seed)
            top: Outcome | None = None
            for _ in detector.fit(training, rng, budget=self._part.budget):
                if best is not None:
                    top = _better(top, evaluator.evaluate(detector, own))
            last.take(evaluator.evaluate(detector, own))
            if best is not None and top is not None:
                best.take(top)
            if "localization" in own and held:
                last.figures["artefact"] = {ALL: evaluator.artefact(detector, held)}
        return last, best

    def _detector(self, name: str, defects: Sequence[str]) -> Detector:
        plugin: type[Detector] = registry.get("detectors", name)
        given = dict(self._part.settings.get(name, {}))
        if "controls" in plugin.Settings.model_fields:
            given = {"controls": self._part.controls} | given
        settings = validate(plugin.Settings, given, where=f"prove.settings.{name}")
        return plugin(
            settings, defects, extractor=self._extractor if plugin.needs_extractor else None, device=self._device
        )


def proof_size(config: Config, normals: Sequence[Example]) -> int:
    """Return the side of the pictures that detectors see."""
    if config.prove.size:
        return config.prove.size
    if config.prove.protocol == "field":
        return _FIELD_SIZE
    sides = [max(images.describe(example.image).shape) for example in normals]
    return int(np.clip(round(float(np.median(sides)) / _STEP) * _STEP, 64, _LARGEST))


def _better(top: Outcome | None, one: Outcome) -> Outcome:
    task, figure = next((task, figure) for task, figure in _DECIDES if task in one.figures)
    if top is None or one.figures[task][ALL][figure] > top.figures[task][ALL][figure]:
        return one
    return top


def _stamp(config: Config, made: str, split: Split, extractor: str) -> str:
    tested = [(e.id, digest(e.image), digest(e.mask) if e.mask else "") for e in split.test_defects]
    tested += [(e.id, digest(e.image), "") for e in split.test_normals]
    return digest(config.model_dump(mode="json", include={"seed", "prove"}), made, tested, extractor)


def _device(config: Config) -> str:
    if config.backbone.device != "auto":
        return config.backbone.device
    return "cuda" if torch.cuda.is_available() else "cpu"
