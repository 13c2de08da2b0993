"""Make what is planned: samples/000017.png with samples/000017.mask.png, and a line for each in samples.jsonl.

Negative controls, which are normal parts repainted as normal, follow in controls/ and controls.jsonl. A batch is made
whole or not at all, so a run that was killed makes the same bytes when it goes on. What screening asks for since
(rounds.json) is planned and made behind the rest. `--shard i/n` makes every n-th batch; shards share the plan and write
their own lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from flawsmith.config import Config, affecting
from flawsmith.errors import ConfigError, RunError
from flawsmith.files import mend_lines, read_json, reading, write_json
from flawsmith.interfaces import Generator
from flawsmith.locks import locked
from flawsmith.nn.memory.exhausted import memory_suffices
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import FOLDER, Run
from flawsmith.run.progress import progress
from flawsmith.run.records import PlanLine, Role, Sample, append_records, read_records, write_records
from flawsmith.run.rounds import forget_discarded, forget_rounds, read_discarded, read_rounds
from flawsmith.run.spread import Spread
from flawsmith.run.stage import Inputs, stage, stamp_of
from flawsmith.run.unchanged import require_as_made
from flawsmith.synthesis.attention import has_attention, paint_attention
from flawsmith.synthesis.counts import counts
from flawsmith.synthesis.painters import Painters, Room, paint_batch
from flawsmith.synthesis.plan import make_controls, make_plan, plan_lines
from flawsmith.synthesis.sweep import has_sweep, paint_sweep
from flawsmith.synthesis.train import (
    backbone_of,
    generator_classes,
    generator_inputs,
    is_trained,
    jobs_of,
    train_inputs,
)

_LESS = "take a smaller windows.size or backbone, or end what else uses this memory"
_SHARD = re.compile(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*")
_REPLAN = "delete the file and run again: it is planned alike, and samples that are made stay"


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of the batches one process makes: every `count`-th, beginning with `number`."""

    number: int = 0
    count: int = 1

    @property
    def name(self) -> str:
        """As in the names of its files; "" = all in one."""
        return f"{self.number}-of-{self.count}" if self.count > 1 else ""

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Turn "0/4" into the first of four.

        Raises:
            ConfigError: it is not i/n with 0 <= i < n.
        """
        parts = _SHARD.fullmatch(text)
        if parts is not None and int(parts[1]) < int(parts[2]):
            return cls(int(parts[1]), int(parts[2]))
        raise ConfigError(f"--shard {text}: expected i/n with i from 0 to n-1, e.g. 0/4")


def generate(run: Run, shard: Shard = Shard(), data: Dataset | None = None, spread: Spread | None = None) -> None:
    """Run the stage; does nothing when it is done already with the same input, and goes on where it was killed.

    Args:
        run: The run.
        shard: Which part of it this process makes.
        data: Its photographs, when they are open already.
        spread: Has each batch painted on whichever machine is free; None = one after another, here.

    Raises:
        RunError: the generator is not trained, or what is made already was changed since.
    """
    config = run.config
    data = data or open_dataset(run)
    backbone = backbone_of(run)
    training = train_inputs(run, data, backbone)
    if not is_trained(run, training):
        raise RunError(
            f"{run.folder}: the generator is not trained with this configuration, or its weights are gone; "
            f"run `flawsmith train {run.folder}`"
        )
    samples = _inputs(config, stamp_of(run, "train", training))
    # Another number of controls leaves the samples as they are.
    both = replace(
        samples,
        settings={**samples.settings, **affecting(config, "controls")},
        defaults={**samples.defaults, **affecting(Config(), "controls")},
    )
    painters = Painters(config, data, backbone, run.path("weights"))
    with stage(run, "generate", both, there=partial(_all_there, run), shard=shard.name) as work:
        if not work.done:
            lines, controls = _plan(run, data, samples, both)
            require_as_made(run, [*run.samples(), *run.controls()], gone=True)
            room = Room(run, shard.name, work.stamp, painters)

            def painted(groups: Sequence[list[PlanLine]]) -> Iterator[list[Sample]]:
                if spread is None:
                    return (room.painted(group) for group in groups)
                calls = ((run, group, work.stamp) for group in groups)
                return (rows for _, rows in spread(paint_batch, calls, network=backbone is not None))

            made = sum(_make(run, planned, shard, painted) for planned in (lines, controls))
            work.what = f"{made} samples and controls, shard {shard.number}/{shard.count}"
            rows = run.samples()
            work.finished = len(rows) == len(lines) and len(run.controls()) == len(controls)
            good = sum(row.made for row in rows)
            work.facts |= {"samples": good, "given_up": len(rows) - good, "controls": len(controls)}
    classes = generator_classes(config)
    swept = next((plugin for plugin in classes.items() if plugin[1].sweep[0]), None)
    if swept and run.stage_hash("generate") and not has_sweep(run):
        # Of several shards the first that gets here.
        with locked(run.path("state", "sweep.lock")), memory_suffices("sweep", _LESS):
            paint_sweep(run, [line for line in run.plan() if line.generator == swept[0]], *swept[1].sweep, painters.of)
    worded = {name for name, plugin in classes.items() if plugin.attention is not Generator.attention}
    if worded and run.stage_hash("generate") and not has_attention(run):
        there = {row.index for row in run.samples() if row.made}
        listened = [line for line in run.plan() if line.generator in worded and line.index in there]
        with locked(run.path("state", "attention.lock")), memory_suffices("attention of words", _LESS):
            paint_attention(run, listened, painters.of)


def _inputs(config: Config, trained: str) -> Inputs:
    """Return what the samples depend on."""
    inputs = generator_inputs(config, "generate", train=trained)
    if config.screen.enabled:
        return inputs
    unread = "screen.times"
    settings, defaults = ({k: v for k, v in tree.items() if k != unread} for tree in (inputs.settings, inputs.defaults))
    return replace(inputs, settings=settings, defaults=defaults)


def _plan(run: Run, data: Dataset, samples: Inputs, both: Inputs) -> tuple[list[PlanLine], list[PlanLine]]:
    """Return the lines of samples and controls; what another input left is taken away first."""
    config = run.config
    with locked(run.path("state", "lock")):  # shards plan one after another
        forget_discarded(run)  # something is missing, so whatever is not there is made again
        base = _first_plan(run, samples, lambda: make_plan(config, data), data)
        _require_known(run, base, data)
        lines = _with_rounds(run, base, lambda asked, before, number: plan_lines(config, data, asked, before, number))
        # Rounds after the first replace samples; the controls of the first are as many as were asked for.
        controls = make_controls(config, data, [line for line in lines if not line.round])
        _clear_controls(run, both)
    return lines, controls


def _require_known(run: Run, lines: Sequence[PlanLine], data: Dataset) -> None:
    """Refuse a plan that somebody edited so that it names what the run does not have."""
    jobs = {job.name: job.generator for job in jobs_of(run.config, data.split)}
    ids = {example.id for example in (*data.split.normals, *data.split.shots)}
    for line in lines:
        if jobs.get(line.job) != line.generator:
            wrong = f"{line.generator!r} with weights {line.job!r} is no generator"
        elif unknown := sorted({line.normal, line.shot, line.reference} - ids - {""}):
            wrong = f"{unknown[0]!r} is no photograph"
        else:
            continue
        raise RunError(f"{run.path('plan.jsonl')}: sample {line.index}: {wrong} of this run; {_REPLAN}")


def _first_plan(run: Run, inputs: Inputs, make: Callable[[], list[PlanLine]], data: Dataset) -> list[PlanLine]:
    """Return the plan on disk when it is of this input; else clear what another input left, and plan."""
    mark, path = run.path("state", "generate.json"), run.path("plan.jsonl")
    planned = read_json(mark) if mark.exists() else {}
    with reading(mark):
        same = bool(planned) and not inputs.changes(planned)
    if same:
        if not path.exists():  # deleted: samples that are made stay, the plan comes out alike
            write_records(path, make())
        return _read_plan(run, planned.get("lines"))
    lines = make()
    mark.unlink(missing_ok=True)
    forget_rounds(run)
    _clear(run, "sample")
    write_records(path, lines)
    asked = [[product, defect, number] for (product, defect), number in counts(run.config, data.split).items()]
    write_json(mark, {**_mark(inputs), "lines": len(lines), "asked": asked})
    return lines


def _mark(inputs: Inputs) -> dict[str, Any]:
    return {"inputs": {"settings": dict(inputs.settings), "content": dict(inputs.content)}}


def _with_rounds(
    run: Run,
    lines: list[PlanLine],
    make: Callable[[dict[tuple[str, str], int], list[PlanLine], int], list[PlanLine]],
) -> list[PlanLine]:
    """Return the plan with the lines that screening asked for since; samples of rounds that no longer hold go."""
    whole = [line for line in lines if not line.round]
    for number, asked in enumerate(read_rounds(run), start=1):
        planned = [line for line in lines if line.round == number]
        if Counter((line.product, line.defect) for line in planned) != Counter(asked):
            planned = make(dict(asked), whole, number)
        whole += planned
    if whole != lines:
        write_records(run.path("plan.jsonl"), whole)
    for path in run.line_files("sample"):
        rows = read_records(path, Sample)
        gone = [row for row in rows if row.index >= len(whole)]
        if gone:
            write_records(path, [row for row in rows if row.index < len(whole)])
            run.remove_pictures("sample", (row.index for row in gone))
    return whole


def _make(
    run: Run,
    lines: Sequence[PlanLine],
    shard: Shard,
    painted: Callable[[Sequence[list[PlanLine]]], Iterator[list[Sample]]],
) -> int:
    """Have this shard's batches of samples or controls painted that are not on disk yet; return how many were made."""
    if not lines:
        return 0
    role = lines[0].role
    name = FOLDER[role]
    path = run.path(f"{name}.{shard.name}.jsonl" if shard.name else f"{name}.jsonl")
    batches = [group for number, group in sorted(_by_batch(lines).items()) if number % shard.count == shard.number]
    done = _whole_batches(run, path, batches, run.samples() if role == "sample" else run.controls())
    todo = [group for group in batches if group[0].batch not in done]
    total = sum(len(group) for group in batches)
    left = sum(len(group) for group in todo)
    with progress("generate" if role == "sample" else name, total, name, done=total - left) as advance:
        for rows in painted(todo):
            append_records(path, rows)
            advance(len(rows))
    _sort_lines(path)
    return left


