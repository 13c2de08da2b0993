"""The threshold of a detector: which normal photographs set it, and how it follows from their scores.

Split-conformal prediction (Vovk, Gammerman, Shafer: "Algorithmic Learning in a Random World", 2005; Angelopoulos,
Bates: "A Gentle Introduction to Conformal Prediction", 2021, section 1): when a new normal picture is like the
calibration normals, it scores above their conformal quantile in at most the asked share of cases, whatever the detector
is. A photograph that the detector has learned from will not do: it scores lower than a new one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

import numpy as np
from scipy.special import betaincinv

from flawsmith.data.fingerprints import content_hash
from flawsmith.types import Example

FIFTH = 5
"""One in so many normal photographs of the training split is a calibration normal."""
MOST, LEAST = 100, 5
"""More calibration normals cost time and tell little more; fewer allow no rate below 17 %."""

Item = TypeVar("Item")


def calibration_normals(
    normals: Sequence[Example], held: Collection[str], painted: Iterable[str]
) -> tuple[Example, ...]:
    """Choose the normal photographs that set thresholds; () = there are too few.

    First come those that are kept from training anyway, then those on which the fewest samples and controls are
    painted, since those samples cannot be learned from either; evenly spaced among their equals.

    Args:
        normals: Of one product, in the order of the list.
        held: Ids of those that no detector learns from anyway, beneath held-out controls.
        painted: Ids of the photographs that samples and controls are painted on or take matter from, one per use.
    """
    count = calibration_count(len(normals))
    if not count:
        return ()
    uses = Counter(painted)
    cost = {example.id: -1 if example.id in held else uses[example.id] for example in normals}
    chosen: set[str] = set()
    for level in sorted(set(cost.values())):
        equals = [example.id for example in normals if cost[example.id] == level]
        chosen.update(evenly_spaced(equals, count - len(chosen)))
    return tuple(example for example in normals if example.id in chosen)


def kept_away(normals: Iterable[Example], ids: Collection[str]) -> frozenset[str]:
    """Return ids together with those of exact copies: all that no detector may learn from."""
    shown = {example.id: content_hash(example.image) for example in normals}
    hashes = {shown[name] for name in ids}
    return frozenset(name for name, content in shown.items() if content in hashes)


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most so many items, in their order, with equal distances between them."""
    count = min(count, len(items))
    return [items[int((number + 0.5) * len(items) / count)] for number in range(count)]


def conformal_threshold(scores: np.ndarray, rate: float) -> float:
    """Return the threshold above which a score raises an alarm: the ceil((n+1)(1-rate))-th smallest of n scores.

    With fewer than 1/rate - 1 scores there is no such score; then it is the greatest.

    Args:
        scores: float (n,) of calibration normals, n >= 1.
        rate: The false-alarm rate to be kept, above 0 and below 1.
    """
    return float(np.sort(scores)[_rank(len(scores), rate) - 1])


def least_rate(count: int) -> float:
    """Return the lowest false-alarm rate that so many calibration normals can keep."""
    return 1 / (count + 1)


def calibration_count(normals: int) -> int:
    """Return how many of so many normal photographs to learn from set thresholds; 0 = they are too few for any."""
    count = min(MOST, normals // FIFTH)
    return count if count >= LEAST else 0


def normals_for(rate: float) -> int:
    """Return how many normal photographs to learn from it takes to keep a false-alarm rate; 0 = no number keeps it."""
    count = max(LEAST, math.ceil(1 / rate - 1 - 1e-9))
    return FIFTH * count if count <= MOST else 0


def threshold_note(rate: float, normals: int, calibration: int) -> str:
    """Return why a false-alarm rate cannot be kept, as a sentence; "" = it can.

    Args:
        rate: What was asked for.
        normals: Normal photographs of the training split.
        calibration: How many of them are calibration normals.
    """
    if not calibration:
        return (
            f"no threshold can be set for a false-alarm rate of {100 * rate:.3g}%: it takes {FIFTH * LEAST} normal "
            f"photographs to learn from, of which a fifth is then kept from training, and there are {normals}"
        )
    if (least := least_rate(calibration)) > rate + 1e-9:
        return (
            f"a false-alarm rate of {100 * rate:.3g}% cannot be kept with {calibration} calibration normals, which "
            f"allow {100 * least:.3g}% or more; the threshold is the greatest of their scores"
        )
    return ""


def rate_range(count: int, rate: float, confidence: float) -> tuple[float, float]:
    """Return between which ends the true rate of one threshold lies, with so much confidence.

    The asked rate holds on average over calibration sets. That of one set is distributed as Beta(n + 1 - rank, rank)
    (Vovk: "Conditional Validity of Inductive Conformal Predictors", 2012; Angelopoulos and Bates, section 3.2), so few
    calibration normals may miss it by far.

    Args:
        count: Calibration normals, n >= 1.
        rate: As for `conformal_threshold`.
        confidence: Above 0 and below 1, e.g. 0.95.
    """
    rank = _rank(count, rate)
    low, high = (float(betaincinv(count + 1 - rank, rank, (1 + side * confidence) / 2)) for side in (-1, 1))
    return low, high


def clopper_pearson(count: float, pictures: int, confidence: float) -> tuple[float, float]:
    """Return the exact interval of a share; `count` may be a mean over seeds, so not a whole number."""
    tail = (1 - confidence) / 2
    low = float(betaincinv(count, pictures - count + 1, tail)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, pictures - count, 1 - tail)) if count < pictures else 1.0
    return low, high


def _rank(count: int, rate: float) -> int:
    # The product is a whole number for many rates; rounding must not lift it to the next rank.
    return min(math.ceil((count + 1) * (1 - rate) - 1e-9), count)
