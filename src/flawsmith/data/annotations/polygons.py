"""Masks as outlines and back, without loss: a polygon for each piece, its holes joined to the outline by a bridge.

Two conventions are in use, and a tool that takes one for the other loses or adds a row of pixels:

    edges     pixel (0,0) covers x and y from 0 to 1; the outline runs along the pixels' edges (COCO, labelme)
    centres   whole numbers are pixels; the outline runs through the outermost ones and belongs to it (OpenCV's
              fillPoly, with which Ultralytics draws YOLO's polygons)

A bridge is walked there and back, so that the even-odd rule, by which all readers fill, gives it no area.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

import cv2
import numpy as np

Ring = list[tuple[int, int]]
"""(x, y) of each corner, one step from one another along a row, a column or a diagonal; the last joins the first."""
_CLOCKWISE = ((1, 0), (0, 1), (-1, 0), (0, -1))


def edge_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Return a polygon along the pixels' edges for each piece of a mask, int (N,2) as (x, y), N >= 4.

    Args:
        mask: bool (H,W). Pixels that touch at a corner alone are pieces of their own.
    """
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = defaultdict(list)
    for ring, piece in _edge_rings(mask, labels):
        if _area(ring) > 0:
            outer[piece] = ring
        else:
            holes[piece].append(ring)
    return [np.array(_straightened(_bridged(ring, holes[piece]))) for piece, ring in sorted(outer.items())]


