"""Pictures as files, as native arrays and as what a network sees.

The only door to picture files: nobody else knows colour order, bit depth, codecs or EXIF. A native picture is a numpy
array as the camera gave it, (H,W) grey or (H,W,3) RGB, uint8, uint16 or float32; a network sees float32 (H,W,3) in
[-1,1]. `apply_delta`, the way back, never touches a pixel outside its mask.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import cv2
import numpy as np

from flawsmith.data.codecs.coding import SUFFIXES, decode, encode, header
from flawsmith.data.codecs.metadata import Metadata
from flawsmith.data.codecs.table import MAX_PIXELS, Header, Unreadable
from flawsmith.errors import DataError
from flawsmith.files import write_bytes
from flawsmith.paths import NoFileError, open_file
from flawsmith.types import Range

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Header",
    "Range",
    "apply_delta",
    "describe",
    "differs",
    "extremes",
    "filled",
    "is_grey",
    "levels",
    "lossless_suffix",
    "missing",
    "orientation",
    "other_size",
    "range_of",
    "read",
    "read_bytes",
    "read_mask",
    "to_bytes",
    "to_model",
    "with_reasons",
    "write",
    "write_mask",
]

T = TypeVar("T")
STRIP = 128
"""Rows of a picture that are converted at once where the result is smaller than its input."""
_MANY = 1024
"""Values from which a table is worth its making."""


def read(path: Path) -> np.ndarray:
    """Read a picture as the file holds it.

    Args:
        path: A .png, .jpg, .tif, .bmp or .webp file; what counts is its content, so a JPEG named .png is read too.

    Returns:
        (H,W) or (H,W,3) in RGB order; uint8, uint16 or float32; upright (the EXIF orientation of JPEG, PNG, TIFF and
        WebP is applied). A palette becomes RGB, one bit becomes 0/255. Alpha is left out and the colours below it are
        returned as stored. Of a file with many pictures, the first; `describe` counts them.

    Raises:
        DataError: missing, empty, cut short, damaged, not a picture, absurdly large, or stored in a way that
            `codecs.table.READABLE` does not hold.
    """
    return with_reasons(path, lambda stream: decode(stream.read()))


def read_bytes(content: bytes, name: str, most: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture from the bytes of its file, as `read` does.

    Args:
        content: All bytes of the file; its format is told from them.
        name: What the picture is called in an error.
        most: Pixels that it may have.

    Raises:
        DataError: as `read`; a picture that is too large is not decoded.
    """

    def work() -> np.ndarray:
        height, width = header(io.BytesIO(content))[0].shape
        if width * height > most:
            raise Unreadable(f"it has {width} x {height} pixels, more than the {most} that are taken here")
        return decode(content)

    return _explained(name, work)


def describe(path: Path) -> Header:
    """Read only the header: size, depth, mode and codec of what `read` would return, and the number of pictures.

    Raises DataError as `read`, as far as a header can tell; damaged pixels are found by `read` alone.
    """
    return with_reasons(path, lambda stream: header(stream)[0])


def orientation(path: Path) -> int:
    """Return the EXIF orientation (1-8) by which `read` turns a picture; 1 = it says none. Raises as `describe`."""
    return with_reasons(path, lambda stream: header(stream)[1])


