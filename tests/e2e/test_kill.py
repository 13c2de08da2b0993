"""`kill -9` at any moment, the same command again: the results are those of a run that nobody touched, byte for byte.

Three kills by default; `FLAWSMITH_KILLS=20 pytest tests/e2e/test_kill.py` for the whole proof. A server process that
has imported everything forks a child for each command: the child is a process of its own and dies like one, but need
not import torch for seconds each time, in which there would be nothing to interrupt.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

KILLS = int(os.environ.get("FLAWSMITH_KILLS", "3"))
PATIENCE = 240.0
"""Seconds after which a child is given up."""

SERVER = """
import os, signal, sys
import diffusers, torch, transformers
import flawsmith.pipeline, flawsmith.generators.controlnet_inpaint, flawsmith.exports.mvtec
from diffusers import AutoencoderTiny, UNet2DConditionModel, DDIMScheduler, DPMSolverMultistepScheduler, ControlNetModel
from transformers import CLIPTextModel, CLIPTokenizer
from flawsmith import cli
torch.set_num_threads(1)
print("ready", flush=True)
for line in sys.stdin:
    words = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        # A shell that starts a job with & lets it ignore Ctrl-C; what is tested here is a command in the foreground.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(words[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.dup2(2, 1)
        sys.argv = ["flawsmith", *words[1:]]
        code = 1
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Child:
    """A running command."""

    def __init__(self, server: Server, words: list[str], log: Path) -> None:
        self._server, self._log = server, log
        server.say("\t".join([str(log), *words]))
        self.process = int(server.hear())
        self.begun = time.monotonic()

    def wait(self) -> int:
        """Return the exit code; -9 after a kill."""
        return int(self._server.hear())

    def wait_for(self, sign: Callable[[], bool]) -> None:
        """Return when the sign is seen or the command has ended."""
        while alive(self.process) and not sign():
            assert time.monotonic() - self.begun < PATIENCE, self.told()
            time.sleep(0.002)

    def kill(self) -> int:
        """Return the exit code: -9, or that of a command which ended before."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        return self.wait()

    def told(self) -> str:
        return self._log.read_text()


class Server:
    """See the module's text."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.hear() == "ready"

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    process = Server()
    yield process
    process.close()


