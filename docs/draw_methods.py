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
from sheets import grid, near

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from flawsmith import Brush, registry  # noqa: E402
from flawsmith.data import factory, images  # noqa: E402
from flawsmith.errors import DataError  # noqa: E402

PARTS = {"tile": ("crack", "chip"), "steel": ("rust", "dent"), "leather": ("cut",)}
GENERATORS = ("patch_synthesis", "crop_paste", "perlin", "cutpaste", "nsa")
HEADINGS = ("normal part", "mask", *GENERATORS)
SHOTS, SIDE, HEAD = 6, 150, 26


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
            cells = [near(cell, mask, SIDE) for cell in (images.read(photograph), white, *painted)]
            rows.append((f"{product}: {defect}", cells))
    return grid(HEADINGS, rows, SIDE, HEAD, 0.45)


def _painted(brush: Brush, photograph: Path, mask: np.ndarray, defect: str, product: str) -> np.ndarray:
    """Return what a generator paints with the first seed that leaves something visible; a white picture = none does."""
    for seed in range(4):
        try:
            return brush.paint(photograph, mask, defect, seed=seed, product=product).picture
        except DataError:
            continue
    return np.full((*mask.shape, 3), 255, np.uint8)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        drawn = sheet(Path(folder))
    cv2.imwrite(str(ROOT / "docs" / "methods.jpg"), drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 86])
