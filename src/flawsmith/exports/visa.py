"""VisA's folder layout, with its tables of annotations and of the split.

FOLDER/<product>/Data/Images/Normal/0000.png
FOLDER/<product>/Data/Images/Anomaly/000.png
FOLDER/<product>/Data/Masks/Anomaly/000.png     0 and 255
FOLDER/<product>/image_anno.csv                 image, label, mask
FOLDER/split_csv/1cls.csv                       object, split, label, image, mask
FOLDER/provenance.jsonl                         whether each picture is real, and where it came from

The split `train` holds normal parts to learn from.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flawsmith import config
from flawsmith.data import images
from flawsmith.data.exported.arrangement import Outgoing, Written, arranged, write_pictures
from flawsmith.data.exported.names import folder_names
from flawsmith.data.exported.pictures import Depth
from flawsmith.files import write_lines, write_text
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example


class VisaSettings(config.Settings):
    """What the export can be told."""

    bits: Depth = "8"
    """Depth of the pictures: "8", or "native" as the photograph has it."""


class Visa(Exporter):
    """Normal parts and labelled defects in VisA's folders; all damage is in the test, as there."""

    Settings: ClassVar[type[config.Settings]] = VisaSettings
    settings: VisaSettings

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        pictures = arranged(examples, 0)
        homes = folder_names((one.product for one in pictures), ["split_csv", "provenance.jsonl"])
        numbers: Counter[tuple[str, bool]] = Counter()
        places: dict[str, str] = {}
        for one in pictures:
            kind = homes[one.product], bool(one.damaged)
            side, digits = ("Anomaly", 3) if one.damaged else ("Normal", 4)
            places[one.name] = f"{homes[one.product]}/Data/Images/{side}/{numbers[kind]:0{digits}d}"
            numbers[kind] += 1

        def labelled(written: Written) -> tuple[str, str, dict[str, Any]]:
            name = written.file.relative_to(folder).as_posix()
            mask = ""
            if written.labels:
                mask = f"{places[written.of.name].replace('/Images/', '/Masks/')}.png"
                images.write_mask(folder / mask, np.logical_or.reduce(list(written.labels.values())))
            return name, mask, {"file": name, **written.of.provenance(written.how)}

        rows = write_pictures(
            pictures, examples, self.settings.bits, lambda one: folder / places[one.name], labelled, advance
        )
        annotations: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        division: list[tuple[str, ...]] = []
        provenance = []
        counts: Counter[str] = Counter()
        for one, (name, mask, line) in zip(pictures, rows, strict=True):
            home = homes[one.product]
            annotations[home].append((name, _types(one) or "normal", mask))
            split = "test" if one.damaged or one.side == "val" else "train"
            division.append((home, split, "anomaly" if one.damaged else "normal", name, mask))
            provenance.append(line)
            counts[f"{home}/{split}"] += 1
        for home, table in annotations.items():
            write_text(folder / home / "image_anno.csv", _csv(("image", "label", "mask"), table))
        write_text(folder / "split_csv" / "1cls.csv", _csv(("object", "split", "label", "image", "mask"), division))
        write_lines(folder / "provenance.jsonl", provenance)
        return dict(sorted(counts.items()))


def _types(picture: Outgoing) -> str:
    """Return the defect types; VisA separates several by commas, so one with a comma gets a semicolon."""
    return ",".join((one.defect or "").replace(",", ";") for one in picture.damaged)


def _csv(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()
