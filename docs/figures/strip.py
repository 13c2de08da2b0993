"""Figures that show what a method does, step by step: pictures side by side with words under them.

Letters are large, because a page shows a figure about half as wide as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).resolve().parents[1]
FIGURES = DOCS / "figures"
sys.path[:0] = [str(DOCS.parent / "src"), str(DOCS)]

SIDE, GAP, EDGE = 216, 36, 16
"""Of a picture, between pictures and round them, in pixels."""
LETTERS, LINE, LINES = 25, 30, 3
"""Height of letters and of a line of words, and lines under a picture at most."""
PAPER, INK, MARK = (250, 250, 248), (45, 45, 45), (255, 214, 0)
QUALITY = 82


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture with the words under it."""

    picture: np.ndarray
    """uint8 (h,w,3) RGB or (h,w), square."""
    words: str
    joint: Literal["", ">", "+"] = ">"
    """What stands before it: it follows from the one before, goes with it, or neither."""


def asked_for(parser: argparse.ArgumentParser, figures: Collection[str]) -> argparse.Namespace:
    """Parse a script's command line, which may name some of its figures; `names` has all of them without it."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(figures)}; all without it")
    asked = parser.parse_args()
    for wrong in sorted(set(asked.names) - set(figures)):
        parser.error(f"{wrong!r} has no figure here; there are {', '.join(figures)}")
    asked.names = [name for name in figures if not asked.names or name in asked.names]
    return asked


def draw(name: str, rows: Sequence[Sequence[Cell]]) -> None:
    """Write docs/figures/NAME.jpg.

    Raises:
        ValueError: words do not fit under their picture.
    """
    font = ImageFont.load_default(LETTERS)
    lines = [[_wrapped(cell.words, font) for cell in row] for row in rows]
    heights = [SIDE + LINE * max(len(words) for words in row) + EDGE for row in lines]
    width = max(len(row) for row in rows) * (SIDE + GAP) - GAP + 2 * EDGE
    sheet = Image.new("RGB", (width, sum(heights) + EDGE), PAPER)
    pen, top = ImageDraw.Draw(sheet), EDGE
    for row, words_of_row, height in zip(rows, lines, heights, strict=True):
        for column, (cell, words) in enumerate(zip(row, words_of_row, strict=True)):
            left = EDGE + column * (SIDE + GAP)
            sheet.paste(Image.fromarray(_sized(cell.picture)), (left, top))
            if column:
                _joint(pen, cell.joint, left - GAP // 2, top + SIDE // 2)
            for number, line in enumerate(words):
                pen.text((left, top + SIDE + 4 + number * LINE), line, fill=INK, font=font)
        top += height
    sheet.save(FIGURES / f"{name}.jpg", quality=QUALITY, optimize=True)
    print(f"docs/figures/{name}.jpg")


def _wrapped(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= SIDE + GAP // 3:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > LINES or any(font.getlength(line) > SIDE + GAP // 3 for line in lines):
        raise ValueError(f"{words!r} does not fit under a picture in {LINES} lines")
    return lines


def _sized(picture: np.ndarray) -> np.ndarray:
    """Return a square picture at the size of a cell, uint8 (SIDE,SIDE,3); coarse ones keep their blocks."""
    if picture.shape[0] != picture.shape[1]:
        raise ValueError(f"a picture of {picture.shape[1]} x {picture.shape[0]} is not square")
    coloured = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
    side = len(coloured)
    way = cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC if side > SIDE // 4 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(np.ascontiguousarray(coloured), (SIDE, SIDE), interpolation=way))


def _joint(pen: ImageDraw.ImageDraw, joint: str, x: int, y: int) -> None:
    reach = GAP // 2 - 6
    if joint == ">":
        pen.line((x - reach, y, x + reach, y), fill=INK, width=3)
        pen.line((x + reach - 8, y - 8, x + reach, y, x + reach - 8, y + 8), fill=INK, width=3, joint="curve")
    if joint == "+":
        pen.line((x - 9, y, x + 9, y), fill=INK, width=3)
        pen.line((x, y - 9, x, y + 9), fill=INK, width=3)


def shown(picture: np.ndarray) -> np.ndarray:
    """Return a picture in [-1,1], float32 (h,w,3) or (h,w), as uint8."""
    return np.asarray(np.clip((np.asarray(picture, np.float32) + 1) * 127.5, 0, 255).round(), np.uint8)


def white(mask: np.ndarray) -> np.ndarray:
    """Return a mask, bool (h,w), as white on black, uint8 (h,w)."""
    return np.asarray(255 * mask.astype(np.uint8))


def heat(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Return values (h,w) as colours, uint8 (h,w,3): dark = low, bright = high; None = the least, the greatest."""
    least, most = (float(np.min(values)) if low is None else low), (float(np.max(values)) if high is None else high)
    level = np.clip((values - least) / max(most - least, 1e-12), 0, 1) * 255
    return np.asarray(cv2.applyColorMap(level.round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1])


def outlined(picture: np.ndarray, *masks: np.ndarray, room: int = 3) -> np.ndarray:
    """Return a picture, uint8 (h,w) or (h,w,3), with a line `room` px round each mask, bool (h,w)."""
    drawn = picture.copy() if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
    for mask in masks:
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((2 * room + 1, 2 * room + 1), np.uint8)) if room else mask
        found = cv2.findContours(np.asarray(wide, np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(drawn, found, -1, MARK, max(1, round(len(drawn) / 150)), cv2.LINE_AA)
    return drawn
