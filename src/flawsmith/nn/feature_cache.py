"""An extractor that computes each picture once: results are kept by the picture's bytes, in memory or on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flawsmith.nn.networks.extractor import Extractor

_MEMORY = 512
"""Results kept in memory where there is a folder; without one, all are."""


class FeatureCache(Extractor):
    """Wraps an extractor; `maps`, `vector`, `perceptual` and `probabilities` are computed once a picture.

    Kept as float16, so a result that was read back differs from a fresh one in its last bits; every caller gets the
    rounded one, fresh or not.

    Args:
        extractor: What computes.
        folder: Where to keep results between processes; None = in memory only. A full disk or a torn file costs the
            time of computing again, nothing else.
    """

    def __init__(self, extractor: Extractor, folder: Path | None = None) -> None:
        super().__init__()
        self.inner = extractor
        self.name, self.fingerprint = extractor.name, extractor.fingerprint
        self.strides, self.channels = extractor.strides, extractor.channels
        self._folder = folder
        self._kept: dict[str, list[np.ndarray] | None] = {}

    def maps(self, image: Tensor) -> list[Tensor]:
        return self._each("maps", image, self.inner.maps) or []

    def vector(self, image: Tensor) -> Tensor:
        found = self._each("vector", image, lambda todo: [self.inner.vector(todo)])
        assert found is not None
        return found[0]

    def perceptual(self, image: Tensor) -> list[Tensor]:
        return self._each("perceptual", image, self.inner.perceptual) or []

    def probabilities(self, image: Tensor) -> Tensor | None:
        def work(todo: Tensor) -> list[Tensor] | None:
            found = self.inner.probabilities(todo)
            return None if found is None else [found]

        found = self._each("probabilities", image, work)
        return None if found is None else found[0]

    def _each(self, method: str, image: Tensor, work: Callable[[Tensor], list[Tensor] | None]) -> list[Tensor] | None:
        keys = [self._key(method, one) for one in image]
        rows = [self._recall(key) for key in keys]
        todo = [place for place, row in enumerate(rows) if row is None]
        if todo:
            made = work(image[todo])
            if made is None:
                return None
            halves = [part.detach().to("cpu", torch.float16).numpy() for part in made]
            for number, place in enumerate(todo):
                rows[place] = [part[number] for part in halves]
                self._keep(keys[place], rows[place] or [])
        parts = zip(*(row for row in rows if row is not None), strict=True)
        return [torch.from_numpy(np.stack(part)).float().to(image.device) for part in parts]

    def _key(self, method: str, picture: Tensor) -> str:
        content = picture.detach().cpu().contiguous().numpy()
        seen = f"{self.name} {self.fingerprint} {method} {content.shape}".encode()
        return hashlib.blake2b(content.tobytes(), digest_size=16, person=hashlib.md5(seen).digest()).hexdigest()

    def _recall(self, key: str) -> list[np.ndarray] | None:
        if key in self._kept:
            return self._kept[key]
        if self._folder is None:
            return None
        try:
            with np.load(BytesIO((self._folder / key[:2] / f"{key}.npz").read_bytes())) as stored:
                return [stored[name] for name in stored.files]
        except Exception:  # absent or torn: computed again
            return None

    def _keep(self, key: str, row: list[np.ndarray]) -> None:
        if self._folder is None:
            self._kept[key] = row
            return
        if len(self._kept) < _MEMORY:
            self._kept[key] = row
        place = self._folder / key[:2]
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place, suffix=".part", delete=False) as file:
                np.savez(file, *row)
            os.replace(file.name, place / f"{key}.npz")
        except OSError:
            self._kept[key] = row
