"""Label Studio's export as JSON (https://labelstud.io/guide/export): brush strokes, polygons and rectangles.

Of a task that people annotated, what they drew counts; of another one, its prediction, as in our own export.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from flawsmith.data.annotations.marked import Marked, MarkedPicture, read_tree, size_of
from flawsmith.data.annotations.polygons import filled
from flawsmith.data.annotations.run_lengths import unpacked
from flawsmith.errors import DataError

_DRAWN = ("brushlabels", "polygonlabels", "rectanglelabels")
_OTHER_DRAWN = ("ellipselabels", "keypointlabels", "vectorlabels", "bitmasklabels")


def is_label_studio(tree: Any) -> bool:
    """Tell Label Studio's export from other JSON."""
    return isinstance(tree, list) and bool(tree) and all(isinstance(one, dict) and "data" in one for one in tree)


def read(file: Path) -> dict[str, MarkedPicture]:
    """Return the pictures of an export, by their places in it.

    Raises:
        DataError: it is no such file, or holds shapes that are not read.
    """
    tree = read_tree(file)
    if not is_label_studio(tree):
        raise DataError(f"{file}: is no export of Label Studio as JSON (not JSON-MIN), a list of tasks with data")
    try:
        return {str(number): _picture(task, f"{file}: task {number}") for number, task in enumerate(tree)}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: is not written as Label Studio exports tasks ({error!r} is missing)") from None


def _picture(task: dict[str, Any], where: str) -> MarkedPicture:
    addresses = task["data"]
    address = addresses.get("image") or next((one for one in addresses.values() if isinstance(one, str)), "")
    annotations = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
    if len(annotations) > 1:
        raise DataError(f"{where} has {len(annotations)} annotations; keep the one that counts in Label Studio")
    # Label Studio's own export holds the numbers of predictions alone; whole ones stand in our export.
    layers = annotations or [one for one in task.get("predictions") or [] if isinstance(one, dict)][:1]
    marked: list[Marked] = []
    size = None
    for one in layers[0]["result"] if layers else ():
        kind, value = one.get("type", ""), one.get("value", {})
        if kind in _OTHER_DRAWN or value.get("rotation"):
            raise DataError(f"{where} holds {kind} that are not read; use the brush, polygons or upright rectangles")
        if kind not in _DRAWN:
            continue  # a choice or a text
        if one.get("image_rotation"):
            raise DataError(f"{where} was annotated on a turned picture; turn the picture itself")
        size = size_of(one.get("original_height"), one.get("original_width"))
        for defect in value[kind]:
            marked.append(Marked(str(defect), partial(_drawn, kind, value)))
    product = str((task.get("meta") or {}).get("product", ""))
    return MarkedPicture(_name(address), tuple(marked), size, product, str(task.get("id", "")), looked_at=bool(layers))


def _name(address: str) -> str:
    """Return the path of a picture in an address such as /data/local-files/?d=line1/x.png."""
    _, mark, behind = address.partition("?d=")
    return unquote(behind if mark else address.partition("://")[2] or address)


def _drawn(kind: str, value: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    if kind == "brushlabels":
        if value.get("format") != "rle":
            raise ValueError(f"its brush strokes are {value.get('format')!r} and not 'rle'")
        return unpacked(value["rle"], shape)
    if kind == "rectanglelabels":
        left, top, wide, high = (float(value[name]) for name in ("x", "y", "width", "height"))
        share = np.array([[left, top], [left + wide, top], [left + wide, top + high], [left, top + high]])
    else:
        share = np.asarray(value["points"], np.float64)
        if share.ndim != 2 or len(share) < 3:
            raise ValueError("a polygon needs three points or more")
    return filled(share / 100 * np.array(shape[::-1]), shape)
