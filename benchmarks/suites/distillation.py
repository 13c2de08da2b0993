"""Does a student of few steps paint as its teacher does? Magnetic tiles, built-in backbone, everything from noise.

    python benchmarks/suites/distillation.py --data ../shared/data --out FOLDER [--device cuda] [--results FILE]

teacher     controlnet_inpaint, ten shots a defect type; 20 steps with guidance
teacher-4   the same in 4 steps
student     `flawsmith distill`: few_steps, 4 steps
quarter     the same with a quarter of the weights
untaught    what the student begins as, 4 steps
random      a UNet of random weights in the student's place, 4 steps

All paint the same plan: the same normal parts, masks and seeds. Compared with real damage that nobody learned from, on
EfficientNet-Lite0's features of close-ups: kernel distance (KID x 1000, all types together) with the interval of
resampled pictures; and a judge of defect types, logistic regression on that real damage, asked what type each made
picture shows. A run passes by KID when its own is not above the teacher's interval, nor the interval of the difference,
over paired samples, above 0; and by the judge when the interval of its share named right less the teacher's, over
paired samples, is not below 0. `passes` is both; the random UNet must not.

`pairs_per_second`: `whole` is what `flawsmith generate` does but for writing files (cut, paint, paste, fit labels), in
batches of 16, the first left out; `networks` is the generator alone on 16 windows. Measured one after another at the
end; on a processor in its own time, of all cores. `evaluations`: of networks per window, a guided step being two. With
--workers 3 the students learn at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sets import RESULTS, configuration, with_damage
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flawsmith import registry
from flawsmith.config import overridden, parse_overrides
from flawsmith.data.feature_windows import window_of
from flawsmith.evaluation.measure import feature_set
from flawsmith.files import read_json, write_json
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.synthesis.distillation.student_run import student_run
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.painters import Painters
from flawsmith.synthesis.train import RunBackbone, train
from flawsmith.testing import example_condition
from flawsmith.types import Example, FeatureSet

SET = "magnetic-tile"
GUIDANCE = 3.0
STEPS = {"teacher": 20, "teacher-4": 4, "student": 4, "quarter": 4, "untaught": 4, "random": 4}
RESAMPLES = 1000
BATCH = 16


def teacher_run(args: argparse.Namespace) -> Run:
    """Return the trained run that teaches."""
    told = {
        "backbone.device": args.device,
        "generator.settings": {"start": "noise"},
        "train.steps": args.steps,
        "train.batch": args.batch,
        "train.save_every": 1000,
        "generate.steps": STEPS["teacher"],
        "generate.guidance": GUIDANCE,
        "generate.count": args.pairs,
        "generate.controls": 0.0,
        "generate.batch": BATCH,
        "screen.enabled": False,
        "measure.enabled": False,
        "prove.enabled": False,
        **parse_overrides(args.overrides),
    }
    run = Run.create(args.out / "teacher", configuration(args.data, f"{SET}-inpaint", told))
    train(run)
    return run


def made_run(args: argparse.Namespace, name: str) -> None:
    """Train one of the others on the teacher's run, and paint its plan."""
    teacher = Run.open(args.out / "teacher")
    if name == "teacher-4":  # a copy of the teacher's folder, as it was when it was trained
        run = Run.create(args.out / name, overridden(teacher.config, {"generate.steps": STEPS[name]}))
    else:
        told: dict[str, Any] = {
            "train.steps": args.student_steps if name in ("student", "quarter") else 0,
            "train.batch": args.student_batch,
            "train.learning_rate": args.rate * (3 if name == "quarter" else 1),
        }
        if name == "random":
            told["backbone.source"] = str(args.out / "random-backbone")
        run = student_run(teacher, args.out / name, told, quarter=name == "quarter")
        train(run)
    generate(run)
    described(args, run)


def described(args: argparse.Namespace, run: Run) -> FeatureSet:
    """Return the features of a run's samples, in the order of its lines; computed once."""
    path = run.path("features.pt")
    if not path.is_file():
        made = [Example(s.image, run.path(s.image), "", s.defect, (run.path(s.mask),)) for s in run.kept()]
        torch.save(close_ups(made, extractor_of(args)).vector, path)
    return _vectors(torch.load(path), extractor_of(args).name)


def _vectors(vector: torch.Tensor, name: str) -> FeatureSet:
    """Return features of which nothing but the vectors is looked at."""
    return FeatureSet(torch.zeros(len(vector), 3, 1, 1), torch.zeros(len(vector), 1, 1).bool(), vector, (), name)


def extractor_of(args: argparse.Namespace) -> Any:
    """Return the network of all features here."""
    return FeatureCache(load_extractor("efficientnet-lite0", device=args.device))  # which takes pictures of any device


def random_backbone(folder: Path) -> None:
    """Write the built-in backbone with a UNet of random weights."""
    back = Backbone.load("builtin", device="cpu", dtype="float32")
    torch.manual_seed(0)
    unet = type(back.unet).from_config(back.unet.config)
    Backbone(back.vae, back.text_encoder, unet, back.noise.config, device="cpu", dtype="float32").save(folder)


