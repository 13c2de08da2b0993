"""MVTec AD's folder layout, which Anomalib (`MVTecAD`, `Folder`) and most research code load as it is.

    FOLDER/provenance.jsonl                         one line per file: which photograph it came from, and how
    FOLDER/names.csv                                which folder is which product and defect type
    FOLDER/<product>/train/good/000.png             normal parts to learn from
    FOLDER/<product>/test/good/000.png              normal parts held out
    FOLDER/<product>/test/<defect>/000.png         defects
    FOLDER/<product>/ground_truth/<defect>/000_mask.png

Below a product's folder there is nothing else: Anomalib takes every picture it finds there for a sample. For the same
reason no defect lies in train/. Masks are 0 and 255, one for each defect, in the order of their pictures.

Pictures are 8-bit by default. Anomalib opens them with Pillow's `convert("RGB")`, which clips 16-bit values at 255, so
that nearly every pixel becomes white; `bits = "native"` keeps the depth for readers that can use it.
"""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from flawsmith.config import Settings
from flawsmith.data import images
from flawsmith.data.exported.names import folder_names
from flawsmith.data.exported.pictures import Depth, ranges_of, suffix_of, write_picture
from flawsmith.data.masks.reading import read_label
from flawsmith.errors import DataError, RunError
from flawsmith.files import write_bytes, write_lines
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example, Range

LONGEST_PATH = 511
"""Anomalib refuses paths of 512 characters and more."""
_PROVENANCE, _NAMES = "provenance.jsonl", "names.csv"


class MvtecSettings(Settings):
    """What the export can be told."""

    bits: Depth = "8"
    """Depth of the pictures: "8", or "native" as the photograph has it (float becomes .tif, not read by MVTecAD)."""


class Mvtec(Exporter):
    """Normal parts and labelled defects, as Anomalib's MVTecAD loads them.

    A file that already is what is wanted (PNG, 8 bits, upright) is copied byte for byte; everything else is encoded
    again without loss, but for the depth with `bits = "8"`: 16-bit and float pictures of a product are then scaled
    alike, in its value range (`data.ranges`), so that a defect is no brighter than the part it lies on.

    Files are copied, never linked: a tool that writes into an export must not reach the photographs themselves.
    """

    Settings: ClassVar[type[Settings]] = MvtecSettings
    settings: MvtecSettings

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        names = _names(examples)
        placed = _place(examples, destination, names)
        write_lines(folder / _PROVENANCE, _fill(folder, placed, self.settings.bits, advance))
        write_bytes(folder / _NAMES, _table(names))
        return {home: len(members) for home, members in placed.items()}


def _names(examples: Sequence[Example]) -> dict[tuple[str, str | None], str]:
    """Return {(product, None): its folder, (product, defect): the folder of a defect type}."""
    made: dict[tuple[str, str | None], str] = {}
    for product, home in folder_names((one.product for one in examples), [_PROVENANCE, _NAMES]).items():
        made[product, None] = home
        types = (one.defect for one in examples if one.product == product and one.defect is not None)
        made |= {(product, defect): name for defect, name in folder_names(types, ["good"]).items()}
    return made


def _table(names: dict[tuple[str, str | None], str]) -> bytes:
    """Return names.csv; with a byte-order mark, without which Excel garbles all but ASCII."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("folder", "product", "defect"))
    for (product, defect), folder in sorted(names.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        home = names[product, None]
        rows.writerow((home if defect is None else f"{home}/test/{folder}", product, defect or ""))
    return text.getvalue().encode("utf-8-sig")


def _place(
    examples: Sequence[Example], folder: Path, names: dict[tuple[str, str | None], str]
) -> dict[str, list[Example]]:
    """Sort the examples into folders below the export, such as "product/test/scratch", and look for what is wrong."""
    placed: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        home = names[example.product, None]
        if example.defect is None:
            placed[f"{home}/{'test' if example.split == 'test' else 'train'}/good"].append(example)
            continue
        if not example.masks:
            raise DataError(f"{example.image}: a defect without a mask cannot be exported; draw one, or leave it out")
        placed[f"{home}/test/{names[example.product, example.defect]}"].append(example)
    if not placed:
        raise DataError("nothing to export: there are neither normal parts nor defects")
    for product in dict.fromkeys(example.product for example in examples):
        home = names[product, None]
        if not placed.get(f"{home}/train/good"):
            raise DataError(
                f"{product}: no normal parts to learn from, so no tool could train on this export; add some"
            )
    longest = max(len(str(folder.absolute())) + len(home) for home in placed) + len("ground_truth/000000_mask.png")
    if longest > LONGEST_PATH:
        raise RunError(
            f"{folder}: paths below it would be {longest} characters long, and Anomalib takes {LONGEST_PATH}"
        )
    return dict(sorted(placed.items()))


def _fill(root: Path, placed: dict[str, list[Example]], bits: Depth, advance: Advance) -> list[dict[str, Any]]:
    """Write every picture and mask below `root`; return the lines of provenance."""
    placed_examples = (example for members in placed.values() for example in members)
    spans = ranges_of(placed_examples) if bits == "8" else {}
    jobs = []
    for home, members in placed.items():
        digits = max(3, len(str(len(members) - 1)))  # of equal width, for Anomalib pairs masks by sorted names
        jobs += [(home, f"{number:0{digits}d}", example) for number, example in enumerate(members)]

    spans_of = {home.split("/")[0]: spans.get(members[0].product) for home, members in placed.items()}

    def one(job: tuple[str, str, Example]) -> dict[str, Any]:
        home, name, example = job
        return _pair(root, home, name, example, spans_of[home.split("/")[0]], bits)

    # Codecs leave Python's lock; a picture may be large, so only a few are held at once.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        lines = []
        for line in pool.map(one, jobs):
            lines.append(line)
            advance()
        return lines


def _pair(root: Path, home: str, name: str, example: Example, span: Range | None, bits: Depth) -> dict[str, Any]:
    """Write one picture, with its mask when it has one; return its line of provenance."""
    product, side, defect = home.split("/")
    facts = images.describe(example.image)
    target = root / product / side / defect / f"{name}{suffix_of(facts, bits)}"
    how = write_picture(example.image, target, facts, span, bits)
    line = {"file": target.relative_to(root).as_posix(), "mask": None, "how": how, "id": example.id}
    line |= {"source": str(example.image), "product": example.product, "defect": example.defect}
    if example.defect is not None and example.split == "train":
        line["origin"] = "real shot"
    line |= {"category": product, "label": defect}  # what Anomalib calls them: the names of their folders
    if example.defect is not None and example.masks:
        label = root / product / "ground_truth" / defect / f"{name}_mask.png"
        mask = read_label(example, facts.shape)
        if not mask.any():
            raise DataError(f"{example.masks[0]}: the mask is empty, so {example.image} is no defect; leave it out")
        images.write_mask(label, mask)
        line["mask"] = label.relative_to(root).as_posix()
    return line
