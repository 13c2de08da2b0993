"""Negative controls: normal parts repainted as normal, in the places of some of the samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import cv2
import numpy as np

from flawsmith.config import Config
from flawsmith.data.photographs import Photograph
from flawsmith.data.poisson import grown
from flawsmith.data.windows import spot_of
from flawsmith.run.dataset import Dataset
from flawsmith.run.records import PlanLine
from flawsmith.synthesis.plan import asked_mask
from flawsmith.synthesis.train import generator_class

_DONORS = 8
"""Photographs that are looked at for a control's normal matter."""
_SHADE = 4
"""Sigma in pixels of what counts as shading, and how far round the mask it is compared."""


def control_places(config: Config, lines: Iterable[PlanLine]) -> Iterator[PlanLine]:
    """Yield the negative controls' lines, evenly over the types, still with their samples' seeds and without donors.

    Which samples get a control takes no picture to decide, so all of them can be counted; `with_donor` does the work.
    """
    if not config.generate.controls:
        return
    share, count = config.generate.controls, Counter[tuple[str, str]]()
    index, batch, last, size = 0, -1, "", 0
    for line in lines:
        key = (line.product, line.defect)
        if line.transferred_from:  # controls serve the proof, and what a product never had is not proved on it
            continue
        if not generator_class(config, line.defect).paints_controls:
            continue
        count[key] += 1
        if int(count[key] * share) == int((count[key] - 1) * share):
            continue
        if line.job != last or size == config.generate.batch:
            batch, size, last = batch + 1, 0, line.job
        size += 1
        yield replace(line, role="control", index=index, control_of=line.index, batch=batch)
        index += 1


def with_donor(config: Config, data: Dataset, place: PlanLine) -> PlanLine:
    """Return a control's whole line: its own seed, and the photograph whose normal matter it starts from.

    A control is painted on its sample's photograph, in its sample's mask. The normal matter to start from comes from
    the same place of another photograph where the product fills its pictures; a part that lies in any direction has no
    same place, so there it is the photograph's own.
    """
    rng = np.random.default_rng((config.seed, 33, place.control_of))
    return replace(place, seed=int(rng.integers(2**31)), donor=_donor(config, data, place, rng))


def _donor(config: Config, data: Dataset, line: PlanLine, rng: np.random.Generator) -> str:
    """Return the id of the photograph whose normal matter a control starts from.

    Of a few drawn at random, the one whose shading is most like this one's in and round the mask: an edge or a shadow
    that only the other photograph has would look like damage.
    """
    split, photographs = data.split, data.photographs
    if not photographs.is_surface(line.product):
        return line.normal
    others = [example for example in photographs.normals_of(line.product) if example.id != line.normal]
    if not others:
        return line.normal
    normal = photographs.normals[line.normal]
    shot = next((one for one in split.shots if one.id == line.shot), None)  # without shots a site says where
    mask = asked_mask(line, normal, shot, split.shots, photographs, config.generate.turn)
    near = grown(mask, _SHADE)
    here = _shading(photographs.read(normal), near)
    gaps = {}
    for number in rng.choice(len(others), min(_DONORS, len(others)), replace=False):
        there = _shading(photographs.read(others[number]), near)
        gaps[others[number].id] = float((there - here).std())
    return min(gaps, key=lambda name: gaps[name])


def _shading(photograph: Photograph, near: np.ndarray) -> np.ndarray:
    """Return a photograph's brightness without its grain, float32 (N,), where a mask of another one's size is True."""
    spot = slice(0, near.shape[0]), slice(0, near.shape[1])
    if photograph.native.shape[:2] == near.shape:
        spot = spot_of([], near, 8 * _SHADE)  # farther than the blur reaches
        grey = photograph.brightness(spot)
    else:
        grey = cv2.resize(photograph.brightness(), near.shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), _SHADE)[near[spot]])
