"""New damage shapes after a real one: bent elastically, walked as a curve, or grown as a blob.

The shapes keep what makes a defect type recognisable: how large it is, how long for its width, how ragged.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from flawsmith.data.masks.poses import Turn, apply_pose_mask, pose_mask
from flawsmith.data.tiling import thickness
from flawsmith.errors import DataError

Mask = np.ndarray


def vary(mask: Mask, rng: np.random.Generator) -> Mask:
    """Return a new shape in the statistics of a real mask, bool of the mask's own size, not empty.

    Damage that touches the picture's border is only bent, since its place is part of what it is.

    Args:
        mask: bool (H,W), not empty.
        rng: All randomness.
    """
    border = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
    if border or rng.random() < 0.4:
        return elastic(mask, rng)
    wide = max(thickness(mask, 0.5), 1.0)
    area = float(mask.sum())
    length = area / wide
    if length > 5 * wide:
        return _framed(curve(length, wide, rng), mask)
    rows, columns = np.nonzero(mask)
    spread = np.cov(np.stack([columns, rows])) + np.eye(2) / 12 if area > 1 else np.eye(2) / 12
    low, high = np.linalg.eigvalsh(spread)
    return _framed(blob(area, float(np.sqrt(high / low)), rng), mask)


def procedural(
    real_masks: Sequence[Mask], shape: Sequence[int], part: Mask, rng: np.random.Generator, *, turn: Turn = "free"
) -> Mask:
    """Return a new damage shape in the statistics of a defect type's real masks, on the part; bool (H,W), never empty.

    One real mask is drawn for its area, elongation and thickness. The new shape is that mask bent elastically, or for a
    thin defect type a random walk of the same length and thickness, or for a compact defect type a blob of smoothed
    noise.

    Args:
        real_masks: bool masks of any sizes, at the normal's own scale; empty ones are left out.
        shape: (H,W) of the normal.
        part: bool (H,W): where damage may lie; all False counts as everywhere.
        rng: All randomness.
        turn: As for `pose_mask`.

    Raises:
        DataError: no mask has damage.
    """
    drawn = [mask for mask in real_masks if mask.any()]
    if not drawn:
        raise DataError("no real mask to take new shapes after: give at least one mask that is not empty")
    part = part if part.any() else np.ones(tuple(shape[:2]), bool)
    like = drawn[int(rng.integers(len(drawn)))]
    for _ in range(8):
        new = vary(like, rng)
        pose = pose_mask(new, np.ones_like(new), part, rng, turn=turn)
        posed = apply_pose_mask(new, pose, shape)
        if (posed & part).sum() >= 0.5 * posed.sum() > 0:
            return np.asarray(posed & part)
    kept = np.asarray(posed & part)
    if kept.any():
        return kept
    inside = np.argwhere(part)
    row, column = inside[int(rng.integers(len(inside)))]
    kept[row, column] = True
    return kept


def elastic(mask: Mask, rng: np.random.Generator, strength: float = 1.0) -> Mask:
    """Return a mask bent by a smooth random field (Simard et al., ICDAR 2003), bool (H,W), not empty.

    Args:
        mask: bool (H,W), not empty.
        rng: All randomness.
        strength: 1 = by about a sixth of the damage's size.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    size = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    pad = int(size / 3) + 4
    top, left = max(rows[0] - pad, 0), max(columns[0] - pad, 0)
    spot = slice(top, rows[-1] + 1 + pad), slice(left, columns[-1] + 1 + pad)
    crop = mask[spot].astype(np.float32)
    height, width = crop.shape
    bend = [_smooth(height, width, max(size / 3, 2), rng) * np.float32(size / 6 * strength) for _ in range(2)]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    # Across a picture's edge that the damage touches, nothing moves: pulled in, it would trail a straight-sided strip.
    for field, at, last, low, high in (
        (bend[0], x, width - 1, mask[:, 0].any(), mask[:, -1].any()),
        (bend[1], y, height - 1, mask[0].any(), mask[-1].any()),
    ):
        if low:
            field *= np.clip(at / size * 3, 0, 1)
        if high:
            field *= np.clip((last - at) / size * 3, 0, 1)
    # the border row repeats, so that damage at the picture's edge stays attached to it
    bent = cv2.remap(crop, x + bend[0], y + bend[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) >= 0.5
    if not bent.any():
        return mask.copy()
    out = np.zeros_like(mask)
    out[spot] = bent
    return out


def curve(length: float, wide: float, rng: np.random.Generator) -> Mask:
    """Return a wandering line, bool of the size that it needs.

    Args:
        length: px along the line.
        wide: px across, which varies a little and tapers to the ends.
        rng: All randomness.
    """
    steps = max(int(length), 2)
    # The heading wavers about a slow bend, coarsely and finely, so the line wanders as cracks do without curling up.
    heading = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.8, 0.8) * np.linspace(-0.5, 0.5, steps)
    for share, weight in ((4, 0.35), (16, 0.25)):
        heading = heading + weight * _smooth(1, steps, max(length / share, 2), rng)[0]
    line = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    width = wide * (1 + 0.25 * _smooth(1, steps, max(length / 12, 2), rng)[0])
    width *= np.clip(np.minimum(np.arange(steps), np.arange(steps)[::-1]) / (0.1 * steps) + 0.4, 0, 1)
    pad = wide + 2
    line = np.asarray(line - line.min(axis=0) + pad)
    extent = np.ceil(line.max(axis=0) + pad).astype(int)
    fine = 4  # drawn at four times the size, so that fractions of a pixel count
    canvas = np.zeros((extent[1] * fine, extent[0] * fine), np.uint8)
    for (x, y), across in zip(line, width, strict=True):
        radius = max(int(round(across * fine / 2)), 1)
        cv2.circle(canvas, (int(x * fine), int(y * fine)), radius, 255, -1)
    small = cv2.resize(canvas, (int(extent[0]), int(extent[1])), interpolation=cv2.INTER_AREA)
    return np.asarray(small >= min(127, int(small.max())))


