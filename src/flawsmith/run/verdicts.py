"""What the gate said of a run's samples, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from flawsmith.errors import RunError
from flawsmith.run.folder import Run
from flawsmith.run.records import Verdict

_COMMONEST = 3


def require_kept(run: Run) -> None:
    """Refuse to go on with nothing.

    Raises:
        RunError: every sample was rejected; names the three commonest reasons.
    """
    verdicts = run.verdicts()
    if not verdicts or any(verdict.kept for verdict in verdicts.values()):
        return
    raise RunError(
        f"{run.folder}: the quality gate rejected all {len(verdicts)} samples ({commonest(verdicts.values())}), so "
        "nothing is exported; look at them in report.html, then train for longer or change screen.thresholds"
    )


def commonest(verdicts: Iterable[Verdict], most: int = _COMMONEST) -> str:
    """Return the commonest reasons of rejected samples with their numbers: "12 because no damage is visible; 3 ..."."""
    counts = Counter(text for one in verdicts for text in {reason.text: None for reason in one.reasons})
    return "; ".join(f"{number} because {text}" for text, number in counts.most_common(most))
