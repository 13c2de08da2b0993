"""What samples made of real pixels are worth: pasted, bent, and synthesised from patches, with many shots and with few.

    python benchmarks/suites/real_pixels.py --data ../shared/data --out FOLDER --only screw [--shots 3] [--folds 5]

Each arm learns from the same normal parts and shots, and from the samples and controls that its generator made from
the example's plan (100 per defect type); `real-only` learns from no samples. A mixture takes every second sample of
each of two arms, so it holds as many. Figures are means over defect types; intervals are paired over test pictures and
seeds, against `crop_paste` and against `real-only`.

With --folds nothing is read of the test set: the shots are dealt into folds, and so is a part of the normal parts to
learn from. For each fold everything is made and learned anew without its photographs, and the detector is asked about
them. That is how defaults are chosen; without --folds the test set is read, once per arm and seed, and each read is
counted in the results. Samples and answers are kept in FOLDER, so the suite goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sets import DEVICE, FOLDERS, RESULTS, configuration

from flawsmith import registry
from flawsmith.config import Config
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet
from flawsmith.evaluation.arms import REAL, Arm, common_set, made_of, training_set
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.proof import figures
from flawsmith.evaluation.shape import proof_shape, shapes_of
from flawsmith.evaluation.statistics import MEAN, Outcome, compare, draws, resampled
from flawsmith.files import digest, read_json, write_json
from flawsmith.locks import locked
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.pipeline import run_all
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine

PASTE = "crop_paste"
_VARIED = {"generate.guidance": 1.0, "train.steps": 240}


def _started(start: str) -> dict[str, Any]:
    """Return how strongly a diffusion method varies its sketch: what `guidance.py` measured best on both sets."""
    return {"generator.settings": {"start": start, "strength": 0.2}}


ARMS: dict[str, dict[str, Any]] = {
    PASTE: {"generator.name": "crop_paste"},
    "crop_paste, bent": {"generator.name": "crop_paste", "generate.bend": 1.0},
    "crop_paste, bent more": {"generator.name": "crop_paste", "generate.bend": 1.5},
    "patch_synthesis": {"generator.name": "patch_synthesis"},
    "patch_synthesis, bent": {"generator.name": "patch_synthesis", "generate.bend": 1.0},
    "patch_synthesis, new shapes": {"generator.name": "patch_synthesis", "generate.masks": "procedural"},
    "controlnet_inpaint from shots": {"generator.name": "controlnet_inpaint", **_VARIED, **_started("shot")},
    "controlnet_inpaint from patches": {"generator.name": "controlnet_inpaint", **_VARIED, **_started("patches")},
}
"""Arm -> what its generator is told beside the example's settings."""
MIXTURES = {
    "crop_paste, bent + patch_synthesis": ("crop_paste, bent", "patch_synthesis"),
    "crop_paste, plain + bent": (PASTE, "crop_paste, bent"),
}
"""Arm -> the two arms that it takes every second sample of."""
BARE = {f"{name}, no controls": name for name in (PASTE, "patch_synthesis")}
"""Arm -> the arm whose samples it takes, without negative controls."""
SHARED = {
    "generator.settings": {},
    "measure.enabled": False,
    "prove.enabled": False,
    "prove.resamples": 10_000,
}
_LEADS = {"localization": "ap", "detection": "auroc"}
"""Task -> the figure that is printed."""