def read_mask(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read a mask that `write_mask` wrote: bool (H,W), True = damaged. Those of users are read by `data.masks.reading`.

    Args:
        path: The mask file: 0 and 255, one channel.
        shape: Shape of its picture; only rows and columns are compared.

    Raises:
        DataError: unreadable, of another size than its picture, or with other values.
    """
    values = read(path)
    if values.shape[:2] != tuple(shape[:2]):
        raise DataError(f"{path}: {other_size(values.shape, shape)}")
    mask = values == 255
    if values.ndim != 2 or values.dtype != np.uint8 or not (mask | (values == 0)).all():
        raise DataError(f"{path}: is no mask of flawsmith's own, which holds 0 and 255 in one channel of 8 bits")
    return np.asarray(mask)


def other_size(mask: tuple[int, ...], photograph: tuple[int, ...]) -> str:
    """Return the end of a sentence about a mask whose rows and columns are not those of its photograph."""
    sizes = f"{mask[1]} x {mask[0]} pixels, but its photograph {photograph[1]} x {photograph[0]}"
    text = f"the mask has {sizes}; they must be the same"
    if tuple(mask[:2]) == tuple(photograph[1::-1]):
        text += " (one of them lies on its side: is an EXIF orientation missing?)"
    return text


def range_of(pixels: np.ndarray, span: Range | None = None) -> Range:
    """Return the values that stand for black and white in a picture.

    Args:
        pixels: Native.
        span: Its product's range (`Example.span`), which holds where the picture has that depth. Where there is none:
            the whole type of uint8 and uint16; of float32 0..1 when the picture lies within, else its own least and
            largest finite value, so take it of the whole photograph and hand it on when a window alone is converted.
    """
    if span is not None and span.depth in (0, pixels.dtype.itemsize * 8):
        return span
    if pixels.dtype.kind == "u":
        return Range(0.0, float(np.iinfo(pixels.dtype).max))
    finite = pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if 0.0 <= low and high <= 1.0:
        return Range(0.0, 1.0)
    return Range(low, high) if low < high else Range(low - 0.5, high + 0.5)


def missing(pixels: np.ndarray, span: Range) -> np.ndarray | None:
    """Return which pixels of a native picture were not measured, bool (H,W); None = all were.

    Those are NaN and infinite ones (in any channel), and the product's sentinels (in all channels).
    """
    if pixels.dtype == np.uint8 or pixels.dtype.kind == "u" and not span.sentinels:
        return None
    none = np.asarray(~np.isfinite(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, bool))
    none = np.asarray(none if none.ndim == 2 else none.any(axis=2))
    for value in span.sentinels:
        same = np.asarray(pixels == pixels.dtype.type(value))
        none |= same if same.ndim == 2 else same.all(axis=2)
    return none if none.any() else None


def filled(pixels: np.ndarray, span: Range) -> np.ndarray:
    """Return a native picture with the product's median where nothing was measured; itself where all was."""
    gone = missing(pixels, span)
    if gone is None:
        return pixels
    whole = pixels.copy()
    whole[gone] = (span.low + span.high) / 2 if span.fill is None else span.fill
    return whole


def extremes(pixels: np.ndarray, span: Range) -> np.ndarray:
    """Return the least and the largest value of a native picture, `filled`: (1,2) of its type."""
    ends = [
        (strip.min(), strip.max())
        for strip in (filled(pixels[row : row + STRIP], span) for row in range(0, len(pixels), STRIP))
    ]
    return np.array([[min(low for low, _ in ends), max(high for _, high in ends)]], pixels.dtype)


def to_model(pixels: np.ndarray, span: Range | None = None) -> np.ndarray:
    """Return float32 (H,W,3) RGB in [-1,1]; grey is repeated in three channels, and what was not measured is `filled`.

    Args:
        pixels: A native picture, or a window of one.
        span: What becomes -1 and +1; None = `range_of(pixels)`. A camera with 12 bits in 16 wants Range(0, 4095).
    """
    scaled = levels(pixels, span or range_of(pixels))
    return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)


def levels(pixels: np.ndarray, span: Range) -> np.ndarray:
    """Return what `to_model` does, float32 in [-1,1], in the shape of the picture: (H,W) stays (H,W)."""
    if pixels.dtype == np.uint8 and pixels.size > _MANY:
        # Each of the 256 values once: a picture of 8 bits is then looked up in one pass instead of five.
        return np.asarray(cv2.LUT(pixels, levels(np.arange(256, dtype=np.uint8), span)))
    # Sensor counts may be large and close together, so float pictures take their difference in float64.
    exact: type[np.floating] = np.float32 if pixels.dtype.kind == "u" else np.float64
    values = filled(pixels, span).astype(exact)
    values -= span.low  # in place: each copy of a line-scan picture is a hundred megabytes
    values /= span.half
    values -= 1
    scaled = values.astype(np.float32, copy=False)
    return np.clip(scaled, -1.0, 1.0, out=scaled)


def to_bytes(pixels: np.ndarray, span: Range | None = None) -> np.ndarray:
    """Return the 8-bit view of a native picture, uint8 of its shape: 8 bits as they are, deeper ones in their range."""
    if pixels.dtype == np.uint8:
        return pixels
    span = range_of(pixels, span)
    level = (filled(pixels, span).astype(np.float64) - span.low) / (span.high - span.low)
    return np.asarray(np.rint(np.clip(level, 0.0, 1.0) * 255), np.uint8)


def differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return where two native pictures of one shape and depth differ in any bit, bool (H,W); NaN equals itself."""
    bits = {4: np.uint32, 2: np.uint16, 1: np.uint8}[one.dtype.itemsize]
    different = one.view(bits) != other.view(bits)
    return different if different.ndim == 2 else different.any(axis=2)


def is_grey(native: np.ndarray) -> bool:
    """Return whether a picture (H,W,3) has three equal channels throughout; (H,W) has one and needs no care: False."""
    # Few pictures of colour are grey in their first rows.
    return native.ndim == 3 and not any(
        differs(part[:, :, 0], part[:, :, channel]).any() for part in (native[:8], native[8:]) for channel in (1, 2)
    )


def apply_delta(native: np.ndarray, delta: np.ndarray, inside: np.ndarray, span: Range | None = None) -> np.ndarray:
    """Return a copy of `native` with `delta` added inside the mask; every byte outside is the same.

    Args:
        native: (H,W) or (H,W,3), uint8, uint16 or float32.
        delta: float32 (H,W,3) in model units (2.0 = the full range); a grey picture takes the mean of the channels.
        inside: bool (H,W); only these pixels are read, changed and rounded.
        span: As in `to_model`; None = `range_of(native)`.

    A change of zero changes nothing, whatever the value; results are clipped to the range, and are multiples of its
    step. What was not measured stays as it is, inside the mask as well.
    """
    if delta.shape != (*native.shape[:2], 3) or inside.shape != native.shape[:2] or inside.dtype != np.bool_:
        raise ValueError(f"native {native.shape}, delta {delta.shape}, inside {inside.shape} {inside.dtype} do not fit")
    span = span or range_of(native)
    if (gone := missing(native, span)) is not None:
        inside = inside & ~gone
    changed = native.copy()
    before = native[inside].astype(np.float64)
    change = delta[inside].astype(np.float64)
    if native.ndim == 2:
        change = change.mean(axis=1)
    change, low, high = change * span.half, span.low, span.high
    if span.step > 1:
        change = np.rint(change / span.step) * span.step
        low, high = -(-low // span.step) * span.step, high // span.step * span.step
    after = np.clip(before + change, np.minimum(before, low), np.maximum(before, high))
    changed[inside] = np.rint(after) if native.dtype.kind == "u" else after
    return changed


def lossless_suffix(pixels: np.ndarray) -> str:
    """Return `.png` for 8 and 16 bits, `.tif` for float32."""
    return ".tif" if pixels.dtype == np.float32 else ".png"


def write(path: Path, pixels: np.ndarray, metadata: Metadata | None = None) -> None:
    """Write a native picture without loss; the file appears whole or not at all.

    Args:
        path: .png (uint8, uint16), .tif or .tiff (all three), .bmp (uint8); its folder is made when missing.
        pixels: (H,W) or (H,W,3) RGB, uint8, uint16 or float32.
        metadata: What a .png or .tif says beside the pixels.

    Raises:
        DataError: a format that would lose something, or an array that is no picture.
        RunError: a full disk, or a place that cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if pixels.ndim not in (2, 3) or pixels.ndim == 3 and pixels.shape[2] != 3 or pixels.size == 0:
        raise DataError(f"{path}: {pixels.shape} is not the shape of a picture; (H,W) or (H,W,3) is")
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise DataError(f"{path}: {pixels.dtype} pixels are not written; uint8, uint16 and float32 are")
    if suffix in (".jpg", ".jpeg", ".webp"):
        raise DataError(f"{path}: {suffix} loses detail; write {lossless_suffix(pixels)} instead")
    if suffix not in (".png", ".tif", ".tiff", ".bmp"):
        raise DataError(f"{path}: pictures are written as .png, .tif or .bmp, not {suffix or 'without a suffix'}")
    if pixels.dtype == np.float32 and suffix in (".png", ".bmp") or pixels.dtype == np.uint16 and suffix == ".bmp":
        raise DataError(f"{path}: {suffix} cannot hold {pixels.dtype} pixels; write {lossless_suffix(pixels)} instead")
    try:
        data = encode(pixels, suffix, metadata)
    except Unreadable as error:
        raise DataError(f"{path}: {error}") from None
    write_bytes(path, data)


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a bool (H,W) mask as an 8-bit grey picture of 0 and 255; atomic, as `write`."""
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise DataError(f"{path}: a mask is bool (H,W), not {mask.dtype} {mask.shape}")
    write(path, mask.view(np.uint8) * np.uint8(255))


def with_reasons(path: Path, work: Callable[[BinaryIO], T]) -> T:
    """Open, do the work, and turn whatever goes wrong into one sentence that names the file."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: {path.suffix or 'no suffix'} is not a picture format; known: {', '.join(SUFFIXES)}")

    def opened() -> T:
        with open_file(path) as stream:
            return work(stream)

    return _explained(path, opened)


def _explained(name: Path | str, work: Callable[[], T]) -> T:
    """Do the work, and turn whatever goes wrong into one sentence that begins with a name."""
    try:
        return work()
    except Unreadable as error:
        raise DataError(f"{name}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file; check the path and its case") from None
    except IsADirectoryError:
        raise DataError(f"{name}: this is a folder, not a picture") from None
    except NoFileError as error:
        raise DataError(f"{name}: {error.strerror}; put the picture itself there") from None
    except PermissionError:
        raise DataError(f"{name}: may not be read; give this user the right to read it") from None
    except MemoryError:
        raise DataError(f"{name}: there is not enough memory to decode it; cut it in tiles") from None
    except Exception as error:
        # Decoders raise nearly anything on damaged bytes: SyntaxError, struct.error, IndexError, TiffFileError, ...
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"{name}: cannot be decoded ({reason}); copy it again from its source") from None
