"""What an exporter offers besides `interfaces.Exporter` when it asks the run's feature extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from flawsmith.config import FeaturesConfig


@runtime_checkable
class ReadsFeatures(Protocol):
    """An exporter whose files depend on the features of a run."""

    def use_features(self, features: FeaturesConfig, offline: bool, cache: Path) -> dict[str, Any]:
        """Take the run's extractor; called before `write`.

        Args:
            features: Which extractor.
            offline: True: the network is never asked.
            cache: The folder in which the run keeps what its extractor said (`nn.feature_cache`).

        Returns:
            What the files depend on, as JSON values: the export is done again when one of them changes.

        Raises:
            ConfigError: as `nn.features.load_extractor`.
        """
        ...
