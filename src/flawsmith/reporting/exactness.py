"""The first rule of the house, checked on the files: outside the mask every pixel is the photograph's own.

Nothing is taken from what a stage remembers: every made picture, its mask and its photograph are read again from disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from flawsmith.data import images
from flawsmith.errors import DataError
from flawsmith.run.folder import Run
from flawsmith.run.records import Sample
from flawsmith.types import Example


@dataclass(slots=True)
class Exactness:
    """What a comparison of all made pairs with their photographs result."""

    pairs: int = 0
    """Pairs compared."""
    whole: int = 0
    """Of these, pairs whose windows are synthetic throughout: there only what lies outside the windows is compared."""
    controls: int = 0
    """Controls compared."""
    pixels: int = 0
    """Pixels outside masks compared."""
    differing: int = 0
    """Of these, pixels of another value than in the photograph."""
    empty: int = 0
    """Masks without a single pixel."""
    wrong: list[str] = field(default_factory=list)
    """A sentence for each pair that is not as it must be, in order of the index."""

    @property
    def holds(self) -> bool:
        """True when no pair is wrong."""
        return not self.wrong


def compare_all(run: Run, normals: Mapping[str, Example]) -> Exactness:
    """Compare every made pair and control of a run with the photograph it was made from.

    Args:
        run: The run; its sample lines name the files.
        normals: The normal parts by id.
    """
    controls = run.controls()
    samples = sorted(
        [*run.kept(partly=True), *(sample for sample, _ in run.rejected())], key=lambda sample: sample.index
    )
    result = Exactness(len(samples), sum(sample.paint == "whole" for sample in samples), len(controls))

    def one(sample: Sample) -> tuple[int, int, bool, str]:
        return _compare(run, sample, normals)

    # Decoding leaves Python's lock; a picture may be large, so only a few are held at once.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for pixels, differing, empty, sentence in pool.map(one, [*samples, *controls]):
            result.pixels += pixels
            result.differing += differing
            result.empty += empty
            if sentence:
                result.wrong.append(sentence)
    return result


def _compare(run: Run, sample: Sample, normals: Mapping[str, Example]) -> tuple[int, int, bool, str]:
    """Return pixels outside the mask, how many of them differ, whether the mask is empty, and what is wrong."""
    name = sample.image
    source = normals.get(sample.normal)
    if source is None:
        return 0, 0, False, f"{name}: its photograph {sample.normal} is not in data.json"
    try:
        made, before = images.read(run.path(name)), images.read(source.image)
        mask = images.read_mask(run.path(sample.mask), made.shape)
    except DataError as error:
        return 0, 0, False, str(error)
    if made.shape != before.shape or made.dtype != before.dtype:
        told = f"{made.shape} {made.dtype}, its photograph {before.shape} {before.dtype}"
        return 0, 0, False, f"{name}: the picture is {told}"
    outside = ~mask
    if sample.paint == "whole":
        for window in sample.windows:
            outside[window.inside(outside.shape)] = False
    changed = made != before if made.ndim == 2 else (made != before).any(axis=2)
    differing = int(np.count_nonzero(changed & outside))
    sentence = ""
    if differing:
        sentence = f"{name}: {differing} pixels outside the mask differ from {source.id}"
    elif not mask.any():
        sentence = f"{name}: its mask is empty"
    return int(np.count_nonzero(outside)), differing, not mask.any(), sentence
