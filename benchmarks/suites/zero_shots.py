"""What damage without a single shot is worth: detectors that learn from it alone, and beside 1, 3 and 10 real shots.

    python benchmarks/suites/zero_shots.py --data ../shared/data --out FOLDER --only screw [--device cuda] [--seeds 3]

Every generator that needs no shot makes as many samples as the others, of the same plan: the same photographs, places
and seeds (`data.shots = 0`; types, sizes and places are the settings' own, and nothing of the set's damage is known).
Real defects are test only, and the test set is the same for every arm: what is left of each type behind its first ten
photographs, without second photographs of these. Arms: patchcore, which learns from normal parts alone; memory_probe
with the samples of a generator and no shot; with 1, 3 or 10 shots of each type alone; with both. `borrowed` is
patch_synthesis with the first ten shots of each type of the other real set, as `generate.transfer` gives them. An arm
that is done is not trained again, so a killed suite goes on; --generators, --beside-shots, --shots and --seeds say
which arms.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sets import FOLDERS, RESULTS, configuration, link

from flawsmith.config import SUIT_ANYTHING, Config
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet
from flawsmith.evaluation.arms import Made, common_set, made_of
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.proof import figures
from flawsmith.evaluation.shape import proof_shape, shapes_of
from flawsmith.evaluation.statistics import ALL, LEADS, MEAN, Outcome, compare, draws, resampled
from flawsmith.evaluation.trainings import REFERENCE, device_of, load_detector, outcome_file
from flawsmith.files import digest, read_json, write_json
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.registry import entries
from flawsmith.run.dataset import open_dataset, scanned_dataset
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train
from flawsmith.types import Example

MOST_SHOTS = 10
"""Of each type; what lies behind them is the test set."""
BORROWED = "borrowed"
GENERATORS = (*(name for name in ("rendered", "cutpaste", "nsa", "perlin") if name in entries("generators")), BORROWED)
NORMALS = "normal parts"
"""The arm of patchcore."""


def arm_name(shots: int, generator: str) -> str:
    """Return how an arm is called in the results."""
    learned = [f"{shots} shots" if shots > 1 else "1 shot"] * bool(shots) + [generator] * bool(generator)
    return " + ".join(learned) or NORMALS


def samples_of(config: Config, generator: str, folder: Path) -> tuple[list[Made], float]:
    """Make a generator's samples without shots, or take those that are made; return them, and seconds per sample."""
    data = config.data.model_copy(update={"shots": 0})
    told = config.generator.model_copy(update={"name": generator, "settings": {}})
    run = Run.create(folder, config.model_copy(update={"data": data, "generator": told}))
    seconds = painted(run)
    (product,) = {sample.product for sample in run.samples()}
    return made_of(run, product)[0], seconds


def painted(run: Run) -> float:
    """Make a run's samples, or take those that are made; return processor seconds per sample."""
    dataset = open_dataset(run)
    train(run, dataset)
    started = time.process_time()
    generate(run, data=dataset)
    seconds = time.process_time() - started
    known = run.path("state", "seconds.json")
    if not known.is_file():  # else they were there already
        write_json(known, {"seconds_per_sample": round(seconds / max(1, len(run.samples())), 3)})
    return float(read_json(known)["seconds_per_sample"])


