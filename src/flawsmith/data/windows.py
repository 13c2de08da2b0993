"""Native resolution: cut windows at the working size, paste the result back exactly, fit the label to what changed.

Defects are small and cameras are large, so a generator sees a square window scaled to its working size, and only the
window is synthesised. `tiling.plan_windows` chooses the windows. `paste` and `refit` keep the first rule of the
house: outside the exported mask every byte is the camera's own.

Pictures here are float32 (H,W,C) in [-1,1] ("model range") unless called native: (H,W) or (H,W,3) uint8, uint16 or
float32 as the camera gave them. Masks are bool (H,W); True = damaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.tiling import EDGE, Spot, Window, disc, thick
from flawsmith.errors import DataError
from flawsmith.types import Range

Mask = np.ndarray
Floats = np.ndarray
Native = np.ndarray
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""Of white noise this leaves six standard deviations, of edges and slopes little (Immerkaer, 1996)."""


def cut(picture: np.ndarray, window: Window, size: int | None = None, span: Range | None = None) -> Floats:
    """Return what a window sees, float32 (size,size,C), clipped to [-1,1] where it was enlarged.

    Args:
        picture: float32 (H,W,C) in [-1,1]; with `span` a native picture, of which the window alone becomes float32.
        window: What overhangs the picture is filled by reflection, repeatedly if need be.
        size: Working size in px: by area when shrinking, bicubic when enlarging; None = native scale.
        span: What is -1 and +1 in a native picture.
    """
    rows, columns = reflected(window, picture.shape)
    inside = picture[rows[:, None], columns[None, :]]
    if span is not None:
        inside = images.to_model(inside, span)
    if size is None or size == window.side:
        return np.ascontiguousarray(inside, dtype=np.float32)
    return np.asarray(np.clip(_resize(inside, size), -1.0, 1.0))


def spot_of(windows: Sequence[Window], mask: Mask, margin: int) -> Spot:
    """Return the part of a picture that windows see, reflection included, and a mask covers with a margin in px.

    What is cut from it is what would be cut from the picture: its edges are the picture's where a window overhangs.
    """
    reached = [reflected(window, mask.shape) for window in windows]
    ends = []
    for axis, covered in enumerate((mask.any(axis=1), mask.any(axis=0))):
        places = np.concatenate([np.flatnonzero(covered), *(both[axis] for both in reached)])
        if not len(places):
            return slice(0, mask.shape[0]), slice(0, mask.shape[1])
        low, high = int(places.min()) - margin, int(places.max()) + 1 + margin
        ends.append(slice(max(low, 0), min(high, mask.shape[axis])))
    return ends[0], ends[1]


