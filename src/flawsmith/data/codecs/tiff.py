"""TIFF: tifffile reads the tags; strips and tiles are put together here, so that no library turns, scales or blends.

Libraries that decode a whole TIFF convert on the way: OpenCV multiplies colours by alpha and refuses separate planes,
Pillow cuts 16-bit colours to 8. So a compression library sees one strip or tile at a time, as plain bytes; bit order,
predictor, planes and palette follow the TIFF 6.0 specification (and Adobe's Technical Note 3 for float predictors).
"""

from __future__ import annotations

import io
import logging
import re
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import ImageFile, JpegImagePlugin, TiffImagePlugin

from flawsmith.data.codecs.jpeg import SCAN, jpeg_parts, jpeg_storage
from flawsmith.data.codecs.table import Storage, Unreadable, conversion, require_readable

_NAMES = {
    1: "none",
    2: "CCITT RLE",
    3: "CCITT G3",
    4: "CCITT G4",
    5: "LZW",
    6: "old-style JPEG",
    7: "JPEG",
    8: "Deflate",
    32773: "PackBits",
    32946: "Deflate",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34925: "LZMA",
    34926: "ZSTD",
    34927: "WebP",
    50000: "ZSTD",
    50001: "WebP",
}
_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_PREDICTED = ("LZW", "Deflate")  # where the specification knows predictors
_LARGEST_TILE = 2**24  # pixels; a tile may be larger than its picture, but not so that it fills the memory
_HEADER = 8  # bytes
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))

# tifffile reports broken files through logging as well as by raising; the raised sentence is the one we show.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class _OneStrip(TiffImagePlugin.TiffImageFile):
    """Pillow's reader without its limit on size, a setting that all threads share: `coding.header` has set our own."""

    load_prepare = ImageFile.ImageFile.load_prepare


def tiff_header(stream: BinaryIO) -> tuple[int, int, int, str, int, int]:
    """Return width, height, depth, mode, EXIF orientation and number of pictures; see `table.Header`.

    Raises:
        Unreadable: `table.READABLE` does not hold it, or its first page is not a whole picture.
    """
    with tifffile.TiffFile(stream) as tif:
        page: Any = tif.pages.first
        pages = _pictures(tif, page)
        photometric, bits = _colours(page), page.bitspersample
        tag = page.tags.get(274)
        orientation = tag.value if tag is not None and tag.value in range(1, 9) else 1
        depth = 8 if photometric == _PALETTE or bits == 1 else bits
        mode = "grey" if photometric in (_WHITE_IS_ZERO, _GREY) else "RGB"
        return page.imagewidth, page.imagelength, depth, mode, orientation, pages


def decode_tiff(data: bytes) -> np.ndarray:
    """Return (H,W,samples) of the first page as stored: uint8, uint16 or float32; black is zero, colours are RGB.

    Raises:
        Unreadable: as `tiff_header`, cut short, or with colours that were multiplied by alpha.
    """
    pixels, palette = decode_tiff_indices(data)
    return pixels if palette is None else palette[pixels[..., 0]]


