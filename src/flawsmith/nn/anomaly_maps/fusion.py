"""How what the heads and what the memory of `memory_probe` say becomes one number: standardized, then weighed.

Each is standardized by what it says of normal pictures that it has not learned from, and weighed by how well it tells
shots that it has not learned from: pictures for the image score, places for the anomaly map. Few shots say little about
that, so the weighing starts from weights that are known beforehand: equal ones where the heads have learned from many
damaged pictures, most for the memory where they have learned from few. Ours; in both cases a linear sum, as of Fisher's
discriminant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_PRIOR_SHOTS = 20
"""Shots for which the weights that are known beforehand count: fewer real ones move them little."""
_HALF_LEARNED = 15
"""Damaged pictures after which heads that no shot has tested get half of what they get after many: a quarter of the sum
(benchmarks/suites/memory_share.py)."""
_SHARES = sorted((number / 8 for number in range(9)), key=lambda share: abs(share - 0.5))
"""Shares of the memory in the anomaly map that are tried; of equally good ones the most even is taken."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """How two numbers become one; the first is of the heads, the second of the memory."""

    mean: Tensor
    """float32 (2,): of both over normal pictures."""
    deviation: Tensor
    """float32 (2,): their standard deviations over normal pictures."""
    weight: Tensor
    """float32 (2,), sum 1."""

    def join(self, heads: Tensor, memory: Tensor) -> Tensor:
        """Return the weighed sum of the standardized numbers; float32 of any one shape."""
        first = (heads - self.mean[0]) / self.deviation[0]
        second = (memory - self.mean[1]) / self.deviation[1]
        return first * self.weight[0] + second * self.weight[1]


def score_fusion(heads: Tensor, memory: Tensor, labels: Tensor, learned: int) -> Fusion:
    """Weigh the image scores by d' (Fisher's linear discriminant), from the mean over the defect types of the AUROC.

    Of two independent scores that are normally distributed the best linear sum weighs each by its d'.

    Args:
        heads: float32 (N,): what heads say of pictures that they have not learned from, unbounded.
        memory: float32 (N,): how far these lie from the memory.
        labels: int64 (N,): number of the defect type, -1 = normal; at least two are.
        learned: Damaged pictures, shots and samples, that the heads have learned from.
    """
    scores = torch.stack([heads, memory], 1)
    mean, deviation = _of_normal(heads[labels < 0], memory[labels < 0])
    shots = int((labels >= 0).sum())
    if not shots:
        return Fusion(mean, deviation, _untested(learned))
    sure = 1 - 0.5 / (shots + 1)  # nothing is known to be told better than that
    area = torch.tensor([_mean_auroc(one, labels) for one in scores.T]).clamp(0.5 + 1e-3, sure)
    separation = torch.special.ndtri(area)
    return Fusion(mean, deviation, _tested(separation / separation.sum(), shots, learned))


def map_fusion(heads: Tensor, memory: Tensor, damaged: Tensor, counted: Tensor, labels: Tensor, learned: int) -> Fusion:
    """Weigh the anomaly maps so that the mean over the defect types of the average precision of places is greatest.

    Args:
        heads: float32 (N,1,r,c): log odds of places of pictures that the heads have not learned from.
        memory: float32 (N,1,r,c): the logarithm of their distance from the memory.
        damaged: float32 (N,1,r,c), 0..1: the share of a place that is labelled.
        counted: float32 (N,1,r,c), 0..1: the share that is either damaged or normal.
        labels: int64 (N,): number of the defect type, -1 = normal; at least two are.
        learned: Damaged pictures, shots and samples, that the heads have learned from.
    """
    normal = labels < 0
    mean, deviation = _of_normal(heads[normal].flatten(), memory[normal].flatten())
    shots = int((~normal).sum())
    if not shots:
        return Fusion(mean, deviation, _untested(learned))
    best, most = 0.5, -1.0
    for share in _SHARES:
        joined = Fusion(mean, deviation, torch.tensor([1 - share, share])).join(heads, memory)
        worth = []
        for label in labels[~normal].unique():
            among = normal | (labels == label)
            worth.append(_average_precision(joined[among], damaged[among], (counted - damaged)[among]))
        if sum(worth) / len(worth) > most:
            best, most = share, sum(worth) / len(worth)
    return Fusion(mean, deviation, _tested(torch.tensor([1 - best, best]), shots, learned))


def _of_normal(heads: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of both."""
    pairs = torch.stack([heads, memory])
    return pairs.mean(1), pairs.std(1) + 1e-6


def _untested(learned: int) -> Tensor:
    """Return the weights where nothing is known but from how many damaged pictures the heads have learned."""
    heads = 0.5 * learned / (learned + _HALF_LEARNED)
    return torch.tensor([heads, 1 - heads])


def _tested(weight: Tensor, shots: int, learned: int) -> Tensor:
    """Return the weights that so many shots ask for, drawn towards those that are known beforehand."""
    return (shots * weight + _PRIOR_SHOTS * _untested(learned)) / (shots + _PRIOR_SHOTS)


def _mean_auroc(score: Tensor, labels: Tensor) -> float:
    """Return the mean over the defect types of the image AUROC against all normal pictures."""
    normal = score[labels < 0]
    areas = []
    for label in labels[labels >= 0].unique():
        gap = score[labels == label][:, None] - normal
        areas.append((gap.sign() * 0.5 + 0.5).mean())
    return float(torch.stack(areas).mean())


def _average_precision(score: Tensor, damaged: Tensor, normal: Tensor) -> float:
    """Return the average precision of places, of each of which a share is damaged and a share is normal."""
    order = score.flatten().argsort(descending=True)
    hits, misses = damaged.flatten()[order].double(), normal.flatten()[order].double()
    hits_above = hits.cumsum(0)
    precision = hits_above / (hits_above + misses.cumsum(0)).clamp_min(1e-12)
    return float((hits * precision).sum() / hits_above[-1].clamp_min(1e-12))
