"""The field's classifier of defect types: ResNet-34 from ImageNet with a new head, on damaged pictures.

As in Hu et al., "AnomalyDiffusion", AAAI 2024, and what followed it: one product at a time, 30 epochs of all pictures
five times over, no more than 500 pictures per defect type, no augmentation. The field's protocol to the letter is
`budget` = 1 with the default settings, pictures of 256 px, and ImageNet's weights in the folder `weights`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from flawsmith import config
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import DataError
from flawsmith.interfaces import Detector
from flawsmith.nn.backbone import cast
from flawsmith.nn.device import gains_from_bfloat16
from flawsmith.nn.networks.resnet import ResNet34, check_folder
from flawsmith.nn.networks.training_state import TrainingState, identity_of
from flawsmith.types import Prediction

_MOST = 500
"""Most pictures per defect type that are learned from."""
_FALLS, _FALL = (0.8, 0.9), 0.2
"""Shares of the epochs after which the learning rate falls, and to how much of itself."""
_CHUNK = 16


class ClassifierSettings(config.Settings):
    """The field's values; another value is another protocol."""

    weights: str = ""
    """A transformers folder with ImageNet's ResNet-34; empty = random weights, which is not the field's protocol."""
    epochs: Annotated[int, Field(ge=1)] = 30
    """Epochs; the learning rate falls to a fifth after 80 % and again after 90 % of them."""
    repeats: Annotated[float, Field(gt=0)] = 5.0
    """How often an epoch shows each picture."""
    batch: Annotated[int, Field(ge=2)] = 8
    """Pictures per step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Adam's."""


class Classifier(Detector):
    """ResNet-34 over the defect types; tells classification.

    On a CPU the same `rng` and number of threads give the same weights bit by bit; a GPU adds in its own order.
    """

    Settings: ClassVar[type[config.Settings]] = ClassifierSettings
    tells: ClassVar[frozenset[str]] = frozenset({"classification"})
    settings: ClassifierSettings

    _network: ResNet34 | None = None

    def prepare(self) -> None:
        if self.settings.weights:
            check_folder(Path(self.settings.weights))
        # In float32, channels_last makes these convolutions slower on a CPU, so the two come together.
        self._quick = torch.device(self.device).type == "cpu" and gains_from_bfloat16()
        self._layout = torch.channels_last if self._quick else torch.contiguous_format

    def reduced(self, budget: float) -> str:
        (epochs, repeats), letter = self._plan(budget), ClassifierSettings()
        said = []
        if epochs < letter.epochs:
            said.append(f"trains {epochs} epochs, not {letter.epochs}")
        if repeats < letter.repeats:
            said.append(f"sees each picture {repeats:g} times an epoch, not {letter.repeats:g}")
        if not self.settings.weights:
            said.append(
                "starts from random weights, not ImageNet's (name a folder in prove.settings.classifier.weights)"
            )
        return f"the classifier {'; '.join(said)}" if said else ""

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        if training.defects != self.defects:
            raise DataError(f"classifier was made for {', '.join(self.defects)}, not for {', '.join(training.defects)}")
        own = [index for defect in self.defects for index in training.damaged(defect)[:_MOST]]
        if not own:
            raise DataError("classifier learns the defect types from damaged pictures, and the training set holds none")
        part, (epochs, repeats) = self.settings, self._plan(budget)
        identity = ""
        if self.checkpoint is not None:
            identity = identity_of(rng, training.content_hash(), part.model_dump(), epochs, repeats)
        network = cast(ResNet34(len(self.defects), rng, part.weights).to(self.device), torch.float32, self._layout)
        self._network = network
        optimizer = torch.optim.Adam(network.parameters(), part.learning_rate, fused=True)
        falls = [round(epochs * share) for share in _FALLS]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, falls, _FALL)
        count = max(2, round(len(own) * repeats))
        state = TrainingState(self.checkpoint, network, optimizer, schedule, rng, identity)
        done = state.resume()
        if done == epochs:
            yield 1.0
        for epoch in range(done, epochs):
            network.train()
            order = torch.randperm(max(count, len(own)), generator=rng)[:count] % len(own)
            for start in range(0, count, part.batch):
                # Batch norm over the one cell that 32 pixels leave at the end needs two pictures.
                chosen = [own[place] for place in order[min(start, count - 2) : start + part.batch].tolist()]
                labels = torch.tensor([training.label(index) for index in chosen], device=self.device)
                loss = F.cross_entropy(self._logits(training.batch(chosen).image), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
            yield (epoch + 1) / epochs  # whoever tests after each epoch has done so when this one is kept
            state.keep(epoch + 1, last=epoch + 1 == epochs)

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Prediction:
        if self._network is None:
            raise DataError("classifier was asked before it was trained; call fit first")
        self._network.eval()
        return Prediction(
            probabilities=torch.cat([self._logits(chunk).softmax(1).cpu() for chunk in image.split(_CHUNK)])
        )

    def _plan(self, budget: float) -> tuple[int, float]:
        """Divide a budget evenly among epochs and how often each shows a picture."""
        part, share = self.settings, math.sqrt(min(budget, 1.0))
        return max(1, round(part.epochs * share)), part.repeats if share == 1 else round(part.repeats * share, 2)

    def _logits(self, image: Tensor) -> Tensor:
        """Return float32 (B,K)."""
        assert self._network is not None
        pixels = image.to(self.device).contiguous(memory_format=self._layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._quick):
            return self._network(pixels).float()
