"""Sheets of pictures in docs/: what the drawings of several generators share."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

GAP = 6


def grid(
    headings: Sequence[str], rows: Sequence[tuple[str, Sequence[np.ndarray]]], side: int, head: int, size: float
) -> np.ndarray:
    """Return named rows of cells under headings, uint8 (H,W,3) RGB.

    Args:
        headings: Of the columns.
        rows: A name and uint8 (side,side,3) cells each.
        side: Of a cell, in pixels.
        head: Height of a line of words.
        size: Of the letters, as OpenCV scales them.
    """
    drawn = np.full((head + len(rows) * (side + head), len(headings) * (side + GAP) + GAP, 3), 255, np.uint8)

    def write(text: str, left: int, base: int) -> None:
        cv2.putText(drawn, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, size, (60, 60, 60), 1, cv2.LINE_AA)

    for column, heading in enumerate(headings):
        write(heading, GAP + column * (side + GAP), head - 9)
    for number, (name, cells) in enumerate(rows):
        top = head + number * (side + head)
        for column, cell in enumerate(cells):
            left = GAP + column * (side + GAP)
            drawn[top : top + side, left : left + side] = cell
        write(name, GAP, top + side + 16)
    return drawn


def near(picture: np.ndarray, mask: np.ndarray, side: int) -> np.ndarray:
    """Return the square of a picture round the mask, with some room, `side` pixels wide."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    shown = int(min(max(1.7 * max(np.ptp(rows), np.ptp(columns)), 90), *mask.shape))
    starts = [
        int(np.clip((part[0] + part[-1] - shown) / 2, 0, extent - shown))
        for part, extent in zip((rows, columns), mask.shape, strict=True)
    ]
    window = picture[starts[0] : starts[0] + shown, starts[1] : starts[1] + shown]
    return cv2.resize(window, (side, side), interpolation=cv2.INTER_AREA if shown > side else cv2.INTER_CUBIC)
