"""Pictures lined up before the filters: windows cut, features computed.

Each picture is described by itself, and the extractor sees it alone. So its numbers do not depend on its neighbours:
screened again, in another run or on its own, it has the same scores to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith.data import images
from flawsmith.data.feature_windows import SIDE, feature_window, square_round, whole_picture
from flawsmith.data.poisson import blended, grown, poisson
from flawsmith.data.scaling import scaled_mask
from flawsmith.data.tensors import image_tensor
from flawsmith.data.windows import grain_map, refit
from flawsmith.errors import DataError
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.types import Range, ScreeningSet

LEVELS = ("whole", "window", "tokens")
_REMEMBERED = 256
"""Normal photographs whose embedding is kept, since many samples stand on each."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture to be described."""

    name: str
    defect: str
    """"" for a normal part."""
    image: np.ndarray
    """Native, (H,W) or (H,W,3)."""
    mask: np.ndarray
    """bool (H,W), not empty."""
    below: np.ndarray | None = None
    """The photograph that was painted on, like `image`; None = unknown."""
    source: str = ""
    """Its name: the same name, the same photograph."""
    stand_ins: Sequence[np.ndarray] = ()
    """Normal photographs of the size of `image`, from which the damage may be filled where `below` is unknown."""
    span: Range | None = None
    """The value range of its product; None = that of the photograph beneath, or of the picture itself."""
    file: Path | None = None
    """Where `image` was read, for what its file says beside the pixels."""


@dataclass(frozen=True, slots=True)
class Described:
    """One picture's part of a ScreeningSet; the fields are that set's, without its first dimension."""

    name: str
    defect: str
    image: Tensor
    """float32 (3,SIDE,SIDE), RGB, [-1,1]: the window round label and change."""
    mask: Tensor
    """bool (SIDE,SIDE)."""
    below: Tensor
    """float32 (3,SIDE,SIDE); zeros where there is none."""
    changed: Tensor
    """bool (SIDE,SIDE)."""
    own: Tensor
    """bool (): `below` is the photograph that was painted on."""
    compared: Tensor
    """bool (): `below` is that, or a stand-in."""
    vector: Mapping[str, Tensor]
    """float32 (D,) per level."""
    beneath: Mapping[str, Tensor]
    """float32 (D,) per level; NaN where there is none."""
    moved: Tensor
    """float32 ()."""
    grain: Tensor
    """float32 ()."""


@dataclass
class Describer:
    """Describes pictures with one extractor."""

    extractor: Extractor
    """A `FeatureCache` where pictures are described more than once."""
    visible: float
    """The least change that counts, on the scale -1..1."""
    _wholes: dict[str, Tensor] = field(default_factory=dict)

    def screening_set(self, pictures: Iterable[Shown]) -> ScreeningSet:
        """Return the pictures with all that filters read.

        Raises:
            DataError: a picture and the one beneath are of different sizes, or a mask is empty.
        """
        return screening_set([self.describe(picture) for picture in pictures], self.extractor.name)

    def describe(self, shown: Shown) -> Described:
        """Return what filters read of one picture.

        Raises:
            DataError: the picture and the one beneath are of different sizes, or the mask is empty.
        """
        if not shown.mask.any():
            raise DataError(f"{shown.name}: its mask is empty; draw the damage, or take the picture out")
        changed = self.change(shown) if shown.below is not None else np.zeros_like(shown.mask)
        region = shown.mask | changed
        span = _span(shown)
        model = images.to_model(shown.image, span)
        beneath_model = None if shown.below is None else images.to_model(shown.below, span)
        cut, square = feature_window(model, region, beneath_model), square_round(region)
        label, fitted = (scaled_mask(part[square], (SIDE, SIDE)) for part in (shown.mask, changed))
        image, below = cut.image, cut.below
        if below is None and shown.stand_ins:
            others = [images.to_model(normal, span) for normal in shown.stand_ins]
            below = _filled(image, label, [feature_window(other, region).image for other in others])
        pair = image_tensor([image] if below is None else [image, below])
        # Sums depend on how a map lies in memory, and one that was remembered lies otherwise than one just computed.
        depths = [[F.normalize(depth.contiguous(), dim=1) for depth in self.extractor.maps(one[None])] for one in pair]
        windows = [self.extractor.vector(one[None])[0] for one in pair]
        tokens, moved = _inside(depths, torch.from_numpy(label))
        whole = self._whole(model)
        vector = {"whole": whole, "window": windows[0], "tokens": tokens[0]}
        beneath = {level: value * torch.nan for level, value in vector.items()}
        if below is not None:
            beneath |= {"window": windows[1], "tokens": tokens[1]}
        if beneath_model is not None:
            beneath["whole"] = self._whole(beneath_model, shown.source)
        return Described(
            name=shown.name,
            defect=shown.defect,
            image=pair[0],
            mask=torch.from_numpy(label),
            below=torch.zeros_like(pair[0]) if below is None else pair[1],
            changed=torch.from_numpy(fitted),
            own=torch.tensor(shown.below is not None),
            compared=torch.tensor(below is not None),
            vector=vector,
            beneath=beneath,
            moved=moved,
            grain=torch.tensor(_grain(model, shown.mask)),
        )

    def change(self, shown: Shown) -> np.ndarray:
        """Return the label re-fitted to what visibly changed anywhere in the picture, bool (H,W).

        Raises:
            DataError: picture and photograph are of different sizes or depths.
        """
        return self.repaired(shown)[1]

    def repaired(self, shown: Shown) -> tuple[np.ndarray, np.ndarray]:
        """Return the picture and the label, both re-fitted: outside the label the photograph's own bytes."""
        before, after = shown.below, shown.image
        assert before is not None
        if before.shape != after.shape or before.dtype != after.dtype:
            raise DataError(
                f"{shown.name}: the picture is {after.shape} {after.dtype}, its normal photograph {before.shape} "
                f"{before.dtype}: they must be alike"
            )
        differs = images.differs(before, after)
        if not differs.any():
            return after, differs
        # Where it differs only: specks are judged against the area in which a label is looked for.
        fitted = refit(before, after, grown(differs, 1), threshold=self.visible, span=_span(shown))
        return fitted.image, fitted.mask

    def _whole(self, model: np.ndarray, name: str = "") -> Tensor:
        if name not in self._wholes:
            vector = self.extractor.vector(image_tensor([whole_picture(model, self.extractor.side)]))[0]
            if not name:
                return vector
            if len(self._wholes) >= _REMEMBERED:
                self._wholes.clear()
            self._wholes[name] = vector
        return self._wholes[name]


