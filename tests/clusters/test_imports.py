"""A run with a generator of pixels loads no diffusion, and its first pair is there soon."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import json, os, sys, time
begun = time.process_time()
import torch
costs = time.process_time() - begun
from flawsmith.data import images

first = []
write = images.write_mask

def write_mask(*args, **kwargs):
    write(*args, **kwargs)
    first.append(time.process_time())

images.write_mask = write_mask
from flawsmith.cli import main
try:
    main()
except SystemExit:
    pass
slow = "diffusers", "transformers", "tokenizers", "accelerate", "scipy.stats"
loaded = [name for name in slow if name in sys.modules]
print(json.dumps({"loaded": loaded, "first": first[0] / costs}))
"""
MOST = 3.0
"""CPU time from the start of Python to the first mask, which is written after its picture: times that of torch alone.

Both are measured in one process, for seconds differ from machine to machine and with what else runs there.
"""


@pytest.mark.parametrize("generator", ["crop_paste", "patch_synthesis"])
def test_a_run_loads_no_diffusion_and_soon_has_a_pair(generator: str, factory_root: Path, tmp_path: Path) -> None:
    settings = [f"data.root={factory_root}", 'data.products=["screw"]', "data.shots=2", f"generator.name={generator}"]
    settings += ["generate.count=1", "generate.controls=0", "measure.enabled=false", "prove.enabled=false"]
    (tmp_path / "run.toml").write_text("")
    words = ["run", str(tmp_path / "run.toml"), "--out", str(tmp_path / "run"), "--until", "generate"]
    words += [word for setting in settings for word in ("--set", setting)]
    ended = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout.splitlines()[-1])
    assert measured["loaded"] == []
    assert measured["first"] <= MOST