def blob(area: float, slim: float, rng: np.random.Generator) -> Mask:
    """Return a compact ragged shape of about the given area, bool of the size that it needs.

    Args:
        area: px.
        slim: Length over width, >= 1.
        rng: All randomness.
    """
    radius = np.sqrt(max(area, 1.0) / np.pi)
    half = int(np.ceil(radius * np.sqrt(slim) * 1.7)) + 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    dome = np.sqrt(along**2 / slim + across**2 * slim) / radius
    side = 2 * half + 1
    lumps, ragged = (_smooth(side, side, max(radius * grain, 0.7), rng) for grain in (0.7, 0.2))
    height = np.asarray(dome + 0.25 * lumps + 0.1 * ragged)
    level = np.partition(height.ravel(), int(area))[int(area)] if area < height.size else height.max()
    below = (height < level).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(below, connectivity=8)
    if count < 2:
        return np.asarray(height <= height.min())
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def _framed(shape: Mask, like: Mask) -> Mask:
    """A shape alone in a picture that holds it with a margin, so that it touches no border."""
    height, width = max(shape.shape[0] + 2, like.shape[0]), max(shape.shape[1] + 2, like.shape[1])
    out = np.zeros((height, width), bool)
    out[1 : 1 + shape.shape[0], 1 : 1 + shape.shape[1]] = shape
    return out


def _smooth(height: int, width: int, grain: float, rng: np.random.Generator) -> np.ndarray:
    """Smoothed noise (H,W) of unit deviation; `grain` is its scale in px."""
    coarse = max(int(grain / 4), 1)  # smooth noise needs few samples
    rows, columns = height // coarse + 3, width // coarse + 3
    noise = rng.normal(size=(rows, columns)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), grain / coarse, borderType=cv2.BORDER_REFLECT_101)
    full = cv2.resize(soft, (columns * coarse, rows * coarse), interpolation=cv2.INTER_CUBIC)[:height, :width]
    return np.asarray(full / max(float(full.std()), 1e-6), np.float32)
