"""A Ray cluster of two nodes on this machine, one processor each; the command line on it; and what a run made.

The suite benchmarks/suites/on_ray.py measures on the same cluster.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TIMES = {"log.jsonl", "manifest.json", "config.json"}
"""Files that say when something was done."""

LONGEST_START = 600.0
"""Seconds within which a node comes up."""


class Cluster:
    """Two nodes, and the folder through which tests let them die."""

    def __init__(self, deaths: Path) -> None:
        from ray.cluster_utils import Cluster as Nodes

        _be_patient()
        self.deaths = deaths
        self._small: dict[str, Any] = {
            "num_cpus": 1,
            "object_store_memory": 80 * 1024 * 1024,
            "include_dashboard": False,
        }
        self._nodes = Nodes(initialize_head=True, head_node_args=self._small)
        self.address = self._nodes.address
        self.add_node()

    def add_node(self, **more: int) -> Any:
        """Add a node and return it; `more` is what it has, such as `num_gpus`: Ray takes our word for it."""
        return self._nodes.add_node(**{**self._small, **more})

    def remove_node(self, node: Any) -> None:
        self._nodes.remove_node(node)

    def wait_for_nodes(self, count: int) -> None:
        """Wait until there are so many: it takes Ray some seconds to notice that one is gone."""
        import ray

        ray.init(address=self.address, logging_level="error", log_to_driver=False, namespace="tests")
        try:
            begun = time.monotonic()
            while (alive := sum(node["Alive"] for node in ray.nodes())) != count:
                assert time.monotonic() - begun < 90, f"{alive} nodes, not {count}"
                time.sleep(0.5)
        finally:
            ray.shutdown()

    def shutdown(self) -> None:
        self._nodes.shutdown()


def _be_patient() -> None:
    """Let a node take minutes to come up: Ray gives it 30 seconds, which no setting changes, and machines are busy."""
    from ray._private import services

    ask = services.get_node

    def ask_again(*arguments: Any) -> Any:
        begun = time.monotonic()
        while True:
            try:
                return ask(*arguments)
            except RuntimeError:
                if time.monotonic() - begun > LONGEST_START:
                    raise
                time.sleep(0.2)

    if ask.__name__ != "ask_again":
        services.get_node = ask_again


def variables(deaths: Path, temporary: Path) -> dict[str, str]:
    """Return the environment variables that the cluster's nodes and all runs have in common.

    Args:
        deaths: Through this folder a test lets a worker or a node die, see dying.py.
        temporary: Takes temporary files.
    """
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {
        "FLAWSMITH_TEST_DEATHS": str(deaths),
        "FLAWSMITH_PLUGINS": "generators.dying=dying:Dying",
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",  # 15 where nothing says otherwise: on a busy machine workers then wait for minutes
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(temporary),
        "RAY_TMPDIR": "/tmp",  # a path of a socket has 107 characters at most
        # What stands for S3 and Google Cloud Storage, where a test starts it.
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{free_port()}",
        "FSSPEC_GS_TOKEN": "anon",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks over gRPC, which the stand-in lacks
        "FSSPEC_GS_PROJECT": "tests",
    }


def free_port() -> int:
    """Return the number of a port at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def command(settings: dict[str, Any], out: Path, *more: str) -> list[str]:
    """Return the words of `flawsmith run` with settings on a new folder."""
    config = out.parent / f"{out.name}.toml"
    config.write_text("")
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={toml(value)}")]
    return [sys.executable, "-m", "flawsmith", "run", str(config), "--out", str(out), *sets, *more]


def flawsmith(
    settings: dict[str, Any], out: Path, *more: str, environment: dict[str, str], timeout: float = 500
) -> subprocess.CompletedProcess[str]:
    """Run the command line with settings on a new folder."""
    words = command(settings, out, *more)
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=timeout)


def toml(value: Any) -> str:
    """Return a setting's value as TOML writes it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


def contents(run: Path) -> dict[str, bytes]:
    """Return all that a run made, by path: without times, what it needs to go on, and where it lies."""
    files = {path.relative_to(run): path for path in run.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes().replace(str(run).encode(), b"RUN")
        for name, path in files.items()
        if not {*name.parts} & {*TIMES, "state"} and name.parts[0] != "report" and not name.name.startswith("report.")
    }


def painted_again(deaths: Path) -> list[str]:
    """Return the seeds that were painted more than once since the file of dying.py was begun: what was lost."""
    lines = (deaths / "painted").read_text().splitlines()
    seeds = Counter(line.split(" ", 1)[1] for line in lines)
    return [one for one, times in seeds.items() if times > 1]


def assert_alike(one: Path, other: Path) -> None:
    """All files that two runs made are there, and the same byte for byte."""
    first, second = contents(one), contents(other)
    assert first.keys() == second.keys()
    differing = [name for name in first if first[name] != second[name]]
    assert not differing, differing  # this module's asserts are not rewritten: without words they would say nothing
