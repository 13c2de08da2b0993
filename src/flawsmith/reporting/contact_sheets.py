"""Contact sheets: per defect type, real shots and samples side by side at the same zoom, as small RGB pictures.

A row shows one sample: the normal photograph, the same with the mask's outline and the frame of the close-up, the
sample, then a close-up of both. Close-ups of a defect type, shots included, show squares of the same side in camera
pixels, so that real and synthetic damage can be compared as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.previews import OUTLINE, fit, outlined, shown
from flawsmith.data.split import Split
from flawsmith.data.windows import spot_of
from flawsmith.errors import DataError
from flawsmith.reporting.document import PictureRow, Sheet, Shot
from flawsmith.run.folder import Run
from flawsmith.run.records import Sample
from flawsmith.types import Example, Range

TILE = 320
"""Longest side of a picture on a sheet in px, and the largest close-up: none is shown smaller than it is."""
COLUMNS = ("normal photograph", "asked mask", "sample", "close-up, normal", "close-up, sample")
MOST_SHOTS = 10
_OPENING_ROWS, _BESIDE = 8, 3
"""Of the sheet that opens a report: defect types, and pictures of each kind."""
_CELL, _GAP = 200, 6
"""Of a composed sheet, in px."""
_NEAR = 16
"""Pieces of damage nearer than this, in px, count as one."""
_FRAME = (0, 132, 255)


class Box(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right`, the last ones not included."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """The pictures of one defect type, or of what was rejected for one reason."""

    product: str
    title: str
    """The defect type, or the reason."""
    side: int
    """Side of the close-ups in camera pixels."""
    shots: tuple[Shot, ...]
    rows: tuple[PictureRow, ...]
    """A row per sample, with a tile for each of COLUMNS, no side above TILE."""
    total: int
    """How many samples there are; `rows` shows some of them, evenly spread."""


@dataclass(frozen=True, slots=True)
class _Painted:
    """A sample as it is read from disk."""

    caption: str
    normal: np.ndarray
    sample: np.ndarray
    mask: np.ndarray
    """bool (H,W)."""
    span: Range | None


def contact_sheets(run: Run, split: Split, most_rows: int) -> tuple[ContactSheet, ...]:
    """Return a sheet for each product and defect type that has shots or kept samples, in their order.

    Samples whose files cannot be read are left out here; `exactness.compare_all` names them.

    Args:
        run: A run with samples.
        split: Its photographs.
        most_rows: Samples per sheet.
    """
    samples: dict[tuple[str, str], list[tuple[Sample, str]]] = {}
    for sample in run.kept(partly=True):
        samples.setdefault((sample.product, sample.defect), []).append((sample, ""))
    shots: dict[tuple[str, str], list[Example]] = {}
    for example in split.shots:
        if example.defect is not None:
            shots.setdefault((example.product, example.defect), []).append(example)
    normals = {example.id: example for example in split.normals}
    return tuple(
        _contact_sheet(run, *key, shots.get(key, []), samples.get(key, []), normals, most_rows)
        for key in sorted({*samples, *shots})
    )


def reject_sheets(run: Run, split: Split, most_rows: int) -> tuple[ContactSheet, ...]:
    """Return a sheet for each product and first reason of what the gate rejected; its title is the reason."""
    groups: dict[tuple[str, str], list[tuple[Sample, str]]] = {}
    for sample, verdict in run.rejected():
        reasons = "; ".join(reason.text for reason in verdict.reasons)
        why = f"; meant as {sample.defect}, rejected: {reasons}"
        groups.setdefault((sample.product, verdict.reasons[0].text), []).append((sample, why))
    normals = {example.id: example for example in split.normals}
    return tuple(_contact_sheet(run, *key, [], groups[key], normals, most_rows) for key in sorted(groups))


def opening_sheet(sheets: Sequence[ContactSheet]) -> Sheet | None:
    """Return a sheet with a row per defect type, of real shots beside samples; None = there is not one sample.

    A run that learns from no shot has samples alone.

    The side of the close-ups differs from row to row; each caption says it.
    """
    shown = [sheet for sheet in sheets if sheet.rows]
    beside = _BESIDE if any(sheet.shots for sheet in shown) else 0
    rows = []
    for sheet in (shown[index] for index in spread(len(shown), _OPENING_ROWS)):
        real = [sheet.shots[index].tile for index in spread(len(sheet.shots), beside)]
        made = [sheet.rows[index].tiles[-1] for index in spread(len(sheet.rows), _BESIDE)]
        blank = np.full((TILE, TILE, 3), 240, np.uint8)
        tiles = [*real, *[blank] * (beside - len(real)), *made, *[blank] * (_BESIDE - len(made))]
        rows.append(PictureRow(f"{sheet.product}: {sheet.title}, {sheet.side} x {sheet.side} px", tuple(tiles)))
    heads = ("real shot",) * beside + ("sample",) * _BESIDE
    title = "Real shots beside samples" if beside else "Samples; there are no real shots to show beside them"
    return Sheet(title, "opening", heads, tuple(rows)) if rows else None


def spread(count: int, most: int) -> list[int]:
    """Return at most so many indices of a row of `count`, evenly spread.

    >>> spread(10, 3)
    [1, 5, 8]
    """
    number = min(count, most)
    return [int((index + 0.5) * count / number) for index in range(number)]


def compose(sheet: Sheet) -> np.ndarray:
    """Return a sheet as one picture, uint8 (H,W,3): the shots above, a line, then its rows in cells of one size."""
    if not sheet.heads:  # tiles that are compared at their own size
        return np.concatenate([np.concatenate(row.tiles, axis=1) for row in sheet.rows])
    columns = len(sheet.heads)
    shots = [shot.tile for shot in sheet.shots]
    parts = [_strip(shots[start : start + columns], columns) for start in range(0, len(shots), columns)]
    if parts and sheet.rows:
        parts.append(np.full((3, parts[0].shape[1], 3), 60, np.uint8))
    parts += [_strip(row.tiles, columns) for row in sheet.rows]
    return np.concatenate(parts) if parts else np.full((_CELL, _CELL, 3), 255, np.uint8)


def _strip(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    cells = [_centred(fit(tile, _CELL), _CELL) for tile in tiles]
    cells += [np.full((_CELL, _CELL, 3), 255, np.uint8)] * (columns - len(cells))
    spaced = [np.pad(cell, ((_GAP, _GAP), (_GAP, _GAP), (0, 0)), constant_values=255) for cell in cells]
    return np.concatenate(spaced, axis=1)


def _contact_sheet(
    run: Run,
    product: str,
    title: str,
    shots: Sequence[Example],
    samples: Sequence[tuple[Sample, str]],
    normals: Mapping[str, Example],
    most_rows: int,
) -> ContactSheet:
    """Cut a sheet of shots and of samples, each with what its caption ends with."""
    chosen_shots = [shots[index] for index in spread(len(shots), MOST_SHOTS)]
    chosen = [samples[index] for index in spread(len(samples), most_rows)]
    side = closeup_side(_masks(run, chosen_shots, [sample for sample, _ in chosen]))
    closeups, rows = [], []
    for example in chosen_shots:
        try:
            native = images.read(example.image)
            closeups.append(Shot(example.id, closeup(native, example.span, _label(example, native.shape), side)))
        except DataError:
            continue  # gone since the run began: the sheet shows what is left
    for sample, why in chosen:
        try:
            picture = images.read(run.path(sample.image))
            mask = images.read_mask(run.path(sample.mask), picture.shape)
            normal = images.read(normals[sample.normal].image)
        except (DataError, KeyError):
            continue
        if normal.shape == picture.shape:
            name = sample.image.removeprefix("samples/")
            lent = f"mask from {sample.shot}" if sample.shot else "no shot"
            caption = f"{name} on {sample.normal}, {sample.area} px, {lent}{why}"
            rows.append(_row(_Painted(caption, normal, picture, mask, normals[sample.normal].span), side))
    return ContactSheet(product, title, side, tuple(closeups), tuple(rows), len(samples))


def _masks(run: Run, shots: Sequence[Example], samples: Sequence[Sample]) -> Iterator[np.ndarray]:
    """Yield the masks on a sheet one by one, for pictures may be large; those that cannot be read are left out."""
    painted = [
        Example(one.image, run.path(one.image), one.product, one.defect, (run.path(one.mask),)) for one in samples
    ]
    for example in [*shots, *painted]:
        try:
            yield _label(example, images.describe(example.image).shape)
        except DataError:
            continue


def _label(example: Example, shape: tuple[int, ...]) -> np.ndarray:
    return read_label(example, shape) if example.masks else np.ones(shape[:2], bool)


def closeup_side(masks: Iterable[np.ndarray]) -> int:
    """Return the side of a defect type's close-ups in px: most damage fits, and none is shown smaller than it is."""
    sides = []
    for mask in masks:
        if mask.any():
            box = _box(mask)
            sides.append(max(box.bottom - box.top, box.right - box.left))
    wanted = 1.6 * float(np.percentile(sides, 75)) if sides else TILE
    return int(np.clip(8 * round(wanted / 8), 64, TILE))


