"""What benchmarks/results/ say of each generator, in the words of the tables that docs/write_tables.py writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from flawsmith import registry  # noqa: E402
from flawsmith.config import TrainConfig  # noqa: E402
from flawsmith.evaluation.statistics import MEAN, OURS, REAL  # noqa: E402
from flawsmith.interfaces import Generator  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
SETS = {"magnetic-tile": "tiles", "screw": "screws"}
TASKS = {"localization": "ap", "detection": "auroc"}
BACKBONES = {"87d9cbecc1202888": "version 0", "8ee7c45200a0ec8b": "version 1", "b881078cfaa6e768": "version 2"}
"""Fingerprint -> how docs/proof.md calls this version of the built-in backbone."""
EARLIER = {"localization": "where", "detection": "whether", "defect": "kind", MEAN: "mean over kinds"}
EARLIER |= {"samples": "pairs", "normal": "sound"}
"""A name in a result -> what it was called in results before there was a glossary."""

PROOFS: dict[str, list[tuple[str, Mapping[str, str], str]]] = {
    "patch_synthesis": [
        ("proof.json", {name: name for name in SETS}, OURS),
        ("real_pixels.json", {name: f"{name}, 10 shots, memory_probe, test" for name in SETS}, "patch_synthesis"),
    ],
    "crop_paste": [
        ("proof.json", {name: name for name in SETS}, "crop_paste"),
        ("proof.json", {name: f"{name}-inpaint" for name in SETS}, "crop_paste"),
    ],
    "controlnet_inpaint": [("proof.json", {name: f"{name}-inpaint" for name in SETS}, OURS)],
    "cross_modal": [("proof.json", {name: f"{name}-csm" for name in SETS}, OURS)],
    "dual_branch": [("proof.json", {name: f"{name}-dual" for name in SETS}, OURS)],
    "anomaly_diffusion": [("proof.json", {name: f"{name}-anomaly-diffusion" for name in SETS}, OURS)],
}
"""Generator -> results that judge it, the first that has both sets counts: file, set -> entry, the arm's name in it."""
WITHOUT_SHOTS = "zero_shots.json"
UNJUDGED = {
    "hybrid": "the two that it is made of are judged",
    "few_steps": "no student was trained on the sets yet",
    "component": "neither set shows parts that are missing or misplaced",
    "prompt_inpaint": "it asks for a larger backbone than the built-in one",
}
"""Generator -> why no proof of it is in the results."""


@dataclass(frozen=True)
class Judged:
    """What detectors gained by an arm's samples on one set, against the shots alone in the same run."""

    judge: str
    backbone: str
    samples: int
    test: int
    seeds: int
    figures: Mapping[str, str]
    """Task -> the arm's figure, its difference, interval and verdict, in words."""


@cache
def result(file: str) -> dict[str, Any]:
    """Return a result; {} = it is not there."""
    path = RESULTS / file
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def of(tree: Mapping[str, Any], name: str) -> Any:
    """Return a value by its name, or by what it was called earlier."""
    return tree[name] if name in tree else tree[EARLIER[name]]


def differences(rows: Sequence[Mapping[str, Any]], arm: str, against: str, arms: Mapping[str, Any]) -> dict[str, str]:
    """Return task -> figure, difference, interval and verdict of an arm, as points of 100."""
    figures = {}
    for row in rows:
        is_mean = of(row, "defect") in (MEAN, EARLIER[MEAN])
        task = next((name for name in TASKS if of(row, "task") in (name, EARLIER[name])), None)
        if (row["arm"], row["against"]) != (arm, against) or not is_mean or task is None:
            continue
        figure = of(arms[arm]["figures"], task)
        value = of(figure, MEAN)[TASKS[task]]["mean"]
        verdict = row.get("corrected_verdict") or f"{row['verdict']}*"
        interval = f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        figures[task] = f"{100 * value:.1f} ({interval}): {verdict}"
    return figures


def judged(file: str, entry: str, arm: str) -> Judged | None:
    """Return what a result says of an arm; None = the result has no such entry."""
    tree = result(file).get(entry)
    if tree is None:
        return None
    proof = tree.get("proof", tree)
    product = next(iter(proof["products"].values())) if "products" in proof else proof
    backbone = (tree.get("backbone") or {}).get("fingerprint", "")
    return Judged(
        proof["detectors"][0] if "detectors" in proof else entry.split(", ")[2],
        BACKBONES.get(backbone, backbone) if arm == OURS else "",
        sum(of(product["arms"][arm], "samples").values()),
        sum(product["test"].values()),
        proof["seeds"],
        differences(product["comparisons"], arm, REAL, product["arms"]),
    )


def judged_beside_shots(generator: str, name: str, shots: int) -> Judged | None:
    """Return what the suite zero_shots says of a generator on a set, beside so many shots; None = nothing."""
    tree = result(WITHOUT_SHOTS).get(name, {})
    with_shots = f"{shots} shots" if shots > 1 else "1 shot"
    arm, against = (f"{with_shots} + {generator}", with_shots) if shots else (generator, "normal parts")
    if arm not in tree.get("arms", {}) or against not in tree["arms"] or "comparisons" not in tree:
        return None
    arms = {
        key: {"figures": {task: {MEAN: {TASKS[task]: row[task][MEAN]}} for task in TASKS if task in row}}
        for key, row in tree["arms"].items()
    }
    figures = differences(tree["comparisons"], arm, against, arms)
    judge = "memory_probe" if tree["budget"] == 1 else f"memory_probe at {tree['budget']:g} of its training"
    return Judged(judge, "", tree["samples"][generator], tree["test_pictures"], tree["seeds"], figures)


