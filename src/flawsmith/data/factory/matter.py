"""What a piece is made of, pixel by pixel, before any light falls on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flawsmith.data.factory.noise import Field, Rng


@dataclass(slots=True)
class Frame:
    """The picture to fill, and the two sources of chance: the product's look, and this one piece of it."""

    n: int
    """Side in px."""
    u: float
    """Px to one unit of length; 1.0 at 256 px and zoom 1."""
    look: Rng
    """Draws what all pieces of a production line share."""
    own: Rng
    """Draws what differs from piece to piece."""
    _grid: tuple[Field, Field] | None = None

    @property
    def grid(self) -> tuple[Field, Field]:
        """(x, y): float32 (n,n) each, px from the picture's centre."""
        if self._grid is None:
            half = np.float32((self.n - 1) / 2)
            axis = np.arange(self.n, dtype=np.float32) - half
            x, y = np.meshgrid(axis, axis)
            self._grid = (x, y)
        return self._grid

    def turned(self, angle: float, dx: float = 0.0, dy: float = 0.0) -> tuple[Field, Field]:
        """(along, across): the grid in axes turned by `angle` (radians) round (dx,dy)."""
        x, y = self.grid
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        x, y = x - np.float32(dx), y - np.float32(dy)
        return c * x + s * y, c * y - s * x


@dataclass(slots=True)
class Matter:
    """Geometry and material of the scene; all arrays float32 of side n."""

    height: Field
    """(n,n) px towards the camera."""
    albedo: Field
    """(n,n,3) linear RGB reflectance, [0,1]."""
    rough: Field
    """(n,n) in [0,1]: 0 = mirror, 1 = chalk."""
    metal: Field
    """(n,n) in [0,1]."""
    gleam: float = 0.05
    """How strongly what is not metal mirrors the lamps."""
    inner: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Linear RGB of the bulk, which a break or a deep scratch lays bare."""
    level: float = 0.22
    """Mean linear brightness that the photographer exposes the part for."""
    grain: tuple[float, float] = (0.0, 1.0)
    """(angle, stretch): brushed matter spreads its highlights across the brush marks."""
    alpha: Field | None = None
    """(n,n) in [0,1]: cover of the part; None where the surface fills the picture."""
    under: Field | None = None
    """(n,n,3) linear RGB: the table or the lamp behind a part."""
    backlit: float = 0.0
    """Share of the light that comes from behind the part."""
    thick: float = 0.0
    """Px between the part and the table: how far its shadow falls."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What only this matter's own defects need: thread pitch, component boxes..."""

    def copy(self) -> Matter:
        """Return a Matter whose arrays may be changed freely."""
        return replace(
            self,
            height=self.height.copy(),
            albedo=self.albedo.copy(),
            rough=self.rough.copy(),
            metal=self.metal.copy(),
            alpha=None if self.alpha is None else self.alpha.copy(),
            notes=dict(self.notes),
        )

    def cut(self, window: tuple[slice, slice]) -> Matter:
        """Return the part of it inside a window, as views."""
        return replace(
            self,
            height=self.height[window],
            albedo=self.albedo[window],
            rough=self.rough[window],
            metal=self.metal[window],
            alpha=None if self.alpha is None else self.alpha[window],
            under=None if self.under is None else self.under[window],
        )

    def tint(self, cover: Field, colour: tuple[float, float, float] | np.ndarray) -> None:
        """Paint a linear RGB colour (3,) over the matter with cover (n,n) in [0,1]."""
        c = cover[..., None]
        self.albedo += c * (np.asarray(colour, np.float32) - self.albedo)

    def dim(self, factor: Field) -> None:
        """Multiply the albedo by (n,n)."""
        self.albedo *= factor[..., None]

    def set_rough(self, cover: Field, value: float) -> None:
        """Move the roughness towards `value` with cover (n,n) in [0,1]."""
        self.rough += cover * (np.float32(value) - self.rough)

    def set_metal(self, cover: Field, value: float) -> None:
        """Move the metalness towards `value` with cover (n,n) in [0,1]."""
        self.metal += cover * (np.float32(value) - self.metal)


def plain(n: int, colour: tuple[float, float, float] | np.ndarray, *, rough: float, metal: float) -> Matter:
    """Return flat Matter of one linear RGB colour."""
    albedo = np.empty((n, n, 3), np.float32)
    albedo[:] = np.asarray(colour, np.float32)
    return Matter(
        height=np.zeros((n, n), np.float32),
        albedo=albedo,
        rough=np.full((n, n), rough, np.float32),
        metal=np.full((n, n), metal, np.float32),
    )


def hue(rng: Rng, base: tuple[float, ...], spread: float) -> np.ndarray:
    """Return `base` (linear RGB) with each channel and the whole scaled at random; float32 (3,)."""
    whole = np.exp(rng.normal(0.0, spread))
    each = np.exp(rng.normal(0.0, spread * 0.35, 3))
    colour: Field = np.clip(np.asarray(base) * whole * each, 0.004, 0.95).astype(np.float32)
    return colour
