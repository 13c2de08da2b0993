"""A run on parts whose tip breaks off: in the air where the tip was nothing is painted, and the label covers it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.data import images

SIDE, LEVEL, PART = 192, 190.0, 80.0


def photograph(path: Path, seed: int, *, broken: bool) -> np.ndarray:
    """Write a dark bar with a tip on a light ground, and return where the tip would be."""
    rng = np.random.default_rng(seed)
    bar, tip = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    cv2.rectangle(bar, (20, 80), (120, 112), 1, -1)
    cv2.rectangle(bar, (20, 60), (40, 132), 1, -1)  # a head, so that the pose is plain
    cv2.fillPoly(tip, [np.array([(121, 80), (165, 96), (121, 112)], np.int32)], 1)
    part = bar > 0 if broken else (bar | tip) > 0
    shade = np.where(cv2.GaussianBlur(part.astype(np.float32), (0, 0), 1.0) > 0.5, PART, LEVEL)
    soft = cv2.GaussianBlur(shade.astype(np.float32), (0, 0), 1.0)
    images.write(path, np.clip(soft + rng.normal(0, 2, part.shape), 0, 255).astype(np.uint8))
    return tip > 0


def test_no_flakes_where_the_tip_was(small_config: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "data"
    for index in range(4):
        tip = photograph(root / f"pin/train/good/{index}.png", index, broken=False)
    for index in range(3):
        tip = photograph(root / f"pin/test/tip/{index}.png", 10 + index, broken=True)
        label = tip.copy()
        label[76:117, 108:130] = True  # as labels are drawn: the break, and some of the air beyond it
        images.write_mask(root / f"pin/ground_truth/tip/{index}_mask.png", label & ~(np.indices(label.shape)[1] > 150))
    told = {"data.root": str(root), "generator.settings": {"start": "shot", "strength": 1.0}, "generate.count": 4}
    told |= {"generate.turn": "none", "generate.min_painted": 0.0}
    run = fs.Run.create(tmp_path / "run", load_config(None, small_config | told))
    fs.train(run)
    fs.generate(run)
    rows = [row for row in run.samples() if row.made]
    assert rows
    for row in rows:
        normal = images.read(root / row.normal)
        made = images.read(run.path(row.image)).astype(float)
        mask = images.read_mask(run.path(row.mask), made.shape)
        air = tip & (np.indices(tip.shape)[1] >= 134)  # where the tip was, to its point, and off the break
        assert abs(made[air].mean() - LEVEL) < 12 and made[air].std() < 8, "something was painted in the air"
        assert mask[air].all(), "the label leaves out where the tip is gone"
        assert np.array_equal(made[~mask], normal[~mask])
        broken = np.zeros(mask.shape, bool)
        broken[86:106, 110:118] = True
        assert np.abs(made - normal.astype(float))[broken & mask].mean() > 1, "the break itself was not painted"
