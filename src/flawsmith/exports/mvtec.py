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
import re
import shutil
import struct
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from anyascii import anyascii

from flawsmith.config import Settings, nfc
from flawsmith.data import images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.ranges import survey_values
from flawsmith.errors import DataError, RunError
from flawsmith.files import digest, write_bytes, write_lines
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example, Range

LONGEST_PATH = 511
"""Anomalib refuses paths of 512 characters and more."""
_LONGEST_NAME = 60
_PROVENANCE, _NAMES = "provenance.jsonl", "names.csv"
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


class MvtecSettings(Settings):
    """What the export can be told."""

    bits: Literal["8", "native"] = "8"
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


def safe_name(name: str, taken: Iterable[str] = ()) -> str:
    """Return a folder name of printable ASCII that every file system takes and none of `taken` equals.

    Latin letters lose their accents; a name with letters of another script is transliterated.

    >>> safe_name("Öl/Fett fleck")
    'Ol_Fett_fleck'
    >>> safe_name("찍힘")
    'JjigHim'
    >>> safe_name("Crack", ["crack"])
    'Crack-2'
    """
    latin = "" if _other_script(name) else _plain(unicodedata.normalize("NFKD", name))
    plain = latin or _plain(anyascii(nfc(name))) or "unnamed"
    if plain.lower().split(".")[0] in _RESERVED:
        plain += "_"
    used = {other.lower() for other in taken}  # some file systems do not tell upper case from lower
    unique, number = plain, 2
    while unique.lower() in used:
        unique, number = f"{plain}-{number}", number + 1
    return unique


def folder_names(names: Iterable[str], reserved: Iterable[str]) -> dict[str, str]:
    """Return the folder name of each name, so that no two are equal and none is reserved.

    A transliterated name does not depend on the order: two that read alike both end with letters drawn from the name.
    """
    names, reserved = list(dict.fromkeys(names)), list(reserved)
    made: dict[str, str] = {}
    for name in names:
        if not _other_script(name):
            made[name] = safe_name(name, [*made.values(), *reserved])
    others = {name: safe_name(name) for name in sorted(names) if name not in made}
    alike = Counter(plain.lower() for plain in (*others.values(), *made.values(), *reserved))
    for name, plain in others.items():
        ending = f"-{digest(nfc(name))[:4]}" if alike[plain.lower()] > 1 else ""
        made[name] = safe_name(plain + ending, [*made.values(), *reserved])
    return made


def _plain(text: str) -> str:
    """Drop what is not ASCII, and what some file system does not take."""
    text = text.encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("._-")[:_LONGEST_NAME]


def _other_script(name: str) -> bool:
    """Tell whether a name has a letter or digit that is not Latin and stands for no ASCII character."""
    return any(
        letter.isalnum()
        and not unicodedata.normalize("NFKD", letter).encode("ascii", "ignore")
        and "LATIN" not in unicodedata.name(letter, "")
        for letter in nfc(name)
    )


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


def _fill(root: Path, placed: dict[str, list[Example]], bits: str, advance: Advance) -> list[dict[str, Any]]:
    """Write every picture and mask below `root`; return the lines of provenance."""
    spans = _ranges(placed) if bits == "8" else {}
    jobs = []
    for home, members in placed.items():
        digits = max(3, len(str(len(members) - 1)))  # of equal width, for Anomalib pairs masks by sorted names
        jobs += [(home, f"{number:0{digits}d}", example) for number, example in enumerate(members)]

    def one(job: tuple[str, str, Example]) -> dict[str, Any]:
        home, name, example = job
        return _pair(root, home, name, example, spans.get(home.split("/")[0]), bits)

    # Codecs leave Python's lock; a picture may be large, so only a few are held at once.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        lines = []
        for line in pool.map(one, jobs):
            lines.append(line)
            advance()
        return lines


def _pair(root: Path, home: str, name: str, example: Example, span: Range | None, bits: str) -> dict[str, Any]:
    """Write one picture, with its mask when it has one; return its line of provenance."""
    product, side, defect = home.split("/")
    facts = images.describe(example.image)
    target = root / product / side / defect / f"{name}{'.tif' if bits == 'native' and facts.depth == 32 else '.png'}"
    how = _picture(example.image, target, facts, span, bits)
    line = {"file": target.relative_to(root).as_posix(), "mask": None, "how": how, "id": example.id}
    line |= {"source": str(example.image), "product": example.product, "defect": example.defect}
    line |= {"category": product, "label": defect}  # what Anomalib calls them: the names of their folders
    if example.defect is not None and example.masks:
        label = root / product / "ground_truth" / defect / f"{name}_mask.png"
        mask = read_label(example, facts.shape)
        if not mask.any():
            raise DataError(f"{example.masks[0]}: the mask is empty, so {example.image} is no defect; leave it out")
        images.write_mask(label, mask)
        line["mask"] = label.relative_to(root).as_posix()
    return line


def _picture(source: Path, target: Path, facts: images.Header, span: Range | None, bits: str) -> str:
    """Write one picture and return how: "copied", "encoded again", or from which range it was scaled to 8 bits."""
    wanted = facts.depth == 8 or bits == "native" and facts.depth == 16
    if facts.codec == "PNG" and wanted and _upright_png(source):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return "copied"
    pixels = images.read(source)
    if bits == "native" or pixels.dtype == np.uint8:
        images.write(target, pixels)
        return "encoded again"
    span = images.range_of(pixels, span)
    images.write(target, images.to_bytes(pixels, span))
    return f"{span.low:g}..{span.high:g} scaled to 8 bits"


def _ranges(placed: dict[str, list[Example]]) -> dict[str, Range]:
    """Return what is black and white in each product that has pictures deeper than 8 bits.

    That is the range with which the run was made; of pictures that come from elsewhere, it is decided here alike.
    """
    normals: dict[str, list[Example]] = defaultdict(list)
    for home, members in placed.items():
        product, _, defect = home.split("/")
        normals[product] += members if defect == "good" else []
    return {product: members[0].span or survey_values(members).span for product, members in normals.items()}


def _upright_png(path: Path) -> bool:
    """Tell whether a PNG says nothing of a rotation: readers differ in whether they obey one, so it is carried out."""
    with open(path, "rb") as stream:
        stream.seek(8)
        while len(head := stream.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"eXIf":
                return False
            stream.seek(length + 4, 1)
    return True
