"""What Anomalib's models make of a run's samples: supervised on them, beside the same models on normal parts alone.

    .venv-anomalib/bin/python benchmarks/suites/anomalib_models.py --data ../shared/data --out FOLDER --only screw

Each set's example makes its samples (`--count` of each defect type, and controls), and `integrations.anomalib` shows
them to Anomalib's trainer: Padim and Supersimplenet on the normal parts, Supersimplenet supervised on the shots alone
and on shots, samples and controls; and DRAEM, which simulates damage on the normal parts (Perlin noise, as its
textures cannot be had offline) or learns from the samples. The trainings of one model take equally many steps of 8
pictures. No model has its authors' weights: Padim and Supersimplenet stand on EfficientNet-Lite0 (ImageNet), DRAEM
starts from random weights, as it always does. The budget is that of a laptop and not of a paper, so the figures
compare ways to train one model and say nothing about how good a model is.

The test set is read once per arm. Figures are exact, at the size that the model sees; the mean over defect types
leads, and intervals are paired over test pictures. Runs and answers are kept in FOLDER, so the suite goes on.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from anomalib.engine import Engine
from anomalib.models import Draem as PerlinDraem
from anomalib.models import Padim, Supersimplenet
from lightning import seed_everything
from sets import FOLDERS, RESULTS, configuration

import flawsmith as fs
from flawsmith.data.split import Split
from flawsmith.detectors.anomalib import Anomalib, AnomalibSettings
from flawsmith.evaluation.calibration import evenly_spaced
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.proof import figures
from flawsmith.evaluation.statistics import MEAN, Outcome, compare, draws, resampled
from flawsmith.files import read_json, write_json
from flawsmith.integrations.anomalib import DataModule, Draem, backbone
from flawsmith.run.dataset import load_split
from flawsmith.run.manifest import machine

BATCH, EPOCHS = 8, 5
LAYERS = ["stride8", "stride16"]
"""Of Padim; Supersimplenet gets the first alone, with which a step takes a quarter of the time."""
AGAINST = {
    "Supersimplenet, shots and samples": ("Supersimplenet, normal parts", "Supersimplenet, shots"),
    "Supersimplenet, shots": ("Supersimplenet, normal parts",),
    "Draem, samples": ("Draem, normal parts",),
}
"""Arm -> the arms that it is compared with."""


def model_of(arm: str, side: int, empty: Path) -> Any:
    """Return an untrained model whose answers are raw."""
    raw: dict[str, Any] = {"post_processor": False, "evaluator": False, "visualizer": False}
    if arm.startswith("Padim"):
        return Padim(backbone=backbone(), layers=LAYERS, n_features=100, **raw)
    if arm.startswith("Supersimplenet"):
        return Supersimplenet(backbone=backbone(), layers=LAYERS[:1], supervised="shots" in arm, **raw)
    raw["pre_processor"] = PerlinDraem.configure_pre_processor((side, side))
    return Draem(**raw) if "samples" in arm else PerlinDraem(dtd_dir=empty, **raw)


def shown_to(arm: str, run: fs.Run, workers: int) -> DataModule:
    """Return what an arm trains on; nothing is held back for a validation, for no threshold is asked for."""
    data = DataModule(
        run, damaged="shots" in arm or "samples" in arm, validation=0, train_batch_size=BATCH, num_workers=workers
    )
    data.setup()
    if arm.endswith(", shots"):
        rows = data.train_data.samples
        data.train_data = data.train_data.subsample(list(rows.index[rows.origin == "real"]))
    if arm.startswith("Draem, samples"):
        rows = data.train_data.samples
        data.train_data = data.train_data.subsample(list(rows.index[(rows.origin != "real") | (rows.label_index == 0)]))
    return data


def trained(arm: str, run: fs.Run, side: int, steps: int, device: str) -> tuple[Any, dict[str, Any]]:
    """Train an arm; return the model and what the result says of it."""
    on_card = device.startswith("cuda")
    data = shown_to(arm, run, 2 if on_card else 0)
    count = data.train_data.samples.groupby(["origin", "label"]).size()
    most = min(len(data.train_dataloader()), max(1, steps // EPOCHS))
    # An epoch is cut to a length that divides the steps, so that every arm takes exactly as many.
    per_epoch = max(number for number in range(1, most + 1) if steps % number == 0)
    epochs, per_epoch = (1, steps) if arm.startswith("Padim") else (steps // per_epoch, per_epoch)
    begun = time.process_time()
    with TemporaryDirectory() as folder:
        seed_everything(0)
        model = model_of(arm, side, Path(folder))
        engine = Engine(
            accelerator="gpu" if on_card else "cpu",
            devices=1,
            logger=False,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            max_epochs=epochs,
            limit_train_batches=per_epoch,
            limit_val_batches=0,
        )
        engine.fit(model, datamodule=data)
    facts = {"trained_on": {" ".join(key): int(value) for key, value in count.items()}}
    facts |= {"side": side, "steps": min(steps, len(data.train_dataloader())) if epochs == 1 else epochs * per_epoch}
    return model.eval(), facts | {"training_cpu_seconds": round(time.process_time() - begun, 1)}


def thinned(split: Split, most: int) -> Split:
    """Return a split with at most so many normal test pictures, and as many of each defect type, evenly spaced."""
    groups = [split.test_normals]
    for defect in sorted({str(one.defect) for one in split.test_defects}):
        groups.append(tuple(one for one in split.test_defects if one.defect == defect))
    normal, *damaged = ([group[place] for place in evenly_spaced(range(len(group)), most)] for group in groups)
    return replace(split, test_normals=tuple(normal), test_defects=tuple(one for group in damaged for one in group))


def measured(name: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Make the samples, train every arm that is not kept yet, and yield the result of one set after each."""
    told: dict[str, Any] = {"generate.count": args.count, "measure.enabled": False, "screen.enabled": False}
    run = fs.Run.create(args.out / f"run-{name}", configuration(args.data, name, told | {"export.formats": []}))
    fs.train(run)
    fs.generate(run)
    split = load_split(run)
    defects = tuple(sorted({str(shot.defect) for shot in split.shots}))
    outcomes: dict[str, Outcome] = {}
    result: dict[str, Any] = {"made_of_each_type": args.count, "generator": run.config.generator.label, "arms": {}}
    evaluators: dict[int, Evaluator] = {}
    for arm in args.arms:
        side, steps = (args.draem_side, args.draem_steps) if arm.startswith("Draem") else (256, args.steps)
        if side not in evaluators:
            evaluators[side] = Evaluator(thinned(split, args.tests), defects, (side, side), drop_near_duplicates=True)
        kept = args.out / f"{name}-{arm}-{steps}-{side}".replace(",", "").replace(" ", "-")
        if not kept.with_suffix(".npz").is_file():
            model, facts = trained(arm, run, side, steps, args.device)
            asked = Anomalib(AnomalibSettings(model="Padim"), defects, device=args.device)
            asked._model = model.to(args.device)  # what answers; its training above is the one that is measured
            evaluators[side].evaluate(asked, {"localization", "detection"}).save(kept.with_suffix(".npz"))
            write_json(kept.with_suffix(".json"), facts)
        outcomes[arm] = Outcome.load(kept.with_suffix(".npz"))
        found = figures([outcomes[arm]])
        result["arms"][arm] = {**read_json(kept.with_suffix(".json")), "figures": found}
        auroc, ap = found["detection"][MEAN]["auroc"]["mean"], found["localization"][MEAN]["ap"]["mean"]
        print(f"{name}: {arm}: image AUROC {auroc:.3f}, pixel AP {ap:.3f}", flush=True)
        yield result
    tests = next(iter(evaluators.values())).evaluation_set
    result["tests"] = {"normal": int((tests.defect < 0).sum()), "damaged": int((tests.defect >= 0).sum())}
    weights = draws(tests, 2000, np.random.default_rng(0))
    drawn = {arm: [resampled(tests, one, weights)] for arm, one in outcomes.items()}
    result["comparisons"] = [
        {"arm": arm, "against": other, **asdict(row)}
        for arm, others in AGAINST.items()
        for other in others
        if arm in outcomes and other in outcomes
        for row in compare(
            drawn[arm],
            drawn[other],
            ([outcomes[arm]], [outcomes[other]]),
            confidence=0.95,
            rng=np.random.default_rng(1),
        )
    ]
    yield result


