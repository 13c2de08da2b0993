"""A run on a Ray cluster of two nodes is that of one process, byte for byte, also when a worker or a node dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from two_nodes import Cluster, assert_alike, contents, flawsmith, painted_again

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


def test_all_stages_with_a_worker_killed_in_the_middle(
    cluster: Cluster, settings: dict[str, Any], environment: dict[str, str], in_one_process: Path, tmp_path: Path
) -> None:
    run, there = tmp_path / "run", {**environment, "RAY_ADDRESS": cluster.address}
    (cluster.deaths / "painted").unlink(missing_ok=True)
    (cluster.deaths / "worker").touch()
    ended = flawsmith(settings, run, "--on", "ray", environment=there)
    assert ended.returncode == 0, ended.stderr
    assert not (cluster.deaths / "worker").exists(), "nobody died"
    assert_alike(in_one_process, run)
    assert (run / "proof.json").is_file() and (run / "scores.jsonl").is_file()
    assert 0 < len(painted_again(cluster.deaths)) <= settings["generate.batch"], "more than one batch was painted again"
    pids = {line.split()[0] for line in (cluster.deaths / "painted").read_text().splitlines()}
    assert len(pids) > 1
    assert not list((run / "state").glob("on-ray-*"))


def test_a_node_that_dies_loses_its_batch(
    cluster: Cluster, settings: dict[str, Any], environment: dict[str, str], in_one_process: Path, tmp_path: Path
) -> None:
    run, there = tmp_path / "run", {**environment, "RAY_ADDRESS": cluster.address}
    (cluster.deaths / "painted").unlink(missing_ok=True)
    (cluster.deaths / "node").touch()
    try:
        ended = flawsmith(settings, run, "--on", "ray", "--until", "generate", environment=there)
        assert ended.returncode == 0, ended.stderr
        assert not (cluster.deaths / "node").exists(), "nobody died"
        cluster.wait_for_nodes(1)
    finally:
        cluster.add_node()
    names = [name for name in contents(run) if name.startswith(("samples/", "controls/", "plan", "samples", "weights"))]
    first = {name: content for name, content in contents(in_one_process).items() if name in names}
    assert {name for name in names if contents(run)[name] != first.get(name)} <= {"plan.jsonl", "samples.jsonl"}
    # Without screening no round was added: the first plan is the beginning of the other's.
    for name in ("plan.jsonl", "samples.jsonl"):
        assert first[name].startswith(contents(run)[name])
    assert 0 < len(painted_again(cluster.deaths)) <= settings["generate.batch"]


def test_a_trained_generator_is_that_of_one_process(
    cluster: Cluster, settings: dict[str, Any], environment: dict[str, str], backbone_folder: Path, tmp_path: Path
) -> None:
    trained = {
        **{name: settings[name] for name in ("data.root", "data.shots")},
        "generator.name": "controlnet_inpaint",
        "backbone.source": str(backbone_folder),
        "backbone.dtype": "float32",
        "train.scope": "product",
        "train.steps": 3,
        "train.views": 2,
        "train.batch": 2,
        "windows.size": 64,
        "generate.count": 2,
        "generate.batch": 2,
        "generate.steps": 2,
    }
    for name, on in (("one", ()), ("two", ("--on", "ray"))):
        there = {**environment, "RAY_ADDRESS": cluster.address}
        ended = flawsmith(trained, tmp_path / name, *on, "--until", "generate", environment=there)
        assert ended.returncode == 0, ended.stderr
    assert_alike(tmp_path / "one", tmp_path / "two")
    assert len(list((tmp_path / "two" / "weights").glob("*/losses.json"))) == 2


def test_without_a_shared_folder(
    cluster: Cluster, settings: dict[str, Any], environment: dict[str, str], in_one_process: Path, tmp_path: Path
) -> None:
    """The workers see neither the run nor the photographs, but what is exchanged through the storage."""
    run, there = tmp_path / "run", {**environment, "RAY_ADDRESS": cluster.address}
    ended = flawsmith(settings, run, "--on", "ray", "--share", f"file://{tmp_path}/storage", environment=there)
    assert ended.returncode == 0, ended.stderr
    assert_alike(in_one_process, run)
    assert [path.name for path in (tmp_path / "storage").iterdir() if any(path.rglob("*.png"))] == ["photographs"]


def test_what_a_task_refuses_is_one_sentence(
    cluster: Cluster, settings: dict[str, Any], environment: dict[str, str], tmp_path: Path
) -> None:
    there = {**environment, "RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "none"}
    ended = flawsmith(settings, tmp_path / "run", "--on", "ray", environment=there)
    assert ended.returncode == 2 and "OMP_NUM_THREADS=none: with --on it is the number" in ended.stderr
    assert "Traceback" not in ended.stderr
    nobody = {**environment, "RAY_ADDRESS": "127.0.0.1:1"}
    ended = flawsmith(settings, tmp_path / "run", "--on", "ray", environment=nobody)
    assert ended.returncode == 2 and "no cluster can be joined" in ended.stderr and "Traceback" not in ended.stderr
