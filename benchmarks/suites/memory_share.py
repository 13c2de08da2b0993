"""How much of `memory_probe` should be its memory where no shot has tested its heads: every share is tried.

    python benchmarks/suites/memory_share.py --data ../shared/data --out FOLDER [--only screw]

Nothing of a test set is read. Of the ten shots of each type detectors learn from the first 1 or 3, or from 300 samples
of a generator that needs no shot, and from four of five normal parts; they are asked about the other shots and the
fifth normal part. Then image score and anomaly map are joined once with each share of the memory. `beforehand` is the
share that `nn/anomaly_maps/fusion.py` gives heads that have learned from so many damaged pictures.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from sets import FOLDERS, RESULTS, configuration
from zero_shots import MOST_SHOTS, Trials, first_shots, samples_of

from flawsmith.config import SUIT_ANYTHING
from flawsmith.data.split import Split
from flawsmith.detectors.memory_probe import MemoryProbe
from flawsmith.evaluation.statistics import LEADS, MEAN
from flawsmith.evaluation.trainings import load_detector
from flawsmith.files import read_json, write_json
from flawsmith.run.dataset import scanned_dataset
from flawsmith.run.manifest import machine

SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
ARMS = ((1, ""), (3, ""), (0, "rendered"), (0, "perlin"))
"""Shots of each type, and the generator of the samples."""
SAMPLES = 300


def inside(split: Split, shots: int) -> Split:
    """Return a split that learns from the first shots and asks about the others, and about every fifth normal part."""
    learned = first_shots(split, shots)
    asked = tuple(one for one in split.shots if one not in learned.shots)
    normals = tuple(one for number, one in enumerate(split.normals) if number % 5)
    return replace(learned, test_defects=asked, test_normals=split.normals[::5], normals=normals)


def by_share(trials: Trials, shots: int, generator: str) -> dict[str, Any]:
    """Train one detector and return its figures for each share of the memory."""
    training = trials.training(shots, generator)
    detector = load_detector(trials.config, "memory_probe", trials.defects, trials.extractor, trials.device)
    assert isinstance(detector, MemoryProbe)
    for _ in detector.fit(training, torch.Generator().manual_seed(0)):
        pass
    joined = detector.fusions
    if joined is None:
        raise SystemExit(f"{shots} shots, {generator}: too few normal parts to join heads and memory")
    row: dict[str, Any] = {"learned": len(training.damaged()), "beforehand": float(joined.anomaly_map.weight[1])}
    for share in SHARES:
        weight = torch.tensor([1 - share, share])
        detector.fusions = joined._replace(
            **{name: replace(one, weight=weight) for name, one in joined._asdict().items()}
        )
        figures = trials.evaluator.evaluate(detector, set(LEADS) & detector.tells).figures
        row[str(share)] = {task: round(figures[task][MEAN][LEADS[task]], 4) for task in ("localization", "detection")}
        print(f"  {share}: {row[str(share)]}", flush=True)
    return row


def main() -> None:
    """Parse, train, join, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="where samples and features go, or lie")
    parser.add_argument("--only", choices=sorted(FOLDERS), help="one set")
    parser.add_argument("--results", type=Path, default=RESULTS / "memory_share.json")
    args = parser.parse_args()
    overrides: dict[str, Any] = {"data.shots": MOST_SHOTS, "backbone.device": "cpu", "generate.controls": 0.0}
    overrides["generate.count"] = SAMPLES // len(SUIT_ANYTHING)
    for name in [args.only] if args.only else sorted(FOLDERS):
        config, out = configuration(args.data, name, overrides), args.out / name
        split = scanned_dataset(config).split
        split = split.of(split.normals[0].product)
        entry: dict[str, Any] = {"machine": {**machine(), "threads": os.environ["OMP_NUM_THREADS"]}, "arms": {}}
        for shots, generator in ARMS:
            dealt = inside(split, shots)
            learned = {one.id for one in dealt.normals}
            made = samples_of(config, generator, out / generator)[0] if generator else []
            made = [one for one in made if one.normal in learned]
            trials = Trials(config, dealt, {generator: made}, out)
            title = f"{shots} shots" if shots else f"{len(made)} samples of {generator}"
            print(f"{name}, {title}", flush=True)
            row = by_share(trials, shots, generator)
            entry["arms"][title] = {"asked": len(trials.evaluator.tests), **row}
        results = read_json(args.results) if args.results.is_file() else {}
        write_json(args.results, {**results, name: entry})


if __name__ == "__main__":
    main()