class Trial:
    """Makes the arms' samples of one split, trains on them, and asks about the test pictures.

    Args:
        config: The example's configuration, with what all arms share.
        folder: Where runs, features and answers are kept.
        detector: The judge's name.
        seeds: Trainings per arm.
        tests: The photographs to be asked about, defects and normal parts; None = the run's own test set.
    """

    def __init__(self, config: Config, folder: Path, detector: str, seeds: int, tests: Split | None = None) -> None:
        self._config, self._folder, self._detector, self._seeds = config, folder, detector, seeds
        first = self._made(PASTE)
        self.split = load_split(first)
        asked = (
            self.split
            if tests is None
            else replace(self.split, test_defects=tests.test_defects, test_normals=tests.test_normals)
        )
        self.product = asked.shots[0].product
        self.defects = tuple(sorted({str(shot.defect) for shot in asked.shots}))
        self.shape = proof_shape(config.prove, shapes_of(asked.normals))
        self.evaluator = Evaluator(asked, self.defects, self.shape, drop_near_duplicates=True)
        self.extractor = FeatureCache(
            load_extractor("efficientnet-lite0", device=DEVICE), folder / "features", half=True
        )
        self._common = common_set(self.split, [], self.shape, self.defects, self.evaluator.forbidden)

    def arms(self, names: Sequence[str]) -> Iterator[Arm]:
        """Yield the arms of these names, `real-only` first, with their samples made."""
        yield Arm(REAL, "shots and normal parts")
        for name in names:
            if name in MIXTURES:
                (samples, controls), (others, other_controls) = (
                    made_of(self._made(one), self.product) for one in MIXTURES[name]
                )
                # Of each the half that the other leaves out, so that all places of the plan are taken once.
                samples = [one for one in samples if one.rank % 2 == 0] + [one for one in others if one.rank % 2]
                controls = [one for one in controls if one.rank % 2 == 0] + [
                    one for one in other_controls if one.rank % 2
                ]
            elif name in BARE:
                samples, controls = made_of(self._made(BARE[name]), self.product)[0], []
            else:
                samples, controls = made_of(self._made(name), self.product)
            yield Arm(name, f"and {len(samples)} samples", tuple(samples), tuple(controls))

    def answers(self, arm: Arm, seeds: Sequence[int] | None = None) -> list[Outcome]:
        """Return the judge's answers after learning from an arm, one per seed; None = all seeds."""
        training: TrainingSet | None = None
        # By its settings too: what `choose` chooses may be another way tomorrow.
        sources = MIXTURES.get(arm.name, (BARE.get(arm.name, arm.name),))
        settings = digest([ARMS.get(source) for source in sources])
        outcomes = []
        for seed in range(self._seeds) if seeds is None else seeds:
            path = self._folder / "answers" / f"{arm.name} {settings[:6]} {self._detector} {seed}.npz"
            if not path.is_file():
                training = training or training_set(self._common, arm, self.split)
                plugin = registry.get("detectors", self._detector)
                detector = plugin(plugin.Settings(), self.defects, extractor=self.extractor, device=DEVICE)
                start = time.process_time()
                for _ in detector.fit(training, torch.Generator().manual_seed(seed)):
                    pass
                self.evaluator.evaluate(detector, set(detector.tells)).save(path)
                print(f"{arm.name}, seed {seed}: {time.process_time() - start:.0f} CPU seconds", flush=True)
            outcomes.append(Outcome.load(path))
        return outcomes

    def _made(self, name: str) -> Run:
        return _made(self._config, self._folder, name)


def prepare(config: Config, folder: Path, names: Sequence[str], detector: str, seeds: int, workers: int) -> None:
    """Make the arms' samples and answers that `tested` reads, so many at the same time, a process each."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        asked = [(config, folder, detector, seeds, dict(ARMS))]
        made = list(dict.fromkeys([PASTE, *names]))
        list(pool.map(_prepared, asked * len(made), made, [None] * len(made)))
        pairs = [(name, seed) for name in (REAL, *names) for seed in range(seeds)]
        list(pool.map(_prepared, asked * len(pairs), [name for name, _ in pairs], [seed for _, seed in pairs]))


def _prepared(asked: tuple[Config, Path, str, int, dict[str, dict[str, Any]]], name: str, seed: int | None) -> None:
    config, folder, detector, seeds, arms = asked
    ARMS.update(arms)
    torch.set_num_threads(1)
    if seed is None:
        _made(config, folder, name)
        return
    trial = Trial(config, folder, detector, seeds)
    arm = next(arm for arm in trial.arms([] if name == REAL else [name]) if arm.name == name)
    trial.answers(arm, [seed])


def _made(config: Config, folder: Path, name: str) -> Run:
    """Return an arm's run, with its samples made."""
    with locked(folder / "runs" / f"{name}.lock"):  # other processes may need the same arm
        run = Run.create(folder / "runs" / name, _told(config, ARMS[name]))
        run_all(run)
        return run


def _told(config: Config, overrides: dict[str, Any]) -> Config:
    """Return a configuration with some keys, "section.key", set."""
    tree = config.model_dump()
    for key, value in overrides.items():
        section, name = key.split(".")
        tree[section][name] = value
    return Config.model_validate(tree)