def close_ups(examples: Sequence[Example], extractor: Any) -> FeatureSet:
    """Return the features of squares round the damage."""
    return feature_set([window_of(example) for example in examples], extractor)


def taught_judge(real: FeatureSet, defects: Sequence[str]) -> tuple[Any, float]:
    """Return a classifier of types, and its share right on real damage that it has not seen, in five folds."""
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000, C=0.05))
    vectors = real.vector.numpy()
    right = float(cross_val_score(judge, vectors, np.array(defects), cv=5).mean())
    return judge.fit(vectors, np.array(defects)), right


def kid_less(real: FeatureSet, made: FeatureSet, other: FeatureSet) -> dict[str, Any]:
    """Return by how much the KID x 1000 of made pictures is above that of others, row by row of the same plan.

    Real pictures and rows are resampled, the same for both.
    """
    x, y, z = (one.vector.double().numpy() for one in (real, made, other))
    among, cross = (
        [(a @ b.T / x.shape[1] + 1) ** 3 for a, b in pairs] for pairs in (((y, y), (z, z)), ((x, y), (x, z)))
    )

    def gap(w: np.ndarray, v: np.ndarray) -> float:
        pairs = v.sum() ** 2 - (v**2).sum()
        within = [(v @ kernel @ v - (v**2) @ np.diagonal(kernel)) / pairs for kernel in among]
        between = [2 * w @ kernel @ v / (w.sum() * v.sum()) for kernel in cross]
        return float(1000 * (within[0] - between[0] - within[1] + between[1]))

    rng, counts = np.random.default_rng(2), (len(x), len(y))
    drawn = [gap(*(rng.multinomial(n, np.full(n, 1 / n)).astype(float) for n in counts)) for _ in range(RESAMPLES)]
    return {"value": round(gap(*map(np.ones, counts)), 3), "interval": spread(np.array(drawn))}


def spread(values: np.ndarray) -> list[float]:
    """Return the ends of the 95 % interval of resampled values."""
    return [round(float(end), 4) for end in np.quantile(values, [0.025, 0.975])]


