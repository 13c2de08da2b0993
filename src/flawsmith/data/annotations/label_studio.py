"""Label Studio's export as JSON (https://labelstud.io/guide/export): brush strokes, polygons and rectangles.

Of a task that people annotated, what they drew counts; of another one, its prediction, as in our own export.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from flawsmith.data.annotations.marked import Marked, MarkedPicture, name_of, read_tree, size_of
from flawsmith.data.annotations.polygons import filled
from flawsmith.data.annotations.run_lengths import unpacked
from flawsmith.errors import DataError

_OTHER_DRAWN = ("ellipselabels", "keypointlabels", "vectorlabels", "bitmasklabels")
_LABELS = ("labels", "brushlabels", "polygonlabels", "rectanglelabels")
"""Where the names of damage stand: beside the outline, or, of `labels`, in a result of its own with the same id."""
_FORMS = {"brush": {"rle"}, "polygon": {"points"}, "rectangle": {"x", "y", "width", "height"}}
"""What is drawn -> the values that draw it."""
_OTHER_FORMS = {"x", "radiusX", "vertices", "imageDataURL"}
"""Values of what is drawn in another way: ellipses, points, vectors, bitmasks."""


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
    regions: dict[str, _Region] = {}
    choices: list[str] = []
    size = None
    for number, one in enumerate(layers[0]["result"] if layers else ()):
        kind, value = one.get("type", ""), one.get("value") or {}
        form = next((form for form, values in _FORMS.items() if value.keys() >= values), "")
        drawn = bool(form or kind in _LABELS[1:] or value.keys() & _OTHER_FORMS)
        if kind in _OTHER_DRAWN or (drawn and not form) or value.get("rotation"):
            raise DataError(f"{where} holds {kind} that are not read; use the brush, polygons or upright rectangles")
        if drawn and one.get("image_rotation"):
            raise DataError(f"{where} was annotated on a turned picture; turn the picture itself")
        # The results of one region have one id: its outline, its label, what was chosen or written for it.
        region = regions.setdefault(str(one.get("id") or f"result {number}"), _Region())
        region.labels |= dict.fromkeys(name_of(name) for key in _LABELS for name in value.get(key) or ())
        if drawn:
            region.form, region.value = form, value
            size = size_of(one.get("original_height"), one.get("original_width"))
        else:
            choices += [str(name) for key in ("choices", "taxonomy") for name in value.get(key) or ()]
    marked: list[Marked] = []
    for region in regions.values():
        if region.form and not region.labels:
            raise DataError(f"{where}: a {region.form} has no label; give it one in Label Studio, or delete it")
        if region.form:
            marked += [Marked(defect, partial(_drawn, region.form, region.value)) for defect in region.labels]
    product = str((task.get("meta") or {}).get("product", ""))
    return MarkedPicture(
        _name(address), tuple(marked), size, product, str(task.get("id", "")), bool(layers), tuple(choices)
    )


@dataclass(slots=True)
class _Region:
    """What the results of one region say together."""

    form: str = ""
    """A key of `_FORMS`; "" = nothing is drawn."""
    value: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, None] = field(default_factory=dict)


def _name(address: str) -> str:
    """Return the path of a picture in an address such as /data/local-files/?d=line1/x.png."""
    _, mark, behind = address.partition("?d=")
    return unquote(behind if mark else address.partition("://")[2] or address)


def _drawn(form: str, value: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    if form == "brush":
        if value.get("format") != "rle":
            raise ValueError(f"its brush strokes are {value.get('format')!r} and not 'rle'")
        return unpacked(value["rle"], shape)
    if form == "rectangle":
        left, top, wide, high = (float(value[name]) for name in ("x", "y", "width", "height"))
        share = np.array([[left, top], [left + wide, top], [left + wide, top + high], [left, top + high]])
    else:
        share = np.asarray(value["points"], np.float64)
        if share.ndim != 2 or len(share) < 3:
            raise ValueError("a polygon needs three points or more")
    return filled(share / 100 * np.array(shape[::-1]), shape)
