"""What do wrong masks cost? A detector trained on a run's samples, whose labels are spoiled in steps.

    python benchmarks/suites/mask_quality.py --data ../shared/data --out /tmp/proofs --only screw [--detector probe]
    python benchmarks/suites/mask_quality.py --out /tmp/proofs --run /tmp/proofs/screw/arms/crop_paste --as screw-paste

The samples are those of a finished run: of the example's folder below --out, where `proof.py` leaves it (it is made
there if it is missing), or of --run, any run folder; `arms/<generator>/` inside a proven run is one. Every arm learns
from the same normal parts, shots and controls, and but for `real-only` from the same samples; only the labels of the
samples differ:

* as made;
* shifted towards a random corner of the picture by 5, 10 or 25 % of the height and width of the label's box, at least
  a pixel each way;
* dilated to 4/3, 2 and 4 times its area, eroded to 3/4, 1/2 and 1/4 of it: by area, so that a hairline and a spot are
  spoiled alike;
* moved to a random place of the picture where it covers no damage.

The overlap (IoU) with the label as made stands beside each, in pixels of the detector. Labels are spoiled in memory:
the run folder stays as it is. Figures are means over defect types on the run's test pictures, which no arm learns from
(protocol clean), with paired intervals against `as made` and against `real-only`. Unlike `prove`, no controls are held
out, so the figures differ a little from a proof's. Answers and charts are kept in OUT/mask-quality/, so it goes on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sets import EXAMPLES, RESULTS, configuration
from spoilings import SPOILINGS, overlap, spoiled

from flawsmith import registry
from flawsmith.config import load_config, parse_overrides, validate
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet
from flawsmith.evaluation.arms import REAL, Arm, common_set, made_of, training_set
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.proof import figures
from flawsmith.evaluation.shape import proof_shape, shapes_of
from flawsmith.evaluation.statistics import ALL, MEAN, TASKS, Outcome, compare, draws, resampled
from flawsmith.files import digest, read_json, write_json, write_text
from flawsmith.interfaces import Detector
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.pipeline import run_all
from flawsmith.reporting.charts import Interval, interval_chart
from flawsmith.reporting.collect import changed_settings
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine

AS_MADE = "as made"


class Trial:
    """Trains the detector on one product's arms, and compares them.

    Args:
        run: A run with its samples made; of its configuration `prove` and `features` are read.
        split: One product's photographs.
        detector: The detector's name.
        extractor: What frozen features come from.
        device: "cpu" or "cuda".
        folder: Where answers are kept.
    """

    def __init__(
        self, run: Run, split: Split, detector: str, extractor: FeatureCache, device: str, folder: Path
    ) -> None:
        self._part, self._extractor, self._device, self._folder = run.config.prove, extractor, device, folder
        self._seed, self._name, self._product = run.config.seed, detector, split.shots[0].product
        self._plugin: type[Detector] = registry.get("detectors", detector)
        given = dict(self._part.settings.get(detector, {}))
        if "controls" in self._plugin.Settings.model_fields:
            given = {"controls": self._part.controls} | given
        self._settings = validate(self._plugin.Settings, given, where=f"prove.settings.{detector}")
        self._defects = tuple(sorted({str(example.defect) for example in split.shots}))
        shape = proof_shape(self._part, shapes_of(split.normals))
        drop = self._part.near_duplicates == "drop"
        self._evaluator = Evaluator(split, self._defects, shape, drop_near_duplicates=drop)
        samples, controls = made_of(run, self._product)
        self._arm = Arm(AS_MADE, "shots, samples and controls", tuple(samples), tuple(controls))
        common = common_set(split, [], shape, self._defects, self._evaluator.forbidden)
        self._real = training_set(common, Arm(REAL, ""), split)
        self._made = training_set(common, self._arm, split)
        self._tried: dict[str, list[Outcome]] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    def measured(self) -> dict[str, Any]:
        """Train what is not kept yet; return the product's part of the results."""
        for name, training in self._sets():
            for seed in range(self._part.seeds):
                self._tried.setdefault(name, []).append(self._answers(name, training, seed))
            table = figures(self._tried[name])
            self._facts[name]["figures"] = table
            print(self._product, name, {task: _mean(table, task) for task in table}, flush=True)
        numbers = self._evaluator.evaluation_set.defect
        return {
            "shape": list(self._evaluator.shape),
            "test": {"damaged": int((numbers >= 0).sum()), "normal": int((numbers < 0).sum())},
            "near_duplicates_left_out": self._evaluator.left_out,
            **{key: value for key, value in self._arm.facts().items() if key != "text"},
            "reduced": self._detector().reduced(self._part.budget),
            "arms": self._facts,
            "comparisons": self._comparisons(),
        }

    def _sets(self) -> Iterator[tuple[str, TrainingSet]]:
        """Yield each arm's name and what it learns from, one at a time: a set holds a mask per sample."""
        self._facts[REAL] = {}
        yield REAL, self._real
        self._facts[AS_MADE] = {"overlap": 1.0}
        yield AS_MADE, self._made
        places = self._made.damaged(None, "made")
        for spoiling in SPOILINGS:
            training = spoiled(self._made, spoiling)
            pairs = [(training.pictures[place].mask, self._made.pictures[place].mask) for place in places]
            self._facts[spoiling.name] = {
                "overlap": round(float(np.mean([overlap(one, other) for one, other in pairs])), 4),
                "unchanged": sum(bool((one == other).all()) for one, other in pairs),
            }
            yield spoiling.name, training

    def _detector(self) -> Detector:
        extractor = self._extractor if self._plugin.needs_extractor else None
        return self._plugin(self._settings, self._defects, extractor=extractor, device=self._device)

    def _answers(self, name: str, training: TrainingSet, seed: int) -> Outcome:
        path = self._folder / f"{self._product} {name} {seed}.npz"
        if not path.is_file():
            detector = self._detector()
            # The seeds of a proof, so that an arm of both is the same training.
            for _ in detector.fit(
                training, torch.Generator().manual_seed(self._seed * 1000 + seed), budget=self._part.budget
            ):
                pass
            self._evaluator.evaluate(detector, set(detector.tells)).save(path)
        return Outcome.load(path)

    def _comparisons(self) -> list[dict[str, Any]]:
        """Return every arm with samples against `real-only`, and every spoiled one against `as made`."""
        evaluation_set = self._evaluator.evaluation_set
        weights = draws(evaluation_set, self._part.resamples, np.random.default_rng((self._seed, 71)))
        drawn = {name: [resampled(evaluation_set, one, weights) for one in each] for name, each in self._tried.items()}
        spoilings = [spoiling.name for spoiling in SPOILINGS]
        rows = []
        for one, other in [(name, AS_MADE) for name in spoilings] + [(name, REAL) for name in (AS_MADE, *spoilings)]:
            rng = np.random.default_rng((self._seed, 72))
            exact = self._tried[one], self._tried[other]
            for row in compare(drawn[one], drawn[other], exact, confidence=self._part.confidence, rng=rng):
                if row.defect in (MEAN, ALL):
                    rows.append({"arm": one, "against": other, **asdict(row)})
        return rows


