"""The run folder: config, manifest, plan, sample lines, resume.

    RUN/ config.json  manifest.json  data.json  weights/  state/  plan.jsonl  samples/  samples*.jsonl
         export/  report.html  report.md  log.jsonl

Every file is written whole or not at all (`files.py`) and JSON lines are append-only, so a run that is killed at any
moment goes on from where its last whole step ended.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flawsmith.config import Config, validate
from flawsmith.errors import RunError
from flawsmith.files import append_lines, read_json, read_lines, write_json


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder and the configuration it was started with."""

    folder: Path
    config: Config

    @classmethod
    def create(cls, folder: str | Path, config: Config) -> Run:
        """Start a run, or open it again with the same configuration.

        A second `create` with another configuration is allowed: stages whose part of it changed are done again, as
        their input hash says.

        Raises:
            RunError: the folder exists and is something else than a run, or cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder}: a file stands there; name another folder with --out")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").exists():
            leftovers = [p for p in folder.iterdir() if not p.name.endswith(".part")]
            if leftovers:
                raise RunError(f"{folder}: not empty and not a flawsmith run; name another folder with --out")
        write_json(folder / "config.json", config.model_dump(mode="json"))
        if not (folder / "manifest.json").exists():
            write_json(folder / "manifest.json", {**machine(), "started": _now(), "stages": {}})
        return cls(folder, config)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open a run that exists.

        Raises:
            RunError: there is no run there.
        """
        folder = Path(folder)
        if not (folder / "config.json").exists():
            raise RunError(f"{folder}: not a flawsmith run (config.json is missing); start one with `flawsmith run CONFIG --out {folder}`")
        return cls(folder, validate(Config, read_json(folder / "config.json"), where=str(folder / "config.json")))

    def path(self, *names: str) -> Path:
        """Return a path inside the run."""
        return self.folder.joinpath(*names)

    def stage_hash(self, stage: str) -> str | None:
        """Return the input hash with which a stage was last finished."""
        stages = read_json(self.path("manifest.json")).get("stages", {})
        return stages.get(stage, {}).get("hash")

    def finish(self, stage: str, hash_: str, **facts: Any) -> None:
        """Record that a stage is done, with its input hash and what is worth knowing."""
        manifest = read_json(self.path("manifest.json"))
        manifest.setdefault("stages", {})[stage] = {"hash": hash_, "finished": _now(), **facts}
        write_json(self.path("manifest.json"), manifest)

    def log(self, **facts: Any) -> None:
        """Append one line to log.jsonl (times and rates live here, never among the results)."""
        append_lines(self.path("log.jsonl"), [{"at": _now(), **facts}])

    def samples(self) -> list[dict[str, Any]]:
        """Return the lines of all shards' sample files, by index."""
        rows: dict[int, dict[str, Any]] = {}
        for path in sorted(self.folder.glob("samples*.jsonl")):
            rows.update({row["index"]: row for row in read_lines(path)})
        return [rows[index] for index in sorted(rows)]


def machine() -> dict[str, Any]:
    """Return what made a run: versions and hardware."""
    packages = {}
    for name in ("flawsmith", "torch", "diffusers", "transformers", "numpy", "opencv-python-headless"):
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


def _now() -> str:
    return datetime.fromtimestamp(time.time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
