"""Train the probe on samples of finished runs, in any mixture, and compare: which change to the samples is worth what?

    python benchmarks/suites/trials.py --base RUN --out FOLDER NAME=RUN [NAME=RUN+RUN ...] [--name screw]

Each NAME is an arm; RUN is a run folder whose samples and controls it learns from beside the shots, `real` stands for
none, and `NAME=RUN:real=0.75` sets a setting of the probe. The first arm is what the others are compared with. Shots,
normal parts and test pictures are those of --base; a test picture still cannot be learned from. Unlike `prove`, no
controls are held out, so the figures differ a little from a proof's. Answers are kept in --out, so a trial can be made
in portions.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flawsmith.detectors.probe import Probe
from flawsmith.evaluation.arms import Arm, common_set, made_of, training_set
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.proof import figures
from flawsmith.evaluation.shape import proof_shape, shapes_of
from flawsmith.evaluation.statistics import MEAN, Outcome, compare, draws, resampled
from flawsmith.files import write_json
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.reporting.collect import changed_settings
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine

HOME = Path(__file__).resolve().parents[2]
SEEDS, RESAMPLES = 3, 1000
REAL = "real"


def main() -> None:
    """Parse, train what is not kept yet, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="+", metavar="NAME=RUN", help="what each arm learns from")
    parser.add_argument("--base", type=Path, required=True, help="the run whose split and test set are used")
    parser.add_argument("--out", type=Path, required=True, help="where answers and features are kept")
    parser.add_argument("--name", help="of the entry in the results; default: the base's folder name")
    parser.add_argument("--results", type=Path, default=HOME / "benchmarks" / "results" / "trials.json")
    args = parser.parse_args()
    base = Run.open(args.base)
    split = load_split(base)
    product = split.shots[0].product
    defects = tuple(sorted({str(example.defect) for example in split.shots}))
    shape = proof_shape(base.config.prove, shapes_of(split.normals))
    evaluator = Evaluator(split, defects, shape, drop_near_duplicates=True)
    extractor = FeatureCache(load_extractor("efficientnet-lite0"), args.out / "features")
    common = common_set(split, [], shape, defects, evaluator.forbidden)
    weights = draws(evaluator.evaluation_set, RESAMPLES, np.random.default_rng(0))
    tried: dict[str, list[Outcome]] = {}
    entry: dict[str, Any] = {
        "machine": machine(),
        "detector": "probe",
        "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
        "protocol": "clean",
        "shape": list(shape),
        "seeds": SEEDS,
        "test": {
            "normal": int((evaluator.evaluation_set.defect < 0).sum()),
            "damaged": int((evaluator.evaluation_set.defect >= 0).sum()),
        },
        "arms": {},
    }
    for text in args.arms:
        name, _, told = text.partition("=")
        sources, _, setting = told.partition(":")
        runs = [] if sources == REAL else [Run.open(folder) for folder in sources.split("+")]
        found = [made_of(run, product) for run in runs]
        arm = Arm(
            name,
            "",
            tuple(made for samples, _ in found for made in samples),
            tuple(made for _, controls in found for made in controls),
        )
        given = {"controls": base.config.prove.controls} | dict([_setting(setting)] if setting else [])
        training = None
        for seed in range(SEEDS):
            kept = args.out / f"{name}-{seed}.npz"
            if not kept.is_file():
                training = training or training_set(common, arm, split)
                probe = Probe(Probe.Settings.model_validate(given), defects, extractor=extractor)
                for _ in probe.fit(training, torch.Generator().manual_seed(seed)):
                    pass
                evaluator.evaluate(probe, {"localization", "detection", "classification"}).save(kept)
            tried.setdefault(name, []).append(Outcome.load(kept))
        entry["arms"][name] = {
            **{key: value for key, value in arm.facts().items() if key != "text"},
            "probe": given,
            "runs": [
                {key: value for key, value, _ in changed_settings(run.config) if key != "data.root"} for run in runs
            ],
            "figures": figures(tried[name]),
        }
        ap = entry["arms"][name]["figures"]["localization"][MEAN]["ap"]["mean"]
        print(f"{name}: mean pixel AP over defect types {100 * ap:.1f}", flush=True)
    drawn = {
        name: [resampled(evaluator.evaluation_set, one, weights) for one in outcomes]
        for name, outcomes in tried.items()
    }
    first = next(iter(tried))
    entry["comparisons"] = [
        {"arm": name, "against": first, **asdict(row)}
        for name in list(tried)[1:]
        for row in compare(
            drawn[name],
            drawn[first],
            (tried[name], tried[first]),
            confidence=0.95,
            rng=np.random.default_rng(1),
        )
    ]
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    results[args.name or args.base.name] = entry
    write_json(args.results, results)


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, json.loads(value)


if __name__ == "__main__":
    main()
