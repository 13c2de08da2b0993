"""A picture written as an export wants it: copied where it is so already, else encoded again without loss."""

from __future__ import annotations

import shutil
import struct
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from flawsmith.data import images
from flawsmith.data.ranges import survey_values
from flawsmith.types import Example, Range

Depth = Literal["8", "native"]
"""Bits per channel of exported pictures: 8, or as many as the photograph has."""


def suffix_of(facts: images.Header, bits: Depth) -> str:
    """Return how the file of a picture ends: `.png`, or `.tif` for float32 that stays so."""
    return ".tif" if bits == "native" and facts.depth == 32 else ".png"


def write_picture(source: Path, target: Path, facts: images.Header, span: Range | None, bits: Depth) -> str:
    """Write one picture; return how: "copied", "encoded again", or from which range it was scaled to 8 bits.

    A file that already is what is wanted (PNG, of the wanted depth, upright) is copied byte for byte. Files are never
    linked: a tool that writes into an export must not reach the photographs.
    """
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


def ranges_of(examples: Iterable[Example]) -> dict[str, Range]:
    """Return what is black and white in each product that has normal parts.

    That is the range with which the run was made; of pictures that come from elsewhere, it is decided here alike.
    """
    normals: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if example.defect is None:
            normals[example.product].append(example)
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
