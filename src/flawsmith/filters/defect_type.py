"""Defect type: would a classifier that knows the real shots call it what it was meant to be?

The classifier is a linear discriminant on the tokens inside the mask, in the space that the shots span, with a
covariance shrunk towards a ball (Friedman: "Regularized Discriminant Analysis", JASA 1989). It is asked about each shot
that it has not seen; where its answers are not clearly better than guessing, the filter is off and says so. Ours;
AnomalyControl-Inpaint trains a classifier on made pictures but filters with none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from flawsmith import config
from flawsmith.interfaces import Filter
from flawsmith.types import ScreeningSet

_LEAST = 3
"""Shots per defect type below which nothing is judged."""
_SURE = 1.645
"""Standard deviations: the one-sided 95 % bound of Wilson's interval."""


class DefectTypeSettings(config.Settings):
    """The classifier."""

    shrinkage: Annotated[float, Field(ge=0.01, le=1)] = 0.5
    """How far the covariance is drawn towards a ball: 1 = the nearest mean decides."""


class DefectType(Filter):
    """The intended type's log odds against the likeliest other one; below 0 = it looks more like that one."""

    Settings: ClassVar[type[config.Settings]] = DefectTypeSettings
    settings: DefectTypeSettings
    scores: ClassVar[dict[str, str]] = {"defect_type": "it looks like another defect type"}

    def __init__(self, settings: config.Settings, defects: Sequence[str]) -> None:
        super().__init__(settings, defects)
        self._discriminant: dict[str, Tensor] = {}
        self._right, self._asked, self._chance, self._fewest = 0, 0, 1.0, 0

    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, Tensor]:
        defect = torch.tensor([self.defects.index(one) for one in shots.defect], dtype=torch.int64)
        counts = torch.bincount(defect, minlength=len(self.defects))
        self._asked, self._fewest = len(defect), int(counts.min()) if len(defect) else 0
        self._chance = float(counts.max() / max(1, len(defect)))
        nothing = {"defect_type": torch.full((len(shots),), torch.nan)}
        if len(self.defects) < 2 or self._fewest < _LEAST:
            return nothing
        tokens = shots.vector["tokens"].double()
        scores = []
        for row in range(len(defect)):
            rest = torch.arange(len(defect)) != row
            without = _fitted(tokens[rest], defect[rest], len(self.defects), self.settings.shrinkage)
            scores.append(_odds(without, tokens[row : row + 1], defect[row : row + 1]))
        left_out = torch.cat(scores)
        self._right = int((left_out > 0).sum())
        self._discriminant = _fitted(tokens, defect, len(self.defects), self.settings.shrinkage)
        return {"defect_type": left_out} if not self._off() else nothing

    def score(self, made: ScreeningSet) -> dict[str, Tensor]:
        if self._off() or not len(made):
            return {"defect_type": torch.full((len(made),), torch.nan)}
        asked = torch.tensor([self.defects.index(defect) for defect in made.defect], dtype=torch.int64)
        tokens = made.vector["tokens"].double()
        # One by one: a product of matrices rounds by its shape, and a picture's score may not depend on its neighbours.
        rows = [_odds(self._discriminant, tokens[row : row + 1], asked[row : row + 1]) for row in range(len(made))]
        return {"defect_type": torch.cat(rows)}

    def state(self) -> dict[str, Tensor]:
        known = torch.tensor([self._right, self._asked, self._chance, self._fewest], dtype=torch.float64)
        return {"known": known, **self._discriminant}

    def restore(self, state: dict[str, Tensor]) -> None:
        right, asked, self._chance, fewest = state["known"].tolist()
        self._right, self._asked, self._fewest = int(right), int(asked), int(fewest)
        self._discriminant = {name: tensor for name, tensor in state.items() if name != "known"}

    def said(self) -> str:
        off, few = self._off(), len(self.defects) < 2 or self._fewest < _LEAST
        if few:
            return f"defect type is off: {off}"
        sentence = (
            f"defect type: {self._right} of {self._asked} left-out shots named rightly (guessing: {self._chance:.0%})"
        )
        return f"{sentence}; {off}, so it is off" if off else sentence

    def _off(self) -> str:
        """Return why the classifier is not to be trusted; "" = it is."""
        if len(self.defects) < 2:
            return "the product has one defect type"
        if self._fewest < _LEAST:
            return f"too few shots to tell ({self._fewest} of a defect type, {_LEAST} needed)"
        if _wilson_low(self._right, self._asked) <= self._chance:
            return "not clearly better than guessing"
        return ""


def _fitted(tokens: Tensor, defect: Tensor, defects: int, shrinkage: float) -> dict[str, Tensor]:
    """Return the discriminant: centre (D,), basis (D,R), means (K,R), inverse covariance (R,R), all float64."""
    centre = tokens.mean(0)
    _, strength, basis = torch.linalg.svd(tokens - centre, full_matrices=False)
    basis = basis[strength > 1e-6 * strength[0].clamp_min(1e-12)].T
    points = (tokens - centre) @ basis
    means = torch.stack([points[defect == number].mean(0) for number in range(defects)])
    within = points - means[defect]
    covariance = within.T @ within / max(1, len(points) - defects)
    ball = covariance.diagonal().mean().clamp_min(1e-9) * torch.eye(len(covariance), dtype=torch.float64)
    return {
        "centre": centre,
        "basis": basis.contiguous(),
        "means": means,
        "inverse": torch.linalg.inv((1 - shrinkage) * covariance + shrinkage * ball),
    }


def _odds(discriminant: dict[str, Tensor], tokens: Tensor, intended: Tensor) -> Tensor:
    """Return log p(intended) - log p(likeliest other), all types being as likely beforehand: float32 (N,)."""
    away = ((tokens - discriminant["centre"]) @ discriminant["basis"])[:, None] - discriminant["means"]
    likely = -0.5 * torch.einsum("nkr,rs,nks->nk", away, discriminant["inverse"], away)
    meant = likely.gather(1, intended[:, None])[:, 0]
    other = likely.scatter(1, intended[:, None], -torch.inf).max(dim=1).values
    return (meant - other).float()


def _wilson_low(right: int, asked: int) -> float:
    """Return the lower end of Wilson's interval for a share."""
    if not asked:
        return 0.0
    share, z = right / asked, _SURE**2 / asked
    return (share + z / 2 - _SURE * (share * (1 - share) / asked + z / (4 * asked)) ** 0.5) / (1 + z)
