"""Does it help? Paired bootstrap of two arms over the same test pictures and seeds, and the verdict per defect type.

Test pictures are drawn with replacement within each defect type and within the normal ones, seeds with replacement too;
both arms get the same draw, so what is common to them cancels. Point estimates come from exact figures
(`arithmetic.ranking`); the intervals of pixel figures from scores binned by their quantiles, for a thousand exact ones
would take hours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from flawsmith.arithmetic.binned import histograms, weighted_ap_of_unions
from flawsmith.arithmetic.ranking import Ranking
from flawsmith.errors import RunError
from flawsmith.files import write_bytes
from flawsmith.paths import open_file

Task = Literal["localization", "detection", "classification"]
TASKS: dict[Task, tuple[str, str]] = {
    "localization": ("localization", "pixel AP"),
    "detection": ("detection", "image AUROC"),
    "classification": ("classification", "recall"),
}
"""What is asked, and the figure that decides."""
LEADS: dict[Task, str] = {"localization": "ap", "detection": "auroc", "classification": "recall"}
"""The name of that figure, 0..1, for a defect type and in the mean; over all pictures recall is called accuracy."""
REAL, OURS, NONE = "real-only", "ours", "none"
"""Arms that every proof has: shots and normal parts alone, with the run's own samples, and normal parts alone."""
MEAN, ALL = "mean over defect types", "all pictures"
FEW_TESTS = 10
"""Fewer test pictures of a defect type than this leave its interval rough."""
ENOUGH_SEEDS = 3
"""Fewer trainings per arm than this are a first look and no verdict."""
BINS = 4096
_ARRAYS = ("damaged", "normal", "score", "probabilities", "thumbs", "calibration", "shifted")


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """What the test pictures are, in the order in which every detector answers them."""

    ids: tuple[str, ...]
    defect: np.ndarray
    """int (P,): number of the defect type, -1 = normal."""
    defects: tuple[str, ...]

    def groups(self) -> list[np.ndarray]:
        """Return the indices of the normal pictures, then of each defect type's."""
        return [np.flatnonzero(self.defect == number) for number in range(-1, len(self.defects))]

    def asked(self) -> list[int]:
        """Return the defect types that have test pictures."""
        return [number for number in range(len(self.defects)) if (self.defect == number).any()]


