"""What a command does at this moment: a piece of work with its progress, or a stage in which nothing is counted now.

Between two pieces of work a stage opens photographs, loads a network or fits what it judges with. That can take
minutes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Purpose = Literal["generate", "prove", "export"]

_LEAST = 1.0
"""Seconds: less than this is not told as time left, for it would stand there as 0."""


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work, or a stage, as the command told of it last."""

    told: Mapping[str, Any]
    """`run.progress.Progress` as JSON; of a stage, in which nothing is counted, the total is 0."""
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
        again = told["what"] != self.told["what"] or (self.over and told["done"] < told["total"])
        return Step(told, now if again else self.begun, now)


@dataclass(frozen=True, slots=True)
class Doing:
    """What is being done."""

    what: str
    """Name of the work or of the stage; "" = nothing is told yet."""
    seconds: float
    """How long that has been so."""
    left: float | None
    """Seconds that it will still take, as it was told last; None = nobody can tell."""


def doing(steps: Mapping[str, Step], stage: Step | None, begun: float) -> Doing:
    """Return what a command that runs is doing.

    Args:
        steps: Its counted work by name, so far.
        stage: The stage that was told of last; None = none yet.
        begun: When the command was started, in seconds of `time.monotonic`.
    """
    now = time.monotonic()
    name, step = last(steps) if steps else ("", None)
    if step and not step.over and (stage is None or stage.heard < step.heard):
        left = step.told.get("left")
        left = left - (now - step.heard) if left is not None else None
        return Doing(name, now - step.begun, left if left is not None and left >= _LEAST else None)
    if stage is None:
        return Doing(name, now - (step.heard if step else begun), None)
    return Doing(stage.told["what"], now - max(stage.begun, step.heard if step else 0.0), None)


def last(steps: Mapping[str, Step]) -> tuple[str, Step]:
    """Return the work that was told of last, with its name."""
    return max(steps.items(), key=lambda item: item[1].heard)
