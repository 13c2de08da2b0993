"""Draw docs/methods.jpg: one mask on one normal photograph of each part, painted by each generator that trains nothing.

    python docs/draw_methods.py

Factory parts; the mask is that of a defect that no generator has seen. Of each generator the first seed that leaves
something visible in the mask; white where none of four does. Nothing else is chosen.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from flawsmith import Brush, registry  # noqa: E402
from flawsmith.data import factory, images  # noqa: E402
from flawsmith.errors import DataError  # noqa: E402

PARTS = {"tile": ("crack", "chip"), "steel": ("rust", "dent"), "leather": ("cut",)}
GENERATORS = ("patch_synthesis", "crop_paste", "perlin", "cutpaste", "nsa")
HEADINGS = ("normal part", "mask", *GENERATORS)
SHOTS, SIDE, GAP, HEAD = 6, 150, 6, 26


def sheet(folder: Path) -> np.ndarray:
    """Return the picture: uint8 (H,W,3) RGB."""
    for name in GENERATORS:
        assert registry.entries("generators")[name].pixels, f"{name} trains"
    rows = []
    for product, defects in PARTS.items():
        factory.write_dataset(folder, product, defects, normals=SHOTS, per_defect=SHOTS + 1, seed=5, size=256)
        settings = {"data.shots": SHOTS, "prove.enabled": False, "data.products": [product]}
        brushes = [Brush.open(folder, generator=name, settings=settings) for name in GENERATORS]
        for number, defect in enumerate(defects):
            photograph = folder / product / "train" / "good" / f"{number:03d}.png"
            mask = images.read(folder / product / "ground_truth" / defect / f"{SHOTS:03d}_mask.png") > 0
            painted = [_painted(brush, photograph, mask, defect, product) for brush in brushes]
            white = np.repeat(255 * mask.astype(np.uint8)[..., None], 3, axis=2)
            cells = [_near(cell, mask) for cell in (images.read(photograph), white, *painted)]
            rows.append((f"{product}: {defect}", cells))
    width, height = len(HEADINGS) * (SIDE + GAP) + GAP, HEAD + len(rows) * (SIDE + HEAD)
    drawn = np.full((height, width, 3), 255, np.uint8)
    for column, heading in enumerate(HEADINGS):
        _write(drawn, heading, GAP + column * (SIDE + GAP), HEAD - 9)
    for number, (name, cells) in enumerate(rows):
        top = HEAD + number * (SIDE + HEAD)
        for column, cell in enumerate(cells):
            left = GAP + column * (SIDE + GAP)
            drawn[top : top + SIDE, left : left + SIDE] = cell
        _write(drawn, name, GAP, top + SIDE + 16)
    return drawn


def _painted(brush: Brush, photograph: Path, mask: np.ndarray, defect: str, product: str) -> np.ndarray:
    """Return what a generator paints with the first seed that leaves something visible; a white picture = none does."""
    for seed in range(4):
        try:
            return brush.paint(photograph, mask, defect, seed=seed, product=product).picture
        except DataError:
            continue
    return np.full((*mask.shape, 3), 255, np.uint8)


def _near(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the square of a picture round the mask, with some room."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    side = int(min(max(1.7 * max(np.ptp(rows), np.ptp(columns)), 90), *mask.shape))
    starts = [
        int(np.clip((part[0] + part[-1] - side) / 2, 0, extent - side))
        for part, extent in zip((rows, columns), mask.shape, strict=True)
    ]
    window = picture[starts[0] : starts[0] + side, starts[1] : starts[1] + side]
    return cv2.resize(window, (SIDE, SIDE), interpolation=cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC)


def _write(drawn: np.ndarray, text: str, left: int, base: int) -> None:
    cv2.putText(drawn, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (60, 60, 60), 1, cv2.LINE_AA)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        drawn = sheet(Path(folder))
    cv2.imwrite(str(ROOT / "docs" / "methods.jpg"), drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 86])
