"""Generate until there are enough: what a defect type lacks after screening is asked for again, in rounds.json.

A round follows from configuration and verdicts alone, so a run that was killed asks for the same again.
"""

from __future__ import annotations

import math
from collections import Counter

from flawsmith.run.folder import Run
from flawsmith.run.screened import Counts, add_discarded, add_round, read_rounds


def plan_more(run: Run) -> int:
    """Ask for what the types lack after screening; return how many more samples, 0 = enough, or no more rounds.

    A round asks for so many times more as `screen.times` says, for as few are kept of them.
    """
    part, rounds = run.config.screen, read_rounds(run)
    if not part.enabled or len(rounds) >= part.rounds:
        return 0
    asked = {key: math.ceil(part.times * number) for key, number in lacks(run).items()}
    if not asked:
        return 0
    add_round(run, asked)
    number = sum(asked.values())
    run.log(stage="screen", what=f"round {len(rounds) + 1} asks for {number} more samples")
    return number


def lacks(run: Run) -> Counts:
    """Return how many samples of each type are asked for and not kept; types that have their number are left out."""
    have = Counter((sample.product, sample.defect) for sample in run.kept(partly=True))
    return {key: number - have[key] for key, number in run.asked().items() if number > have[key]}


def discard(run: Run) -> None:
    """Delete the pictures that were rejected, where the setting says so; killed in between, the next call goes on."""
    if run.config.screen.keep_rejected:
        return
    rejected = [sample for sample, _ in run.rejected()]
    add_discarded(run, {sample.index for sample in rejected})
    run.remove_pictures("sample", (sample.index for sample in rejected))
