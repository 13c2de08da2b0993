"""What the gate said of a run's pairs, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from flawsmith.errors import RunError
from flawsmith.run.folder import Run

_COMMONEST = 3


def require_kept(run: Run) -> None:
    """Refuse to go on with nothing.

    Raises:
        RunError: every pair was rejected; names the three commonest reasons.
    """
    verdicts = run.verdicts()
    if not verdicts or any(row["kept"] for row in verdicts.values()):
        return
    told = commonest(list(verdicts.values()))
    raise RunError(
        f"{run.folder}: the quality gate rejected all {len(verdicts)} pairs ({told}), so nothing is exported; look at "
        "them in report.html, then train for longer or change screen.thresholds"
    )


def commonest(rows: Sequence[dict[str, Any]], most: int = _COMMONEST) -> str:
    """Return the commonest reasons of rejected pairs with their numbers: "12 no damage is visible, 3 ..."."""
    found = Counter(said for row in rows for said in {reason["said"]: None for reason in row["reasons"]})
    return "; ".join(f"{number} because {said}" for said, number in found.most_common(most))
