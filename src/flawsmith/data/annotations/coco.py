"""COCO's annotation file (https://cocodataset.org/#format-data): polygons, run lengths, and run lengths as text.

`iscrowd` makes no difference: some writers set it wherever a mask has holes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith.data.annotations.marked import Marked, MarkedPicture, name_of, read_tree, size_of
from flawsmith.data.annotations.polygons import filled
from flawsmith.data.annotations.run_lengths import decompressed, mask_of
from flawsmith.errors import DataError


def is_coco(tree: Any) -> bool:
    """Tell COCO's file of annotated pictures from other JSON."""
    return isinstance(tree, dict) and all(isinstance(tree.get(name), list) for name in ("images", "annotations"))


def read(file: Path) -> dict[str, MarkedPicture]:
    """Return the pictures of an annotation file by their number in it.

    Raises:
        DataError: it is no such file, or says nothing that can be drawn.
    """
    tree = read_tree(file)
    if not is_coco(tree):
        raise DataError(f"{file}: is no annotation file of COCO, which holds images, annotations and categories")
    try:
        categories = {one["id"]: name_of(one["name"]) for one in tree.get("categories", [])}
        marked: dict[Any, list[Marked]] = defaultdict(list)
        for one in tree["annotations"]:
            where = f"{file}: annotation {one.get('id', '?')}"
            if one["category_id"] not in categories:
                raise DataError(f"{where} is of category {one['category_id']}, which is not among the categories")
            segmentation = one.get("segmentation")
            if not segmentation:
                raise DataError(f"{where} has a box and no outline; export it with polygons or masks")
            marked[one["image_id"]].append(Marked(categories[one["category_id"]], partial(_drawn, segmentation)))
        pictures = {
            str(one["id"]): MarkedPicture(
                str(one["file_name"]),
                tuple(marked.pop(one["id"], ())),
                size_of(one.get("height"), one.get("width")),
                str(one.get("product", "")),
            )
            for one in tree["images"]
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: is not written as COCO's annotation files are ({error!r} is missing)") from None
    if marked:
        raise DataError(f"{file}: an annotation is of image {min(map(str, marked))}, which is not among the images")
    return pictures


def _drawn(segmentation: Any, shape: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, Mapping):
        counts = segmentation.get("counts")
        if segmentation.get("size") != list(shape):
            raise ValueError(
                f"its run lengths are of the size {segmentation.get('size')}, its picture of {list(shape)}"
            )
        runs = decompressed(counts) if isinstance(counts, str) else counts
        if not isinstance(runs, Sequence):
            raise ValueError("its run lengths have no counts")
        return mask_of(runs, shape)
    mask = np.zeros(shape, bool)
    for polygon in segmentation:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or corners.size < 6 or corners.size % 2:
            raise ValueError("a polygon needs x and y of three corners or more")
        mask |= filled(corners.reshape(-1, 2), shape)
    return mask
