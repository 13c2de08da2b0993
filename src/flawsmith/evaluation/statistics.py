"""Does it help? Paired bootstrap of two arms over the same test pictures and seeds, and the verdict a kind.

Test pictures are drawn with replacement within each kind and within the sound ones, seeds with replacement too; both
arms get the same draw, so what is common to them cancels. Point estimates come from exact figures (`metrics.ranking`);
the intervals of pixel figures from scores binned by their quantiles, for a thousand exact ones would take hours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from flawsmith.files import write_bytes
from flawsmith.metrics.ranking import Ranking, histograms, weighted_ap

Task = Literal["where", "whether", "which"]
TASKS: dict[Task, tuple[str, str]] = {
    "where": ("localisation", "pixel AP"),
    "whether": ("detection", "image AUROC"),
    "which": ("classification", "recall"),
}
"""What is asked, and the figure that decides."""
MEAN, ALL = "mean over kinds", "all pictures"
BINS = 4096


@dataclass(frozen=True, slots=True)
class Exam:
    """What the test pictures are, in the order in which every detector answers them."""

    ids: tuple[str, ...]
    kind: np.ndarray
    """int (P,): number of the kind, -1 = sound."""
    kinds: tuple[str, ...]

    def groups(self) -> list[np.ndarray]:
        """Return the places of the sound pictures and of each kind's."""
        return [np.flatnonzero(self.kind == number) for number in range(-1, len(self.kinds))]

    def asked(self) -> list[int]:
        """Return the kinds that have test pictures."""
        return [number for number in range(len(self.kinds)) if (self.kind == number).any()]


@dataclass(slots=True)
class Outcome:
    """One trained detector's answers, kept as what the statistics need; what it does not tell is None."""

    damaged: np.ndarray | None = None
    """int32 (P,B), B <= BINS: damaged pixels of each picture by score, the highest bin first."""
    sound: np.ndarray | None = None
    """int32 (P,B): its other pixels."""
    score: np.ndarray | None = None
    """float32 (P,)."""
    kind: np.ndarray | None = None
    """float32 (P,K)."""
    thumbs: np.ndarray | None = None
    """uint8 (P,t,t): the heat, small, for the report."""
    figures: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """task -> kind, MEAN or ALL -> name -> exact figure."""

    def take(self, other: Outcome) -> None:
        """Add another detector's answers to tasks that this one leaves open."""
        for name in ("damaged", "sound", "score", "kind", "thumbs"):
            if getattr(other, name) is not None:
                setattr(self, name, getattr(other, name))
        self.figures |= other.figures

    def save(self, path: Path) -> None:
        """Write everything to one .npz, whole or not at all."""
        arrays = {name: getattr(self, name) for name in ("damaged", "sound", "score", "kind", "thumbs")}
        file = BytesIO()
        np.savez_compressed(
            file,
            figures=np.array(json.dumps(self.figures)),
            **{name: value for name, value in arrays.items() if value is not None},
        )
        write_bytes(path, file.getvalue())

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files if name != "figures"}
            return cls(**arrays, figures=json.loads(str(stored["figures"])))


