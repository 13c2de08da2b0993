"""What a proof would stand on: too few test pictures, trainings or normal photographs are said before the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection

from flawsmith.config import Config
from flawsmith.data.split import Split
from flawsmith.errors import Answer, first_few
from flawsmith.evaluation.calibration import FIFTH, LEAST, MOST, calibration_count, least_rate, normals_for
from flawsmith.evaluation.statistics import ENOUGH_SEEDS, FEW_TESTS

_LEAST_SHOTS = 3
"""Fewer shots per defect type are not advised for the sake of the test."""
_NAMED = 4
"""As many defect types or products are named in a sentence."""


def thin_grounds(config: Config, split: Split, left_out: Collection[str]) -> dict[str, tuple[Answer, ...]]:
    """Return a warning for each thing that a proof will have too little of, with the settings that answer it.

    Args:
        config: The whole configuration.
        split: The photographs; without shots or test pictures there is no proof, so nothing is said.
        left_out: Ids of the test pictures that the proof leaves out.
    """
    if not config.prove.enabled or not split.shots or not split.test_defects:
        return {}
    return {**_few_tests(config, split, left_out), **_few_seeds(config), **_few_normals(config, split)}


def _few_tests(config: Config, split: Split, left_out: Collection[str]) -> dict[str, tuple[Answer, ...]]:
    shots = Counter((shot.product, shot.defect) for shot in split.shots)
    tests = Counter((one.product, one.defect) for one in split.test_defects if one.id not in left_out)
    few = {key: tests[key] for key in sorted(shots, key=str) if tests[key] < FEW_TESTS}
    if not few:
        return {}
    types = first_few([f"{product}/{defect} {number}" for (product, defect), number in few.items()], _NAMED)
    asked = config.data.shots
    per_type = math.ceil(1.5 * FEW_TESTS) if asked == "third" else FEW_TESTS + min(asked, FEW_TESTS)
    fewer = min(shots[key] + number - FEW_TESTS for key, number in few.items())
    # Which second photographs are left out depends on the shots, so there nobody knows what fewer shots leave.
    known = not any(one.id in left_out for one in split.test_defects if (one.product, one.defect) in few)
    answers = (Answer("data.shots", fewer),) if known and asked != "third" and _LEAST_SHOTS <= fewer < asked else ()
    instead = "".join(f", or set {answer}" for answer in answers)
    return {
        f"the proof has few test pictures of {types}: below {FEW_TESTS} its intervals are wide and it may find no "
        f"effect where there is one; {per_type} photographs of a type, each of another part, would be enough"
        f"{instead}": answers
    }


def _few_seeds(config: Config) -> dict[str, tuple[Answer, ...]]:
    if config.prove.seeds >= ENOUGH_SEEDS:
        return {}
    answer = Answer("prove.seeds", ENOUGH_SEEDS)
    asked = Answer("prove.seeds", config.prove.seeds)
    return {f"{asked} makes the proof a first look; for a verdict set {answer}": (answer,)}


def _few_normals(config: Config, split: Split) -> dict[str, tuple[Answer, ...]]:
    rate = f"{100 * config.prove.false_alarm_rate:.3g}"
    if not (need := normals_for(config.prove.false_alarm_rate)):
        lowest = Answer("prove.false_alarm_rate", _rounded(least_rate(MOST)))
        return {
            f"the proof's false-alarm rate of {rate}% is too low: at most {MOST} calibration normals set a threshold; "
            f"set {lowest}": (lowest,)
        }
    counts = Counter(normal.product for normal in split.normals)
    short = [name for name in sorted({shot.product for shot in split.shots}) if counts[name] < need]
    if not short:
        return {}
    has = first_few([f"{product} {counts[product]}" for product in short], _NAMED)
    if without := [product for product in short if not calibration_count(counts[product])]:
        return {
            f"the proof's false-alarm rate of {rate}% takes {need} normal photographs to learn from, and there are "
            f"fewer: {has}; below {FIFTH * LEAST} ({first_few(without, _NAMED)}) no threshold is set at all": ()
        }
    answer = Answer(
        "prove.false_alarm_rate", _rounded(least_rate(min(calibration_count(counts[one]) for one in short)))
    )
    return {
        f"the proof's false-alarm rate of {rate}% takes {need} normal photographs to learn from, and there are fewer: "
        f"{has}; add some, or set {answer}": (answer,)
    }


def _rounded(rate: float) -> float:
    """Return a rate in whole percent, not below it."""
    return math.ceil(100 * rate - 1e-9) / 100
