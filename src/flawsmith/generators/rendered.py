"""Rendered: damage without a single shot. The factory's damage, struck and lit, in the user's own photograph.

The factory (`data.factory`) knows what scratches, dents, cracks, pores, stains and a dozen more do to height, colour
and gloss of matter. Here the matter is the photograph itself: its pixels are struck, lit from the side from which its
own light comes, blurred as it is and given its grain (`data.rendering`). A type is drawn as its name says ("fine
scratch", "MT_Blowhole", "긁힘"), or as `looks` says; a name that says nothing is drawn as one of those that suit
anything. Nothing is learned but the light; site and size come from the plan (`generate.without_shots`). Ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from flawsmith import config
from flawsmith.config import SUIT_ANYTHING
from flawsmith.data.patches.on_normals import Drawn, drawn_rows, most_visible
from flawsmith.data.rendering.observed import Lighting, blur_of, lighting_of, mean_gradient
from flawsmith.data.rendering.strike import KINDS, struck
from flawsmith.data.sentences.naming import meant_by
from flawsmith.errors import nearest
from flawsmith.interfaces import Generator
from flawsmith.types import Condition, Crop, Generated

Share = Annotated[float, Field(ge=0, le=1)]

_TRIES, _STRONGER = 6, 1.3
"""So often the same damage is drawn, each time so much stronger, until it is clear; the clearest is taken."""
_CLEAR = 2 * 17 / 255
"""Change, of 2, that the 80th percentile of a mask must reach: the factory's own rule (`data.factory.scene`)."""
_THIRD = {"faint": (0.0, 0.34), "severe": (0.66, 1.0)}
"""Of the range of severities, the part that a word means."""
_COLOURED = 0.1
"""Mean difference of the channels, of 2, above which matter counts as coloured, so hardly as metal."""


class RenderedSettings(config.Settings):
    """How the damage is drawn and lit."""

    affects = ("generate",)

    severity: tuple[Share, Share] | dict[str, tuple[Share, Share]] = (0.3, 1.0)
    """Least and greatest severity: depth, width, how much is bared; or a table {type = [least, greatest]}."""
    contrast: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Factor on what the damage changes: below 1 it is fainter than rendered, above 1 clearer."""
    looks: dict[str, str] = {}
    """What a type is drawn as, where its name does not say it: {thread_top = "dent"}."""
    azimuth: Annotated[float, Field(ge=0, le=360)] | Literal["auto"] = "auto"
    """Where light comes from: 0 = right, 90 = top, 180 = left, 270 = bottom; auto = estimated."""
    hardness: Share | Literal["auto"] = "auto"
    """0 = soft light from all sides, 1 = one small lamp; auto = estimated."""
    blur: Annotated[float, Field(ge=0, le=8)] | Literal["auto"] = "auto"
    """Sigma in px of the photograph's blur; auto = estimated at its sharpest edges."""
    metal: Share | Literal["auto"] = "auto"
    """How metallic the matter is: bared metal glints; auto = 0.6 where the photograph has no colour, else 0.1."""

    @field_validator("looks", "severity", mode="before")
    @classmethod
    def _defects_in_composed_form(cls, value: Any) -> Any:
        return config.with_composed_keys(value)

    @field_validator("looks")
    @classmethod
    def _can_be_drawn(cls, value: dict[str, str]) -> dict[str, str]:
        for kind in value.values():
            if kind not in KINDS:
                raise ValueError(f"{kind!r} cannot be drawn{nearest(kind, KINDS)}")
        return value

    @field_validator("severity")
    @classmethod
    def _from_least_to_greatest(cls, value: object) -> object:
        for low, high in value.values() if isinstance(value, dict) else [value]:  # type: ignore[misc]
            if low > high:
                raise ValueError(f"[{low:g}, {high:g}] is no range; write [least, greatest]")
        return value


