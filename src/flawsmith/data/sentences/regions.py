"""Named places (`data.places`) on a photograph, as masks, and where damage may lie that is asked for near one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flawsmith.config import DataConfig
from flawsmith.data import images
from flawsmith.data.masks.poses import Pose, apply_pose_mask, laid_over
from flawsmith.data.photographs import Photographs
from flawsmith.data.sentences.grammar import ParsedPrompt
from flawsmith.errors import ConfigError, DataError, nearest
from flawsmith.types import Example

_BAND, _RING = 0.1, 0.5
"""Width of the band along an edge, and of what is beside a place, as shares of the root of the place's area."""
_FACING = 0.7
"""Cosine up to which an edge still is the left one, say."""
_SIDES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}


def region_mask(name: str, settings: DataConfig, normal: Example, photographs: Photographs) -> np.ndarray:
    """Return where a named place is on a normal photograph, bool (H,W), not empty.

    On a part that was drawn on another photograph (`drawn_on`) it is carried over as the part itself lies on each;
    otherwise it takes the same share of every photograph.

    Raises:
        ConfigError: `drawn_on` names no normal photograph, or another product's.
        DataError: the mask cannot be read, has another size than its photograph, or the place is empty there.
    """
    place, where = settings.places[name], f"data.places.{name}"
    drawn_on = normal
    if place.drawn_on:
        known = {one.id: one for one in photographs.normals_of(normal.product)}
        if place.drawn_on not in known:
            hint = nearest(place.drawn_on, known) if len(known) < 20 else ""
            raise ConfigError(f"{where}.drawn_on: {place.drawn_on!r} is no normal photograph of {normal.product}{hint}")
        drawn_on = known[place.drawn_on]
    shape = photographs.read(drawn_on).native.shape[:2]
    region = _stored(settings.root / place.mask, shape) if place.mask else _drawn(place.box, place.polygon, shape)
    if not region.any():
        raise DataError(f"{where}: it is empty; draw it larger")
    here = photographs.read(normal).native.shape[:2]
    if drawn_on.id != normal.id:
        if photographs.is_surface(normal.product):
            size = int(here[1]), int(here[0])
            region = cv2.resize(region.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        else:
            there, part = photographs.part(drawn_on), photographs.part(normal)
            if not (there.any() and part.any()):
                raise DataError(f"{where}: no part is seen on {drawn_on.id} or {normal.id} to carry the place over by")
            matrix = laid_over(there, part, np.zeros_like(region), np.random.default_rng(0), "none")
            region = apply_pose_mask(region, Pose.of(matrix), here)
        if not region.any():
            raise DataError(f"{where}: carried over from {drawn_on.id} it lies outside {normal.id}")
    return region


def _stored(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    values = images.read(path)
    if values.shape[:2] != tuple(shape):
        raise DataError(f"{path}: {images.other_size(values.shape, shape)}")
    return np.asarray(values.any(axis=2) if values.ndim == 3 else values > 0)


def _drawn(box: list[float], polygon: list[list[float]], shape: tuple[int, ...]) -> np.ndarray:
    """Return a box or polygon in shares as bool (H,W); each takes the pixels whose centres lie inside, one at least."""
    height, width = int(shape[0]), int(shape[1])
    corners = np.array(polygon or [box[:2], [box[2], box[1]], box[2:], [box[0], box[3]]]) * (width, height) - 0.5
    sixteenths = np.rint(corners * 16).astype(np.int32)
    region = np.zeros((height, width), np.uint8)
    cv2.fillPoly(region, [sixteenths], 1, shift=4)
    return region > 0


def room_for(parsed: ParsedPrompt, region: np.ndarray, part: np.ndarray, extent: float) -> np.ndarray:
    """Return where a damage may lie that a sentence asks for on, beside or along something, bool (H,W), not empty.

    Args:
        parsed: The damage.
        region: bool (H,W), not empty: the named place; of a sentence that names none, the part, or all of a surface.
        part: bool (H,W): the part; True for a surface.
        extent: The damage's longer side in px.

    Raises:
        DataError: there is no such room.
    """
    # A place is seldom drawn along the part's outline, and beyond it there is nothing to damage.
    region = region & part if (region & part).any() else region
    root = float(np.sqrt(region.sum()))
    inside = _depth(region)
    if parsed.beside:
        outside = _depth(~region, border=False)
        width = max(_BAND * root, 3.0) if parsed.edge else max(_RING * root, extent, 3.0)
        room = (outside > 0) & (outside <= width) & part
    elif parsed.edge:
        room = (inside > 0) & (inside <= max(_BAND * root, 3.0))
    else:
        room = region.copy()
    if parsed.edge and not parsed.beside:
        towards = outward(region)
        for word in (parsed.across, parsed.down):
            if word in _SIDES:
                axis, sign = _SIDES[word]
                covered = np.flatnonzero(region.any(axis=axis))
                beyond = sign * (np.arange(region.shape[1 - axis]) - (covered[0] + covered[-1]) / 2) >= 0
                # The far rim of a hole also faces to the left, and is no left edge.
                room &= (sign * towards[:, :, axis] > _FACING) & (beyond[None, :] if axis == 0 else beyond[:, None])
    else:
        room &= _on_side(parsed, region)
    if not room.any():
        wish = " ".join(word for word in ("beside" * parsed.beside, parsed.across, parsed.down, parsed.region) if word)
        raise DataError(f"--prompt: there is no room at {wish or 'the edge'} on the photograph; ask for another place")
    return room


def _on_side(parsed: ParsedPrompt, region: np.ndarray) -> np.ndarray:
    """Return the side of a region that is asked for, bool (H,W); beside it, what lies beyond that side."""
    room = np.ones_like(region)
    for axis, word in ((1, parsed.across), (0, parsed.down)):
        covered = np.flatnonzero(region.any(axis=1 - axis))
        low, high = int(covered[0]), int(covered[-1]) + 1
        third = max((high - low) // 3, 1)
        bounds = {"left": (low, low + third), "middle": (low + third, high - third), "right": (high - third, high)}
        bounds |= {"top": bounds["left"], "bottom": bounds["right"]}
        if parsed.beside:
            bounds |= {"left": (0, low), "top": (0, low), "right": (high, 10**9), "bottom": (high, 10**9)}
        if word:
            places = np.arange(region.shape[axis])
            within = (places >= bounds[word][0]) & (places < max(bounds[word][1], bounds[word][0] + 1))
            room &= within[None, :] if axis == 1 else within[:, None]
    return room


def outward(region: np.ndarray) -> np.ndarray:
    """Return the direction away from a region at each pixel: float32 (H,W,2), x and y of unit length."""
    depth = _depth(region) - _depth(~region, border=False)
    depth = cv2.GaussianBlur(depth, (0, 0), 1.5, borderType=cv2.BORDER_REPLICATE)
    slope = np.stack([-cv2.Sobel(depth, cv2.CV_32F, *step, ksize=5) for step in ((1, 0), (0, 1))], axis=2)
    return np.asarray(slope / np.maximum(np.linalg.norm(slope, axis=2, keepdims=True), 1e-6))


def _depth(mask: np.ndarray, *, border: bool = True) -> np.ndarray:
    """Return the distance of each pixel to the nearest that is not in the mask, float32 (H,W); the picture ends it."""
    padded = np.pad(mask.astype(np.uint8), 1, constant_values=0 if border else 1)
    if padded.all():
        return np.zeros(mask.shape, np.float32)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1])
