"""NSA: patches of other normal parts, blended in without a seam. It needs no shot.

Schlueter, Tan, Hou, Kainz: "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization" (ECCV
2022), section 3. Rectangles of another normal picture, their sides drawn from a truncated Gamma distribution, are
scaled by 0.7 to 1.3 and laid into the picture by Poisson image editing (`data.poisson`), in half of the cases with
mixed gradients. Several of them make one sample.

What differs: the picture is here the window round the asked mask; the others are the places of normal parts that
training cuts, or this window itself where there are none; and the label is not a soft one: what changed too little to
be seen is taken from it when it is fitted to the picture, as of every generator. Of several draws one that shows is
taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from flawsmith import config
from flawsmith.data.patches.on_normals import Drawn, drawn_rows, most_visible
from flawsmith.data.poisson import poisson
from flawsmith.interfaces import Generator
from flawsmith.types import Condition, Crop, Generated

_GAMMA = (2.0, 0.1)
"""Shape and scale of the distribution of a patch's sides, as shares of the picture's."""
_SIDES = (0.03, 0.4)
"""The least and greatest share."""
_SCALES = (0.7, 1.3)
_TRIES = 16
"""So many pictures are made until one is seen well."""


class NSASettings(config.Settings):
    """How many patches make a sample."""

    patches: Annotated[int, Field(ge=1, le=16), config.Affects("generate")] = 3
    """Patches of a sample, at most; their number is drawn for each."""


class NSA(Generator):
    """Blend patches of other normal parts into the asked mask. Reads normal places in `learn`; needs no shot."""

    Settings: ClassVar[type[config.Settings]] = NSASettings
    needs_backbone: ClassVar[bool] = False
    needs_mask: ClassVar[bool] = False
    without_shots: ClassVar[Literal["", "new", "always"]] = "new"
    paints_controls: ClassVar[bool] = False
    native: ClassVar[bool] = True
    settings: NSASettings

    def __init__(self, backbone: None, settings: config.Settings) -> None:
        super().__init__(backbone, settings)
        self._normals: dict[str, list[np.ndarray]] = {}

    def learn(self, crops: Iterable[Crop]) -> None:
        self._normals = {}
        for crop in crops:
            if not crop.defect:
                self._normals.setdefault(crop.product, []).append(np.ascontiguousarray(crop.image, np.float32))

    def learned(self) -> dict[str, Tensor]:
        """Return the normal places; the names say product and number."""
        return {
            json.dumps([product, number]): torch.from_numpy(picture)
            for product, pictures in self._normals.items()
            for number, picture in enumerate(pictures)
        }

    def restore(self, learned: Mapping[str, Tensor]) -> None:
        self._normals = {}
        for (product, _), name in sorted((json.loads(name), name) for name in learned):
            self._normals.setdefault(product, []).append(learned[name].numpy())

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        """Damage each row inside its mask (everywhere, when the mask is empty); `steps` and `guidance` mean nothing."""
        return drawn_rows(asked, seeds, self._damaged)

    def _damaged(self, normal: np.ndarray, allowed: np.ndarray, product: str, rng: np.random.Generator) -> Drawn:
        others, places = self._normals.get(product) or [normal], np.argwhere(allowed)

        def draws() -> Iterator[Drawn]:
            for _ in range(_TRIES):
                yield self._blended(normal, allowed, others, places, rng)

        return most_visible(draws(), normal, allowed)

    def _blended(
        self,
        normal: np.ndarray,
        allowed: np.ndarray,
        others: Sequence[np.ndarray],
        places: np.ndarray,
        rng: np.random.Generator,
    ) -> Drawn:
        """Return the picture with some patches of others in it, and where they lie."""
        picture, mask = normal, np.zeros_like(allowed)
        for _ in range(int(rng.integers(1, self.settings.patches + 1))):
            other = others[int(rng.integers(len(others)))]
            patch = _patch(other, normal.shape[:2], rng)
            spot, patch = _at(patch, places[int(rng.integers(len(places)))], normal.shape[:2])
            region, laid = np.zeros_like(allowed), picture.copy()
            laid[spot] = patch
            # Its outermost pixels only lend their gradients: the picture's own tone goes on there.
            inner = tuple(slice(side.start + 1, side.stop - 1) for side in spot)
            region[inner] = allowed[inner]
            picture = poisson(picture, laid, region, mixed=bool(rng.random() < 0.5)).clip(-1, 1)
            mask |= region
        return picture, mask


def _patch(other: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Cut a patch out of another picture for a window of this shape, and scale it: float32 (h,w,3), of 4 px or more."""
    shares = np.clip(rng.gamma(*_GAMMA, 2), *_SIDES)
    rows, columns = np.minimum(np.rint(shares * shape).clip(4), np.minimum(other.shape[:2], shape)).astype(int)
    top, left = int(rng.integers(other.shape[0] - rows + 1)), int(rng.integers(other.shape[1] - columns + 1))
    sides = np.clip(np.rint(np.array([columns, rows]) * rng.uniform(*_SCALES)), 4, shape[::-1]).astype(int)
    cut = np.ascontiguousarray(other[top : top + rows, left : left + columns])
    return np.asarray(cv2.resize(cut, (int(sides[0]), int(sides[1])), interpolation=cv2.INTER_LINEAR))


def _at(patch: np.ndarray, centre: np.ndarray, shape: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return where a patch lies with its centre at (row, column) of a picture, and what of it lies inside."""
    top, left = (int(centre[axis]) - patch.shape[axis] // 2 for axis in (0, 1))
    bottom, right = min(top + patch.shape[0], shape[0]), min(left + patch.shape[1], shape[1])
    inside = patch[max(-top, 0) : bottom - top, max(-left, 0) : right - left]
    return (slice(max(top, 0), bottom), slice(max(left, 0), right)), inside
