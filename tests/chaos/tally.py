"""What the chaos suite did: counts for the table at its end and for benchmarks/results/chaos.json."""

from __future__ import annotations

import json
import os
import resource
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flawsmith.run.manifest import machine

FULL = os.environ.get("FLAWSMITH_CHAOS", "short") == "full"
"""Whether all of it is wanted: `make chaos`; else the form of a minute that `.ci/run` does."""


def often(short: int, full: int) -> int:
    """Return how often something is tried in the form that is wanted."""
    return full if FULL else short


def processor_seconds() -> float:
    """Return the processor seconds of this process and the commands that it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@dataclass
class Part:
    """Counts of one file of tests."""

    signals: Counter[str] = field(default_factory=Counter)
    """Signals that ended a command, by "stage, signal"."""
    inputs: Counter[str] = field(default_factory=Counter)
    """Inputs by what was tried with them."""
    refused: Counter[str] = field(default_factory=Counter)
    """Those of them that were refused in a sentence."""
    tests: Counter[str] = field(default_factory=Counter)
    """Tests by how they ended."""
    seconds: float = 0.0
    """Of the processor, with all commands."""

    def tree(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "form": "full" if FULL else "short",
            "signals": dict(sorted(self.signals.items())),
            "inputs": dict(sorted(self.inputs.items())),
            "refused_in_a_sentence": dict(sorted(self.refused.items())),
            "tests": dict(sorted(self.tests.items())),
            "processor_seconds": round(self.seconds, 1),
            "machine": machine(),
        }


class Tally:
    """Counts of one session, by files of tests."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self._now = Part()

    def begin(self, name: str) -> Part:
        """Count for this file of tests from now on."""
        self._now = self.parts.setdefault(name, Part())
        return self._now

    def signal(self, stage: str, name: str) -> None:
        """Count a signal that ended a command."""
        self._now.signals[f"{stage}, {name}"] += 1

    def tried(self, what: str, *, refused: bool = False) -> None:
        """Count one input."""
        self._now.inputs[what] += 1
        self._now.refused[what] += refused

    def lines(self) -> list[str]:
        """Return the table."""
        rows = []
        for part in self.parts.values():
            rows += [f"{count:6d} signals at {what}" for what, count in sorted(part.signals.items())]
            rows += [
                f"{count:6d} inputs: {what}, {part.refused[what]} of them refused in a sentence"
                for what, count in sorted(part.inputs.items())
            ]
        signals = sum(part.signals.total() for part in self.parts.values())
        inputs = sum(part.inputs.total() for part in self.parts.values())
        failed = sum(part.tests["failed"] + part.tests["error"] for part in self.parts.values())
        seconds = sum(part.seconds for part in self.parts.values())
        return [*rows, f"{signals} signals, {inputs} inputs, {failed} failed tests, {seconds:.0f} processor seconds"]

    def write(self, path: Path) -> None:
        """Keep the counts; those of files of tests that were not run this time stay as they are."""
        before = json.loads(path.read_text())["parts"] if path.exists() else {}
        parts = dict(sorted((before | {name: part.tree() for name, part in self.parts.items()}).items()))
        totals = {
            what: sum(sum(part[what].values()) for part in parts.values())
            for what in ("signals", "inputs", "refused_in_a_sentence")
        }
        totals |= {name: sum(part["tests"].get(name, 0) for part in parts.values()) for name in ("passed", "failed")}
        totals["processor_seconds"] = round(sum(part["processor_seconds"] for part in parts.values()), 1)
        path.write_text(json.dumps({"totals": totals, "parts": parts}, indent=1) + "\n")


TALLY = Tally()