def compared(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Return the figures of every run, and which pass."""
    teacher = Run.open(args.out / "teacher")
    split = open_dataset(teacher).split
    known = {str(shot.defect) for shot in split.shots}
    held_out = with_damage(example for example in split.test_defects if example.defect in known)
    real, kid = close_ups(held_out, extractor_of(args)), registry.get("metrics", "kid")
    judge, on_real = taught_judge(real, [str(example.defect) for example in held_out])
    chance = max(sum(example.defect == defect for example in held_out) for defect in known) / len(held_out)
    result: dict[str, Any] = {
        "real": len(held_out),
        "judge": {"right_on_real": round(on_real, 4), "most_frequent_type": round(chance, 4), "types": len(known)},
    }
    right: dict[str, dict[int, bool]] = {}
    for name in names:
        run = Run.open(args.out / name)
        samples, features = run.kept(), described(args, run)
        (figure,) = kid(real, features, np.random.default_rng(0), RESAMPLES).values()
        said = judge.predict(features.vector.numpy())
        right[name] = {s.index: bool(word == s.defect) for s, word in zip(samples, said, strict=True)}
        row: dict[str, Any] = {
            "made": len(samples),
            "given_up": len(run.samples()) - len(samples),
            "steps": STEPS[name],
        }
        row["kid"] = {key: round(float(getattr(figure, key)), 3) for key in ("value", "low", "high")}
        row["named_right"] = round(float(np.mean(list(right[name].values()))), 4)
        both = sorted(right[name].keys() & right["teacher"].keys())
        gap = np.array([right[name][index] - float(right["teacher"][index]) for index in both])
        drawn = np.random.default_rng(1).choice(gap, (RESAMPLES, len(gap))).mean(1)
        row["named_right_less_teacher"] = {"value": round(float(gap.mean()), 4), "interval": spread(drawn)}
        theirs = described(args, teacher)
        mine, places = ({s.index: place for place, s in enumerate(each.kept())} for each in (run, teacher))
        rows = [[of[index] for index in both] for of in (mine, places)]
        paired = (
            _vectors(of.vector[places], of.extractor) for of, places in zip((features, theirs), rows, strict=True)
        )
        row["kid_less_teacher"] = kid_less(real, *paired)
        by_kid = row["kid"]["value"] <= (result["teacher"] if name != "teacher" else row)["kid"]["high"]
        by_kid = by_kid and row["kid_less_teacher"]["interval"][0] <= 0
        by_judge = row["named_right_less_teacher"]["interval"][1] >= 0
        row |= {"passes_by_kid": by_kid, "passes_by_judge": by_judge, "passes": by_kid and by_judge}
        result[name] = row
        print(name, row, flush=True)
    return result


def speeds(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Return {device: pairs per second of the runs, and how many times the teacher's}."""
    timed = {name: speed(args, name) for name in names if name in ("teacher", "student", "quarter")}
    for one in timed.values():
        teacher = timed["teacher"]["pairs_per_second"]
        one["times_the_teacher"] = {way: round(x / teacher[way], 2) for way, x in one["pairs_per_second"].items()}
    on_card = args.device != "cpu" and torch.cuda.is_available()
    print(timed, flush=True)
    return {torch.cuda.get_device_name() if on_card else "processor": {"machine": machine(), **timed}}


def speed(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Return pairs per second of a run, of the whole painting and of the networks alone."""
    # On a processor its own time, whatever else works beside.
    clock = time.perf_counter if args.device != "cpu" and torch.cuda.is_available() else time.process_time
    run = Run.open(args.out / name)
    data, backbone = open_dataset(run), RunBackbone(run)
    painters, lines = Painters(run.config, data, backbone, run.path("weights")), run.plan()
    batches = [lines[first : first + BATCH] for first in range(0, BATCH * (args.timed + 1), BATCH)]
    batches = [batch for batch in batches if batch]
    if len(batches) < 2:
        raise SystemExit(f"--pairs: {len(lines)} samples in all are too few to time batches of {BATCH}")
    painter, begun = painters.of(lines[0].job), 0.0
    for number, batch in enumerate(batches):
        if number == 1:
            begun = clock()
        list(painter.paint(batch))
    whole = sum(len(batch) for batch in batches[1:]) / (clock() - begun)
    asked, seconds = example_condition(backbone.loaded.size, BATCH), []
    for _ in range(args.timed + 1):
        begun = clock()
        steps, guidance = run.config.generate.steps, run.config.generate.guidance
        painter.generator.sample(asked, list(range(BATCH)), steps=steps, guidance=guidance)
        seconds.append(clock() - begun)
    guided = name.startswith("teacher")
    return {
        "evaluations": {"unet": STEPS[name] * (2 if guided else 1), "controlnet": STEPS[name] * 2 if guided else 0},
        "pairs_per_second": {"whole": round(whole, 2), "networks": round(BATCH / float(np.median(seconds[1:])), 2)},
    }


def main() -> None:
    """Parse, train, paint, compare, time, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the real sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs go, or lie")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=400, help="of the teacher's training")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--student-steps", type=int, default=600)
    parser.add_argument("--student-batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate of the student; thrice for the quarter")
    parser.add_argument("--pairs", type=int, default=40, help="samples of a defect type")
    parser.add_argument("--timed", type=int, default=4, help="batches that are timed")
    parser.add_argument("--speed-only", action="store_true", help="only time the runs that lie in --out")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[name for name in STEPS if name != "teacher"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="override the teacher's run")
    parser.add_argument("--results", type=Path, default=RESULTS / "distillation.json")
    args = parser.parse_args()
    begun = time.perf_counter()
    if args.speed_only:
        result = read_json(args.results) if args.results.is_file() else {}
        result.setdefault("speed", {}).update(speeds(args, [name for name in STEPS if (args.out / name).is_dir()]))
        write_json(args.results, result)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    if "random" in args.only and not (args.out / "random-backbone" / "unet").is_dir():
        random_backbone(args.out / "random-backbone")
    teacher = teacher_run(args)
    print(f"teacher trained after {time.perf_counter() - begun:.0f} s", flush=True)
    if "teacher-4" in args.only and not (args.out / "teacher-4").exists():
        shutil.copytree(args.out / "teacher", args.out / "teacher-4")
    with ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        order = sorted(args.only, key=lambda name: name not in ("student", "quarter"))
        tasks = [pool.submit(made_run, args, name) for name in order]
        generate(teacher)
        described(args, teacher)
        for task in tasks:
            task.result()
    print(f"all painted after {time.perf_counter() - begun:.0f} s", flush=True)
    names = ["teacher", *args.only]
    card = torch.cuda.get_device_name() if torch.cuda.is_available() and args.device != "cpu" else ""
    result: dict[str, Any] = {
        "machine": machine(),
        "card": card,
        "set": SET,
        "guidance_of_the_teacher": GUIDANCE,
        "training": {
            "teacher": {"steps": args.steps, "batch": args.batch},
            "students": {"steps": args.student_steps, "batch": args.student_batch},
        },
        **compared(args, names),
    }
    for name in ("student", "quarter"):
        if name in result:
            weights = args.out / name / "weights" / SET / "student.safetensors"
            result[name]["bytes_of_weights"] = weights.stat().st_size
            losses = read_json(weights.with_name("losses.json"))["losses"]
            means = [float(np.mean(losses[first : first + 50])) for first in range(0, len(losses), 50)]
            result[name]["loss_mean_of_50_steps"] = [round(mean, 5) for mean in means]
    result["speed"] = speeds(args, names)
    write_json(args.results, result)
    print(f"done after {time.perf_counter() - begun:.0f} s; {args.results}", flush=True)


if __name__ == "__main__":
    main()
