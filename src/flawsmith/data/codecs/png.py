"""PNG: what of a file makes pixels, proven to be whole, and pictures of 16 bits, which Pillow does not read."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from flawsmith.data.codecs.table import Unreadable
from flawsmith.data.codecs.whole import require_whole_png

_IDAT = 1 << 20
"""Bytes of coded pixels that are handed to a decoder in one piece, at least; OpenCV takes at most eight million."""
_WHOLE: set[bytes] = set()
"""Hashes of files that this process has proven to be whole: large ones are read many times, and unpacking all pixels to
count them takes as long as decoding them."""
_MOST_WHOLE = 10_000
STRIP = 128
"""Rows of a picture that are converted at once."""


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield name and body of every part up to the last, checksums proven."""
    offset, view = 8, memoryview(data)
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        end = offset + 12 + length
        if end > len(data):
            break
        name = data[offset + 4 : offset + 8]
        if struct.unpack_from(">I", data, end - 4)[0] != zlib.crc32(view[offset + 4 : end - 4]):
            raise Unreadable(f"its {name!r} part is damaged (checksum); copy it again from its source")
        yield name, view[offset + 8 : end - 4]
        if name == b"IEND":
            return
        offset = end
    raise Unreadable("the PNG file ends too early; copy it again from its source")


def essential_png(data: bytes) -> bytes:
    """Keep what makes pixels, proven to be whole: profiles, texts and animation only make the decoders talk.

    Coded pixels, which some writers cut in pieces of 8 kB, come in large ones, or half the time goes into their heads.
    """
    parts: list[bytes | memoryview] = [data[:8]]
    coded: list[memoryview] = []

    def put(name: bytes, bodies: list[memoryview]) -> None:
        checksum = zlib.crc32(name)
        for body in bodies:
            checksum = zlib.crc32(body, checksum)
        parts.extend([struct.pack(">I", sum(map(len, bodies))), name, *bodies, struct.pack(">I", checksum)])

    chunks = list(_png_chunks(data))
    mark = hashlib.blake2b(data, digest_size=16).digest()
    if mark not in _WHOLE:
        require_whole_png(chunks)
        if len(_WHOLE) >= _MOST_WHOLE:
            _WHOLE.clear()
        _WHOLE.add(mark)
    for name, body in chunks:
        coded += [body] if name == b"IDAT" else []
        if coded and (name in (b"PLTE", b"IEND") or sum(map(len, coded)) >= _IDAT):
            put(b"IDAT", coded)
            coded = []
        if name in (b"IHDR", b"PLTE", b"IEND"):
            put(name, [body])
    return b"".join(parts)


def decode_deep_png(data: bytes) -> np.ndarray:
    """Return (H,W) or (H,W,C) of a PNG with 16 bits, RGB order, alpha last."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if bgr is None:
        raise Unreadable("its pixels cannot be decoded; copy it again from its source")
    if bgr.ndim == 3:
        swap = cv2.COLOR_BGR2RGB if bgr.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        for top in range(0, len(bgr), STRIP):
            bgr[top : top + STRIP] = cv2.cvtColor(bgr[top : top + STRIP], swap)
    return np.asarray(bgr)