def _row(one: _Painted, side: int) -> PictureRow:
    span = one.span
    small = fit(shown(one.normal, span), TILE)
    return PictureRow(
        one.caption,
        (
            small,
            _outlined(small, one.mask, side),
            fit(shown(one.sample, span), TILE),
            closeup(one.normal, span, one.mask, side),
            closeup(one.sample, span, one.mask, side),
        ),
    )


def _outlined(small: np.ndarray, mask: np.ndarray, side: int) -> np.ndarray:
    """Draw the mask's outline just outside it, and the frame of the close-up, on a small picture."""
    height, width = small.shape[:2]
    drawn = outlined(small, mask, OUTLINE)
    if mask.any():
        across = width / mask.shape[1]
        top, left = _corner(mask, side)
        start = round(left * across), round(top * across)
        end = round((left + side) * across) - 1, round((top + side) * across) - 1
        cv2.rectangle(drawn, start, end, _FRAME, 1, cv2.LINE_AA)
    return drawn


def closeup(native: np.ndarray, span: Range | None, mask: np.ndarray, side: int) -> np.ndarray:
    """Return a square round the damage, `side` camera pixels wide, enlarged to TILE."""
    top, left = _corner(mask, side)
    window = shown(native[top : top + side, left : left + side], span)
    return cv2.resize(_centred(window, side), (TILE, TILE), interpolation=cv2.INTER_CUBIC)


