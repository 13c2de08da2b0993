"""From a trained detector to files that run without torch: ONNX, and OpenVINO IR where that is installed."""

from __future__ import annotations

import copy
import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flawsmith.errors import ConfigError, RunError
from flawsmith.inspection.inspector import Inspector
from flawsmith.inspection.model import INPUT, NETWORK, OPENVINO, Output
from flawsmith.interfaces import Detector

OPSET = 18
"""The first in which all that detectors need has one meaning; runtimes of 2023 and later read it."""
CLOSE, CLOSE_SHARE = 1e-4, 0.999
"""At least this share of an anomaly map's pixels lies so near to torch's. Where two remembered patches lie equally
near, rounding decides which one is the nearest."""
_OUTPUTS: dict[str, Output] = {
    "localization": "anomaly_map",
    "detection": "score",
    "classification": "probabilities",
}
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class _FromBytes(nn.Module):
    """Puts pictures as a camera's software has them before a detector's graph."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.detector = graph  # torch.export itself has an attribute of the name graph

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        answers: tuple[Tensor, ...] = self.detector(picture.float() / 127.5 - 1)
        return answers


def require_packages() -> None:
    """Refuse to deliver where a package is missing.

    Raises:
        ConfigError: names what to install.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ConfigError(f"deliver needs {', '.join(missing)}; `pip install 'flawsmith[deliver]'` brings all of it")


def outputs_of(detector: Detector) -> tuple[Output, ...]:
    """Return the names of the outputs of a detector's graph, in their order."""
    return tuple(name for task, name in _OUTPUTS.items() if task in detector.tells)


def network_of(detector: Detector) -> nn.Module:
    """Return a copy of what a detector has learned, from uint8 (N,3,R,C) RGB to its outputs, on the processor.

    Raises:
        ConfigError: the detector has no graph.
    """
    return _FromBytes(copy.deepcopy(detector.graph()).cpu()).eval().requires_grad_(False)


def write_network(network: nn.Module, outputs: tuple[Output, ...], shape: tuple[int, int], folder: Path) -> None:
    """Write model.onnx, and openvino/model.xml where OpenVINO is installed.

    Raises:
        RunError: torch cannot write this network as ONNX.
    """
    example = torch.zeros((2, 3, *shape), dtype=torch.uint8)
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
            assert program is not None
            program.save(str(folder / NETWORK))
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{folder / NETWORK}: torch cannot write this detector as ONNX ({reason})") from None
    if find_spec("openvino") is not None:
        openvino = importlib.import_module("openvino")
        (folder / OPENVINO).parent.mkdir(exist_ok=True)
        openvino.save_model(openvino.convert_model(folder / NETWORK), folder / OPENVINO, compress_to_fp16=False)


def agreement(network: nn.Module, inspector: Inspector, pictures: np.ndarray) -> dict[str, float]:
    """Return how the files agree with torch on uint8 (N,R,C,3) pictures.

    Raises:
        RunError: they do not.
    """
    answers = inspector.outputs(pictures)
    rows = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    with torch.inference_mode():
        parts = [network(one) for one in rows.split(1)]
    torchs = {
        name: torch.cat([part[number] for part in parts]).numpy() for number, name in enumerate(inspector.model.outputs)
    }
    near = float((np.abs(answers["anomaly_map"] - torchs["anomaly_map"]) <= CLOSE).mean())
    if near < CLOSE_SHARE:
        raise RunError(
            f"the network as ONNX differs from torch by more than {CLOSE:g} on {100 * (1 - near):.2g} % of the pixels "
            f"of {len(pictures)} pictures, so it is not delivered; is torch or onnxruntime of an untried version?"
        )
    return {
        "pictures": len(pictures),
        "pixels_within_1e-4": round(near, 6),
        "largest_map_difference": float(np.abs(answers["anomaly_map"] - torchs["anomaly_map"]).max()),
        "largest_score_difference": float(np.abs(answers["score"] - torchs["score"]).max()),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch's exporter warns of and logs about itself from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
