"""COCO's annotations, which Detectron2, MMDetection, torchvision, CVAT, Datumaro and FiftyOne read.

    FOLDER/annotations/instances_train.json     images, annotations, categories (https://cocodataset.org/#format-data)
    FOLDER/annotations/instances_val.json       the same for validation
    FOLDER/images/train/<product>-<defect>-0000.png     pictures, normal ones among them
    FOLDER/images/val/...

As in COCO itself, `file_name` is the name alone: the root of the pictures is images/train or images/val. A category is
a defect type. An annotation is all damage of one type on one picture, with its pieces and holes. `iscrowd` is 0
throughout, for trainers leave crowds out. Boxes are of whole pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from flawsmith import config
from flawsmith.data.annotations.polygons import edge_polygons
from flawsmith.data.annotations.run_lengths import compressed, counts_of
from flawsmith.data.exported.arrangement import (
    DividedSettings,
    Side,
    Written,
    arranged,
    counted,
    defect_types,
    write_pictures,
)
from flawsmith.files import write_json
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example

SIDES: tuple[Side, ...] = ("train", "val")
IMAGES = "images"
"""The folder of pictures; Datumaro and CVAT look for this name."""


class CocoSettings(DividedSettings):
    """What the export can be told."""

    masks: Literal["rle", "polygons"] = "rle"
    """Run lengths, or polygons along the pixels' edges with holes joined to the outline; both are exact."""


class Coco(Exporter):
    """Pictures with COCO's annotations, one file for training and one for validation."""

    Settings: ClassVar[type[config.Settings]] = CocoSettings
    settings: CocoSettings

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        pictures = arranged(examples, self.settings.validation)
        number_of = {name: number for number, name in enumerate(defect_types(pictures), start=1)}
        images: dict[Side, list[dict[str, Any]]] = {side: [] for side in SIDES}
        annotations: dict[Side, list[dict[str, Any]]] = {side: [] for side in SIDES}

        def described(written: Written) -> tuple[dict[str, Any], list[dict[str, Any]]]:
            row = {"file_name": written.file.name, "width": written.shape[1], "height": written.shape[0]}
            labels = written.labels.items()
            marked = [{"category_id": number_of[defect], **self._annotation(mask)} for defect, mask in labels]
            return row | written.of.provenance(written.how), marked

        rows = write_pictures(
            pictures,
            examples,
            self.settings.bits,
            lambda one: folder / IMAGES / one.side / one.name,
            described,
            advance,
        )
        count = 0
        for number, (picture, (row, marked)) in enumerate(zip(pictures, rows, strict=True), start=1):
            images[picture.side].append({"id": number, **row})
            for one in marked:
                count += 1
                annotations[picture.side].append({"id": count, "image_id": number, **one})
        categories = [{"id": number, "name": name, "supercategory": "defect"} for name, number in number_of.items()]
        for side in SIDES:
            tree = {
                "info": {"description": "Made by flawsmith; `origin` says of each picture whether it is real"},
                "licenses": [],
                "images": images[side],
                "annotations": annotations[side],
                "categories": categories,
            }
            write_json(folder / "annotations" / f"instances_{side}.json", tree)
        return counted(pictures)

    def _annotation(self, mask: np.ndarray) -> dict[str, Any]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, left = int(rows[0]), int(columns[0])
        box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
        segmentation: Any
        if self.settings.masks == "rle":
            segmentation = {"size": list(mask.shape), "counts": compressed(counts_of(mask))}
        else:
            segmentation = [polygon.ravel().tolist() for polygon in edge_polygons(mask)]
        return {"segmentation": segmentation, "area": int(mask.sum()), "bbox": box, "iscrowd": 0}