def _corner(mask: np.ndarray, side: int) -> tuple[int, int]:
    """Return top and left of the close-up: round the middle of the damage, inside the picture where that is larger."""
    if not mask.any():
        return 0, 0
    box = _box(mask)
    row, column = (box.top + box.bottom) / 2, (box.left + box.right) / 2
    if max(box.bottom - box.top, box.right - box.left) > side:  # only a part fits: a part that is damaged
        places = np.argwhere(mask)
        row, column = places[((places - (row, column)) ** 2).sum(axis=1).argmin()]
    height, width = mask.shape
    return (
        int(np.clip(round(row - side / 2), 0, max(0, height - side))),
        int(np.clip(round(column - side / 2), 0, max(0, width - side))),
    )


def _box(mask: np.ndarray) -> Box:
    """Return the box of the largest piece of damage."""
    spot = spot_of([], mask, _NEAR)
    damage = mask[spot]
    near = cv2.dilate(damage.astype(np.uint8), np.ones((_NEAR + 1, _NEAR + 1), np.uint8))
    _, labels = cv2.connectedComponents(near, connectivity=8)
    labels = np.where(damage, labels, 0)
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    rows, columns = np.flatnonzero(largest.any(axis=1)), np.flatnonzero(largest.any(axis=0))
    top, left = spot[0].start, spot[1].start
    return Box(top + int(rows[0]), left + int(columns[0]), top + int(rows[-1]) + 1, left + int(columns[-1]) + 1)


def _centred(picture: np.ndarray, side: int) -> np.ndarray:
    """Put a picture in the middle of a light square when it does not fill it."""
    height, width = picture.shape[:2]
    if (height, width) == (side, side):
        return picture
    square = np.full((side, side, 3), 240, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return square
