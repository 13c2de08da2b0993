"""The commands of docs/ray.md as they stand there: Ray's command line starts two nodes, and a job of Ray's makes a run.

Both nodes are on this machine, so what a network between machines does is not shown.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from two_nodes import assert_alike, free_port, toml

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
BLOCKS = re.findall(r"```bash\n(.*?)```", (Path(__file__).parents[2] / "docs" / "ray.md").read_text(), re.DOTALL)
STARTS = 90.0
"""Seconds within which a node and the dashboard answer."""


@dataclass(frozen=True)
class Machines:
    """What stands for the page's machines: a folder for /shared, and where FIRST listens."""

    shared: Path
    port: int
    dashboard: int
    environment: dict[str, str]

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line of the page, with our names in the place of its own."""
        line = line.replace("FIRST:8265", f"127.0.0.1:{self.dashboard}").replace("/shared", str(self.shared))
        words = ["bash", "-c", line]
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def machines(
    environment: dict[str, str], settings: dict[str, Any], in_one_process: Path, tmp_path_factory: Any
) -> Iterator[Machines]:
    """Start two nodes as the page does, each held by its own process, for `ray stop` would end others' nodes too."""
    if find_spec("aiohttp_cors") is None:
        pytest.skip("Ray's dashboard is absent, which its jobs need: `make test-ray` brings the extra `ray-tests`")
    tools, shared = tmp_path_factory.mktemp("tools"), tmp_path_factory.mktemp("shared")
    for name, module in (("flawsmith", "flawsmith"), ("ray", "ray.scripts.scripts")):
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (tools / name).chmod(0o755)
    tables: dict[str, list[str]] = {}
    for name, value in settings.items():
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append(f"{key} = {toml(value)}")
    lines = [line for table, rows in tables.items() for line in (f"[{table}]", *rows)]
    (shared / "screws.toml").write_text("\n".join(lines))
    variables = {**environment, "PATH": f"{tools}{os.pathsep}{environment['PATH']}"}
    variables.pop("RAY_ADDRESS", None)
    made = Machines(shared, free_port(), free_port(), variables)
    small = "--num-cpus=1 --object-store-memory=80000000 --disable-usage-stats --block"
    started = BLOCKS[0].replace("6379", str(made.port)).replace("FIRST", "127.0.0.1").splitlines()
    first, other = (line.partition("#")[0].strip() for line in started if line.startswith("ray start"))
    first += f" --node-ip-address=127.0.0.1 --ray-client-server-port={free_port()} --dashboard-port={made.dashboard}"
    nodes = []
    try:
        for line, count in ((first, 1), (other, 2)):
            # Each of the page's machines has Ray's own port for this to itself; here other nodes may hold it.
            words = ["bash", "-c", f"exec {line} {small} --dashboard-agent-listen-port={free_port()}"]
            quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            nodes.append(subprocess.Popen(words, env=variables, start_new_session=True, **quiet))
            begun = time.monotonic()
            while made.run("ray list nodes --address http://FIRST:8265 | grep -c ALIVE").stdout.strip() != str(count):
                assert nodes[-1].poll() is None and time.monotonic() - begun < STARTS, f"node {count} does not come up"
                time.sleep(1)
        yield made
    finally:
        for node in reversed(nodes):
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                node.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)


def test_a_job_makes_the_run_of_one_process(machines: Machines, in_one_process: Path) -> None:
    (line,) = (block for block in BLOCKS if "ray job submit" in block)
    ended, begun = machines.run(line), time.monotonic()
    while "No available agent" in ended.stderr and time.monotonic() - begun < STARTS:  # they come up after their nodes
        time.sleep(2)
        ended = machines.run(line)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "succeeded" in ended.stdout
    assert_alike(in_one_process, machines.shared / "runs" / "screws")