def tested(
    config: Config,
    folder: Path,
    names: Sequence[str],
    detector: str,
    seeds: int,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """Read the test set: return every arm's figures, and the comparisons of `pairs`; None = with the usual two."""
    trial, tried = Trial(config, folder, detector, seeds), {}
    shots, numbers = len(trial.split.shots), trial.evaluator.evaluation_set.defect
    arms: dict[str, Any] = {}
    for arm in trial.arms(names):
        tried[arm.name] = trial.answers(arm)
        arms[arm.name] = {**arm.facts(), "figures": figures(tried[arm.name])}
        print(trial.product, arm.name, {task: _mean(tried[arm.name], task) for task in _LEADS}, flush=True)
    weights = draws(trial.evaluator.evaluation_set, config.prove.resamples, np.random.default_rng((0, 81)))
    drawn = {name: [resampled(trial.evaluator.evaluation_set, one, weights) for one in tried[name]] for name in tried}
    comparisons = []
    usual = [(name, other) for name in names for other in (REAL, PASTE) if name != other]
    for name, other in usual if pairs is None else pairs:
        rng, exact = np.random.default_rng((0, 82)), (tried[name], tried[other])
        for row in compare(drawn[name], drawn[other], exact, confidence=config.prove.confidence, rng=rng):
            comparisons.append({"arm": name, "against": other, **asdict(row)})
            if row.defect == MEAN and row.task in _LEADS:
                print(trial.product, name, "against", other, row.task, row.difference, [row.low, row.high], flush=True)
    trial.extractor.forget()
    return {
        "shape": list(trial.shape),
        "shots": shots,
        "seeds": seeds,
        "extractor": {"name": trial.extractor.name, "fingerprint": trial.extractor.fingerprint},
        "resamples": config.prove.resamples,
        "test": {"damaged": int((numbers >= 0).sum()), "normal": int((numbers < 0).sum())},
        "test_set_reads": len(tried) * seeds,
        "arms": arms,
        "comparisons": comparisons,
    }


def in_folds(config: Config, folder: Path, names: Sequence[str], detector: str, folds: int) -> dict[str, Any]:
    """Judge the arms inside what may be learned from; return figures per arm, defect type and fold."""
    whole = Run.create(folder / "whole", _told(config, ARMS[PASTE]))
    run_all(whole)
    split, root = load_split(whole), config.data.root.resolve()
    table: dict[str, dict[str, list[float]]] = {}
    for fold in range(folds):
        shots = [
            one
            for defect in sorted({str(s.defect) for s in split.shots})
            for one in [s for s in split.shots if s.defect == defect][fold::folds]
        ]
        normals = split.normals[fold :: max(folds, len(split.normals) // 40)]
        left = [
            path.resolve().relative_to(root).as_posix()
            for one in (*shots, *normals)
            for path in (one.image, *one.masks)
        ]
        fewest = min(
            sum(s.defect == defect for s in split.shots) - sum(s.defect == defect for s in shots)
            for defect in {s.defect for s in split.shots}
        )
        without = _told(config, {"data.exclude": [*config.data.exclude, *left], "data.shots": fewest})
        tests = replace(split, test_defects=tuple(shots), test_normals=tuple(normals))
        trial = Trial(without, folder / f"fold {fold}", detector, 1, tests)
        kept = {one.id for one in (*trial.split.shots, *trial.split.normals)}
        foreign = {one.id for one in trial.split.shots} - {one.id for one in split.shots}
        if foreign or kept & {one.id for one in (*shots, *normals)}:
            raise SystemExit(f"fold {fold}: learns from what it should not: {sorted(foreign)[:3]}")
        for arm in trial.arms(names):
            (outcome,) = trial.answers(arm)
            for task, lead in _LEADS.items():
                for defect, row in outcome.figures[task].items():
                    table.setdefault(arm.name, {}).setdefault(f"{task} {defect}", []).append(round(row[lead], 5))
        trial.extractor.forget()
    for name, rows in table.items():
        print(
            name,
            {key: round(100 * float(np.mean(row)), 1) for key, row in rows.items() if "pictures" not in key},
            flush=True,
        )
    return {"folds": folds, "shots": len(split.shots), "arms": table}


def _mean(outcomes: Sequence[Outcome], task: str) -> float:
    return round(100 * float(np.mean([one.figures[task][MEAN][_LEADS[task]] for one in outcomes])), 1)


def main() -> None:
    """Parse, make, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs and answers go, or lie")
    parser.add_argument("--only", choices=sorted(FOLDERS), help="one set")
    parser.add_argument("--shots", type=int, default=10, help="shots per defect type")
    parser.add_argument("--samples", type=int, default=0, help="samples per defect type; 0 = the example's")
    parser.add_argument("--folds", type=int, default=0, help="judge inside the shots, in so many folds")
    parser.add_argument("--seeds", type=int, default=5, help="trainings per arm of the test")
    parser.add_argument("--detector", default="memory_probe", help="the judge")
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *MIXTURES, *BARE], default=[*ARMS, *MIXTURES, *BARE])
    parser.add_argument("--results", type=Path, default=RESULTS / "real_pixels.json")
    args = parser.parse_args()
    names = list(dict.fromkeys([PASTE, *args.arms]))
    for name in [args.only] if args.only else sorted(FOLDERS):
        count = {"generate.count": args.samples} if args.samples else {}
        config = configuration(args.data, name, {**SHARED, "data.shots": args.shots, **count})
        way = f"{args.folds} folds" if args.folds else "test"
        if args.samples:
            way += f", {args.samples} samples"
        entry = f"{name}, {args.shots} shots, {args.detector}, {way}"
        folder = args.out / f"{name}, {args.shots} shots, {way}"
        if args.folds:
            figures_of = in_folds(config, folder, names, args.detector, args.folds)
        else:
            figures_of = tested(config, folder, names, args.detector, args.seeds)
        results = read_json(args.results) if args.results.is_file() else {}
        results[entry] = {
            "machine": {**machine(), "threads": os.environ["OMP_NUM_THREADS"]},
            "protocol": "clean",
            "told": {arm: ARMS.get(arm, MIXTURES.get(arm, BARE.get(arm))) for arm in names},
            **figures_of,
        }
        write_json(args.results, results)


if __name__ == "__main__":
    main()