def _read_plan(run: Run, count: int | None) -> list[PlanLine]:
    try:
        lines = run.plan()
    except RunError as error:
        raise RunError(f"{str(error).partition(';')[0]}; {_REPLAN}") from None
    first = [line.index for line in lines if not line.round]
    if count is not None and first != list(range(count)):
        path = run.path("plan.jsonl")
        raise RunError(f"{path}: {len(first)} lines are not the {count} lines that were planned; {_REPLAN}")
    return lines


def _all_there(run: Run) -> bool:
    """Return whether every planned sample has its line and its files: what a user deletes is made again."""
    rows, plan, controls = run.samples(), _read_plan(run, None), run.controls()
    require_as_made(run, [*rows, *controls], gone=True)
    whole = 0 < len(plan) == len(rows) and len(controls) == run.record("generate").get("controls")
    rounds = [sum(asked.values()) for asked in read_rounds(run)]
    of_rounds = Counter(line.round for line in plan if line.round)
    gone = read_discarded(run)
    return (
        whole
        and of_rounds == Counter(dict(enumerate(rounds, start=1)))
        and all(_is_there(run, row) or row.index in gone for row in rows)
        and all(_is_there(run, row) for row in controls)
    )


def _is_there(run: Run, row: Sample) -> bool:
    return not row.made or (run.path(row.image).is_file() and run.path(row.mask).is_file())


