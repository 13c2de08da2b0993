"""What the parts of the three methods are worth: each is left out, or changed as its paper has it, all else equal.

    python benchmarks/suites/ablations.py --data ../shared/data --out FOLDER --only screw [--method cross_modal]
        [--arm "without ASEA"] [--start noise] [--without-proof] [--count 20] [--set train.steps=240]

Each arm is a run of the method's example with one thing changed (`ARMS`), painted from noise and from a sketch (a
re-posed shot). Arms that differ in painting alone share one training. Judged are, of the samples that are kept:

* **told**: the share whose defect type is named as it was asked for, by the proof's probe that learned the shots (whole
  pictures) and by a regression on windows round the *test* damage (`references.Judges`);
* **KID** of the windows round the damage against those of the test damage, the mean over defect types;
* **label agreement**: the shares of the change that is labelled and of the label that changed, as the metric has it;
* **copies**: likeness to the nearest shot; a sketch is nearly one, so KID alone flatters what changes little;
* **proof**: `memory_probe` on the shots and the samples, against the shots alone and against the method as it is.

`--only factory` makes small procedural photographs, to try the suite. What is on disk is not made again, so a killed
suite goes on, and arms can be run one by one; the test damage is read by the rulers alone, nothing learns from it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from judges import SEEDS, answers
from references import Judges, Studio
from sets import CARD, DEVICE, FOLDERS, HOME, RESULTS, configuration, with_damage

from flawsmith.config import Config, load_config, overridden, parse_overrides
from flawsmith.data import factory, images
from flawsmith.data.feature_windows import feature_window, window_of
from flawsmith.evaluation.arms import REAL, Arm, common_set, made_of, training_set
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.measure import feature_set
from flawsmith.evaluation.proof import figures
from flawsmith.evaluation.shape import proof_shape, shapes_of
from flawsmith.evaluation.statistics import MEAN, Outcome, compare, draws, resampled
from flawsmith.files import read_json, write_json
from flawsmith.generators.controlnet_inpaint import ControlNetInpaint
from flawsmith.metrics.labels import alignment, copies
from flawsmith.metrics.pictures import kid
from flawsmith.nn import prompts
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.screening.screen import screen
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train
from flawsmith.types import Batch, Encoded

AS_IT_IS = "as it is"
STARTS = {"noise": "noise", "sketch": "shot"}
"""What painting starts from -> the setting's word for it."""
EXAMPLES = {"controlnet_inpaint": "-inpaint", "cross_modal": "-csm", "dual_branch": "-dual"}
"""Method -> how its example's name ends."""
FACTORY, FACTORY_DEFECTS = "factory", ("scratch", "stain")
_PLUGIN = "generators.controlnet_without_mask=ablations:ControlNetWithoutMask"
_LEADS = {"localization": "ap", "detection": "auroc"}
_SETTINGS = "generator.settings."


class ControlNetWithoutMask(ControlNetInpaint):
    """A ControlNet that is shown an empty mask, in training and in sampling; the frozen model is given it as before."""

    def encode(self, shots: Batch, known: Any = None) -> Encoded:
        views = super().encode(shots, known)
        return Encoded({**views.tensors, "mask": torch.zeros_like(views["mask"])})

    def _predictor(self, known: Any, mask: torch.Tensor, text: Any, guidance: float) -> Any:
        return super()._predictor(known, torch.zeros_like(mask), text, guidance)


@dataclass(frozen=True, slots=True)
class Change:
    """What an arm changes of its method's example."""

    settings: dict[str, Any] = field(default_factory=dict)
    trained_as: str = ""
    """The arm whose training it shares; "" = its own."""
    wrong_references: bool = False
    """True: each sample gets the appearance of a shot of the next defect type in the alphabet."""


def _filtered(*stages: str) -> Change:
    """Return the paper's filter: of twice as many for each stage, keep the half that looks most real, most damaged."""
    settings: dict[str, Any] = {
        "screen.enabled": True,
        "screen.filters": list(stages),
        "screen.thresholds": {stage: "off" for stage in stages} | {f"{stage}.whole": {"keep": 0.5} for stage in stages},
        "screen.times": 2.0 ** len(stages),
        "screen.rounds": 0,
    }
    return Change(settings, trained_as=AS_IT_IS)


ARMS: dict[str, dict[str, Change]] = {
    "controlnet_inpaint": {
        AS_IT_IS: Change(),
        "prompt names the object": Change(
            {
                f"{_SETTINGS}prompt": prompts.PROMPT_ON_PRODUCT,
                f"{_SETTINGS}normal_prompt": prompts.NORMAL_PROMPT_ON_PRODUCT,
            }
        ),
        "ControlNet sees no mask": Change({"generator.name": "controlnet_without_mask"}),
        "filter stage 1": _filtered("realism"),
        "filter stage 2": _filtered("visible"),
        "filter stages 1 and 2": _filtered("realism", "visible"),
    },
    "cross_modal": {
        AS_IT_IS: Change(),
        "without ASEA": Change({f"{_SETTINGS}asea_steps": 0}),
        "scale of SGA 0": Change({f"{_SETTINGS}scale": 0.0}, trained_as=AS_IT_IS),
        "wrong references": Change(trained_as=AS_IT_IS, wrong_references=True),
    },
    "dual_branch": {
        AS_IT_IS: Change({f"{_SETTINGS}bcm": "off"}),
        "without SAIM": Change({f"{_SETTINGS}saim": "off"}),
        "BCM as in the paper": Change({f"{_SETTINGS}bcm": "paper"}),
        "BCM corrected": Change({f"{_SETTINGS}bcm": "scaled"}),
    },
}
"""Method -> arm -> what it changes. BCM is off in the example, so the method as it is has none."""


