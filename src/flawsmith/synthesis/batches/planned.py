"""The plan on disk, never whole in memory: a set may hold more lines than there is room for.

Whoever needs lines reads plan.jsonl from the beginning; what is kept of it are counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from flawsmith.errors import RunError
from flawsmith.files import read_json, reading, write_json
from flawsmith.locks import locked
from flawsmith.run.dataset import Dataset
from flawsmith.run.folder import Run
from flawsmith.run.records import PlanLine, Role, each_record, write_records
from flawsmith.run.screened import Counts, forget_rounds, read_rounds
from flawsmith.run.shard import Shard
from flawsmith.run.stage import Inputs
from flawsmith.synthesis.batches.controls import control_places
from flawsmith.synthesis.batches.kept import beside_numbers, keep_common
from flawsmith.synthesis.batches.made import clear
from flawsmith.synthesis.batches.workers import planned_lines
from flawsmith.synthesis.counts import counts
from flawsmith.synthesis.plan import asked_counts, first_places, places
from flawsmith.synthesis.train import jobs_of

_REPLAN = "delete the file and run again: it is planned alike, and samples that are made stay"


@dataclass(frozen=True, slots=True)
class Planned:
    """How much is planned: samples of all rounds, and their controls."""

    by_round: Mapping[int, Mapping[tuple[str, str], int]]
    """Round -> (product, defect type) -> number of lines."""
    last: Mapping[int, PlanLine]
    """Round -> its last line."""
    in_order: bool
    """Whether the lines are numbered as they stand, round after round."""
    controls: int
    shares: Mapping[Role, int]
    """How many of the samples and of the controls one shard makes."""

    @property
    def samples(self) -> int:
        """All lines."""
        return sum(self.first(number) for number in self.by_round)

    def first(self, number: int = 0) -> int:
        """Return how many lines a round has; 0 = the first plan."""
        return sum(self.by_round.get(number, {}).values())

    def holds(self, rounds: Iterable[Counts]) -> bool:
        """Return whether it is the first plan with these rounds behind it, and nothing else."""
        asked = {number: Counter(counts_of) for number, counts_of in enumerate(rounds, start=1)}
        return self.in_order and {n: Counter(c) for n, c in self.by_round.items() if n} == asked


def batches(run: Run, role: Role) -> Iterator[list[PlanLine]]:
    """Yield the planned batches in the order in which they are made; controls still without seed and donor."""
    lines: Iterable[PlanLine] = each_planned(run)
    if role == "control":
        lines = control_places(run.config, _first_round(lines))
    for _, batch in groupby(lines, key=lambda line: line.batch):
        yield list(batch)


def each_planned(run: Run) -> Iterator[PlanLine]:
    """Yield the lines of plan.jsonl.

    Raises:
        RunError: a line is none; says that the file may be deleted.
    """
    try:
        yield from each_record(run.path("plan.jsonl"), PlanLine)
    except RunError as error:
        raise RunError(f"{str(error).partition(';')[0]}; {_REPLAN}") from None


def plan(run: Run, data: Dataset, inputs: Inputs, shard: Shard) -> Planned:
    """Plan what is not planned yet, of the first plan and of the rounds behind it; return how much that is.

    What another input left is taken away first, but for samples that another number of them leaves as they are.
    Shards plan one after another: the first writes, the others read.

    Raises:
        RunError: somebody edited the plan so that it is none, or names what the run does not have.
    """
    with locked(run.path("state", "lock")):
        count = _first_plan(run, inputs, data)
    planned = survey(run, data, shard, count)
    if not planned.holds(read_rounds(run)):
        with locked(run.path("state", "lock")):
            planned = survey(run, data, shard, count)
            if not planned.holds(rounds := read_rounds(run)):
                write_records(run.path("plan.jsonl"), _with_rounds(run, data, planned, rounds))
                planned = survey(run, data, shard, count)
    return planned


def survey(run: Run, data: Dataset | None, shard: Shard, count: int | None = None) -> Planned:
    """Count what is planned.

    Args:
        run: The run.
        data: Its photographs, for a look whether the lines name what it has; None = they are not looked at.
        shard: Whose share is counted.
        count: How many lines were written as the first plan; None = not known.

    Raises:
        RunError: see `plan`.
    """
    require_known = _require_known(run, data) if data else None
    by_round: dict[int, Counter[tuple[str, str]]] = {}
    last: dict[int, PlanLine] = {}
    shares: dict[Role, int] = {"sample": 0, "control": 0}
    position, in_order, first_in_order = 0, True, True

    def counted() -> Iterator[PlanLine]:
        nonlocal position, in_order, first_in_order
        for line in each_planned(run):
            if require_known:
                require_known(line)
            in_order = in_order and line.index == position and line.round >= max(last, default=0)
            if not line.round:
                first_in_order = first_in_order and line.index == sum(by_round.get(0, Counter()).values())
            by_round.setdefault(line.round, Counter())[line.product, line.defect] += 1
            last[line.round] = line
            shares["sample"] += line.batch in shard
            position += 1
            yield line

    lines, controls = counted(), 0
    for place in control_places(run.config, _first_round(lines)):
        controls += 1
        shares["control"] += place.batch in shard
    for _ in lines:  # without controls nothing has been read
        pass
    planned = Planned(by_round, last, in_order, controls, shares)
    if count is not None and not (first_in_order and planned.first() == count):
        path = run.path("plan.jsonl")
        raise RunError(f"{path}: {planned.first()} lines are not the {count} lines that were planned; {_REPLAN}")
    return planned


def _first_round(lines: Iterable[PlanLine]) -> Iterator[PlanLine]:
    # Rounds after the first replace samples; the controls of the first are as many as were asked for.
    return (line for line in lines if not line.round)


def _require_known(run: Run, data: Dataset) -> Callable[[PlanLine], None]:
    """Return what refuses a line that somebody edited so that it names what the run does not have."""
    jobs = {job.name: job.generator for job in jobs_of(run.config, data.split)}
    ids = {*data.photographs.normals, *(shot.id for shot in data.split.shots), ""}

    def require(line: PlanLine) -> None:
        if jobs.get(line.job) != line.generator:
            wrong = f"{line.generator!r} with weights {line.job!r} is no generator"
        elif unknown := sorted({line.normal, line.shot, line.reference, *(one.shot for one in line.further)} - ids):
            wrong = f"{unknown[0]!r} is no photograph"
        else:
            return
        raise RunError(f"{run.path('plan.jsonl')}: sample {line.index}: {wrong} of this run; {_REPLAN}")

    return require


def _first_plan(run: Run, inputs: Inputs, data: Dataset) -> int | None:
    """See that the first plan is on disk for this input; return how many lines it has, None = not known."""
    mark, path = run.path("state", "generate.json"), run.path("plan.jsonl")
    planned = read_json(mark) if mark.exists() else {}
    with reading(mark):
        changes = inputs.changes(planned) if planned else [""]
    if not changes:
        if not path.exists():  # deleted: samples that are made stay, the plan comes out alike
            write_records(path, _first_lines(run, data))
        with reading(mark):
            return None if planned.get("lines") is None else int(planned["lines"])
    # Written whole before what another input left goes; without its mark a plan is none.
    new = run.path("state", "plan.jsonl")
    write_records(new, _first_lines(run, data))
    if beside_numbers(changes):
        mark.unlink(missing_ok=True)
        clear(run, "sample")
        clear(run, "control")  # a kill may have come while those of another plan were taken away
    else:
        stay = keep_common(run, new)
        run.log(stage="generate", what=f"{', '.join(changes)} changed: {stay} samples that are made stay")
        mark.unlink(missing_ok=True)
    forget_rounds(run)
    new.replace(path)
    count = sum(asked_counts(run.config, data.split).values())
    asked = [[product, defect, number] for (product, defect), number in counts(run.config, data.split).items()]
    write_json(mark, {**marked(inputs), "lines": count, "asked": asked})
    return count


def _first_lines(run: Run, data: Dataset) -> Iterator[PlanLine]:
    count = sum(asked_counts(run.config, data.split).values())
    return planned_lines(run, data, first_places(run.config, data), count)


def marked(inputs: Inputs) -> dict[str, Any]:
    """Return inputs as JSON, for a file that says what something was made of."""
    return {"inputs": {"settings": dict(inputs.settings), "content": dict(inputs.content)}}


def _with_rounds(run: Run, data: Dataset, planned: Planned, rounds: list[Counts]) -> Iterator[PlanLine]:
    """Yield the first plan, and behind it what screening asked for since; rounds that are planned already stay."""
    last: PlanLine | None = None
    for number, asked in enumerate([planned.by_round.get(0, {}), *rounds]):
        lines: Iterable[PlanLine]
        if not number or Counter(planned.by_round.get(number)) == Counter(asked):
            lines = (line for line in each_planned(run) if line.round == number)
        else:
            asked_places = places(run.config, data, asked, last, number)
            lines = planned_lines(run, data, asked_places, sum(asked.values()))
        for line in lines:
            last = line
            yield line
