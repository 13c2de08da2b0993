"""What is painted from by hand: a run, a folder of photographs, or a configuration file that names one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flawsmith.config import Config, _set, load_config, validate
from flawsmith.errors import ConfigError, DataError
from flawsmith.run.folder import Run

DEFAULT_GENERATOR = "patch_synthesis"
"""What paints where no run and no configuration says so; it must need no training."""
Source = Run | str | Path
"""A run or its folder, a folder of photographs, or a configuration file (TOML) that names one."""


def run_at(path: Path) -> Run | None:
    """Return the run in a folder; None = it is a folder of photographs or a configuration file."""
    if not path.exists():
        raise DataError(f"{path}: there is nothing; name a run folder, a folder of photographs or a TOML file")
    return Run.open(path) if (path / "config.json").is_file() else None


def config_of(source: Run | Path, generator: str, settings: Mapping[str, Any]) -> Config:
    """Return the configuration of a source, with another generator where one is named, and settings on top."""
    if isinstance(source, Run):
        if of_data := [name for name in settings if name.partition(".")[0] == "data"]:
            raise ConfigError(f"{of_data[0]}: a run keeps its photographs; leave it out, or paint from their folder")
        where, tree = str(source.folder), source.config.model_dump(mode="json")
    elif source.is_dir():
        where, tree = "", {"data": {"root": str(source)}}
    else:
        where, tree = str(source), load_config(source).model_dump(mode="json", exclude_unset=True)
    configured = tree.get("generator", {}).get("name", "")
    if isinstance(configured, dict) and not generator:
        names = ", ".join(sorted(set(configured.values())))
        raise ConfigError(f"{source}: paints each defect type with a generator of its own; name one of them: {names}")
    name = generator or configured or DEFAULT_GENERATOR
    if name != configured:
        tree["generator"] = {"name": name}
    for key, value in settings.items():
        _set(tree, key, value)
    return validate(Config, tree, where=where)
