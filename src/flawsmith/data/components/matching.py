"""Find a component that is known from another picture: its template, laid at every place and angle."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.data.windows import spot_of

MATCHES = 0.6
"""Least normalised correlation of a template with a place that shows the same component."""
_MARGIN = 4
"""Px of surroundings in a template: they say where its outline is."""
_COARSE = 20
"""Px of a template's longer side at which all angles are tried."""
_ANGLES = 24


@dataclass(frozen=True, slots=True)
class Template:
    """A component cut out of a picture."""

    picture: np.ndarray
    """float32 (h,w,3), [-1,1], with a margin round it."""
    mask: np.ndarray
    """bool (h,w)."""

    @classmethod
    def cut(cls, picture: np.ndarray, mask: np.ndarray) -> Template:
        """Cut a component out of a picture, float32 (H,W,3), under a mask, bool (H,W), not empty."""
        spot = spot_of([], mask, _MARGIN)
        return cls(np.ascontiguousarray(picture[spot], np.float32), mask[spot].copy())


def match(template: Template, picture: np.ndarray, *, turns: bool = True) -> tuple[np.ndarray, float]:
    """Return where a picture shows a template's component, bool (H,W), and how well: -1 to 1.

    Args:
        template: What to look for.
        picture: float32 (H,W,3).
        turns: True: at any angle; False: as it lies in the template.

    Returns:
        All False with -1 where the template is larger than the picture.
    """
    shape = picture.shape[:2]
    nothing = np.zeros(shape, bool), -1.0
    if any(small > large for small, large in zip(template.mask.shape, shape, strict=True)):
        return nothing
    scale = min(1.0, _COARSE / max(template.mask.shape))
    small = _resized(picture, scale)
    best, score = (0.0, (0, 0)), -1.0
    for angle in np.arange(_ANGLES if turns else 1) * (360.0 / _ANGLES):
        turned, cover = _turned(template, float(angle))
        at, value = _best(small, _resized(turned, scale), _resized(cover, scale) > 0.5)
        if value > score:
            best, score = (float(angle), at), value
    if score < -0.5:
        return nothing
    angle, (column, row) = best
    turned, cover = _turned(template, angle)
    if any(short > large for short, large in zip(cover.shape, shape, strict=True)):
        return nothing
    # The place is known to a pixel of the small picture; at full size only its surroundings are searched.
    reach = int(np.ceil(2 / scale))
    top, left = max(round(row / scale) - reach, 0), max(round(column / scale) - reach, 0)
    bottom, right = (
        min(start + length + 2 * reach, side)
        for start, length, side in zip((top, left), cover.shape, shape, strict=True)
    )
    top, left = min(top, bottom - cover.shape[0]), min(left, right - cover.shape[1])
    (column, row), value = _best(picture[top:bottom, left:right], turned, cover)
    mask = np.zeros(shape, bool)
    inside = np.s_[top + row : top + row + cover.shape[0], left + column : left + column + cover.shape[1]]
    mask[inside] = _turned_mask(template, angle)
    return mask, value


def _resized(plane: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return plane.astype(np.float32)
    size = max(round(plane.shape[1] * scale), 2), max(round(plane.shape[0] * scale), 2)
    return np.asarray(cv2.resize(plane.astype(np.float32), size, interpolation=cv2.INTER_AREA))


def _best(picture: np.ndarray, template: np.ndarray, cover: np.ndarray) -> tuple[tuple[int, int], float]:
    """Return the column and row of the template's best place, and its correlation there under the cover."""
    if any(small > large for small, large in zip(cover.shape, picture.shape[:2], strict=True)) or not cover.any():
        return (0, 0), -1.0
    scores = cv2.matchTemplate(
        picture, template, cv2.TM_CCOEFF_NORMED, mask=np.repeat(cover[:, :, None].astype(np.float32), 3, axis=2)
    )
    scores = np.where(np.isfinite(scores) & (np.abs(scores) <= 1.001), scores, -1.0)  # a plain place has no correlation
    row, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
    return (int(column), int(row)), float(scores[row, column])


def _turned(template: Template, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a template's picture turned by an angle in degrees, float32 (h,w,3), and where it is known, bool (h,w)."""
    if angle == 0:
        return template.picture, np.ones(template.mask.shape, bool)
    matrix, size = _turn(template, angle)
    cover = cv2.warpAffine(np.ones(template.mask.shape, np.float32), matrix, size) > 0.99
    return cv2.warpAffine(template.picture, matrix, size, borderMode=cv2.BORDER_REPLICATE), cover


def _turned_mask(template: Template, angle: float) -> np.ndarray:
    if angle == 0:
        return template.mask
    matrix, size = _turn(template, angle)
    return np.asarray(cv2.warpAffine(template.mask.astype(np.float32), matrix, size) > 0.5)


def _turn(template: Template, angle: float) -> tuple[np.ndarray, tuple[int, int]]:
    height, width = template.mask.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = int(np.ceil(width * cos + height * sin)), int(np.ceil(width * sin + height * cos))
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return matrix, size
