"""The run folder: config, manifest, plan, sample lines, resume.

    RUN/ config.json  manifest.json  data.json  weights/  state/  plan.jsonl  samples/  samples*.jsonl
         controls/  controls*.jsonl  rounds.json  scores.jsonl  gate/  repaired/  review.jsonl  reviewed/  painted/
         tracking/  metrics.json  proof.json
         export/  report.html  report.md  log.jsonl

Every file is written whole or not at all (`files.py`) and JSON lines are append-only, so a run that is killed at any
moment goes on from where its last whole step ended.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flawsmith import registry
from flawsmith.config import Config, validate
from flawsmith.errors import ConfigError, FlawsmithError, RunError
from flawsmith.files import append_lines, digest, read_json, reading, write_json
from flawsmith.leftovers import remove_leftovers
from flawsmith.locks import locked
from flawsmith.paths import confined
from flawsmith.run.manifest import (
    holds_stages,
    is_run,
    json_or_none,
    new_manifest,
    now,
    refuse_other_formats,
    refuse_while_busy,
)
from flawsmith.run.records import PlanLine, Role, Sample, Verdict, each_record, read_records
from flawsmith.run.review import reviewed, standing, with_reviews

FOLDER: dict[Role, str] = {"sample": "samples", "control": "controls"}
"""Role -> folder of its pictures, and name of the files that hold its lines."""
_ENTERING = 5.0
"""Seconds that a shard waits while others take their locks."""
_SUFFIXES = (".png", ".tif", ".mask.png")
"""How a picture and its mask end."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder and the configuration it was started with."""

    folder: Path
    config: Config

    @classmethod
    def create(cls, folder: str | Path, config: Config) -> Run:
        """Start a run, or open it again with the same configuration.

        A second `create` with another configuration is allowed: stages whose part of it changed are done again, as
        their input hash says. A relative `data.root` is kept as an absolute one, so the run knows its photographs from
        any working directory.

        Raises:
            RunError: the folder is no run of this release, is of other photographs, at work, or cannot be written.
            ConfigError: a plug-in that the configuration names is unknown; said before anything is written.
        """
        folder, config = Path(folder), config.with_absolute_root()
        if unknown := registry.misnamed(config):
            raise ConfigError("\n".join(unknown))
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder}: a file stands there; name another folder with --out")
        if folder.is_dir() and any(folder.iterdir()) and not is_run(folder):
            leftovers = [p for p in folder.iterdir() if not p.name.endswith(".part")]
            if leftovers:
                raise RunError(f"{folder}: not empty and not a flawsmith run; name another folder with --out")
        refuse_other_formats(folder)
        _refuse_other_photographs(folder, config.data.root)
        remove_leftovers(folder)
        tree = config.model_dump(mode="json")
        if json_or_none(folder / "config.json") != tree:
            refuse_while_busy(folder)
            write_json(folder / "config.json", tree)
        run = cls(folder, config)
        if not run.path("manifest.json").exists():
            write_json(run.path("manifest.json"), new_manifest())
        return run

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
        refuse_other_formats(folder)
        try:
            config = validate(Config, read_json(folder / "config.json"), where=str(folder / "config.json"))
        except FlawsmithError as error:
            sentence = str(error).removesuffix("; delete it and run again")
            raise RunError(f"{sentence}; `flawsmith run CONFIG --out {folder}` writes it anew") from None
        remove_leftovers(folder)
        return cls(folder, config)

    def path(self, *names: str) -> Path:
        """Return a path inside the run: every name that is read from a file of the run goes through here.

        Raises:
            RunError: it would lead out of the run, be it through a link; or the run is no longer there.
        """
        if not self.folder.is_dir():  # to write there would make a second run beside the one that was moved
            raise RunError(f"{self.folder}: this run was moved or deleted; run the command again where it is now")
        return confined(self.folder, *names)

    def stage_hash(self, stage: str) -> str | None:
        """Return what identifies the result of a finished stage; None = it is not finished."""
        record = self.record(stage)
        return record.get("hash") if "finished" in record else None

    def record(self, stage: str) -> dict[str, Any]:
        """Return what manifest.json says of a stage: hash, inputs, facts, and `finished` when it is; {} = not begun."""
        return dict(self._manifest()["stages"].get(stage) or {})

    def is_current(self, stage: str) -> bool:
        """Return whether a stage is finished, with the samples that stand now: people may have decided anew since."""
        record = self.record(stage)
        content = (record.get("inputs") or {}).get("content") or {}
        return "finished" in record and content.get("samples") == self.samples_hash()

    def begin(self, stage: str, stamp: str, inputs: Mapping[str, Any]) -> None:
        """Record that a stage is being done, so that it keeps its stamp when it goes on after a kill."""
        with self._changed_stages() as stages:
            stages[stage] = {"hash": stamp, "inputs": inputs}

    def finish(self, stage: str, stamp: str, inputs: Mapping[str, Any], **facts: Any) -> None:
        """Record that a stage is done, with what it depended on and what is worth knowing."""
        with self._changed_stages() as stages:
            stages[stage] = {"hash": stamp, "inputs": inputs, "finished": now(), **facts}

    def forget(self, *stages: str, why: str = "") -> None:
        """Take back what is recorded of stages: what they read is about to change."""
        with self._changed_stages() as recorded:
            dropped = {stage: record for stage in stages if (record := recorded.pop(stage, None))}
        if again := [stage for stage, record in dropped.items() if "finished" in record]:
            self.log(stage=", ".join(again), what=f"to be done again{f': {why}' if why else ''}")

    @contextmanager
    def alone(self, stage: str, shard: str = "", *, patience: float = 0.0) -> Iterator[None]:
        """Keep other processes from a stage while the block runs.

        Args:
            stage: Its name; other stages may be done at the same time.
            shard: Name of the part that this process does: others may do other parts. "" = all of it.
            patience: How many seconds to wait for another process.

        Raises:
            BusyError: another process is at it.
        """
        busy = f"{self.folder}: another process is at {{}} of this run; let it end or stop it, then run this again"
        whole, parts = self.path("state", f"{stage}.lock"), re.compile(rf"{stage}\.\d+-of-\d+\.lock")
        with ExitStack() as held:
            # Whoever does all of it keeps the first lock; shards keep their own, and take the first to get at that.
            wait = max(patience, _ENTERING) if shard else patience
            with ExitStack() as first:
                first.enter_context(locked(whole, busy.format(stage), patience=wait))
                if shard:
                    part = self.path("state", f"{stage}.{shard}.lock")
                    held.enter_context(locked(part, busy.format(f"{stage}, shard {shard}"), patience=patience))
                else:
                    for part in sorted(path for path in whole.parent.glob("*.lock") if parts.fullmatch(path.name)):
                        with locked(part, busy.format(stage), patience=patience):
                            pass
                    held.push(first.pop_all())
            yield

    @contextmanager
    def _changed_stages(self) -> Iterator[dict[str, Any]]:
        """Give what the manifest says of the stages, to be changed; nobody else changes it meanwhile."""
        with locked(self.path("state", "manifest.lock")):
            manifest = self._manifest()
            before = dict(manifest["stages"])
            yield manifest["stages"]
            if manifest["stages"] != before:
                write_json(self.path("manifest.json"), manifest)

    def _manifest(self) -> dict[str, Any]:
        path = self.path("manifest.json")
        if not path.exists():
            return new_manifest()
        manifest = read_json(path)
        if not holds_stages(manifest):
            raise RunError(f"{path}: not the manifest of a run; delete it and run again, what is made is used again")
        return manifest

    def log(self, **facts: Any) -> None:
        """Append one line to log.jsonl (times and rates live here, never among the results)."""
        with locked(self.path("state", "log.lock")):  # a torn line is cut off by who looks at it while nobody writes
            append_lines(self.path("log.jsonl"), [{"at": now(), **facts}])

    def data_hash(self) -> str | None:
        """Return what identifies the photographs and how they are divided; None = no stage has looked at them yet."""
        path = self.path("data.json")
        stamp = read_json(path).get("hash") if path.exists() else None
        return None if stamp is None else str(stamp)

    def plan(self) -> list[PlanLine]:
        """Return the plan's lines in their order; [] = nothing is planned yet."""
        return read_records(self.path("plan.jsonl"), PlanLine)

    def planned(self) -> Counter[tuple[str, str]]:
        """Return how many lines the plan has of each (product, defect type); one line at a time is in memory."""
        return Counter((line.product, line.defect) for line in each_record(self.path("plan.jsonl"), PlanLine))

    def asked(self) -> dict[tuple[str, str], int]:
        """Return how many samples of each (product, defect type) were asked for when the run was planned."""
        path = self.path("state", "generate.json")
        rows = read_json(path).get("asked", []) if path.exists() else []
        with reading(path):
            return {(str(product), str(defect)): int(number) for product, defect, number in rows}

    def samples(self) -> list[Sample]:
        """Return what became of every sample tried so far, by index, of all shards."""
        return self._rows("sample")

    def controls(self) -> list[Sample]:
        """Return what became of every negative control, by index, of all shards."""
        return self._rows("control")

    def kept(self, *, partly: bool = False) -> list[Sample]:
        """Return the samples that stand: those made, without those that the gate rejected, and as people said.

        Every stage that uses samples asks here. Of a label that the gate repaired, the repaired files are named.

        Args:
            partly: True: of a run that is not screened yet, whatever is made (for a report in between).

        Raises:
            RunError: the configuration asks for screening, and these samples are not screened yet.
        """
        made = [sample for sample in self.samples() if sample.made]
        verdicts = self.verdicts()
        if verdicts is None:
            if self.config.screen.enabled and not partly:
                raise RunError(
                    f"{self.folder}: its samples are not screened yet; run `flawsmith generate {self.folder}`, then "
                    f"`flawsmith screen {self.folder}`, or set screen.enabled = false"
                )
            return reviewed(self.folder, made, made)
        return reviewed(self.folder, made, standing(made, verdicts), verdicts)

    def rejected(self) -> list[tuple[Sample, Verdict]]:
        """Return the samples that the gate rejected and nobody took back, as far as their pictures are still there."""
        kept = {sample.index for sample in self.kept(partly=True)}
        verdicts = {index: one for index, one in (self.verdicts() or {}).items() if index not in kept}
        judged = [(sample, verdicts[sample.index]) for sample in self.samples() if sample.index in verdicts]
        return [(s, verdict) for s, verdict in judged if s.made and not verdict.kept and self.path(s.image).is_file()]

    def verdicts(self) -> dict[int, Verdict] | None:
        """Return the gate's verdicts by the samples' index, or None when today's samples are not screened."""
        if not self.stage_hash("screen"):
            return None
        path = self.path("scores.jsonl")
        verdicts = read_records(path, Verdict)
        if wrong := [one.name for one in verdicts if not re.fullmatch("[0-9]{1,9}", one.name)]:
            raise RunError(f"{path}: {wrong[0][:40]!r} is not the number of a sample; delete the file and screen again")
        return {int(one.name): one for one in verdicts}

    def samples_hash(self) -> str | None:
        """Return what identifies the samples that `kept` returns; None = none were generated."""
        made, screened = self.stage_hash("generate"), self.stage_hash("screen")
        stamp = digest(made, screened) if made and screened else made
        return with_reviews(self.folder, lambda: [sample for sample in self.samples() if sample.made], stamp)

    def line_files(self, role: Role) -> list[Path]:
        """Return the files that hold lines of samples or controls, those of shards too; others' files do not count."""
        name = re.compile(rf"{FOLDER[role]}(\.\d+-of-\d+)?\.jsonl")
        return [self.path(path.name) for path in sorted(self.folder.iterdir()) if name.fullmatch(path.name)]

    def remove_pictures(self, role: Role, indices: Iterable[int]) -> None:
        """Delete pictures and masks of samples or controls, under the names that the run gives; what lines say of
        their files is not followed."""
        for index in indices:
            for suffix in _SUFFIXES:
                self.path(FOLDER[role], f"{index:06d}{suffix}").unlink(missing_ok=True)

    def remove_all_pictures(self, role: Role) -> None:
        """Delete all pictures and masks of samples or controls; files that are not the run's stay."""
        self.remove_made(FOLDER[role], re.compile(r"\d{6,}(\.mask\.png|\.png|\.tif)"))

    def remove_made(self, folder: str, name: re.Pattern[str]) -> None:
        """Delete what the run made in one of its folders, by the pattern of the names; then the folder, if empty."""
        path = self.path(folder)
        if not path.is_dir():
            return
        for file in path.iterdir():
            if name.fullmatch(file.name):
                file.unlink()
        with suppress(OSError):  # something else lies there
            path.rmdir()

    def _rows(self, role: Role) -> list[Sample]:
        rows: dict[int, Sample] = {}
        for path in self.line_files(role):
            rows.update({row.index: row for row in read_records(path, Sample)})
        return [rows[index] for index in sorted(rows)]


