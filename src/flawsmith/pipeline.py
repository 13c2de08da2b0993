"""The stages put together: all of a run in order, each skipping what is done; and the one that needs two chapters."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import get_args

from flawsmith.errors import ConfigError
from flawsmith.evaluation.measure import measure
from flawsmith.evaluation.prove import prove as prove_with
from flawsmith.exports.export import export
from flawsmith.locks import BusyError
from flawsmith.preflight.refuse import preflight
from flawsmith.reporting.report import is_reported, report
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.painted import FOLDER as PAINTED
from flawsmith.run.painted import painted_pairs
from flawsmith.run.progress import work_for, working
from flawsmith.run.screened import require_kept
from flawsmith.run.shard import Shard
from flawsmith.run.stage import Spread
from flawsmith.screening.screen import screened
from flawsmith.synthesis.counts import counts
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train
from flawsmith.types import Stage


def run_all(run: Run, *, until: Stage = "report", patience: float = 0.0, spread: Spread | None = None) -> Path:
    """Train, generate and screen in turns, measure, prove, export, report; return the report's path.

    The photographs are scanned, hashed and read once for all of them.

    Args:
        run: What is done already is skipped.
        until: The last stage before the report, which is written in any case.
        patience: How many seconds to wait for another process that trains or generates.
        spread: Has pieces of the stages done on other machines; None = all is done here.

    Raises:
        ConfigError: a later stage would refuse its settings; said before any training.
        RunError: no sample stands: none could be made, or the gate or people rejected all. The report is written,
            nothing is exported.
    """
    asked = get_args(Stage)[: get_args(Stage).index(until) + 1]
    data = _trained(run, patience, spread)
    if "generate" in asked:
        _make(run, data, spread, screens="screen" in asked, patience=patience)
    stands = "screen" in asked and bool(run.kept())
    if "screen" in asked and not stands and not painted_pairs(run.path(PAINTED)):
        report(run)
        require_kept(run)
    if stands and "measure" in asked and run.config.measure.enabled:
        measure(run, data)
    if stands and "prove" in asked and run.config.prove.enabled:
        if data.split.shots:
            prove(run, data, spread)
        else:
            run.log(stage="prove", what="left out: a proof compares with shots, and this run learns from none")
    if "export" in asked:
        export(run)
    return run.path("report.html") if is_reported(run) else report(run)


def run_shard(run: Run, shard: Shard, *, until: Stage = "report") -> Path | None:
    """Do one process's part of a run; whoever makes the last batch then does all that comes after, rounds included.

    Whoever comes first trains, and the others wait for that. A shard whose part is made ends, whatever others do.

    Args:
        run: The run, in a folder that all processes see.
        shard: Which part of the batches this process makes.
        until: As of `run_all`.

    Returns:
        The report's path; None = others are still at their parts, or another process does what comes after.

    Raises:
        ConfigError, RunError: as `run_all`.
    """
    data = _trained(run, math.inf)
    if until == "train":
        return None
    try:
        if not generate(run, shard, data):
            return None
        with run.alone("closing"):
            return run_all(run, until=until, patience=math.inf)
    except BusyError as error:
        if error.lock.name in ("closing.lock", "generate.lock"):  # somebody does what is left, all of it
            return None
        raise


def _trained(run: Run, patience: float, spread: Spread | None = None) -> Dataset:
    """Open the photographs and train; refuse first what a later stage would refuse."""
    with working("check"):
        data = open_dataset(run)
        counts(run.config, data.split)
        # Before training every picture has just been decoded; a run that only goes on need not do that.
        if refused := preflight(run.config, data.split, near_duplicates=not run.stage_hash("train")):
            raise ConfigError("\n".join(refused))
    train(run, data, patience=patience, spread=spread)
    return data


def prove(run: Run, data: Dataset | None = None, spread: Spread | None = None) -> Path:
    """Train detectors with and without the samples, and compare them; return the path of proof.json.

    See `evaluation.prove`. The samples of other generators (`prove.against`) are made first, from the same plan.
    """
    return prove_with(run, partial(_synthesize, spread=spread), data, spread)


def _synthesize(run: Run, data: Dataset, spread: Spread | None) -> None:
    with work_for(f"{run.config.generator.label}, for the proof"):
        train(run, data, spread=spread)
        generate(run, data=data, spread=spread)


def _make(run: Run, data: Dataset, spread: Spread | None, *, screens: bool, patience: float) -> None:
    """Generate, and screen where that is asked for, until there is enough or no round is left."""
    generate(run, data=data, patience=patience, spread=spread)
    if screens and not run.config.screen.enabled:
        run.forget("screen")  # what `flawsmith screen` judged in between would hide samples that are asked for
    elif screens:
        while screened(run, data, spread):
            generate(run, data=data, patience=patience, spread=spread)
