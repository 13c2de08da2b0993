"""What a plan would cost in time, memory and disk: from what the last check measured, without looking at a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flawsmith.config import AUTO, Config
from flawsmith.preflight.plan_cost import CHOSEN_FIRST, plan_cost
from flawsmith.processes import busy

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio

MAKING = ("training", "generating", "screening", "memory", "disk", "assumes")
"""Lines of the estimate beside the button that makes samples."""
PROVING = ("measuring", "samples to compare with", "proof", "memory of the proof", "assumes")
"""Those beside the button that begins a proof."""

NONE: dict[str, Any] = {"lines": {}, "warnings": []}
"""Nothing can be estimated."""


def cost_of(studio: Studio, config: Config, names: Sequence[str]) -> dict[str, Any] | None:
    """Return what the page shows of the estimate for a configuration: lines, and sentences that warn.

    Args:
        studio: With the last check, which measured the set.
        config: As the run would have it.
        names: Which lines, in order.

    Returns:
        None = the set is not checked yet; no lines = it cannot be estimated.
    """
    checked = studio.checked
    if checked is None or checked.state in ("waiting", "running"):
        return None
    facts = checked.sofar.get("facts")
    if facts is None:
        return NONE
    table, warnings = plan_cost(config, facts, studio.workspace.split)
    sentences = list(warnings) if names is MAKING else []
    if (times := busy()) > 1:
        sentences.append(f"other programs are at work on this computer now: it may take {times:.1f} times as long")
    if config.generator.name == AUTO and names is MAKING:
        sentences.append(CHOSEN_FIRST)
    return {"lines": {name: table[name] for name in names if name in table}, "warnings": sentences}
