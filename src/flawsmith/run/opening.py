"""Opening a run with settings changed on the command line: where its photographs are now, and what a verb takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from flawsmith import registry
from flawsmith.config import Config, overridden, parse_overrides
from flawsmith.errors import ConfigError
from flawsmith.paths import looked_in
from flawsmith.run.folder import Run

ROOT = "data.root"


def open_run(
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    section: str = "",
    verb: str = "",
    require: Callable[[Config], object] | None = None,
) -> Run:
    """Open a run, and change settings of it that it keeps: `data.root`, when the photographs were moved, and a section.

    Args:
        folder: The run.
        overrides: As after `--set`: ["data.root=/mnt/new"]; a relative folder is taken from the working directory.
        section: Whose settings may be changed too: "export"; "" = none.
        verb: The command that was called, for the error.
        require: Raises for a configuration that cannot work; called before the run keeps it.

    Raises:
        RunError: there is no run.
        ConfigError: another setting, which would change what was made; a wrong key, value or plug-in; or `data.root` is
            no folder.
    """
    run = Run.open(folder)
    settings = parse_overrides(list(overrides))
    if not settings:
        return run
    taken = f"{ROOT} and {section}.*" if section else ROOT
    for key in settings:
        if key != ROOT and not (section and key.startswith(f"{section}.")):
            raise ConfigError(
                f"--set {key}: `flawsmith {verb}` takes {taken} alone; `flawsmith run CONFIG --out {folder}` takes the "
                "others"
            )
    config = overridden(run.config, settings)
    if ROOT in settings and not config.data.root.is_dir():
        raise ConfigError(f"--set {ROOT}={config.data.root}: there is no such folder{looked_in(config.data.root)}")
    if unknown := registry.misnamed(config):
        raise ConfigError("\n".join(unknown))
    if require is not None:
        require(config)
    return Run.create(folder, config)