def centre_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Return a polygon through the outermost pixels of each piece of a mask, int (N,2) as (x, y), N >= 1.

    Args:
        mask: bool (H,W). Pixels that touch at a corner are one piece.
    """
    contours, levels = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings: list[Ring] = [[(int(x), int(y)) for x, y in contour[:, 0]] for contour in contours]
    holes: dict[int, list[Ring]] = defaultdict(list)
    outer: list[int] = []
    for number in range(len(rings)):
        parent = int(levels[0, number, 3])
        if parent < 0:
            outer.append(number)
        else:
            holes[parent].append(rings[number])
    outer.sort(key=lambda number: min((y, x) for x, y in rings[number]))
    return [np.array(_straightened(_bridged(rings[number], holes[number]))) for number in outer]


def filled(corners: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose centres lie inside a polygon by the even-odd rule: bool (H,W).

    A polygon that is too thin to hold any centre gives the pixels that its outline runs through, so that none vanishes.

    Args:
        corners: float (N,2) as (x, y), in pixels from the upper left corner of the picture; they may lie outside.
        shape: (H,W).
    """
    # Only the rows and columns that the polygon reaches are filled: pictures are large, and polygons many.
    whole = np.asarray(corners, np.float64)
    top_left = np.clip(np.floor(whole.min(axis=0)), 0, shape[::-1]).astype(np.int64)
    bottom_right = np.clip(np.ceil(whole.max(axis=0)), 0, shape[::-1]).astype(np.int64)
    width, height = (bottom_right - top_left).tolist()
    first = whole - top_left
    second = np.roll(first, -1, axis=0)
    top, bottom = np.minimum(first[:, 1], second[:, 1]), np.maximum(first[:, 1], second[:, 1])
    # An edge crosses the rows whose centre lies at or below its upper end and above its lower end.
    begin = np.clip(np.ceil(top - 0.5), 0, height).astype(np.int64)
    end = np.clip(np.ceil(bottom - 0.5), 0, height).astype(np.int64)
    count = np.maximum(end - begin, 0)
    edge = np.repeat(np.arange(len(first)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + begin[edge]
    height_of_edge = second[edge, 1] - first[edge, 1]
    x = first[edge, 0] + (row + 0.5 - first[edge, 1]) * (second[edge, 0] - first[edge, 0]) / height_of_edge
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    turns = np.zeros((height, width + 1), np.int32)
    np.add.at(turns, (row, column), 1)
    inside = np.cumsum(turns, axis=1)[:, :width] % 2 == 1
    if not inside.any():
        return outlined(whole, shape)
    mask = np.zeros(shape, bool)
    mask[top_left[1] : bottom_right[1], top_left[0] : bottom_right[0]] = inside
    return mask


def outlined(corners: np.ndarray, shape: tuple[int, int], *, closed: bool = True) -> np.ndarray:
    """Return the pixels that a line through points runs over, one pixel wide: bool (H,W); see `filled`."""
    canvas = np.zeros(shape, np.uint8)
    points = np.floor(np.asarray(corners, np.float64)).astype(np.int32)
    cv2.polylines(canvas, [points.reshape(-1, 1, 2)], closed, 1)
    return canvas.astype(bool)


def filled_with_outline(corners: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the inside of a polygon through pixel centres, and its outline: bool (H,W), as OpenCV's fillPoly.

    Args:
        corners: int (N,2) as (x, y).
        shape: (H,W).
    """
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.asarray(corners, np.int32).reshape(-1, 1, 2)], 1)
    return canvas.astype(bool)


def _edge_rings(mask: np.ndarray, labels: np.ndarray) -> Iterable[tuple[Ring, int]]:
    """Yield the loops of unit edges with the mask at their right, and the piece that each bounds."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    # Per side of a pixel: which pixels have it as a border, where its edge starts, and where it leads.
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    leaving: dict[tuple[int, int], dict[tuple[int, int], int]] = defaultdict(dict)
    for beyond, (right, down), step in sides:
        rows, columns = np.nonzero(inner & ~beyond)
        pieces = labels[rows, columns]
        for y, x, piece in zip(rows.tolist(), columns.tolist(), pieces.tolist(), strict=True):
            leaving[x + right, y + down][step] = piece
    walked: set[tuple[tuple[int, int], tuple[int, int]]] = set()
    for start, ways in leaving.items():
        for first, piece in ways.items():
            corner, step = start, first
            ring: Ring = []
            while (corner, step) not in walked:
                walked.add((corner, step))
                ring.append(corner)
                corner = corner[0] + step[0], corner[1] + step[1]
                step = _next_step(step, leaving[corner])
            if ring:
                yield ring, piece


def _next_step(step: tuple[int, int], ways: Collection[tuple[int, int]]) -> tuple[int, int]:
    """Return the way on: to the right where there is one, which stays with the pixel where two touch at a corner."""
    at = _CLOCKWISE.index(step)
    return next(way for turn in (1, 0, -1) if (way := _CLOCKWISE[(at + turn) % 4]) in ways)


def _area(ring: Ring) -> int:
    """Return twice the area that a ring goes round clockwise, as seen in a picture whose rows run downward."""
    return sum(x * below - right * y for (x, y), (right, below) in zip(ring, [*ring[1:], ring[0]], strict=True))


def _bridged(outer: Ring, holes: Sequence[Ring]) -> Ring:
    """Join the holes of a piece to its outline: each from its leftmost corner straight to the left.

    The nearest corner there is one of the outline or of a hole further left, which is joined already.
    """
    ring = list(outer)
    for hole in sorted(holes, key=min):
        places = {corner: number for number, corner in enumerate(ring)}
        first = min(range(len(hole)), key=hole.__getitem__)
        x, y = hole[first]
        left = x
        while (left, y) not in places:
            left -= 1
        at = places[left, y]
        around = [*hole[first:], *hole[: first + 1]]
        ring[at + 1 : at + 1] = around[1:] if left == x else [*around, (left, y)]
    return ring


def _straightened(ring: Ring) -> Ring:
    """Leave out the corners at which nothing turns."""
    if len(ring) < 3:
        return ring
    corners = np.array(ring)
    onward = np.sign(np.roll(corners, -1, axis=0) - corners)
    turns = (onward != np.roll(onward, 1, axis=0)).any(axis=1)
    return [(int(x), int(y)) for x, y in corners[turns]]