class Rendered(Generator):
    """Draw and light damage inside the asked site. Reads normal parts in `learn`, for the light; needs no shot."""

    Settings: ClassVar[type[config.Settings]] = RenderedSettings
    needs_backbone: ClassVar[bool] = False
    needs_mask: ClassVar[bool] = False
    without_shots: ClassVar[Literal["", "new", "always"]] = "always"
    paints_controls: ClassVar[bool] = False
    native: ClassVar[bool] = True
    sweep: ClassVar[tuple[str, tuple[float, ...]]] = ("contrast", (0.4, 0.7, 1.0, 1.5, 2.2))
    settings: RenderedSettings

    def __init__(self, backbone: None, settings: config.Settings) -> None:
        super().__init__(backbone, settings)
        self._gradients: dict[str, list[np.ndarray]] = {}

    def learn(self, crops: Iterable[Crop]) -> None:
        self._gradients = {}
        for crop in crops:
            if not crop.defect:
                self._gradients.setdefault(crop.product, []).append(mean_gradient(crop.image))

    def learned(self) -> dict[str, Tensor]:
        """Return the mean gradients of each product's normal parts; the names say the product."""
        return {json.dumps(name): torch.from_numpy(np.array(rows)) for name, rows in self._gradients.items()}

    def restore(self, learned: Mapping[str, Tensor]) -> None:
        self._gradients = {json.loads(name): list(rows.numpy()) for name, rows in learned.items()}

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        """Damage each row inside its mask (everywhere, when the mask is empty); `steps` and `guidance` mean nothing."""
        words, row = asked.appearance or ("",) * len(asked), iter(range(len(asked)))

        def draw(normal: np.ndarray, site: np.ndarray, product: str, rng: np.random.Generator) -> Drawn:
            number = next(row)
            return self._damaged(normal, site, product, asked.defect[number], words[number], rng)

        return drawn_rows(asked, seeds, draw)

    def _damaged(
        self, normal: np.ndarray, site: np.ndarray, product: str, defect: str, words: str, rng: np.random.Generator
    ) -> Drawn:
        settings = self.settings
        kind, power = self._kind(defect, rng), self._severity(defect, words, rng)
        gradients = self._gradients.get(product) or [mean_gradient(normal)]
        lighting, blur = self._lighting(gradients), blur_of(normal) if settings.blur == "auto" else settings.blur
        coloured = float(np.ptp(normal, axis=2).mean()) > _COLOURED
        metal = (0.1 if coloured else 0.6) if settings.metal == "auto" else settings.metal

        matter: dict[str, Any] = {"metal": metal, "contrast": settings.contrast, "lighting": lighting, "blur": blur}
        needed = _CLEAR * settings.contrast * (0.5 if "faint" in words.split() else 1.0)
        best, clearest, shape = None, -1.0, int(rng.integers(2**31))
        for number in range(_TRIES):
            same = np.random.default_rng(shape)
            picture, mask = struck(normal, site, kind, same, power=power * _STRONGER**number, **matter)
            change = np.abs(picture[mask] - normal[mask]).max(axis=1)
            clear = float(np.quantile(change, 0.8)) if len(change) else 0.0
            if clear > clearest:
                best, clearest = (picture, mask), clear
            if clear >= needed:
                break
        assert best is not None
        return most_visible([best], normal, site)

    def _kind(self, defect: str, rng: np.random.Generator) -> str:
        """Return what a type is drawn as."""
        if defect in self.settings.looks:
            return self.settings.looks[defect]
        meant = [defect] if defect in KINDS else [kind for kind in meant_by(defect) if kind in KINDS]
        return meant[0] if meant else SUIT_ANYTHING[int(rng.integers(len(SUIT_ANYTHING)))]

    def _severity(self, defect: str, words: str, rng: np.random.Generator) -> float:
        given = self.settings.severity
        low, high = given.get(defect, (0.3, 1.0)) if isinstance(given, dict) else given
        start, end = next((share for word, share in _THIRD.items() if word in words.split()), (0.0, 1.0))
        return float(low + (high - low) * rng.uniform(start, end))

    def _lighting(self, gradients: Sequence[np.ndarray]) -> Lighting:
        settings, seen = self.settings, lighting_of(gradients)
        azimuth = seen.azimuth if settings.azimuth == "auto" else -math.radians(settings.azimuth)
        return Lighting(azimuth, seen.hardness if settings.hardness == "auto" else settings.hardness)
