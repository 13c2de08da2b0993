"""All stages of a run in order; each skips what is done."""

from __future__ import annotations

from pathlib import Path

from flawsmith.runs import Run
from flawsmith.stages.export import export
from flawsmith.stages.generate import generate
from flawsmith.stages.report import report
from flawsmith.stages.train import train


def run_all(run: Run) -> Path:
    """Train, generate, export, report; return the report's path."""
    train(run)
    generate(run)
    export(run)
    return report(run)
