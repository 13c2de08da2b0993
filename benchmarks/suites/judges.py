"""Which detector should judge a proof: `patchcore`, `probe` or `memory_probe`?

    python benchmarks/suites/judges.py --out FOLDER [--data ../shared/data] [--only faint]

Two procedural sets favour one side each: on `faint` (scratches at 30 % opacity on steel of one line) the damage hardly
differs from the texture; on `varied` (boards of many woods, four defect types at 60 % opacity) normal parts differ more
from each other than from damaged ones. 80 normal photographs and 10 shots per defect type to learn from, 60 normal and
20 damaged ones per type to be tested on, 256 px. With --data also the two real sets. Each detector learns from the
shots alone, and from the shots with samples and controls of `crop_paste`; 3 seeds, default settings and extractor.
Compared are `memory_probe` and each other one, with paired intervals over test pictures and seeds. What a
judge costs is measured by proof_cost.py, beside nothing else.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sets import DEVICE, FOLDERS, RESULTS, configuration

from flawsmith import registry
from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.data.training_set import TrainingSet
from flawsmith.evaluation.arms import REAL, Arm, common_set, made_of, training_set
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.proof import figures
from flawsmith.evaluation.shape import proof_shape, shapes_of
from flawsmith.evaluation.statistics import MEAN, Outcome, compare, draws, resampled
from flawsmith.files import read_json, write_json
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.pipeline import run_all
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine

JUDGES = ("patchcore", "probe", "memory_probe")
SEEDS = 3
_LEADS = {"localization": "ap", "detection": "auroc"}
"""Task -> the figure that is printed."""
SIDE, NORMALS, TEST_NORMALS, SHOTS, TESTS = 256, 80, 60, 10, 20
SURFACES: dict[str, tuple[str, tuple[str, ...], int | None, float]] = {
    "faint": ("steel", ("scratch",), 5, 0.3),
    "varied": ("wood", ("scratch", "stain", "contamination", "dent"), None, 0.6),
}
"""Set -> surface, defect types, production line (None = every piece has its own look), opacity of the damage."""
MADE = {
    "generator.name": "crop_paste",
    "generator.settings": {},
    "measure.enabled": False,
    "prove.enabled": False,
    "prove.resamples": 10_000,
}


def photographed(folder: Path, name: str) -> None:
    """Write a procedural set in the MVTec layout, unless it is there."""
    surface, defects, line, opacity = SURFACES[name]
    base = folder / name
    groups = [("train/good", None, NORMALS, 0), ("test/good", None, TEST_NORMALS, 1)]
    groups += [(f"test/{defect}", defect, SHOTS + TESTS, 2 + number) for number, defect in enumerate(defects)]
    for place, defect, count, block in groups:
        for number in range(count):
            path = base / place / f"{number:03d}.png"
            if path.is_file():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            piece = factory.make(surface, defect, seed=1000 * block + number, size=SIDE, line=line)
            if defect:
                (base / "ground_truth" / defect).mkdir(parents=True, exist_ok=True)
                images.write_mask(base / "ground_truth" / defect / f"{number:03d}_mask.png", piece.mask)
            blend = piece.normal + opacity * (piece.image.astype(np.float32) - piece.normal)
            images.write(path, np.rint(blend).astype(np.uint8))


def made_run(out: Path, data: Path | None, name: str) -> Run:
    """Return the run of a set with its samples made."""
    if name in SURFACES:
        photographed(out / "photographs", name)
        own = {"data.root": str(out / "photographs"), "data.layout": "mvtec", "data.products": [name]}
        config = load_config(
            None, {**own, "data.shots": SHOTS, "generate.count": 50, "generate.controls": 0.25, **MADE}
        )
    else:
        assert data is not None
        config = configuration(data, name, MADE)
    run = Run.create(out / name, config)
    run_all(run)
    return run


def judged(run: Run, folder: Path) -> dict[str, Any]:
    """Train every judge on both arms; return the set's part of the results."""
    split, part = load_split(run), run.config.prove
    product = split.shots[0].product
    defects = tuple(sorted({str(example.defect) for example in split.shots}))
    shape = proof_shape(part, shapes_of(split.normals))
    evaluator = Evaluator(split, defects, shape, drop_near_duplicates=True)
    extractor = FeatureCache(
        load_extractor("efficientnet-lite0", device=DEVICE), run.path("state", "features"), half=True
    )
    common = common_set(split, [], shape, defects, evaluator.forbidden)
    samples, controls = made_of(run, product)
    pasted = Arm("and crop_paste", "", tuple(samples), tuple(controls))
    numbers = evaluator.evaluation_set.defect
    tree: dict[str, Any] = {
        "machine": {**machine(), "threads": os.environ["OMP_NUM_THREADS"]},
        "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
        "protocol": "clean",
        "shape": list(shape),
        "seeds": SEEDS,
        "resamples": part.resamples,
        "shots": len(split.shots),
        "samples": len(samples),
        "controls": len(controls),
        "test": {"damaged": int((numbers >= 0).sum()), "normal": int((numbers < 0).sum())},
        "arms": {},
        "comparisons": [],
    }
    weights = draws(evaluator.evaluation_set, part.resamples, np.random.default_rng((0, 71)))
    for name, arm in ((REAL, Arm(REAL, "")), (pasted.name, pasted)):
        training = training_set(common, arm, split)
        tried = {}
        tree["arms"][name] = {}
        for judge in JUDGES:
            tried[judge], facts = answers(judge, training, evaluator, extractor, folder / f"{name}-{judge}")
            tree["arms"][name][judge] = {"figures": figures(tried[judge]), "facts": facts}
            print(product, name, judge, {task: _mean(tried[judge], task) for task in _LEADS}, facts, flush=True)
        drawn = {judge: [resampled(evaluator.evaluation_set, one, weights) for one in tried[judge]] for judge in JUDGES}
        for other in JUDGES[:2]:
            pair, exact = (drawn["memory_probe"], drawn[other]), (tried["memory_probe"], tried[other])
            for row in compare(*pair, exact, confidence=part.confidence, rng=np.random.default_rng((0, 72))):
                tree["comparisons"].append({"arm": name, "judge": "memory_probe", "against": other, **asdict(row)})
                if row.defect == MEAN:
                    print(product, name, "against", other, row.task, row.difference, [row.low, row.high], flush=True)
    extractor.forget()
    return tree


