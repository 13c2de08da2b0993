"""What all of the chaos suite shares: factory parts of 64 pixels, a finished run, canary trees, and a table at the end.

`make chaos` does all of it and writes benchmarks/results/chaos.json; `make chaos-short` is what `.ci/run` does. The
plain `pytest` of the core leaves this folder out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import pytest
import torch
from commands import Canary
from runs import TABLE, made_run
from tally import FULL, TALLY, processor_seconds

from flawsmith import registry
from flawsmith.config import load_config
from flawsmith.data import factory

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "benchmarks" / "results" / "chaos.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-results", action="store_true", help="Write benchmarks/results/chaos.json.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.chaos)


def pytest_configure(config: pytest.Config) -> None:
    shared: dict[str, Any] = {"database": None, "deadline": None, "print_blob": True}
    shared["suppress_health_check"] = list(hypothesis.HealthCheck)
    hypothesis.settings.register_profile("short", derandomize=True, **shared)
    hypothesis.settings.register_profile("full", **shared)
    hypothesis.settings.load_profile("full" if FULL else "short")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table, and keep it where that is asked for."""
    if not TALLY.parts:
        return
    for ending in ("passed", "failed", "error", "xfailed", "skipped"):
        for report in terminalreporter.stats.get(ending, []):
            if (name := Path(report.nodeid.partition("::")[0]).stem) in TALLY.parts:
                TALLY.parts[name].tests[ending] += 1
    terminalreporter.section("chaos")
    for line in TALLY.lines():
        terminalreporter.write_line(line)
    if terminalreporter.config.getoption("chaos_results"):
        TALLY.write(RESULTS)


@pytest.fixture(scope="module", autouse=True)
def counted(request: pytest.FixtureRequest, imported: None) -> Iterator[None]:
    """Count what the tests of a file do."""
    part, begun = TALLY.begin(request.node.path.stem), processor_seconds()
    yield
    part.seconds += processor_seconds() - begun


@pytest.fixture(scope="session", autouse=True)
def imported(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Do what commands do, once, before any is forked: imports, and what is made at the first use of a library."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # the threads of a pool do not live on in a fork
    import flawsmith.cli
    import flawsmith.nn.backbone
    import flawsmith.preflight.check
    import flawsmith.screening.replay  # noqa: F401
    from flawsmith.pipeline import run_all
    from flawsmith.run.folder import Run

    registry.get("generators", "controlnet_inpaint")
    config = load_config(None, {"data.root": parts.as_posix(), **TABLE})
    run_all(Run.create(tmp_path_factory.mktemp("warm") / "run", config))


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 64 pixels in the mvtec layout. Read them, do not write them."""
    root = tmp_path_factory.mktemp("parts")
    factory.write_dataset(root, "magnet", ("crack", "chip"), normals=4, per_defect=4, seed=1, size=64, test_normals=2)
    return root


@pytest.fixture(scope="session")
def finished(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all stages that nobody disturbed; beside it, the file `events` (see `Conditions`)."""
    return made_run(tmp_path_factory.mktemp("finished"), {"data.root": parts.as_posix(), **TABLE})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder for runs, beside files that no command may touch, which is checked when the test ends."""
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "victim.txt").write_text("alive")
    (tmp_path / "canary" / "000000.png").write_bytes(b"no picture")
    (tmp_path / "victim.txt").write_text("alive")
    home = tmp_path / "home"
    home.mkdir()
    canary = Canary(tmp_path, allowed=("home",))
    yield home
    assert canary.touched() == []


@pytest.fixture
def run(home: Path, finished: Path) -> Path:
    """A copy of the finished run; `home` is its only neighbour."""
    shutil.copytree(finished, home / "run")
    return home / "run"
