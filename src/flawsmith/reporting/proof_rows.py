"""What the report says of a proof, as plain rows and sentences: `proof_page` draws them, `report` writes them down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flawsmith.data.training_set import read_square
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.arms import NO_CONTROLS, OURS, REAL
from flawsmith.evaluation.statistics import ALL, MEAN, TASKS, Outcome
from flawsmith.files import read_json
from flawsmith.run.folder import Run
from flawsmith.types import Example

FIGURES = (
    ("localization", "ap", "pixel AP"),
    ("localization", "auroc", "pixel AUROC"),
    ("localization", "f1_max", "pixel F1-max"),
    ("localization", "aupro", "AUPRO"),
    ("detection", "auroc", "image AUROC"),
    ("detection", "ap", "image AP"),
    ("classification", "recall", "mean recall"),
)
"""Columns of the table of arms: means over defect types."""
_OUTLINE = (255, 64, 32)


@dataclass(frozen=True, slots=True)
class Telling:
    """A test picture on which ours and real-only differ most."""

    caption: str
    what: str
    tiles: tuple[np.ndarray, ...]
    """uint8 (h,w,3) RGB: the photograph with its label's outline, real-only's anomaly_map, ours."""


TELLING_COLUMNS = ("test photograph", "found by real-only", "found by ours")


def read_proof(run: Run) -> dict[str, Any] | None:
    """Return proof.json's tree, or None when the run holds no proof of the pairs that it has now."""
    path = run.path("proof.json")
    if not run.stage_hash("prove") or not path.is_file():
        return None
    tree: dict[str, Any] = read_json(path)
    return tree


def headline(proof: dict[str, Any], product: str) -> str:
    """Return the verdict over all defect types as one sentence."""
    rows = {row["task"]: row for row in comparison(proof, product, OURS, REAL) if row["defect"] == MEAN}
    told = [f"{TASKS[task][0]}: {rows[task]['verdict']} ({_points(rows[task])})" for task in TASKS if task in rows]
    name = f"{product}, " if len(proof["products"]) > 1 else ""
    return f"{name}{proof['generator']} beside the real shots, mean over defect types. " + "; ".join(told) + "."


def ruler(proof: dict[str, Any], product: str) -> str:
    """Return what was measured with what, as one sentence."""
    own = proof["products"][product]
    tests = sum(count for defect, count in own["test"].items() if defect != "normal")
    return (
        f"Protocol {proof['protocol']}; {', '.join(proof['detectors'])} on {proof['extractor']['name']} "
        f"({proof['extractor']['fingerprint']}), {own['size']} x {own['size']} pixels, {proof['seeds']} seeds; "
        f"{tests} damaged and {own['test']['normal']} normal test pictures; {proof['confidence']:.0%} intervals from "
        f"{proof['resamples']} paired resamples of test pictures and seeds. Differences are in points of 100."
    )


def comparison(proof: dict[str, Any], product: str, arm: str, against: str) -> list[dict[str, Any]]:
    """Return one comparison's rows, a task and defect type each."""
    rows = proof["products"][product]["comparisons"]
    return [row for row in rows if (row["arm"], row["against"]) == (arm, against)]


def pairs_compared(proof: dict[str, Any], product: str) -> list[tuple[str, str]]:
    """Return every (arm, against), ours against real-only first."""
    seen = dict.fromkeys((row["arm"], row["against"]) for row in proof["products"][product]["comparisons"])
    return sorted(seen, key=lambda pair: (pair != (OURS, REAL), pair[0] != OURS))


