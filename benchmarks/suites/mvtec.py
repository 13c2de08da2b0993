"""The papers' tables on all categories of your MVTec AD folder: U-Net and ResNet-34, best on the test set and last.

    python benchmarks/suites/mvtec.py --data MVTEC --out FOLDER --estimate
    python benchmarks/suites/mvtec.py --data MVTEC --out FOLDER --resnet FOLDER [--gpus 4] [--budget 0.1]

MVTEC holds a folder per category, as MVTec AD is unpacked. A third of each defect type is learned from, the rest is
tested on; detectors see 256 x 256 px (`prove.protocol = "field"`). Arms: the shots alone, with the samples of each of
--generators, and the first one's samples without shots, as most papers do. ResNet-34 starts from ImageNet's weights in
the transformers folder --resnet; without it from random ones, and the tables say so, as they say what --budget leaves
out.

Each category is a run of its own. The trainings of U-Net and ResNet-34 are kept while they last, so a killed suite goes
on with the same command. --gpus starts as many processes as there are GPUs, each with its share of the categories; on
several machines with one folder, --shard i/n does so. Each writes the tables of all that is ready: FOLDER/mvtec.md, and
with --results the figures. --estimate measures a few training steps here and says how long an arm takes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flawsmith.config import Config, load_config, parse_overrides
from flawsmith.data.layouts import scan
from flawsmith.detectors.classifier import Classifier, ClassifierSettings
from flawsmith.detectors.unet import Unet, UnetSettings
from flawsmith.errors import FlawsmithError, RunError
from flawsmith.evaluation.arms import MADE_ONLY
from flawsmith.evaluation.statistics import ALL, NONE, OURS
from flawsmith.evaluation.trainings import device_of
from flawsmith.files import read_json, write_json, write_text
from flawsmith.interfaces import Detector
from flawsmith.pipeline import run_all
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.shard import Shard
from flawsmith.testing import example_training

FIGURES = {
    "detection": {"image AUROC": "auroc", "image AP": "ap", "image F1-max": "f1_max"},
    "localization": {"pixel AUROC": "auroc", "pixel AP": "ap", "pixel F1-max": "f1_max", "PRO": "aupro"},
    "classification": {"accuracy": "accuracy"},
}
"""Task -> column of the tables -> the figure over all test pictures."""
SIDE, PICTURES = 256, 16
"""Of what `--estimate` trains on: pixels of a side, and pictures."""


def configuration(args: argparse.Namespace, category: str) -> Config:
    """Return the configuration of a category."""
    first, *others = args.generators
    settings: dict[str, Any] = {
        "data.root": str(args.data),
        "data.layout": "mvtec",
        "data.products": [category],
        "data.shots": "third",
        "generator.name": first,
        "generate.count": args.samples,
        "generate.controls": 0.0,
        "screen.enabled": False,
        "measure.enabled": False,
        "export.formats": [],
        "prove.protocol": "field",
        "prove.detectors": ["unet", "classifier"],
        "prove.settings": {"classifier": {"weights": str(args.resnet or "")}},
        "prove.against": others,
        "prove.seeds": args.seeds,
        "prove.budget": args.budget,
        "prove.mix": False,
        "prove.curve": [],
    }
    return load_config(None, settings | parse_overrides(args.set))


def categories_of(folder: Path) -> list[str]:
    """Return the categories below a folder that have defects.

    Raises:
        DataError: there is nothing, or not what MVTec AD looks like.
    """
    found = {one.product for one in scan(load_config(None, {"data.root": str(folder)}).data) if one.defect is not None}
    return sorted(found)


def summary(run: Run) -> dict[str, Any]:
    """Return what a category came to: arm -> "last" and "best on test" -> column -> figure, mean over seeds."""
    tree = read_json(run.path("proof.json"))
    (own,) = tree["products"].values()
    arms: dict[str, dict[str, Any]] = {}
    for name, arm in own["arms"].items():
        best = {} if name == NONE else own["best_on_test"].get(name, {})  # patchcore has no epochs to choose from
        for when, figures in (("last", arm["figures"]), ("best on test", best)):
            row = {
                column: round(figures[task][ALL][figure]["mean"], 5)
                for task, columns in FIGURES.items()
                for column, figure in columns.items()
                if figures.get(task, {}).get(ALL, {}).get(figure)
            }
            if row:
                arms.setdefault(name, {})[when] = row
    ours = run.config.generator.label
    named = {OURS: ours, MADE_ONLY: f"{ours}, no shots", NONE: "patchcore on normal parts"}
    return {
        "arms": {named.get(name, name): row for name, row in arms.items()},
        "reduced": tree["reduced"],
        "seeds": tree["seeds"],
        "shots": own["shots"],
        "test": own["test"],
    }


def tables(results: Mapping[str, Any]) -> str:
    """Return a table of categories and arms for each column and both ways to choose the epoch, in Markdown."""
    parts = ["# MVTec AD by the field's protocol\n"]
    parts += [f"Reduced: {text}.\n" for text in dict.fromkeys(t for row in results.values() for t in row["reduced"])]
    arms = list(dict.fromkeys(name for row in results.values() for name in row["arms"]))
    for column in (column for columns in FIGURES.values() for column in columns):
        ways = [(name, when) for name in arms for when in ("last", "best on test")]
        grid = [
            [row["arms"].get(name, {}).get(when, {}).get(column) for name, when in ways] for row in results.values()
        ]
        kept = [place for place in range(len(ways)) if any(line[place] is not None for line in grid)]
        if not kept:  # nobody was asked
            continue
        lines = [f"| {column} | " + " | ".join(f"{ways[k][0]}, {ways[k][1]}" for k in kept) + " |"]
        lines.append("|---" * (1 + len(kept)) + "|")
        for category, line in zip(results, grid, strict=True):
            lines.append(f"| {category} | " + " | ".join(_percent(line[k]) for k in kept) + " |")
        means = [np.mean([line[k] for line in grid if line[k] is not None]) for k in kept]
        parts.append("\n".join([*lines, f"| mean of {len(grid)} | " + " | ".join(map(_percent, means)) + " |"]) + "\n")
    return "\n".join(parts)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def collected(out: Path, categories: Sequence[str]) -> dict[str, Any]:
    """Return category -> what it came to, of all that are ready."""
    return {
        category: summary(Run.open(out / category))
        for category in categories
        if (out / category / "proof.json").is_file()
    }


def estimated(args: argparse.Namespace) -> Iterator[str]:
    """Train on a few pictures and say what an arm of a category takes: processor seconds, on a GPU seconds."""
    config = configuration(args, "any")
    device = device_of(config)
    training = example_training(PICTURES, side=SIDE)
    unet = Unet(UnetSettings(), training.defects, device=device)
    plan = unet._plan(args.budget)
    small = Unet(UnetSettings(width=plan.width, epochs=1, samples_per_epoch=PICTURES), training.defects, device=device)
    weights = {"weights": str(args.resnet or "")}
    resnet = Classifier(ClassifierSettings(**weights), training.defects, device=device)
    epochs, repeats = resnet._plan(args.budget)
    few = Classifier(ClassifierSettings(epochs=1, repeats=1, **weights), training.defects, device=device)
    learned, asked = _seconds(small, training, PICTURES, device)
    shown, named = _seconds(few, training, len(training.damaged()), device)
    tests = args.tests
    hours = plan.epochs * (plan.samples * learned + tests * asked) / 3600
    yield (
        f"U-Net on {device}, {plan.width} channels: {learned:.3f} s a picture and step, {asked:.3f} s to look at one; "
        f"{plan.epochs} epochs of {plan.samples} pictures, each tested on {tests}: {hours:.2f} h an arm and seed"
    )
    pictures = 500 * 5
    more = epochs * (pictures * repeats * shown + tests * named) / 3600
    yield (
        f"ResNet-34: {shown:.3f} s a picture; {epochs} epochs of {pictures} pictures {repeats:g} times (five types "
        f"with 500 each, the most): {more:.2f} h at most an arm and seed"
    )
    arms = 2 + len(args.generators)
    yield (
        f"together at most {hours + more:.1f} h an arm and seed; {arms} arms, {args.seeds} seeds, 15 categories: "
        f"{15 * arms * args.seeds * (hours + more):.0f} h of one device, without painting"
    )


def _seconds(detector: Detector, training: Any, pictures: int, device: str) -> tuple[float, float]:
    """Return seconds per picture of training, and of looking: of the processor, or on a GPU by the clock."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    image = training.batch(range(8)).image
    times: list[tuple[float, float]] = []
    for _ in range(2):  # the first warms up
        begun = clock()
        for _ in detector.fit(training, torch.Generator().manual_seed(0)):
            pass
        trained = clock()
        detector.predict(image)
        times.append(((trained - begun) / pictures, (clock() - trained) / len(image)))
    return times[-1]


