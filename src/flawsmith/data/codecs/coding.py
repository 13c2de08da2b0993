"""Bytes <-> pixels: which library decodes what, and how each is kept from guessing.

No one library reads everything right, so each format goes to the one that does:

    PNG up to 8 bits, JPEG, BMP, WebP   Pillow      (it cuts 16-bit RGB down to 8 bits without a word)
    PNG with 16 bits                    OpenCV      (the only one that reads 16-bit RGB)
    TIFF                                `tiff.py`   (strip by strip: whole-file decoders convert on the way)

The header is read first, by us: what `table.READABLE` does not hold is refused by its name, and a picture that claims
a million rows is refused before anything is allocated.
"""

from __future__ import annotations

import io
import re
import struct
from typing import Any, BinaryIO

import cv2
import numpy as np
import tifffile
from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from flawsmith.data.codecs.jpeg import jpeg_parts, jpeg_storage
from flawsmith.data.codecs.metadata import Metadata, tiff_options, with_metadata
from flawsmith.data.codecs.png import STRIP, decode_deep_png, essential_png
from flawsmith.data.codecs.table import MAX_PIXELS, Header, Storage, Unreadable, require_readable
from flawsmith.data.codecs.tiff import decode_tiff, tiff_header
from flawsmith.data.codecs.whole import jpeg_fault, require_whole_jpeg

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp")
"""What `read` accepts, in lower case; upper case is the same."""
PILLOW: dict[str, Any] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
_FILTER, _AVERAGE, _BUFFER = 19, 64, 20
"""PNG_FILTER, its value AVG, and PNG_ZLIBBUFFER_SIZE: named since OpenCV 4.12, passed over by earlier ones."""
_GRAINY = [_FILTER, _AVERAGE, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY, _BUFFER, 1 << 18]
"""How photographs become PNG: grain holds neither repeats nor runs, and the mean of two neighbours foretells it better
than one. That is quicker than OpenCV's own choice (the left neighbour, run lengths) and makes smaller files; what has
wide flat areas, such as a mask, is left to that choice."""
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_NOT_READ = {
    b"GIF8": "GIF",
    b"P5": "PGM",
    b"P6": "PPM",
    b"P4": "PBM",
    b"Pf": "PFM",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"8BPS": "PSD",
}
"""How pictures begin that `read` refuses."""


def header(stream: BinaryIO) -> tuple[Header, int]:
    """Return what the header says and the EXIF orientation (1-8), reading as little as the format allows.

    Raises:
        Unreadable: it is none of our formats, claims an absurd size, or `table.READABLE` does not hold it.
    """
    stream.seek(0)
    head = stream.read(64)
    codec = _codec(head)
    stream.seek(0)
    if codec == "PNG":
        width, height, depth, mode, orientation, pages = _png_header(stream)
    elif codec == "TIFF":
        width, height, depth, mode, orientation, pages = tiff_header(stream)
    else:
        if codec == "JPEG":
            _require_jpeg(stream)
            stream.seek(0)
        # The class, not Image.open: that one warns about large pictures through a setting that all threads share.
        with PILLOW[codec](stream) as picture:
            if picture.mode == "CMYK":
                raise Unreadable("its colours are CMYK; save it as RGB or grey")
            width, height = picture.size
            depth, mode = 8, "grey" if picture.mode in ("1", "L", "LA") else "RGB"
            orientation = _orientation(picture.info.get("exif", b""))
            pages = getattr(picture, "n_frames", 1)
            alpha = "straight" if picture.mode == "RGBA" else "none"
            if codec == "BMP":
                require_readable(_bmp_storage(head, alpha))
            elif codec == "WebP":
                require_readable(_webp_storage(head, stream, alpha))
    if width < 1 or height < 1:
        raise Unreadable(f"its header claims {width} x {height} pixels; a picture has at least one")
    if width * height > MAX_PIXELS:
        raise Unreadable(
            f"its header claims {width} x {height} pixels, more than the {MAX_PIXELS} that are read at once; "
            "cut it in tiles, or, if it is not that large, copy it again from its source"
        )
    if orientation >= 5:
        width, height = height, width
    return Header(width, height, depth, mode, codec, pages), orientation