def config_of(name: str, method: str, args: argparse.Namespace, overrides: dict[str, Any]) -> Config:
    """Return the configuration of a set's example of a method; the factory takes the settings of the tiles'."""
    shared = {"generate.count": args.count, "generate.controls": 0.0, **overrides}
    shared |= {"measure.enabled": False, "prove.enabled": False, "prove.resamples": 10_000, "export.formats": []}
    ending = EXAMPLES[method]
    if name != FACTORY:
        return configuration(args.data, f"{name}{ending}", shared)
    root = args.out / "photographs"
    factory.write_dataset(root, "steel", FACTORY_DEFECTS, normals=8, per_defect=7, seed=3, size=128, test_normals=6)
    place = {"data.root": str(root), "data.layout": "mvtec", "data.normal": [], "data.product": "", "data.shots": 4}
    small = {"train.steps": 3, "train.batch": 4, "train.views": 2, "generate.steps": 3, "prove.size": 0}
    return load_config(HOME / "examples" / f"magnetic-tile{ending}.toml", {**place, **small, **shared})


def run_of(name: str, method: str, arm: str, start: str, args: argparse.Namespace) -> Run:
    """Return the run of an arm with its samples made; what it shares with another arm is trained once."""
    change, base = ARMS[method][arm], args.out / name / method
    config = config_of(name, method, args, {f"{_SETTINGS}start": STARTS[start], **change.settings})
    config = overridden(config, parse_overrides(args.set))
    taught = change.trained_as or arm
    trained = base / "trained" / taught
    overrides = {f"{_SETTINGS}start": STARTS["noise"], **ARMS[method][taught].settings, **parse_overrides(args.set)}
    learned = Run.create(trained, config_of(name, method, args, overrides))
    train(learned)
    if change.wrong_references:
        defects = sorted({str(shot.defect) for shot in load_split(learned).shots})
        following = dict(zip(defects, [*defects[1:], *defects[:1]], strict=True))
        config = overridden(config, {"generate.reference": following})
    folder = base / f"{arm}, {start}"
    if not folder.is_dir():
        shutil.copytree(trained, folder)
    run = Run.create(folder, config)
    train(run)
    generate(run)
    if config.screen.enabled:
        screen(run)
    return run


class Rulers:
    """What all arms of a set are judged with; made once."""

    def __init__(self, run: Run, out: Path) -> None:
        self.split = load_split(run)
        self.extractor = FeatureCache(load_extractor("efficientnet-lite0", device=DEVICE), out / "features", half=True)
        self.told = Judges(Studio(run), self.extractor)
        self.defects = self.told.defects
        self._normals = {one.id: one for one in self.split.normals}
        self._tests, self._shots = (
            {d: feature_set([window_of(e) for e in group if e.defect == d], self.extractor) for d in self.defects}
            for group in (self.told.tests, with_damage(self.split.shots))
        )

    def __call__(self, run: Run) -> dict[str, Any]:
        """Return the figures of a run's samples."""
        (product,) = {shot.product for shot in self.split.shots}
        made, kept = [one.example for one in made_of(run, product)[0]], run.kept()
        rows: dict[str, list[float]] = {}
        for defect in self.defects:
            windows = [self._window(run, one) for one in kept if one.defect == defect]
            if not windows:
                continue
            ours, rng = feature_set(windows, self.extractor), np.random.default_rng(0)
            of_type = kid(self._tests[defect], ours, rng, 0) | alignment(self._tests[defect], ours, rng, 0)
            of_type["nearest_shot"] = copies(self._shots[defect], ours, rng, 0)["nearest"]
            for name, figure in of_type.items():
                if figure.value is not None:
                    rows.setdefault(name.partition("[")[0], []).append(figure.value)
        means = {name: round(float(np.mean(values)), 4) for name, values in rows.items()}
        samples = run.samples()
        given_up = sum(not one.made for one in samples)
        return {"samples": len(kept), "given_up": given_up, "told": self.told(made) if made else {}, **means}

    def _window(self, run: Run, sample: Any) -> Any:
        normal = self._normals[sample.normal]
        below, made = images.read(normal.image), images.read(run.path(sample.image))
        span = images.range_of(below, normal.span)
        mask = images.read_mask(run.path(sample.mask), made.shape[:2])
        return feature_window(images.to_model(made, span), mask, images.to_model(below, span))


