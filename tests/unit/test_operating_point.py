"""evaluation/: thresholds from calibration normals, misses and false alarms at them, shifts, and corrected verdicts."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.evaluation.calibration import (
    LEAST,
    MOST,
    calibration_normals,
    conformal_threshold,
    evenly_spaced,
    kept_away,
    least_rate,
    rate_range,
    threshold_note,
)
from flawsmith.evaluation.false_discovery import correct
from flawsmith.evaluation.operating_point import (
    AS_PHOTOGRAPHED,
    clopper_pearson,
    operating_point,
    share_of,
)
from flawsmith.evaluation.shifts import NOISE, SHIFTS, shifted
from flawsmith.evaluation.statistics import ALL, EvaluationSet, Outcome
from flawsmith.types import Example


def normals(count: int) -> list[Example]:
    return [Example(f"good/{number:03d}.png", Path(f"{number:03d}.png"), "nut") for number in range(count)]


def names(examples: tuple[Example, ...]) -> list[int]:
    return [int(example.id[5:8]) for example in examples]


# Thresholds


def test_the_threshold_is_the_rank_that_the_theory_asks_for():
    for count in range(1, 60):
        scores = np.random.default_rng(count).permutation(count) + 1.0  # a score is its own rank
        for per_mille in (5, 10, 29, 50, 70, 100, 200, 290, 400, 499):
            rank = math.ceil((count + 1) * (1 - Fraction(per_mille, 1000)))
            assert conformal_threshold(scores, per_mille / 1000) == min(rank, count)
    assert least_rate(19) == 0.05


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (40, 0.1), (100, 0.02)])
def test_new_normals_raise_no_more_alarms_than_asked(count: int, rate: float):
    """For scores without ties the share is exactly 1 - rank / (n + 1), on average over calibration sets."""
    rng = np.random.default_rng(count)
    scores = rng.standard_normal((20_000, count + 1))
    alarms = np.mean([row[-1] > conformal_threshold(row[:-1], rate) for row in scores])
    exact = 1 - math.ceil((count + 1) * (1 - Fraction(str(rate)))) / (count + 1)
    assert exact < rate + 1e-9 and abs(alarms - exact) < 4 * math.sqrt(rate / len(scores))


@pytest.mark.parametrize(("count", "rate"), [(5, 0.05), (24, 0.05), (100, 0.05), (100, 0.2)])
def test_the_rate_of_one_threshold_lies_in_its_range(count: int, rate: float):
    """Scores are uniform, so a threshold of t has the true rate 1 - t."""
    rng = np.random.default_rng(count)
    true = [1 - conformal_threshold(rng.random(count), rate) for _ in range(4000)]
    low, high = rate_range(count, rate, 0.95)
    assert (np.array(true) < low).mean() == pytest.approx(0.025, abs=0.01)
    assert (np.array(true) > high).mean() == pytest.approx(0.025, abs=0.01)


def test_what_cannot_be_kept_is_said():
    assert threshold_note(0.05, 95, 19) == "" and threshold_note(0.1, 45, 9) == ""
    assert "5% cannot be kept with 18 calibration normals, which allow 5.26%" in threshold_note(0.05, 90, 18)
    assert "it takes 25 normal photographs to learn from" in threshold_note(0.05, 24, 0)


# Which normals


def test_photographs_that_are_away_anyway_come_first_then_those_that_nothing_is_painted_on():
    parts = normals(40)
    painted = [part.id for part in parts if int(part.id[5:8]) % 4]  # each fourth is free
    chosen = calibration_normals(parts, {parts[1].id, parts[2].id}, painted)
    assert len(chosen) == 8 and {1, 2} <= set(names(chosen))
    free = [number for number in names(chosen) if number not in (1, 2)]
    assert not [number for number in free if number % 4] and free[0] < 10 and free[-1] > 25
    twice = calibration_normals(parts, (), [part.id for part in parts] + [part.id for part in parts[:35]])
    assert set(names(twice)) > set(range(35, 40)) and len(twice) == 8


def test_a_fifth_at_most_a_hundred_and_none_of_too_few():
    assert calibration_normals(normals(5 * LEAST - 1), (), ()) == ()
    assert len(calibration_normals(normals(5 * LEAST), (), ())) == LEAST
    many = names(calibration_normals(normals(900), (), ()))
    assert len(many) == MOST and set(np.diff(many)) == {9}
    assert evenly_spaced([1, 2], 5) == [1, 2] and evenly_spaced([], 3) == [] and evenly_spaced([1, 2, 3], 1) == [2]


def test_exact_copies_are_kept_away_too(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    parts = []
    for number, source in enumerate((0, 1, 2, 1)):
        images.write(tmp_path / f"{number}.png", pixels[source])
        parts.append(Example(f"{number}", tmp_path / f"{number}.png", "nut"))
    assert kept_away(parts, {"1"}) == {"1", "3"} and kept_away(parts, ()) == frozenset()


# Misses and false alarms


CONFIG = load_config(None, {"prove.false_alarm_rate": 0.2, "prove.resamples": 400})
TESTS = EvaluationSet(tuple("abcdefghi"), np.array([0, 0, 0, 1, 1, -1, -1, -1, -1]), ("crack", "hole"))
CALIBRATION = np.array([0.3, 0.1, 0.4, 0.2], np.float32)  # at 20 % the fourth of four: 0.4


def answers(score: list[float], shift: float = 0.0) -> Outcome:
    values = np.array(score, np.float32)
    moved = np.stack([values[[5, 8]] + shift * number for number in range(len(SHIFTS))])
    return Outcome(score=values, calibration=CALIBRATION, shifted=moved)


def test_misses_and_false_alarms_by_hand():
    real = [
        answers([0.9, 0.4, 0.1, 0.5, 0.2, 0.1, 0.5, 0.4, 0.3], 0.095),
        answers([0.9, 0.8, 0.1, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1], 0.095),
    ]
    ours = [answers([0.9, 0.9, 0.9, 0.5, 0.2, 0.1, 0.1, 0.1, 0.5])] * 2
    arms = {"real-only": real, "ours": ours, "ours 1x": [Outcome(score=real[0].score, calibration=CALIBRATION)]}
    tree: Any = operating_point(CONFIG, TESTS, ["n"] * 4, [5, 8], arms | {"mute": [Outcome()]})
    one = tree["arms"]["real-only"]
    assert one["threshold"] == [0.4, 0.4] and tree["kept_rate"] == 0.2 and set(tree["arms"]) == set(arms)
    # An alarm is a score above the threshold: a score of 0.4 raises none.
    assert one["false_alarms"]["each"] == [0.25, 0.0] and one["false_alarms"]["mean"] == 0.125
    assert {name: share["each"] for name, share in one["misses"].items()} == {
        "crack": pytest.approx([2 / 3, 1 / 3], abs=1e-6),
        "hole": [0.5, 0.5],
        ALL: pytest.approx([3 / 5, 2 / 5], abs=1e-6),
    }
    # Shown normals score 0.1 and 0.3 (seed 0), 0.1 and 0.1 (seed 1); shift number k adds 0.095 k.
    assert list(one["shifts"]) == [AS_PHOTOGRAPHED, *SHIFTS]
    assert [share["each"] for share in one["shifts"].values()] == [
        [0, 0],
        [0, 0],
        [0, 0],  # 0.4 is not above the threshold
        [0.5, 0],
        [0.5, 0],
        [1, 1],
    ]
    assert "shifts" not in tree["arms"]["ours 1x"]
    gap = tree["difference"]
    assert gap["misses"]["crack"]["difference"] == -0.5 and gap["misses"]["hole"]["difference"] == 0
    assert gap["misses"]["hole"]["low"] == gap["misses"]["hole"]["high"] == 0
    assert gap["false_alarms"]["difference"] == 0.125
    assert tree["test_defects"] == {"crack": 3, "hole": 2, ALL: 5} and tree["shifted_normals"] == 2
    assert operating_point(CONFIG, TESTS, [], [], {"mute": [Outcome()]}) is None


def test_intervals_of_a_share():
    for count, pictures in ((0, 12), (3, 12), (12, 12), (7, 190)):
        exact = binomtest(count, pictures).proportion_ci(0.95, method="exact")
        assert clopper_pearson(count, pictures, 0.95) == pytest.approx((exact.low, exact.high))
    rng = np.random.default_rng(0)
    alike = np.tile(np.arange(50) < 5, (3, 1))
    share = share_of(alike, resamples=500, confidence=0.95, rng=rng)
    assert (share["low"], share["high"]) == pytest.approx(clopper_pearson(5, 50, 0.95), abs=0.02)
    # Seeds that differ widen it, up to all or nothing.
    apart = share_of(np.array([[True] * 50, [False] * 50]), resamples=500, confidence=0.95, rng=rng)
    assert (apart["mean"], apart["low"], apart["high"]) == (0.5, 0, 1)


def test_the_interval_holds_the_truth():
    """200 proofs of 3 seeds that share their 60 pictures: 95 % of the intervals hold the share, or more."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        hardness = rng.standard_normal(60)
        events = hardness + 0.5 * rng.standard_normal((3, 60)) > 1.5 * math.sqrt(1.25)
        share = share_of(events, resamples=200, confidence=0.95, rng=rng)
        held += share["low"] <= 0.0668 <= share["high"]
    assert held >= 186


