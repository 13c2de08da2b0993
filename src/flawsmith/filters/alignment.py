"""Alignment: does the label fit what was painted?

The picture is compared with its own normal photograph, and the label with what visibly changed. Ours: the filter of
AnomalyControl-Inpaint looks at embeddings alone, and its labels are the masks that were asked for. What visibly changed
is computed once for all filters (`ScreeningSet.changed`).

The filter abstains where the photograph is unknown, and where nothing changed: that is for the filter `visible`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import max_pool2d

from flawsmith import config
from flawsmith.interfaces import Filter
from flawsmith.types import ScreeningSet


class AlignmentSettings(config.Settings):
    """How exactly label and change must agree."""

    slack: Annotated[int, Field(ge=0, le=32)] = 2
    """Pixels of the window (128 a side) by which outlines may differ: scaling blurs them."""


class Alignment(Filter):
    """`inside`: share of the change that is labelled. `covered`: share of the label that changed. 1 = all of it."""

    Settings: ClassVar[type[config.Settings]] = AlignmentSettings
    settings: AlignmentSettings
    scores: ClassVar[dict[str, str]] = {
        "alignment.inside": "the label misses what changed",
        "alignment.covered": "the label marks what did not change",
    }

    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, Tensor]:
        nothing = torch.full((len(shots),), torch.nan)  # of a shot, nobody has the photograph before
        return {name: nothing.clone() for name in self.scores}

    def score(self, made: ScreeningSet) -> dict[str, Tensor]:
        label, changed = made.mask[:, None].float(), made.changed[:, None].float()
        known = made.own & made.changed.any(dim=2).any(dim=1)
        inside = (changed * self._wider(label)).sum((1, 2, 3)) / changed.sum((1, 2, 3)).clamp_min(1)
        covered = (label * self._wider(changed)).sum((1, 2, 3)) / label.sum((1, 2, 3)).clamp_min(1)
        return {
            "alignment.inside": torch.where(known, inside, torch.nan),
            "alignment.covered": torch.where(known, covered, torch.nan),
        }

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        return None

    def _wider(self, mask: Tensor) -> Tensor:
        slack = self.settings.slack
        return max_pool2d(mask, 2 * slack + 1, stride=1, padding=slack) if slack and len(mask) else mask
