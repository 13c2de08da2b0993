"""What a proof says, as the tree of proof.json: figures of every arm, verdicts, notes, telling pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from flawsmith.arithmetic.binned import weighted_ap
from flawsmith.arithmetic.confusion import confusion
from flawsmith.config import Config
from flawsmith.data.split import Split
from flawsmith.evaluation.arms import NO_CONTROLS, OURS, REAL, Arm, mixed
from flawsmith.evaluation.calibration import threshold_note
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.operating_point import operating_point
from flawsmith.evaluation.shape import distorted, shapes_of
from flawsmith.evaluation.statistics import (
    FEW_TESTS,
    LEADS,
    MEAN,
    NONE,
    TASKS,
    EvaluationSet,
    Outcome,
    Task,
    compare,
    draws,
    resampled,
)
from flawsmith.run.mask_reading import rule_tree
from flawsmith.run.progress import progress

_TELLING = 3
_Drawn = dict[str, list[dict[tuple[Task, str], np.ndarray]]]
"""Arm -> of each seed what `resampled` returns."""


@dataclass(slots=True)
class Tried:
    """Every arm of one product, and what its detectors answered; lists hold one item per seed."""

    arms: list[Arm]
    outcomes: dict[str, list[Outcome]]
    best: dict[str, list[Outcome]]
    """In the field protocol: the answers of the epoch that was best on the test set."""
    artefacts: dict[str, list[dict[str, float]]]
    facts: dict[str, list[dict[str, float]]]
    """What detectors learned about themselves (`Detector.facts`)."""
    thumbs: dict[str, str]
    """Where below state/prove/ the first seed's anomaly maps lie."""
    explanations: dict[str, Any] = field(default_factory=dict)
    """What the detector of `ours` looked at (`evaluation.explain`); {} = nothing was recorded."""


def proof_tree(config: Config, split: Split, evaluator: Evaluator, tried: Tried, held: int) -> dict[str, Any]:
    """Return one product's part of proof.json."""
    evaluation_set = evaluator.evaluation_set
    counts = Counter(example.defect for example in evaluator.tests)
    drawn, wanted = _drawn(config, evaluation_set, tried), _wanted(config, [arm.name for arm in tried.arms])
    return {
        "shape": list(evaluator.shape),
        "tiles": _tiles(evaluator),
        "defects": list(evaluation_set.defects),
        "shots": dict(sorted(Counter(str(e.defect) for e in split.shots).items())),
        "test": {"normal": counts[None], **{defect: counts[defect] for defect in evaluation_set.defects}},
        "near_duplicates_left_out": evaluator.left_out,
        "notes": [*_notes(config, split, evaluator, counts), *_unseen(tried.arms, evaluation_set.defects)],
        "arms": {arm.name: arm.facts() | {"figures": figures(tried.outcomes[arm.name])} for arm in tried.arms},
        "confusion": {
            name: _confusion(evaluation_set, tried.outcomes[name]) for name in (REAL, OURS) if name in tried.outcomes
        },
        "best_on_test": {name: figures(seeds) for name, seeds in tried.best.items()},
        "comparisons": _comparisons(config, drawn, tried, wanted),
        # Whether the detectors learned anything at all from the shots: no verdict on samples, so none to correct.
        "shots_against_none": _comparisons(config, drawn, tried, [(REAL, NONE)]),
        "artefact": {name: _spread(rows) for name, rows in tried.artefacts.items()},
        "held_out_controls": held,
        "detector_facts": {name: _spread(rows) for name, rows in tried.facts.items()},
        "operating_point": operating_point(
            config, evaluation_set, [e.id for e in evaluator.calibration], evaluator.shown, tried.outcomes
        ),
        "curve": _curve(tried, len(split.shots)),
        "telling": _telling(evaluator, tried),
        "thumbs": tried.thumbs,
        "explanations": tried.explanations,
    }


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return task -> defect type -> figure -> {mean, each}, where `each` holds a value per seed."""
    merged: dict[str, Any] = {}
    for task in TASKS:
        for defect in outcomes[0].figures.get(task, {}):
            merged.setdefault(task, {})[defect] = _spread([one.figures[task][defect] for one in outcomes])
    return merged


def _tiles(evaluator: Evaluator) -> dict[str, Any] | None:
    """Return how photographs are cut, and how many tiles a test picture has in the mean; None = they are seen whole."""
    tiles = evaluator.tiles
    if tiles is None:
        return None
    counts = [len(tiles.grid(evaluator.size_of(example))) for example in evaluator.tests]
    return {**asdict(tiles), "per_picture": round(float(np.mean(counts)), 2)}


def _spread(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    each = {name: [round(row[name], 6) for row in rows] for name in rows[0]}
    return {name: {"mean": round(float(np.mean(values)), 6), "each": values} for name, values in each.items()}


def _confusion(evaluation_set: EvaluationSet, outcomes: Sequence[Outcome]) -> list[list[float]]:
    """Return how many test defects of each type (row) are called which (column): the mean over seeds; [] = not told."""
    damaged = np.flatnonzero(evaluation_set.defect >= 0)
    answers = [one.probabilities.argmax(1)[damaged] for one in outcomes if one.probabilities is not None]
    if not answers:
        return []
    numbers = range(len(evaluation_set.defects))
    tables = [confusion(evaluation_set.defect[damaged].tolist(), answer.tolist(), numbers) for answer in answers]
    return [[round(float(cell), 2) for cell in row] for row in np.mean(tables, axis=0)]


def _curve(tried: Tried, shots: int) -> list[dict[str, Any]]:
    """Return the deciding mean of each task against the samples per shot: none, those of `prove.curve`, all."""
    rows = []
    for arm in tried.arms:
        if arm.name == REAL or arm.name == OURS or arm.name.startswith(f"{OURS} ") and arm.name.endswith("x"):
            table = figures(tried.outcomes[arm.name])
            means: dict[str, Any] = {
                task: table[task][MEAN][name]["each"] for task, name in LEADS.items() if task in table
            }
            rows.append({"arm": arm.name, "samples_per_shot": round(len(arm.samples) / shots, 2), **means})
    return sorted(rows, key=lambda row: row["samples_per_shot"])


def _drawn(config: Config, evaluation_set: EvaluationSet, tried: Tried) -> _Drawn:
    weights = draws(evaluation_set, config.prove.resamples, np.random.default_rng((config.seed, 71)))
    drawn: _Drawn = {}
    with progress("prove, intervals", sum(map(len, tried.outcomes.values())), "trainings") as advance:
        for arm in tried.arms:
            drawn[arm.name] = []
            for one in tried.outcomes[arm.name]:
                drawn[arm.name].append(resampled(evaluation_set, one, weights))
                advance(1, arm.name)
    return drawn


def _wanted(config: Config, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the comparisons that are verdicts on samples: each (arm, against)."""
    part = config.prove
    wanted = [(name, REAL) for name in names if name not in (REAL, NONE)]
    wanted += [(OURS, name) for name in (*part.against, NO_CONTROLS) if name in names]
    wanted += [(mixed(name), name) for name in part.against if mixed(name) in names]
    return wanted


