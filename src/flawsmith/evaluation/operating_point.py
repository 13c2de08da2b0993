"""At a false-alarm rate of the user's choice: missed defects, and false alarms on normal parts, of every arm.

Each detector's threshold comes from its scores of calibration normals (`calibration`), which no detector learns from;
the test pictures set no threshold, so they show what comes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flawsmith.config import Config
from flawsmith.evaluation.arms import OURS, REAL
from flawsmith.evaluation.calibration import (
    clopper_pearson,
    conformal_threshold,
    least_rate,
    rate_range,
)
from flawsmith.evaluation.shifts import SHIFTS
from flawsmith.evaluation.statistics import ALL, EvaluationSet, Outcome

AS_PHOTOGRAPHED = "as photographed"
"""What stands for no shift, of the same pictures that shifts are rendered on."""


def operating_point(
    config: Config,
    evaluation_set: EvaluationSet,
    calibration: Sequence[str],
    shown: Sequence[int],
    outcomes: Mapping[str, Sequence[Outcome]],
) -> dict[str, Any] | None:
    """Return one product's part of proof.json on false alarms and misses; None = no detector has a threshold.

        false_alarm_rate        what was asked for
        kept_rate               what so many calibration normals can keep, no lower than that
        rate_range              [low, high] of the true rate of one threshold, for chance chose the calibration normals
        calibration_normals     ids of the photographs that set each threshold
        test_normals, shifted_normals, test_defects {defect type or ALL: count}
        shifts                  {name: how it is rendered}
        arms                    {name: threshold [per seed], false_alarms, misses {defect type or ALL}, shifts {name}}
        difference              ours less real-only, false_alarms and misses as in arms; null = one of them is lacking

    A share is {mean, low, high, each}, as `share_of` returns it; a difference {difference, low, high}.

    Args:
        config: The run's configuration.
        evaluation_set: The test pictures.
        calibration: Ids of the calibration normals, whose scores the outcomes hold.
        shown: Places of the normal test pictures that shifts are rendered on.
        outcomes: The answers of every arm, one per seed.
    """
    part = config.prove
    alarms: dict[str, np.ndarray] = {}
    thresholds: dict[str, np.ndarray] = {}
    for name, seeds in outcomes.items():
        normals = [one.calibration for one in seeds if one.calibration is not None]
        answers = [one.score for one in seeds if one.score is not None]
        if answers and len(normals) == len(answers) == len(seeds):
            thresholds[name] = np.array([conformal_threshold(scores, part.false_alarm_rate) for scores in normals])
            alarms[name] = np.stack(answers) > thresholds[name][:, None]
    if not alarms:
        return None
    normal, *groups = evaluation_set.groups()
    defects = {evaluation_set.defects[number]: groups[number] for number in evaluation_set.asked()}
    defects[ALL] = np.flatnonzero(evaluation_set.defect >= 0)

    def share(events: np.ndarray) -> dict[str, Any]:
        rng = np.random.default_rng((config.seed, 73))
        return share_of(events, resamples=part.resamples, confidence=part.confidence, rng=rng)

    arms: dict[str, Any] = {}
    for name, alarm in alarms.items():
        arms[name] = {
            "threshold": [round(float(limit), 6) for limit in thresholds[name]],
            "false_alarms": share(alarm[:, normal]),
            "misses": {defect: share(~alarm[:, members]) for defect, members in defects.items()},
        }
        answers = [one.shifted for one in outcomes[name] if one.shifted is not None]
        if len(answers) == len(thresholds[name]):
            limit = thresholds[name][:, None]
            arms[name]["shifts"] = {AS_PHOTOGRAPHED: share(alarm[:, list(shown)])} | {
                shift: share(np.stack([answer[number] for answer in answers]) > limit)
                for number, shift in enumerate(SHIFTS)
            }
    difference = None
    if OURS in alarms and REAL in alarms and len(alarms[OURS]) == len(alarms[REAL]):
        gap = alarms[OURS].astype(float) - alarms[REAL]
        difference = {
            "false_alarms": _difference(config, gap[:, normal]),
            "misses": {defect: _difference(config, -gap[:, members]) for defect, members in defects.items()},
        }
    return {
        "false_alarm_rate": part.false_alarm_rate,
        "kept_rate": round(max(part.false_alarm_rate, least_rate(len(calibration))), 6),
        "rate_range": [round(end, 6) for end in rate_range(len(calibration), part.false_alarm_rate, part.confidence)],
        "calibration_normals": list(calibration),
        "test_normals": len(normal),
        "test_defects": {defect: len(members) for defect, members in defects.items()},
        "shifted_normals": len(shown),
        "shifts": dict(SHIFTS),
        "arms": arms,
        "difference": difference,
    }


def share_of(events: np.ndarray, *, resamples: int, confidence: float, rng: np.random.Generator) -> dict[str, Any]:
    """Return how often something happens: {mean, low, high, each}, where `each` holds a share per seed.

    The interval is the wider one of two at each end. The bootstrap over pictures and seeds knows how seeds differ, but
    gives [0, 0] where nothing happened. The exact one (Clopper, Pearson: Biometrika 1934) for the mean count over
    seeds does not; it counts each picture once, for seeds see the same pictures.

    Args:
        events: bool (S,N): whether it happened with each seed in each picture, N >= 1.
        resamples: Of the bootstrap.
        confidence: Of the interval, e.g. 0.95.
        rng: Draws pictures and seeds.
    """
    each = events.mean(axis=1)
    mean = float(each.mean())
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(_resampled(events.astype(float), resamples, rng), ends)
    exact_low, exact_high = clopper_pearson(mean * events.shape[1], events.shape[1], confidence)
    return {
        "mean": round(mean, 6),
        "low": round(min(float(low), exact_low), 6),
        "high": round(max(float(high), exact_high), 6),
        "each": [round(float(one), 6) for one in each],
    }


def _difference(config: Config, gap: np.ndarray) -> dict[str, float]:
    """Return the mean of a paired difference float64 (S,N) with its interval."""
    part = config.prove
    drawn = _resampled(gap, part.resamples, np.random.default_rng((config.seed, 74)))
    low, high = np.quantile(drawn, [(1 - part.confidence) / 2, (1 + part.confidence) / 2])
    return {
        "difference": round(float(gap.mean()), 6),
        "low": round(float(low), 6),
        "high": round(float(high), 6),
    }


def _resampled(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return float64 (R,): means of values (S,N) over seeds and pictures that are drawn with replacement."""
    seeds, pictures = values.shape
    weights = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples) / pictures
    chosen = rng.integers(seeds, size=(seeds, resamples))
    return np.asarray(np.take_along_axis(values @ weights.T, chosen, axis=0).mean(axis=0))
