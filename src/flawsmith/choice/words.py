"""A choice on disk and in words: choice.json, choice.md, and chosen.toml, which `flawsmith run` takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flawsmith.choice.estimates import Estimate
from flawsmith.choice.records import Choice, Trial
from flawsmith.config import commented_toml
from flawsmith.evaluation.statistics import TASKS, Task
from flawsmith.files import write_json, write_text
from flawsmith.korean import spoken, with_comments

JSON, WORDS, CONFIG = "choice.json", "choice.md", "chosen.toml"


def write_choice(folder: Path, choice: Choice) -> None:
    """Write the three files; the configuration last, for it says that the others are there."""
    write_json(folder / JSON, choice.tree())
    write_text(folder / WORDS, text_of(choice))
    if any(one.candidate for one in choice.defects):
        note = "what `flawsmith choose` chose; choice.md beside it says why."
        write_text(folder / CONFIG, with_comments(commented_toml(choice.config, note=note), spoken))
    else:
        (folder / CONFIG).unlink(missing_ok=True)


def closing_words(folder: Path, choice: Choice) -> str:
    """Return what `flawsmith choose` ends with: a sentence per defect type, and what to do next."""
    lines = [one.sentence for one in choice.defects]
    if any(one.candidate for one in choice.defects):
        last = f"why: {folder / WORDS}; next: flawsmith run {folder / CONFIG} --out RUN"
    else:
        last = f"why: {folder / WORDS}; train on the real shots alone, or add shots and choose again"
    return "\n".join([*lines, last])


def text_of(choice: Choice) -> str:
    """Return choice.md, in the language that is asked for."""
    names = [one.defect for one in choice.defects]
    lines = [f"# {spoken('What to make of each defect type')}", ""]
    lines += [f"* {spoken(one.sentence)}" for one in choice.defects]
    lines += [
        "",
        spoken(
            f"Decided by {choice.folds} folds inside the shots and the normal parts to learn from; the test pictures "
            f"were not looked at. Detectors: {', '.join(choice.detectors)}; extractor {choice.extractor}. A type takes "
            f"what raises its {choice.figure} most, if that stands above 0 by more than its standard error and its "
            "detection is not harmed by as much; else the real shots alone. A type that takes nothing by this is asked "
            "again beside the samples of the others, for all types share one detector; there it is enough that its "
            "figure rises. Estimates of the types lean on one another, for a fold leaves few shots out."
        ),
        "",
        f"## {spoken(f'Against the real shots alone: {choice.figure} in points, with standard error')}",
        "",
        *_table(choice.trials, names),
    ]
    if choice.every:
        head = spoken(
            f"Against samples for those types alone that gain by themselves: {choice.figure} in points, with standard "
            "error"
        )
        lines += ["", f"## {head}", "", *_table([choice.every], [*choice.every.effects[choice.every.lead]])]
    if choice.variations:
        head = spoken(f"Against what was taken with all its samples: {choice.figure} in points, with standard error")
        lines += ["", f"## {head}", "", *_table(choice.variations, names)]
    lines += ["", f"## {spoken('The real shots alone, mean over folds')}", ""]
    lines += _header([spoken("figure"), *names])
    for task, row in choice.real.items():
        cells = [f"{100 * row[name]:.1f}" if name in row else spoken("not judged") for name in names]
        lines.append(_line([spoken(TASKS[task][1]), *cells]))
    return "\n".join(lines) + "\n"


def _table(trials: Sequence[Trial], names: Sequence[str]) -> list[str]:
    lines = _header(["", *names, spoken("mean")])
    for trial in trials:
        task: Task = trial.lead
        effects = [trial.effects[task].get(name) for name in names]
        lines.append(_line([spoken(trial.name), *(_cell(one) for one in effects), _cell(trial.mean)]))
    return lines


def _header(names: Sequence[str]) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(effect: Estimate | None) -> str:
    return spoken("not judged") if effect is None else f"{100 * effect.value:+.1f} ({100 * effect.error:.1f})"
