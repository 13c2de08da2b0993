"""Every sort of photograph that flawsmith reads, for suite `exactness`: how it is written, and how others read it.

A sort is written by one library and read back by another than flawsmith's own reader takes for it: PNG of 8 bits, JPEG,
BMP and WebP by OpenCV (flawsmith: Pillow), 16 grey bits in PNG by Pillow (flawsmith: OpenCV), TIFF by tifffile alone
(flawsmith puts strips together itself), and 16-bit colours in PNG, which only OpenCV reads, by a few lines after the
specification.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image

Pixels = np.ndarray
Content = Callable[[Pixels, np.random.Generator], Pixels]
"""Turns a piece, uint8 (H,W,3) RGB, into what the sort stores."""


@dataclass(frozen=True, slots=True)
class Sort:
    """A way of storing a photograph."""

    suffix: str
    content: Content
    write: Callable[[Path, Pixels], None]


def read(path: Path) -> Pixels:
    """Return a picture (H,W) or (H,W,3) RGB of the file's type, upright, alpha left out, read without flawsmith."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages.first
            if page.compression == 5:  # LZW: tifffile alone does not undo it
                with Image.open(path) as picture:
                    return np.asarray(picture)
            pixels = page.asarray()
            return without_alpha(np.moveaxis(pixels, 0, 2) if page.planarconfig == 2 and pixels.ndim == 3 else pixels)
    head = path.read_bytes()[:32]
    if head.startswith(b"\x89PNG") and head[24] == 16:
        if head[25] == 0:
            with Image.open(path) as picture:
                return np.asarray(picture).astype(np.uint16)
        return without_alpha(deep_png(path.read_bytes()))
    if head.startswith(b"\x89PNG") and head[25] in (0, 4):  # OpenCV would give grey with alpha four channels
        return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    if path.suffix == ".jpg":
        with Image.open(path) as picture:
            grey = picture.mode == "L"
        way = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR  # these turn it as EXIF says
        pixels = cv2.imread(str(path), way)
        return np.asarray(pixels if grey else pixels[:, :, ::-1])
    if path.suffix == ".bmp" and struct.unpack_from("<H", head, 28)[0] == 8:
        return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:, :, 2::-1])


def without_alpha(pixels: Pixels) -> Pixels:
    """Return (H,W) or (H,W,3) of (H,W,1 to 4)."""
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    return pixels[:, :, :3] if pixels.shape[2] == 4 else pixels[:, :, 0]


