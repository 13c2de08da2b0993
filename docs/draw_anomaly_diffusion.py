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

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from flawsmith.config import load_config  # noqa: E402
from flawsmith.data import factory, images  # noqa: E402
from flawsmith.run.folder import Run  # noqa: E402
from flawsmith.synthesis.generate import generate  # noqa: E402
from flawsmith.synthesis.train import train  # noqa: E402

PARTS = {"magnet": ("crack", "chip", "stain"), "screw": ("rust",)}
SHOTS, SIDE, GAP, HEAD = 8, 190, 6, 24
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
        cells = [_near(images.read(photographs / after.normal), masks[1]), _near(shot, damage)]
        rows.append((f"{after.product}: {after.defect}", cells + [_near(picture, masks[1]) for picture in made]))
    drawn = np.full((HEAD + len(rows) * (SIDE + HEAD), len(HEADINGS) * (SIDE + GAP) + GAP, 3), 255, np.uint8)
    for column, heading in enumerate(HEADINGS):
        _write(drawn, heading, GAP + column * (SIDE + GAP), HEAD - 9)
    for number, (name, cells) in enumerate(rows):
        top = HEAD + number * (SIDE + HEAD)
        for column, cell in enumerate(cells):
            left = GAP + column * (SIDE + GAP)
            drawn[top : top + SIDE, left : left + SIDE] = cell
        _write(drawn, name, GAP, top + SIDE + 16)
    return drawn


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
    cv2.putText(drawn, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (60, 60, 60), 1, cv2.LINE_AA)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where photographs and runs go, and stay")
    parser.add_argument("--steps", type=int, default=150, help="training steps")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        drawn = sheet(args.folder or Path(spare), args.steps)
    cv2.imwrite(str(ROOT / "docs" / "anomaly-diffusion.jpg"), drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 86])
