"""A generator whose process or machine dies in the middle of a batch, once, when a test has asked for that.

It paints as crop_paste does. DEATHS names a folder: whoever takes the file `worker` away there kills its own process,
whoever takes `node` away kills the raylet of a node that is not the head. `painted` there has a line for each sample.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from flawsmith.generators.crop_paste import CropPaste
from flawsmith.types import Condition, Generated

DEATHS = Path(os.environ["FLAWSMITH_TEST_DEATHS"])
LONGEST_WAIT = 120.0
_calls = 0


class Dying(CropPaste):
    """crop_paste, on a machine that dies."""

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        global _calls
        _calls += 1
        with open(DEATHS / "painted", "a") as file:
            file.write(f"{os.getpid()} {' '.join(map(str, seeds))}\n")
        # The second sample of the process: the first of its batch is on disk already, and the batch is not done.
        if _calls > 1 and _taken("worker"):
            os.kill(os.getpid(), signal.SIGKILL)
        if (DEATHS / "node").exists():
            if _on_head():  # else the head, which is up first, would paint everything
                begun = time.monotonic()
                while (DEATHS / "node").exists() and time.monotonic() - begun < LONGEST_WAIT:
                    time.sleep(0.05)
            elif _calls > 1 and _taken("node"):
                os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)  # a node's processes die with it
        return super().sample(asked, seeds, steps=steps, guidance=guidance)


def _taken(name: str) -> bool:
    try:
        (DEATHS / name).unlink()
    except FileNotFoundError:
        return False
    return True


def _on_head() -> bool:
    import ray

    here = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == here and "node:__internal_head__" in node["Resources"] for node in ray.nodes())
