"""Many verdicts, some wrong by chance: the correction of Benjamini and Hochberg.

"Controlling the False Discovery Rate" (Journal of the Royal Statistical Society B, 1995): of the verdicts that stand
after it, the share of wrong ones is in expectation at most the rate. That holds also for verdicts that depend on one
another positively, as those of a defect type and of the mean over types do (Benjamini, Yekutieli: Annals of Statistics,
2001).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def correct(products: Mapping[str, dict[str, Any]], rate: float) -> None:
    """Add `adjusted_p_value` and `corrected_verdict` to every comparison of a proof.

    All comparisons of all products are one family: whoever reads the report reads all of them, and picks those that
    stand out. A verdict stands where its adjusted p-value is at most the rate; else it becomes "no effect".

    Args:
        products: Each product's part of proof.json; its `comparisons` have `p_value` and `verdict`.
        rate: The share of wrong verdicts among those that stand.
    """
    rows = [row for product in products.values() for row in product["comparisons"]]
    if not rows:
        return
    from scipy.stats import false_discovery_control  # a tenth of what it costs to begin any command, for a proof alone

    adjusted = false_discovery_control([row["p_value"] for row in rows], method="bh")
    for row, value in zip(rows, adjusted, strict=True):
        row["adjusted_p_value"] = round(float(value), 6)
        row["corrected_verdict"] = row["verdict"] if value <= rate else "no effect"
