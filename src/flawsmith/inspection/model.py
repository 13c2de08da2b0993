"""A delivered model on disk: what its folder holds, and the records in it. Needs no torch.

model.onnx         extractor, memory, heads, map and score as one network
openvino/          the same as OpenVINO IR, where that was installed when it was delivered
model.json         Model: how pictures become its input, what its outputs mean, the threshold
held_out.json      HeldOut: scores of photographs that it has not learned from
learned_from.json  every picture that it has learned from, by a hash of its pixels
MODEL_CARD.md      all of that in words
example.py         how to run it without flawsmith
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from flawsmith.data.inspection_tiles import Tiles
from flawsmith.errors import DataError, RunError
from flawsmith.evaluation.calibration import conformal_threshold, least_rate, rate_range
from flawsmith.files import file_digest, read_json, reading, write_json
from flawsmith.types import Range

FORMAT = 1
NETWORK, RECORD, HELD_OUT, LEARNED_FROM = "model.onnx", "model.json", "held_out.json", "learned_from.json"
CARD, EXAMPLE, OPENVINO = "MODEL_CARD.md", "example.py", "openvino/model.xml"
_FILES = (NETWORK, RECORD, HELD_OUT, LEARNED_FROM, CARD, EXAMPLE)
_PIXELS = 1 << 24
"""Of all calibration normals' maps together, at most; more are thinned evenly, so that they fit in memory."""
INPUT = "picture"
Output = Literal["anomaly_map", "score", "probabilities"]
CONFIDENCE = 0.95
"""Of the intervals of rates."""
QUIET_PIXELS = 0.999
"""Share of the calibration normals' pixels that lie below `Threshold.anomaly_map`."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Threshold:
    """Above which score a picture is called defective, and what that promises."""

    value: float
    false_alarm_rate: float
    """What was asked for: the share of normal parts that may raise an alarm."""
    kept_rate: float
    """What so many calibration normals can keep: the same, or more where they are few."""
    rate_low: float
    rate_high: float
    """Between these the true rate lies (95 %), for chance chose the calibration normals."""
    normals: int
    """Calibration normals."""
    source: str
    """Where they come from."""
    set_at: str
    """When, UTC."""
    anomaly_map: float
    """Which value one in a thousand of their pixels exceeds: from there on an overlay shows the map."""


@dataclass(frozen=True, slots=True)
class Model:
    """How a delivered network is used."""

    format: int
    flawsmith: str
    """Version that delivered it."""
    stamp: str
    """Identifies what it was made from: equal stamps, nothing to do."""
    network: str
    """Hash of model.onnx."""
    opset: int
    detector: str
    product: str
    defects: tuple[str, ...]
    """In the order of the probabilities."""
    outputs: tuple[Output, ...]
    """In the order of the network's outputs. anomaly_map float32 (N,1,R,C), score (N,), probabilities (N,K)."""
    shape: tuple[int, int]
    """Rows and columns of the input, uint8 (N,3,R,C)."""
    colour: Literal["RGB"]
    """Order of the input's channels; of a grey picture all three are equal."""
    span: Range
    """Which native values become 0 and 255."""
    tiles: Tiles | None
    """How a photograph is cut into pictures of `shape`; None = it is scaled to it."""
    extractor: str
    extractor_fingerprint: str
    """First 12 hex digits of the SHA-256 of its weights."""
    learned_from: dict[str, int]
    """How many pictures of which kind; learned_from.json names them."""
    learned_from_hash: str
    """Hash of learned_from.json."""
    agreement: dict[str, float]
    """How the network under onnxruntime agrees with torch."""
    threshold: Threshold | None
    """None = there were too few normal photographs to set one."""
    history: tuple[Threshold, ...] = ()
    """Thresholds that were replaced, the oldest first."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Scores of photographs that the delivered network has not learned from."""

    source: str
    """Which photographs, and which part of the detector scored them; "" = there are none."""
    defects: dict[str, tuple[float, ...]]
    normals: tuple[float, ...] = ()


