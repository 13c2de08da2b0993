"""Crop and paste: the damage of a real shot, laid at a new place on a normal part. Every generator must beat it.

The shot arrives re-posed, so that its damage lies under the asked mask; here its tone is fitted and its border hidden.
The seam is the whole art. `poisson` keeps the damage's gradients and takes the normal's tone (Perez et al.: SIGGRAPH
2003); `mixed` lets the normal's own texture through where the shot is smooth; `feather` and `none` match brightness and
contrast of the ring round the mask instead. Nothing is learned; all work is done at the camera's own scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from flawsmith import config
from flawsmith.data.poisson import blended, grown
from flawsmith.data.tensors import image_tensor, picture_of
from flawsmith.data.windows import feathered
from flawsmith.errors import DataError
from flawsmith.interfaces import Generator
from flawsmith.types import Condition, Generated


class CropPasteSettings(config.Settings):
    """How the pasted damage is fitted to its new place."""

    blend: Literal["poisson", "mixed", "feather", "none"] = "poisson"
    """How the border is hidden: poisson, mixed (Poisson with the stronger gradients), feather, or none."""
    match: bool = True
    """Match brightness and contrast of the surroundings before pasting (feather, none; Poisson does so by itself)."""
    feather: Annotated[float, Field(ge=0, le=64)] = 3.0
    """Width of the soft border in pixels of the photograph (feather only)."""
    rim: Annotated[int, Field(ge=0, le=32)] = 3
    """Pixels beyond the label where the shot's tone counts as normal (poisson, mixed); they are not pasted."""
    strength: Annotated[float, Field(ge=0, le=0.9)] = 0.15
    """The damage's contrast is varied by up to this share, from sample to sample."""


class CropPaste(Generator):
    """Paste real damage, re-posed. Reads `Condition.shot`; learns nothing and needs no backbone."""

    Settings: ClassVar[type[config.Settings]] = CropPasteSettings
    needs_backbone: ClassVar[bool] = False
    needs_shot: ClassVar[bool] = True
    native: ClassVar[bool] = True
    settings: CropPasteSettings

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        """Paste each row's shot into its normal; `steps` and `guidance` mean nothing here.

        Raises:
            DataError: the request carries no shot.
        """
        if asked.shot is None:
            raise DataError("crop_paste pastes real damage, so the request needs a shot beside the normal picture")
        made = []
        for row, seed in enumerate(seeds):
            normal, shot = (picture_of(tensor[row]) for tensor in (asked.normal, asked.shot.image))
            mask = asked.mask[row, 0].cpu().numpy() > 0.5
            made.append(self._paste(normal, shot, mask, np.random.default_rng(seed)))
        image = image_tensor(made).to(asked.normal)
        return Generated(torch.where(asked.mask > 0.5, image, asked.normal), asked.mask.clone())

    def _paste(self, normal: np.ndarray, shot: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gain = float(np.exp(rng.uniform(-1, 1) * np.log1p(self.settings.strength)))
        if not mask.any():
            return normal
        if self.settings.blend in ("poisson", "mixed"):
            return blended(normal, shot, mask, rim=self.settings.rim, gain=gain, mixed=self.settings.blend == "mixed")
        ring = _ring(mask)
        if ring.any():
            here, there = normal[ring], shot[ring]
            tone = there.mean(axis=0)
            if self.settings.match:
                contrast = np.clip((here.std(axis=0) + 0.01) / (there.std(axis=0) + 0.01), 0.67, 1.5)
                shot = (shot - tone) * (contrast * gain) + here.mean(axis=0)
            else:
                shot = (shot - tone) * gain + tone
        alpha = feathered(mask, self.settings.feather if self.settings.blend == "feather" else 0.0)[:, :, None]
        return np.asarray(np.clip(normal + alpha * (shot - normal), -1.0, 1.0), np.float32)


def _ring(mask: np.ndarray) -> np.ndarray:
    """The surroundings that say how bright it is here: a band of about a third of the damage's size."""
    width = int(np.clip(np.sqrt(mask.sum()) / 3, 3, 24))
    return np.asarray(grown(mask, width + 1) & ~grown(mask, 1))  # the label's own rim is half damage
