"""The run folder: config, manifest, plan, sample lines, resume.

    RUN/ config.json  manifest.json  data.json  weights/  state/  plan.jsonl  samples/  samples*.jsonl
         controls/  controls*.jsonl  rounds.json  scores.jsonl  gate/  repaired/  metrics.json  proof.json
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

from flawsmith import registry
from flawsmith.config import Config, validate
from flawsmith.errors import ConfigError, FlawsmithError, RunError
from flawsmith.files import append_lines, digest, read_json, read_lines, remove_leftovers, write_json


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
            ConfigError: a plug-in that the configuration names is unknown; said before anything is written.
        """
        folder = Path(folder)
        if unknown := registry.misnamed(config):
            raise ConfigError("\n".join(unknown))
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder}: a file stands there; name another folder with --out")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.json").exists():
            leftovers = [p for p in folder.iterdir() if not p.name.endswith(".part")]
            if leftovers:
                raise RunError(f"{folder}: not empty and not a flawsmith run; name another folder with --out")
        remove_leftovers(folder)
        tree = config.model_dump(mode="json")
        if _json_or_none(folder / "config.json") != tree:
            write_json(folder / "config.json", tree)
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
            raise RunError(
                f"{folder}: not a flawsmith run (config.json is missing); "
                f"start one with `flawsmith run CONFIG --out {folder}`"
            )
        try:
            config = validate(Config, read_json(folder / "config.json"), where=str(folder / "config.json"))
        except FlawsmithError as error:
            sentence = str(error).removesuffix("; delete it and run again")
            raise RunError(f"{sentence}; `flawsmith run CONFIG --out {folder}` writes it anew") from None
        remove_leftovers(folder)
        return cls(folder, config)

    def path(self, *names: str) -> Path:
        """Return a path inside the run."""
        return self.folder.joinpath(*names)

    def stage_hash(self, stage: str) -> str | None:
        """Return the input hash with which a stage was last finished."""
        return self.stage(stage).get("hash")

    def stage(self, stage: str) -> dict[str, Any]:
        """Return what `finish` recorded of a stage; {} = it was not finished yet."""
        return dict(self._manifest()["stages"].get(stage) or {})

    def finish(self, stage: str, hash_: str, **facts: Any) -> None:
        """Record that a stage is done, with its input hash and what is worth knowing."""
        manifest = self._manifest()
        manifest["stages"][stage] = {"hash": hash_, "finished": _now(), **facts}
        write_json(self.path("manifest.json"), manifest)

    def forget(self, *stages: str) -> None:
        """Take back what `finish` recorded: what these stages read is about to change."""
        manifest = self._manifest()
        if found := [stage for stage in stages if manifest["stages"].pop(stage, None)]:
            write_json(self.path("manifest.json"), manifest)
            self.log(stage=", ".join(found), what="to be done again")

    def _manifest(self) -> dict[str, Any]:
        path = self.path("manifest.json")
        if not path.exists():
            return {**machine(), "started": _now(), "stages": {}}
        manifest = read_json(path)
        if not isinstance(manifest, dict) or not isinstance(manifest.get("stages"), dict):
            raise RunError(
                f"{path}: not a manifest of a run; delete it and run again, stages that are done are found so"
            )
        return manifest

    def log(self, **facts: Any) -> None:
        """Append one line to log.jsonl (times and rates live here, never among the results)."""
        append_lines(self.path("log.jsonl"), [{"at": _now(), **facts}])

    def samples(self) -> list[dict[str, Any]]:
        """Return the lines of all shards' sample files, by index: the pairs."""
        return self._rows("samples*.jsonl")

    def controls(self) -> list[dict[str, Any]]:
        """Return the lines of all shards' control files, by index: normal parts repainted as normal."""
        return self._rows("controls*.jsonl")

    def kept(self, *, partly: bool = False) -> list[dict[str, Any]]:
        """Return the lines of the pairs that stand: those made, without those that the gate rejected, by index.

        Every stage that uses pairs asks here. A label that the gate repaired is named in place of the one before.

        Args:
            partly: True: of a run that is not screened yet, whatever is made (for a report in between).

        Raises:
            RunError: the configuration asks for screening, and these pairs are not screened yet.
        """
        made = [row for row in self.samples() if row["status"] == "made"]
        verdicts = self.verdicts()
        if verdicts is None:
            if self.config.screen.enabled and not partly:
                raise RunError(
                    f"{self.folder}: its pairs are not screened yet; run `flawsmith generate {self.folder}`, then "
                    f"`flawsmith screen {self.folder}`, or set screen.enabled = false"
                )
            return made
        found = []
        for row in made:
            verdict = verdicts.get(row["index"])
            if verdict is not None and verdict["kept"]:
                found.append(row | verdict.get("repaired", {}))
        return found

    def rejected(self) -> list[dict[str, Any]]:
        """Return the lines of made pairs that the gate rejected and that are still there, by index; [] = unscreened."""
        verdicts = self.verdicts() or {}
        found = []
        for row in self.samples():
            verdict = verdicts.get(row["index"])
            if row["status"] == "made" and verdict and not verdict["kept"] and self.path(row["image"]).is_file():
                found.append(row | {"reasons": verdict["reasons"]})
        return found

    def verdicts(self) -> dict[int, dict[str, Any]] | None:
        """Return the lines of scores.jsonl by index, or None when the pairs that the run has now are not screened."""
        if not self.stage_hash("screen"):
            return None
        return {int(row["name"]): row for row in read_lines(self.path("scores.jsonl"))}

    def pairs_hash(self) -> str | None:
        """Return what identifies the pairs that `kept` returns; None = none were generated."""
        made, screened = self.stage_hash("generate"), self.stage_hash("screen")
        return digest(made, screened) if made and screened else made

    def _rows(self, pattern: str) -> list[dict[str, Any]]:
        rows: dict[int, dict[str, Any]] = {}
        for path in sorted(self.folder.glob(pattern)):
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


def _json_or_none(path: Path) -> Any:
    try:
        return read_json(path)
    except RunError:
        return None


def _now() -> str:
    return datetime.fromtimestamp(time.time(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
