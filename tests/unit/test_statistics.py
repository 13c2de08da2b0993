"""evaluation/statistics.py: exact figures, paired resampling, and what is called helps, no effect or harms."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from flawsmith.errors import RunError
from flawsmith.evaluation.arms import REAL
from flawsmith.evaluation.statistics import (
    ALL,
    MEAN,
    Comparison,
    EvaluationSet,
    Outcome,
    compare,
    draws,
    outcome,
    p_value,
    resampled,
    verdict,
)
from flawsmith.evaluation.trainings import outcome_file

DEFECTS = ("crack", "hole")


@pytest.fixture(scope="module")
def evaluation_set() -> EvaluationSet:
    numbers = np.array([0] * 14 + [1] * 10 + [-1] * 20)
    return EvaluationSet(tuple(f"{n}.png" for n in range(len(numbers))), numbers, DEFECTS)


def masks_of(evaluation_set: EvaluationSet) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    masks = []
    for number in evaluation_set.defect:
        mask = np.zeros((24, 24), bool)
        if number >= 0:
            top, left = rng.integers(0, 16, 2)
            mask[top : top + 5 + number, left : left + 6] = True
        masks.append(mask)
    return masks


def answers(evaluation_set: EvaluationSet, skill: float, seed: int, skill_of_holes: float | None = None) -> Outcome:
    """A detector of a given skill: its anomaly_map, score and defect type are right by so much, plus noise."""
    rng = np.random.default_rng(seed)
    own = np.where(evaluation_set.defect == 1, skill if skill_of_holes is None else skill_of_holes, skill)
    masks = masks_of(evaluation_set)
    anomaly_map = [
        (0.1 * rng.random(m.shape) + 0.05 * rng.random() + s * m * rng.random(m.shape)).astype(np.float32)
        for m, s in zip(masks, own, strict=True)
    ]
    score = (rng.normal(size=len(own)) + 2 * own * (evaluation_set.defect >= 0)).astype(np.float32)
    defect = rng.random((len(own), 2)).astype(np.float32)
    defect[np.arange(len(own)), np.maximum(evaluation_set.defect, 0)] += own
    return outcome(evaluation_set, masks, anomaly_map, score, defect / defect.sum(1, keepdims=True))


def compared(
    evaluation_set: EvaluationSet, one: list[Outcome], other: list[Outcome]
) -> dict[tuple[str, str], Comparison]:
    weights = draws(evaluation_set, 200, np.random.default_rng(0))
    rows = compare(
        [resampled(evaluation_set, seed, weights) for seed in one],
        [resampled(evaluation_set, seed, weights) for seed in other],
        (one, other),
        confidence=0.95,
        rng=np.random.default_rng(1),
    )
    return {(row.task, row.defect): row for row in rows}


def test_exact_figures_are_scikit_learns(evaluation_set: EvaluationSet):
    rng = np.random.default_rng(3)
    masks = masks_of(evaluation_set)
    anomaly_map = [rng.random(mask.shape).astype(np.float32) + mask for mask in masks]
    score = rng.random(len(evaluation_set.defect)).astype(np.float32)
    made = outcome(evaluation_set, masks, anomaly_map, score, None)
    for number, defect in enumerate(DEFECTS):
        own = np.isin(evaluation_set.defect, (number, -1))
        truth = np.concatenate([m.ravel() for m, o in zip(masks, own, strict=True) if o])
        seen = np.concatenate([h.ravel() for h, o in zip(anomaly_map, own, strict=True) if o])
        assert made.figures["localization"][defect]["ap"] == pytest.approx(
            average_precision_score(truth, seen), abs=1e-9
        )
        expected = roc_auc_score(evaluation_set.defect[own] >= 0, score[own])
        assert made.figures["detection"][defect]["auroc"] == pytest.approx(expected, abs=1e-9)
    mean = np.mean([made.figures["localization"][defect]["ap"] for defect in DEFECTS])
    assert made.figures["localization"][MEAN]["ap"] == pytest.approx(mean)
    assert "classification" not in made.figures


def test_drawing_every_picture_once_gives_the_exact_figure(evaluation_set: EvaluationSet):
    made = answers(evaluation_set, 0.5, 0)
    once = np.ones((1, len(evaluation_set.defect)), np.float32)
    found = resampled(evaluation_set, made, once)
    for task, figure in (("localization", "ap"), ("detection", "auroc"), ("classification", "recall")):
        for defect in (*DEFECTS, MEAN):
            tolerance = 2e-3 if task == "localization" else 1e-6  # pixel scores are binned for resampling
            assert found[task, defect][0] == pytest.approx(made.figures[task][defect][figure], abs=tolerance), (
                task,
                defect,
            )


def test_resamples_keep_the_number_of_each_kind(evaluation_set: EvaluationSet):
    weights = draws(evaluation_set, 50, np.random.default_rng(0))
    for group in evaluation_set.groups():
        assert (weights[:, group].sum(1) == len(group)).all()
    assert len(np.unique(weights, axis=0)) > 40


def test_a_better_arm_helps_a_worse_one_harms_and_the_same_one_does_nothing(evaluation_set: EvaluationSet):
    good, poor = (
        [answers(evaluation_set, 0.6, s) for s in range(3)],
        [answers(evaluation_set, 0.15, 10 + s) for s in range(3)],
    )
    for rows, expected in (
        (compared(evaluation_set, good, poor), "helps"),
        (compared(evaluation_set, poor, good), "harms"),
        (compared(evaluation_set, good, good), "no effect"),
    ):
        assert {rows["localization", defect].verdict for defect in (*DEFECTS, MEAN, ALL)} == {expected}
        assert rows["detection", MEAN].verdict == expected
        for row in rows.values():
            assert row.low <= row.high and 0 <= row.chance_of_gain <= 1 and len(row.seeds) == 3
    same = compared(evaluation_set, good, good)["localization", MEAN]
    assert (same.difference, same.low, same.high, same.chance_of_gain, same.p_value) == (0, 0, 0, 0.5, 1)


def test_a_gain_in_one_kind_is_not_told_of_the_other(evaluation_set: EvaluationSet):
    plain = [answers(evaluation_set, 0.3, s) for s in range(3)]
    better = [answers(evaluation_set, 0.3, s, skill_of_holes=0.9) for s in range(3)]
    rows = compared(evaluation_set, better, plain)
    assert rows["localization", "hole"].verdict == "helps"
    assert rows["localization", "crack"].verdict == "no effect"


def test_equal_detectors_are_seldom_told_apart(evaluation_set: EvaluationSet):
    """Arms that differ by chance alone: an interval of 95 % must hold zero nearly always."""
    wrong = 0
    for trial in range(6):
        one = [answers(evaluation_set, 0.3, 100 * trial + s) for s in range(3)]
        other = [answers(evaluation_set, 0.3, 100 * trial + 50 + s) for s in range(3)]
        wrong += compared(evaluation_set, one, other)["detection", MEAN].verdict != "no effect"
    assert wrong <= 1


def test_the_p_value_agrees_with_the_interval():
    """A difference whose p-value is at most 5 % has a 95 % interval on one side of zero; no p-value is 0."""
    assert p_value(np.full(199, 0.3)) == p_value(np.full(199, -0.3)) == 0.01
    assert p_value(np.array([-1.0] * 3 + [0.0] * 2 + [1.0] * 94)) == pytest.approx(2 * 6 / 100)
    rng = np.random.default_rng(0)
    for shift in np.linspace(-3.5, 3.5, 57):
        gap = rng.standard_normal(400) + shift
        low, high = np.quantile(gap, (0.025, 0.975))
        if p_value(gap) <= 0.05:
            assert verdict(low, high) == ("helps" if shift > 0 else "harms")
        elif p_value(gap) > 0.06:
            assert verdict(low, high) == "no effect"


def test_equal_detectors_have_p_values_of_any_size():
    """Without an effect one difference in ten has a p-value of at most 0.1: a mean of 100 pictures, resampled."""
    rng = np.random.default_rng(6)
    small = 0
    for _ in range(400):
        gains = rng.standard_normal(100)
        small += p_value(rng.multinomial(100, np.full(100, 0.01), size=300) @ gains / 100) <= 0.1
    assert 20 <= small <= 64


def test_outcomes_survive_the_disk(evaluation_set: EvaluationSet, tmp_path: Path):
    made = answers(evaluation_set, 0.4, 0)
    made.calibration, made.shifted = np.arange(3, dtype=np.float32), np.ones((5, 4), np.float32)
    made.save(tmp_path / "deep" / "one.npz")
    back = Outcome.load(tmp_path / "deep" / "one.npz")
    assert back.figures == made.figures
    for name in ("damaged", "normal", "score", "probabilities", "thumbs", "calibration", "shifted"):
        assert np.array_equal(getattr(back, name), getattr(made, name))
    raw = (tmp_path / "deep" / "one.npz").read_bytes()
    for number, damaged in enumerate((raw[: len(raw) // 2], b"", b"PK" + raw[2:200], raw[:40] + bytes(60) + raw[100:])):
        (tmp_path / f"{number}.npz").write_bytes(damaged)
        with pytest.raises(RunError, match=rf"{number}\.npz: cannot be read .*; delete it"):
            Outcome.load(tmp_path / f"{number}.npz")


def test_no_two_products_share_the_file_of_an_outcome():
    products = ("magnet", "a b", "a-b", "a--b", "부품", "나사", "x" * 200, "x" * 201, "..", "a/b")
    names = [outcome_file(product, arm, seed) for product in products for arm in ("ours", REAL) for seed in (0, 1)]
    assert len(set(names)) == len(names) and max(map(len, names)) < 120
    assert not any("/" in name for name in names)
    assert outcome_file("magnet", "ours, no controls", 1) == "magnet-ours-no-controls-1.npz"  # as runs of today have it


def test_where_the_lines_are():
    assert [verdict(*ends) for ends in ((0.01, 0.2), (-0.2, -0.01), (-0.1, 0.1), (0.0, 0.0), (0.0, 0.1))] == [
        "helps",
        "harms",
        "no effect",
        "no effect",
        "no effect",
    ]


def test_ignored_pixels_count_in_no_figure(evaluation_set: EvaluationSet):
    """The reference never sees them; their scores, the highest of all, would ruin every figure as normal ones."""
    rng = np.random.default_rng(4)
    masks = masks_of(evaluation_set)
    rims: list[np.ndarray | None] = [np.roll(mask, 3, 1) & ~mask if mask.any() else None for mask in masks]
    anomaly_map = [
        np.where(False if rim is None else rim, np.float32(9), (rng.random(mask.shape) + 0.6 * mask).astype(np.float32))
        for mask, rim in zip(masks, rims, strict=True)
    ]
    made = outcome(evaluation_set, masks, anomaly_map, None, None, rims)
    counted = [np.ones(mask.shape, bool) if rim is None else ~rim for mask, rim in zip(masks, rims, strict=True)]
    once = resampled(evaluation_set, made, np.ones((1, len(masks)), np.float32))
    for number, defect in enumerate(DEFECTS):
        own = [place for place in range(len(masks)) if evaluation_set.defect[place] in (number, -1)]
        truth = np.concatenate([masks[place][counted[place]] for place in own])
        seen = np.concatenate([anomaly_map[place][counted[place]] for place in own])
        figures = made.figures["localization"][defect]
        assert figures["ap"] == pytest.approx(average_precision_score(truth, seen), abs=1e-9)
        assert figures["auroc"] == pytest.approx(roc_auc_score(truth, seen), abs=1e-9)
        assert once["localization", defect][0] == pytest.approx(figures["ap"], abs=2e-3)
        assert figures["aupro"] == pytest.approx(overlap_area(masks, anomaly_map, counted, own, 0.3), abs=1e-6)
    ruined = outcome(evaluation_set, masks, anomaly_map, None, None).figures["localization"]
    assert ruined[MEAN]["ap"] < made.figures["localization"][MEAN]["ap"] - 0.05
    assert made.damaged is not None and made.normal is not None
    assert made.damaged.sum() + made.normal.sum() == sum(int(where.sum()) for where in counted)


def overlap_area(
    masks: list[np.ndarray],
    anomaly_map: list[np.ndarray],
    counted: list[np.ndarray],
    own: list[int],
    limit: float,
) -> float:
    """Per-region overlap by its definition, threshold by threshold, over the counted pixels alone."""
    normal = np.concatenate([anomaly_map[place][counted[place] & ~masks[place]] for place in own])
    regions = []
    for place in own:
        count, names = cv2.connectedComponents(masks[place].astype(np.uint8), connectivity=8)
        regions += [anomaly_map[place][names == name] for name in range(1, count)]
    thresholds = np.unique(np.concatenate([normal, *regions]))[::-1]
    shares = [1 - np.sort(scores).searchsorted(thresholds) / len(scores) for scores in (normal, *regions)]
    x, y = np.append(0.0, shares[0]), np.append(0.0, np.mean(shares[1:], axis=0))
    inside = x <= limit
    x, y = np.append(x[inside], limit), np.append(y[inside], np.interp(limit, x, y))
    return float(np.trapezoid(y, x) / limit)
