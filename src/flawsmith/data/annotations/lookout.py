"""AWS manifests, as Lookout for Vision and SageMaker Ground Truth write them: JSON lines that name coloured masks.

https://docs.aws.amazon.com/lookout-for-vision/latest/developer-guide/manifest-file-segmentation.html

A line names a picture (`source-ref`), says whether it is normal (`anomaly-label`), and names a PNG (`anomaly-mask-ref`)
with the class of each of its colours (`internal-color-map`). Ground Truth calls the last two after its job, so they are
known by what their metadata say.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np

from flawsmith.data import images
from flawsmith.data.annotations.marked import Marked, MarkedPicture, text_of
from flawsmith.data.codecs.label import decode_label
from flawsmith.errors import DataError
from flawsmith.paths import open_file

_METADATA = "-metadata"
_NORMAL, _ANOMALY, _BACKGROUND = "normal", "anomaly", "background"


@dataclass(frozen=True, slots=True)
class Line:
    """What a line of a manifest says."""

    where: str
    """File and line, for sentences."""
    picture: str
    """Address of the picture."""
    damaged: str | None
    """What its label says: a class, "" = normal, None = the line has no label."""
    mask: str
    """Address of its mask; "" = it has none."""
    colours: str
    """What the mask's colours mean, as `coloured` takes it."""


def is_manifest(file: Path) -> bool:
    """Tell a manifest by its first line."""
    try:
        with io.TextIOWrapper(open_file(file), encoding="utf-8-sig") as stream:
            first = json.loads(next((line for line in stream if line.strip()), ""))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "source-ref" in first


def lines_of(file: Path) -> list[Line]:
    """Return the lines of a manifest.

    Raises:
        DataError: it cannot be read, or a line is not as AWS writes them.
    """
    try:
        texts = text_of(file).split("\n")
    except UnicodeDecodeError:
        raise DataError(f"{file}: cannot be read as text; fetch it again") from None
    return [_line(text, f"{file}: line {number}") for number, text in enumerate(texts, start=1) if text.strip()]


def _line(text: str, where: str) -> Line:
    try:
        tree = json.loads(text)
        picture = tree["source-ref"]
        described = {
            key.removesuffix(_METADATA): value
            for key, value in tree.items()
            if key.endswith(_METADATA) and isinstance(value, dict)
        }
        masks = {key: value["internal-color-map"] for key, value in described.items() if "internal-color-map" in value}
        labels = {
            key: _class(tree[key], value)
            for key, value in described.items()
            if key == "anomaly-label" or value.get("type") == "groundtruth/image-classification"
        }
        if bare := [key for key in tree if key.endswith("-ref") and key not in ("source-ref", *masks)]:
            raise DataError(
                f"{where}: {bare[0]} has no internal-color-map beside it; add {bare[0]}{_METADATA} with one"
            )
        if len(masks) > 1 or len(labels) > 1:
            raise DataError(f"{where} has several {'masks' if len(masks) > 1 else 'labels'}; keep the one that counts")
        label = next(iter(labels.values()), None)
        for key, classes in masks.items():
            return Line(where, str(picture), label, str(tree[key]), _meaning(classes, where))
        return Line(where, str(picture), label, "", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{where} is not written as AWS writes manifests ({type(error).__name__}: {reason})") from None


def _class(label: Any, metadata: Mapping[str, Any]) -> str:
    """Return the class that a label says; "" = normal."""
    name = str(metadata.get("class-name") or "")
    if name.casefold() == _NORMAL or (name.casefold() != _ANOMALY and int(label) == 0):
        return ""
    return name or _ANOMALY


def _meaning(classes: Mapping[str, Mapping[str, str]], where: str) -> str:
    """Return what colours mean as text: `ffffff=&2ca02c=scratch`; the background has no name."""
    colours: dict[str, str] = {}
    for one in classes.values():
        name, colour = one["class-name"], one["hex-color"].lower().removeprefix("#")
        int(colour, 16)
        if colour in colours:
            raise DataError(f"{where} gives the colour #{colour} to two classes; give each its own")
        colours[colour] = "" if name.casefold() == _BACKGROUND else name
    return urlencode(colours)


def coloured(file: Path, meaning: str) -> MarkedPicture:
    """Return what a coloured mask marks.

    Args:
        file: The mask.
        meaning: What its colours mean, see `Line.colours`.

    Raises:
        DataError: it cannot be read, or holds a colour of no class.
    """
    classes = {int(colour, 16): name for colour, name in parse_qsl(meaning, keep_blank_values=True)}
    colours = _colours(file)
    known = {colour: int(np.count_nonzero(colours == colour)) for colour in classes}
    if sum(known.values()) < np.count_nonzero(colours >= 0):
        other = int(colours[(colours >= 0) & ~np.isin(colours, list(classes))][0])
        raise DataError(
            f"{file}: holds the colour #{other:06x}, of which the manifest's internal-color-map says nothing; correct "
            "the map, or store the mask as PNG without soft edges"
        )
    marked = tuple(
        Marked(name, partial(_drawn, file, colour)) for colour, name in classes.items() if name and known[colour]
    )
    return MarkedPicture("", marked, (colours.shape[0], colours.shape[1]))


def _drawn(file: Path, colour: int, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(_colours(file) == colour)


def _colours(file: Path) -> np.ndarray:
    """Return the colours of a mask: int32 (H,W), 0xRRGGBB; -1 = transparent, which is background."""
    label = images.with_reasons(file, lambda stream: decode_label(stream.read()))
    values = label.values if label.palette is None else label.palette[label.values]
    if values.dtype != np.uint8:
        raise DataError(f"{file}: has {8 * values.dtype.itemsize} bits per channel, and colours of a manifest have 8")
    wide = values.astype(np.int32)
    colours = wide * 0x010101 if wide.ndim == 2 else wide @ np.array([1 << 16, 1 << 8, 1], np.int32)
    return np.asarray(colours if label.alpha is None else np.where(label.alpha > 0, colours, -1))
