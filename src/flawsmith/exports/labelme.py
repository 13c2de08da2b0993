"""labelme's files: a JSON beside each picture, so that people can correct the outlines there.

    FOLDER/<product>/<product>-<defect>-0000.png
    FOLDER/<product>/<product>-<defect>-0000.json       shapes; a normal part has none
    FOLDER/provenance.jsonl                             whether each picture is real, and where it came from

A polygon for each piece runs along the pixels' edges, with its holes joined to the outline. Pieces of one defect have
one `group_id`. labelme has no training and validation, so the pictures are not divided here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from flawsmith import config
from flawsmith.data.annotations.polygons import edge_polygons
from flawsmith.data.exported.arrangement import Written, arranged, write_pictures
from flawsmith.data.exported.names import folder_names
from flawsmith.data.exported.pictures import Depth
from flawsmith.files import write_json, write_lines
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example


class LabelmeSettings(config.Settings):
    """What the export can be told."""

    bits: Depth = "8"
    """Depth of the pictures: "8" (labelme shows no more), or "native" as the photograph has it."""


class Labelme(Exporter):
    """Pictures with labelme's polygons beside them."""

    Settings: ClassVar[type[config.Settings]] = LabelmeSettings
    settings: LabelmeSettings

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        pictures = arranged(examples, 0)
        homes = folder_names((one.product for one in pictures), ["provenance.jsonl"])

        def outlined(written: Written) -> dict[str, Any]:
            write_json(written.file.with_suffix(".json"), _annotation(written))
            return {"file": written.file.relative_to(folder).as_posix(), **written.of.provenance(written.how)}

        rows = write_pictures(
            pictures,
            examples,
            self.settings.bits,
            lambda one: folder / homes[one.product] / one.name,
            outlined,
            advance,
        )
        write_lines(folder / "provenance.jsonl", list(rows))
        return dict(sorted(Counter(homes[one.product] for one in pictures).items()))


def _annotation(written: Written) -> dict[str, Any]:
    shapes = [
        {
            "label": defect,
            "points": [[float(x), float(y)] for x, y in polygon],
            "group_id": group,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for group, (defect, mask) in enumerate(written.labels.items(), start=1)
        for polygon in edge_polygons(mask)
    ]
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": written.file.name,
        "imageData": None,
        "imageHeight": written.shape[0],
        "imageWidth": written.shape[1],
    }
