"""Who lends: a defect type seen on one product, planned for another; and whose look a pair's damage shall have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flawsmith.config import Config
from flawsmith.data.masks.poses import Pose, apply_pose_mask
from flawsmith.data.photographs import Photographs
from flawsmith.data.poisson import grown
from flawsmith.data.split import Split
from flawsmith.errors import ConfigError, nearest
from flawsmith.run.dataset import unknown_defects
from flawsmith.types import Example

_ROUND = 6
"""How far round a damage, in pixels, its surroundings are compared."""


def transfers(config: Config, split: Split) -> dict[tuple[str, str], str]:
    """Return {(product that borrows, defect type): product that lends}.

    Raises:
        ConfigError: nobody has the defect type to lend, or nobody is left to borrow it.
    """
    have = {(e.product, str(e.defect)) for e in split.shots}
    products = sorted({e.product for e in split.normals})
    lent: dict[tuple[str, str], str] = {}
    for loan in config.generate.transfer:
        lender, defect, onto = loan["from"], loan["defect"], loan.get("onto", "")
        if (lender, defect) not in have:
            there = sorted(f"{product}: {name}" for product, name in have)
            raise ConfigError(f"generate.transfer: {lender!r} has no shots of {defect!r}; there are {', '.join(there)}")
        if onto and onto not in products:
            raise ConfigError(f"generate.transfer: no product {onto!r} to paint on{nearest(onto, products)}")
        takers = [product for product in ([onto] if onto else products) if (product, defect) not in have]
        if not takers:
            raise ConfigError(
                f"generate.transfer: {onto or 'every product'} has shots of {defect!r} of its own; leave the loan out"
            )
        for product in takers:
            lent[product, defect] = lender
    return lent


def shots_for(line: dict[str, Any], shots: Sequence[Example]) -> list[Example]:
    """Return the shots of a line's defect type: the product's own, or the lender's."""
    owner = line.get("borrowed", line["product"])
    return [e for e in shots if (e.product, e.defect) == (owner, line["defect"])]


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
            raise ConfigError(
                f"generate.reference: {asked!r} is none of {', '.join(known)}, nor a shot's id such as "
                f"{split.shots[0].id}"
            )


def reference_of(config: Config, split: Split, pictures: Photographs, line: dict[str, Any]) -> str:
    """Return the id of the shot whose look a line's damage shall have; see `known_references`."""
    value = config.generate.reference
    asked = value.get(line["defect"], "shot") if isinstance(value, dict) else value
    rng = np.random.default_rng((config.seed, 34, line["index"]))
    kin = shots_for(line, split.shots)
    if asked == "shot":
        return str(line["shot"])
    if asked == "random":
        return kin[int(rng.integers(len(kin)))].id
    if asked == "nearest":
        return _nearest(split, pictures, line, kin)
    if any(shot.id == asked for shot in split.shots):
        return asked
    named = [shot for shot in split.shots if shot.defect == asked]
    named = [shot for shot in named if shot.product == line["product"]] or named
    return named[int(rng.integers(len(named)))].id


def _nearest(split: Split, pictures: Photographs, line: dict[str, Any], kin: Sequence[Example]) -> str:
    """Return the shot whose surroundings are most like those of the place to be painted, in tone and contrast."""
    normal = next(e for e in split.normals if e.id == line["normal"])
    shape = pictures.read(normal).native.shape[:2]
    shot = next(e for e in split.shots if e.id == line["shot"])
    own = pictures.read(shot).mask
    assert own is not None
    place = apply_pose_mask(own, Pose.from_json(line["pose"]), shape) if line["pose"] else np.ones(shape, bool)
    here = _surroundings(pictures.read(normal).model(), place)
    gaps = {}
    for one in kin:
        seen = pictures.read(one)
        assert seen.mask is not None
        gaps[one.id] = float(np.abs(_surroundings(seen.model(), seen.mask) - here).sum())
    return min(gaps, key=lambda name: gaps[name])


def _surroundings(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return mean and spread of the brightness round a mask, float64 (2,)."""
    ring = grown(mask, _ROUND) & ~mask
    values = picture.mean(axis=2)[ring if ring.any() else np.ones_like(mask)]
    return np.array([values.mean(), values.std()])
