"""The field's localizer: DRAEM's discriminative U-Net, trained from random weights; localization and detection.

Zavrtanik et al., "DRAEM", ICCV 2021, section 3.2, as the papers that make defects use it: without the reconstructive
half, three channels in, two out, 200 epochs of 500 pictures at 256 px. The score of a picture is the greatest value of
the anomaly map averaged over 21 x 21 pixels (section 3.4).

The field's protocol to the letter is `budget` = 1 with the default settings. That is about 22 PFLOP at 256 px: minutes
on a GPU, days on two cores. So a smaller budget leaves out epochs and pictures, and on a CPU narrows the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from flawsmith import config
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import DataError
from flawsmith.interfaces import Detector
from flawsmith.nn.backbone import cast
from flawsmith.nn.device import gains_from_bfloat16
from flawsmith.nn.networks.training_state import TrainingState, identity_of
from flawsmith.nn.weights import fresh_layers
from flawsmith.types import Prediction

_MOST = 500
"""Most pictures per defect type that are learned from."""
_GAMMA, _SMOOTH = 2, 1e-5
_STEPS, _DROP = (0.8, 0.9), 0.2
"""Shares of the epochs after which the learning rate falls, and to how much of itself."""
_POOL = 21
_NARROWEST, _SMALLEST = 8, 32
_WIDE = 32
"""Channels of the first level from which bfloat16 is quicker on a CPU that multiplies it in hardware."""
_CHUNK = 16


class UnetSettings(config.Settings):
    """The field's values; another value is another protocol."""

    width: Annotated[int, Field(ge=1)] = 64
    """Channels of the first level; the deeper ones have 2, 4, 8, 8 and 8 times as many."""
    epochs: Annotated[int, Field(ge=1)] = 200
    """Epochs; the learning rate falls to a fifth after 80 % and again after 90 % of them."""
    samples_per_epoch: Annotated[int, Field(ge=2)] = 500
    """Pictures drawn per epoch: half of them normal, else a defect type, then a picture of it."""
    batch: Annotated[int, Field(ge=2)] = 8
    """Pictures per step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Adam's."""
    controls: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the normal draws that are controls, where there are some."""


@dataclass(frozen=True)
class _Plan:
    """What a budget affords."""

    width: int
    epochs: int
    samples: int


class Unet(Detector):
    """DRAEM's discriminative U-Net; tells localization and detection.

    On a CPU the same `rng` and number of threads give the same weights bit by bit; a GPU adds in its own order.
    """

    Settings: ClassVar[type[config.Settings]] = UnetSettings
    tells: ClassVar[frozenset[str]] = frozenset({"localization", "detection"})
    settings: UnetSettings

    _network: nn.Module | None = None
    _quick, _layout = False, torch.contiguous_format

    def reduced(self, budget: float) -> str:
        plan, letter = self._plan(budget), UnetSettings()
        said = [
            f"{now} {what}, not {full}"
            for what, now, full in (
                ("epochs", plan.epochs, letter.epochs),
                ("pictures an epoch", plan.samples, letter.samples_per_epoch),
                ("channels at the first level", plan.width, letter.width),
            )
            if now < full
        ]
        return f"the U-Net trains with {'; '.join(said)}" if said else ""

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        if not training.damaged():
            raise DataError("unet learns the damage from labelled pictures, and the training set holds none")
        if not training.normal():
            raise DataError("unet needs normal pictures beside the damaged ones, and the training set holds none")
        if (least := min(training.shape)) < _SMALLEST:
            raise DataError(f"unet halves pictures five times: {least} pixels are too few, use {_SMALLEST}")
        plan, part = self._plan(budget), self.settings
        identity = self._identity(training, rng, plan)
        network = _Network(plan.width, rng).to(self.device)
        # In float32, channels_last makes these convolutions slower on a CPU, so the two come together.
        self._quick = torch.device(self.device).type == "cpu" and plan.width >= _WIDE and gains_from_bfloat16()
        self._layout = torch.channels_last if self._quick else torch.contiguous_format
        self._network = cast(network, torch.float32, self._layout)
        optimizer = torch.optim.Adam(network.parameters(), part.learning_rate, fused=True)
        falls = [round(plan.epochs * share) for share in _STEPS]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls, _DROP)
        state = TrainingState(self.checkpoint, network, optimizer, schedule, rng, identity)
        done = state.resume()
        if done == plan.epochs:
            yield 1.0
        for epoch in range(done, plan.epochs):
            network.train()
            drawn = self._draw(training, plan.samples, rng)
            for start in range(0, len(drawn), part.batch):
                # Batch norm over the one cell that 32 pixels leave at the bottom needs two pictures.
                chosen = drawn[min(start, len(drawn) - 2) : start + part.batch]
                batch = training.batch(chosen)
                counted = training.counted(chosen)
                loss = focal_loss(
                    self._probabilities(batch.image),
                    batch.mask.to(self.device),
                    None if counted is None else counted.to(self.device),
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
            yield (epoch + 1) / plan.epochs  # whoever tests after each epoch has done so when this one is kept
            state.keep(epoch + 1, last=epoch + 1 == plan.epochs)

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Prediction:
        if self._network is None:
            raise DataError("unet was asked before it was trained; call fit first")
        self._network.eval()
        anomaly_map = torch.cat([self._probabilities(chunk)[:, 1:].cpu() for chunk in image.split(_CHUNK)])
        return Prediction(anomaly_map, _score(anomaly_map), None)

    def graph(self) -> nn.Module:
        if self._network is None:
            raise DataError("unet was asked for its graph before it was trained; call fit first")
        return _Graph(self._network).eval()

    def _identity(self, training: TrainingSet, rng: torch.Generator, plan: _Plan) -> str:
        if self.checkpoint is None:
            return ""
        decides = self.settings.model_dump(), plan.width, plan.epochs, plan.samples
        return identity_of(rng, training.content_hash(), *decides)

    def _plan(self, budget: float) -> _Plan:
        """Divide a budget evenly among epochs and pictures; what a CPU computes shrinks with the width besides."""
        part, share = self.settings, math.sqrt(min(budget, 1.0))
        width = part.width
        if torch.device(self.device).type == "cpu":
            width = min(part.width, max(_NARROWEST, 8 * round(part.width * share / 8)))
        return _Plan(width, max(1, round(part.epochs * share)), max(2, round(part.samples_per_epoch * share)))

    def _probabilities(self, image: Tensor) -> Tensor:
        """Return float32 (B,2,H,W): how likely each pixel is normal, and damaged."""
        assert self._network is not None
        pixels = image.to(self.device).add(1).div(2).contiguous(memory_format=self._layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._quick):
            logits = self._network(pixels)
        return logits.float().softmax(1)

    def _draw(self, training: TrainingSet, count: int, rng: torch.Generator) -> list[int]:
        """Draw an epoch: p = .5 a normal picture, else a type and one of its first 500 (shots before samples)."""
        plain, controls = training.normal("real", "made"), training.normal("control")
        defects = [own[:_MOST] for defect in training.defects if (own := training.damaged(defect))]
        share = self.settings.controls if controls and plain else float(bool(controls))
        drawn = []
        for damaged, control, defect, place in torch.rand(count, 4, generator=rng, dtype=torch.float64).tolist():
            group = defects[int(defect * len(defects))] if damaged < 0.5 else controls if control < share else plain
            drawn.append(group[int(place * len(group))])
        return drawn


def focal_loss(probability: Tensor, mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the mean of -(1 - p)^2 log p over pixels, p the probability of the right answer.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, with DRAEM's smoothing: the right answer counts
    1 - 1e-5 and the wrong one 1e-5, and 1e-5 is added to p.

    Args:
        probability: float32 (B,2,H,W): normal, damaged; sums to 1.
        mask: float32 (B,1,H,W), {0,1}.
        counted: float32 (B,1,H,W), {0,1}: 0 = the pixel is neither and is left out; None = all count.
    """
    damaged = (mask > 0.5).float().clamp(_SMOOTH, 1 - _SMOOTH)
    right = probability[:, :1] * (1 - damaged) + probability[:, 1:] * damaged + _SMOOTH
    loss = -((1 - right) ** _GAMMA * right.log())
    return loss.mean() if counted is None else (loss * counted).sum() / counted.sum().clamp_min(1)


