"""Outlier: a detector of PyOD says how far a picture lies from the shots. Needs `pip install "flawsmith[pyod]"`.

Another form of stage 1 of AnomalyControl-Inpaint's filter, which keeps what lies close to the real training defects:
any of PyOD's detectors by name, on the tokens inside the mask or another level. Ours. Tokens have more numbers than
there are shots, so they are first projected on the shots' leading directions.

Zhao, Nasrullah, Li: "PyOD: A Python Toolbox for Scalable Outlier Detection", JMLR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from flawsmith import config
from flawsmith.errors import ConfigError, nearest
from flawsmith.interfaces import Filter
from flawsmith.types import ScreeningSet

_KNOWN = {"KNN": "knn", "ECOD": "ecod", "IForest": "iforest", "LOF": "lof", "COPOD": "copod", "HBOS": "hbos"}
_LEAST = 4
"""Shots below which no detector is asked."""


class OutlierSettings(config.Settings):
    """Which detector, and what it is asked about."""

    model: str = "KNN"
    """PyOD's detector: KNN, ECOD, IForest, LOF, COPOD or HBOS."""
    arguments: dict[str, Any] = {}
    """Its own arguments: {n_neighbors = 3}."""
    level: Literal["whole", "window", "tokens"] = "tokens"
    """The embedding that it sees."""
    directions: Annotated[int, Field(ge=1, le=256)] = 8
    """Leading directions of the shots that are kept."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For detectors that draw random numbers."""


class Outlier(Filter):
    """Minus PyOD's outlier score."""

    Settings: ClassVar[type[config.Settings]] = OutlierSettings
    settings: OutlierSettings
    scores: ClassVar[dict[str, str]] = {"outlier": "it lies apart from the real shots"}

    def __init__(self, settings: config.Settings, defects: Sequence[str]) -> None:
        super().__init__(settings, defects)
        if self.settings.model not in _KNOWN:
            raise ConfigError(
                f"screen.settings.outlier.model: {self.settings.model!r} is no detector that is known here"
                f"{nearest(self.settings.model, _KNOWN)}"
            )
        if find_spec("pyod") is None:
            raise ConfigError('the filter outlier needs PyOD: pip install "flawsmith[pyod]"')
        self._learned = torch.zeros(0, 1)
        self._model: Any = None
        self._frame: dict[str, Tensor] = {}

    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, Tensor]:
        vectors = shots.vector[self.settings.level].double()
        if len(vectors) < _LEAST:
            return {"outlier": torch.full((len(vectors),), torch.nan)}
        left_out = []
        for row in range(len(vectors)):
            self._learn(vectors[torch.arange(len(vectors)) != row])
            left_out.append(self._scored(vectors[row : row + 1]))
        self._learn(vectors)
        return {"outlier": torch.cat(left_out)}

    def score(self, made: ScreeningSet) -> dict[str, Tensor]:
        if self._model is None:
            return {"outlier": torch.full((len(made),), torch.nan)}
        vectors = made.vector[self.settings.level].double()
        rows = [self._scored(vectors[row : row + 1]) for row in range(len(made))]
        return {"outlier": torch.cat(rows) if rows else torch.zeros(0)}

    def state(self) -> dict[str, Tensor]:
        return {"learned": self._learned}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._model = None
        if len(state["learned"]) >= _LEAST - 1:
            self._learn(state["learned"])

    def said(self) -> str:
        return "" if self._model is not None else f"outlier is off: fewer than {_LEAST} shots"

    def _learn(self, vectors: Tensor) -> None:
        """Fit the detector. A saved gate fits it again from what it learned, for PyOD can only be saved as a pickle."""
        self._learned = vectors
        centre = vectors.mean(0)
        _, _, basis = torch.linalg.svd(vectors - centre, full_matrices=False)
        self._frame = {"centre": centre, "basis": basis[: min(self.settings.directions, len(vectors) - 1)].T}
        detector = getattr(import_module(f"pyod.models.{_KNOWN[self.settings.model]}"), self.settings.model)
        arguments = dict(self.settings.arguments)
        if self.settings.model == "IForest":
            arguments.setdefault("random_state", self.settings.seed)
        if self.settings.model in ("KNN", "LOF"):
            arguments.setdefault("n_neighbors", min(3, len(vectors) - 1))
        try:
            self._model = detector(**arguments)
        except TypeError as error:
            raise ConfigError(f"screen.settings.outlier.arguments: {error}") from None
        self._model.fit(self._projected(vectors))

    def _scored(self, vectors: Tensor) -> Tensor:
        scores = np.asarray(self._model.decision_function(self._projected(vectors)), np.float64)
        return -torch.from_numpy(scores).float()

    def _projected(self, vectors: Tensor) -> np.ndarray:
        return np.asarray(((vectors - self._frame["centre"]) @ self._frame["basis"]).numpy())