@dataclass(slots=True)
class Outcome:
    """One trained detector's answers, kept as what the statistics need; what it does not tell is None."""

    damaged: np.ndarray | None = None
    """int32 (P,B), B <= BINS: damaged pixels of each picture by score, the highest bin first."""
    normal: np.ndarray | None = None
    """int32 (P,B): its other pixels."""
    score: np.ndarray | None = None
    """float32 (P,)."""
    probabilities: np.ndarray | None = None
    """float32 (P,K)."""
    thumbs: np.ndarray | None = None
    """uint8 (P,t,t): the anomaly maps, small, for the report."""
    calibration: np.ndarray | None = None
    """float32 (N,): scores of the calibration normals, which set the threshold."""
    shifted: np.ndarray | None = None
    """float32 (S,M): scores of normal test pictures under each of `shifts.SHIFTS`."""
    figures: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """task -> defect type, MEAN or ALL -> name -> exact figure."""

    def take(self, other: Outcome) -> None:
        """Add another detector's answers to tasks that this one leaves open."""
        for name in _ARRAYS:
            if getattr(other, name) is not None:
                setattr(self, name, getattr(other, name))
        self.figures |= other.figures

    def save(self, path: Path) -> None:
        """Write everything to one .npz, whole or not at all."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        file = BytesIO()
        np.savez_compressed(
            file,
            figures=np.array(json.dumps(self.figures)),
            **{name: value for name, value in arrays.items() if value is not None},
        )
        write_bytes(path, file.getvalue())

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read what `save` wrote.

        Raises:
            RunError: the file is damaged, or holds something else.
        """
        try:
            with open_file(path) as file, np.load(file) as stored:
                arrays = {name: stored[name] for name in stored.files if name != "figures"}
                return cls(**arrays, figures=json.loads(str(stored["figures"])))
        except Exception as error:  # a damaged archive fails in many ways
            raise RunError(f"{path}: cannot be read ({type(error).__name__}); delete it and prove again") from None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One arm against another, for one task and defect type; all in shares of 1."""

    task: Task
    defect: str
    """A defect type, MEAN or ALL."""
    difference: float
    """The arm's figure less the other's, mean over seeds."""
    low: float
    high: float
    """The interval of the paired bootstrap."""
    verdict: str
    chance_of_gain: float
    """Share of the resamples in which the arm is better."""
    p_value: float
    """Two-sided, of the paired bootstrap; see `p_value`."""
    seeds: tuple[float, ...]
    """The difference of each seed."""


def outcome(
    evaluation_set: EvaluationSet,
    masks: Sequence[np.ndarray],
    anomaly_map: Sequence[np.ndarray] | None,
    score: np.ndarray | None,
    probabilities: np.ndarray | None,
    ignored: Sequence[np.ndarray | None] = (),
) -> Outcome:
    """Compute exact figures and what resampling needs.

    Args:
        evaluation_set: The test pictures.
        masks: bool (R,C) each.
        anomaly_map: float32 (R,C) each; None = not told.
        score: float32 (P,).
        probabilities: float32 (P,K), over the defect types.
        ignored: bool (R,C) each: pixels that are neither damaged nor normal and count in no pixel figure; None = a
            picture has none, () = no picture has any.
    """
    ignored = ignored or [None] * len(masks)
    made = Outcome(score=score, probabilities=probabilities)
    normal, *defects = evaluation_set.groups()
    if anomaly_map is not None:
        made.figures["localization"] = _localization(evaluation_set, masks, ignored, anomaly_map)
        # Views, not copies, where every pixel counts: maps of photographs at their own resolution are large.
        scores = [one.ravel() if gone is None else one[~gone] for one, gone in zip(anomaly_map, ignored, strict=True)]
        labels = [one.ravel() if gone is None else one[~gone] for one, gone in zip(masks, ignored, strict=True)]
        pooled = np.concatenate([one[:: max(1, one.size // 4096)] for one in scores])
        damaged = np.concatenate([one[mask] for one, mask in zip(scores, labels, strict=True)])
        # Half of the edges among the damaged pixels' scores: there the curve bends.
        edges = np.unique(
            np.concatenate([np.quantile(part, np.linspace(0, 1, BINS // 2)) for part in (pooled, damaged)])
        ).astype(np.float32)
        made.damaged, made.normal = histograms(scores, labels, edges)
        made.thumbs = np.stack([_thumb(one) for one in anomaly_map])
    if score is not None:
        table = {}
        for number in evaluation_set.asked():
            table[evaluation_set.defects[number]] = _image(score, defects[number], normal)
        table[ALL] = _image(score, np.flatnonzero(evaluation_set.defect >= 0), normal)
        made.figures["detection"] = table | {MEAN: _mean(table, evaluation_set)}
    if probabilities is not None:
        right = probabilities.argmax(1) == evaluation_set.defect
        table = {
            evaluation_set.defects[number]: {"recall": float(right[defects[number]].mean())}
            for number in evaluation_set.asked()
        }
        table[ALL] = {"accuracy": float(right[evaluation_set.defect >= 0].mean())}
        made.figures["classification"] = table | {
            MEAN: _mean({k: v for k, v in table.items() if k != ALL}, evaluation_set)
        }
    return made


def draws(evaluation_set: EvaluationSet, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return float32 (R,P): how often each test picture is drawn, within its defect type, in each resample."""
    weights = np.zeros((resamples, len(evaluation_set.defect)), np.float32)
    for group in evaluation_set.groups():
        if len(group):
            weights[:, group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)), size=resamples)
    return weights


def resampled(evaluation_set: EvaluationSet, one: Outcome, weights: np.ndarray) -> dict[tuple[Task, str], np.ndarray]:
    """Return float64 (R,) of the deciding figure for each task and type, MEAN and ALL, under each row of weights."""
    result: dict[tuple[Task, str], np.ndarray] = {}
    groups = evaluation_set.groups()
    normal, damaged = groups[0], np.flatnonzero(evaluation_set.defect >= 0)
    asked = evaluation_set.asked()
    names = [*(evaluation_set.defects[number] for number in asked), ALL]
    if one.damaged is not None and one.normal is not None:
        unions = [*([0, 1 + number] for number in asked), range(len(groups))]
        precisions = weighted_ap_of_unions(one.damaged, one.normal, weights, groups, unions)
        result |= {("localization", name): precision for name, precision in zip(names, precisions, strict=True)}
    for name, members in zip(names, [*(groups[1 + number] for number in asked), damaged], strict=True):
        if one.score is not None and len(normal):
            higher = np.sign(one.score[members][:, None] - one.score[normal][None]) * 0.5 + 0.5
            wins = ((weights[:, members] @ higher) * weights[:, normal]).sum(1)
            result["detection", name] = wins / (weights[:, members].sum(1) * weights[:, normal].sum(1))
        if one.probabilities is not None:
            right = (one.probabilities.argmax(1) == evaluation_set.defect)[members].astype(np.float32)
            result["classification", name] = weights[:, members] @ right / weights[:, members].sum(1)
    for task in TASKS:
        parts = [
            result[task, evaluation_set.defects[n]]
            for n in evaluation_set.asked()
            if (task, evaluation_set.defects[n]) in result
        ]
        if parts:
            result[task, MEAN] = np.mean(parts, axis=0)
    return result


