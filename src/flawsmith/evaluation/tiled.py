"""A detector that has learned from tiles, asked about whole photographs: cut, look at each tile, join the answers.

Anomaly maps are joined where they overlap (`data.inspection_tiles.TileGrid.joined`), a photograph's score is that of
its loudest tile, and its defect type is what that tile shows. Pixel figures, image figures and thresholds then stand on
the whole photograph, and the detector itself knows nothing of tiles.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from flawsmith.data.inspection_tiles import Tiles
from flawsmith.data.tensors import image_tensor
from flawsmith.data.training_set import TrainingSet
from flawsmith.interfaces import Detector
from flawsmith.nn.methods.patch_memory import PatchMemory
from flawsmith.types import Prediction

_CHUNK = 16
"""Tiles that are looked at together."""


class Tiled(Detector):
    """Wraps a detector: it learns from tiles as it would from pictures, and is asked about whole pictures.

    Args:
        detector: Learns and looks at tiles.
        tiles: How a picture is cut; it was scaled already (`Tiles.size_of`).
    """

    def __init__(self, detector: Detector, tiles: Tiles) -> None:
        super().__init__(detector.settings, detector.defects, extractor=detector.extractor, device=detector.device)
        self.tells = detector.tells  # type: ignore[misc]
        self._detector, self._tiles = detector, tiles

    def reduced(self, budget: float) -> str:
        return self._detector.reduced(budget)

    def facts(self) -> dict[str, float]:
        return self._detector.facts()

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        self._detector.checkpoint = self.checkpoint
        return self._detector.fit(training, rng, budget=budget)

    def remembered(self) -> PatchMemory | None:
        return self._detector.remembered()

    def predict(self, image: Tensor) -> Prediction:
        """Look at pictures of one size, float32 (B,3,H,W), RGB, [-1,1]; H and W of any length."""
        return Prediction.joined([self._predict_one(picture) for picture in image], torch.stack)

    def _predict_one(self, picture: Tensor) -> Prediction:
        """Return what is said of one picture (3,H,W), without the first dimension."""
        grid = self._tiles.grid(picture.shape[-2:])
        pixels, windows = picture.permute(1, 2, 0).numpy(), grid.windows
        chunks = (windows[start : start + _CHUNK] for start in range(0, len(windows), _CHUNK))
        tiles = (image_tensor([grid.seen(pixels, window) for window in chunk]) for chunk in chunks)
        told = Prediction.joined([self._detector.predict(chunk) for chunk in tiles], torch.cat)
        anomaly_map = None
        if told.anomaly_map is not None:
            anomaly_map = torch.from_numpy(grid.joined(list(told.anomaly_map[:, 0].numpy())))[None]
        score = None if told.score is None else told.score.max()
        probabilities = None if told.probabilities is None else told.probabilities[int(_loudness(told).argmax())]
        return Prediction(anomaly_map, score, probabilities)


def _loudness(told: Prediction) -> Tensor:
    """Return float32 (B,): by which tile a picture's defect type is told.

    That is the score; of a detector without one the highest value of its anomaly map; and of one that tells defect
    types alone, how sure it is.
    """
    if told.score is not None:
        return told.score
    if told.anomaly_map is not None:
        return told.anomaly_map.amax((1, 2, 3))
    assert told.probabilities is not None
    return told.probabilities.amax(1)