class _Network(nn.Module):
    """Six levels down, five up; at each two 3 x 3 convolutions with batch norm and ReLU, and what went down beside it.

    Args:
        width: Channels of the first level.
        rng: Decides the weights.
    """

    def __init__(self, width: int, rng: torch.Generator) -> None:
        super().__init__()
        depths = [width * factor for factor in (1, 2, 4, 8, 8, 8)]
        risen = [width * factor for factor in (8, 4, 2, 1, 1)]
        with fresh_layers(int(torch.randint(2**31, (1,), generator=rng))):
            self.down = nn.ModuleList(_double(a, b) for a, b in zip([3, *depths], depths, strict=False))
            self.rise = nn.ModuleList(_single(a, b) for a, b in zip([depths[-1], *risen], risen, strict=False))
            self.up = nn.ModuleList(_double(a + b, a) for a, b in zip(risen, depths[-2::-1], strict=True))
            self.out = nn.Conv2d(width, 2, 3, padding=1)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.normal_(module.weight, 0, 0.02)
                elif isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.weight, 1, 0.02)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B,2,H,W) of pictures (B,3,H,W) in [0,1], H and W at least 32."""
        seen = [self.down[0](image)]
        for level in self.down[1:]:
            seen.append(level(F.max_pool2d(seen[-1], 2)))
        x = seen.pop()
        for rise, up in zip(self.rise, self.up, strict=True):
            skip = seen.pop()
            x = rise(F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=True))
            x = up(torch.cat([x, skip], 1))
        return self.out(x)


class _Graph(nn.Module):
    """The network from pictures in [-1,1] to anomaly map and score, in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        anomaly_map = self.network(image.add(1).div(2)).softmax(1)[:, 1:]
        return anomaly_map, _score(anomaly_map)


def _score(anomaly_map: Tensor) -> Tensor:
    """Return float32 (B,) from anomaly maps (B,1,R,C)."""
    return F.avg_pool2d(anomaly_map, _POOL, stride=1, padding=_POOL // 2).amax((1, 2, 3))


def _single(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


def _double(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(*_single(inside, outside), *_single(outside, outside))
