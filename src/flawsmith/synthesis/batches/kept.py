"""What stays of the samples that are made when only their number was changed.

A line of the plan decides the bytes of its sample; where a network paints, the other lines of its batch do too. So the
batches that the plan for the new number has in common with the plan before are not made again, and the run is that of
one which was begun with the new number. The lines of a model follow those of the model before it, and a line's number
is its seed: in a run with several models (one per product, say) more samples of the first change those of all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from flawsmith.config import Config
from flawsmith.errors import RunError
from flawsmith.run.folder import FOLDER, Run
from flawsmith.run.records import PlanLine, Role, each_record
from flawsmith.synthesis.batches.controls import control_places
from flawsmith.synthesis.batches.made import keep_lines, tally
from flawsmith.synthesis.train import generator_class

_NUMBERS = {"generate.count", "screen.times"}
"""Settings that say how many samples are made, and nothing else of them."""
_ROLES: tuple[Role, ...] = ("sample", "control")
_PICTURE = re.compile(r"(\d{6,})(\.mask\.png|\.png|\.tif)")


def beside_numbers(changes: Iterable[str]) -> list[str]:
    """Return which changes of a stage's inputs concern more than how many samples are made."""
    return [name for name in changes if name not in _NUMBERS]


def keep_common(run: Run, new: Path) -> int:
    """Delete the samples and controls that a new plan does not have as the run's plan has them, lines and pictures.

    Args:
        run: The run; what is made was made with its configuration, but for the number of samples.
        new: The lines of the new first plan.

    Returns:
        How many samples stay.
    """
    common: dict[Role, bytearray] = {role: _common(run, new, role) for role in _ROLES}
    for role in _ROLES:
        _keep(run, role, common[role])
    return tally(run, "sample", len(common["sample"])).lines


def _keep(run: Run, role: Role, common: bytearray) -> None:
    """Delete the lines and pictures of samples or controls whose index is not common."""

    def stays(index: int) -> bool:
        return index < len(common) and bool(common[index])

    for path in run.line_files(role):
        keep_lines(path, lambda row: stays(row.index))
    folder = run.path(FOLDER[role])
    for file in folder.iterdir() if folder.is_dir() else ():  # also those that a kill left without a line
        if (name := _PICTURE.fullmatch(file.name)) and not stays(int(name[1])):
            file.unlink()


def _common(run: Run, new: Path, role: Role) -> bytearray:
    """Return 1 for each index whose batch is the same in the run's plan and a new one."""
    common = bytearray()
    before, after = (_batches(run.config, path, role) for path in (run.path("plan.jsonl"), new))
    try:
        for old, batch in zip(before, after, strict=False):
            alone = generator_class(run.config, batch[0].defect).native  # to it a shorter batch is as good
            common += bytes([(old[: len(batch)] if alone else old) == batch]) * len(batch)
    except RunError:  # somebody edited the plan so that it is none
        return bytearray()
    return common


def _batches(config: Config, path: Path, role: Role) -> Iterator[list[PlanLine]]:
    lines = (line for line in each_record(path, PlanLine) if not line.round)
    for _, batch in groupby(lines if role == "sample" else control_places(config, lines), lambda line: line.batch):
        yield list(batch)