def _span(shown: Shown) -> Range:
    return images.range_of(shown.image if shown.below is None else shown.below, shown.span)


def screening_set(pictures: Sequence[Described], extractor: str) -> ScreeningSet:
    """Stack described pictures; no picture gives a set of length 0."""
    stacked: dict[str, Any] = {
        "image": torch.zeros(0, 3, SIDE, SIDE),
        "below": torch.zeros(0, 3, SIDE, SIDE),
        "mask": torch.zeros(0, SIDE, SIDE, dtype=torch.bool),
        "changed": torch.zeros(0, SIDE, SIDE, dtype=torch.bool),
        "own": torch.zeros(0, dtype=torch.bool),
        "compared": torch.zeros(0, dtype=torch.bool),
        "moved": torch.zeros(0),
        "grain": torch.zeros(0),
        "vector": {level: torch.zeros(0, 1) for level in LEVELS},
        "beneath": {level: torch.zeros(0, 1) for level in LEVELS},
    }
    if pictures:
        for name, value in stacked.items():
            parts = [getattr(picture, name) for picture in pictures]
            if isinstance(value, dict):
                stacked[name] = {level: torch.stack([part[level] for part in parts]) for level in LEVELS}
            else:
                stacked[name] = torch.stack(parts)
    names, defects = (tuple(getattr(picture, name) for picture in pictures) for name in ("name", "defect"))
    return ScreeningSet(name=names, defect=defects, extractor=extractor, **stacked)


def _grain(picture: np.ndarray, mask: np.ndarray) -> float:
    """Return the strength of the grain inside a mask; an edge counts little, for most of the inside is none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    place = slice(max(rows[0] - 2, 0), rows[-1] + 3), slice(max(columns[0] - 2, 0), columns[-1] + 3)
    high = grain_map(picture[place])
    inner = cv2.erode(mask[place].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    inside = inner if np.count_nonzero(inner) >= 9 else mask[place]
    return float(np.median(high[inside]) / 6 / 0.6745)


def _filled(image: np.ndarray, mask: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Return the window as it may have looked before: its damage filled from its rim or from a normal window.

    Of these, the one that changes the window least: what makes real damage look slight, so that no threshold is strict.
    """
    where = grown(mask, 3)
    made = [poisson(image, np.zeros_like(image), where)]
    made += [blended(image, other, mask, gain=1.0) for other in others]
    gaps = [float(np.abs(one - image)[mask].mean()) for one in made]
    return np.asarray(np.clip(made[int(np.argmin(gaps))], -1, 1), np.float32)


def _inside(pictures: Sequence[Sequence[Tensor]], mask: Tensor) -> tuple[list[Tensor], Tensor]:
    """Average the maps of pictures inside a mask.

    Args:
        pictures: Of each picture, unit-length maps (1,C,h,w) per depth.
        mask: bool (SIDE,SIDE), not empty.

    Returns:
        Tokens float32 (D,) per picture, all depths side by side; and how far the first picture's lie from the last's at
        the same places, NaN where there is one picture only.
    """
    means: list[list[Tensor]] = [[] for _ in pictures]
    gaps = []
    for depths in zip(*pictures, strict=True):
        share = F.adaptive_avg_pool2d(mask[None, None].float(), (depths[0].shape[-2], depths[0].shape[-1]))[0, 0]
        share = share / share.sum()
        for own, depth in zip(means, depths, strict=True):
            own.append(F.normalize((depth * share).sum((2, 3)), dim=1)[0])
        gaps.append(((depths[0][0] - depths[-1][0]).square().sum(0) * share).sum())
    moved = torch.stack(gaps).mean() if len(pictures) > 1 else torch.tensor(torch.nan)
    return [torch.cat(own) / len(own) ** 0.5 for own in means], moved
