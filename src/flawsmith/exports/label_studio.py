"""Label Studio's tasks with brush strokes as pre-annotations, so that people can correct them there.

    FOLDER/tasks.json           to be imported: a task for each picture, its strokes as a prediction
    FOLDER/config.xml           the labelling interface: a brush for each defect type
    FOLDER/images/<product>-<defect>-0000.png

Start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT at the
folder above `prefix`, or set `prefix` to where the pictures are served.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from flawsmith import config
from flawsmith.data.annotations.run_lengths import packed
from flawsmith.data.exported.arrangement import Written, arranged, defect_types, write_pictures
from flawsmith.data.exported.pictures import Depth
from flawsmith.files import write_bytes, write_text
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example


class LabelStudioSettings(config.Settings):
    """What the export can be told."""

    bits: Depth = "8"
    """Depth of the pictures: "8" (browsers show no more), or "native" as the photograph has it."""
    prefix: str = "/data/local-files/?d=label_studio/"
    """What stands before images/<name> in a task: where Label Studio serves this folder."""


class LabelStudio(Exporter):
    """Tasks for Label Studio; damage stands in them as a prediction, which an annotator takes over or corrects."""

    Settings: ClassVar[type[config.Settings]] = LabelStudioSettings
    settings: LabelStudioSettings

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        pictures = arranged(examples, 0)

        def task(written: Written) -> dict[str, Any]:
            name = written.file.relative_to(folder).as_posix()
            address = {"image": self.settings.prefix + quote(name)}
            result = [_strokes(written, number, defect) for number, defect in enumerate(written.labels)]
            made = [{"model_version": "flawsmith", "score": 1.0, "result": result}]
            return {"data": address, "meta": written.of.provenance(written.how), "predictions": made}

        rows = write_pictures(
            pictures, examples, self.settings.bits, lambda one: folder / "images" / one.name, task, advance
        )
        write_bytes(folder / "tasks.json", json.dumps(list(rows), ensure_ascii=False).encode())
        labels = "".join(f"    <Label value={quoteattr(defect)}/>\n" for defect in defect_types(pictures))
        write_text(
            folder / "config.xml",
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
            f'  <BrushLabels name="tag" toName="image">\n{labels}  </BrushLabels>\n</View>\n',
        )
        return {"images": len(pictures)}


def _strokes(written: Written, number: int, defect: str) -> dict[str, Any]:
    return {
        "id": f"{written.of.name}-{number}",
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "origin": "prediction",
        "original_width": written.shape[1],
        "original_height": written.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": packed(written.labels[defect]), "brushlabels": [defect]},
    }
