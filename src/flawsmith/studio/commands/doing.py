"""What a command does at this moment: a piece of work with its progress, or the stage that is being set up.

Between two pieces of work a stage opens photographs, loads a network or fits what it judges with. That can take
minutes, in which nothing is counted. The run's manifest says which stage it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flawsmith.run.folder import Run

Purpose = Literal["generate", "prove", "export"]

_LEAST = 1.0
"""Seconds: less than this is not told as time left, for it would stand there as 0."""


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work, as the command told of it last."""

    told: Mapping[str, Any]
    """`run.progress.Progress` as JSON."""
    begun: float
    """When it was told of first, in seconds of `time.monotonic`."""
    heard: float
    """When it was told of last."""

    @property
    def over(self) -> bool:
        """Whether all of it is done."""
        return bool(self.told["done"] >= self.told["total"])

    def after(self, told: Mapping[str, Any]) -> Step:
        """Return it as it is told of now; work that was over begins anew, as in another round."""
        now = time.monotonic()
        again = self.over and told["done"] < told["total"]
        return Step(told, now if again else self.begun, now)


@dataclass(frozen=True, slots=True)
class Doing:
    """What is being done."""

    phase: Literal["starting", "working", "preparing"]
    """starting: nothing is told yet; preparing: the work before is over, and the next is being set up."""
    what: str
    """Name of the work, as `Step` has it; of what is prepared the name of its stage; "" where it starts."""
    seconds: float
    """How long that has been so."""
    left: float | None
    """Seconds that it will still take, as it was told last; None = nobody can tell."""


def doing(steps: Mapping[str, Step], begun: float, following: str) -> Doing:
    """Return what a command that runs is doing.

    Args:
        steps: Its work by name, so far.
        begun: When it was started, in seconds of `time.monotonic`.
        following: The stage that is next; see `next_stage`.
    """
    now = time.monotonic()
    if not steps:
        return Doing("starting", "", now - begun, None)
    name, step = last(steps)
    if step.over:
        return Doing("preparing", following, now - step.heard, None)
    left = step.told.get("left")
    left = left - (now - step.heard) if left is not None else None
    return Doing("working", name, now - step.begun, left if left is not None and left >= _LEAST else None)


def last(steps: Mapping[str, Step]) -> tuple[str, Step]:
    """Return the work that was told of last, with its name."""
    return max(steps.items(), key=lambda item: item[1].heard)


def next_stage(run: Run, purpose: Purpose, after: str) -> str:
    """Return what a command does next: the first stage that is not finished, "controls" where samples are made.

    Args:
        run: The run, as its manifest is now.
        purpose: What the command is for.
        after: The first word of the work that was over last, such as "generate".
    """
    if purpose == "export":
        return "export"
    config = run.config
    stages = ["train", "generate"]
    stages += ["screen"] if config.screen.enabled and config.data.shots else []
    stages += (["measure"] if config.measure.enabled else []) + ["prove"] if purpose == "prove" else []
    stage = next((name for name in stages if not run.stage_hash(name)), "report")
    if stage == "generate" and after == "generate" and config.generate.controls:
        return "controls"
    return stage
