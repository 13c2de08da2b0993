"""Is a file whole? What decoders let pass in silence: streams that end early, colours that are missing, torn segments.

Pillow takes a PNG whose compressed stream ends before the last row, and leaves the rest black; so is what a missing
palette would colour. libjpeg makes up what is missing and only murmurs about it. So the bytes are looked at here first.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator

from flawsmith.data.codecs.jpeg import SCAN
from flawsmith.data.codecs.table import Unreadable

_PIECE = 1 << 18
"""Bytes of pixels that are unpacked at once, only to be counted."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""PNG colour type -> samples per pixel."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: first column, first row, step of columns, step of rows."""
_END = 0xD9
_MARK = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
"""A marker among the pixels of a JPEG; FF 00 is a sample."""
_AGAIN = "copy it again from its source"


def require_whole_png(chunks: Iterable[tuple[bytes, memoryview]]) -> None:
    """Do nothing for a PNG whose pixels and palette are all there.

    Args:
        chunks: (name, body) of its chunks, their checksums proven.

    Raises:
        Unreadable: the compressed pixels end early or are damaged, or the palette is missing.
    """
    width = height = bits = colour = interlaced = entries = expected = count = 0
    stream = zlib.decompressobj()
    for name, body in chunks:
        if name == b"IHDR":
            width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            if colour not in _SAMPLES:
                raise Unreadable(f"its colour type {colour} is none that a PNG has; {_AGAIN}")
            expected = sum(_bytes_of(*size, bits * _SAMPLES[colour]) for size in _sizes(width, height, interlaced))
        elif name == b"PLTE":
            entries = len(body) // 3
            if len(body) % 3 or not 0 < entries <= 256:
                raise Unreadable(f"its palette has {len(body)} bytes, which are no colours; {_AGAIN}")
        elif name == b"IDAT":
            if colour == 3 and not entries:
                raise Unreadable(f"its pixels name colours of a palette that is missing; {_AGAIN}")
            while len(body) and count <= expected and not stream.eof:
                try:
                    count += len(stream.decompress(body, _PIECE))
                except zlib.error as error:
                    raise Unreadable(f"its pixels are damaged ({error}); {_AGAIN}") from None
                body = memoryview(stream.unconsumed_tail)
    if count < expected or count == expected and not stream.eof:
        raise Unreadable(f"its pixels end too early ({count} of {expected} bytes are there); {_AGAIN}")


def _sizes(width: int, height: int, interlaced: int) -> Iterator[tuple[int, int]]:
    """Yield columns and rows of each picture that a PNG is stored as: one, or the seven of Adam7."""
    if not interlaced:
        yield width, height
        return
    for left, top, across, down in _PASSES:
        yield -(-(width - left) // across), -(-(height - top) // down)


def _bytes_of(columns: int, rows: int, bits: int) -> int:
    """Return the bytes of so many rows, each with the byte that names its filter."""
    return rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0


def require_whole_jpeg(data: bytes) -> None:
    """Do nothing for a JPEG that has its end mark.

    Raises:
        Unreadable: it ends before, as when copying was broken off and the rest is empty.
    """
    if not any(mark == _END for mark, _ in _walk(data)):
        raise Unreadable(f"the JPEG file ends too early (its end mark is missing); {_AGAIN}")


def jpeg_fault(data: bytes) -> str:
    """Return what is torn in a JPEG that decoders read all the same, as the end of a sentence; "" = nothing is.

    Seen are segments: those that do not begin where the one before ends, those that are longer than the file, and
    intervals between restart marks that are missing. A wrong bit inside the pixels cannot be seen, for a JPEG has no
    checksum.
    """
    fault = ""
    for _, problem in _walk(data):
        fault = fault or problem
    return fault


def _walk(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield (marker, what is wrong before it) of every segment up to the end mark, restart marks left out."""
    place, restart = 2, 0
    problem, inside = "", False
    while True:
        found = _MARK.search(data, place)
        if found is None:
            return
        mark = found[1][0]
        if not inside and found.start() > place:
            problem = problem or f"{found.start() - place} bytes before its part {mark:02X} belong to none"
        place = found.end()
        if 0xD0 <= mark <= 0xD7:
            if inside and mark != 0xD0 + restart % 8:
                problem = problem or "pixels between two restart marks are missing"
            restart = mark - 0xD0 + 1
            continue
        yield mark, problem
        if mark == _END:
            return
        problem, restart, inside = "", 0, mark == SCAN
        if mark in (0x01, 0xD8):  # these have no length
            continue
        length = int.from_bytes(data[place : place + 2], "big")
        if length < 2 or place + length > len(data):
            problem = f"its part {mark:02X} says that it has {length} bytes, which cannot be"
            continue
        place += length
