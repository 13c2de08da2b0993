"""What a verb says last, for people and for scripts: what was made, and what to open."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from flawsmith.files import read_json
from flawsmith.korean import spoken
from flawsmith.types import Stage

if TYPE_CHECKING:
    from flawsmith.run.folder import Run


_WITHOUT_SHOTS = (
    "samples and normal parts without the real shots, and the proof trained on the shots too: add them with "
    "--set export.real=shots"
)
"""What an export lacks of what was proven."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of a verb."""

    verb: str
    sentence: str
    """What was made."""
    facts: Mapping[str, Any]
    """The same for scripts, JSON values."""
    files: tuple[Path, ...] = ()
    """What to open, the first one first."""
    following: Sequence[str] = ()
    """The command to run next, word by word."""

    def say(self, as_json: bool) -> None:
        """Print it on stdout: sentences, or one JSON object on one line."""
        if as_json:
            files = [path.as_posix() for path in self.files]
            say_json({"verb": self.verb, **self.facts, "files": files, "next": list(self.following)})
            return
        say(self.verb, self.sentence)
        for path in self.files:
            typer.echo(f"{spoken('open')}: {path}")
        if self.following:
            typer.echo(f"{spoken('next')}: {shlex.join(self.following)}")


def say(verb: str, sentence: str, *, error: bool = False) -> None:
    """Print what a verb has to say, in the language that is asked for, on stdout or stderr."""
    typer.echo(f"{verb}: {spoken(sentence)}", err=error)


def say_json(tree: Mapping[str, Any]) -> None:
    """Print one JSON object on one line of stdout."""
    typer.echo(json.dumps(tree, ensure_ascii=False))


def closing_of(verb: str, run: Run) -> Closing:
    """Return what a stage of a run ends with, as its record says.

    Args:
        verb: One of train, generate, measure, prove, export.
        run: The run, after the stage.
    """
    record = run.record(verb)
    command = ["flawsmith", _following(verb, run), str(run.folder)]
    facts: dict[str, Any] = {"run": run.folder.as_posix(), "finished": "finished" in record}
    if verb == "train":
        facts |= {"generator": record.get("generator"), "weights": record.get("weights", [])}
        sentence = f"{facts['generator']} is ready, {_counted(len(facts['weights']), 'file')} in {run.path('weights')}"
        return Closing(verb, sentence, facts, (), command)
    if verb == "generate":
        if not facts["finished"]:
            return Closing(verb, "this shard is done; other shards still work, or were not started", facts)
        facts |= {name: record[name] for name in ("samples", "given_up", "controls") if name in record}
        sentence = f"{_counted(facts['samples'], 'sample')} and {_counted(facts['controls'], 'negative control')}"
        sentence += f"; {facts['given_up']} given up (the report says why)" if facts["given_up"] else ""
        return Closing(verb, sentence, facts, (run.path("samples"),), command)
    if verb == "measure":
        return Closing(verb, "distances of samples to real pictures", facts, (run.path("metrics.json"),), command)
    if verb == "prove":
        from flawsmith.reporting.verdict import verdict_of

        facts["verdict"] = verdict_of(run)
        sentence = _with_comparison(facts["verdict"], run) or "there is no arm with samples, so there is no verdict"
        return Closing(verb, sentence, facts, (run.path("proof.json"),), command)
    facts["counts"] = record.get("counts", {})
    parts = [f"{name} ({sum(counts.values())} pictures)" for name, counts in facts["counts"].items()]
    files = tuple(run.path("export", name) for name in facts["counts"])
    sentence = ", ".join(parts) or "no format is asked for (export.formats)"
    if parts and run.config.export.real == "none" and run.config.prove.enabled and _learns_from_shots(run):
        sentence += f"; {_WITHOUT_SHOTS}"
    return Closing(verb, "\n".join([sentence, *_about_exports(run)]), facts, files, command)


def closing_of_screening(run: Run, more: int) -> Closing:
    """Return what `flawsmith screen` ends with; `more` samples are asked for in place of rejected ones."""
    from flawsmith.screening.screen import sentence

    verdicts = list((run.verdicts() or {}).values())
    facts = {"run": run.folder.as_posix(), "judged": len(verdicts), "kept": sum(one.kept for one in verdicts)}
    command = ["flawsmith", "generate" if more else _following("screen", run), str(run.folder)]
    found = sentence(run, more).removeprefix("screen: ")
    return Closing("screen", found, facts | {"asked_for": more}, (run.path("scores.jsonl"),), command)


