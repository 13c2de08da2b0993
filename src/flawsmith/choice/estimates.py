"""What a few folds say of an effect, per defect type: estimates that lean on one another, with standard errors.

Two or three shots in a fold say little, and whoever takes the best of several noisy figures is disappointed later. So
each type's estimate is drawn towards the mean over all types, the more the less the types differ beyond their noise:
empirical Bayes with normal errors (Efron & Morris, "Data Analysis Using Stein's Estimator and its Generalizations",
JASA 1975, section 3; the spread between types by the method of moments, as in DerSimonian & Laird 1986).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Estimate:
    """An effect, in the units of the figure."""

    value: float
    error: float
    """Standard error."""

    @property
    def helps(self) -> bool:
        """Whether it stands above 0 by more than its standard error."""
        return self.value > self.error

    @property
    def harms(self) -> bool:
        """Whether it stands below 0 by more than its standard error."""
        return self.value < -self.error


def estimates(differences: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """Return each type's effect.

    Args:
        differences: Defect type -> the difference in each fold that judged it, at least one. Types may have different
            numbers of folds; where each has one, nothing tells the noise, and errors are infinite.

    Raises:
        ValueError: there is no type.
    """
    if not differences:
        raise ValueError("no differences to estimate from")
    means = {name: float(np.mean(values)) for name, values in differences.items()}
    # A type's own two or three folds say nothing of their spread; that of all types together does.
    spreads = [float(np.var(values, ddof=1)) for values in differences.values() if len(values) > 1]
    free = [len(values) - 1 for values in differences.values() if len(values) > 1]
    if not spreads:
        return {name: Estimate(mean, float("inf")) for name, mean in means.items()}
    within = float(np.average(spreads, weights=free))
    errors = {name: within / len(values) for name, values in differences.items()}
    centre = float(np.mean(list(means.values())))
    count = len(means)
    between = 0.0
    if count > 1:
        between = max(0.0, float(np.var(list(means.values()), ddof=1)) - float(np.mean(list(errors.values()))))
    of_centre = (between + float(np.mean(list(errors.values())))) / count
    made = {}
    for name, mean in means.items():
        kept = between / (between + errors[name]) if count > 1 and between + errors[name] else 1.0
        variance = kept * errors[name] + (1 - kept) ** 2 * of_centre
        made[name] = Estimate(centre + kept * (mean - centre), float(np.sqrt(variance)))
    return made


def overall(differences: Mapping[str, Sequence[float]]) -> Estimate:
    """Return the mean effect over types, its error from the types' means and their folds alike."""
    means = [float(np.mean(values)) for values in differences.values()]
    spreads = [float(np.var(values, ddof=1)) / len(values) for values in differences.values() if len(values) > 1]
    noise = float(np.mean(spreads)) if spreads else float("inf")
    return Estimate(float(np.mean(means)), float(np.sqrt(noise / len(means))))
