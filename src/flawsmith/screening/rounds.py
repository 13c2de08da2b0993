"""Generate until there are enough: what screening asks for again, in rounds.json, and which rejected pictures are gone.

A round names how many pairs of each defect type to plan behind the others. It follows from configuration and verdicts
alone, and it holds for one gate: with other thresholds, filters or features the rounds of the gate before are taken
back.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from flawsmith.files import write_json
from flawsmith.run.dataset import split_data
from flawsmith.run.folder import Run
from flawsmith.run.rounds import Asked, read_rounds, read_tree
from flawsmith.synthesis.counts import counts


def plan_more(run: Run) -> int:
    """Ask for what the defect types lack after screening; return how many more pairs, 0 = there are enough or no more rounds.

    A round asks for so many times more as `screen.times` says, for as few are kept of them.
    """
    rounds = read_rounds(run)
    part = run.config.screen
    if not part.enabled or len(rounds) >= part.rounds:
        return 0
    lacking = lacks(run)
    if not lacking:
        return 0
    row: list[list[Any]] = [
        [product, defect, math.ceil(part.times * number)] for (product, defect), number in sorted(lacking.items())
    ]
    tree = read_tree(run)
    tree["rounds"] = [*tree["rounds"][: len(rounds)], row]
    tree["discarded"] = []
    write_json(run.path("rounds.json"), tree)
    number = sum(item[2] for item in row)
    run.log(stage="screen", what=f"round {len(rounds) + 1} asks for {number} more pairs")
    return number


def lacks(run: Run) -> Asked:
    """Return how many pairs of each type are asked for and not kept; types that have their number are left out."""
    have = Counter((row["product"], row["defect"]) for row in run.kept(partly=True))
    asked = counts(run.config, split_data(run))
    return {key: number - have[key] for key, number in asked.items() if number > have[key]}


def discard(run: Run) -> None:
    """Delete the pictures that were rejected, where the setting says so; killed in between, the next call goes on."""
    if run.config.screen.keep_rejected:
        return
    rows = run.rejected()
    tree = read_tree(run)
    gone = sorted({*tree["discarded"], *(row["index"] for row in rows)})
    if gone != tree["discarded"]:
        write_json(run.path("rounds.json"), tree | {"discarded": gone})
    for row in rows:
        for part in ("image", "mask"):
            run.path(row[part]).unlink(missing_ok=True)
