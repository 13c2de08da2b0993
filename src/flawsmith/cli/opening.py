"""What verbs work on: a configuration file, or a run folder, with what `--set` changes; heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flawsmith.cli.choice import settled
from flawsmith.cli.closing import say

if TYPE_CHECKING:
    from flawsmith.config import Config
    from flawsmith.run.folder import Run


def config_of(path: Path, settings: list[str]) -> Config:
    """Return the configuration of a file, with the settings of the command line on top."""
    from flawsmith.config import load_config, parse_overrides

    return load_config(path, parse_overrides(settings))


def config_of_run(folder: Path, settings: list[str]) -> Config:
    """Return the configuration of a run, with the settings of the command line on top."""
    from flawsmith.config import overridden, parse_overrides
    from flawsmith.run.folder import Run

    return overridden(Run.open(folder).config, parse_overrides(settings))


def opened_for(verb: str, folder: Path, settings: list[str]) -> Run:
    """Open a run for a verb that changes nothing of it but where its photographs are."""
    from flawsmith.run.opening import open_run

    return open_run(folder, settings, verb=verb)


def started(verb: str, out: Path, asked: Config, settings: list[str]) -> Run:
    """Start a run or go on with one; on stderr it says which settings differ from those that the run was made with.

    Args:
        verb: The command that was called.
        out: The run folder.
        asked: What the run is told.
        settings: Those of the command line, which the user knows of.
    """
    from flawsmith.config import parse_overrides
    from flawsmith.data.layouts.tree import require_root
    from flawsmith.run.folder import Run
    from flawsmith.run.manifest import refuse_other_formats
    from flawsmith.run.opening import made_otherwise

    refuse_other_formats(out)
    require_root(asked.data.root)  # before the run keeps it
    config = settled(asked, out)
    changed = made_otherwise(out, config, parse_overrides(settings))
    run = Run.create(out, config)
    if changed:
        say(verb, changed, error=True)
    return run