def outcome(
    exam: Exam,
    masks: Sequence[np.ndarray],
    heat: Sequence[np.ndarray] | None,
    score: np.ndarray | None,
    kind: np.ndarray | None,
) -> Outcome:
    """Compute exact figures and what resampling needs.

    Args:
        exam: The test pictures.
        masks: bool (S,S) each.
        heat: float32 (S,S) each; None = not told.
        score: float32 (P,).
        kind: float32 (P,K) probabilities.
    """
    made = Outcome(score=score, kind=kind)
    sound, *kinds = exam.groups()
    if heat is not None:
        made.figures["where"] = _where(exam, masks, heat)
        pooled = np.concatenate([one.ravel()[:: max(1, one.size // 4096)] for one in heat])
        damaged = np.concatenate([one[mask] for one, mask in zip(heat, masks, strict=True)])
        # Half of the edges among the damaged pixels' scores: there the curve bends.
        edges = np.unique(
            np.concatenate([np.quantile(part, np.linspace(0, 1, BINS // 2)) for part in (pooled, damaged)])
        ).astype(np.float32)
        made.damaged, made.sound = histograms(heat, masks, edges)
        made.thumbs = np.stack([_thumb(one) for one in heat])
    if score is not None:
        table = {}
        for number in exam.asked():
            table[exam.kinds[number]] = _image(score, kinds[number], sound)
        table[ALL] = _image(score, np.flatnonzero(exam.kind >= 0), sound)
        made.figures["whether"] = table | {MEAN: _mean(table, exam)}
    if kind is not None:
        right = kind.argmax(1) == exam.kind
        table = {exam.kinds[number]: {"recall": float(right[kinds[number]].mean())} for number in exam.asked()}
        table[ALL] = {"accuracy": float(right[exam.kind >= 0].mean())}
        made.figures["which"] = table | {MEAN: _mean({k: v for k, v in table.items() if k != ALL}, exam)}
    return made


def draws(exam: Exam, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return float32 (R,P): how often each test picture is drawn, within its kind, in each resample."""
    weights = np.zeros((resamples, len(exam.kind)), np.float32)
    for group in exam.groups():
        if len(group):
            weights[:, group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)), size=resamples)
    return weights


def resampled(exam: Exam, one: Outcome, weights: np.ndarray) -> dict[tuple[Task, str], np.ndarray]:
    """Return float64 (R,) of the deciding figure for each task and kind, MEAN and ALL, under each row of weights."""
    found: dict[tuple[Task, str], np.ndarray] = {}
    sound, *kinds = exam.groups()
    damaged = np.flatnonzero(exam.kind >= 0)
    for name, own in [*((exam.kinds[n], kinds[n]) for n in exam.asked()), (ALL, damaged)]:
        both = np.concatenate([own, sound])
        if one.damaged is not None and one.sound is not None:
            found["where", name] = weighted_ap(one.damaged[both], one.sound[both], weights[:, both])
        if one.score is not None and len(sound):
            higher = np.sign(one.score[own][:, None] - one.score[sound][None]) * 0.5 + 0.5
            wins = ((weights[:, own] @ higher) * weights[:, sound]).sum(1)
            found["whether", name] = wins / (weights[:, own].sum(1) * weights[:, sound].sum(1))
        if one.kind is not None:
            right = (one.kind.argmax(1) == exam.kind)[own].astype(np.float32)
            found["which", name] = weights[:, own] @ right / weights[:, own].sum(1)
    for task in TASKS:
        parts = [found[task, exam.kinds[n]] for n in exam.asked() if (task, exam.kinds[n]) in found]
        if parts:
            found[task, MEAN] = np.mean(parts, axis=0)
    return found


def compare(
    arm: Sequence[dict[tuple[Task, str], np.ndarray]],
    against: Sequence[dict[tuple[Task, str], np.ndarray]],
    exact: tuple[Sequence[Outcome], Sequence[Outcome]],
    *,
    confidence: float,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Return a row a task and kind: difference, interval, verdict, and how far it can be trusted.

    Args:
        arm: A seed's resampled figures each, as `resampled` returns them.
        against: The other arm's, of the same seeds.
        exact: Both arms' outcomes, for the point estimates.
        confidence: Of the interval, e.g. 0.95.
        rng: Draws the seeds.
    """
    rows = []
    count = len(arm)
    for task, kind in arm[0]:
        if any((task, kind) not in seed for seed in (*arm, *against)):
            continue
        gaps = np.stack([mine[task, kind] - other[task, kind] for mine, other in zip(arm, against, strict=True)])
        chosen = rng.integers(count, size=(count, gaps.shape[1]))
        gap = np.take_along_axis(gaps, chosen, axis=0).mean(0)
        low, high = np.quantile(gap, [(1 - confidence) / 2, (1 + confidence) / 2])
        each = [_figure(mine, task, kind) - _figure(other, task, kind) for mine, other in zip(*exact, strict=True)]
        value = float(np.mean(each))
        rows.append(
            {
                "task": task,
                "kind": kind,
                "difference": round(value, 5),
                "low": round(float(low), 5),
                "high": round(float(high), 5),
                "verdict": verdict(float(low), float(high)),
                # A tie counts half, so that no change at all is as likely up as down.
                "chance_of_gain": round(float((gap > 0).mean() + (gap == 0).mean() / 2), 4),
                "seeds": [round(float(one), 5) for one in each],
            }
        )
    return rows


def verdict(low: float, high: float) -> str:
    """Return "helps" (the interval lies above zero), "harms" (below) or "no effect" (it holds zero)."""
    return "helps" if low > 0 else "harms" if high < 0 else "no effect"


def _figure(one: Outcome, task: Task, kind: str) -> float:
    table = one.figures[task][kind]
    return table[{"where": "ap", "whether": "auroc", "which": "accuracy" if kind == ALL else "recall"}[task]]


def _where(exam: Exam, masks: Sequence[np.ndarray], heat: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    sound, *kinds = exam.groups()
    table = {}
    for name, own in [*((exam.kinds[n], kinds[n]) for n in exam.asked()), (ALL, np.flatnonzero(exam.kind >= 0))]:
        ranking = Ranking(regions=True)
        for place in (*own, *sound):
            ranking.add(heat[place], masks[place])
        table[name] = ranking.result().figures()
    return table | {MEAN: _mean({k: v for k, v in table.items() if k != ALL}, exam)}


def _image(score: np.ndarray, damaged: np.ndarray, sound: np.ndarray) -> dict[str, float]:
    ranking = Ranking()
    both = np.concatenate([damaged, sound])
    ranking.add(score[both], np.arange(len(both)) < len(damaged))
    return ranking.result().figures()


def _mean(table: dict[str, dict[str, float]], exam: Exam) -> dict[str, float]:
    own = [table[exam.kinds[number]] for number in exam.asked()]
    return {name: float(np.mean([one[name] for one in own])) for name in own[0]}


def _thumb(heat: np.ndarray, side: int = 96) -> np.ndarray:
    small = cv2.resize(heat.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(small * 255, 0, 255), np.uint8)