def compare(
    arm: Sequence[dict[tuple[Task, str], np.ndarray]],
    against: Sequence[dict[tuple[Task, str], np.ndarray]],
    exact: tuple[Sequence[Outcome], Sequence[Outcome]],
    *,
    confidence: float,
    rng: np.random.Generator,
) -> list[Comparison]:
    """Return a comparison per task and defect type: difference, interval and verdict.

    Args:
        arm: The resampled figures of each seed, as `resampled` returns them.
        against: The other arm's, of the same seeds.
        exact: Both arms' outcomes, for the point estimates.
        confidence: Of the interval, e.g. 0.95.
        rng: Draws the seeds.
    """
    rows = []
    count = len(arm)
    for task, defect in arm[0]:
        if any((task, defect) not in seed for seed in (*arm, *against)):
            continue
        gaps = np.stack([mine[task, defect] - other[task, defect] for mine, other in zip(arm, against, strict=True)])
        chosen = rng.integers(count, size=(count, gaps.shape[1]))
        gap = np.take_along_axis(gaps, chosen, axis=0).mean(0)
        low, high = np.quantile(gap, [(1 - confidence) / 2, (1 + confidence) / 2])
        # As they are recorded: an end that rounds to zero is no effect that anyone could see.
        low, high = round(float(low), 5), round(float(high), 5)
        each = [_figure(mine, task, defect) - _figure(other, task, defect) for mine, other in zip(*exact, strict=True)]
        rows.append(
            Comparison(
                task=task,
                defect=defect,
                difference=round(float(np.mean(each)), 5),
                low=low,
                high=high,
                verdict=verdict(low, high),
                # A tie counts half, so that no change at all is as likely up as down.
                chance_of_gain=round(float((gap > 0).mean() + (gap == 0).mean() / 2), 4),
                p_value=round(p_value(gap), 6),
                seeds=tuple(round(float(one), 5) for one in each),
            )
        )
    return rows


def verdict(low: float, high: float) -> str:
    """Return "helps" (the interval lies above zero), "harms" (below) or "no effect" (it holds zero)."""
    return "helps" if low > 0 else "harms" if high < 0 else "no effect"


def p_value(gap: np.ndarray) -> float:
    """Return the two-sided p-value of no difference, from resampled differences float64 (R,).

    Twice the smaller share of resamples on one side of zero, those at zero included; with 1 added to count and number
    (Davison, Hinkley: "Bootstrap Methods and their Application", 1997, section 4.2), so it is never 0.
    """
    below, above = (int((side * gap <= 0).sum()) for side in (1, -1))
    return min(1.0, 2 * (1 + min(below, above)) / (len(gap) + 1))


def _figure(one: Outcome, task: Task, defect: str) -> float:
    return one.figures[task][defect]["accuracy" if (task, defect) == ("classification", ALL) else LEADS[task]]


def _localization(
    evaluation_set: EvaluationSet,
    masks: Sequence[np.ndarray],
    ignored: Sequence[np.ndarray | None],
    anomaly_map: Sequence[np.ndarray],
) -> dict[str, dict[str, float]]:
    normal, *defects = evaluation_set.groups()
    table = {}
    for name, members in [
        *((evaluation_set.defects[n], defects[n]) for n in evaluation_set.asked()),
        (ALL, np.flatnonzero(evaluation_set.defect >= 0)),
    ]:
        ranking = Ranking(regions=True)
        for index in (*members, *normal):
            ranking.add(anomaly_map[index], masks[index], ignored[index])
        table[name] = ranking.result().figures()
    return table | {MEAN: _mean({k: v for k, v in table.items() if k != ALL}, evaluation_set)}


def _image(score: np.ndarray, damaged: np.ndarray, normal: np.ndarray) -> dict[str, float]:
    ranking = Ranking()
    both = np.concatenate([damaged, normal])
    ranking.add(score[both], np.arange(len(both)) < len(damaged))
    return ranking.result().figures()


def _mean(table: dict[str, dict[str, float]], evaluation_set: EvaluationSet) -> dict[str, float]:
    rows = [table[evaluation_set.defects[number]] for number in evaluation_set.asked()]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _thumb(anomaly_map: np.ndarray, side: int = 96) -> np.ndarray:
    small = cv2.resize(anomaly_map.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(small * 255, 0, 255), np.uint8)