# Shifts


def test_shifts_do_what_they_say():
    rng = np.random.default_rng(1)
    picture = np.repeat(rng.integers(60, 160, (40, 48, 1), np.uint8), 3, axis=2)
    made = {shift: shifted(picture, shift, 7).astype(float) for shift in SHIFTS}
    for one in made.values():
        assert one.shape == picture.shape and (one == one[..., :1]).all()  # a grey picture stays grey
    assert made["darker"].mean() / picture.mean() == pytest.approx(0.5 ** (0.5 / 2.2), abs=0.01)
    assert made["brighter"].mean() / picture.mean() == pytest.approx(2 ** (0.5 / 2.2), abs=0.01)
    assert made["blurred"].mean() == pytest.approx(picture.mean(), abs=0.5)
    assert made["blurred"].std() < 0.5 * picture.std()
    noise = made["noisy"] - picture
    assert abs(noise.mean()) < 0.3 and noise.std() == pytest.approx(NOISE, rel=0.1)
    gain = (made["uneven light"] / picture).mean(axis=(0, 2))
    assert gain[0] == pytest.approx(0.5 ** (0.5 / 2.2), abs=0.02) and gain[-1] == pytest.approx(
        2 ** (0.5 / 2.2), abs=0.02
    )
    assert np.diff(gain).min() > -0.02
    white = np.full((8, 8, 3), 255, np.uint8)
    assert (shifted(white, "brighter", 0) == 255).all()