def _by_batch(lines: Sequence[PlanLine]) -> dict[int, list[PlanLine]]:
    groups: dict[int, list[PlanLine]] = {}
    for line in lines:
        groups.setdefault(line.batch, []).append(line)
    return groups


def _whole_batches(run: Run, path: Path, batches: Sequence[list[PlanLine]], rows: Sequence[Sample]) -> set[int]:
    """Return the batches whose every line and file is on disk, from whichever shard; drop our lines of all others."""
    mend_lines(path)
    there = {row.index for row in rows if _is_there(run, row)}
    whole = {group[0].batch for group in batches if all(line.index in there for line in group)}
    indices = {line.index for group in batches if group[0].batch in whole for line in group}
    ours = read_records(path, Sample)
    keep = [row for row in ours if row.index in indices]
    if len(keep) < len(ours):
        write_records(path, keep)
    return whole


def _sort_lines(path: Path) -> None:
    """Put lines in the order of the plan: a batch that was made again in the middle stands at the end."""
    rows = read_records(path, Sample)
    ordered = sorted(rows, key=lambda row: row.index)
    if rows != ordered:
        write_records(path, ordered)


def _clear_controls(run: Run, inputs: Inputs) -> None:
    """Take away the controls of another input; what a killed run made of this one stays."""
    mark = run.path("state", "controls.json")
    marked = read_json(mark) if mark.exists() else {}
    with reading(mark):
        if marked and not inputs.changes(marked):
            return
    _clear(run, "control")
    write_json(mark, _mark(inputs))


def _clear(run: Run, role: Role) -> None:
    run.remove_all_pictures(role)
    for lines in run.line_files(role):
        lines.unlink()
