"""Masks on their way between page and server: runs of damaged pixels, row after row.

A mask is written as [start, length, start, length, ...]: places in the picture read row by row, increasing, apart from
one another. It is exact at any size, short for anything that is drawn by hand, and needs no picture codec.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flawsmith.data import images
from flawsmith.errors import DataError, FlawsmithError
from flawsmith.files import write_bytes
from flawsmith.synthesis.by_hand.drawn import asked_area
from flawsmith.types import Example

MOST_RUNS = 2_000_000
"""Of a mask that the page sends."""


def mask_of(runs: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """Return a mask, bool (H,W).

    Args:
        runs: As above.
        shape: (H,W) of the photograph.

    Raises:
        DataError: the runs overlap, are out of order, or leave the picture.
    """
    pairs = np.asarray(runs, np.int64)
    if pairs.size % 2:
        raise DataError("mask: a run has a start and no length; send pairs of numbers")
    starts, ends = pairs[0::2], pairs[0::2] + pairs[1::2]
    size = shape[0] * shape[1]
    inside = not pairs.size or (starts[0] >= 0 and ends[-1] <= size)
    if not inside or (ends <= starts).any() or (starts[1:] < ends[:-1]).any():
        raise DataError(f"mask: its runs are no places of {shape[1]} x {shape[0]} pixels in increasing order")
    steps = np.zeros(size + 1, np.int8)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return np.asarray(np.cumsum(steps[:-1], dtype=np.int8).astype(bool).reshape(shape))


def runs_of(mask: np.ndarray) -> list[int]:
    """Return the runs of a mask, bool (H,W)."""
    flat = np.concatenate([[False], mask.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[0::2], edges[1::2]
    return [int(value) for value in np.stack([starts, ends - starts], axis=1).ravel()]


def runs_of_file(content: bytes, example: Example) -> list[int]:
    """Return the runs of a mask file that was handed over, read as those of a set are.

    Args:
        content: The file's bytes; its format is told from them.
        example: The photograph that it belongs to.

    Raises:
        DataError: it is no picture, of another size than the photograph, empty, or leaves open what is damage.
    """
    shape = images.describe(example.image).shape
    decoded = images.read_bytes(content, "the mask", shape[0] * shape[1])
    if decoded.shape[:2] != shape:
        raise DataError(f"the mask: {images.other_size(decoded.shape, shape)}")
    with tempfile.TemporaryDirectory(prefix="flawsmith-mask-") as folder:
        path = Path(folder) / "mask.png"
        write_bytes(path, content)
        try:
            return runs_of(asked_area(path, np.broadcast_to(np.uint8(0), shape), str(example.image)))
        except FlawsmithError as error:
            raise DataError(str(error).replace(str(path), "the mask")) from None
