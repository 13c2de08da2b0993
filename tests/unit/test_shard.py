"""run/shard.py: which part a process makes, by hand or as Slurm, Kubernetes, torchrun and MPI number it."""

from __future__ import annotations

import pytest

from flawsmith.errors import ConfigError
from flawsmith.run.shard import Shard

ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "4"}
STEPPED = ARRAY | {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_STEP": "2"}
SRUN = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "3"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}
MPICH = {"PMI_RANK": "0", "PMI_SIZE": "2"}
POD = {"JOB_COMPLETION_INDEX": "3"}


@pytest.mark.parametrize(
    "text, environment, number, count",
    [
        ("0/4", {}, 0, 4),
        (" 3 / 4 ", TORCHRUN, 3, 4),
        ("auto", ARRAY, 2, 4),
        ("auto", ARRAY | BATCH_SCRIPT, 2, 4),
        ("auto", STEPPED, 2, 4),
        ("auto", SRUN, 1, 3),
        ("auto", ARRAY | SRUN, 2 * 3 + 1, 12),
        ("auto", SRUN | TORCHRUN, 5, 6),
        ("auto", OPEN_MPI, 2, 3),
        ("auto", SRUN | MPICH, 0, 2),
        ("auto/8", POD, 3, 8),
        ("auto/4", ARRAY, 2, 4),
        ("auto", TORCHRUN | POD, 5, 6),
    ],
)
def test_the_part_of_a_process(text: str, environment: dict[str, str], number: int, count: int) -> None:
    assert Shard.parse(text, environment) == Shard(number, count)


@pytest.mark.parametrize(
    "text, environment, sentence",
    [
        ("auto", {}, "nothing says which part this process is to make .*RANK.*JOB_COMPLETION_INDEX are not set"),
        ("auto", BATCH_SCRIPT, "nothing says which part"),
        ("auto", POD, "Kubernetes tells no pod how many there are; write auto/COMPLETIONS"),
        ("auto/3", POD, "JOB_COMPLETION_INDEX is 3, so there are more than 3 pods"),
        ("auto/5", ARRAY, "SLURM_ARRAY_TASK_COUNT says 4 processes, not 5"),
        ("auto/5", ARRAY | SRUN, "SLURM_STEP_NUM_TASKS x SLURM_ARRAY_TASK_COUNT says 12 processes, not 5"),
        ("auto", ARRAY | {"SLURM_ARRAY_TASK_ID": "12"}, "task 12 of an array of 4 that begins at 5 has no number"),
        ("auto", STEPPED | {"SLURM_ARRAY_TASK_ID": "8"}, "give the array as one range, such as --array=0-7"),
        ("auto", TORCHRUN | {"RANK": "six"}, "RANK is 'six', which is no whole number"),
        ("auto", TORCHRUN | {"RANK": "6"}, "torchrun says RANK=6 and WORLD_SIZE=6; the first is to be less"),
        ("4/4", {}, "--shard 4/4: expected i/n with i from 0 to n-1"),
        ("3", {}, "expected i/n"),
        ("/4", {}, "expected i/n"),
        ("auto/", {}, "expected i/n"),
    ],
)
def test_what_is_no_part_is_said(text: str, environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Shard.parse(text, environment)


def test_every_batch_is_of_one_part() -> None:
    assert [[batch for batch in range(7) if batch in Shard(number, 3)] for number in range(3)] == [
        [0, 3, 6],
        [1, 4],
        [2, 5],
    ]
