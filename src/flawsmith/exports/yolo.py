"""YOLO's text files, as Ultralytics reads them, for segmentation or for boxes.

    FOLDER/data.yaml                            classes, and where the pictures lie
    FOLDER/images/train/<product>-<defect>-0000.png
    FOLDER/labels/train/<product>-<defect>-0000.txt     a line for each piece of damage; empty for a normal part
    FOLDER/images/val/..., FOLDER/labels/val/...
    FOLDER/provenance.jsonl                     a line for each picture: whether it is real, and where it came from

A line is `class x y x y ...`, or `class x y width height` for boxes, as shares of width and height. Polygons run
through the centres of the outermost pixels, holes joined by a bridge. Ultralytics rounds corners down to whole pixels
and fills with OpenCV's fillPoly, which takes in the outline: so every mask comes back as it was, hairlines included.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

from flawsmith import config
from flawsmith.data.annotations.polygons import centre_polygons
from flawsmith.data.exported.arrangement import (
    DividedSettings,
    Written,
    arranged,
    counted,
    defect_types,
    write_pictures,
)
from flawsmith.files import write_lines, write_text
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example

_DIGITS = 6
_LEAST_CORNERS = 3


class YoloSettings(DividedSettings):
    """What the export can be told."""

    task: Literal["segment", "detect"] = "segment"
    """Polygons, or boxes; one for each piece of damage."""


class Yolo(Exporter):
    """Pictures with YOLO's text files and data.yaml; every picture has a text file, also a normal one."""

    Settings: ClassVar[type[config.Settings]] = YoloSettings
    settings: YoloSettings

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        pictures = arranged(examples, self.settings.validation)
        types = defect_types(pictures)

        def labelled(written: Written) -> dict[str, Any]:
            of = written.of
            lines = [
                " ".join([str(types.index(defect)), *(f"{value:.{_DIGITS}f}" for value in values)])
                for defect, mask in written.labels.items()
                for values in (_polygons(mask) if self.settings.task == "segment" else _boxes(mask))
            ]
            write_text(folder / "labels" / of.side / f"{of.name}.txt", "".join(f"{line}\n" for line in lines))
            return {"file": written.file.relative_to(folder).as_posix(), **of.provenance(written.how)}

        rows = write_pictures(
            pictures,
            examples,
            self.settings.bits,
            lambda one: folder / "images" / one.side / one.name,
            labelled,
            advance,
        )
        write_lines(folder / "provenance.jsonl", list(rows))
        # A string of JSON is one of YAML. Without `path`, Ultralytics starts from the folder of this file.
        names = "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(types))
        # Ultralytics stops where a folder is missing: without pictures for validation it gets those to learn from.
        validated = next((one.side for one in pictures if one.side == "val"), "train")
        sides = f"train: images/train\nval: images/{validated}\n"
        write_text(folder / "data.yaml", f"{sides}nc: {len(types)}\nnames:\n{names}")
        return counted(pictures)


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Return each piece as x, y, x, y, ... in shares.

    A straight line of one pixel's width is a rectangle a quarter of a pixel round its centres: the same pixels, and a
    box with an area, without which Ultralytics leaves a piece out.
    """
    size = np.array(mask.shape[::-1])
    rows = []
    for corners in centre_polygons(mask):
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        if left == right or top == bottom:
            low_x, low_y, high_x, high_y = left + 0.25, top + 0.25, right + 0.75, bottom + 0.75
            line = np.array([[low_x, low_y], [high_x, low_y], [high_x, high_y], [low_x, high_y]])
            rows.append((line / size).ravel().tolist())
            continue
        missing = max(_LEAST_CORNERS - len(corners), 0)
        whole = np.concatenate([corners, np.repeat(corners[-1:], missing, axis=0)])
        rows.append(((whole + 0.5) / size).ravel().tolist())
    return rows


def _boxes(mask: np.ndarray) -> list[list[float]]:
    """Return the box of each piece as centre x, centre y, width, height in shares."""
    height, width = mask.shape
    _, _, pieces, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return [
        [(left + wide / 2) / width, (top + high / 2) / height, wide / width, high / height]
        for left, top, wide, high in pieces[1:, :4].tolist()
    ]
