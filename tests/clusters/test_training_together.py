"""One model, two processes: torchrun starts them on this machine's processor, gloo adds their gradients up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SETTINGS: dict[str, Any] = {
    "data.product": "magnet",
    "data.shots": 2,
    "generator.name": "controlnet_inpaint",
    "backbone.dtype": "float32",
    "backbone.device": "cpu",
    "train.scope": "product",
    "train.steps": 6,
    "train.views": 3,
    "train.batch": 5,  # three windows for one, two for the other
    "train.save_every": 4,
    "windows.size": 64,
}
LOSS = {"rtol": 1e-5, "atol": 1e-6}
"""Sums of 5 windows' float32 losses in another order: a few times 2^-24, over 6 steps."""


def trained(out: Path, processes: int, **changes: Any) -> subprocess.CompletedProcess[str]:
    config = out.parent / f"{out.name}.toml"
    config.write_text("")
    settings = {**SETTINGS, **changes}
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    launched = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    verb = ["-m", "flawsmith", "train", str(config), "--out", str(out), *sets]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *(launched if processes > 1 else []), *verb]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def places(factory_root: Path, backbone_folder: Path) -> dict[str, str]:
    return {"data.root": str(factory_root), "backbone.source": str(backbone_folder)}


def test_two_processes_learn_what_one_learns(places: dict[str, str], tmp_path: Path) -> None:
    for count in (1, 2):
        ended = trained(tmp_path / f"by-{count}", count, **places)
        assert ended.returncode == 0, ended.stderr
    one, two = (json.loads((tmp_path / f"by-{n}/weights/magnet/losses.json").read_text())["losses"] for n in (1, 2))
    assert len(one) == SETTINGS["train.steps"] and len(set(one)) == len(one)
    torch.testing.assert_close(torch.tensor(two), torch.tensor(one), **LOSS)
    weights = [load_file(next((tmp_path / f"by-{n}/weights/magnet").glob("*.safetensors"))) for n in (1, 2)]
    assert weights[0].keys() == weights[1].keys()
    # AdamW divides by the size of a gradient: one that is nearly nothing decides a step's direction by its rounding.
    # Six steps of at most 2e-4 each could move a weight by 1e-3.
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-4)
    state = tmp_path / "by-2" / "state" / "magnet"
    assert not list(state.glob("*.safetensors")), "the checkpoint and the views are still there"
    assert json.loads((tmp_path / "by-2/manifest.json").read_text())["stages"]["train"]["finished"]


def test_a_batch_too_small_to_share_is_one_sentence(places: dict[str, str], tmp_path: Path) -> None:
    ended = trained(tmp_path / "run", 2, **places, **{"train.batch": 1})
    assert ended.returncode != 0
    assert "train.batch: 1 windows cannot be shared by 2 processes" in ended.stderr


ENDS = """
from pathlib import Path
import torch
from flawsmith.nn.processes import Processes

processes = Processes("cpu")
weight = torch.nn.Parameter(torch.ones(4))
optimizer = torch.optim.AdamW([weight])
weight.sum().backward()
processes.add([weight.grad], 1.0)
optimizer.step()
processes.end()
names = [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
Path(f"names-{processes.number}").write_text(" ".join(names))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_nothing_of_the_group_outlives_its_end(tmp_path: Path) -> None:
    """One thread of gloo's at the interpreter's end now and then is a SIGABRT after all work was done."""
    (tmp_path / "ends.py").write_text(ENDS)
    launched = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "ends.py"]
    ended = subprocess.run([sys.executable, *launched], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    for number in range(2):
        assert "gloo" not in (tmp_path / f"names-{number}").read_text()