def cut_mask(mask: Mask, window: Window, size: int | None = None, *, mirrored: bool = True) -> Mask:
    """Return the mask in a window, bool (size,size).

    Enlarging: half coverage. Shrinking: a third of a pixel's area counts as damaged, and parts thinner than one working
    pixel keep every pixel that they touch, so that nothing thin vanishes or breaks.

    Args:
        mask: bool (H,W).
        window: As for `cut`; overhang is reflected.
        size: Working size in px; None = native scale.
        mirrored: False: nothing of the overhang is marked.
    """
    rows, columns = reflected(window, mask.shape)
    inside = np.ascontiguousarray(mask[rows[:, None], columns[None, :]])
    if not mirrored:
        row, column = window.top + np.arange(window.side)[:, None], window.left + np.arange(window.side)
        inside &= (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    if size is None or size == window.side:
        return inside
    if size > window.side:
        return cv2.resize(inside.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR) >= 0.5
    small = cv2.resize(inside.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) >= 1 / 3
    step = int(np.ceil(window.side / size))
    body = cv2.dilate(thick(inside, step, goes_on=True).astype(np.uint8), disc(2 * step + 1)) > 0
    thin = (inside & ~body).astype(np.float32)
    return small | (cv2.resize(thin, (size, size), interpolation=cv2.INTER_AREA) > 1e-6)


def uncut(values: Floats, window: Window, shape: Sequence[int]) -> tuple[Floats, Mask]:
    """Undo `cut`: return (H,W,C) with the values at their native pixels and 0 elsewhere, and where, bool (H,W).

    Args:
        values: float32 (size,size,C) of a window, of any range (pictures or differences).
        window: Where they belong; what overhangs is dropped.
        shape: (H,W) or (H,W,C) of the picture.
    """
    values = values if values.ndim == 3 else values[:, :, None]
    rows, columns = window.inside(shape)
    canvas = np.zeros((shape[0], shape[1], values.shape[2]), np.float32)
    valid = np.zeros((shape[0], shape[1]), bool)
    canvas[rows, columns] = _resize(values, window.side)[_own(rows, window.top), _own(columns, window.left)]
    valid[rows, columns] = True
    return canvas, valid


def paste(
    native: Native,
    made: Floats,
    base: Floats | None,
    mask: Mask,
    window: Window,
    *,
    paint: Literal["replace", "residual"],
    feather: float,
    span: Range | None = None,
    grey: bool | None = None,
) -> Native:
    """Return the photograph with a window's paint in it; outside the mask every byte is as it was.

    `replace` puts the made picture there: alpha * made + (1 - alpha) * native. `residual` adds only what the
    generator changed: native + alpha * (made - base), so the autoencoder's blur, which is in both, cancels, and the
    camera's grain stays. alpha rises from the mask's border to 1 within `feather` px (within half the damage's own
    thickness where that is less, so a hairline keeps its strength), and fades at a window edge with picture beyond it.
    A photograph whose channels are all equal keeps them equal.

    Args:
        native: (H,W) or (H,W,3) uint8, uint16 or float32; not changed.
        made: float32 (size,size,C) in [-1,1]: the painted window at working (or native) size.
        base: float32 (size,size,C): the normal window after the same decoder; None = the photograph itself.
        mask: bool (H,W): where paint is allowed, at native resolution.
        window: The window that was cut.
        paint: How to put it in.
        feather: Width of the soft border in native px; 0 = none.
        span: What is -1 and +1, as in `images.to_model`; None = that of the whole photograph.
        grey: Whether its channels are all equal; None = look. Of a part of a photograph it is not to be seen.

    Raises:
        DataError: the mask is not of the photograph's size, or `paint` is neither.
    """
    if paint not in ("replace", "residual"):
        raise DataError(f"paint is 'replace' or 'residual', not {paint!r}")
    if mask.shape != native.shape[:2]:
        raise DataError(f"the mask is {mask.shape} and its picture {native.shape[:2]}: they must be of one size")
    span = span or images.range_of(native)
    rows, columns = window.inside(native.shape)
    out = native.copy()
    inside = mask[rows, columns]
    if not inside.any():
        return out
    here = native[rows, columns]
    alpha = (_feather(mask, (rows, columns), feather) * _fade(window, native.shape))[:, :, None]
    made = made if made.ndim == 3 else made[:, :, None]
    if paint == "residual" and base is not None:
        base = base if base.ndim == 3 else base[:, :, None]
        change = _resize(made - base, window.side)[_own(rows, window.top), _own(columns, window.left)]
    else:
        now = images.to_model(here, span)
        if paint == "residual":
            local = Window(window.top - rows.start, window.left - columns.start, window.side)
            change = _resize(made - cut(now, local, made.shape[0]), window.side)
            change = change[_own(rows, window.top), _own(columns, window.left)]
        else:
            full = _resize(made, window.side)[_own(rows, window.top), _own(columns, window.left)]
            change = np.clip(full, -1.0, 1.0) - now
    if images.is_grey(native) if grey is None else grey:
        # A grey camera's picture in a colour file: a model's faint tints would give the paint away.
        change = np.broadcast_to(change.mean(axis=2, keepdims=True), change.shape)
    out[rows, columns] = images.apply_delta(here, np.ascontiguousarray(alpha * change, dtype=np.float32), inside, span)
    return out


class Refit(NamedTuple):
    """A picture and its label after re-fitting."""

    image: Native
    """The picture; outside `mask` its bytes are those of the photograph."""
    mask: Mask
    """bool (H,W): what visibly changed; all False when nothing did."""
    share: float
    """How much of the asked area is visibly painted, 0..1."""


def refit(before: Native, after: Native, mask: Mask, *, threshold: float, span: Range | None = None) -> Refit:
    """Fit the label to what visibly changed, and give back the bytes of everything else.

    A pixel counts as changed where the difference, smoothed inside the mask, is above the threshold and above the
    camera's own grain, or above the half and joined to such a pixel. Small gaps and holes are closed; specks below
    0.1 % of the asked area or 3 px go, but never all.

    Args:
        before: The photograph, (H,W) or (H,W,3), native.
        after: The painted picture, like `before`.
        mask: bool (H,W): where paint was asked for; the new mask lies inside it.
        threshold: In model units ([-1,1], so 2/255 is one step of an 8-bit camera).
        span: As for `paste`.
    """
    fitted = np.zeros_like(mask)
    if not mask.any():
        return Refit(before.copy(), fitted, 0.0)
    spot = spot_of([], mask, 8)
    span = span or images.range_of(before)
    was, asked = images.to_model(before[spot], span), mask[spot]
    change = images.to_model(after[spot], span) - was
    weight = asked.astype(np.float32)
    total = np.maximum(cv2.GaussianBlur(weight, (0, 0), 1.2), 1e-3)

    def smooth(values: Floats) -> Floats:
        blurred = cv2.GaussianBlur(np.ascontiguousarray(values * weight[:, :, None]), (0, 0), 1.2)
        return np.atleast_3d(blurred) / total[:, :, None]

    # A shift of tone shows in the smoothed difference; a new texture, which averages out, in its smoothed size.
    visible = np.maximum(np.abs(smooth(change)), 0.6 * smooth(np.abs(change))).max(axis=2)
    # Grain in exchange for other grain of its strength is no change: its smoothed size is 0.7 of its deviation.
    grain = min(_grain(was), 24 / 255)
    limit = max(threshold, 1.3 * grain)
    weak = asked & (visible > max(limit / 2, 0.9 * grain)) & (np.abs(change).max(axis=2) > limit / 4)
    count, labels = cv2.connectedComponents(weak.astype(np.uint8), connectivity=8)
    strong = np.zeros(count, bool)
    strong[np.unique(labels[weak & (visible > limit)])] = True
    strong[0] = False
    kept = strong[labels]
    if kept.any():
        kept = _tidy(kept, asked, int(asked.sum()))
    fitted[spot] = kept
    image = before.copy()
    image[spot][kept] = after[spot][kept]
    return Refit(image, fitted, float(kept.sum() / asked.sum()))


def _tidy(kept: Mask, asked: Mask, area: int) -> Mask:
    closed = cv2.copyMakeBorder(kept.astype(np.uint8), 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(closed, cv2.MORPH_CLOSE, disc(5))
    rim = closed.copy()
    cv2.floodFill(rim, None, (0, 0), 1)
    closed = np.maximum(closed, 1 - rim)
    tidy = (closed[4:-4, 4:-4] > 0) & asked
    count, labels, stats, _ = cv2.connectedComponentsWithStats(tidy.astype(np.uint8), connectivity=8)
    sizes = stats[:, cv2.CC_STAT_AREA].copy()
    sizes[0] = 0
    keep = sizes >= max(3, 0.001 * area)
    keep[int(sizes.argmax())] = True
    keep[0] = False
    return np.asarray(keep[labels])


def _grain(picture: Floats) -> float:
    """The standard deviation of the camera's grain, after Immerkaer (1996) with a median in place of the mean."""
    if min(picture.shape[:2]) < 3:
        return 0.0
    return float(np.median(grain_map(picture)[1:-1, 1:-1]) / 0.6745 / 6)


def grain_map(picture: Floats) -> Floats:
    """Return Immerkaer's (1996) measure of the grain at each pixel, float32 (H,W): 6 x 0.6745 deviations in the median.

    Args:
        picture: float32 (H,W,C).
    """
    return np.asarray(np.abs(cv2.filter2D(np.ascontiguousarray(picture.mean(axis=2)), -1, IMMERKAER)))


def feathered(mask: Mask, feather: float) -> Floats:
    """Return the strength of paint, float32 (H,W): 0 outside the mask, low at its border, 1 in its middle.

    Args:
        mask: bool (H,W). It goes on beyond the picture's edge, so nothing is softened there.
        feather: px from border to full strength; less where the damage itself is thinner. 0 = a hard border.
    """
    if feather <= 0 or mask.all():
        return mask.astype(np.float32)
    # OpenCV measures to zeros only, and there are none beyond the edge
    far = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    nearby = cv2.dilate(far, disc(2 * int(np.ceil(feather)) + 1))
    soft = np.maximum(np.minimum(nearby, feather), 1.0)
    rise = np.clip((far - 0.5) / (soft - 0.5), 0.0, 1.0)
    return np.asarray(rise * rise * (3 - 2 * rise) * mask, np.float32)


def _feather(mask: Mask, spot: tuple[slice, slice], feather: float) -> Floats:
    """`feathered` for a part of a large picture, seeing as far round it as the feather does."""
    pad = int(np.ceil(2 * max(feather, 0))) + 2
    rows = slice(max(spot[0].start - pad, 0), spot[0].stop + pad)
    columns = slice(max(spot[1].start - pad, 0), spot[1].stop + pad)
    strength = feathered(mask[rows, columns], feather)
    return strength[_own(spot[0], rows.start), _own(spot[1], columns.start)]


def _fade(window: Window, shape: Sequence[int]) -> Floats:
    """1 in the window and falling to 0 at those of its edges that lie inside the picture; float32 of the seen part."""

    def ramp(start: int, length: int) -> Floats:
        at = np.arange(window.side, dtype=np.float32) + 0.5
        width = max(window.side * EDGE, 1.0)
        low = np.clip(at / width, 0, 1) if start > 0 else np.ones_like(at)
        high = np.clip((window.side - at) / width, 0, 1) if start + window.side < length else np.ones_like(at)
        return (low * high).astype(np.float32)

    rows, columns = window.inside(shape)
    down, along = ramp(window.top, shape[0]), ramp(window.left, shape[1])
    return np.asarray(down[_own(rows, window.top), None] * along[None, _own(columns, window.left)])


def _own(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)


def reflected(window: Window, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the columns of a picture of `shape` (H,W[,C]) that a window sees, int64 (side,) each.

    What overhangs is filled by reflection, repeatedly if need be.
    """
    if window.side < 1:
        raise DataError(f"a window's side must be at least 1 px, not {window.side}")

    def fold(start: int, length: int) -> np.ndarray:
        at = np.arange(start, start + window.side)
        if length == 1:
            return np.zeros_like(at)
        at = np.abs(at) % (2 * length - 2)
        return np.where(at >= length, 2 * length - 2 - at, at)

    return fold(window.top, shape[0]), fold(window.left, shape[1])


def _resize(values: Floats, size: int) -> Floats:
    values = np.ascontiguousarray(values, dtype=np.float32)
    if values.shape[0] == size:
        return values
    way = cv2.INTER_AREA if size < values.shape[0] else cv2.INTER_CUBIC
    return np.atleast_3d(cv2.resize(values, (size, size), interpolation=way)).astype(np.float32, copy=False)
