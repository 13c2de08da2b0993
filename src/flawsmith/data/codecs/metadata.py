"""What a picture's file says beside its pixels: ICC profile, resolution, EXIF; taken from one file into another.

A sample keeps what its photograph says, so that colours are shown alike and measures in millimetres still hold. The
pixels are upright by then, so the EXIF orientation becomes 1 (upright), and the preview in the EXIF block, which shows
the undamaged part, is unhooked. `metadata_reading.py` reads it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

_ORIENTATION, _SHORT = 274, 3
_HEAD = 33
"""Bytes of a PNG before its second chunk."""
MOST = 8 << 20
"""A longer profile or EXIF block is left out."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of its picture, apart from the pixels."""

    profile: bytes = b""
    """The ICC profile."""
    colours: tuple[tuple[bytes, bytes], ...] = ()
    """(name, content) of PNG chunks that stand for a profile."""
    resolution: tuple[float, float] | None = None
    """Pixels per metre, columns and rows."""
    exif: bytes = field(default=b"", repr=False)
    """The EXIF block, a TIFF structure."""


def with_metadata(png: bytes | memoryview, metadata: Metadata) -> bytes | memoryview:
    """Return a PNG file that says of its picture what another file said of another one."""
    chunks = []
    if metadata == Metadata():
        return png
    if metadata.profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.profile)))
    else:
        chunks += metadata.colours
    if metadata.resolution:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(one) for one in metadata.resolution), 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    return bytes(png[:_HEAD]) + b"".join(_chunk(*chunk) for chunk in chunks) + bytes(png[_HEAD:])


def tiff_options(metadata: Metadata) -> dict[str, Any]:
    """Return the same as arguments of `tifffile.imwrite`, without the EXIF block."""
    options: dict[str, Any] = {"iccprofile": metadata.profile} if metadata.profile else {}
    if metadata.resolution:
        options |= {"resolution": tuple(one / 100 for one in metadata.resolution), "resolutionunit": "CENTIMETER"}
    return options


def upright_exif(block: bytes) -> bytes:
    """Return an EXIF block with the orientation 1 and without its preview; b"" where it is none, or too long."""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or not 14 <= len(block) <= MOST:
        return b""
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return b""
    (count,) = struct.unpack_from(order + "H", block, start)
    end = start + 2 + 12 * count
    if end > len(block):
        return b""
    made = bytearray(block)
    for entry in range(start + 2, end, 12):
        if struct.unpack_from(order + "HH", block, entry) == (_ORIENTATION, _SHORT):
            struct.pack_into(order + "H", made, entry + 8, 1)
    if end + 4 <= len(block):
        struct.pack_into(order + "I", made, end, 0)  # where the directory of the preview lies
    return bytes(made)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
