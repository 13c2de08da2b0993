"""The training loop of a recipe that may be stopped at any checkpoint and goes on when called again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith.files import append_lines
from flawsmith.nn.trainer import Trainer
from flawsmith.run.progress import progress


def train_until(trainer: Trainer, out: Path, title: str, steps: int, until: float) -> bool:
    """Train, and append the losses to OUT/training.jsonl at each checkpoint.

    Args:
        trainer: Ready to run.
        out: The recipe's folder.
        title: What the progress line says.
        steps: How many there are.
        until: `time.monotonic()` from which on training stops at the next checkpoint.

    Returns:
        True when training is done, False when the time ran out before its end.
    """
    rows: list[dict[str, Any]] = []
    with progress(title, steps, "steps") as advance:
        for step in trainer.run():
            advance(1, f"loss {np.mean(trainer.losses[-50:]):.4f}")
            rows.append({"step": step.index, "loss": round(step.loss, 5), "seconds": round(step.seconds, 3)})
            if step.saved:
                append_lines(out / "training.jsonl", rows)
                rows = []
                if time.monotonic() > until and step.index + 1 < steps:
                    return False
    return True
