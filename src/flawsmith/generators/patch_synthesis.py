"""Patch synthesis: the damage of a type re-synthesised from patches of several shots, inside a mask of any shape.

Image analogies (Hertzmann et al., SIGGRAPH 2001) with patch nearest neighbours (Granot et al., CVPR 2022); how patches
are found and voted for stands in `data.patches.analogy`. Ours: damage is the logarithm of a ratio to a membrane spanned
from the normal surroundings; the guide is how deep in the mask a pixel lies, so that each depth looks as it does in the
shots; shots are drawn per sample and turned to run as the mask does; and how much is changed at which depth, which is
how annotators fill a mask, is kept as the shots have it. Where a part has structure under the mask, that comes from the
re-posed shot, and patches only change its texture. Nothing is trained; all work is done at the camera's own scale.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from flawsmith import config
from flawsmith.data.images import is_grey
from flawsmith.data.patches.analogy import filled, retextured
from flawsmith.data.patches.damage_profile import coarse_of, mean_profile, profile_of, with_profile
from flawsmith.data.patches.grain import gain_between, grain_in, grain_round, grain_under
from flawsmith.data.patches.layers import PATCH, Layer
from flawsmith.data.patches.ratios import RIM, from_logs, joined, logs, relative_depth, signed_distance, undamaged
from flawsmith.data.patches.sources import (
    Source,
    chosen,
    course_of,
    guide_of,
    laid,
    on_ground,
    position_of,
    shine_through,
    width_of,
)
from flawsmith.data.poisson import blended, grown
from flawsmith.data.tensors import image_tensor, picture_of
from flawsmith.data.windows import spot_of
from flawsmith.errors import DataError
from flawsmith.interfaces import Generator
from flawsmith.types import Condition, Crop, Generated

_REACH = 12
"""Px round the mask that are looked at."""
_NEAR = 3.0
"""Px beyond a label from which patches are still taken."""
_GRAIN_GAINS = (0.4, 2.0)
_STRUCTURED = 0.75
"""Of the damage's change: above this a part's own structure under the mask counts as structure."""


class PatchSynthesisSettings(config.Settings):
    """How many shots a sample is made of, and how far it may differ from them."""

    shots: Annotated[int, Field(ge=1, le=8), config.Affects("generate")] = 3
    """Shots whose patches one sample is made of, drawn anew for each."""
    turns: Annotated[int, Field(ge=1, le=8), config.Affects("generate")] = 2
    """Directions in which each of these shots is laid, so that patches suit a bent mask; more take longer."""
    strength: Annotated[float, Field(ge=0, le=0.9), config.Affects("generate")] = 0.15
    """The damage's contrast is varied by up to this share, from sample to sample."""


@dataclass(frozen=True, slots=True)
class Known:
    """What patches of one product and type may be taken from."""

    sources: list[Source]
    surface: bool
    """See `Crop.surface`."""
    damaged: bool
    """False: normal parts, for negative controls."""