def worth_of(generator: str) -> tuple[str, dict[str, Judged]]:
    """Return the file that judges a generator, and set -> what it says; ("", {}) = there is none."""
    for file, names, arm in PROOFS.get(generator, []):
        rows = {name: row for name, entry in names.items() if (row := judged(file, entry, arm)) is not None}
        if len(rows) == len(SETS):
            return file, rows
    rows = {name: row for name in SETS if (row := judged_beside_shots(generator, name, 10)) is not None}
    return (WITHOUT_SHOTS, rows) if rows else ("", {})


def unjudged(generator: str) -> str:
    """Return why there is no figure."""
    if generator in UNJUDGED:
        return UNJUDGED[generator]
    if any(judged_beside_shots(generator, name, 0) for name in SETS):
        return "not run beside ten shots; alone: below"
    plugin = registry.get("generators", generator)
    return "zero_shots.json is not there yet" if plugin.without_shots else "its proof is not there yet"


def copies_of(generator: str, name: str) -> str:
    """Return the share of its samples that repeat a shot, in per cent."""
    for file, entry in (("looks.json", f"{name}, 10 shots, test"), ("patch_diffusion.json", name)):
        arms = result(file).get(entry, {}).get("arms", {})
        for key, start in ((generator, ""), (f"{generator}, noise", " (started from noise)")):
            if "copies" in arms.get(key, {}):
                return f"{100 * arms[key]['copies']['mean']:.1f} %{start}"
    return ""


def each(values: Sequence[Any]) -> str:
    """Return the values of both sets in words, once where they are equal."""
    return " and ".join(dict.fromkeys(map(str, values)))


def trains(plugin: type[Generator]) -> bool:
    """Return whether `flawsmith train` takes steps for it."""
    return plugin.trainable is not Generator.trainable


def training_of(generator: str) -> str:
    """Return the minutes of training on both sets, and the steps."""
    plugin = registry.get("generators", generator)
    if not trains(plugin):
        return "none"
    if runs := _runs(generator):
        minutes = each([f"{run['stage_seconds']['train'] / 60:.1f}" for run in runs])
        return f"{minutes} min, {each([run['settings'].get('train.steps', TrainConfig().steps) for run in runs])} steps"
    return "– no run on the sets"


def _runs(generator: str) -> list[dict[str, Any]]:
    """Return the proofs of both sets in which the generator is the run's own, the first that are there."""
    for file, names, arm in PROOFS.get(generator, []):
        runs = [run for entry in names.values() if arm == OURS and (run := result(file).get(entry)) is not None]
        if len(runs) == len(SETS):
            return runs
    return []


def seconds_of(generator: str) -> str:
    """Return the seconds of a sample, with the letter of what was measured."""
    trial = result("patch_diffusion.json").get("magnetic-tile", {}).get("arms", {})
    for arm in (generator, f"{generator}, noise"):
        if arm in trial:
            return f"{trial[arm]['cpu_seconds_per_sample']:.2f} (a)"
    rows = [result(WITHOUT_SHOTS).get(name, {}).get("seconds_per_sample", {}).get(generator) for name in SETS]
    if any(rows):
        return f"{each([f'{seconds:.2f}' for seconds in rows if seconds is not None])} (b)"
    # A run that was stopped and gone on with has no such time.
    if runs := [run for run in _runs(generator) if "generate" in run["stage_seconds"]]:
        return f"{each([f'{_seconds_a_picture(run):.1f}' for run in runs])} (c)"
    student = result("distillation_speed.json").get("speed", {}).get("processor", {}).get("student")
    if generator == "few_steps" and student:
        return f"{1 / student['pairs_per_second']['whole']:.2f} (d)"
    row = result("exactness.json").get("generators", {}).get(generator)
    if row and row["samples"] + row["controls"]:
        return f"{row['processor_seconds'] / (row['samples'] + row['controls']):.2f} (e)"
    return "– not measured"


def _seconds_a_picture(run: Mapping[str, Any]) -> float:
    """Return the seconds of `generate` over the samples and controls that it was asked for."""
    settings, (own,) = run["settings"], run["proof"]["products"].values()
    controls = settings.get("generate.controls", settings.get("generate.shams", 0.0))
    asked = settings["generate.count"] * len(own["shots"]) * (1 + controls)
    return float(run["stage_seconds"]["generate"] / asked)


def memory_of(generator: str) -> str:
    """Return memory: on a card at Stable Diffusion 1.5's size, or of the process."""
    card = result("memory_presets.json").get("generators", {}).get(generator)
    if card:
        trained = [card["train"][preset]["batch 16"]["allocated_gib"] for preset in ("none", "8GB")]
        return (
            f"{trained[0]:.1f} to train, {trained[1]:.1f} with `8GB`, {card['paint']['allocated_gib']:.1f} to paint (f)"
        )
    for row in result("picture_memory.json").get("rows", []):
        asked = (row["generator"], row["side"], row["colours"], row["bits"], row["batch"])
        if asked == (generator, 2048, "RGB", 8, 8):
            return f"{row['peak_gb']:.2f} (g)"
    return "– not measured"