def verdict_rows(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row a defect type: its name and, for each task, the verdict with its interval."""
    defects = dict.fromkeys(row["defect"] for row in rows)
    told = {(row["task"], row["defect"]): f"{row['verdict']}: {_points(row)}" for row in rows}
    return [[defect, *(told.get((task, defect), "") for task in TASKS)] for defect in defects]


def arm_rows(proof: dict[str, Any], product: str, *, best: bool = False) -> list[list[Any]]:
    """Return a row an arm: name, what it learns from, and the means over defect types, in points of 100."""
    own = proof["products"][product]
    rows = []
    for name, arm in own["arms"].items():
        table = own["best_on_test"].get(name) if best else arm["figures"]
        if not table:
            continue
        cells = []
        for task, figure, _ in FIGURES:
            value = table.get(task, {}).get(MEAN, {}).get(figure)
            cells.append("" if value is None else f"{100 * value['mean']:.1f}")
        rows.append([name, arm["text"], *cells])
    return rows


def kind_rows(proof: dict[str, Any], product: str) -> list[list[str]]:
    """Return a row an arm: pixel AP of each type, of their mean and of all pictures together, in points of 100."""
    own = proof["products"][product]
    rows = []
    for name, arm in own["arms"].items():
        table = arm["figures"].get("localization", {})
        cells = [table.get(defect, {}).get("ap") for defect in (*own["defects"], MEAN, ALL)]
        rows.append([name, *("" if cell is None else f"{100 * cell['mean']:.1f}" for cell in cells)])
    return rows


def confusion_rows(proof: dict[str, Any], product: str, arm: str) -> list[list[str]]:
    """Return a row a type: how many of its test pictures are called which defect type; [] = no detector tells types."""
    own = proof["products"][product]
    table = own["confusion"].get(arm, [])
    return [[defect, *(f"{cell:g}" for cell in row)] for defect, row in zip(own["defects"], table, strict=bool(table))]


def artefact_rows(proof: dict[str, Any], product: str) -> list[list[str]]:
    """Return a row an arm: how loud its detector is on repainted and on untouched places."""
    rows = []
    for name, row in proof["products"][product]["artefact"].items():
        rows.append([name, *(f"{row[key]['mean']:.3f}" for key in ("louder", "control", "untouched"))])
    return rows


def artefact_sentence(proof: dict[str, Any], product: str) -> str:
    """Return what the artefact scores mean."""
    own = proof["products"][product]
    return (
        f"{own['held_out_controls']} normal parts were repainted as normal and kept from all training. The artefact score "
        "is the share of them whose repainted place fires louder than the same place untouched: 0.5 = repainting "
        f"cannot be seen, 1 = the detector has learned the brush. '{NO_CONTROLS}' was trained without controls."
    )


def curve_points(proof: dict[str, Any], product: str, task: str) -> list[tuple[float, list[float]]]:
    """Return (pairs a shot, a value a seed in points of 100) of the deciding mean, in rising order."""
    rows = proof["products"][product]["curve"]
    return [(row["samples_per_shot"], [100 * value for value in row[task]]) for row in rows if task in row]


def interval_rows(rows: Sequence[dict[str, Any]], task: str) -> list[tuple[str, float, float, float, str]]:
    """Return one task's rows for the drawing of intervals, in points of 100."""
    return [
        (row["defect"], *(100 * row[name] for name in ("difference", "low", "high")), row["verdict"])
        for row in rows
        if row["task"] == task
    ]


def tellings(run: Run, proof: dict[str, Any], product: str) -> list[Telling]:
    """Return the test pictures that differ most between ours and real-only, with both anomaly_maps (seed 0)."""
    own = proof["products"][product]
    anomaly_maps = {}
    for arm in (REAL, OURS):
        path = run.path("state", "prove", own["thumbs"].get(arm, ""))
        if path.is_file() and (thumbs := Outcome.load(path).thumbs) is not None:
            anomaly_maps[arm] = thumbs
    if len(anomaly_maps) < 2:
        return []
    shown = []
    for one in own["telling"]:
        example = Example(one["id"], Path(one["image"]), product, one["defect"], Path(one["mask"]))
        try:
            image, mask = read_square(example, 256)
        except FlawsmithError:
            continue
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        marked = cv2.drawContours(image.copy(), outline, -1, _OUTLINE, 1)
        found = [_overlaid(image, anomaly_maps[arm][one["index"]]) for arm in (REAL, OURS)]
        caption = f"{one['defect']}, {one['id']}: pixel AP in this picture {100 * one['change']:+.1f}"
        shown.append(Telling(caption, one["what"], (marked, *found)))
    return shown


def _overlaid(image: np.ndarray, thumb: np.ndarray) -> np.ndarray:
    """Lay a anomaly_map (uint8, 0..255) over its picture, red where it is high."""
    anomaly_map = (
        cv2.resize(thumb, image.shape[1::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32)[..., None] / 255
    )
    grey = image.mean(axis=2, keepdims=True) * 0.75
    return np.asarray(np.clip(grey * (1 - anomaly_map) + np.array([255.0, 40.0, 20.0]) * anomaly_map, 0, 255), np.uint8)


def _points(row: dict[str, Any]) -> str:
    return f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
