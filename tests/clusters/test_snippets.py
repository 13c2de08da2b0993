"""The snippets of docs/clusters.md, run by stand-ins: a loop that sets what a scheduler sets, and starts the command.

What a stand-in cannot show is said there: no Slurm, no Kubernetes and no container takes part.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import flawsmith as fs
from flawsmith.config import load_config

PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
CONFIG = """
[data]
root = "{root}"
products = ["screw"]
shots = 2
[generator]
name = "crop_paste"
[generate]
count = 6
batch = 1
[measure]
enabled = false
[prove]
enabled = false
[export]
formats = []
"""


def block(heading: str) -> str:
    """Return the first block of code below a heading."""
    return re.split(r"```\w*\n", PAGE.partition(f"### {heading}\n")[2])[1].partition("```")[0]


@pytest.fixture(scope="module")
def whole(factory_root: Path, tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    """What one process makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "screw.toml").write_text(CONFIG.format(root=factory_root))
    run = fs.Run.create(folder / "run", load_config(folder / "screw.toml"))
    fs.run_all(run)
    return run


@pytest.fixture
def shared(factory_root: Path, tmp_path: Path) -> Path:
    """The folder that stands for /shared."""
    (tmp_path / "screw.toml").write_text(CONFIG.format(root=factory_root))
    return tmp_path


def start(words: list[str], shared: Path, **environment: Any) -> subprocess.Popen[str]:
    """Start the command of one task: ours, with the page's folder in its place."""
    assert words[0] == "flawsmith"
    command = [sys.executable, "-m", "flawsmith", *(word.replace("/shared", str(shared)) for word in words[1:])]
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def require_same(processes: list[subprocess.Popen[str]], shared: Path, whole: fs.Run) -> None:
    """All ended well, one closed the run, and what was made is what one process makes."""
    words = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), words
    closed = ["report.html" in text for text in words]
    assert any(closed), words
    assert all(one or "its part is made" in text for one, text in zip(closed, words, strict=True)), words
    run = fs.Run.open(shared / "runs" / "screw")
    assert run.stage_hash("report") is not None
    assert [row.to_json() for row in run.samples()] == [row.to_json() for row in whole.samples()]
    assert len(run.line_files("sample")) == len(processes)
    for folder in ("samples", "controls"):
        theirs = {path.name: path.read_bytes() for path in whole.path(folder).iterdir()}
        assert {path.name: path.read_bytes() for path in run.path(folder).iterdir()} == theirs


def test_slurm_array_by_a_loop(shared: Path, whole: fs.Run) -> None:
    """The script as Slurm would run it, in bash, for three tasks of its array, one after another."""
    script = block("Slurm")
    first, last = re.findall(r"^#SBATCH --array=(\d+)-(\d+)$", script, re.M)[0]
    assert int(last) > int(first) == 0
    function = f'flawsmith() {{ {shlex.quote(sys.executable)} -m flawsmith "$@"; }}\n'
    (shared / "job.sh").write_text(function + script.replace("/shared", str(shared)))
    processes = []
    for number in range(3):
        task = {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_MIN": 0, "SLURM_ARRAY_TASK_MAX": 2}
        task |= {"SLURM_ARRAY_TASK_COUNT": 3, "SLURM_ARRAY_TASK_STEP": 1, "SLURM_PROCID": 0, "SLURM_NTASKS": 1}
        variables = os.environ | {name: str(value) for name, value in task.items()}
        command = ["bash", str(shared / "job.sh")]
        one = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        one.wait()
        processes.append(one)
    require_same(processes, shared, whole)


def test_kubernetes_pods_side_by_side(shared: Path, whole: fs.Run) -> None:
    """Two pods of the Job, at the same time; the count in its command is the Job's own."""
    job = yaml.safe_load(block("Kubernetes"))
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    container = spec["template"]["spec"]["containers"][0]
    assert container["command"][-1] == f"auto/{spec['completions']}" and spec["parallelism"] <= spec["completions"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"]: "/shared" for volume in spec["template"]["spec"]["volumes"]}
    words = [*container["command"][:-1], "auto/2"]
    require_same([start(words, shared, JOB_COMPLETION_INDEX=n) for n in range(2)], shared, whole)


def test_compose_services_side_by_side(shared: Path, whole: fs.Run) -> None:
    services = yaml.safe_load(block("Docker compose"))["services"]
    assert all(service["volumes"] == ["./shared:/shared"] for service in services.values())
    require_same([start(shlex.split(one["command"]), shared) for one in services.values()], shared, whole)


def test_mpirun_names_the_rest() -> None:
    """What the page says of other starters is what is read."""
    from flawsmith.run import shard

    for _, number, count in shard._NUMBERED:
        assert number in PAGE and (count in PAGE or f"_{count.rpartition('_')[2]}" in PAGE)
    assert f"{shard._ARRAY}ID" in PAGE and shard._INDEX in PAGE
