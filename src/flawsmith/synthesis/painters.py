"""What paints: a painter for each job, with the weights that the job learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flawsmith.config import Config
from flawsmith.interfaces import Generator
from flawsmith.run.dataset import Dataset
from flawsmith.synthesis.paint import Painter
from flawsmith.synthesis.train import generator_class, generator_settings, working_size

if TYPE_CHECKING:
    from flawsmith.nn.backbone import Backbone


class Painters:
    """Loads what paints a job; the weights of one job at a time, for a product has many, and memory is one.

    Args:
        config: Names the generator and its settings.
        data: The photographs.
        backbone: What the generator stands on; None = it needs none.
        weights: The folder that holds a folder for each job; None = the generator learns nothing, and none is read.
    """

    def __init__(self, config: Config, data: Dataset, backbone: Backbone | None, weights: Path | None) -> None:
        self._config, self._data, self._backbone, self._weights = config, data, backbone, weights
        self._job: str | None = None
        self._generator: Generator | None = None

    def of(self, job: str) -> Painter:
        """Return a painter with the weights of a job, a folder below `weights`."""
        config = self._config
        if self._generator is None or job != self._job and self._weights is not None:
            self._generator = None
            self._generator = self._loaded(job)
            self._job = job
        size = working_size(config, self._backbone)
        return Painter(config, self._generator, size, self._data.split, self._data.photographs)

    def _loaded(self, job: str) -> Generator:
        plugin, settings = generator_class(self._config), generator_settings(self._config)
        if self._weights is None:
            return plugin(self._backbone, settings)
        generator = plugin.load(self._weights.joinpath(*job.split("/")), self._backbone)
        generator.settings = settings
        return generator
