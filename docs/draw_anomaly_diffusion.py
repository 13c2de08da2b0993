"""Draw docs/anomaly-diffusion.jpg: factory damage from noise, with the words as they start and as they were learned.

    python docs/draw_anomaly_diffusion.py [--folder FOLDER] [--steps 150]

Of each defect type the first sample of the plan; none was chosen. Both samples have the same photograph, mask and seed.
With --folder the runs stay there, and it goes on where it was stopped; training takes a minute of processor time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sheets import grid, near

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from flawsmith.config import load_config  # noqa: E402
from flawsmith.data import factory, images  # noqa: E402
from flawsmith.run.folder import Run  # noqa: E402
from flawsmith.synthesis.generate import generate  # noqa: E402
from flawsmith.synthesis.train import train  # noqa: E402

PARTS = {"magnet": ("crack", "chip", "stain"), "screw": ("rust",)}
SHOTS, SIDE, HEAD = 8, 190, 24
SETTINGS: dict[str, Any] = {
    "data.layout": "mvtec",
    "data.shots": SHOTS,
    "generator.name": "anomaly_diffusion",
    "train.scope": "all",
    "train.batch": 8,
    "train.views": 8,
    "generate.count": 1,
    "generate.controls": 0.0,
}
HEADINGS = ("normal part", "a real shot of the type", "from noise, words untrained", "from noise, words learned")


def sheet(folder: Path, steps: int) -> np.ndarray:
    """Return the picture: uint8 (H,W,3) RGB."""
    photographs = folder / "photographs"
    if not photographs.exists():
        for product, defects in PARTS.items():
            factory.write_dataset(photographs, product, defects, normals=24, per_defect=SHOTS, seed=7, size=256)
    runs = []
    for number in (0, steps):
        told = {**SETTINGS, "data.root": str(photographs), "train.steps": number}
        runs.append(Run.create(folder / f"{number}-steps", load_config(None, told)))
        train(runs[-1])
        generate(runs[-1])
    rows = []
    for before, after in zip(*(run.samples() for run in runs), strict=True):
        assert (before.normal, before.defect) == (after.normal, after.defect), "the plans differ"
        masks = [images.read(run.path(str(one.mask))) > 0 for run, one in zip(runs, (before, after), strict=True)]
        damage = images.read(photographs / after.product / "ground_truth" / after.defect / "000_mask.png") > 0
        shot = images.read(photographs / after.product / "test" / after.defect / "000.png")
        made = [images.read(run.path(str(one.image))) for run, one in zip(runs, (before, after), strict=True)]
        cells = [near(images.read(photographs / after.normal), masks[1], SIDE), near(shot, damage, SIDE)]
        rows.append((f"{after.product}: {after.defect}", cells + [near(picture, masks[1], SIDE) for picture in made]))
    return grid(HEADINGS, rows, SIDE, HEAD, 0.4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where photographs and runs go, and stay")
    parser.add_argument("--steps", type=int, default=150, help="training steps")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        drawn = sheet(args.folder or Path(spare), args.steps)
    cv2.imwrite(str(ROOT / "docs" / "anomaly-diffusion.jpg"), drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 86])
