"""evaluation/statistics.py: exact figures, paired resampling, and what is called helps, no effect or harms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from flawsmith.evaluation.statistics import ALL, MEAN, Exam, Outcome, compare, draws, outcome, resampled, verdict

KINDS = ("crack", "hole")


@pytest.fixture(scope="module")
def exam() -> Exam:
    numbers = np.array([0] * 14 + [1] * 10 + [-1] * 20)
    return Exam(tuple(f"{n}.png" for n in range(len(numbers))), numbers, KINDS)


def masks_of(exam: Exam) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    masks = []
    for number in exam.kind:
        mask = np.zeros((24, 24), bool)
        if number >= 0:
            top, left = rng.integers(0, 16, 2)
            mask[top : top + 5 + number, left : left + 6] = True
        masks.append(mask)
    return masks


def answers(exam: Exam, skill: float, seed: int, skill_of_holes: float | None = None) -> Outcome:
    """A detector of a given skill: its heat, score and kind are right by so much, plus noise."""
    rng = np.random.default_rng(seed)
    own = np.where(exam.kind == 1, skill if skill_of_holes is None else skill_of_holes, skill)
    masks = masks_of(exam)
    heat = [
        (0.1 * rng.random(m.shape) + 0.05 * rng.random() + s * m * rng.random(m.shape)).astype(np.float32)
        for m, s in zip(masks, own, strict=True)
    ]
    score = (rng.normal(size=len(own)) + 2 * own * (exam.kind >= 0)).astype(np.float32)
    kind = rng.random((len(own), 2)).astype(np.float32)
    kind[np.arange(len(own)), np.maximum(exam.kind, 0)] += own
    return outcome(exam, masks, heat, score, kind / kind.sum(1, keepdims=True))


def compared(exam: Exam, one: list[Outcome], other: list[Outcome]) -> dict[tuple[str, str], dict]:
    weights = draws(exam, 200, np.random.default_rng(0))
    rows = compare(
        [resampled(exam, seed, weights) for seed in one],
        [resampled(exam, seed, weights) for seed in other],
        (one, other),
        confidence=0.95,
        rng=np.random.default_rng(1),
    )
    return {(row["task"], row["kind"]): row for row in rows}


def test_exact_figures_are_scikit_learns(exam: Exam):
    rng = np.random.default_rng(3)
    masks = masks_of(exam)
    heat = [rng.random(mask.shape).astype(np.float32) + mask for mask in masks]
    score = rng.random(len(exam.kind)).astype(np.float32)
    made = outcome(exam, masks, heat, score, None)
    for number, kind in enumerate(KINDS):
        own = np.isin(exam.kind, (number, -1))
        truth = np.concatenate([m.ravel() for m, o in zip(masks, own, strict=True) if o])
        seen = np.concatenate([h.ravel() for h, o in zip(heat, own, strict=True) if o])
        assert made.figures["where"][kind]["ap"] == pytest.approx(average_precision_score(truth, seen), abs=1e-9)
        expected = roc_auc_score(exam.kind[own] >= 0, score[own])
        assert made.figures["whether"][kind]["auroc"] == pytest.approx(expected, abs=1e-9)
    mean = np.mean([made.figures["where"][kind]["ap"] for kind in KINDS])
    assert made.figures["where"][MEAN]["ap"] == pytest.approx(mean)
    assert "which" not in made.figures


def test_drawing_every_picture_once_gives_the_exact_figure(exam: Exam):
    made = answers(exam, 0.5, 0)
    once = np.ones((1, len(exam.kind)), np.float32)
    found = resampled(exam, made, once)
    for task, figure in (("where", "ap"), ("whether", "auroc"), ("which", "recall")):
        for kind in (*KINDS, MEAN):
            tolerance = 2e-3 if task == "where" else 1e-6  # pixel scores are binned for resampling
            assert found[task, kind][0] == pytest.approx(made.figures[task][kind][figure], abs=tolerance), (task, kind)


def test_resamples_keep_the_number_of_each_kind(exam: Exam):
    weights = draws(exam, 50, np.random.default_rng(0))
    for group in exam.groups():
        assert (weights[:, group].sum(1) == len(group)).all()
    assert len(np.unique(weights, axis=0)) > 40


def test_a_better_arm_helps_a_worse_one_harms_and_the_same_one_does_nothing(exam: Exam):
    good, poor = [answers(exam, 0.6, s) for s in range(3)], [answers(exam, 0.15, 10 + s) for s in range(3)]
    for rows, expected in (
        (compared(exam, good, poor), "helps"),
        (compared(exam, poor, good), "harms"),
        (compared(exam, good, good), "no effect"),
    ):
        assert {rows["where", kind]["verdict"] for kind in (*KINDS, MEAN, ALL)} == {expected}
        assert rows["whether", MEAN]["verdict"] == expected
        for row in rows.values():
            assert row["low"] <= row["high"] and 0 <= row["chance_of_gain"] <= 1 and len(row["seeds"]) == 3
    same = compared(exam, good, good)["where", MEAN]
    assert (same["difference"], same["low"], same["high"], same["chance_of_gain"]) == (0, 0, 0, 0.5)


def test_a_gain_in_one_kind_is_not_told_of_the_other(exam: Exam):
    plain = [answers(exam, 0.3, s) for s in range(3)]
    better = [answers(exam, 0.3, s, skill_of_holes=0.9) for s in range(3)]
    rows = compared(exam, better, plain)
    assert rows["where", "hole"]["verdict"] == "helps"
    assert rows["where", "crack"]["verdict"] == "no effect"


def test_equal_detectors_are_seldom_told_apart(exam: Exam):
    """Arms that differ by chance alone: an interval of 95 % must hold zero nearly always."""
    wrong = 0
    for trial in range(6):
        one = [answers(exam, 0.3, 100 * trial + s) for s in range(3)]
        other = [answers(exam, 0.3, 100 * trial + 50 + s) for s in range(3)]
        wrong += compared(exam, one, other)["whether", MEAN]["verdict"] != "no effect"
    assert wrong <= 1


def test_outcomes_survive_the_disk(exam: Exam, tmp_path: Path):
    made = answers(exam, 0.4, 0)
    made.save(tmp_path / "deep" / "one.npz")
    back = Outcome.load(tmp_path / "deep" / "one.npz")
    assert back.figures == made.figures
    for name in ("damaged", "sound", "score", "kind", "thumbs"):
        assert np.array_equal(getattr(back, name), getattr(made, name))


def test_where_the_lines_are():
    assert [verdict(*ends) for ends in ((0.01, 0.2), (-0.2, -0.01), (-0.1, 0.1), (0.0, 0.0), (0.0, 0.1))] == [
        "helps",
        "harms",
        "no effect",
        "no effect",
        "no effect",
    ]
