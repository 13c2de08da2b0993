"""Opening a run with settings changed on the command line: where its photographs are now, and what a verb takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from flawsmith import registry
from flawsmith.config import Config, affecting, differing, overridden, parse_overrides, validate
from flawsmith.errors import Answer, ConfigError, FlawsmithError, first_few
from flawsmith.paths import looked_in
from flawsmith.run.folder import Run
from flawsmith.run.manifest import is_run, json_or_none

ROOT = "data.root"
_BEFORE_STAGES = frozenset(("config.json", "manifest.json", "data.json"))
"""Files of a run in which no stage has begun; in state/ it has locks alone."""


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


@contextmanager
def leaving_nothing(folder: Path) -> Iterator[None]:
    """Take a new run's folder away again when its photographs or settings are refused before any stage begins.

    A run that was there, and whatever a stage has made, stays.
    """
    new = not is_run(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except FlawsmithError:
        if new and _not_begun(folder):
            for name in _BEFORE_STAGES:
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "state", ignore_errors=True)
            with suppress(OSError):  # something else lies there
                for path in missing:
                    path.rmdir()
        raise


def _not_begun(folder: Path) -> bool:
    """Return whether a folder holds nothing but what a run writes before its first stage."""
    if not folder.is_dir() or (json_or_none(folder / "manifest.json") or {}).get("stages"):
        return False
    state = folder / "state"
    names = {path.name for path in folder.iterdir()} - _BEFORE_STAGES - {"state"}
    return not names and not (state.is_dir() and any(path.suffix != ".lock" for path in state.iterdir()))


def made_otherwise(folder: Path, config: Config, named: Collection[str]) -> str:
    """Return a sentence on settings with which a run was made and that a configuration has otherwise; "" = none.

    Args:
        folder: The run; one that is not there, or cannot be read, differs in nothing.
        config: What the run is called with now.
        named: Settings that the user named for this call, and so knows of.
    """
    try:
        before = affecting(validate(Config, json_or_none(folder / "config.json") or {}))
    except FlawsmithError:
        return ""
    if not is_run(folder):
        return ""
    known, now = {ROOT, *named}, affecting(config)
    changed = [
        name
        for name in differing(before, now, affecting(Config()))
        if name not in known and not any(key.startswith(f"{name}.") for key in known)
    ]
    if not changed:
        return ""
    told = [f"{Answer(name, before[name])} (now {json.dumps(now[name], ensure_ascii=False)})" for name in changed]
    return (
        f"{folder} was made with {first_few(told)}; what these settings change is made anew. To keep the former ones, "
        "give them again with --set"
    )
