"""A proof's verdict in words: of one comparison, and of a whole run in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flawsmith.evaluation.statistics import ENOUGH_SEEDS, LEADS, MEAN, NONE, OURS, REAL, TASKS, Task
from flawsmith.files import read_json, reading
from flawsmith.run.folder import Run

Tree = Mapping[str, Any]
"""proof.json, or a part of it."""
NO_SHOTS = "a proof compares with real defects, and there is none"
"""Why a run that learns from no shot has no verdict."""
_CHANCE = 0.5
"""AUROC of a detector that guesses."""
_VERBS = {"helps": "help on", "no effect": "show no effect on", "harms": "harm on"}


def verdict_of(run: Run) -> str:
    """Return the proof's verdict on the samples that stand now, as one sentence; "" = no samples are proven."""
    path = run.path("proof.json")
    if not run.stage_hash("prove") or not path.is_file():
        return ""
    if not run.is_current("prove"):
        return f"Other samples stand than were proven; `flawsmith prove {run.folder}` proves those of today."
    proof = read_json(path)
    with reading(path, "delete it and prove again"):
        return verdict_sentence(proof)


def verdict_sentence(proof: Tree) -> str:
    """Return what the samples are worth beside the real shots, in the first task that was asked; "" = no such arm.

    Of each product it says the mean over defect types with its interval, and the verdict after correction. A product
    whose detector learned nothing from the shots has no verdict, but a line of its own that says so.
    """
    for task, (name, figure) in TASKS.items():
        judged: dict[str, list[str]] = {verdict: [] for verdict in _VERBS}
        undecided, by_chance = list[str](), list[str]()
        for product, tree in proof["products"].items():
            for row in rows_of(tree, OURS, REAL):
                if (row["task"], row["defect"]) == (task, MEAN):
                    if reason := cannot_tell(proof, product):
                        undecided.append(reason)
                        continue
                    verdict = row.get("corrected_verdict", row["verdict"])  # missing in a proof of an earlier release
                    judged[verdict].append(f"{product} ({points(row)})")
                    by_chance += [product] if verdict != row["verdict"] else []
        parts = [f"{_VERBS[verdict]} {', '.join(products)}" for verdict, products in judged.items() if products]
        if parts:
            undecided.insert(
                0,
                f"Samples of {proof['generator']} beside the real shots {_listed(parts)} in {name} ({figure} in points "
                f"of 100, mean over defect types, {proof['confidence']:.0%} intervals){first_look(proof)}.",
            )
        if by_chance:
            undecided.append(
                f"After correction that is no effect on {', '.join(by_chance)}: the interval lies on one side of zero, "
                "but of so many comparisons some do so by chance."
            )
        if undecided:
            return "\n".join(undecided)
    return ""


def cannot_tell(proof: Tree, product: str) -> str:
    """Return why a proof says nothing of a product's samples, as a sentence; "" = its verdict holds.

    It says nothing where the detector that learned from the shots alone finds clearly less than the one that knows
    normal parts alone (the interval of their difference in the leading figure lies below zero), or guesses (an AUROC of
    0.5 or less): what samples do to a detector that finds nothing is not what they do to one that works.
    """
    tree = proof["products"][product]
    asked = [row["task"] for row in rows_of(tree, OURS, REAL) if row["defect"] == MEAN]
    task: Task | None = next((task for task in TASKS if task in asked), None)
    if task is None:
        return ""
    name, lead = TASKS[task][1], LEADS[task]
    shots, normals = (
        tree.get("arms", {}).get(arm, {}).get("figures", {}).get(task, {}).get(MEAN, {}) for arm in (REAL, NONE)
    )
    of = f" of {product}" if len(proof["products"]) > 1 else ""
    if proof.get("reduced"):
        way = "train it longer (prove.budget = 1)"
    else:
        way = "let another detector prove them (prove.detectors), or give it more shots"
    # Missing in a proof of an earlier release, of which only a detector that guesses is told.
    compared = [row for row in tree.get("shots_against_none", ()) if (row["task"], row["defect"]) == (task, MEAN)]
    if any(row["high"] < 0 for row in compared):
        return (
            f"This proof cannot tell{of}: the detector that learned from your shots finds less than one that knows "
            f"normal parts alone ({100 * shots[lead]['mean']:.1f} against {100 * normals[lead]['mean']:.1f} {name}); "
            f"{way}."
        )
    if "auroc" in shots and shots["auroc"]["mean"] <= _CHANCE:
        area = "pixel AUROC" if task == "localization" else name
        return (
            f"This proof cannot tell{of}: the detector that learned from your shots finds no more than by chance "
            f"({100 * shots['auroc']['mean']:.1f} {area}, where guessing has 50); {way}."
        )
    return ""


def first_look(proof: Tree) -> str:
    """Return what follows a verdict of too few seeds; "" = there are enough."""
    seeds = proof.get("seeds", ENOUGH_SEEDS)
    if seeds >= ENOUGH_SEEDS:
        return ""
    return f", a first look with {seeds} seed{'' if seeds == 1 else 's'} (a verdict needs {ENOUGH_SEEDS})"


def few_seeds(proof: Tree) -> str:
    """Return what a reader must know of verdicts of too few seeds, as a sentence; "" = there are enough."""
    called = first_look(proof).removeprefix(", ")
    return f"This is {called}." if called else ""


def stands(row: Tree) -> str:
    """Return the corrected verdict and whether it is another than the plain one; of an older proof the plain one."""
    corrected = row.get("corrected_verdict", row["verdict"])
    return f"{corrected} after correction" if corrected != row["verdict"] else str(corrected)


def rows_of(product: Tree, arm: str, against: str) -> list[Tree]:
    """Return the rows of one comparison, one per task and defect type."""
    return [row for row in product["comparisons"] if (row["arm"], row["against"]) == (arm, against)]


def points(row: Tree) -> str:
    """Return a difference and its interval in points of 100.

    With as many digits, up to the three that are recorded, as show on which side of zero an interval lies.
    """
    low, high = row["low"], row["high"]
    near = min(abs(low), abs(high)) if low * high > 0 else 1.0
    digits = next((count for count in (1, 2) if round(100 * near, count)), 3)
    return f"{signed(row['difference'], digits)} [{signed(low, digits)}, {signed(high, digits)}]"


def signed(share: float, digits: int = 1) -> str:
    """Return a share of 1 in points of 100, with its sign."""
    return f"{round(100 * share, digits) + 0.0:+.{digits}f}"  # + 0.0, so that no -0.0 is left


def _listed(texts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
