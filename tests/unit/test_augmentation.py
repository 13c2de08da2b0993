"""Views: a rough mask covers its damage, says where and how large it is, and keeps its shape to itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flawsmith.data.augmentation import roughed


def scratch(thick: int, size: int = 128) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    cv2.line(mask, (30, 40), (85, 44), 1, thick)
    return mask > 0


@pytest.mark.parametrize("seed", range(40))
def test_a_rough_mask_covers_the_damage_and_is_one_rounded_piece(seed):
    rng = np.random.default_rng(seed)
    mask = scratch(int(rng.integers(1, 20)))
    region = roughed(mask, rng)
    assert region.dtype == bool and region.shape == mask.shape and region[mask].all()
    assert cv2.connectedComponents(region.astype(np.uint8))[0] == 2
    rows, columns = np.nonzero(region)
    tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert tall >= 0.33 * wide, "a line must not be told from a spot by its region"
    assert wide <= 2.9 * (np.ptp(np.nonzero(mask)[1]) + 1)
    assert region.sum() > 0.7 * tall * wide


def test_thin_and_thick_damage_can_have_the_same_region():
    thin, thick = (roughed(scratch(t), np.random.default_rng(3)).sum() for t in (1, 9))
    assert 0.6 < thin / thick < 1.2


def test_regions_differ_and_the_damage_is_not_always_in_the_middle():
    mask = scratch(3)
    off = []
    for seed in range(30):
        rows, columns = np.nonzero(roughed(mask, np.random.default_rng(seed)))
        off.append((rows.min() + rows.max() - 84) / 2)
    assert np.ptp(off) > 8


def test_damage_as_long_as_the_window_is_only_loosened():
    mask = np.zeros((64, 64), bool)
    mask[30:32, 2:62] = True
    region = roughed(mask, np.random.default_rng(0))
    assert region[mask].all() and np.ptp(np.nonzero(region)[0]) < 16
