"""All stages of a run in order; each skips what is done."""

from __future__ import annotations

from pathlib import Path

from flawsmith.runs import Run
from flawsmith.stages.export import export
from flawsmith.stages.gate import known_filters
from flawsmith.stages.generate import generate
from flawsmith.stages.measure import measure
from flawsmith.stages.plan import counts
from flawsmith.stages.prove import prove
from flawsmith.stages.report import is_reported, report
from flawsmith.stages.screen import require_kept, screened
from flawsmith.stages.split import split_data
from flawsmith.stages.train import train


def run_all(run: Run) -> Path:
    """Train, generate and screen in turns, measure, prove, export, report; return the report's path.

    Raises:
        RunError: the gate rejected every pair; the report is written, nothing is exported.
    """
    counts(run.config, split_data(run))  # what asks for nothing is said before hours of training
    if run.config.screen.enabled:
        known_filters(run.config.screen)  # so is a filter that is misspelt
    train(run)
    if not _enough(run):
        report(run)
        require_kept(run)
    if run.config.measure.enabled:
        measure(run)
    if run.config.prove.enabled:
        prove(run)
    export(run)
    return run.path("report.html") if is_reported(run) else report(run)


def _enough(run: Run) -> bool:
    """Generate, and screen where that is asked for, until there is enough or no round is left; False = none is kept."""
    generate(run)
    if not run.config.screen.enabled:
        run.forget("screen")  # what `flawsmith screen` judged in between would hide pairs that are asked for
        return True
    while screened(run):
        generate(run)
    return bool(run.kept())
