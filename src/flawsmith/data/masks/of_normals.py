"""Masks that lie beside normal parts: some labelling tools write an empty one for each; one that marks something is
damage that is filed as normal."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from flawsmith.data import images
from flawsmith.data.fingerprints import fingerprints_of
from flawsmith.errors import DataError, first_few
from flawsmith.types import Example

_NOISE = 8
"""Levels of 255 by which JPEG may blur an empty mask."""


def marked_normals(root: Path, masks: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return a sentence about the normal parts whose masks mark something; [] = there is none.

    Args:
        root: The folder of photographs.
        masks: Photograph of a normal part -> its masks, all paths below the root.

    A mask of one value throughout marks nothing, and one that cannot be read says nothing.
    """
    files = [(photograph, mask) for photograph, labels in masks.items() for mask in labels]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        marks = list(pool.map(lambda file: _marks_something(root / file[1]), files))
    marked = [file for file, marks_something in zip(files, marks, strict=True) if marks_something]
    if not marked:
        return []
    shown = first_few([f"{photograph} ({mask})" for photograph, mask in marked])
    count = "1 normal part has a mask that marks"
    if len(marked) > 1:
        count = f"{len(marked)} normal parts have masks that mark"
    return [
        f"{shown}: {count} something; move damaged parts to a folder of their type, or name the masks in data.exclude"
    ]


def masks_among_normals(examples: Sequence[Example]) -> list[str]:
    """Return a sentence about normal parts that look like masks; [] = there is none.

    A mask whose name says nothing is taken for a photograph. It holds one or two values, which photographs of a camera
    never do; where the product's defects do so too, they are scans in black and white.

    Args:
        examples: Photographs that are decoded, or may be, of all products.
    """
    flat: dict[str, list[str]] = defaultdict(list)
    scans: set[str] = set()
    for example, one in zip(examples, fingerprints_of([example.image for example in examples]), strict=True):
        if one.two_values and example.defect is None:
            flat[example.product].append(example.id)
        elif one.two_values:
            scans.add(example.product)
    names = [name for product, members in flat.items() if product not in scans for name in members]
    if not names:
        return []
    shown = first_few(names)
    count = "1 normal part holds" if len(names) == 1 else f"{len(names)} normal parts hold"
    return [
        f"{shown}: {count} only one or two values, as a mask does; name such masks, and photographs that "
        "show nothing, in data.exclude"
    ]


def _marks_something(path: Path) -> bool:
    try:
        pixels = images.read(path)
    except DataError:
        return False
    spread = float(pixels.max()) - float(pixels.min())
    if np.ndim(pixels) == 3:
        spread = float(np.ptp(pixels.reshape(-1, 3).astype(np.float64), axis=0).max())
    return spread > (_NOISE if images.describe(path).codec == "JPEG" else 0)
