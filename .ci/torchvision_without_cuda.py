"""Lets the torchvision of PyPI, built for CUDA, be imported beside the CPU build of torch.

Its compiled part then finds no libc10_cuda.so and registers no operator, so `import torchvision` stops where it
describes the first: "operator torchvision::nms does not exist". This declares those operators before. Models and
transforms then work; `torchvision.ops.nms`, `torchvision.io` and whatever else is compiled do not.

It is for environments of tests alone: `make anomalib` puts it into .venv-anomalib where torchvision cannot be imported
otherwise, and Python loads it at its start. A torch and a torchvision that fit each other never need it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _BeforeTorchvision(MetaPathFinder):
    """Defines the operators when torchvision is imported for the first time, so that nothing else waits for torch."""

    library: object = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "torchvision" and self.library is None:
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, _BeforeTorchvision())
