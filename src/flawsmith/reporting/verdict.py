"""A proof's verdict in words: of one comparison, and of a whole run in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flawsmith.evaluation.statistics import MEAN, OURS, REAL, TASKS
from flawsmith.files import read_json, reading
from flawsmith.run.folder import Run

Tree = Mapping[str, Any]
"""proof.json, or a part of it."""
_VERBS = {"helps": "help on", "no effect": "show no effect on", "harms": "harm on"}


def verdict_of(run: Run) -> str:
    """Return the proof's verdict on the samples that the run has now, as one sentence; "" = they are not proven."""
    path = run.path("proof.json")
    if not run.stage_hash("prove") or not path.is_file():
        return ""
    proof = read_json(path)
    with reading(path, "delete it and prove again"):
        return verdict_sentence(proof)


def verdict_sentence(proof: Tree) -> str:
    """Return what the samples are worth beside the real shots, in the first task that was asked; "" = no such arm.

    Of each product it says the mean over defect types with its interval, and the verdict after correction.
    """
    for task, (name, figure) in TASKS.items():
        judged: dict[str, list[str]] = {verdict: [] for verdict in _VERBS}
        for product, tree in proof["products"].items():
            for row in rows_of(tree, OURS, REAL):
                if (row["task"], row["defect"]) == (task, MEAN):
                    verdict = row.get("corrected_verdict", row["verdict"])  # missing in a proof of an earlier release
                    judged[verdict].append(f"{product} ({points(row)})")
        parts = [f"{_VERBS[verdict]} {_listed(products)}" for verdict, products in judged.items() if products]
        if parts:
            return (
                f"Samples of {proof['generator']} beside the real shots {_listed(parts)} in {name} ({figure} in points "
                f"of 100, mean over defect types, {proof['confidence']:.0%} intervals)."
            )
    return ""


def stands(row: Tree) -> str:
    """Return the corrected verdict and whether it is another than the plain one; of an older proof the plain one."""
    corrected = row.get("corrected_verdict", row["verdict"])
    return f"{corrected} after correction" if corrected != row["verdict"] else str(corrected)


def rows_of(product: Tree, arm: str, against: str) -> list[Tree]:
    """Return the rows of one comparison, one per task and defect type."""
    return [row for row in product["comparisons"] if (row["arm"], row["against"]) == (arm, against)]


def points(row: Tree) -> str:
    """Return a difference and its interval in points of 100."""
    return f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]"


def signed(share: float) -> str:
    """Return a share of 1 in points of 100, with its sign."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # + 0.0, so that no -0.0 is left


def _listed(texts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
