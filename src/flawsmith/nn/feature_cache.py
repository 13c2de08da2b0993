"""Features that are computed once per run: an extractor that keeps its results, in memory and on disk.

Screening, measuring and proving share one folder, so a window that was described for the gate is not computed again for
the metrics. Read back or fresh, results are the same to the last bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flawsmith.leftovers import temporary
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.paths import open_file

Row = list[np.ndarray]
"""What one method says of one picture: float32 or float16, a part per depth, without the batch's dimension."""


class FeatureCache(Extractor):
    """Wraps an extractor; `maps`, `vector` and `probabilities` are computed once per picture.

    Pictures are computed one by one, since a network rounds otherwise in a batch of another size: what is said of a
    picture depends neither on its neighbours nor on what was known already. On a CPU that is no slower. They are
    computed where the extractor's weights are; what is said of them lies where they do.

    Args:
        extractor: What computes.
        folder: Where to keep results between stages and processes; None = in memory only. A full disk or a torn file
            costs the time of computing again, nothing else.
        memory: Bytes of results that are held in memory; the longest unused go first.
        half: Round results to float16. For a proof, which keeps maps of many whole pictures: half the disk. Scores and
            metrics are published with five digits, so screening and measuring keep float32, as computed.
    """

    def __init__(
        self, extractor: Extractor, folder: Path | None = None, *, memory: int = 1 << 28, half: bool = False
    ) -> None:
        super().__init__()
        self.inner = extractor
        self.name, self.fingerprint = extractor.name, extractor.fingerprint
        self.strides, self.channels = extractor.strides, extractor.channels
        self.side = extractor.side  # type: ignore[misc]
        weights = (*extractor.parameters(), *extractor.buffers())
        self._device = weights[0].device if weights else torch.device("cpu")
        self._folder, self._memory = folder, memory
        self._dtype = torch.float16 if half else torch.float32
        self.rounding = "float16" if half else ""
        self._rows: OrderedDict[str, Row] = OrderedDict()
        self._bytes = 0
        self._folders: set[Path] = set()

    def maps(self, image: Tensor) -> list[Tensor]:
        features = self._each("maps", image, self.inner.maps)
        assert features is not None
        return features

    def vector(self, image: Tensor) -> Tensor:
        features = self._each("vector", image, lambda one: [self.inner.vector(one)])
        assert features is not None
        return features[0]

    def graph(self) -> nn.Module:
        return self.inner.graph()

    def perceptual_of(self, maps: list[Tensor]) -> list[Tensor]:
        pictures = range(len(maps[0]) if maps else 0)
        rows = [
            self.inner.perceptual_of([depth[index : index + 1].to(self._device) for depth in maps])
            for index in pictures
        ]
        return [torch.cat(part).to(maps[0].device) for part in zip(*rows, strict=True)]

    def probabilities(self, image: Tensor) -> Tensor | None:
        def work(one: Tensor) -> list[Tensor] | None:
            shares = self.inner.probabilities(one)
            return None if shares is None else [shares]

        features = self._each("probabilities", image, work)
        return None if features is None else features[0]

    def forget(self) -> None:
        """Remove from the folder whatever is kept there of pictures as large as those that this object was asked about.

        For a stage whose pictures no other stage sees: a proof's are many and large.
        """
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def remembered(self) -> list[str]:
        """Return the names of the folders that `forget` removes; another process's `remember` takes them."""
        return sorted(folder.name for folder in self._folders)

    def remember(self, names: Iterable[str]) -> None:
        """Have `forget` remove what another process with the same folder kept there."""
        if self._folder is not None:
            self._folders |= {self._folder / name for name in names}

    def _each(self, method: str, image: Tensor, work: Callable[[Tensor], list[Tensor] | None]) -> list[Tensor] | None:
        rows = []
        for picture in image:
            key = self._key(method, picture)
            row = self._recall(key)
            if row is None:
                made = work(picture[None].to(self._device))
                if made is None:
                    return None
                # One layout in memory: sums over channels round by it.
                row = [np.ascontiguousarray(part[0].detach().to("cpu", self._dtype).numpy()) for part in made]
                self._write(key, row)
            self._hold(key, row)
            rows.append(row)
        return [torch.from_numpy(np.stack(part)).float().to(image.device) for part in zip(*rows, strict=True)]

    def _key(self, method: str, picture: Tensor) -> str:
        """Return the path below the folder: it says method and size, and holds a hash of extractor and bytes."""
        content = picture.detach().cpu().contiguous().numpy()
        asked = hashlib.blake2b(
            f"{self.name} {self.fingerprint} {method} {content.shape} {self._dtype}".encode(), digest_size=16
        )
        asked.update(content.data)
        return f"{method}-{content.shape[-2]}x{content.shape[-1]}/{asked.hexdigest()}.npz"

    def _recall(self, key: str) -> Row | None:
        if key in self._rows:
            return self._rows[key]
        if self._folder is None:
            return None
        self._folders.add((self._folder / key).parent)
        try:
            with open_file(self._folder / key) as file, np.load(BytesIO(file.read())) as stored:
                return [stored[name] for name in stored.files]
        except Exception:  # absent or torn: computed again
            return None

    def _write(self, key: str, row: Row) -> None:
        if self._folder is None:
            return
        path, content = self._folder / key, BytesIO()
        np.savez(content, *row)
        part = temporary(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content.getvalue())
            os.replace(part, path)
        except OSError:  # it is computed again when it has left the memory
            with contextlib.suppress(OSError):
                part.unlink()

    def _hold(self, key: str, row: Row) -> None:
        if key not in self._rows:
            self._bytes += sum(part.nbytes for part in row)
        self._rows[key] = row
        self._rows.move_to_end(key)
        while self._bytes > self._memory and len(self._rows) > 1:
            _, oldest = self._rows.popitem(last=False)
            self._bytes -= sum(part.nbytes for part in oldest)