def on_all_gpus(count: int, words: Sequence[str]) -> None:
    """Start this command once per GPU, each with its shard, and wait.

    Raises:
        RunError: one of them failed; the others went on to their end.
    """
    started = []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    if len(visible) < count:
        raise RunError(f"--gpus {count}: CUDA_VISIBLE_DEVICES names only {len(visible)}")
    for number in range(count):
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": visible[number]}
        command = [sys.executable, __file__, *words, "--shard", f"{number}/{count}"]
        started.append(subprocess.Popen(command, env=environment))
    failed = [number for number, process in enumerate(started) if process.wait()]
    if failed:
        raise RunError(f"{len(failed)} of {count} processes failed (GPU {', '.join(map(str, failed))}); start it again")


def main() -> None:
    """Parse, run or estimate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="your MVTec AD folder, a folder per category in it")
    parser.add_argument("--out", type=Path, required=True, help="where the runs go, or lie")
    parser.add_argument("--only", nargs="+", help="categories; all by default")
    parser.add_argument(
        "--generators", nargs="+", default=["patch_synthesis", "crop_paste"], help="the first is `ours`"
    )
    parser.add_argument(
        "--samples", type=int, default=500, help="of each defect type; the U-Net learns from 500 at most"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", type=float, default=1.0, help="share of the detectors' full training")
    parser.add_argument("--resnet", type=Path, help="a transformers folder of ResNet-34 with ImageNet's weights")
    parser.add_argument("--set", action="append", default=[], help="override a key of the configuration")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th category, beginning with i")
    parser.add_argument("--gpus", type=int, default=0, help="start so many processes, one per GPU")
    parser.add_argument("--estimate", action="store_true", help="say how long it takes, and train nothing else")
    parser.add_argument("--tests", type=int, default=90, help="--estimate: test pictures of a category")
    parser.add_argument("--results", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    try:
        if args.estimate:
            for line in estimated(args):
                print(line, flush=True)
            return
        known = categories_of(args.data)
        if unknown := sorted(set(args.only or ()) - set(known)):
            parser.error(f"--only: {', '.join(unknown)} is no category with defects of {args.data}: {', '.join(known)}")
        categories = sorted(args.only or known)
        shard = Shard.parse(args.shard)
        if args.gpus > 1:
            words = [word for word in sys.argv[1:] if not word.startswith("--gpus=")]
            if "--gpus" in words:
                del words[words.index("--gpus") : words.index("--gpus") + 2]
            on_all_gpus(args.gpus, words)
        else:
            for category in (one for number, one in enumerate(categories) if number in shard):
                print(category, flush=True)
                run_all(Run.create(args.out / category, configuration(args, category)))
        results = collected(args.out, categories)
    except FlawsmithError as error:
        raise SystemExit(f"error: {error}") from None
    write_text(args.out / "mvtec.md", tables(results))
    print(args.out / "mvtec.md")
    if args.results:
        entry = {"machine": machine(), "generators": args.generators, "budget": args.budget, "categories": results}
        write_json(args.results, entry)


if __name__ == "__main__":
    main()
