"""Where the part is in a photograph.

A surface fills the picture; a part lies on a backdrop that is plain, though seldom evenly lit. The backdrop is fitted
to the picture's border as a quadratic of the place, robustly; the part is what departs from it. Its outline is put at
the departure where the outline's own edge is sharpest, and soft shadows, which depart but have no edge, are flooded
away from outside. Where the backdrop is rough, such as a conveyor belt, no part is clear of it pixel by pixel; then
the part is looked for a second time, with the roughness smoothed away. In the end a graph cut tells part from backdrop
by their colours: it takes away what is left of a shadow beside the part, and the foot of a soft edge, and gives back
what is as light as the backdrop and so was not found, such as the glint on a head.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.tiling import disc
from flawsmith.data.windows import spot_of
from flawsmith.types import Range

Mask = np.ndarray

_WORK = 256  # px of the longer side at which parts are found: outlines to about 1/256 of the picture
_PLAIN = 0.05  # model units: a border that varies more than this after the fit is texture, not backdrop
_GRAINY = 0.03  # likewise: a backdrop that is looked at a second time
_CLEAR = 12.0  # a part departs from its backdrop by this many standard deviations of the backdrop
_ROUGH = 2.5  # px of work of the second look: three times the grain of a belt
_CLEAR_OF_ROUGH = 8.0  # likewise after smoothing; surfaces of sixteen kinds reach 7
_OUTSIDE = 0.75  # of the part's departure: what the hundredth part outside stays below; a board's other chips do not
_BAND = 4  # px of work inside the outline where the graph cut may take away; a shadow is no deeper
_ROUNDS = 2  # of the graph cut; in each it learns the colours anew, and more would begin to thin threads
_LEAST = 0.02  # share of the picture below which a departure is a defect or dirt, not the part


class _Candidate(NamedTuple):
    """What may be the part, before the graph cut."""

    part: Mask
    """bool (h,w)."""
    reach: Mask
    """bool (h,w): what departs from the backdrop at all, the part's shadow too."""


def part_mask(picture: np.ndarray, span: Range | None = None) -> Mask:
    """Return where the part is, bool (H,W): all True for a surface that fills the picture.

    A large defect on a very even surface can look like a small part; whether a product is a surface is better asked of
    its normal photographs (`pose_mask` does so).

    Args:
        picture: Native: (H,W) or (H,W,3), uint8, uint16 or float32.
        span: Its product's value range; None = that of the picture itself.
    """
    height, width = picture.shape[:2]
    whole = np.ones((height, width), bool)
    if min(height, width) < 16:
        return whole
    by = min(1.0, _WORK / max(height, width))
    small = max(round(width * by), 8), max(round(height * by), 8)
    span = images.range_of(picture, span)
    # the mean of a picture in native units, then the range: a 12-megapixel picture need not become float32 first
    shrunk = cv2.resize(images.filled(picture, span), small, interpolation=cv2.INTER_AREA)
    model = images.to_model(shrunk, span)[:, :, : 1 if picture.ndim == 2 else 3]
    candidate, noise = _clear(model)
    if candidate is None or noise > _GRAINY:
        smoothed = _clear_of_rough(model)
        # Pixel by pixel a half of a part may be clear, the bright one.
        if smoothed is not None and (candidate is None or smoothed.part.sum() > 1.2 * candidate.part.sum()):
            candidate = smoothed
    if candidate is None:
        return whole
    full = cv2.resize(_cut_out(candidate, model).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 0.5)


def _clear(model: np.ndarray) -> tuple[_Candidate | None, float]:
    """The part on a smooth backdrop, (h,w) as `model`, None = there is none; and the backdrop's noise."""
    soft = _blurred(model, 0.7)
    away, noise, ring = _departure(soft)
    if noise > _PLAIN or (outline := _outline(away, _edge(soft), noise, 0.8)) is None:
        return None, noise
    candidate, limit = outline
    part = candidate.part
    share, on_ring = float(part.mean()), float(part[ring].mean())
    clear = float(np.median(away[part])) > _CLEAR * noise and limit > 5 * noise
    return (candidate if clear and _LEAST < share < 0.9 and on_ring < 0.3 else None), noise


def _clear_of_rough(model: np.ndarray) -> _Candidate | None:
    """Likewise on a rough backdrop: part and backdrop differ in the mean of some pixels."""
    soft = _blurred(model, _ROUGH)
    away, noise, ring = _departure(soft)
    if noise > _PLAIN:
        return None
    # Smoothed outlines are soft. One half as sharp as the sharpest may be the whole part's, and the sharpest that of
    # its bright side; and what is to flood a shadow may run into an even part.
    for flooded in (True, False):
        if (outline := _outline(away, _edge(soft), noise, 0.5, flooded=flooded)) is None:
            return None
        # a shadow in a hole is darker than the backdrop, and a line between lies apart
        part = _largest(outline[0].part)
        outside = cv2.dilate(part.astype(np.uint8), np.ones((15, 15), np.uint8)) == 0
        share, on_ring, departs = float(part.mean()), float(part[ring].mean()), float(np.median(away[part]))
        alone = outside.any() and float(np.quantile(away[outside], 0.99)) < _OUTSIDE * departs
        if alone and departs > _CLEAR_OF_ROUGH * noise and 0.05 < share < 0.9 and on_ring < 0.06:
            return _Candidate(part, outline[0].reach)
    return None


def _blurred(model: np.ndarray, sigma: float) -> np.ndarray:
    return np.atleast_3d(cv2.GaussianBlur(np.ascontiguousarray(model), (0, 0), sigma))


def _edge(soft: np.ndarray) -> np.ndarray:
    return _over_channels(cv2.magnitude(cv2.Sobel(soft, -1, 1, 0), cv2.Sobel(soft, -1, 0, 1)))


