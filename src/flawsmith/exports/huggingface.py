"""An image folder of Hugging Face's `datasets`: `load_dataset("imagefolder", data_dir=FOLDER)` gives both splits.

    FOLDER/train/metadata.jsonl         file_name, mask_file_name, defect, product, origin, ...: a line for each picture
    FOLDER/train/images/<product>-<defect>-0000.png
    FOLDER/train/masks/<product>-<defect>-0000.png      0 and 255; of a normal part, all 0
    FOLDER/validation/...

Columns: `image` and `mask` are pictures, `defect` is text ("" = a normal part). A picture with damage of several types
has their names joined by "+", and one mask of all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flawsmith import config
from flawsmith.data import images
from flawsmith.data.exported.arrangement import DividedSettings, Side, Written, arranged, counted, write_pictures
from flawsmith.files import write_lines
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example

_FOLDERS: dict[Side, str] = {"train": "train", "val": "validation"}


class HuggingfaceSettings(DividedSettings):
    """What the export can be told."""


class Huggingface(Exporter):
    """An image folder with masks, as `datasets` loads it."""

    Settings: ClassVar[type[config.Settings]] = HuggingfaceSettings
    settings: HuggingfaceSettings

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        pictures = arranged(examples, self.settings.validation)

        def described(written: Written) -> dict[str, Any]:
            of = written.of
            home = folder / _FOLDERS[of.side]
            mask = np.zeros(written.shape, bool)
            for label in written.labels.values():
                mask |= label
            images.write_mask(home / "masks" / f"{of.name}.png", mask)
            row = {"file_name": written.file.relative_to(home).as_posix(), "mask_file_name": f"masks/{of.name}.png"}
            return row | {"defect": "+".join(written.labels), **of.provenance(written.how)}

        rows = write_pictures(
            pictures,
            examples,
            self.settings.bits,
            lambda one: folder / _FOLDERS[one.side] / "images" / one.name,
            described,
            advance,
        )
        by_side: dict[Side, list[dict[str, Any]]] = defaultdict(list)
        for picture, row in zip(pictures, rows, strict=True):
            by_side[picture.side].append(row)
        for side, lines in by_side.items():
            write_lines(folder / _FOLDERS[side] / "metadata.jsonl", lines)
        return counted(pictures)