def _following(verb: str, run: Run) -> str:
    """Return the stage after one, as the run's settings ask for it."""
    stages = get_args(Stage)
    for stage in stages[stages.index(verb) + 1 :]:
        if getattr(getattr(run.config, stage), "enabled", True):
            return str(stage)
    return "report"


def closing_of_run(verb: str, report: Path, shown: Mapping[str, Any] | None = None) -> Closing:
    """Return what `flawsmith run` and `demo` end with: the verdict, the report, and what was exported."""
    from flawsmith.reporting.verdict import verdict_of
    from flawsmith.run.folder import Run

    run = Run.open(report.parent)
    verdict, counts = verdict_of(run), run.record("export").get("counts", {})
    facts = {"run": run.folder.as_posix(), "verdict": verdict, "counts": counts, **(shown or {})}
    files = (report, *(run.path("export", name) for name in counts))
    sentence, command = (_with_comparison(verdict, run), _after_verdict(run)) if verdict else _not_proven(run)
    return Closing(verb, "\n".join([sentence, *_about_exports(run)]), facts, files, command)


def _with_comparison(verdict: str, run: Run) -> str:
    """Return a verdict, and in a line of its own that nothing but the shots was compared with; "" = no verdict."""
    alone = run.config.why_no_rival
    return f"{verdict}\n{alone}" if verdict and alone else verdict


def _after_verdict(run: Run) -> Sequence[str]:
    """Return the command after a verdict: for a proof that can be trusted, then for the export that was proven."""
    from flawsmith.evaluation.statistics import ENOUGH_SEEDS

    command = ["flawsmith", "run", str(run.folder), "--set"]
    if run.config.prove.seeds < ENOUGH_SEEDS:
        return [*command, f"prove.seeds={ENOUGH_SEEDS}"]
    return [*command, "export.real=shots"] if run.config.export.real == "none" and run.config.export.formats else ()


def _not_proven(run: Run) -> tuple[str, Sequence[str]]:
    """Return what a run without a verdict ends with: why there is none; and the command that gets one, word by word."""
    from flawsmith.reporting.verdict import NO_SHOTS

    folder, samples, command = str(run.folder), run.path("samples"), ["flawsmith", "run", str(run.folder)]
    if not _learns_from_shots(run):
        if tests := len(_recorded(run).get("test_defects") or ()):
            found = "1 defect photograph is" if tests == 1 else f"{tests} defect photographs are"
            reason = f"{found} there, and data.shots = 0 learns from none"
            return f"the samples in {samples} are not proven: {reason}", [*command, "--set", "data.shots=10"]
        root = run.config.data.root
        normal = [part for name in run.config.data.normal for part in ("--normal", name)]
        anew = f"{shlex.join(['flawsmith', 'new', '--from', str(root), *normal])} > my.toml"
        # In a folder of its own, and of the same generators: what was made stays, and its like is proven.
        again = ["flawsmith", "run", "my.toml", "--out", f"{folder}-proof"]
        again += ["--set", f"generator.name={run.config.generator.name}"] if run.config.generator.name else []
        return (
            f"the samples in {samples} are not proven: {NO_SHOTS}; look at the samples. For a proof, put photographs "
            f"of each defect type with their masks, 4 or better 20, beside the normal parts in {root}, then: {anew} && "
            f"{shlex.join(again)}"
        ), ()
    if not run.config.prove.enabled:
        return (
            f"the samples in {samples} are not proven, for prove.enabled = false keeps the proof out",
            [*command, "--set", "prove.enabled=true"],
        )
    return f"the samples in {samples} are not proven yet", command


def _about_exports(run: Run) -> list[str]:
    """Return what a user would not expect of a run's exports, a sentence each."""
    from flawsmith.exports.export import outdated

    lines = []
    if run.config.export.real == "shots" and run.config.export.formats and not _learns_from_shots(run):
        lines.append('export.real = "shots" adds nothing, for this run learns from no shots')
    if old := outdated(run):
        folders = ", ".join(str(run.path("export", name)) for name in old)
        formats = json.dumps([*dict.fromkeys([*run.config.export.formats, *old])])
        anew = shlex.join(["flawsmith", "export", str(run.folder), "--set", f"export.formats={formats}"])
        lines.append(f"older than the samples now are: {folders}; `{anew}` writes all formats anew")
    return lines


def _learns_from_shots(run: Run) -> bool:
    """Return whether a run has real shots, as far as it has looked at its photographs."""
    return _recorded(run).get("shots") != []


def _recorded(run: Run) -> Mapping[str, Any]:
    """Return what a run wrote down of its photographs; {} = it has not looked at them yet."""
    path = run.path("data.json")
    return read_json(path) if path.is_file() else {}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
