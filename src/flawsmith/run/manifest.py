"""manifest.json of a run: its format, what made it, and what is recorded of its stages."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

from flawsmith.errors import RunError
from flawsmith.files import read_json
from flawsmith.locks import locked
from flawsmith.types import Stage
from flawsmith.version import VERSION

FORMAT = 2
"""Of the files in a run folder; release 0.1 wrote none, which is 1."""


def new_manifest() -> dict[str, Any]:
    """Return the manifest of a run that begins now."""
    return {"format": FORMAT, **machine(), "started": now(), "stages": {}}


def holds_stages(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest has a table of stages, and of each what `begin` writes."""
    stages = manifest.get("stages")
    if not isinstance(stages, dict) or not all(isinstance(record, dict) for record in stages.values()):
        return False
    for record in stages.values():
        inputs = record.get("inputs") or {}
        if not isinstance(record.get("hash", ""), str) or not isinstance(inputs, dict):
            return False
        if not all(isinstance(inputs.get(part) or {}, dict) for part in ("settings", "content")):
            return False
    return True


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run, be it that its configuration or its manifest was deleted."""
    manifest = json_or_none(folder / "manifest.json") or {}
    return (folder / "config.json").exists() or {"format", "stages"} <= manifest.keys()


def refuse_other_formats(folder: Path) -> None:
    """Refuse a run whose lines have other names: to go on with it would make all of it anew.

    Raises:
        RunError: says what to do.
    """
    manifest = json_or_none(folder / "manifest.json")
    if manifest and "stages" in manifest and manifest.get("format") != FORMAT:
        later = isinstance(manifest.get("format"), int) and manifest["format"] > FORMAT
        which, update = ("a later", "update flawsmith, or ") if later else ("an earlier", "")
        raise RunError(
            f"{folder}: is a run of {which} release of flawsmith, whose files this one does not read; its pictures, "
            f"export and report stay as they are: {update}start a new run with --out ANOTHER-FOLDER"
        )


def machine() -> dict[str, Any]:
    """Return what made a run: versions and hardware."""
    packages = {"flawsmith": VERSION}
    for name in ("torch", "diffusers", "transformers", "numpy", "opencv-python-headless"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "absent"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": packages,
    }


def json_or_none(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None = there is none, or it cannot be read."""
    try:
        return read_json(path)
    except RunError:
        return None


def now() -> str:
    """Return the time of day in UTC: "2026-01-31T23:59:59Z"."""
    return datetime.fromtimestamp(time.time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def refuse_while_busy(folder: Path) -> None:
    """Refuse to write other settings into a run that a process works on: that process would end under them.

    Raises:
        BusyError: names the stage.
    """
    for path in sorted((folder / "state").glob("*.lock")):
        stage = path.name.partition(".")[0]
        if stage in get_args(Stage):
            busy = (
                f"{folder}: another process is at {stage} of this run, with other settings; let it end or stop it first"
            )
            with locked(path, busy):
                pass
