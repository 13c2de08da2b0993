"""Which part of a run's batches one process makes, told on the command line or by what started the process."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from flawsmith.errors import ConfigError

_SHARD = re.compile(r"\s*(auto|[0-9]{1,6})(?:\s*/\s*([0-9]{1,6}))?\s*")
_NUMBERED = (
    ("torchrun", "RANK", "WORLD_SIZE"),
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MPICH", "PMI_RANK", "PMI_SIZE"),
    # In a batch script SLURM_PROCID is 0 and SLURM_NTASKS counts tasks that only srun starts; this one srun alone sets.
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
"""What starts processes, and the variables that number and count them; the first that is there counts, for torchrun may
itself be started by srun."""
_ARRAY = "SLURM_ARRAY_TASK_"
_INDEX = "JOB_COMPLETION_INDEX"
"""Kubernetes numbers the pods of an Indexed Job, and tells none how many there are."""
_EXPECTED = "expected i/n with i from 0 to n-1, e.g. 0/4, or auto"


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of the batches one process makes: every `count`-th, beginning with `number`."""

    number: int = 0
    count: int = 1

    @property
    def name(self) -> str:
        """As in the names of its files; "" = all in one."""
        return f"{self.number}-of-{self.count}" if self.count > 1 else ""

    def __contains__(self, batch: int) -> bool:
        """Return whether a batch is one of those that this process makes."""
        return batch % self.count == self.number

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] | None = None) -> Shard:
        """Turn "0/4" into the first of four, and "auto" or "auto/4" into what the environment says.

        Args:
            text: As on the command line.
            environment: Variables by name; None = those of this process.

        Raises:
            ConfigError: it is not i/n with 0 <= i < n; or the environment does not say i or n, or another n.
        """
        parts = _SHARD.fullmatch(text)
        if parts is None or (parts[1] != "auto" and not parts[2]):
            raise ConfigError(f"--shard {text}: {_EXPECTED}")
        count = int(parts[2]) if parts[2] else None
        if parts[1] == "auto":
            return _started(text, count, os.environ if environment is None else environment)
        if count is None or int(parts[1]) >= count:
            raise ConfigError(f"--shard {text}: {_EXPECTED}")
        return cls(int(parts[1]), count)


ALL = Shard()
"""All batches."""


def _started(text: str, asked: int | None, environment: Mapping[str, str]) -> Shard:
    """Return the part of a process that a scheduler or launcher started, `asked` parts in all (None = it knows)."""
    shard = Shard()
    names = []
    for starter, number, count in _NUMBERED:
        if number in environment and count in environment:
            shard = _numbered(text, starter, environment, number, count)
            names.append(count)
            break
    if f"{_ARRAY}ID" in environment:
        # Each task of an array may itself start several processes.
        task = _array_task(text, environment)
        shard = Shard(task.number * shard.count + shard.number, task.count * shard.count)
        names.append(f"{_ARRAY}COUNT")
    elif not names and _INDEX in environment:
        if asked is None:
            raise ConfigError(f"--shard {text}: Kubernetes tells no pod how many there are; write auto/COMPLETIONS")
        index = _whole_number(text, environment, _INDEX)
        if index >= asked:
            raise ConfigError(
                f"--shard {text}: {_INDEX} is {index}, so there are more than {asked} pods; give the Job's completions"
            )
        return Shard(index, asked)
    if not names:
        known = [number for _, number, _ in _NUMBERED]
        raise ConfigError(
            f"--shard {text}: nothing says which part this process is to make ({', '.join(known)}, {_ARRAY}ID and "
            f"{_INDEX} are not set); start it with srun, sbatch --array, torchrun or mpirun, or write e.g. 0/4"
        )
    if asked not in (None, shard.count):
        raise ConfigError(f"--shard {text}: {' x '.join(names)} says {shard.count} processes, not {asked}")
    return shard


def _numbered(text: str, starter: str, environment: Mapping[str, str], number: str, count: str) -> Shard:
    shard = Shard(_whole_number(text, environment, number), _whole_number(text, environment, count))
    if shard.number >= shard.count:
        raise ConfigError(
            f"--shard {text}: {starter} says {number}={shard.number} and {count}={shard.count}; the first is to be less"
        )
    return shard


def _array_task(text: str, environment: Mapping[str, str]) -> Shard:
    """Return the number of a task among those of its Slurm array, which may begin anywhere and go in steps."""
    task, first, count = (_whole_number(text, environment, f"{_ARRAY}{name}") for name in ("ID", "MIN", "COUNT"))
    step = _whole_number(text, environment, f"{_ARRAY}STEP", "1") or 1
    number, beside = divmod(task - first, step)
    if beside or not 0 <= number < count:
        raise ConfigError(
            f"--shard {text}: task {task} of an array of {count} that begins at {first} has no number among them; "
            "give the array as one range, such as --array=0-7"
        )
    return Shard(number, count)


def _whole_number(text: str, environment: Mapping[str, str], name: str, default: str = "") -> int:
    value = environment.get(name, default)
    if not re.fullmatch(r"[0-9]{1,6}", value):
        raise ConfigError(f"--shard {text}: {name} is {value!r}, which is no whole number")
    return int(value)
