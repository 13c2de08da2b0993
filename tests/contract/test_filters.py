"""Every registered filter keeps every promise of the contract: no skip list."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar

import pytest
import torch

from flawsmith import config, registry
from flawsmith.errors import ConfigError
from flawsmith.interfaces import Filter
from flawsmith.testing import FILTER_CHECKS, check_filter, example_screening_set
from flawsmith.types import ScreeningSet

FILTERS = sorted(registry.entries("filters"))
OPTIONAL = {"outlier": "pyod"}
"""Filters that stand on a package which a plain installation lacks, and its name."""


@pytest.mark.parametrize("check", FILTER_CHECKS)
@pytest.mark.parametrize("name", FILTERS)
def test_contract(name: str, check: str) -> None:
    plugin = registry.get("filters", name)
    if name in OPTIONAL and find_spec(OPTIONAL[name]) is None:
        # Its promise here is another one: to say what to install, as soon as it is made.
        with pytest.raises(ConfigError, match="pip install .*flawsmith"):
            plugin(plugin.Settings(), ("bar", "disc"))
        return
    FILTER_CHECKS[check](plugin)


@pytest.mark.parametrize("name", FILTERS)
def test_scores_are_called_after_their_filter(name: str) -> None:
    plugin = registry.get("filters", name)
    assert all(score == name or score.startswith(f"{name}.") for score in plugin.scores)
    assert plugin.__module__ == f"flawsmith.filters.{name}"


class _Dark(Filter):
    """Darkness inside the mask; the simplest that keeps every promise."""

    class Settings(config.Settings):
        """None."""

    scores: ClassVar[dict[str, str]] = {"dark": "it is too light"}

    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, torch.Tensor]:
        return self.score(shots)

    def score(self, made: ScreeningSet) -> dict[str, torch.Tensor]:
        area = made.mask.sum((1, 2)).clamp_min(1)
        return {"dark": -(made.image.mean(1) * made.mask).sum((1, 2)) / area}

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        return None


def test_an_honest_filter_passes() -> None:
    check_filter(_Dark)


class _Forgetful(_Dark):
    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, torch.Tensor]:
        self._usual = float(self.score(shots)["dark"].mean()) if len(shots) else 0.0
        return super().fit(shots, normal)

    def score(self, made: ScreeningSet) -> dict[str, torch.Tensor]:
        return {"dark": super().score(made)["dark"] - getattr(self, "_usual", 0.0)}


class _Swayed(_Dark):
    def score(self, made: ScreeningSet) -> dict[str, torch.Tensor]:
        found = super().score(made)["dark"]
        return {"dark": found - found.mean() if len(found) else found}


class _Decides(_Dark):
    def score(self, made: ScreeningSet) -> dict[str, torch.Tensor]:
        return {"dark": super().score(made)["dark"] > 0.2}


class _Backwards(_Dark):
    def score(self, made: ScreeningSet) -> dict[str, torch.Tensor]:
        return {"dark": torch.zeros(len(made))}


class _Restless(_Dark):
    def score(self, made: ScreeningSet) -> dict[str, torch.Tensor]:
        return {"dark": super().score(made)["dark"] + 1e-3 * torch.rand(len(made))}


class _Painter(_Dark):
    def score(self, made: ScreeningSet) -> dict[str, torch.Tensor]:
        made.image.mul_(0.99)
        return super().score(made)


class _Nameless(_Dark):
    def score(self, made: ScreeningSet) -> dict[str, torch.Tensor]:
        return {"drak": super().score(made)["dark"]}


@pytest.mark.parametrize("plugin", [_Forgetful, _Swayed, _Decides, _Backwards, _Restless, _Painter, _Nameless])
def test_each_fault_is_caught(plugin: type[Filter]) -> None:
    with pytest.raises(AssertionError):
        check_filter(plugin)


def test_the_examples_are_what_they_say() -> None:
    shots, normal = example_screening_set(6, own=False), example_screening_set(6, damaged=False)
    assert len(shots) == 6 and set(shots.defect) == {"bar", "disc"} and not shots.own.any() and shots.compared.all()
    assert torch.equal(normal.image, normal.below.clamp(-1, 1)) and not normal.changed.any()
    some: Any = shots.rows([4, 1])
    assert some.name == ("000004", "000001") and torch.equal(some.vector["whole"][1], shots.vector["whole"][1])
