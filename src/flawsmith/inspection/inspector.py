"""A delivered model at work: one picture in, its score, verdict, defect type and anomaly map out. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flawsmith.data.scaling import as_detectors_see, scaled
from flawsmith.errors import ConfigError, DataError
from flawsmith.inspection.model import INPUT, NETWORK, OPENVINO, Model, read_model

Runtime = Literal["onnxruntime", "openvino"]
Network = Callable[[np.ndarray], list[np.ndarray]]
"""From uint8 (N,3,R,C) to the outputs, in the order of `Model.outputs`; many threads may call it at once."""
_CHUNK = 4
"""Tiles that are looked at together."""


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What a model says of one picture."""

    score: float
    threshold: float | None
    """None = the model has none yet (`flawsmith calibrate` sets it)."""
    defect: str
    """The likeliest defect type, also of a picture that is called ok; "" = the model tells no types."""
    probability: float | None
    """Of that type, if there is damage."""
    anomaly_map: np.ndarray = field(repr=False)
    """float32 (R,C), at the size at which the picture was looked at; higher = more likely damaged."""

    @property
    def verdict(self) -> Literal["ok", "defect", ""]:
        """Return `defect` where the score lies above the threshold, else `ok`; "" without a threshold."""
        if self.threshold is None:
            return ""
        return "defect" if self.score > self.threshold else "ok"

    def map_of(self, shape: Sequence[int]) -> np.ndarray:
        """Return the anomaly map float32 at another size (rows, columns), such as the picture's own."""
        return scaled(self.anomaly_map, shape)


class Inspector:
    """A delivered model, loaded once; many threads may ask it at once.

    Args:
        folder: What `flawsmith deliver` wrote.
        runtime: What computes; openvino reads the IR in the folder, and needs the extra of that name.
        threads: Threads within one picture. To look at many, ask from many threads instead: that loses less.

    Raises:
        DataError: there is no model, or it is damaged.
        ConfigError: the runtime is not installed, or the model has no IR.
    """

    def __init__(self, folder: str | Path, runtime: Runtime = "onnxruntime", threads: int = 1) -> None:
        self.folder = Path(folder)
        self.model: Model = read_model(self.folder)
        makers = {"onnxruntime": _onnxruntime, "openvino": _openvino}
        if runtime not in makers:
            raise ConfigError(f"runtime: {runtime!r} is unknown; known: {', '.join(makers)}")
        self._run: Network = makers[runtime](self.folder, self.model, threads)

    def inspect(self, picture: np.ndarray, threshold: float | None = None) -> Inspection:
        """Look at one picture.

        Args:
            picture: As the camera gave it: (H,W) grey or (H,W,3) RGB, uint8, uint16 or float32.
            threshold: Instead of the model's own.

        Raises:
            DataError: it is no such array.
        """
        if picture.ndim not in (2, 3) or picture.ndim == 3 and picture.shape[2] != 3 or 0 in picture.shape:
            raise DataError(f"{picture.shape} is not the shape of a picture; (H,W) or (H,W,3) is")
        if picture.dtype not in (np.uint8, np.uint16, np.float32):
            raise DataError(f"{picture.dtype} pixels are not inspected; uint8, uint16 and float32 are")
        tiles = self.model.tiles
        if tiles is None:
            answers = self.outputs(as_detectors_see(picture, self.model.span, self.model.shape)[None])
            anomaly_map, loudest = answers["anomaly_map"][0, 0], 0
        else:
            whole = as_detectors_see(picture, self.model.span, tiles.size_of(picture.shape))
            grid = tiles.grid(whole.shape)
            answers = self.outputs(np.stack(grid.cut(whole)))
            anomaly_map, loudest = grid.joined(list(answers["anomaly_map"][:, 0])), int(answers["score"].argmax())
        defect, probability = "", None
        if "probabilities" in answers:
            row = answers["probabilities"][loudest]
            defect, probability = self.model.defects[int(row.argmax())], float(row.max())
        if threshold is None and self.model.threshold is not None:
            threshold = self.model.threshold.value
        return Inspection(float(answers["score"][loudest]), threshold, defect, probability, anomaly_map)

    def outputs(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Return all outputs of the network by name, for uint8 (N,R,C,3) pictures of the model's shape."""
        rows = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        parts = [self._run(rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK)]
        return {
            name: np.concatenate([part[number] for part in parts]) for number, name in enumerate(self.model.outputs)
        }

    def other_depth(self, picture: np.ndarray) -> bool:
        """Return whether a picture has other bits than those that the model learned from: its scores mean little."""
        return self.model.span.depth not in (0, picture.dtype.itemsize * 8)


def _package(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(f"{name} is not installed; `pip install 'flawsmith[{extra}]'` brings it") from None


def _onnxruntime(folder: Path, model: Model, threads: int) -> Network:
    runtime = _package("onnxruntime", "inspect")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(folder / NETWORK), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class for each way in which a file can be wrong
        raise DataError(
            f"{folder / NETWORK}: onnxruntime cannot load it ({str(error).splitlines()[0][:160]})"
        ) from None
    names = list(model.outputs)
    return lambda rows: list(session.run(names, {INPUT: rows}))


def _openvino(folder: Path, model: Model, threads: int) -> Network:
    runtime, path = _package("openvino", "openvino"), folder / OPENVINO
    if not path.is_file():
        raise ConfigError(f"{path}: there is no IR; deliver again where the extra openvino is installed")
    # Left alone, it computes in bfloat16 where the processor can, which moves scores.
    exact = {"INFERENCE_NUM_THREADS": max(1, threads), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = runtime.Core().compile_model(str(path), "CPU", exact)

    def run(rows: np.ndarray) -> list[np.ndarray]:
        request = compiled.create_infer_request()
        answers = request.infer({INPUT: rows})
        return [np.array(answers[name]) for name in model.outputs]

    return run
