"""What the chaos suite did: counts for the table at its end and for benchmarks/results/chaos.json."""

from __future__ import annotations

import os
import resource
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from flawsmith.run.folder import machine

FULL = os.environ.get("FLAWSMITH_CHAOS", "short") == "full"
"""Whether all of it is wanted: `make chaos`; else the form of a minute that `.ci/run` does."""


def often(short: int, full: int) -> int:
    """Return how often something is tried in the form that is wanted."""
    return full if FULL else short


@dataclass
class Tally:
    """Counts of one session."""

    signals: Counter[str] = field(default_factory=Counter)
    """Signals that ended a command, by "stage, signal"."""
    inputs: Counter[str] = field(default_factory=Counter)
    """Inputs by what was tried with them."""
    refused: Counter[str] = field(default_factory=Counter)
    """Those of them that were refused in a sentence."""

    def tried(self, what: str, *, refused: bool = False) -> None:
        """Count one input."""
        self.inputs[what] += 1
        self.refused[what] += refused

    def seconds(self) -> float:
        """Return the processor seconds of this process and the commands that it started."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return round(sum(one.ru_utime + one.ru_stime for one in used), 1)

    def lines(self) -> list[str]:
        """Return the table."""
        rows = [f"{count:6d} signals at {what}" for what, count in sorted(self.signals.items())]
        rows += [
            f"{count:6d} inputs: {what}, {self.refused[what]} of them refused in a sentence"
            for what, count in sorted(self.inputs.items())
        ]
        total = f"{self.signals.total()} signals, {self.inputs.total()} inputs, {self.seconds():.0f} processor seconds"
        return [*rows, total]

    def tree(self, outcomes: dict[str, int]) -> dict[str, Any]:
        """Return what is kept of a session.

        Args:
            outcomes: Number of tests by how they ended.
        """
        return {
            "form": "full" if FULL else "short",
            "signals": {"total": self.signals.total(), **dict(sorted(self.signals.items()))},
            "inputs": {"total": self.inputs.total(), **dict(sorted(self.inputs.items()))},
            "refused_in_a_sentence": dict(sorted(self.refused.items())),
            "tests": outcomes,
            "processor_seconds": self.seconds(),
            "machine": machine(),
        }


TALLY = Tally()