def _comparisons(
    config: Config, drawn: _Drawn, tried: Tried, wanted: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    rows = []
    for one, other in wanted:
        comparisons = compare(
            drawn[one],
            drawn[other],
            (tried.outcomes[one], tried.outcomes[other]),
            confidence=config.prove.confidence,
            rng=np.random.default_rng((config.seed, 72)),
        )
        rows += [{"arm": one, "against": other, **asdict(comparison)} for comparison in comparisons]
    return rows


def _notes(config: Config, split: Split, evaluator: Evaluator, counts: Counter[str | None]) -> list[str]:
    part = config.prove
    notes = [alone] if (alone := config.why_no_rival) else []
    if evaluator.left_out:
        one = evaluator.left_out == 1
        pictures, seem = ("picture was", "it seems") if one else ("pictures were", "they seem")
        second = "a second photograph" if one else "second photographs"
        notes.append(f"{evaluator.left_out} test {pictures} left out: {seem} to be {second} of a shot's damage")
    if evaluator.tiles is None and (
        far := distorted(evaluator.shape, shapes_of([*split.shots, *split.normals, *evaluator.tests]))
    ):
        notes.append(far)
    for defect in evaluator.evaluation_set.defects:
        if not counts[defect]:
            notes.append(f"{defect}: no test picture is left, so nothing can be said of it")
        elif counts[defect] < FEW_TESTS:
            notes.append(f"{defect}: only {counts[defect]} test pictures, so its interval is rough")
    if note := threshold_note(part.false_alarm_rate, len(split.normals), len(evaluator.calibration)):
        notes.append(note)
    if part.protocol == "field":
        notes.append("field protocol: best-on-test chose its epoch by the test set; believe the last epoch")
        if config.data.shots != "third":
            notes.append(f"the papers learn from a third of each defect type; here data.shots is {config.data.shots}")
    return notes


def _unseen(arms: Sequence[Arm], defects: Sequence[str]) -> list[str]:
    """Return a note per arm that learned nothing of some defect types: its figures there are no verdict on samples."""
    return [
        f"{arm.name}: no sample shows {', '.join(unseen)}, so this arm has never seen such damage"
        for arm in arms
        if (unseen := arm.unseen(defects))
    ]


def _telling(evaluator: Evaluator, tried: Tried) -> list[dict[str, Any]]:
    """Return the test pictures on which ours gained and lost most against real-only, a few per defect type."""
    mine, other = tried.outcomes.get(OURS, []), tried.outcomes[REAL]
    if not mine or mine[0].damaged is None:
        return []
    gain = np.mean(
        [
            _alone(a, evaluator.evaluation_set) - _alone(b, evaluator.evaluation_set)
            for a, b in zip(mine, other, strict=True)
        ],
        0,
    )
    chosen = []
    for number in evaluator.evaluation_set.asked():
        members = np.flatnonzero(evaluator.evaluation_set.defect == number)
        order = members[np.argsort(-gain[members], kind="stable")]
        picks = [(index, "gained") for index in order[:_TELLING] if gain[index] > 0]
        picks += [(index, "lost") for index in order[::-1][:_TELLING] if gain[index] < 0]
        for index, what in picks:
            example = evaluator.tests[index]
            chosen.append(
                {
                    "id": example.id,
                    "defect": example.defect,
                    "what": what,
                    "change": round(float(gain[index]), 4),
                    "index": int(index),
                    "image": example.image.as_posix(),
                    "masks": [path.as_posix() for path in example.masks],
                    "mask_rule": None if example.mask_rule is None else rule_tree(example.mask_rule),
                }
            )
    return chosen


def _alone(one: Outcome, evaluation_set: EvaluationSet) -> np.ndarray:
    """Return float64 (P,): pixel AP within each damaged picture alone; 0 for normal ones."""
    assert one.damaged is not None and one.normal is not None
    damaged = np.flatnonzero(evaluation_set.defect >= 0)
    result = np.zeros(len(evaluation_set.defect))
    result[damaged] = weighted_ap(one.damaged[damaged], one.normal[damaged], np.eye(len(damaged), dtype=np.float32))
    return result
