"""Data sets on disk in the MVTec layout, all from one production line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from flawsmith.data.factory.catalogue import check
from flawsmith.data.factory.scene import make
from flawsmith.files import write_bytes


def write_dataset(
    root: Path,
    surface: str,
    defects: Sequence[str],
    *,
    normals: int,
    per_defect: int,
    seed: int = 0,
    size: int = 256,
    test_normals: int = 0,
) -> None:
    """Write `root/<surface>/{train/good,test/good,test/<defect>,ground_truth/<defect>}` as PNG, RGB (size,size,3).

    All pieces come from one line: one look, natural differences. Masks are 8-bit, 0 or 255. Equal arguments write
    equal bytes, and each file appears whole or not at all. DataError for unknown names, before anything is written.
    """
    for defect in (None, *defects):
        check(surface, defect, size)
    base = Path(root) / surface
    for folder, count, offset in (("train", normals, 0), ("test", test_normals, 1_000_000)):
        for k in range(count):
            piece = make(surface, None, seed=_number(seed, offset + k), size=size, line=seed)
            _write(base / folder / "good" / f"{k:03d}.png", piece.image)
    for j, defect in enumerate(defects):
        for k in range(per_defect):
            number = _number(seed, (j + 2) * 1_000_000 + k)
            piece = make(surface, defect, seed=number, size=size, line=seed)
            _write(base / "test" / defect / f"{k:03d}.png", piece.image)
            _write(base / "ground_truth" / defect / f"{k:03d}_mask.png", piece.mask.astype(np.uint8) * 255)


def _number(seed: int, k: int) -> int:
    """Return a seed that no other (seed, k) shares."""
    return int(np.random.SeedSequence([abs(seed), k]).generate_state(1, np.uint64)[0] >> 1)


def _write(path: Path, picture: np.ndarray) -> None:
    stored = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, coded = cv2.imencode(".png", stored)
    if not done:
        raise OSError(f"cannot encode {path}")
    write_bytes(path, coded.tobytes())
