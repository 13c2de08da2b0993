"""DRAEM's artificial damage: a Perlin-noise mask filled with foreign texture, half transparent. It needs no shot.

Zavrtanik, Kristan, Skocaj: DRAEM (ICCV 2021). Perlin noise with a random scale per axis (2^0 .. 2^6 cells), turned at
random, over 0.5 is the mask; a texture, strongly augmented, shows through it with a random opacity. What differs: the
mask stays inside the asked mask and is never empty (the threshold sinks until there is something); the paper's texture
photographs (DTD) are replaced, unless a folder is given, by the window itself, augmented, and by rendered surfaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from flawsmith import config
from flawsmith.data import factory, images
from flawsmith.data.patches.on_normals import Drawn, drawn_rows
from flawsmith.errors import DataError
from flawsmith.interfaces import Generator
from flawsmith.paths import is_hidden
from flawsmith.types import Condition, Generated

_POOL = 6
"""Renderings per surface: they are kept, since drawing one takes longer than all the rest."""


class PerlinSettings(config.Settings):
    """What the noise is filled with, and how strongly."""

    textures: Path | None = None
    """A folder of texture photographs to fill with; empty = the window itself, augmented, and rendered surfaces."""
    opacity: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.1, 0.9)
    """Least and greatest opacity of the texture; drawn anew for each sample."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Noise above this is damage; lower = larger areas."""
    scales: Annotated[int, Field(ge=0, le=8)] = 6
    """The finest noise has 2 to the power of this many cells along a side."""
    least: Annotated[int, Field(ge=1)] = 24
    """Least area of the damage in pixels, or 1/400 of where it may lie; the threshold sinks until it is reached."""


