"""Training views: the same damage seen a little to the side, nearer, turned and mirrored, at the working size.

A view is made once and encoded once (its latents are kept), so variety depends on the number of views per shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.data.tiling import Window
from flawsmith.data.windows import cut, cut_mask
from flawsmith.types import Range

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class View:
    """One window at the working size."""

    image: np.ndarray
    """float32 (size,size,3) RGB in [-1,1]."""
    mask: np.ndarray
    """bool (size,size)."""


def damage_view(
    picture: np.ndarray,
    mask: np.ndarray,
    windows: Sequence[Window],
    size: int,
    rng: Rng,
    *,
    turn: bool = True,
    tone: float = 0.06,
    span: Range | None = None,
) -> View:
    """Return a varied view of one of the windows that cover a damage; the damage never leaves the view.

    Args:
        picture: float32 (H,W,3) in [-1,1]; with `span` a native picture.
        mask: bool (H,W), not empty.
        windows: What covers the damage (`plan_windows`).
        size: Working size in px.
        rng: All randomness.
        turn: Also mirror and turn by right angles.
        tone: Standard deviation of the random gain and offset of brightness.
        span: As for `windows.cut`.
    """
    first = windows[int(rng.integers(len(windows)))]
    for shrink in (1.0, 0.5, 0.25, 0.0):
        side = max(8, round(first.side * np.exp(rng.normal(0, 0.22) * shrink)))
        shift = rng.uniform(-0.22, 0.22, 2) * shrink * side
        centre = np.array([first.top, first.left]) + first.side / 2 + shift
        window = Window(round(centre[0] - side / 2), round(centre[1] - side / 2), side)
        cut_out = cut_mask(mask, window, size)
        if cut_out.any():
            break
    image = _tone(cut(picture, window, size, span), rng, tone)
    return _turned(image, cut_out, rng) if turn else View(image, cut_out)


def normal_view(
    picture: np.ndarray,
    part: np.ndarray,
    mask: np.ndarray,
    side: int,
    size: int,
    rng: Rng,
    *,
    turn: bool = True,
    tone: float = 0.06,
    span: Range | None = None,
) -> View:
    """Return a view of a normal part with the mask of some damage: from it the word for normal is learned.

    Args:
        picture: float32 (H,W,3) in [-1,1]; with `span` a native picture.
        part: bool (H,W): the view is centred on it.
        mask: bool (size,size): the mask of some damage view.
        side: Side of the window in native px.
        size: Working size in px.
        rng: All randomness.
        turn: Also mirror and turn.
        tone: As for `damage_view`.
        span: As for `windows.cut`.
    """
    row, column = _somewhere(part, rng)
    side = max(8, round(side * np.exp(rng.normal(0, 0.2))))
    window = Window(_within(row, side, picture.shape[0]), _within(column, side, picture.shape[1]), side)
    image = _tone(cut(picture, window, size, span), rng, tone)
    return _turned(image, mask, rng) if turn else View(image, mask)


def loosened(mask: np.ndarray, rng: Rng, most: int) -> np.ndarray:
    """Return the mask grown by 0..most pixels: at sampling time a mask is seldom as tight as a label."""
    grow = int(rng.integers(0, most + 1))
    if grow == 0:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


def roughed(mask: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a rounded region that covers a damage and tells its place and about its size, but not its shape.

    Its sides lie between those of the damage's box and twice those, and the shorter one is at least about two fifths
    of the longer one, so that a scratch and a stain can have the same region. A damage that is long for its window is
    only loosened.

    Args:
        mask: bool (size,size), not empty.
        rng: All randomness.
    """
    rows, columns = np.nonzero(mask)
    tall, wide = (float(np.ptp(x)) + 1 for x in (rows, columns))
    longer = max(tall, wide)
    if longer > 0.75 * min(mask.shape):
        return loosened(mask, rng, 6)
    sides, centre = [], []
    for axis, side in ((rows, tall), (columns, wide)):
        least = max(side + 4, longer * rng.uniform(0.4, 1.0))
        whole = least + rng.uniform(0, 1) * min(side, 0.25 * min(mask.shape))
        sides.append(whole)
        # The damage lies anywhere in its region, not in the middle of it.
        centre.append((axis.min() + axis.max()) / 2 + rng.uniform(-0.5, 0.5) * (whole - side))
    power = float(rng.choice([2.0, 3.0, 8.0]))

    def reach(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        parts = (np.abs(rows - centre[0]) / sides[0] * 2) ** power + (
            np.abs(columns - centre[1]) / sides[1] * 2
        ) ** power
        return parts ** (1 / power)

    return reach(*np.mgrid[: mask.shape[0], : mask.shape[1]]) <= max(1.0, float(reach(rows, columns).max()))


def _somewhere(part: np.ndarray, rng: Rng) -> tuple[int, int]:
    """Draw one of a part's pixels; the middle of the picture where there is none."""
    reached = np.cumsum(np.count_nonzero(part, axis=1))
    if not reached[-1]:
        return part.shape[0] // 2, part.shape[1] // 2
    pick = int(rng.integers(reached[-1]))
    row = int(np.searchsorted(reached, pick, side="right"))
    return row, int(np.flatnonzero(part[row])[pick - (reached[row - 1] if row else 0)])


def _within(centre: int, side: int, length: int) -> int:
    start = int(centre) - side // 2
    return start if side >= length else min(max(start, 0), length - side)


def _tone(image: np.ndarray, rng: Rng, spread: float) -> np.ndarray:
    if spread <= 0:
        return image
    gain, offset = 1 + rng.normal(0, spread), rng.normal(0, spread)
    return np.clip((image + 1) * np.float32(gain) - 1 + np.float32(offset), -1, 1).astype(np.float32)


def _turned(image: np.ndarray, mask: np.ndarray, rng: Rng) -> View:
    quarter, mirror = int(rng.integers(4)), bool(rng.integers(2))
    image, mask = np.rot90(image, quarter), np.rot90(mask, quarter)
    if mirror:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return View(np.ascontiguousarray(image), np.ascontiguousarray(mask))
