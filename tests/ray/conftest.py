"""A Ray cluster of two nodes on this machine, and runs that differ in where they are done alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from two_nodes import HERE, Cluster, flawsmith, variables


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Ray where it is absent, and say so once with the number of tests."""
    ours = [item for item in items if HERE in Path(item.path).parents]
    try:
        version("ray")
    except PackageNotFoundError:  # `import ray` would find this folder
        for item in ours:
            item.add_marker(pytest.mark.skip(reason="Ray is absent: `make test-ray` brings it"))


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What all processes have in common; set here too, for the nodes take it from this process."""
    more = variables(tmp_path_factory.mktemp("deaths"), tmp_path_factory.mktemp("temporary"))
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


@pytest.fixture(scope="session")
def in_one_process(settings: dict[str, Any], environment: dict[str, str], tmp_path_factory: Any) -> Path:
    """The run that all others are compared with."""
    run = tmp_path_factory.mktemp("one") / "run"
    ended = flawsmith(settings, run, environment=environment)
    assert ended.returncode == 0, ended.stderr
    Path(environment["FLAWSMITH_TEST_DEATHS"], "painted").unlink()
    return run
