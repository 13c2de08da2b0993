"""Reads what a picture's file says beside its pixels, see `metadata.py`; the pixels are stepped over.

Of a TIFF the EXIF block is no block but spread over the file, and is left out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import tifffile

from flawsmith.data.codecs.coding import PILLOW, header
from flawsmith.data.codecs.metadata import MOST, Metadata, upright_exif

_INCH = 0.0254
"""Metres."""
_COLOURS = (b"sRGB", b"gAMA", b"cHRM")
"""Chunks of a PNG that say the same as a profile in fewer words."""
_READ = (b"iCCP", b"pHYs", b"eXIf", *_COLOURS)


def metadata_of(stream: BinaryIO) -> Metadata:
    """Return what a file that `coding.decode` reads says of its upright picture; what is damaged of it is left out.

    Raises:
        Unreadable: as `coding.header`.
    """
    facts, orientation = header(stream)
    readers: dict[str, Callable[[BinaryIO], Metadata]] = {"PNG": _of_png, "TIFF": _of_tiff}
    stream.seek(0)
    try:
        told = readers[facts.codec](stream) if facts.codec in readers else _of_pillow(stream, facts.codec)
    except Exception:  # the libraries raise nearly anything on damaged bytes, and the pixels can be read without
        return Metadata()
    space = b"GRAY" if facts.mode == "grey" else b"RGB "
    fits = told.profile[16:20] == space and len(told.profile) <= MOST  # no viewer reads a grey picture with RGB's
    resolution = told.resolution
    if resolution and orientation >= 5:
        resolution = resolution[1], resolution[0]
    return Metadata(told.profile if fits else b"", told.colours, resolution, upright_exif(told.exif))


def _of_png(stream: BinaryIO) -> Metadata:
    parts: dict[bytes, bytes] = {}
    stream.seek(8)
    while len(start := stream.read(8)) == 8:
        length, name = struct.unpack(">I4s", start)
        if name in _READ and length <= MOST:
            parts.setdefault(name, stream.read(length))
            length = 0
        stream.seek(length + 4, 1)
    profile = b""
    if packed := parts.get(b"iCCP"):
        profile = zlib.decompressobj().decompress(packed[packed.index(b"\0") + 2 :], MOST + 1)
    resolution = None
    if len(density := parts.get(b"pHYs", b"")) == 9 and density[8] == 1:
        across, down = struct.unpack_from(">II", density)
        resolution = _resolution(across, down, 1)
    colours = tuple((name, parts[name]) for name in _COLOURS if name in parts)
    return Metadata(profile, colours, resolution, parts.get(b"eXIf", b""))


def _of_tiff(stream: BinaryIO) -> Metadata:
    with tifffile.TiffFile(stream) as file:
        page: Any = file.pages.first
        tags = {number: tag.value for number in (282, 283, 296, 34675) if (tag := page.tags.get(number))}
    metres = {2: _INCH, 3: 0.01}.get(int(tags.get(296, 2)))
    resolution = None
    if metres and 282 in tags and 283 in tags:
        across, down = (top / max(1, bottom) for top, bottom in (tags[282], tags[283]))
        resolution = _resolution(across, down, metres)
    return Metadata(bytes(tags.get(34675, b"")), (), resolution)


def _of_pillow(stream: BinaryIO, codec: str) -> Metadata:
    with PILLOW[codec](stream) as picture:
        told = dict(picture.info)
    density = told.get("dpi")
    if codec == "JPEG" and told.get("jfif_unit") not in (1, 2):  # else Pillow makes one up of the EXIF block
        density = None
    resolution = None if density is None else _resolution(float(density[0]), float(density[1]), _INCH)
    return Metadata(told.get("icc_profile") or b"", (), resolution, told.get("exif") or b"")


def _resolution(across: float, down: float, metres: float) -> tuple[float, float] | None:
    """Return pixels per metre from pixels per so many metres; None = what is said is no resolution."""
    both = across / metres, down / metres
    return both if all(1 <= one < 2**31 for one in both) else None