def decode_tiff_indices(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what `decode_tiff` does, but of a palette picture its indices (H,W,1), and its palette, uint8 (N,3) RGB.

    Raises:
        Unreadable: as `decode_tiff`.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        page: Any = tif.pages.first
        photometric = _colours(page)
        pixels = _assemble(page, data)
        if photometric == _PALETTE:
            colours = np.asarray(page.colormap).T
            if pixels[..., 0].max() >= len(colours):
                raise Unreadable("its pixels name colours that its palette lacks; copy it again from its source")
            # Some writers put 8-bit values into the 16-bit table, as libtiff's tools know too.
            return pixels, (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
        if page.bitspersample == 1:
            pixels = np.where(pixels, np.uint8(255), np.uint8(0))
        if _storage(page).alpha == "premultiplied":
            full = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
            if clear := int((pixels[..., -1] != full).sum()):
                raise Unreadable(
                    f"its colours are multiplied by alpha (premultiplied) and {clear} pixels are not opaque; save it "
                    "without alpha"
                )
        return np.iinfo(pixels.dtype).max - pixels if photometric == _WHITE_IS_ZERO else pixels, None


def _pictures(tif: tifffile.TiffFile, page: Any) -> int:
    """Return how many pictures the file holds, thumbnails and masks left out."""
    if int(page.subfiletype) & 5:
        raise Unreadable("its first page is a thumbnail or a mask; save the full picture as the first page")
    every: list[Any] = [tif.pages[number] for number in range(len(tif.pages))]
    pages = sum(not int(one.subfiletype) & 5 for one in every)
    stack: dict[str, Any] = (tif.imagej_metadata or {}) if tif.is_imagej else {}
    channels = stack.get("channels", 1)
    if tif.is_ome and (found := re.search(r'SizeC="(\d+)"', page.description)):
        channels = int(found[1])
    if channels > page.samplesperpixel:
        raise Unreadable(
            f"it holds {channels} colour channels as {channels} grey pictures (a composite of ImageJ or OME), of which "
            "one alone would be read; save it as one grey or RGB picture"
        )
    return max(pages, int(stack.get("images", 1)))


def _storage(page: Any) -> Storage:
    number = int(page.compression)
    known = getattr(page.compression, "name", f"number {number}")
    extra = [int(value) for value in page.extrasamples]
    return Storage(
        "TIFF",
        _NAMES.get(number, known),
        page.bitspersample,
        "separate" if page.samplesperpixel > 1 and int(page.planarconfig) == 2 else "interleaved",
        "none" if page.samplesperpixel in (1, 3) else "premultiplied" if extra[-1:] == [1] else "straight",
    )


def _colours(page: Any) -> int:
    """Return the photometric interpretation of a page that is read; refuse any other by its right name."""
    samples = {1: "uint", 3: "float"}.get(int(page.sampleformat), "signed or complex")
    bits, photometric, storage = page.bitspersample, int(page.photometric), _storage(page)
    if (samples, bits) not in {("uint", 1), ("uint", 8), ("uint", 16), ("float", 32)}:
        raise Unreadable(f"its samples are {bits}-bit {samples}; save it with 8 or 16 bits, or as 32-bit float")
    if photometric not in (_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _YCBCR):
        raise Unreadable(f"its colours are {getattr(page.photometric, 'name', photometric)}; save it as RGB or grey")
    colours = 3 if photometric in (_RGB, _YCBCR) else 1
    if page.samplesperpixel - colours not in (0, 1) or page.imagedepth != 1:
        raise Unreadable(
            f"it has {page.samplesperpixel} samples per pixel; save it as grey or RGB, one picture per file"
        )
    require_readable(storage)
    if bits == 1 and page.samplesperpixel > 1:
        raise Unreadable(f"its pixels have {page.samplesperpixel} samples of 1 bit; save it with 8 bits per sample")
    if photometric == _YCBCR and storage.compression != "JPEG":
        raise Unreadable(f"its colours are YCbCr with compression {storage.compression}; save it as RGB")
    if samples == "float" and photometric in (_WHITE_IS_ZERO, _PALETTE):
        raise Unreadable(f"its float samples are {page.photometric.name}; save them so that larger is brighter")
    predictor = int(page.predictor)
    fits = predictor == 1 or storage.compression in _PREDICTED and bits > 1 and predictor in (2, 3)
    if (not fits or predictor == 3 and samples != "float") and storage.compression != "JPEG":
        raise Unreadable(f"predictor {predictor} with {storage} is not supported; convert it with {conversion('TIFF')}")
    return photometric


def _assemble(page: Any, data: bytes) -> np.ndarray:
    """Return (H,W,samples) in native byte order, put together from strips or tiles."""
    width, height, samples = page.imagewidth, page.imagelength, page.samplesperpixel
    planes = samples if _storage(page).planes == "separate" else 1
    wide = page.tilewidth if page.is_tiled else width
    high = page.tilelength if page.is_tiled else min(page.rowsperstrip, height)
    if not 0 < wide * high <= max(_LARGEST_TILE, width * height):
        raise Unreadable(f"its tiles or strips claim {wide} x {high} pixels; copy it again from its source")
    across, down = -(-width // wide), -(-height // high)
    count = planes * across * down
    if (listed := min(len(page.dataoffsets), len(page.databytecounts))) < count:
        raise Unreadable(f"{listed} of its {count} strips or tiles are there; copy it again from its source")
    tag = page.tags.get(325 if page.is_tiled else 279)
    lengths = None if tag is None else np.atleast_1d(tag.value)
    dtype = np.dtype(np.float32 if page.bitspersample == 32 else np.uint16 if page.bitspersample == 16 else np.uint8)
    pixels = np.empty((height, width, samples), dtype)
    for number in range(count):
        plane, block_number = divmod(number, across * down)
        top, left = block_number // across * high, block_number % across * wide
        rows = high if page.is_tiled else min(high, height - top)
        start, length = page.dataoffsets[number], page.databytecounts[number]
        # Before the eighth byte stands the header: a place there was never filled in. tifffile guesses lengths of zero.
        there = start >= _HEADER and (lengths is None or number >= len(lengths) or lengths[number])
        coded = data[start : start + length] if there else b""
        block = _block(page, coded, rows, wide, samples // planes)
        if block is None:
            raise Unreadable(
                f"it cannot be decoded (strip or tile {number + 1} of {count} ends too early or is missing); copy it "
                "again from its source"
            )
        part = pixels[top : top + rows, left : left + wide]
        part[..., plane : plane + samples // planes] = block[: part.shape[0], : part.shape[1]]
    return pixels


def _block(page: Any, coded: bytes, rows: int, wide: int, samples: int) -> np.ndarray | None:
    """Decode one strip or tile to (rows, wide, samples), native byte order; None = it is too short."""
    bits, compression = page.bitspersample, _NAMES[int(page.compression)]
    if compression == "JPEG":
        return _jpeg(page, coded, rows, wide, samples)
    row_bytes = -(-wide * samples * bits // 8)
    if page.fillorder == 2:
        coded = coded.translate(_REVERSED)
    if compression.startswith("CCITT"):
        plain = _libtiff(page, coded, rows, wide, bits=1)
    elif compression in ("LZW", "PackBits"):
        plain = _libtiff(page, coded, rows, row_bytes, bits=8)
    elif compression == "Deflate":
        decoder = zlib.decompressobj()
        plain = decoder.decompress(coded, rows * row_bytes + 1)  # one more, so that the checksum is read as well
        if len(plain) <= rows * row_bytes and not decoder.eof:
            return None
    else:
        plain = coded
    if len(plain) < rows * row_bytes:
        return None
    stored = np.frombuffer(plain, np.uint8, rows * row_bytes).reshape(rows, row_bytes)
    if bits == 1:
        return np.unpackbits(stored, axis=1, count=wide)[..., None]
    if int(page.predictor) == 3:  # differences of bytes; all first bytes of a row, then all second bytes, ...
        sums = np.cumsum(stored.reshape(rows, -1, samples), axis=1, dtype=np.uint8).reshape(rows, 4, wide * samples)
        values = np.ascontiguousarray(sums.swapaxes(1, 2)).view(">f4")
        return values.reshape(rows, wide, samples)
    integers = np.dtype(f"{page.parent.byteorder}u{bits // 8}")
    block = stored.view(integers).reshape(rows, wide, samples).astype(integers.newbyteorder("="), copy=False)
    if int(page.predictor) == 2:  # differences of neighbours, modulo 2**bits
        block = np.cumsum(block, axis=1, dtype=block.dtype)
    return block.view(np.float32) if bits == 32 else block


def _libtiff(page: Any, coded: bytes, rows: int, wide: int, bits: int) -> bytes:
    """Decompress by the libtiff in Pillow: as a grey TIFF of one strip, it has nothing to convert."""
    if not coded:
        return b""
    options = page.tags.get(292)  # CCITT G3: one- or two-dimensional
    facts = [(256, wide), (257, rows), (258, bits), (259, int(page.compression)), (262, _GREY), (273, 8), (277, 1)]
    facts += [(278, rows), (279, len(coded)), (292, int(options.value) if options is not None and bits == 1 else 0)]
    facts = facts if bits == 1 else facts[:-1]
    padded = coded + bytes(len(coded) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in facts)
    head = b"II*\0" + struct.pack("<I", 8 + len(padded))
    stream = io.BytesIO(head + padded + struct.pack("<H", len(facts)) + entries + bytes(4))
    with _OneStrip(stream) as picture:
        picture.load()
        values = np.asarray(picture)
    return np.packbits(values, axis=1).tobytes() if bits == 1 else values.tobytes()


def _jpeg(page: Any, coded: bytes, rows: int, wide: int, samples: int) -> np.ndarray | None:
    """Decode a strip or tile as a JPEG of its own: with the file's tables, and with the colours that the tags say."""
    if len(coded) < 4:
        return None
    # "Adobe", version 100, flags, transform: 0 = RGB, 1 = YCbCr. Other application marks would speak against the tags.
    colours = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([int(page.photometric) == _YCBCR])
    parts = [colours if samples == 3 else b""]
    for stream in (io.BytesIO(page.jpegtables or b""), io.BytesIO(coded)):
        for mark, part in jpeg_parts(stream):
            if (storage := jpeg_storage(mark, part)) is not None:
                require_readable(storage)
            if not 0xE0 <= mark <= 0xEF:
                parts.append(part + stream.read() if mark == SCAN else part)
    whole = b"\xff\xd8" + b"".join(parts)
    with JpegImagePlugin.JpegImageFile(io.BytesIO(whole)) as picture:
        picture.load()
        block = np.asarray(picture)
    block = block.reshape(*block.shape[:2], -1)
    return block[:rows] if block.shape[0] >= rows and block.shape[1:] == (wide, samples) else None
