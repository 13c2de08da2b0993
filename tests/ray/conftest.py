"""A Ray cluster of two nodes on this machine, one processor each, and runs that differ in where they are done alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Ray where it is absent, and say so once with the number of tests."""
    ours = [item for item in items if HERE in Path(item.path).parents]
    try:
        version("ray")
    except PackageNotFoundError:  # `import ray` would find this folder
        for item in ours:
            item.add_marker(pytest.mark.skip(reason="Ray is absent: `make test-ray` brings it"))


class Cluster:
    """Two nodes, and the folder through which tests let them die."""

    def __init__(self, deaths: Path) -> None:
        from ray.cluster_utils import Cluster as Nodes

        self.deaths = deaths
        self._small: dict[str, Any] = {
            "num_cpus": 1,
            "object_store_memory": 80 * 1024 * 1024,
            "include_dashboard": False,
        }
        self._nodes = Nodes(initialize_head=True, head_node_args=self._small)
        self.address = self._nodes.address
        self.add_node()

    def add_node(self) -> None:
        self._nodes.add_node(**self._small)

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


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What all processes have in common; set here too, for the nodes take it from this process."""
    deaths = tmp_path_factory.mktemp("deaths")
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    more = {
        "FLAWSMITH_TEST_DEATHS": str(deaths),
        "FLAWSMITH_PLUGINS": "generators.dying=dying:Dying",
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(tmp_path_factory.mktemp("temporary")),
        "RAY_TMPDIR": "/tmp",  # a path of a socket has 107 characters at most
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in more.items():
            patch.setenv(name, value)
        yield dict(os.environ)


@pytest.fixture(scope="session")
def cluster(environment: dict[str, str]) -> Iterator[Cluster]:
    made = Cluster(Path(environment["FLAWSMITH_TEST_DEATHS"]))
    yield made
    made.shutdown()


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of two products."""
    from flawsmith.data import factory

    root = tmp_path_factory.mktemp("parts")
    factory.write_dataset(root, "magnet", ("crack",), normals=8, per_defect=7, seed=1, size=64, test_normals=3)
    factory.write_dataset(root, "screw", ("scratch",), normals=6, per_defect=7, seed=2, size=64, test_normals=3)
    return root


@pytest.fixture(scope="session")
def settings(parts: Path) -> dict[str, Any]:
    """A run with every stage, of a few seconds."""
    return {
        "data.root": str(parts),
        "data.shots": 5,
        "generator.name": "dying",
        "generate.count": 6,
        "generate.batch": 3,
        "generate.controls": 0.5,
        "screen.enabled": True,
        "screen.rounds": 1,
        "measure.enabled": False,
        "prove.against": ["crop_paste"],
        "prove.curve": [],
        "prove.mix": False,
        "prove.detectors": ["probe"],
        "prove.settings": {"probe": {"steps": 8, "places": 64, "views": 1}, "patchcore": {"memory": 20, "draw": 100}},
        "prove.seeds": 1,
        "prove.size": 64,
        "prove.resamples": 100,
    }


def flawsmith(
    settings: dict[str, Any], out: Path, *more: str, environment: dict[str, str], timeout: float = 500
) -> subprocess.CompletedProcess[str]:
    """Run the command line with settings on a new folder."""
    config = out.parent / f"{out.name}.toml"
    config.write_text("")
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={_toml(value)}")]
    command = [sys.executable, "-m", "flawsmith", "run", str(config), "--out", str(out), *sets, *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)