def decode(data: bytes) -> np.ndarray:
    """Return (H,W) or (H,W,3) RGB, uint8, uint16 or float32, upright, alpha left out, C-contiguous and writable.

    Raises:
        Unreadable: with the reason; other exceptions come from the libraries when the bytes are damaged.
    """
    facts, orientation = header(io.BytesIO(data))
    if facts.codec == "TIFF":
        pixels = decode_tiff(data)
    elif facts.depth == 16:
        data = essential_png(data)
        pixels = decode_deep_png(data)
    else:
        if facts.codec == "PNG":
            data = essential_png(data)
        pixels = _decode_pillow(data, facts.codec)
    del data
    channels = 1 if facts.mode == "grey" else 3
    if pixels.ndim == 3 and channels == 1:
        pixels = pixels[..., 0]
    elif pixels.ndim == 3:
        pixels = pixels[..., :3]
    pixels = upright(pixels, orientation)
    dtype = {8: np.uint8, 16: np.uint16, 32: np.float32}[facts.depth]
    if pixels.dtype != dtype or pixels.shape != facts.shape + ((3,) if channels == 3 else ()):
        raise Unreadable(f"its pixels ({pixels.shape}, {pixels.dtype}) are not what its header says ({facts})")
    return np.require(pixels, requirements=["C", "W"])


def fault(data: bytes) -> str:
    """Return why a picture that is read may show less than its file once held, as the end of a sentence; "" = no sign.

    Only JPEG has such faults; in other formats what is torn is refused.
    """
    return jpeg_fault(data) if _codec(data[:64]) == "JPEG" else ""


def encode(pixels: np.ndarray, suffix: str, metadata: Metadata | None = None) -> bytes | memoryview:
    """Return the bytes of a PNG, TIFF or BMP file; the caller has checked that the format can hold the pixels."""
    metadata = metadata or Metadata()
    if suffix in (".tif", ".tiff"):
        stream = io.BytesIO()
        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        plain: dict[str, Any] = {"photometric": photometric, "compression": "zlib", "metadata": None, "software": False}
        tifffile.imwrite(stream, pixels, **plain, **tiff_options(metadata))
        return stream.getbuffer()
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else np.ascontiguousarray(pixels)
    done, coded = cv2.imencode(suffix, bgr, _GRAINY if suffix == ".png" and _is_grainy(pixels) else [])
    if not done:
        raise Unreadable(f"OpenCV could not encode {pixels.shape} {pixels.dtype} as {suffix}")
    return with_metadata(coded.data, metadata) if suffix == ".png" else coded.data


