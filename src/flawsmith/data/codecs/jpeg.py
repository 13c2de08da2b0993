"""JPEG streams, part by part (ITU-T T.81, annex B): which process coded them, and with how many bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from flawsmith.data.codecs.table import Storage

SCAN = 0xDA
_PROCESSES = {
    0xC0: "baseline DCT",
    0xC1: "extended DCT",
    0xC2: "progressive DCT",
    0xC3: "lossless JPEG",
    0xC5: "hierarchical DCT",
    0xC6: "hierarchical progressive DCT",
    0xC7: "hierarchical lossless JPEG",
    0xC9: "arithmetic DCT",
    0xCA: "arithmetic progressive DCT",
    0xCB: "arithmetic lossless JPEG",
    0xF7: "JPEG-LS",
}


def jpeg_parts(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, bytes from the marker on) of every part before the pixels.

    The last one is (SCAN, its two marker bytes); the stream then stands right behind them.
    """
    stream.seek(2)
    while byte := stream.read(1):
        if byte != b"\xff":
            continue  # decoders step over rubbish between parts, too
        while (mark := stream.read(1)) == b"\xff":
            pass
        if mark == bytes([SCAN]):
            yield SCAN, b"\xff\xda"
            return
        if not mark or mark == b"\xd9":
            return
        if mark[0] < 0xC0 or 0xD0 <= mark[0] <= 0xD8:
            continue
        size = stream.read(2)
        if len(size) < 2:
            return
        yield mark[0], b"\xff" + mark + size + stream.read(max(0, struct.unpack(">H", size)[0] - 2))


def jpeg_storage(mark: int, part: bytes) -> Storage | None:
    """Return how a stream is stored if this part is its frame header, else None."""
    return Storage("JPEG", _PROCESSES[mark], part[4]) if mark in _PROCESSES and len(part) > 4 else None
