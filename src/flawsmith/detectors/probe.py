"""A probe: frozen feature maps of several depths and a small trained head. Quick, and the clean protocol's default.

Every cell of a picture (4 x 4 pixels) is described by the frozen maps of all depths, fine ones for the outline and
coarse ones for what surrounds it. A head of two layers says for each cell whether it is normal or which defect type it
shows; the features stay what they were, so ten shots do not over-train it. Half of all cells come from normal pictures;
cells of normal pictures that the half-trained head takes for damage are shown again and again (hard negative mining:
Sung & Poggio, "Example-Based Learning for View-Based Human Face Detection", PAMI 1998). Ours.

With several `heads` each learns from all pictures but its share, and the mean of their log odds answers (Breiman,
"Bagging Predictors", Machine Learning 1996, with the shares of a cross-validation instead of draws with replacement).
What a head says of the pictures that it has not learned from is as honest as what it says of a test.

Localization: 1 - P(normal) of each cell. Detection: the mean of its log odds over the cells that fire loudest.
Classification: the shares of the defect types in those cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from flawsmith import config
from flawsmith.data.training_set import Origin, TrainingSet
from flawsmith.errors import DataError
from flawsmith.interfaces import Detector
from flawsmith.nn.methods.place_head import (
    CELL,
    PlaceGraph,
    PlaceHead,
    answer,
    cells_of,
    described_places,
    kept_units,
    standardised,
    together,
)
from flawsmith.types import Prediction

_CHUNK = 16
_ORIGINS: tuple[Origin, ...] = ("real", "made", "control")
_MINED = 200
"""Normal pictures that are searched for hard places, at every second place along each side; the heads share them."""
_NORMALS_OUT_OF_FOLD = 200
"""Normal pictures that are answered out of fold, at most: more hardly change mean and deviation of a score."""


class ProbeSettings(config.Settings):
    """The head and its training."""

    heads: Annotated[int, Field(ge=1, le=20)] = 1
    """Heads; each of several learns from all pictures but its share, and their mean answers."""
    width: Annotated[int, Field(ge=8)] = 256
    """Units of the hidden layer."""
    steps: Annotated[int, Field(ge=2)] = 300
    """Training steps."""
    places: Annotated[int, Field(ge=64)] = 4096
    """Places of pictures that a step looks at."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """AdamW's peak learning rate; a cosine down to nothing."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """AdamW's weight decay."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of hidden units left out in training."""
    views: Annotated[int, Field(ge=1, le=8)] = 8
    """Mirrored and turned views of each real shot."""
    real: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the damaged places that come from real shots, where there are samples too."""
    normal: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the places that come from normal pictures."""
    controls: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the normal pictures' places that come from controls, where there are some."""
    hard: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the normal places that are hard ones, in the second half of the training."""


@dataclass
class _Pool:
    """Places of some pictures, ready to be drawn from."""

    features: Tensor
    """float16 (N,D), `standardised` when heads learn from them."""
    target: Tensor
    """float32 (N,1+K): the share of the place that is normal, and of each defect type."""
    picture: Tensor
    """int64 (N,): number of the training picture."""


class Probe(Detector):
    """Frozen features and a small head; tells localization, detection and classification."""

    Settings: ClassVar[type[config.Settings]] = ProbeSettings
    tells: ClassVar[frozenset[str]] = frozenset({"localization", "detection", "classification"})
    needs_extractor: ClassVar[bool] = True
    settings: ProbeSettings

    _heads: tuple[PlaceHead, ...] = ()
    _without: Tensor | None = None
    """int64 (P,): the head that has not learned from a training picture; -1 = all have."""

    def reduced(self, budget: float) -> str:
        if budget >= 1:
            return ""
        head = "the probe's head trains" if self.settings.heads == 1 else "each of the probe's heads trains"
        return f"{head} {self._steps(budget)} steps, not {self.settings.steps}"

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        if not training.damaged():
            raise DataError("probe learns the damage from labelled pictures, and the training set holds none")
        if not training.normal():
            raise DataError("probe needs normal pictures beside the damaged ones, and the training set holds none")
        pools = self._pools(training, rng)
        normal = next(pools[name] for name in ("normal", "controls") if name in pools)
        deviation, mean = torch.std_mean(normal.features[:20_000].float(), 0)
        scale = 1 / (deviation + 1e-3)
        with torch.inference_mode():
            for pool in pools.values():  # once for all heads and steps
                for rows in pool.features.split(2000):
                    rows.copy_(standardised(rows.float(), mean, scale))
        part, self._without = self.settings, _dealt(training, self.settings.heads, rng)
        heads = [PlaceHead(mean, scale, part.width, len(self.defects) + 1, rng) for _ in range(part.heads)]
        self._heads = tuple(head.to(self.device) for head in heads)
        steps, shares = self._steps(budget), self._shares(training, pools)
        # Each head passes over its share of the places, so there are as many more.
        places = round(part.places * part.heads / max(1, part.heads - 1))
        optimizer = torch.optim.AdamW(
            [weights for head in self._heads for weights in head.parameters()],
            part.learning_rate,
            weight_decay=part.weight_decay,
        )
        warm_up = max(0.1, 1.5 / steps)  # the rise takes more than a step, else torch divides by zero
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, part.learning_rate, total_steps=steps, pct_start=warm_up, cycle_momentum=False
        )
        for step in range(steps):
            if step == steps // 2 and part.hard:
                pools["hard"] = self._hard(training, rng)
                shares["hard"] = part.hard * sum(shares[name] for name in ("normal", "controls") if name in shares)
                shares |= {name: shares[name] * (1 - part.hard) for name in ("normal", "controls") if name in shares}
            drawn = _draw(pools, shares, places, self._without, part.heads, rng)
            features, target, weight = (one.to(self.device) for one in drawn)
            kept = kept_units(len(features), part.heads * part.width, part.dropout, rng).to(self.device)
            logits = together(self._heads, features.float(), kept)
            loss = -(weight * (target[:, None] * logits.log_softmax(2)).sum(2)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % max(1, steps // 10) == 0 and step + 1 < steps:
                yield (step + 1) / steps
        yield 1.0

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Prediction:
        if not self._heads:
            raise DataError("probe was asked before it was trained; call fit first")
        return self._answer(image, self._heads)

    @torch.inference_mode()
    def out_of_fold(self, training: TrainingSet) -> tuple[list[int], Prediction] | None:
        if self._without is None or len(self._heads) < 2:
            return None
        indices, parts = [], []
        dealt = [index for index in training.normal("real") if self._without[index] >= 0]
        photographs = {*dealt[:: math.ceil(len(dealt) / _NORMALS_OUT_OF_FOLD) or 1], *training.damaged(None, "real")}
        for number, head in enumerate(self._heads):
            unseen = [index for index in (self._without == number).nonzero()[:, 0].tolist() if index in photographs]
            for batch in training.batches(unseen, _CHUNK):
                parts.append(self._answer(batch.image, (head,)))
            indices += unseen
        return (indices, Prediction.joined(parts, torch.cat)) if indices else None

    def graph(self) -> nn.Module:
        if not self._heads:
            raise DataError("probe was asked for its graph before it was trained; call fit first")
        assert self.extractor is not None
        return PlaceGraph(self.extractor.graph(), self._heads)

    def _answer(self, image: Tensor, heads: Sequence[PlaceHead]) -> Prediction:
        parts = []
        for chunk in image.split(_CHUNK):
            maps, grid = self._maps(chunk), cells_of(chunk.shape[-2:])
            answers = answer([self._logits(head, maps, grid) for head in heads], image.shape[-2:])
            parts.append(Prediction(*(one.float().cpu() for one in answers)))
        return Prediction.joined(parts, torch.cat)

    def _steps(self, budget: float) -> int:
        return max(2, round(self.settings.steps * budget))

    def _shares(self, training: TrainingSet, pools: dict[str, _Pool]) -> dict[str, float]:
        """Return from which pool which share of a step's places comes."""
        part, shares = self.settings, {}
        shares["normal"], damaged = part.normal, 1 - part.normal
        if "controls" in pools:
            shares["controls"], shares["normal"] = part.normal * part.controls, part.normal * (1 - part.controls)
        groups = {defect: [o for o in ("real", "made") if f"{o} {defect}" in pools] for defect in training.defects}
        groups = {defect: origins for defect, origins in groups.items() if origins}
        for defect, origins in groups.items():
            for origin in origins:
                own = 1.0 if len(origins) == 1 else (part.real if origin == "real" else 1 - part.real)
                shares[f"{origin} {defect}"] = damaged / len(groups) * own
        return {name: share for name, share in shares.items() if share > 0}

    def _pools(self, training: TrainingSet, rng: torch.Generator) -> dict[str, _Pool]:
        pools = {}
        if own := training.normal("real") or training.normal():
            pools["normal"] = self._gather(training, own, rng, each=192)
        if (controls := training.normal("control")) and self.settings.controls:
            pools["controls"] = self._gather(training, controls, rng, each=256)
        origins: tuple[Origin, ...] = ("real", "made")
        for defect in training.defects:
            for origin in origins:
                if own := training.damaged(defect, origin):
                    views = self.settings.views if origin == "real" else 1
                    pools[f"{origin} {defect}"] = self._gather(training, own, rng, each=512, views=views)
        return pools

    @torch.inference_mode()
    def _gather(
        self, training: TrainingSet, indices: list[int], rng: torch.Generator, *, each: int, views: int = 1
    ) -> _Pool:
        """Describe `each` places per picture: half inside the label, or where a control was painted, if they fit."""
        assert self.extractor is not None
        # Filled in its place: joined from pieces it would lie in memory twice. What is not filled takes none.
        capacity = len(indices) * views * min(each, math.prod(cells_of(training.shape)))
        features, filled = torch.empty((capacity, sum(self.extractor.channels)), dtype=torch.float16), 0
        targets, pictures = [], []
        for start in range(0, len(indices), _CHUNK):
            chosen = indices[start : start + _CHUNK]
            batch = training.batch(chosen)
            for view in range(views):
                image, mask = _turned(batch.image, view), _turned(batch.mask, view)
                maps = self._maps(image)
                cover = F.avg_pool2d(mask, CELL, ceil_mode=True)
                left_out: Tensor | None = None
                if (counted := training.counted(chosen)) is not None:  # what is neither damage nor normal has no say
                    share = F.avg_pool2d(_turned(counted, view), CELL, ceil_mode=True)
                    cover, left_out = (cover / share.clamp_min(1e-6)).clamp_max(1), 1 - share
                for row, index in enumerate(chosen):
                    flat = cover[row].flatten()
                    asked = flat
                    if (painted := training.pictures[index].painted) is not None:
                        own = torch.from_numpy(painted)[None, None].float()
                        asked = F.avg_pool2d(_turned(own, view), CELL, ceil_mode=True).flatten()
                    places = _places(asked, each, rng, None if left_out is None else left_out[row].flatten())
                    features[filled : filled + len(places)] = described_places(maps, row, places, cover.shape[-2:])
                    filled += len(places)
                    target = torch.zeros(len(places), len(self.defects) + 1)
                    target[:, 0] = 1 - flat[places]
                    if (label := training.label(index)) >= 0:
                        target[:, 1 + label] = flat[places]
                    targets.append(target)
                    pictures.append(torch.full((len(places),), index))
        return _Pool(features[:filled], torch.cat(targets), torch.cat(pictures))

    @torch.inference_mode()
    def _hard(self, training: TrainingSet, rng: torch.Generator) -> _Pool:
        """Return the places of normal pictures that look most like damage to a half-trained head that learns them."""
        assert self._without is not None
        indices = training.normal() if self.settings.controls else training.normal("real", "made")
        features, pictures, each = [], [], math.ceil(_MINED / self.settings.heads)
        for number, head in enumerate(self._heads):
            learned = [index for index in indices if self._without[index] != number]
            drawn = [learned[place] for place in torch.randperm(len(learned), generator=rng)[:each].tolist()]
            for start in range(0, len(drawn), _CHUNK):
                chosen = drawn[start : start + _CHUNK]
                maps, grid = self._maps(training.batch(chosen).image), cells_of(training.shape, 2 * CELL)
                anomaly_map = 1 - self._logits(head, maps, grid).softmax(1)[:, 0].cpu()
                worst = anomaly_map.flatten(1).topk(min(64, math.prod(grid)), dim=1).indices
                features += [described_places(maps, row, worst[row], grid) for row in range(len(chosen))]
                pictures.append(torch.tensor(chosen).repeat_interleave(worst.shape[1]))
        mean, scale = self._heads[0].mean, self._heads[0].scale  # those of all heads
        hard_negatives = standardised(torch.cat(features).to(self.device).float(), mean, scale).half().cpu()
        target = torch.zeros(len(hard_negatives), len(self.defects) + 1)
        target[:, 0] = 1
        return _Pool(hard_negatives, target, torch.cat(pictures))

    def _maps(self, image: Tensor) -> list[Tensor]:
        assert self.extractor is not None
        return [m.float().cpu() for m in self.extractor.maps(image.to(self.device))]

    def _logits(self, head: PlaceHead, maps: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
        """Return float32 (B,1+K,rows,columns) for every place of a grid (rows, columns)."""
        return head.dense([m.to(self.device) for m in maps], grid)


def _turned(pictures: Tensor, view: int) -> Tensor:
    """One of the eight mirrored and turned views; a quarter turn exchanges rows and columns."""
    return torch.rot90(pictures.flip(-1) if view % 2 else pictures, view // 2, (-2, -1))


def _places(cover: Tensor, each: int, rng: torch.Generator, ignored: Tensor | None) -> Tensor:
    """Draw places: up to half of them touched by what was marked or painted, the rest elsewhere but in `ignored`."""
    touched = (cover > 0).nonzero()[:, 0]
    inside = touched[torch.randperm(len(touched), generator=rng)[: each // 2]]
    clear = ((cover == 0) if ignored is None else (cover == 0) & (ignored == 0)).nonzero()[:, 0]
    outside = clear[torch.randperm(len(clear), generator=rng)[: each - len(inside)]]
    return torch.cat([inside, outside])


def _dealt(training: TrainingSet, heads: int, rng: torch.Generator) -> Tensor:
    """Deal the pictures to the heads that shall not learn from them: int64 (P,); -1 = all heads learn from it.

    Dealt are the pictures of one origin and defect type, alike many to each head. What was made from a normal
    photograph goes where the photograph goes, so that a head has seen nothing of what it has not learned from.
    Pictures that are too few for every head to keep some of their kind are dealt to none.
    """
    dealt = torch.full((len(training.pictures),), -1)
    if heads == 1:
        return dealt
    place: dict[str, int] = {}
    for origin in _ORIGINS:
        for defect in (None, *training.defects):
            group = training.normal(origin) if defect is None else training.damaged(defect, origin)
            order = torch.randperm(len(group), generator=rng).tolist()
            heads_of = {group[at]: turn % heads for turn, at in enumerate(order)}
            for index in group:
                photograph = training.pictures[index].photograph
                heads_of[index] = place.setdefault(photograph, heads_of[index]) if photograph else heads_of[index]
            if all(any(other != head for other in heads_of.values()) for head in range(heads)) and len(group) >= heads:
                dealt[list(heads_of)] = torch.tensor(list(heads_of.values()))
    return dealt


def _draw(
    pools: dict[str, _Pool], shares: dict[str, float], count: int, without: Tensor, heads: int, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw places for a step, from each pool its share of them.

    Returns:
        Their features (N,D) and targets (N,1+K), and float32 (N,heads): what each head makes of them, 0 where it does
        not learn from the picture; of every pool they add up to its share.
    """
    features, targets, weights = [], [], []
    for name, share in shares.items():
        pool = pools[name]
        chosen = torch.randint(len(pool.features), (max(1, round(count * share)),), generator=rng)
        features.append(pool.features[chosen])
        targets.append(pool.target[chosen])
        learned = without[pool.picture[chosen], None] != torch.arange(heads)
        weights.append(learned * (share / learned.sum(0).clamp_min(1)))
    return torch.cat(features), torch.cat(targets), torch.cat(weights)
