"""All stages of a run in order; each skips what is done."""

from __future__ import annotations

from pathlib import Path

from flawsmith.runs import Run
from flawsmith.stages.export import export
from flawsmith.stages.generate import generate
from flawsmith.stages.measure import measure
from flawsmith.stages.plan import counts
from flawsmith.stages.prove import prove
from flawsmith.stages.report import is_reported, report
from flawsmith.stages.split import split_data
from flawsmith.stages.train import train


def run_all(run: Run) -> Path:
    """Train, generate, measure, prove, export, report; return the report's path."""
    counts(run.config, split_data(run))  # what asks for nothing is said before hours of training
    train(run)
    generate(run)
    if run.config.measure.enabled:
        measure(run)
    if run.config.prove.enabled:
        prove(run)
    export(run)
    return run.path("report.html") if is_reported(run) else report(run)
