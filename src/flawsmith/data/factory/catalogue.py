"""Which surfaces there are, which defects, and which of them make sense together."""

from __future__ import annotations

from collections.abc import Callable

from flawsmith.data.factory import blemishes, board, materials, metals, parts, wounds
from flawsmith.data.factory.hit import Hit
from flawsmith.data.factory.matter import Frame, Matter
from flawsmith.data.factory.noise import Field
from flawsmith.errors import DataError, nearest

MAKERS: dict[str, Callable[[Frame], Matter]] = {
    "steel": metals.steel,
    "milled": metals.milled,
    "cast": metals.cast,
    "magnet": metals.magnet,
    "concrete": materials.concrete,
    "wood": materials.wood,
    "weave": materials.weave,
    "leather": materials.leather,
    "plastic": materials.plastic,
    "tile": materials.tile,
    "screw": parts.screw,
    "washer": parts.washer,
    "nut": parts.nut,
    "tablet": parts.tablet,
    "board": board.board,
}
"""Name of a surface or part, and what builds it."""

STRIKES: dict[str, Callable[[Matter, Hit], Field]] = {
    "scratch": wounds.scratch,
    "crack": wounds.crack,
    "dent": wounds.dent,
    "hole": wounds.hole,
    "chip": wounds.chip,
    "pores": wounds.pores,
    "cut": wounds.cut,
    "abrasion": wounds.abrasion,
    "bend": wounds.bend,
    "burr": wounds.burr,
    "fold": wounds.fold,
    "blister": wounds.blister,
    "stain": blemishes.stain,
    "contamination": blemishes.contamination,
    "fray": blemishes.fray,
    "discolouration": blemishes.discolouration,
    "rust": blemishes.rust,
    "uneven": blemishes.uneven,
    "solder": blemishes.solder,
}
"""Name of a defect, and what strikes the matter with it."""

EXTENT = {
    "scratch": (18, 90), "crack": (20, 85), "dent": (10, 34), "hole": (9, 32), "chip": (12, 40), "pores": (8, 28),
    "cut": (14, 50), "abrasion": (15, 50), "bend": (30, 40), "burr": (10, 34), "fold": (24, 66), "blister": (9, 28),
    "stain": (12, 52), "contamination": (10, 40), "fray": (13, 40), "discolouration": (18, 54), "rust": (10, 42),
    "uneven": (24, 62), "solder": (8, 24),
}  # fmt: skip
"""Least and greatest half of a defect's extent, in units of length (px at 256 px and zoom 1)."""

_METAL = ("scratch", "dent", "stain", "contamination", "rust", "discolouration", "abrasion")
_TYPES: dict[str, tuple[str, ...]] = {
    "steel": (*_METAL, "hole", "crack", "pores", "burr", "uneven"),
    "milled": (*_METAL, "hole", "crack", "pores", "burr", "chip", "uneven"),
    "cast": ("crack", "pores", "hole", "chip", "scratch", "dent", "rust", "stain", "contamination", "burr"),
    "magnet": ("pores", "crack", "chip", "fray", "uneven", "scratch", "stain", "contamination"),
    "concrete": ("crack", "hole", "chip", "stain", "pores", "discolouration", "contamination", "uneven", "abrasion"),
    "wood": ("scratch", "crack", "dent", "hole", "stain", "chip", "fray", "discolouration", "contamination"),
    "weave": ("hole", "cut", "fray", "stain", "contamination", "fold", "discolouration"),
    "leather": ("scratch", "cut", "hole", "fold", "stain", "contamination", "abrasion", "discolouration", "blister"),
    "plastic": ("scratch", "crack", "dent", "hole", "stain", "contamination", "blister", "discolouration", "burr",
                "abrasion", "chip"),
    "tile": ("crack", "chip", "scratch", "stain", "pores", "hole", "contamination", "uneven", "blister"),
    "screw": ("scratch", "chip", "bend", "burr", "rust", "dent", "contamination", "abrasion"),
    "washer": ("scratch", "chip", "crack", "dent", "rust", "burr", "contamination", "stain"),
    "nut": ("scratch", "chip", "dent", "rust", "burr", "contamination", "stain", "crack", "discolouration"),
    "tablet": ("crack", "chip", "stain", "scratch", "contamination", "pores", "discolouration", "abrasion"),
    "board": ("scratch", "crack", "stain", "contamination", "solder", "hole", "discolouration", "blister", "chip"),
}  # fmt: skip

SURFACES: tuple[str, ...] = tuple(MAKERS)
"""Names of all surfaces and parts."""
DEFECTS: tuple[str, ...] = tuple(STRIKES)
"""Names of all defect types."""
SMALLEST = 32
"""Least side of a picture, px."""


def defects_of(surface: str) -> tuple[str, ...]:
    """Return the defect types that make sense on a surface; DataError for an unknown surface."""
    check(surface, None)
    return _TYPES[surface]


def check(surface: str, defect: str | None, size: int = SMALLEST) -> None:
    """Raise DataError unless the surface is known, the defect, if any, makes sense on it, and the size is enough."""
    if surface not in MAKERS:
        raise DataError(f"the factory makes no surface {surface!r}{nearest(surface, SURFACES)}")
    if size < SMALLEST:
        raise DataError(f"size = {size} is too small for a picture of {surface!r}; it must be at least {SMALLEST}")
    if defect is None:
        return
    if defect not in STRIKES:
        raise DataError(f"the factory makes no defect {defect!r}{nearest(defect, DEFECTS)}")
    if defect not in _TYPES[surface]:
        sensible = ", ".join(_TYPES[surface])
        raise DataError(f"a defect {defect!r} makes no sense on {surface!r}; these do: {sensible}")