def _refuse_other_photographs(folder: Path, root: Path) -> None:
    """Refuse a run of other photographs before its files are written over.

    Photographs that were changed, added to or moved are the same set: one that is recorded is still below the root,
    with the size that it had.

    Args:
        folder: The run.
        root: Where the photographs are now, an absolute folder; one that is not there is for the scan to name.

    Raises:
        RunError: none of the run's photographs is there.
    """
    recorded = json_or_none(folder / "data.json") or {}
    before = recorded.get("root")
    if not isinstance(before, str) or Path(before) == root or not root.is_dir():
        return
    rows = [row for group in recorded.values() if isinstance(group, list) for row in group if isinstance(row, dict)]
    photographs = [row for row in rows if isinstance(row.get("image"), str)]
    if photographs and not any(_still_below(root, Path(before), row) for row in photographs):
        raise RunError(
            f"{folder}: is a run of the photographs of {before}, and none of them is in {root}; give these another "
            "run folder with --out"
        )


def _still_below(root: Path, before: Path, row: Mapping[str, Any]) -> bool:
    """Return whether a photograph of data.json lies below a root too: at the place that it had below the root before,
    or where it lay, which may be a folder above or below that."""
    image = Path(row["image"])
    if not image.is_relative_to(before):
        return True  # named by its whole path, so it does not move with the root
    if image.is_relative_to(root) and image.is_file():
        return True
    now_at, states = root / image.relative_to(before), row.get("files")
    size = states[0][0] if isinstance(states, list) and states and states[0] else None
    return now_at.is_file() and size in (None, now_at.stat().st_size)