class Proof:
    """Trains the judge on an arm's samples, and compares it."""

    def __init__(self, rulers: Rulers, config: Config, folder: Path) -> None:
        self._split, self._part, self._folder = rulers.split, config.prove, folder
        self._extractor = rulers.extractor
        shape = proof_shape(config.prove, shapes_of(self._split.normals))
        self._evaluator = Evaluator(self._split, rulers.defects, shape, drop_near_duplicates=True)
        self._common = common_set(self._split, [], shape, rulers.defects, self._evaluator.forbidden)
        self._known: dict[str, list[Outcome]] = {}

    def outcomes(self, name: str, run: Run | None) -> list[Outcome]:
        """Return what the judge answers after learning from a run's samples, one per seed; None = the shots alone."""
        if name not in self._known:
            (product,) = {shot.product for shot in self._split.shots}
            arm = Arm(name, "", *((), ()) if run is None else map(tuple, made_of(run, product)))
            training = training_set(self._common, arm, self._split)
            folder = self._folder / name
            self._known[name] = answers("memory_probe", training, self._evaluator, self._extractor, folder)[0]
        return self._known[name]

    def against(self, one: str, other: str) -> list[dict[str, Any]]:
        """Return the paired comparisons of two arms that have answered, the means over defect types."""
        pair, known = (self._known[one], self._known[other]), self._evaluator.evaluation_set
        weights = draws(known, self._part.resamples, np.random.default_rng((0, 71)))
        drawn = [[resampled(known, outcome, weights) for outcome in outcomes] for outcomes in pair]
        rows = compare(*drawn, pair, confidence=self._part.confidence, rng=np.random.default_rng((0, 72)))
        return [{"arm": one, "against": other, **asdict(row)} for row in rows if row.defect == MEAN]


def chosen(args: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """Yield (method, start, arm) of what is asked for; an arm comes after the method as it is."""
    for method in [args.method] if args.method else ARMS:
        for start in [args.start] if args.start else STARTS:
            for arm in [args.arm] if args.arm else ARMS[method]:
                if arm not in ARMS[method]:
                    raise SystemExit(f"--arm {arm!r}: {method} has {', '.join(map(repr, ARMS[method]))}")
                yield method, start, arm


def lead(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the deciding figures of an arm, means over defect types and seeds."""
    table = figures(list(outcomes))
    return {task: round(float(table[task][MEAN][name]["mean"]), 4) for task, name in _LEADS.items()}


def main() -> None:
    """Parse, make, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds the real sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs, features and answers go, or lie")
    parser.add_argument("--only", choices=(*sorted(FOLDERS), FACTORY), required=True, help="the set")
    parser.add_argument("--method", choices=ARMS, help="one method")
    parser.add_argument("--arm", help="one arm of it")
    parser.add_argument("--start", choices=STARTS, help="one start")
    parser.add_argument("--count", type=int, default=20, help="samples of each defect type")
    parser.add_argument("--without-proof", action="store_true", help="train no detectors")
    parser.add_argument("--set", action="append", default=[], help="override a key of the example")
    parser.add_argument("--results", type=Path, default=RESULTS / "ablations.json")
    args = parser.parse_args()
    if args.only != FACTORY and not args.data:
        parser.error(f"--only {args.only} is a real set, so it needs --data")
    if args.arm and not args.method:
        parser.error("--arm names an arm of one method, so it needs --method")
    os.environ["FLAWSMITH_PLUGINS"] = ",".join(filter(None, (os.environ.get("FLAWSMITH_PLUGINS"), _PLUGIN)))
    sys.modules.setdefault("ablations", sys.modules[__name__])  # run as a script it has another name
    rulers: Rulers | None = None
    proof: Proof | None = None
    for method, start, arm in chosen(args):
        run = run_of(args.only, method, arm, start, args)
        rulers = rulers or Rulers(run, args.out / args.only)
        row = rulers(run)
        if not args.without_proof:
            proof = proof or Proof(rulers, run.config, args.out / args.only / "answers")
            name, usual = (f"{method}, {one}, {start}" for one in (arm, AS_IT_IS))
            real = lead(proof.outcomes(REAL, None))
            if arm != AS_IT_IS:
                proof.outcomes(usual, run_of(args.only, method, AS_IT_IS, start, args))
            row["proof"] = {"seeds": SEEDS, "real-only": real, "arm": lead(proof.outcomes(name, run))}
            others = [REAL] if arm == AS_IT_IS else [REAL, usual]
            row["proof"]["comparisons"] = [one for other in others for one in proof.against(name, other)]
        print(args.only, method, start, arm, row, flush=True)
        results = read_json(args.results) if args.results.is_file() else {}
        known = results.setdefault(args.only, {}).setdefault(method, {})
        facts = {"machine": {**machine(), "threads": os.environ["OMP_NUM_THREADS"], "card": CARD}, "count": args.count}
        facts["backbone"] = run.record("train").get("backbone")
        facts["train"] = {"steps": run.config.train.steps, "generate.steps": run.config.generate.steps}
        known[f"{arm}, {start}"] = {**facts, "set": args.set, **row}
        write_json(args.results, results)


if __name__ == "__main__":
    main()