class Perlin(Generator):
    """Draw a Perlin mask inside the asked mask and fill it with foreign texture. Learns nothing."""

    Settings: ClassVar[type[config.Settings]] = PerlinSettings
    needs_backbone: ClassVar[bool] = False
    needs_mask: ClassVar[bool] = False
    without_shots: ClassVar[Literal["", "new", "always"]] = "new"
    paints_controls: ClassVar[bool] = False
    native: ClassVar[bool] = True
    settings: PerlinSettings

    @classmethod
    def starts_from(cls, settings: config.Settings) -> tuple[Path, ...]:
        assert isinstance(settings, PerlinSettings)
        return () if settings.textures is None else _pictures_in(settings.textures)

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        """Damage each row inside its mask (everywhere, when the mask is empty); `steps` and `guidance` mean nothing.

        Raises:
            DataError: the folder of textures is missing or holds no picture.
        """
        return drawn_rows(asked, seeds, self._damaged)

    def _damaged(self, normal: np.ndarray, allowed: np.ndarray, product: str, rng: np.random.Generator) -> Drawn:
        mask = self._mask(allowed, rng)
        texture = self._texture(normal, rng)
        beta = np.float32(rng.uniform(min(self.settings.opacity), max(self.settings.opacity)))
        image = np.where(mask[:, :, None], normal + beta * (texture - normal), normal)
        return np.clip(image, -1.0, 1.0).astype(np.float32), mask

    def _mask(self, allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        room = int(allowed.sum())
        least = min(max(self.settings.least, room // 400), room)
        if room <= 2 * self.settings.least:
            return allowed
        height, width = allowed.shape
        cells = 2 ** rng.integers(0, self.settings.scales + 1, 2)
        noise = perlin_noise((height, width), (int(cells[0]), int(cells[1])), rng, angle=rng.uniform(-90, 90))
        level = min(self.settings.threshold, float(np.partition(noise[allowed], room - least)[room - least]))
        return np.asarray(allowed & (noise >= level))

    def _texture(self, normal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = normal.shape[:2]
        if self.settings.textures is not None:
            files = _files(self.settings.textures)
            source = images.to_model(images.read(files[int(rng.integers(len(files)))]))
        elif rng.random() < 0.5:
            source = _shuffled(normal, rng)
        else:
            surface = factory.SURFACES[int(rng.integers(len(factory.SURFACES)))]
            source = _rendered(surface, int(rng.integers(_POOL)))
        texture = _augmented(_crop(source, height, width, rng), rng)
        if np.array_equal(normal[:, :, 0], normal[:, :, 1]) and np.array_equal(normal[:, :, 0], normal[:, :, 2]):
            texture = np.repeat(texture.mean(axis=2, keepdims=True), 3, axis=2)  # a grey camera sees no colour
        return texture


def perlin_noise(
    shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator, angle: float = 0.0
) -> np.ndarray:
    """Return Perlin's gradient noise, float32 (H,W), of about -1..1 (Perlin: SIGGRAPH 1985, fade curve of 2002).

    Args:
        shape: (H,W).
        cells: Cells along the rows' and the columns' axis.
        rng: The gradients.
        angle: The noise is turned by this many degrees; it goes on periodically, so no corner is empty.
    """
    height, width = shape
    turn = np.deg2rad(angle)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = (y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5
    rows = (y * np.cos(turn) - x * np.sin(turn) + 0.5) * cells[0]
    columns = (y * np.sin(turn) + x * np.cos(turn) + 0.5) * cells[1]
    way = rng.uniform(0, 2 * np.pi, cells)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, along = rows - top, columns - left

    def corner(below: int, right: int) -> np.ndarray:
        heading = way[(top + below) % cells[0], (left + right) % cells[1]]
        return np.asarray(np.cos(heading) * (down - below) + np.sin(heading) * (along - right))

    fade_down, fade_along = (t * t * t * (t * (t * 6 - 15) + 10) for t in (down, along))
    upper = corner(0, 0) + fade_along * (corner(0, 1) - corner(0, 0))
    lower = corner(1, 0) + fade_along * (corner(1, 1) - corner(1, 0))
    return np.asarray(np.sqrt(2) * (upper + fade_down * (lower - upper)), np.float32)


@lru_cache(maxsize=128)
def _rendered(surface: str, seed: int) -> np.ndarray:
    return images.to_model(factory.make(surface, None, seed=seed, size=256).image)


@lru_cache(maxsize=8)
def _files(folder: Path) -> tuple[Path, ...]:
    if not (files := _pictures_in(folder)):
        raise DataError(f"{folder}: no texture pictures there; give a folder of photographs, or leave `textures` empty")
    return files


def _pictures_in(folder: Path) -> tuple[Path, ...]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)
    return tuple(sorted(path for path in files if not is_hidden(path, folder)))


def _shuffled(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The window's own pixels out of place: a grid of its tiles in random order."""
    count = int(rng.integers(2, 6))
    rows, columns = picture.shape[0] // count, picture.shape[1] // count
    if min(rows, columns) < 2:
        return picture[::-1, ::-1]
    tiles = [
        picture[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns] for r in range(count) for c in range(count)
    ]
    order = rng.permutation(len(tiles))
    return np.concatenate(
        [np.concatenate([tiles[order[r * count + c]] for c in range(count)], axis=1) for r in range(count)], axis=0
    )


def _crop(picture: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of the picture, turned a little, at the window's size."""
    rows, columns = picture.shape[:2]
    scale = max(height / rows, width / columns) * float(rng.uniform(1.0, 1.6))
    turn = np.deg2rad(rng.uniform(-45, 45))
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = np.array([columns, rows]) * rng.uniform(0.35, 0.65, 2)
    matrix = np.column_stack([linear, np.array([width, height]) / 2 - linear @ centre])
    return np.asarray(
        cv2.warpAffine(
            np.ascontiguousarray(picture, dtype=np.float32),
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    )


def _augmented(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three of DRAEM's augmentations, in random order; float32 (H,W,3) in [-1,1]."""
    unit = np.clip((texture + 1) / 2, 0, 1)
    for choice in rng.choice(7, 3, replace=False):
        if choice == 0:
            unit = unit ** float(rng.uniform(0.5, 2.0))
        elif choice == 1:
            unit = unit * rng.uniform(0.8, 1.2, 3) + rng.uniform(-0.12, 0.12)
        elif choice == 2:
            soft = cv2.GaussianBlur(np.ascontiguousarray(unit, dtype=np.float32), (0, 0), 1.5)
            unit = unit + float(rng.uniform(0.5, 2.0)) * (unit - soft)
        elif choice == 3:
            level = float(rng.uniform(0.12, 0.5))
            unit = np.where(unit > level, 1 - unit, unit)  # solarised
        elif choice == 4:
            steps = float(rng.integers(4, 16))
            unit = np.floor(unit * steps) / steps  # posterised
        elif choice == 5:
            unit = 1 - unit
        else:
            low, high = np.percentile(unit, (1, 99))
            unit = (unit - low) / max(float(high - low), 0.05)  # auto contrast
        unit = np.clip(unit, 0, 1)
    return np.asarray(unit * 2 - 1, np.float32)