def _departure(picture: np.ndarray) -> tuple[np.ndarray, float, Mask]:
    """How far each pixel is from the backdrop (H,W) in model units, the backdrop's noise, and the border ring."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)  # well-conditioned on [-1,1]
    ring = np.ones((height, width), bool)
    band = max(int(0.06 * min(height, width)), 2)
    ring[band:-band, band:-band] = False
    known, values = terms[ring], picture[ring]
    keep = np.ones(len(known), bool)
    for _ in range(4):  # a part that touches the border is an outlier there
        fit = np.linalg.solve(known[keep].T @ known[keep], known[keep].T @ values[keep])
        off = np.abs(values - known @ fit).max(axis=1)
        noise = 1.4826 * float(np.median(off[keep])) + 1e-4
        keep = off < 3 * noise
    backdrop = (terms.reshape(-1, 6) @ fit.astype(np.float32)).reshape(picture.shape)
    return _over_channels(cv2.absdiff(picture, backdrop)), noise, ring


def _over_channels(values: np.ndarray) -> np.ndarray:
    """The largest channel, (H,W); pairwise, since numpy is slow along an axis of three."""
    if values.ndim == 2:
        return values
    most = values[:, :, 0]
    for channel in range(1, values.shape[2]):
        most = np.maximum(most, values[:, :, channel])
    return most


def _outline(
    away: np.ndarray, edge: np.ndarray, noise: float, sharp: float, *, flooded: bool = True
) -> tuple[_Candidate, float] | None:
    """The part, and the least departure at which its outline is so sharp (a share of the sharpest); None = nothing."""
    height, width = away.shape
    low = max(4 * noise, 0.06)
    tried: list[tuple[float, float, Mask]] = []
    for limit in np.geomspace(low, max(float(np.quantile(away, 0.97)), 1.1 * low), 10):
        over = _largest(away > limit)
        if not over.any():
            break
        outlines, _ = cv2.findContours(over.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        line = np.concatenate(outlines)[:, 0]
        line = line[(line > 1).all(axis=1) & (line < (width - 2, height - 2)).all(axis=1)]
        tried.append((float(limit), float(edge[line[:, 1], line[:, 0]].mean()) if len(line) else 0.0, over))
    if not tried:
        return None
    sharpest = max(sharp for _, sharp, _ in tried)
    limit, _, over = next(row for row in tried if row[1] >= sharp * sharpest)
    filled = _filled(over)
    # A contact shadow is inside the outline still: flood it from outside, where there is no edge to stop at.
    soft = np.pad(~filled | (edge < 0.3 * sharpest), 1, constant_values=True).astype(np.uint8)
    labels = cv2.connectedComponents(soft, connectivity=4)[1]
    core = (labels != labels[0, 0])[1:-1, 1:-1]
    # Opened by 2 x 2; OpenCV's own opening would move everything by a pixel.
    pair = np.ones((2, 2), np.uint8)
    core = cv2.dilate(cv2.erode(core.astype(np.uint8), pair), pair, anchor=(0, 0)) > 0
    core = _largest(core)
    part = core if flooded and core.sum() > 0.5 * filled.sum() else filled
    # A hole is real when it is large and shows the backdrop itself; glints and bright flanks are neither.
    holes, labels, stats, _ = cv2.connectedComponentsWithStats((part & (away < limit)).astype(np.uint8))
    for hole in range(1, holes):
        inside = labels == hole
        if stats[hole, cv2.CC_STAT_AREA] > 0.02 * part.sum() and np.median(away[inside]) < low:
            part = part & ~inside
    return _Candidate(part, tried[0][2]), limit


def _cut_out(candidate: _Candidate, model: np.ndarray) -> Mask:
    """Part and backdrop told apart by their colours: GrabCut (Rother, Kolmogorov, Blake: SIGGRAPH 2004).

    It is told that all deeper inside the part than the band is part, and that all beyond the hull of what departs from
    the backdrop is backdrop, as are the part's holes. Between them the part as found is likely part.
    """
    part = candidate.part
    departs = part | candidate.reach
    spot = spot_of([], departs, _BAND)
    inside, shown = part[spot].astype(np.uint8), np.clip((model[spot] + 1) * 127.5, 0, 255).astype(np.uint8)
    sure = cv2.erode(inside, disc(2 * _BAND + 1))
    if not sure.any():
        return part
    hull = np.zeros_like(inside)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.argwhere(departs[spot])[:, ::-1].astype(np.int32)), 1)
    holes = _filled(part[spot]) & ~part[spot]
    maybe = (hull > 0) & ~holes
    unsure = np.where(inside > 0, cv2.GC_PR_FGD, np.where(maybe, cv2.GC_PR_BGD, cv2.GC_BGD))
    marks = np.where(sure > 0, cv2.GC_FGD, unsure).astype(np.uint8)
    cv2.setRNGSeed(0)  # its colours are clustered from random starts
    colours = np.broadcast_to(shown, (*shown.shape[:2], 3)).copy()
    known = np.zeros((1, 65)), np.zeros((1, 65))  # of backdrop and part: filled by the call
    cv2.grabCut(colours, marks, (0, 0, 0, 0), *known, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    cut = np.zeros_like(part)
    cut[spot] = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    cut = _largest(cut)
    return cut if cut.sum() > 0.5 * part.sum() else part


def _largest(mask: Mask) -> Mask:
    """The largest component, and those at least a fifth as large: several parts may lie in one picture."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return np.zeros_like(mask)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return np.asarray((areas >= 0.2 * areas.max())[labels] & mask)


def _filled(mask: Mask) -> Mask:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    canvas = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(canvas, outlines, -1, 1, -1)
    return canvas > 0