def charts(measured: dict[str, Any]) -> dict[str, str]:
    """Return an SVG per task: the difference of every spoiling from the labels as made, mean over defect types."""
    drawn = {}
    for task, (name, figure) in TASKS.items():
        rows = [
            Interval(row["arm"], 100 * row["difference"], 100 * row["low"], 100 * row["high"], row["verdict"])
            for row in measured["comparisons"]
            if (row["against"], row["task"], row["defect"]) == (AS_MADE, task, MEAN)
        ]
        if rows:
            title = f"{name} ({figure}): labels spoiled, against {AS_MADE}"
            drawn[name] = interval_chart(rows, title, unit="points of 100, mean over defect types")
    return drawn


def _mean(table: dict[str, Any], task: str) -> float:
    figure = {"localization": "ap", "detection": "auroc", "classification": "recall"}[task]
    return round(100 * table[task][MEAN][figure]["mean"], 1)


def opened(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Run:
    """Return the run whose samples are measured, with `--set` applied in memory; an example that is missing is made."""
    changes = parse_overrides(args.set)
    folder = args.run or args.out / (args.name or args.only)
    if args.only and not (folder / "config.json").is_file():
        changes = {"measure.enabled": False, "prove.enabled": False} | changes
        run_all(Run.create(folder, configuration(args.data, args.only, changes)))
    run = Run.open(folder)
    config = load_config(None, run.config.model_dump(mode="json") | changes)
    left_out = {"prove", "features", "measure"}
    if config.model_dump(exclude=left_out) != run.config.model_dump(exclude=left_out):
        parser.error(
            f"{folder}: its samples were made with other settings; --set changes prove and features alone there"
        )
    if not run.samples_hash():
        parser.error(f"{folder}: no samples are made yet; run `flawsmith generate {folder}` first")
    return replace(run, config=config)


def main() -> None:
    """Parse, train what is not kept yet, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="with --only: the folder that holds the sets")
    parser.add_argument(
        "--out", type=Path, required=True, help="where the examples' runs lie or go, and answers are kept"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--only", choices=sorted(EXAMPLES), help="the example whose samples are measured")
    source.add_argument("--run", type=Path, help="or any finished run folder")
    parser.add_argument("--as", dest="name", help="the entry's name, and with --only the run folder's")
    parser.add_argument("--detector", default="probe", help="what is trained")
    parser.add_argument("--set", action="append", default=[], help="override a key of the run, such as prove.seeds=5")
    parser.add_argument("--results", type=Path, default=RESULTS / "mask_quality.json")
    args = parser.parse_args()
    if args.only and not args.data:
        parser.error("--only needs --data, the folder that holds the sets")
    registry.require("detectors", args.detector, "--detector")
    run = opened(parser, args)
    config, part = run.config, run.config.prove
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_extractor(
        config.features.extractor, config.features.source, offline=config.backbone.offline, device=device
    )
    entry = f"{args.name or (args.run.name if args.run else args.only)}, {args.detector}"
    trained_with = part.model_dump(mode="json", exclude={"seeds", "resamples", "confidence", "detectors"})
    stamp = digest(run.samples_hash(), run.data_hash(), trained_with, loaded.fingerprint)[:12]
    folder = args.out / "mask-quality" / entry
    extractor = FeatureCache(loaded, folder / "features", half=True)
    split = load_split(run)
    products = sorted({example.product for example in split.shots})
    results = read_json(args.results) if args.results.exists() else {}
    results[entry] = {
        "machine": {**machine(), "threads": os.environ.get("OMP_NUM_THREADS", ""), "device": device},
        "generator": config.generator.name,
        "backbone": run.record("train").get("backbone"),
        "settings": {key: value for key, value, _ in changed_settings(config) if not key.startswith("data.root")},
        "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
        "detector": args.detector,
        "protocol": "clean",
        "seeds": part.seeds,
        "resamples": part.resamples,
        "confidence": part.confidence,
        "products": {},
    }
    for name in products:
        trial = Trial(run, split.of(name), args.detector, extractor, device, folder / stamp)
        results[entry]["products"][name] = measured = trial.measured()
        write_json(args.results, results)
        for task, drawing in charts(measured).items():
            write_text(folder / f"{name} {task}.svg", drawing)
        for row in measured["comparisons"]:
            if row["defect"] == MEAN:
                interval = f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
                print(
                    f"{name}: {row['arm']} against {row['against']}, {row['task']}: "
                    f"{row['verdict']} {100 * row['difference']:+.1f} {interval}"
                )
    extractor.forget()
    print(f"charts: {folder}")


if __name__ == "__main__":
    main()
