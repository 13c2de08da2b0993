"""Transfer between products: a defect type seen on one, planned for another; and whose appearance a sample gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flawsmith.config import Config
from flawsmith.data.masks.poses import apply_pose_mask
from flawsmith.data.photographs import Photograph
from flawsmith.data.poisson import grown
from flawsmith.data.split import Split
from flawsmith.data.windows import spot_of
from flawsmith.errors import ConfigError, nearest
from flawsmith.run.dataset import Dataset
from flawsmith.run.defect_types import unknown_defects
from flawsmith.run.records import PlanLine
from flawsmith.types import Example

_ROUND = 6
"""How far round a damage, in pixels, its surroundings are compared."""


def transfers(config: Config, split: Split) -> dict[tuple[str, str], str]:
    """Return {(product that gets the type, defect type): product that it was seen on}.

    Raises:
        ConfigError: the type was not seen there, or no product is without it.
    """
    have = {(shot.product, str(shot.defect)) for shot in split.shots}
    products = sorted({normal.product for normal in split.normals})
    source_of: dict[tuple[str, str], str] = {}
    for transfer in config.generate.transfer:
        source, defect, onto = transfer["from"], transfer["defect"], transfer.get("onto", "")
        if (source, defect) not in have:
            known = ", ".join(sorted(f"{product}: {name}" for product, name in have))
            raise ConfigError(f"generate.transfer: {source!r} has no shots of {defect!r}; there are {known}")
        if onto and onto not in products:
            raise ConfigError(f"generate.transfer: no product {onto!r} to paint on{nearest(onto, products)}")
        targets = [product for product in ([onto] if onto else products) if (product, defect) not in have]
        if not targets:
            raise ConfigError(
                f"generate.transfer: {onto or 'every product'} has shots of {defect!r} of its own; leave this one out"
            )
        source_of |= {(product, defect): source for product in targets}
    return source_of


def shots_for(product: str, defect: str, shots: Sequence[Example]) -> list[Example]:
    """Return the shots of one type of one product."""
    return [shot for shot in shots if (shot.product, shot.defect) == (product, defect)]


def known_references(config: Config, split: Split) -> None:
    """Refuse a `generate.reference` that `reference_of` could not follow.

    Raises:
        ConfigError: it is no way to choose, no shot and no defect type, or is for a defect type that nobody has.
    """
    value, defects = config.generate.reference, sorted({str(shot.defect) for shot in split.shots})
    if wrong := unknown_defects(config, defects, "reference"):
        raise ConfigError(wrong[0])
    known = ["shot", "nearest", "random", *defects]
    for asked in value.values() if isinstance(value, dict) else (value,):
        if asked not in known and all(shot.id != asked for shot in split.shots):
            raise ConfigError(f"generate.reference: {asked!r} is none of {', '.join(known)}, nor a shot's id")


def reference_of(config: Config, data: Dataset, line: PlanLine) -> str:
    """Return the id of the shot whose appearance a line's damage shall have; see `known_references`."""
    shots, value = data.split.shots, config.generate.reference
    asked = value.get(line.defect, "shot") if isinstance(value, dict) else value
    rng = np.random.default_rng((config.seed, 34, line.index))
    kin = shots_for(line.transferred_from or line.product, line.defect, shots)
    if asked == "shot":
        return line.shot
    if asked == "random":
        return kin[int(rng.integers(len(kin)))].id
    if asked == "nearest":
        return _nearest(data, line, kin)
    if any(shot.id == asked for shot in shots):
        return asked
    named = [shot for shot in shots if shot.defect == asked]
    named = [shot for shot in named if shot.product == line.product] or named
    return named[int(rng.integers(len(named)))].id


def _nearest(data: Dataset, line: PlanLine, kin: Sequence[Example]) -> str:
    """Return the shot whose surroundings are most like those of the place to be painted, in tone and contrast."""
    photographs = data.photographs
    normal = data.photographs.normals[line.normal]
    shape = photographs.read(normal).native.shape[:2]
    lender = next(shot for shot in data.split.shots if shot.id == line.shot)
    mask = photographs.read(lender).mask
    assert mask is not None
    where = apply_pose_mask(mask, line.pose, shape, photographs.part(lender)) if line.pose else np.ones(shape, bool)
    here = _surroundings(photographs.read(normal), where)
    gaps = {}
    for shot in kin:
        photograph = photographs.read(shot)
        assert photograph.mask is not None
        gaps[shot.id] = float(np.abs(_surroundings(photograph, photograph.mask) - here).sum())
    return min(gaps, key=lambda name: gaps[name])


def _surroundings(photograph: Photograph, mask: np.ndarray) -> np.ndarray:
    """Return mean and spread of the brightness round a mask, float64 (2,)."""
    ring = grown(mask, _ROUND) & ~mask
    ring = ring if ring.any() else np.ones_like(mask)
    spot = spot_of([], ring, 0)
    values = photograph.brightness(spot)[ring[spot]]
    return np.array([values.mean(), values.std()])
