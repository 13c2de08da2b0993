"""Does a trained generator know where the damage is? `denoising` reads it; patchcore and memory_probe stand beside it.

    python benchmarks/suites/denoising.py --data ../shared/data --out FOLDER --only screw
        [--run controlnet_inpaint=RUN] [--each 20] [--normals 40] [--set prove.size=256] [--seeds 3]

Read are the generators of finished runs of the set's examples (`--run METHOD=RUN`; without, the examples of `METHODS`
are trained in --out), by the words for damage, by the word for normal alone, and `dual_branch` by its second branch;
and the frozen backbone. `patchcore` learns the same normal parts, `memory_probe` the shots too. Asked about are at most
so many test pictures of each type and normal ones, evenly spread. Nothing of `denoising` is tuned on these sets: its
levels and noises were chosen on factory parts. Answers are kept in --out, so a killed suite goes on.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from ablations import EXAMPLES as ENDINGS
from sets import FOLDERS, RESULTS, configuration, with_damage

from flawsmith import registry
from flawsmith.config import parse_overrides
from flawsmith.data.split import Split, provable
from flawsmith.data.training_set import TrainingSet
from flawsmith.evaluation.arms import REAL, Arm, common_set, training_set
from flawsmith.evaluation.calibration import evenly_spaced
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.proof import figures
from flawsmith.evaluation.shape import proof_shape, shapes_of
from flawsmith.evaluation.statistics import LEADS, MEAN, Outcome
from flawsmith.files import read_json, write_json
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.run.dataset import load_split, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.synthesis.train import train

FROZEN = "frozen"
"""In place of a method: the backbone that nothing was trained on."""
METHODS = ("controlnet_inpaint", "cross_modal", "dual_branch", FROZEN)
BESIDE = ("patchcore", "memory_probe")


def asked_about(split: Split, each: int, normals: int) -> Split:
    """Return the split with so many test pictures of each type, and normal ones, second photographs left out."""
    kept = provable(split, drop_near_duplicates=True)
    chosen = []
    damaged = with_damage(kept.test_defects)
    for defect in sorted({str(one.defect) for one in damaged}):
        chosen += evenly_spaced([one for one in damaged if one.defect == defect], each)
    return replace(split, test_defects=tuple(chosen), test_normals=tuple(evenly_spaced(kept.test_normals, normals)))


def read_from(args: argparse.Namespace, method: str) -> Run:
    """Return the trained run of a method."""
    known = dict(one.split("=", 1) for one in args.run)
    if method in known:
        return Run.open(known[method])
    overrides = {"generate.controls": 0.0, **parse_overrides(args.set)}
    run = Run.create(
        args.out / args.only / method, configuration(args.data, f"{args.only}{ENDINGS[method]}", overrides)
    )
    train(run, open_dataset(run))
    return run


def rows_of(args: argparse.Namespace) -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    """Return row -> (detector, its settings, facts of what is read)."""
    rows: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {name: (name, {}, {}) for name in args.beside}
    for method in args.methods:
        if method == FROZEN:
            for word in ("damage", "normal"):
                rows[f"denoising, frozen backbone, word for {word}"] = "denoising", {"words": word}, {}
            continue
        run = read_from(args, method)
        record, steps = run.record("train"), run.config.train
        facts = {"backbone": record["backbone"], "steps": steps.steps, "batch": steps.batch, "run": method}
        settings = {"run": str(run.folder)}
        if method == "dual_branch":
            rows["denoising, dual_branch, second branch"] = "denoising", settings, facts
            continue
        for word in ("damage", "normal"):
            rows[f"denoising, {method}, word for {word}"] = "denoising", {**settings, "words": word}, facts
    return rows


class Bench:
    """Asks detectors about one set's pictures."""

    def __init__(self, split: Split, config: Any, folder: Path) -> None:
        self.folder, defects = folder, tuple(sorted({str(shot.defect) for shot in split.shots}))
        self.shape = proof_shape(config.prove, shapes_of(split.normals))
        self.evaluator = Evaluator(split, defects, self.shape, drop_near_duplicates=False)
        self.extractor = FeatureCache(load_extractor("efficientnet-lite0"), folder / "features", half=True)
        common = common_set(split, [], self.shape, defects, self.evaluator.forbidden)
        self.training: TrainingSet = training_set(common, Arm(REAL, ""), split)

    def outcomes(self, row: str, name: str, settings: dict[str, Any], seeds: int) -> tuple[list[Outcome], float]:
        """Return what a detector answers, one per seed, and its CPU seconds in the mean; kept on disk."""
        answered, seconds = [], []
        plugin = registry.get("detectors", name)
        for seed in range(seeds):
            path = self.folder / f"{row} {seed}.npz"
            if not path.is_file():
                extractor = self.extractor if plugin.needs_extractor else None
                started = time.process_time()
                detector = plugin(plugin.Settings(**settings), self.training.defects, extractor=extractor)
                for _ in detector.fit(self.training, torch.Generator().manual_seed(seed)):
                    pass
                outcome = self.evaluator.evaluate(detector, {"localization", "detection"})
                write_json(path.with_suffix(".json"), {"cpu": round(time.process_time() - started, 1)})
                outcome.save(path)
            answered.append(Outcome.load(path))
            seconds.append(read_json(path.with_suffix(".json"))["cpu"])
        return answered, float(np.mean(seconds))


def lead(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return task -> defect type or the mean -> the deciding figure."""
    table = figures(list(outcomes))
    return {
        task: {defect: round(float(row[name]["mean"]), 4) for defect, row in table[task].items() if name in row}
        for task, name in LEADS.items()
        if task in table
    }


def main() -> None:
    """Parse, ask, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs and answers go, or lie")
    parser.add_argument("--only", choices=sorted(FOLDERS), required=True, help="the set")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--beside", nargs="*", choices=BESIDE, default=list(BESIDE), help="detectors beside it")
    parser.add_argument("--run", action="append", default=[], metavar="METHOD=RUN", help="a trained run of a method")
    parser.add_argument("--each", type=int, default=20, help="test pictures of each defect type, at most")
    parser.add_argument("--normals", type=int, default=40, help="normal test pictures, at most")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="override a key of the example")
    parser.add_argument("--results", type=Path, default=RESULTS / "denoising.json")
    args = parser.parse_args()
    rows = rows_of(args)
    overrides = parse_overrides(args.set)
    first = Run.create(args.out / args.only / "split", configuration(args.data, args.only, overrides))
    open_dataset(first)
    split = asked_about(load_split(first), args.each, args.normals)
    bench = Bench(split, first.config, args.out / args.only)
    counts = {"damaged": len(split.test_defects), "normal": len(split.test_normals)}
    entry: dict[str, Any] = {
        "machine": {**machine(), "threads": os.environ["OMP_NUM_THREADS"]},
        "backbone": Backbone.load("builtin").fingerprint,
        "shape": list(bench.shape),
        "seeds": args.seeds,
        "shots": len(split.shots),
        "normals": len(split.normals),
        "tested": counts,
        "rows": {},
    }
    for row, (name, settings, facts) in rows.items():
        outcomes, seconds = bench.outcomes(row, name, settings, args.seeds)
        entry["rows"][row] = {**lead(outcomes), "cpu_seconds": round(seconds, 1), **facts}
        means = {task: table[MEAN] for task, table in entry["rows"][row].items() if task in LEADS}
        print(args.only, row, means, f"{seconds:.0f} CPU s", flush=True)
        results = read_json(args.results) if args.results.is_file() else {}
        write_json(args.results, {**results, args.only: entry})


if __name__ == "__main__":
    main()