def answers(
    judge: str, training: TrainingSet, evaluator: Evaluator, extractor: FeatureCache, folder: Path
) -> tuple[list[Outcome], dict[str, float]]:
    """Return a judge's answers, one per seed, and what it learned of itself; kept in a folder."""
    outcomes, learned = [], []
    for seed in range(SEEDS):
        path = folder / f"{seed}.npz"
        if not path.is_file():
            plugin = registry.get("detectors", judge)
            detector = plugin(plugin.Settings(), training.defects, extractor=extractor, device=DEVICE)
            for _ in detector.fit(training, torch.Generator().manual_seed(seed)):
                pass
            outcome = evaluator.evaluate(detector, set(detector.tells))
            write_json(path.with_suffix(".json"), {"facts": detector.facts()})
            outcome.save(path)
        outcomes.append(Outcome.load(path))
        learned.append(read_json(path.with_suffix(".json"))["facts"])
    facts = {key: round(float(np.mean([row[key] for row in learned])), 3) for key in learned[0]}
    return outcomes, facts


def _mean(outcomes: list[Outcome], task: str) -> float:
    return round(100 * float(np.mean([one.figures[task][MEAN][_LEADS[task]] for one in outcomes])), 1)


def main() -> None:
    """Parse, make, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where photographs, runs and answers go, or lie")
    parser.add_argument("--data", type=Path, help="the folder that holds the real sets; without it they are left out")
    parser.add_argument("--only", choices=(*SURFACES, *FOLDERS), help="one set")
    parser.add_argument("--results", type=Path, default=RESULTS / "judges.json")
    args = parser.parse_args()
    if args.only in FOLDERS and not args.data:
        parser.error(f"--only {args.only} is a real set, so it needs --data")
    chosen = [args.only] if args.only else [*SURFACES, *(FOLDERS if args.data else ())]
    for name in chosen:
        run = made_run(args.out, args.data, name)
        results = read_json(args.results) if args.results.is_file() else {}
        results[name] = judged(run, args.out / "answers" / name)
        write_json(args.results, results)


if __name__ == "__main__":
    main()