def main() -> None:
    """Parse, measure, write what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the real sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs and answers are kept")
    parser.add_argument("--only", choices=FOLDERS, action="append", help="one set; both where it is left out")
    parser.add_argument("--arms", nargs="+", default=["Padim, normal parts", *dict.fromkeys(names())], help="which")
    parser.add_argument("--count", type=int, default=20, help="samples of each defect type")
    parser.add_argument("--steps", type=int, default=20, help="steps of 8 pictures; a multiple of 5")
    parser.add_argument("--draem-steps", type=int, default=10, help="the same for DRAEM, which takes far longer")
    parser.add_argument("--draem-side", type=int, default=64, help="side of the pictures that DRAEM sees")
    parser.add_argument("--tests", type=int, default=40, help="normal test pictures, and of each type, at most")
    parser.add_argument("--as", dest="entry", default="", help="ends the entry's name: where a budget is another")
    parser.add_argument("--device", default="cpu", help="where they are trained: cpu or cuda")
    parser.add_argument("--results", type=Path, default=RESULTS / "anomalib.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in args.only or FOLDERS:
        for result in measured(name, args):
            results = read_json(args.results) if args.results.exists() else {}
            packages = {package: version(package) for package in ("anomalib", "torch", "lightning", "torchvision")}
            facts = {
                "machine": machine() | {"packages": packages, "device": args.device},
                "protocol": "clean",
                "seeds": 1,
            }
            results[name] = facts | result
            write_json(args.results, results)


def names() -> list[str]:
    """Return every arm that is compared, those first that others are compared with."""
    return [name for arm, others in AGAINST.items() for name in (*others, arm)]


if __name__ == "__main__":
    main()
