"""What an exporter offers besides `interfaces.Exporter` when its files depend on how damage was made."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Protocol, runtime_checkable


@runtime_checkable
class ReadsGenerators(Protocol):
    """An exporter that tells the damage of some generators from that of others."""

    def use_generators(self, made_by: Mapping[str, Set[str]]) -> None:
        """Take what made the samples that stand; called before `write`.

        Args:
            made_by: Defect type -> names of the generators; a type that only shots or people show is left out.
        """
        ...