def test_shifts_are_the_same_bytes_again():
    picture = np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8)
    before = picture.copy()
    for shift in SHIFTS:
        assert (shifted(picture, shift, 3) == shifted(picture, shift, 3)).all()
    assert (picture == before).all() and (shifted(picture, "noisy", 3) != shifted(picture, "noisy", 4)).any()
    coloured = shifted(picture, "noisy", 3).astype(int) - picture
    assert (coloured[..., 0] != coloured[..., 1]).any()
    with pytest.raises(KeyError):
        shifted(picture, "upside down", 0)


# Corrected verdicts


def rows_of(values: list[float]) -> list[dict[str, Any]]:
    return [{"p_value": value, "verdict": "helps" if value <= 0.05 else "no effect"} for value in values]


def test_verdicts_are_corrected_as_benjamini_and_hochberg_say():
    """The reference follows the paper's words: the largest k with p(k) <= k/m q; the first k are rejected."""
    rng = np.random.default_rng(0)
    for trial in range(30):
        values = [*(rng.random(12) ** 2), *(rng.random(6) * 0.02 * (trial % 3))]
        products = {"nut": {"comparisons": rows_of(values[:7])}, "bolt": {"comparisons": rows_of(values[7:])}}
        correct(products, 0.05)
        ordered = sorted(values)
        passing = [k for k in range(1, len(values) + 1) if ordered[k - 1] <= 0.05 * k / len(values)]
        limit = ordered[max(passing) - 1] if passing else -1.0
        rows = products["nut"]["comparisons"] + products["bolt"]["comparisons"]
        assert [row["corrected_verdict"] for row in rows] == [
            "helps" if value <= limit else "no effect" for value in values
        ]
        assert all(row["adjusted_p_value"] >= row["p_value"] - 1e-6 for row in rows)
    correct({"nut": {"comparisons": []}}, 0.05)


def test_one_proof_of_chance_alone_rarely_says_anything():
    """Of 60 comparisons without effect three would be called, by themselves; corrected, nearly always none."""
    rng = np.random.default_rng(5)
    plain = corrected = 0
    for _ in range(40):
        products = {"nut": {"comparisons": rows_of(list(rng.random(60)))}}
        correct(products, 0.05)
        rows = products["nut"]["comparisons"]
        plain += any(row["verdict"] == "helps" for row in rows)
        corrected += any(row["corrected_verdict"] == "helps" for row in rows)
    assert plain > 35 and corrected <= 6