@pytest.fixture(scope="module")
def settings(backbone_folder: Path, factory_root: Path) -> list[str]:
    table = {
        "data.root": factory_root,
        "data.shots": 2,
        "generator.name": "controlnet_inpaint",
        "backbone.source": backbone_folder,
        "backbone.dtype": "float32",
        "train.steps": 6,
        "train.views": 1,
        "train.batch": 2,
        "train.save_every": 2,
        "generate.count": 4,
        "generate.steps": 2,
        "generate.batch": 2,
        "generate.masks": "mixed",
        "measure.enabled": "false",
        "prove.enabled": "false",
    }
    return [word for key, value in table.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def undisturbed(server: Server, settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nobody touched, and how long it took."""
    here = tmp_path_factory.mktemp("undisturbed")
    child = Child(server, command(here, settings), here / "log")
    assert child.wait() == 0, child.told()
    return here / "run", time.monotonic() - child.begun


def command(here: Path, settings: list[str]) -> list[str]:
    (here / "empty.toml").write_text("")
    return ["run", str(here / "empty.toml"), "--out", str(here / "run"), *settings]


def results(run: Path) -> dict[str, bytes]:
    """Weights, plan, samples, export: what must be equal byte for byte."""
    found = {}
    for pattern in ("weights/**/*", "plan.jsonl", "samples*.jsonl", "samples/*", "export/**/*"):
        for path in run.glob(pattern):
            if path.is_file():
                found[path.relative_to(run).as_posix()] = path.read_bytes().replace(str(run).encode(), b"RUN")
    return found


def training(run: Path) -> bool:
    return any(run.glob("state/*/views.safetensors")) and not (run / "plan.jsonl").exists()


def between_models(run: Path) -> bool:
    return any(run.glob("state/*/learned.json")) and any(run.glob("state/*/views.safetensors"))


def generating(run: Path) -> bool:
    return any(run.glob("samples/*.png")) and not (run / "export").exists()


def mid_generating(run: Path) -> bool:
    path = run / "samples.jsonl"
    return path.exists() and path.read_bytes().count(b"\n") >= 6 and not (run / "export").exists()


def at_once(run: Path) -> bool:
    return True


def moments(dice: random.Random, seconds: float) -> Iterator[tuple[Callable[[Path], bool], float]]:
    """Yield (sign to wait for, seconds to let pass after it): a run is hit four times on its way, the next one at any
    time at all."""
    while True:
        for sign in (training, between_models, generating, mid_generating):
            yield sign, dice.uniform(0.0, 0.1) * seconds
        yield at_once, dice.uniform(0.05, 0.7) * seconds


def test_kill_minus_nine(server: Server, settings: list[str], undisturbed: tuple[Path, float], tmp_path: Path):
    """KILLS of them fall in training or generating; those before and after come on top."""
    good, seconds = undisturbed
    dice = random.Random(2)
    hit: list[str] = []
    # Each restart gets nearer to the end; then a fresh run takes the kills that are left.
    turn, here = 0, tmp_path / "0"
    here.mkdir()
    for sign, pause in moments(dice, seconds):
        child = Child(server, command(here, settings), here / "log")
        child.wait_for(lambda: sign(here / "run"))  # noqa: B023
        now = time.monotonic()
        child.wait_for(lambda: time.monotonic() - now >= pause)  # noqa: B023
        at = where(here / "run")
        code = child.kill()
        assert code in (-9, 0), child.told()
        hit.append(at if code else "never")
        if len([word for word in hit if word in ("training", "generating")]) >= KILLS:
            break
        if hit[-1] in ("after", "never") or sign is mid_generating:
            compare(server, settings, here, good)
            turn, here = turn + 1, tmp_path / str(turn + 1)
            here.mkdir()
    compare(server, settings, here, good)
    print("killed while", ", ".join(hit))
    assert {"training", "generating"} <= set(hit)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_control_c(number: signal.Signals, server: Server, settings: list[str], tmp_path: Path):
    # Long enough that it cannot end by itself first; a signal that falls into a callback of C code may be swallowed,
    # and a user then presses again.
    child = Child(server, command(tmp_path, [*settings, "--set", "train.steps=5000"]), tmp_path / "log")
    child.wait_for(lambda: training(tmp_path / "run"))
    for _ in range(20):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.process, number)
        pressed = time.monotonic()
        child.wait_for(lambda: time.monotonic() - pressed > 1)  # noqa: B023
        if not alive(child.process):
            break
    else:
        child.kill()
        pytest.fail(f"{number.name} was ignored for 20 seconds")
    assert child.wait() == 128 + number
    assert child.told().splitlines()[-1] == "flawsmith: stopped; the same command goes on from here"
    assert "Traceback" not in child.told()
    assert not list(tmp_path.rglob("*.part"))


def where(run: Path) -> str:
    if (run / "export").exists():
        return "after"
    if (run / "plan.jsonl").exists():
        return "generating"
    return (
        "training" if any(run.glob("state/*/views.safetensors")) or any(run.glob("state/*/learned.json")) else "before"
    )


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def compare(server: Server, settings: list[str], here: Path, good: Path) -> None:
    child = Child(server, command(here, settings), here / "log")
    assert child.wait() == 0, child.told()
    mine, theirs = results(here / "run"), results(good)
    assert sorted(mine) == sorted(theirs)
    assert [name for name in mine if mine[name] != theirs[name]] == []
    assert [path for path in (here / "run").rglob("*.part")] == []
    for name in ("log.jsonl", "samples.jsonl", "plan.jsonl"):
        for line in (here / "run" / name).read_text().splitlines():
            json.loads(line)


@pytest.fixture(scope="module")
def trained(undisturbed: tuple[Path, float]) -> Path:
    return undisturbed[0]


@pytest.mark.parametrize("together", [False, True], ids=["in-turn", "together"])
def test_shards_make_the_same_samples(
    together: bool, trained: Path, settings: list[str], server: Server, tmp_path: Path
):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for name in ("samples", "export", "report", "state"):
        shutil.rmtree(run / name)
    for name in ("samples.jsonl", "plan.jsonl", "report.html", "report.md"):
        (run / name).unlink()
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"] = {"train": manifest["stages"]["train"]}
    (run / "manifest.json").write_text(json.dumps(manifest))
    servers = [server, Server()] if together else [server, server]
    try:
        children = []
        for number, own in enumerate(servers):
            child = Child(own, ["generate", str(run), "--shard", f"{number}/2"], tmp_path / f"log{number}")
            if together:
                children.append(child)
            else:
                assert child.wait() == 0, child.told()
        for child in children:
            assert child.wait() == 0, child.told()
    finally:
        if together:
            servers[1].close()
    mine = {name: raw for name, raw in results(run).items() if name.startswith("samples/")}
    theirs = {name: raw for name, raw in results(trained).items() if name.startswith("samples/")}
    assert mine == theirs
    assert (run / "plan.jsonl").read_bytes() == (trained / "plan.jsonl").read_bytes()
    rows = [line for path in run.glob("samples.*-of-2.jsonl") for line in path.read_text().splitlines()]
    assert len(list(run.glob("samples.*-of-2.jsonl"))) == 2
    assert sorted(rows, key=index_of) == (trained / "samples.jsonl").read_text().splitlines()
    assert json.loads((run / "manifest.json").read_text())["stages"]["generate"]["samples"] > 0
    assert [path for path in run.rglob("*.part")] == []


def index_of(line: str) -> Any:
    return json.loads(line)["index"]
