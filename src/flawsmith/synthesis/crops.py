"""Cut what generators that work on pixels learn from: the shots' damage at native scale, and normal places like it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flawsmith.data.masks.poses import apply_pose_mask, pose_mask
from flawsmith.data.photographs import Photographs
from flawsmith.data.rendering.sites import site_mask, site_on
from flawsmith.data.tiling import Spot
from flawsmith.types import Crop, Example

MOST = 24
"""Shots of one product and defect type that are cut, and normal places of one product; more say little that is new."""
_PLACES = (0.3, 0.6)
"""Length of a place where no shot says what damage is like, as a share of the part's longer side."""
_MARGIN = 24
"""Px of surroundings on each side."""
_LARGEST = 384
"""Px: the longest side. Of wider damage a random part is cut."""


def crops(shots: Sequence[Example], normals: Sequence[Example], photographs: Photographs, seed: int) -> Iterator[Crop]:
    """Yield the damage of shots, evenly over each type, and for each product normal places under masks of its shots.

    A product without shots gives normal places alone.

    Args:
        shots: Defects with their masks, of any products and types.
        normals: Normal parts of the same products.
        photographs: Reads them.
        seed: Decides the places.
    """
    rng = np.random.default_rng((seed, 22))
    groups: dict[tuple[str, str], list[Example]] = {}
    for shot in shots:
        groups.setdefault((shot.product, str(shot.defect)), []).append(shot)
    kept = {key: _evenly(group) for key, group in groups.items()}
    for (product, defect), group in kept.items():
        surface = photographs.is_surface(product)
        for shot in group:
            photograph = photographs.read(shot)
            assert photograph.mask is not None
            spot = _spot(photograph.mask, rng)
            yield Crop(photograph.model(spot), photograph.mask[spot], product, defect, surface)
    for product in sorted({normal.product for normal in normals} - {product for product, _ in kept}):
        for normal in _evenly([normal for normal in normals if normal.product == product]):
            part = photographs.part(normal)
            mask = site_mask(site_on(part, rng, size=_PLACES), part) if part.any() else part
            spot = _spot(mask if mask.any() else np.ones_like(mask), rng)
            yield Crop(photographs.read(normal).model(spot), mask[spot], product, "", photographs.is_surface(product))
    for product in dict.fromkeys(product for product, _ in kept):
        lenders = [shot for (owner, _), group in kept.items() if owner == product for shot in group]
        grounds = [normal for normal in normals if normal.product == product]
        for shot in _evenly(lenders) if grounds else ():
            normal = grounds[int(rng.integers(len(grounds)))]
            photograph, damage = photographs.read(normal), photographs.read(shot).mask
            assert damage is not None
            part = photographs.part(normal)
            pose = pose_mask(damage, photographs.part(shot), part, rng)
            mask = apply_pose_mask(damage, pose, part.shape)
            if mask.any():
                spot = _spot(mask, rng)
                yield Crop(photograph.model(spot), mask[spot], product, "", photographs.is_surface(product))


def _evenly(examples: Sequence[Example]) -> list[Example]:
    if len(examples) <= MOST:
        return list(examples)
    return [examples[number] for number in np.linspace(0, len(examples) - 1, MOST).round().astype(int)]


def _spot(mask: np.ndarray, rng: np.random.Generator) -> Spot:
    """The box of the damage with a margin; of a large one, a part round one of its pixels."""
    points = np.argwhere(mask)
    middle = points[int(rng.integers(len(points)))]
    ends = []
    for axis, length in enumerate(mask.shape):
        low = max(int(points[:, axis].min()) - _MARGIN, 0)
        high = min(int(points[:, axis].max()) + 1 + _MARGIN, length)
        if high - low > _LARGEST:
            low = int(np.clip(middle[axis] - _LARGEST // 2, low, high - _LARGEST))
            high = low + _LARGEST
        ends.append(slice(low, high))
    return ends[0], ends[1]