def _is_grainy(pixels: np.ndarray) -> bool:
    """Return whether most pixels differ from their left neighbours, by some rows of the picture."""
    rows = pixels[:: max(len(pixels) // 64, 1)]
    return bool(2 * np.count_nonzero(rows[:, 1:] != rows[:, :-1]) > rows.size)


_STORED_LINK = re.compile(rb"(\.\.?/|/annex/objects/)[!-~]+\n?$|(\.\./)+[!-~]{8,}")
"""What git writes in place of a link where there are none, or git-annex in place of a file: a path and nothing else."""


def format_of(head: bytes) -> str:
    """Return the format of a picture by the first 64 bytes of its file, also of those not read; "" = no picture."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:12] in (b"ftypheic", b"ftypmif1", b"ftypavif"):
        return "HEIC or AVIF"
    for magic, name in {**_MAGIC, **_NOT_READ}.items():
        # Two letters are not enough: text begins with them as well.
        if head.startswith(magic) and (len(magic) > 2 or _is_binary(head)):
            return name
    return ""


def _is_binary(head: bytes) -> bool:
    return head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" or head[:1] == b"P" and head[2:3] in b"\n\r\t "


def _codec(head: bytes) -> str:
    for magic, codec in _MAGIC.items():
        if head.startswith(magic):
            return codec
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if not head:
        raise Unreadable("the file is empty (0 bytes); copy it again from its source")
    if head.startswith(b"version https://git-lfs"):
        raise Unreadable("it is only a Git LFS pointer; fetch the picture with `git lfs pull`")
    if _STORED_LINK.match(head):
        raise Unreadable("it is a link that was stored as text; copy the file that it names here")
    if name := format_of(head):
        raise Unreadable(f"it is a picture of the format {name}, which is not read; save it as PNG or TIFF")
    raise Unreadable(
        "the file does not begin like a PNG, JPEG, TIFF, BMP or WebP picture; save it in one of these formats"
    )


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored rows and columns to the way the camera's owner sees them (EXIF tag 274)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _orientation(exif: bytes) -> int:
    """Return tag 274 of an EXIF block, or 1. Read by hand, because Pillow warns aloud about damaged blocks."""
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 10:
        return 1
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return 1
    (count,) = struct.unpack_from(order + "H", block, start)
    for offset in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, field_type, _, value = struct.unpack_from(order + "HHIH", block, offset)
        if tag == 274 and field_type == 3:
            return value if 1 <= value <= 8 else 1
    return 1


def _require_jpeg(stream: BinaryIO) -> None:
    for mark, part in jpeg_parts(stream):
        if (storage := jpeg_storage(mark, part)) is not None:
            require_readable(storage)
            return


def _bmp_storage(head: bytes, alpha: str) -> Storage:
    bits, number = struct.unpack_from("<HI", head, 28)
    if struct.unpack_from("<I", head, 14)[0] == 12:  # the header of OS/2 knows no compression
        bits, number = struct.unpack_from("<H", head, 24)[0], 0
    names = {0: "none", 1: "RLE", 2: "RLE", 3: "bit fields", 4: "JPEG", 5: "PNG"}
    return Storage("BMP", names.get(number, f"number {number}"), bits, alpha=alpha)


def _webp_storage(head: bytes, stream: BinaryIO, alpha: str) -> Storage:
    """Walk over the parts of the RIFF file, and into the first frame of an animation, to the first coded pixels."""
    offset, name = 12, head[12:16]
    while name not in (b"VP8 ", b"VP8L"):
        stream.seek(offset)
        name, length = struct.unpack("<4sI", stream.read(8))
        offset += 24 if name == b"ANMF" else 8 + length + length % 2
    return Storage("WebP", {b"VP8 ": "VP8 (lossy)", b"VP8L": "VP8L (lossless)"}[name], 8, alpha=alpha)


def _png_header(stream: BinaryIO) -> tuple[int, int, int, str, int, int]:
    """Return width, height, depth, mode, EXIF orientation and number of pictures (APNG)."""
    head = stream.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise Unreadable("the PNG header is cut short or damaged; copy it again from its source")
    width, height, bits, colour, method = struct.unpack_from(">IIBBB", head, 16)
    compression = "Deflate" if method == 0 else f"number {method}"
    require_readable(Storage("PNG", compression, bits, alpha="straight" if colour in (4, 6) else "none"))
    orientation, pages = 1, 1
    while True:  # eXIf may stand before or after the pixels, so step over every chunk without reading it
        chunk = stream.read(8)
        if len(chunk) < 8 or chunk[4:] == b"IEND":
            break
        (length,) = struct.unpack(">I", chunk[:4])
        body = stream.read(length) if chunk[4:] in (b"eXIf", b"acTL") else b""
        if chunk[4:] == b"eXIf":
            orientation = _orientation(body)
        elif len(body) == 8:
            pages = max(1, struct.unpack_from(">I", body)[0])
        stream.seek(length - len(body) + 4, io.SEEK_CUR)
    return width, height, 16 if bits == 16 else 8, "grey" if colour in (0, 4) else "RGB", orientation, pages


def _decode_pillow(data: bytes, codec: str) -> np.ndarray:
    if codec == "JPEG":
        require_whole_jpeg(data)
    with PILLOW[codec](io.BytesIO(data)) as picture:
        picture.load()
        if picture.mode == "P" and picture.getextrema()[1] >= len(picture.getpalette("RGB")) // 3:
            raise Unreadable("its pixels name colours that its palette lacks; copy it again from its source")
        return pixels_of(picture, "L" if picture.mode in ("1", "L", "LA") else "RGB")


def pixels_of(picture: Any, mode: str) -> np.ndarray:
    """Return the pixels of a Pillow picture in a mode of 8 bits per sample: uint8 (H,W) or (H,W,C).

    Some rows at a time: of a whole picture Pillow would make three copies on the way.
    """
    width, height = picture.size
    samples = len(mode.removeprefix("P")) or 1
    pixels = np.empty((height, width, samples)[: 2 if samples == 1 else 3], np.uint8)
    for top in range(0, height, STRIP):
        strip = picture.crop((0, top, width, min(top + STRIP, height)))
        pixels[top : top + STRIP] = np.asarray(strip if strip.mode == mode else strip.convert(mode))
    return pixels