class PatchSynthesis(Generator):
    """See the module's text. It reads the shots in `learn`; `Condition.shot` alone, where it has learned nothing."""

    Settings: ClassVar[type[config.Settings]] = PatchSynthesisSettings
    needs_backbone: ClassVar[bool] = False
    native: ClassVar[bool] = True
    settings: PatchSynthesisSettings

    def __init__(self, backbone: None, settings: config.Settings) -> None:
        super().__init__(backbone, settings)
        self._crops: dict[tuple[str, str], list[Crop]] = {}
        self._sources: dict[tuple[tuple[str, str], int], list[Source]] = {}
        self._grey: bool | None = None

    def learn(self, crops: Iterable[Crop]) -> None:
        self._crops, self._sources, self._grey = {}, {}, None
        for crop in crops:
            self._crops.setdefault((crop.product, crop.defect), []).append(crop)

    def learned(self) -> dict[str, Tensor]:
        """Return a picture and a mask for each crop; the names say number, product, type and whether a surface."""
        tensors = {}
        numbered = [crop for crops in self._crops.values() for crop in crops]
        for number, crop in enumerate(numbered):
            key = json.dumps([number, crop.product, crop.defect, crop.surface])
            image = crop.image[:, :, :1] if is_grey(crop.image) else crop.image
            tensors[f"image {key}"] = torch.from_numpy(np.ascontiguousarray(image, np.float32))
            tensors[f"mask {key}"] = torch.from_numpy(np.ascontiguousarray(crop.mask, np.uint8))
        return tensors

    def restore(self, learned: Mapping[str, Tensor]) -> None:
        keys = sorted((json.loads(name[6:]) for name in learned if name.startswith("image ")), key=lambda key: key[0])
        crops = []
        for number, product, defect, surface in keys:
            key = json.dumps([number, product, defect, surface])
            image = _with_channels(learned[f"image {key}"].numpy(), 3)
            crops.append(Crop(image, learned[f"mask {key}"].numpy() > 0, product, defect, surface))
        self.learn(crops)

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        """Paint each row; `steps` and `guidance` mean nothing here.

        Raises:
            DataError: nothing is known of a row's defect type, and it brings no shot.
        """
        made = []
        for row, seed in enumerate(seeds):
            normal = picture_of(asked.normal[row])
            mask = asked.mask[row, 0].cpu().numpy() > 0.5
            known = self._known(asked, row, self._channels(normal))
            posed = None if asked.shot is None else picture_of(asked.shot.image[row])
            made.append(self._paint(normal, mask, posed, known, np.random.default_rng(seed)))
        image = image_tensor(made).to(asked.normal)
        return Generated(torch.where(asked.mask > 0.5, image, asked.normal), asked.mask.clone())

    def _channels(self, normal: np.ndarray) -> int:
        """Return 1 where the photograph and all crops are grey, else 3."""
        if self._grey is None:
            self._grey = all(is_grey(crop.image) for crops in self._crops.values() for crop in crops)
        return 1 if self._grey and is_grey(normal) else 3

    def _known(self, asked: Condition, row: int, channels: int) -> Known:
        """Return what patches are taken from: this product's type, else another product's, else the row's shot."""
        product, defect = asked.product[row], asked.defect[row]
        key = (product, defect)
        if key not in self._crops:
            key = next((other for other in self._crops if other[1] == defect), key)
        if key in self._crops:
            if (key, channels) not in self._sources:
                crops = self._crops[key]
                self._sources[key, channels] = [
                    Source.of(_with_channels(crop.image, channels), crop.mask, surface=crop.surface) for crop in crops
                ]
            return Known(self._sources[key, channels], self._crops[key][0].surface, bool(defect))
        if asked.shot is None:
            known = ", ".join(sorted({name or "normal parts" for _, name in self._crops})) or "none"
            raise DataError(
                f"patch_synthesis knows no shot of {defect or 'normal parts'!r} (known: {known}); "
                "train it on shots of that type, or give one with the request"
            )
        shot = _with_channels(picture_of(asked.shot.image[row]), channels)
        return Known([Source.of(shot, asked.shot.mask[row, 0].cpu().numpy() > 0.5)], True, bool(defect))

    def _paint(
        self,
        normal: np.ndarray,
        mask: np.ndarray,
        posed: np.ndarray | None,
        known: Known,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return the normal picture (H,W,3) with damage under the mask; `posed` is the re-posed shot or None."""
        if not mask.any():
            return normal
        spot = spot_of([], mask, _REACH)
        inside, channels = mask[spot], known.sources[0].ratio.shape[2]
        logarithms = logs(_with_channels(normal[spot], channels))
        smooth = undamaged(logarithms, inside)
        context, distance = logarithms - smooth, signed_distance(inside)
        depth, course = relative_depth(distance), course_of(context, distance)
        width = width_of(distance, depth)
        like = None if posed is None else Source.of(_with_channels(posed[spot], channels), inside).contrast
        drawn = chosen(known.sources, width, rng, most=self.settings.shots, like=like)
        drawn = laid(drawn, distance, width, course, rng, self.settings.turns)
        through, ground = shine_through(known.sources), smooth[inside].mean(axis=0)
        drawn = [on_ground(source, ground, through) for source in drawn]
        # Turning leaves nothing whole of a crop that is smaller than a patch.
        around = grain_round(context, distance)
        layers = [_layer(source, around) for source in drawn]
        layers = [layer for layer in layers if layer.mask.any()] or [_layer(known.sources[0], around)]
        gain = float(np.exp(rng.uniform(-1, 1) * np.log1p(self.settings.strength))) if known.damaged else 1.0
        grain = grain_in(context, distance) if known.surface else np.zeros_like(context)
        target = Layer(context - grain, grain, guide_of(distance, depth), position_of(distance), grown(inside, RIM))
        # Normal matter of a part is its structure; of damage, what is under the mask says whether there is any.
        profiles = [profile_of(source.ratio, source.depth) for source in drawn]
        least = _STRUCTURED * _change(profiles) if known.damaged else 0.0
        structured = not known.surface and _structure(context, inside) > least
        if structured and posed is not None:
            sketch = logs(_with_channels(blended(normal[spot], posed[spot], inside, gain=gain), channels))
            ratio = retextured(replace(target, values=sketch - smooth), layers, rng)
            if (wanted := grain_under(sketch - smooth, inside)) > 0:
                ratio = _with_grain(ratio, inside, wanted)
        else:
            ratio = with_profile(filled(target, layers, rng), depth, gain * mean_profile(profiles), through)
            if not known.surface:
                ratio = _with_grain(ratio, inside, float(np.mean([source.grain_under for source in drawn])))
            ratio = joined(ratio, context, distance, width)
            if structured:  # the part's own structure goes on beneath
                ratio = ratio + coarse_of(context)
        painted = normal.copy()
        painted[spot][inside] = _with_channels(from_logs(smooth + ratio), 3)[inside]
        return painted


def _with_grain(ratio: np.ndarray, inside: np.ndarray, wanted: float) -> np.ndarray:
    """A ratio with this much grain inside, within limits: on parts, where grain cannot be parted, votes took some."""
    coarse = coarse_of(ratio)
    fine, gain = ratio - coarse, 1.0
    for _ in range(2):  # grain is not linear in what is fine: some of it counts as coarse
        made = grain_under(coarse + np.float32(gain) * fine, inside)
        gain = float(np.clip(gain * wanted / max(made, 1e-6), *_GRAIN_GAINS))
    return np.asarray(coarse + np.float32(gain) * fine, np.float32)


def _structure(context: np.ndarray, inside: np.ndarray) -> float:
    """How much the normal picture itself changes under the mask: an outline or a thread, not grain."""
    return float(np.sqrt((coarse_of(context)[inside] ** 2).mean()))


def _change(profiles: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """How much the damage changes, in the mean over shots."""
    return float(np.mean([mean_profile([profile]).mean() for profile in profiles]))


def _layer(source: Source, around: float) -> Layer:
    """What patches are taken from: the damage and a little of what is round it, with grain to suit what is `around`."""
    whole = cv2.erode(source.usable.astype(np.uint8), np.ones((PATCH, PATCH), np.uint8)) > 0
    near = whole & (source.distance > -_NEAR)
    values, grain = source.ratio - source.grain, np.float32(gain_between(source.grain_round, around)) * source.grain
    return Layer(values, grain, source.guide(), position_of(np.where(source.usable, source.distance, -1)), near)


def _with_channels(values: np.ndarray, count: int) -> np.ndarray:
    """Values (h,w,1 or 3) with another number of channels."""
    if values.shape[2] == count:
        return values
    return np.repeat(values, count, axis=2) if count == 3 else values.mean(axis=2, keepdims=True)
