"""All stages of a run in order; each skips what is done."""

from __future__ import annotations

from pathlib import Path

from flawsmith.errors import ConfigError
from flawsmith.evaluation.measure import measure
from flawsmith.evaluation.prove import prove
from flawsmith.exports.export import export
from flawsmith.preflight.refuse import preflight
from flawsmith.reporting.report import is_reported, report
from flawsmith.run.dataset import split_data
from flawsmith.run.folder import Run
from flawsmith.run.verdicts import require_kept
from flawsmith.screening.screen import screened
from flawsmith.synthesis.counts import counts
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train


def run_all(run: Run) -> Path:
    """Train, generate and screen in turns, measure, prove, export, report; return the report's path.

    Raises:
        ConfigError: a later stage would refuse its settings; said before any training.
        RunError: the gate rejected every pair; the report is written, nothing is exported.
    """
    split = split_data(run)
    counts(run.config, split)
    # Before training the split has just decoded every picture; a run that only goes on need not.
    if refused := preflight(run.config, split, twins=not run.stage_hash("train")):
        raise ConfigError("\n".join(refused))
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
