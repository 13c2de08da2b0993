"""labelme's file beside a picture (https://github.com/wkentaro/labelme): polygons, masks and the other shapes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flawsmith.data.annotations.marked import Marked, MarkedPicture, name_of, read_tree, size_of
from flawsmith.data.annotations.polygons import filled, outlined
from flawsmith.errors import DataError

_ROUND = np.linspace(0, 2 * np.pi, 256, endpoint=False)


def is_labelme(tree: Any) -> bool:
    """Tell labelme's file from other JSON."""
    return isinstance(tree, dict) and isinstance(tree.get("shapes"), list)


def read(file: Path) -> dict[str, MarkedPicture]:
    """Return the one picture of a file, under "".

    Raises:
        DataError: it is no such file.
    """
    tree = read_tree(file)
    if not is_labelme(tree):
        raise DataError(f"{file}: is no file of labelme, which holds shapes")
    try:
        # Shapes of one label with one group are the pieces of one object.
        objects: dict[tuple[str, Any], list[dict[str, Any]]] = {}
        for number, one in enumerate(tree["shapes"]):
            group = one.get("group_id")
            objects.setdefault((name_of(one["label"]), f"shape {number}" if group is None else group), []).append(one)
        marked = tuple(Marked(label, partial(_united, shapes)) for (label, _), shapes in objects.items())
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: is not written as labelme's files are ({error!r} is missing)") from None
    size = size_of(tree.get("imageHeight"), tree.get("imageWidth"))
    return {"": MarkedPicture(str(tree.get("imagePath") or ""), marked, size)}


def _united(shapes: Sequence[dict[str, Any]], shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(np.logical_or.reduce([_drawn(one, shape) for one in shapes]))


def _drawn(one: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    kind = one.get("shape_type") or "polygon"
    points = np.asarray(one.get("points", []), np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"a {kind} has no points")
    if kind == "mask":
        return _stamped(one.get("mask"), points[0], shape)
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return filled(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]), shape)
    if kind == "circle" and len(points) == 2:
        radius = np.hypot(*(points[1] - points[0]))
        return filled(points[0] + radius * np.stack([np.cos(_ROUND), np.sin(_ROUND)], axis=1), shape)
    if kind in ("line", "linestrip"):
        return outlined(points, shape, closed=False)
    if kind in ("point", "points"):
        mask = np.zeros(shape, bool)
        for point in points:
            mask |= outlined(point[None], shape)
        return mask
    if kind in ("polygon", "oriented_rectangle") and len(points) >= 3:
        return filled(points, shape)
    raise ValueError(f"a {kind} with {len(points)} points is not read; draw a polygon")


def _stamped(text: Any, corner: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask that stands as PNG in the text, its upper left pixel at a corner."""
    try:
        stored = np.frombuffer(base64.b64decode(text), np.uint8)
        patch = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)
    except (TypeError, ValueError, cv2.error):
        patch = None
    left, top = np.rint(corner).astype(int)
    if patch is None or patch.ndim != 2 or min(left, top) < 0:
        raise ValueError("a mask is no PNG inside the picture")
    mask = np.zeros(shape, bool)
    height, width = patch.shape
    if top + height > shape[0] or left + width > shape[1]:
        raise ValueError("a mask reaches out of the picture")
    mask[top : top + height, left : left + width] = patch > 0
    return mask