def read_model(folder: Path) -> Model:
    """Read model.json of a delivered model.

    Raises:
        DataError: there is none, or it belongs to a later release or to another model.onnx.
    """
    folder = Path(folder)
    path = folder / RECORD
    if not path.is_file():
        inner = sorted(one.parent.name for one in folder.glob(f"*/{RECORD}")) if folder.is_dir() else []
        if inner:
            raise DataError(f"{folder}: holds a model for each product; name one of them: {', '.join(inner)}")
        raise DataError(f"{folder}: holds no delivered model ({RECORD} is missing); `flawsmith deliver RUN` writes one")
    tree = _json(path)
    if tree.get("format") != FORMAT:
        raise DataError(f"{path}: is of format {tree.get('format')!r}, and this release reads {FORMAT}; deliver anew")
    model = _record(Model, tree, path)
    if file_digest(folder / NETWORK) != model.network:
        raise DataError(f"{folder / NETWORK}: is missing, or is not the one that {RECORD} describes; deliver anew")
    return model


def is_whole(folder: Path) -> bool:
    """Return whether all files of a delivered model are there; OpenVINO's only where it is installed."""
    asked = _FILES if find_spec("openvino") is None else (*_FILES, OPENVINO)
    return all((folder / name).is_file() for name in asked)


def strangers(folder: Path) -> str | None:
    """Return the name of something in a folder that no delivery wrote; None = there is nothing but delivered models.

    Hidden files, such as a file manager's, do not count.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        return folder.name
    known = {*_FILES, OPENVINO.partition("/")[0]}
    for one in sorted(folder.iterdir()):
        if one.name.startswith(".") or (one.name in known and (folder / RECORD).is_file()):
            continue
        if (folder / RECORD).is_file() or not (one / RECORD).is_file():
            return one.name
        if (alien := strangers(one)) is not None:
            return f"{one.name}/{alien}"
    return None


def write_model(folder: Path, model: Model) -> None:
    """Write model.json, whole or not at all."""
    write_json(folder / RECORD, asdict(model))


def read_held_out(folder: Path) -> HeldOut:
    """Read held_out.json of a delivered model."""
    return _record(HeldOut, _json(folder / HELD_OUT), folder / HELD_OUT)


def learned_hashes(folder: Path) -> frozenset[str]:
    """Return the pixel hashes of all pictures that a delivered model has learned from."""
    path = folder / LEARNED_FROM
    tree = _json(path)
    with reading(path, "copy the model again, or deliver it anew"):
        return frozenset(str(row["pixels"]) for row in tree["pictures"])


def subsample(anomaly_map: np.ndarray, count: int) -> np.ndarray:
    """Return a map's pixels, float32 (N,), as many as each of `count` calibration normals may keep in memory."""
    flat = anomaly_map.ravel()
    return flat[:: -(-flat.size * count // _PIXELS) or 1].copy()


def threshold_of(scores: Sequence[float], maps: Sequence[np.ndarray], rate: float, source: str) -> Threshold:
    """Return the threshold that keeps a false-alarm rate; see `evaluation.calibration`.

    Args:
        scores: Of calibration normals, one or more.
        maps: Pixels of their anomaly maps (`subsample`), float32 of any shape each.
        rate: Above 0 and below 0.5.
        source: Where the calibration normals come from, in words.
    """
    count = len(scores)
    low, high = rate_range(count, rate, CONFIDENCE)
    return Threshold(
        value=conformal_threshold(np.asarray(scores, np.float64), rate),
        false_alarm_rate=rate,
        kept_rate=round(max(rate, least_rate(count)), 6),
        rate_low=round(low, 6),
        rate_high=round(high, 6),
        normals=count,
        source=source,
        set_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        anomaly_map=float(np.quantile(np.concatenate([one.ravel() for one in maps]), QUIET_PIXELS)),
    )


def require_rate(rate: float, where: str) -> None:
    """Refuse a false-alarm rate that is none.

    Raises:
        DataError: it is not above 0 and below 0.5.
    """
    if not 0 < rate < 0.5:
        raise DataError(f"{where}: a false-alarm rate lies above 0 and below 0.5, such as 0.05, not {rate:g}")


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except RunError as error:
        raise DataError(f"{str(error).partition(';')[0]}; copy the model again, or deliver it anew") from None


def _record(of: type[T], tree: Mapping[str, Any], path: Path) -> T:
    try:
        return TypeAdapter(of).validate_json(json.dumps(tree))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"]) or "it"
        raise DataError(f"{path}: {place}: {first['msg'].lower()}; copy the model again, or deliver it anew") from None