def deep_png(content: bytes) -> Pixels:
    """Return uint16 (H,W,C) of a PNG with 16 bits that is not interlaced (PNG specification, sections 7 and 9)."""
    width, height, _, colour = struct.unpack_from(">IIBB", content, 16)
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    coded, offset = b"", 8
    while offset < len(content):
        length, name = struct.unpack_from(">I4s", content, offset)
        coded += content[offset + 8 : offset + 8 + length] if name == b"IDAT" else b""
        offset += length + 12
    step, row_bytes = 2 * samples, 2 * samples * width
    rows = np.frombuffer(zlib.decompress(coded), np.uint8).reshape(height, row_bytes + 1)
    above = np.zeros(row_bytes + step, int)
    unfiltered = np.empty((height, row_bytes), np.uint8)
    for number, row in enumerate(rows):
        line = np.zeros(row_bytes + step, int)
        for place in range(step, row_bytes + step, step):
            here, left = slice(place, place + step), slice(place - step, place)
            a, b, c = line[left], above[here], above[left]
            away = np.abs(np.stack([b - c, a - c, a + b - 2 * c]))
            paeth = np.where((away[0] <= away[1]) & (away[0] <= away[2]), a, np.where(away[1] <= away[2], b, c))
            guess = (0 * a, a, b, (a + b) // 2, paeth)[row[0]]
            line[here] = (row[1 + place - step : 1 + place] + guess) % 256
        unfiltered[number], above = line[step:], line
    return unfiltered.view(">u2").astype(np.uint16).reshape(height, width, samples)


def _grey(piece: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(cv2.cvtColor(piece, cv2.COLOR_RGB2GRAY))


def _colour(piece: Pixels, rng: np.random.Generator) -> Pixels:
    return piece


def _equal_channels(piece: Pixels, rng: np.random.Generator) -> Pixels:
    return np.repeat(_grey(piece, rng)[:, :, None], 3, axis=2)


def _two_levels(piece: Pixels, rng: np.random.Generator) -> Pixels:
    grey = _grey(piece, rng)
    return np.where(grey > np.median(grey), np.uint8(255), np.uint8(0))


def _deep(content: Content) -> Content:
    """16 bits: eight of the piece, and eight of noise."""

    def work(piece: Pixels, rng: np.random.Generator) -> Pixels:
        pixels = content(piece, rng)
        return (pixels.astype(np.uint16) << 8) + rng.integers(0, 256, pixels.shape, np.uint16)

    return work


def _twelve_bits(piece: Pixels, rng: np.random.Generator) -> Pixels:
    """Twelve bits at the upper end of 16, as many cameras store them."""
    return _deep(_grey)(piece, rng) & np.uint16(0xFFF0)


def _float(content: Content, low: float, high: float, holes: bool = False) -> Content:
    """float32 between two values, with noise; with `holes`, some pixels were not measured."""

    def work(piece: Pixels, rng: np.random.Generator) -> Pixels:
        pixels = content(piece, rng) / 255 + rng.normal(0, 0.002, content(piece, rng).shape)
        values = (low + (high - low) * np.clip(pixels, 0, 1)).astype(np.float32)
        if holes:
            values[rng.random(values.shape[:2]) < 0.002] = np.nan
        return values

    return work


def _with_alpha(content: Content) -> Content:
    """A last channel that is seldom opaque: photographs are read without it, colours as they are stored."""

    def work(piece: Pixels, rng: np.random.Generator) -> Pixels:
        pixels = content(piece, rng)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        alpha = rng.integers(1, int(np.iinfo(pixels.dtype).max) + 1, (*pixels.shape[:2], 1)).astype(pixels.dtype)
        return np.concatenate([pixels, alpha], axis=2)

    return work


def _pillow(mode: str = "", **options: Any) -> Callable[[Path, Pixels], None]:
    def write(path: Path, pixels: Pixels) -> None:
        picture = Image.fromarray(pixels)
        picture.convert(mode, palette=Image.Palette.ADAPTIVE).save(path, **options) if mode else picture.save(
            path, **options
        )

    return write


def _turned(path: Path, pixels: Pixels) -> None:
    """As a camera on its side stores it: EXIF orientation 6."""
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(path, quality=92, exif=exif)


def _opencv(path: Path, pixels: Pixels) -> None:
    order = [2, 1, 0, 3][: pixels.shape[2]] if pixels.ndim == 3 else slice(None)
    cv2.imwrite(str(path), np.ascontiguousarray(pixels[..., order] if pixels.ndim == 3 else pixels))


def _tifffile(**options: Any) -> Callable[[Path, Pixels], None]:
    def write(path: Path, pixels: Pixels) -> None:
        separate = options.get("planarconfig") == "separate"
        planes = np.moveaxis(pixels, 2, 0) if separate else pixels
        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        alpha = {"extrasamples": ["unassalpha"]} if pixels.ndim == 3 and pixels.shape[2] == 4 else {}
        tifffile.imwrite(path, np.ascontiguousarray(planes), photometric=photometric, **alpha, **options)

    return write


def _grey_alpha(path: Path, pixels: Pixels) -> None:
    Image.merge("LA", [Image.fromarray(np.ascontiguousarray(pixels[:, :, plane])) for plane in (0, 1)]).save(path)


def _one_bit(path: Path, pixels: Pixels) -> None:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert("1").save(stream, "PNG")
    path.write_bytes(stream.getvalue())


SORTS: dict[str, Sort] = {
    "png-grey-8": Sort(".png", _grey, _pillow()),
    "png-grey-8-alpha": Sort(".png", _with_alpha(_grey), _grey_alpha),
    "png-grey-1": Sort(".png", _two_levels, _one_bit),
    "png-grey-16": Sort(".png", _deep(_grey), _opencv),
    "png-grey-12-in-16": Sort(".png", _twelve_bits, _opencv),
    "png-rgb-8": Sort(".png", _colour, _pillow()),
    "png-rgb-8-alpha": Sort(".png", _with_alpha(_colour), _pillow()),
    "png-rgb-8-equal-channels": Sort(".png", _equal_channels, _pillow()),
    "png-palette": Sort(".png", _colour, _pillow("P")),
    "png-rgb-16": Sort(".png", _deep(_colour), _opencv),
    "png-rgb-16-alpha": Sort(".png", _with_alpha(_deep(_colour)), _opencv),
    "jpeg-grey": Sort(".jpg", _grey, _pillow(quality=92)),
    "jpeg-rgb": Sort(".jpg", _colour, _pillow(quality=85)),
    "jpeg-rgb-progressive": Sort(".jpg", _colour, _pillow(quality=95, progressive=True, subsampling=0)),
    "jpeg-rgb-turned": Sort(".jpg", _colour, _turned),
    "bmp-grey": Sort(".bmp", _grey, _pillow()),
    "bmp-rgb": Sort(".bmp", _colour, _pillow()),
    "webp-lossless": Sort(".webp", _colour, _pillow(lossless=True)),
    "webp-lossless-alpha": Sort(".webp", _with_alpha(_colour), _pillow(lossless=True, exact=True)),
    "webp-lossy": Sort(".webp", _colour, _pillow(quality=90)),
    "tiff-grey-8": Sort(".tif", _grey, _tifffile()),
    "tiff-grey-16-deflate": Sort(".tif", _deep(_grey), _tifffile(compression="zlib", predictor=True)),
    "tiff-grey-16-big-endian": Sort(".tif", _deep(_grey), _tifffile(byteorder=">")),
    "tiff-rgb-8-tiles": Sort(".tif", _colour, _tifffile(tile=(32, 32), compression="zlib")),
    "tiff-rgb-8-packbits": Sort(".tif", _colour, _pillow(compression="packbits")),
    "tiff-rgb-8-lzw": Sort(".tif", _colour, _pillow(compression="tiff_lzw")),
    "tiff-rgb-16-planes": Sort(".tif", _deep(_colour), _tifffile(planarconfig="separate", compression="zlib")),
    "tiff-rgb-8-alpha": Sort(".tif", _with_alpha(_colour), _tifffile()),
    "tiff-rgb-16-alpha": Sort(".tif", _with_alpha(_deep(_colour)), _tifffile(compression="zlib")),
    "tiff-grey-float": Sort(".tif", _float(_grey, -3.2, 7.1), _tifffile(compression="zlib")),
    "tiff-grey-float-unmeasured": Sort(".tif", _float(_grey, 0.0, 900.0, holes=True), _tifffile()),
    "tiff-rgb-float": Sort(".tif", _float(_colour, 0.0, 1.0), _tifffile()),
}
"""Name -> sort; the names say file format, colours, bits per sample and what else is there."""
