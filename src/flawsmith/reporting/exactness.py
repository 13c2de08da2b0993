"""The exact-background check: outside its mask, every pixel of a sample is the photograph's own.

Nothing that a stage recorded is trusted: every sample, its mask and its photograph are read again from disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from flawsmith.data import images
from flawsmith.errors import DataError
from flawsmith.reporting.document import number_of
from flawsmith.run.folder import Run
from flawsmith.run.records import Sample
from flawsmith.run.unchanged import changed_files
from flawsmith.types import Example


@dataclass(frozen=True, slots=True)
class Exactness:
    """The result of comparing all samples and controls with their photographs."""

    samples: int
    """Samples compared, rejected ones included."""
    whole: int
    """Of these, samples whose windows are synthetic throughout: only what lies outside the windows is compared."""
    controls: int
    """Negative controls compared."""
    pixels: int
    """Pixels outside masks compared."""
    differing: int
    """Of these, pixels whose value is not the photograph's."""
    empty: int
    """Masks without a single pixel."""
    wrong: tuple[str, ...]
    """A sentence per sample or control that is not as it must be, in order of the index."""

    @property
    def holds(self) -> bool:
        """True when nothing is wrong."""
        return not self.wrong

    @property
    def verdict(self) -> str:
        """What the exact-background check found, as a sentence."""
        if not self.samples:
            return "No sample is generated yet, so there is nothing to compare."
        pictures = number_of(self.samples, "sample")
        if self.controls:
            pictures = f"{pictures} with {number_of(self.controls, 'negative control')}"
        were = "was" if self.samples == 1 else "were"
        compared = f"{pictures} {were} read again and compared with the photograph behind each"
        numbers = f"{number_of(self.differing, 'pixel')} of {self.pixels:,} outside the masks differ"
        if self.whole:
            numbers = f"{numbers} (outside synthetic windows for {number_of(self.whole, 'sample')})"
        numbers = f"{numbers}, {number_of(self.empty, 'mask')} {'is' if self.empty == 1 else 'are'} empty"
        if self.holds:
            return f"Exact background: {compared}; {numbers}."
        return (
            f"The exact-background check failed: {compared}; {numbers}; {number_of(len(self.wrong), 'sample')} wrong."
        )


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One picture beside its photograph."""

    wrong: str = ""
    """What is wrong, as a sentence."""
    pixels: int = 0
    differing: int = 0
    empty: bool = False


def compare_all(run: Run, normals: Mapping[str, Example]) -> Exactness:
    """Compare every sample and control of a run with the photograph it was painted on.

    Args:
        run: The run; its lines name the files.
        normals: The normal photographs by id.
    """
    controls = run.controls()
    stand = {sample.index: sample for sample in run.kept(partly=True)}
    made = [one for one in run.samples() if one.made and (one.index in stand or run.path(one.image).is_file())]
    samples = [stand.get(one.index, one) for one in made]
    # Decoding leaves Python's lock; a picture may be large, so only a few are held at once.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        compared = list(pool.map(lambda sample: _compare(run, sample, normals), [*samples, *controls]))
    return Exactness(
        samples=len(samples),
        whole=sum(sample.paint == "whole" for sample in samples),
        controls=len(controls),
        pixels=sum(one.pixels for one in compared),
        differing=sum(one.differing for one in compared),
        empty=sum(one.empty for one in compared),
        wrong=tuple(one.wrong for one in compared if one.wrong),
    )


def _compare(run: Run, sample: Sample, normals: Mapping[str, Example]) -> _Comparison:
    name = sample.image
    source = normals.get(sample.normal)
    if source is None:
        return _Comparison(f"{name}: its photograph {sample.normal} is not in data.json")
    try:
        picture, photograph = images.read(run.path(name)), images.read(source.image)
        mask = images.read_mask(run.path(sample.mask), picture.shape)
    except DataError as error:
        return _Comparison(str(error))
    if picture.shape != photograph.shape or picture.dtype != photograph.dtype:
        shapes = f"{picture.shape} {picture.dtype}, its photograph {photograph.shape} {photograph.dtype}"
        return _Comparison(f"{name}: the picture is {shapes}")
    outside = ~mask
    if sample.paint == "whole":
        for window in sample.windows:
            outside[window.inside(outside.shape)] = False
    changed = images.differs(picture, photograph)
    differing = int(np.count_nonzero(changed & outside))
    wrong = ""
    if differing:
        wrong = f"{name}: {differing} pixels outside the mask differ from {source.id}"
    elif not mask.any():
        wrong = f"{name}: its mask is empty"
    elif edited := changed_files(run, sample):
        wrong = f"{' and '.join(edited)}: changed since flawsmith wrote it"
    return _Comparison(wrong, int(np.count_nonzero(outside)), differing, not mask.any())
