"""data/photographs.py: windows over a damage, and the one window of a generator that draws its masks itself."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.config import load_config
from flawsmith.data.photographs import LONE_THICKNESS, fullest, windows_over


def line(width: int, length: int, side: int = 600) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    cv2.line(mask, (60, 300), (60 + length, 300), 1, width)
    return mask > 0


def test_a_long_damage_is_walked_by_many_and_held_by_one():
    config = load_config(None, {})
    damage = line(3, 400)
    assert len(windows_over(config, damage, 128)) > 2
    (one,) = windows_over(config, damage, 128, lone=True)
    inside = np.zeros_like(damage)
    inside[one.inside(damage.shape)] = True
    assert inside[damage].all() and one.side * 1.0 <= 3 * 128 / LONE_THICKNESS * 2


def test_a_hairline_too_thin_for_one_window_keeps_the_windows_that_show_it():
    config = load_config(None, {})
    damage = line(1, 500)
    windows = windows_over(config, damage, 128, lone=True)
    assert len(windows) > 1
    assert all(128 / window.side >= 0.5 for window in windows)
    best = fullest(windows, damage)
    assert damage[best.inside(damage.shape)].sum() == max(damage[w.inside(damage.shape)].sum() for w in windows)


def test_nothing_asked_for_needs_no_window():
    assert windows_over(load_config(None, {}), np.zeros((50, 50), bool), 64, lone=True) == []