def borrowed_samples(config: Config, other: Config, folder: Path, count: int) -> tuple[list[Made], float]:
    """Lay another set's shots beside the normal parts of this one, and paint them there; as `samples_of`."""
    root, names, normals = folder / "photographs", {}, scanned_dataset(config).split.normals
    for number, normal in enumerate(normals):
        path = root / f"own/train/good/{number:05d}{normal.image.suffix}"
        names[path.relative_to(root).as_posix()] = normal.id
        link(path, normal.image)
    lent = scanned_dataset(other).split
    for number, example in enumerate([*lent.normals, *lent.shots]):
        place, name = f"test/{example.defect}" if example.defect else "train/good", f"{number:05d}"
        link(root / f"other/{place}/{name}{example.image.suffix}", example.image)
        for mask in example.masks:
            link(root / f"other/ground_truth/{example.defect}/{name}_mask{mask.suffix}", mask)
    types = sorted({str(shot.defect) for shot in lent.shots})
    tree = config.model_dump()
    tree["data"] |= {"root": root, "layout": "mvtec", "products": ["own", "other"], "normal": [], "product": ""}
    tree["data"] |= {"patterns": [], "shots": MOST_SHOTS}
    tree["generator"] = {"name": "patch_synthesis"}
    transfer = [{"from": "other", "defect": defect, "onto": "own"} for defect in types]
    tree["generate"] |= {"transfer": transfer, "count": max(1, count // len(types))}
    run = Run.create(folder / "run", Config.model_validate(tree))
    seconds = painted(run)
    made, ranks = [], dict.fromkeys(types, 0)
    for sample in run.samples():
        if sample.transferred_from:
            mask = run.path(sample.mask)
            example = Example(sample.image, run.path(sample.image), normals[0].product, sample.defect, (mask,))
            made.append(Made(example, mask, names[sample.normal], ranks[sample.defect], defect=sample.defect))
            ranks[sample.defect] += 1
    return made, seconds


def first_shots(split: Split, count: int) -> Split:
    """Return the split with the first so many shots of each type."""
    taken: dict[str | None, int] = {}
    kept = []
    for shot in split.shots:
        taken[shot.defect] = taken.get(shot.defect, 0) + 1
        if taken[shot.defect] <= count:
            kept.append(shot)
    return replace(split, shots=tuple(kept))


class Trials:
    """Trains the arms of one set, and keeps what they answered."""

    def __init__(self, config: Config, split: Split, made: dict[str, list[Made]], out: Path) -> None:
        self.config, self.split, self.out, self.made = config, split, out, made
        drawn = {str(one.example.defect) for samples in made.values() for one in samples}
        real = {str(one.defect) for one in (*split.shots, *split.test_defects)}
        self.defects = tuple(sorted(drawn | real))
        self.shape = proof_shape(config.prove, shapes_of(split.normals))
        self.evaluator = Evaluator(split, self.defects, self.shape, drop_near_duplicates=True)
        self.common = common_set(split, (), self.shape, self.defects, self.evaluator.forbidden)
        self.device = device_of(config)
        part = config.features
        extractor = load_extractor(part.extractor, part.source, offline=True, device=self.device)
        self.extractor = FeatureCache(extractor, out / "features", half=True)

    def outcomes(self, shots: int, generator: str, seeds: int) -> list[Outcome]:
        """Return what an arm's detectors answer, one per seed; trained where that is not on disk."""
        name, answered = arm_name(shots, generator), []
        made = digest([(one.example.id, one.normal) for one in self.made.get(generator, [])])[:8]
        training = None
        for seed in range(seeds):
            path = self.out / outcome_file(made, name, seed)
            if not path.is_file():
                training = training or self.training(shots, generator)
                started = time.perf_counter()
                self._trained(training, seed, REFERENCE if name == NORMALS else "memory_probe").save(path)
                print(f"  {name}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
            answered.append(Outcome.load(path))
        return answered

    def training(self, shots: int, generator: str) -> TrainingSet:
        """Return what an arm learns from."""
        training = self.common.clone()
        for example in first_shots(self.split, shots).shots:
            training.add(example, "real")
        for sample in self.made.get(generator, []):
            training.add(sample.example, "made", photograph=sample.normal)
        return training

    def _trained(self, training: TrainingSet, seed: int, name: str) -> Outcome:
        detector = load_detector(self.config, name, self.defects, self.extractor, self.device)
        for _ in detector.fit(training, torch.Generator().manual_seed(seed), budget=self.config.prove.budget):
            pass
        return self.evaluator.evaluate(detector, {"localization", "detection"} & detector.tells)

    def compared(self, answers: dict[str, list[Outcome]], pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """Return the paired comparisons of arms, mean over defect types."""
        part, known = self.config.prove, self.evaluator.evaluation_set
        weights = draws(known, part.resamples, np.random.default_rng(71))
        asked = {name for pair in pairs for name in pair}
        drawn = {name: [resampled(known, one, weights) for one in answers[name]] for name in asked}
        rows = []
        for one, other in pairs:
            exact = answers[one], answers[other]
            rng = np.random.default_rng(72)
            for row in compare(drawn[one], drawn[other], exact, confidence=part.confidence, rng=rng):
                if row.defect == MEAN:
                    rows.append({"arm": one, "against": other, **asdict(row)})
        return rows


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return task -> defect type or the mean -> the deciding figure, with a value for each seed."""
    table = figures(outcomes)
    kept: dict[str, Any] = {}
    for task, lead in LEADS.items():
        for defect, row in table.get(task, {}).items():
            if lead in row:
                kept.setdefault(task, {})[defect] = row[lead]
    if "localization" in table:
        kept["regions"] = {MEAN: table["localization"][MEAN].get("aupro"), ALL: table["localization"][ALL].get("aupro")}
    return kept


def main() -> None:
    """Parse, make, train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="where samples, features and answers go, or lie")
    parser.add_argument("--only", choices=sorted(FOLDERS), required=True, help="the set")
    parser.add_argument("--generators", nargs="*", choices=GENERATORS, default=list(GENERATORS))
    parser.add_argument("--shots", nargs="*", type=int, choices=(0, 1, 3, MOST_SHOTS), default=[0, 1, 3, MOST_SHOTS])
    parser.add_argument("--beside-shots", nargs="*", choices=GENERATORS, default=["rendered"], help="of --generators")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=300, help="of each generator, all types together")
    parser.add_argument("--budget", type=float, default=1.0, help="share of the detectors' full training")
    parser.add_argument("--device", default="auto", help="as backbone.device")
    parser.add_argument("--results", type=Path, default=RESULTS / "zero_shots.json")
    args = parser.parse_args()
    told: dict[str, Any] = {"data.shots": MOST_SHOTS, "backbone.device": args.device, "prove.budget": args.budget}
    told |= {"generate.count": max(1, args.samples // len(SUIT_ANYTHING)), "generate.controls": 0.0}
    config, out = configuration(args.data, args.only, told), args.out / args.only
    made, seconds = {}, {}
    for name in args.generators:
        if name == BORROWED:
            (lender,) = set(FOLDERS) - {args.only}
            other = configuration(args.data, lender, {"data.shots": MOST_SHOTS})
            made[name], seconds[name] = borrowed_samples(config, other, out / name, args.samples)
        else:
            made[name], seconds[name] = samples_of(config, name, out / name)
        print(f"{name}: {len(made[name])} samples, {seconds[name]} CPU s each", flush=True)
    split = scanned_dataset(config).split
    (product,) = {normal.product for normal in split.normals}
    trials = Trials(config, split.of(product), made, out)
    entry: dict[str, Any] = {
        "machine": {**machine(), "threads": os.environ["OMP_NUM_THREADS"], "device": trials.device},
        "shape": list(trials.shape),
        "seeds": args.seeds,
        "budget": args.budget,
        "samples": {name: len(samples) for name, samples in made.items()},
        "seconds_per_sample": seconds,
        "test_pictures": len(trials.evaluator.tests),
        "arms": {},
    }
    answers: dict[str, list[Outcome]] = {}
    wanted = [(0, "")] + [(0, name) for name in args.generators if 0 in args.shots]
    wanted += [(shots, name) for shots in args.shots if shots for name in ("", *args.beside_shots)]
    for shots, name in wanted:
        answers[arm_name(shots, name)] = trials.outcomes(shots, name, args.seeds)
        entry["arms"][arm_name(shots, name)] = summary(answers[arm_name(shots, name)])
        mean = {task: table[MEAN]["mean"] for task, table in entry["arms"][arm_name(shots, name)].items()}
        print(args.only, arm_name(shots, name), mean, flush=True)
        _write(args.results, args.only, entry)
    pairs = [(arm_name(shots, name), arm_name(shots, "")) for shots, name in wanted if name]
    pairs += [("rendered", name) for name in args.generators if "rendered" in answers and name in answers]
    entry["comparisons"] = trials.compared(answers, [pair for pair in pairs if pair[0] != pair[1]])
    _write(args.results, args.only, entry)
    for row in entry["comparisons"]:
        print(args.only, row["arm"], "against", row["against"], row["task"], row["verdict"], row["difference"])


def _write(path: Path, name: str, entry: dict[str, Any]) -> None:
    results = read_json(path) if path.exists() else {}
    write_json(path, {**results, name: entry})


if __name__ == "__main__":
    main()
