"""Encoders of our own for tests: what a decoder of a library reads must be what these wrote.

Slow, small and after the specifications alone (TIFF 6.0, ITU-T T.4 and T.6, PNG, BMP), so that nothing here shares a
mistake with the libraries that decode.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
NUMBERS = {
    "none": 1,
    "CCITT RLE": 2,
    "CCITT G3": 3,
    "CCITT G4": 4,
    "LZW": 5,
    "JPEG": 7,
    "Deflate": 8,
    "PackBits": 32773,
}
WHITE = ["00110101", "000111", "0111", "1000", "1011", "1100", "1110", "1111", "10011"]
BLACK = ["0000110111", "010", "11", "10", "011", "0011", "0010", "00011", "000101"]
"""Codes of runs of 0 to 8 pixels: pictures for CCITT have no longer ones."""
VERTICAL = {0: "1", 1: "011", 2: "000011", 3: "0000011", -1: "010", -2: "000010", -3: "0000010"}
END_OF_LINE = "000000000001"


def bits_to_bytes(bits: str) -> bytes:
    return bytes(int(bits[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(bits), 8))


def lzw(data: bytes) -> bytes:
    """TIFF's LZW: codes grow one entry early, 256 clears the table, 257 ends."""
    coded, table, prefix = f"{256:09b}", {bytes([value]): value for value in range(256)}, b""
    following, width = 258, 9
    for value in data:
        longer = prefix + bytes([value])
        if longer in table:
            prefix = longer
            continue
        coded += f"{table[prefix]:0{width}b}"
        table[longer] = following
        following += 1
        prefix = bytes([value])
        if following == 4095:
            coded += f"{256:0{width}b}"
            table, following, width = {bytes([number]): number for number in range(256)}, 258, 9
        elif following == 2**width:
            width += 1
    if prefix:
        coded += f"{table[prefix]:0{width}b}"
        width += following + 1 == 2**width < 4096
    return bits_to_bytes(coded + f"{257:0{width}b}")


def packbits(data: bytes) -> bytes:
    coded, place = b"", 0
    while place < len(data):
        run = 1
        while run < 128 and data[place : place + run + 1] == data[place : place + 1] * (run + 1):
            run += 1
        if run > 1:
            coded += bytes([257 - run, data[place]])
        else:
            run = min(3, len(data) - place)
            coded += bytes([run - 1]) + data[place : place + run]
        place += run
    return coded


def changes(row: np.ndarray) -> list[int]:
    """Where a row of 0 (white) and 1 (black) changes its colour, seen from an imaginary white pixel before it."""
    return [int(place) for place in np.flatnonzero(np.diff(np.concatenate([[0], row])))]


def runs(row: np.ndarray) -> str:
    ends = [0, *changes(row), len(row)]
    return "".join((WHITE, BLACK)[turn % 2][b - a] for turn, (a, b) in enumerate(zip(ends, ends[1:], strict=False)))


def two_dimensional(row: np.ndarray, above: np.ndarray) -> str:
    """A row as T.6 writes it, by its changes against the row above."""
    wide, start, colour, coded = len(row), -1, 0, ""

    def after(line: np.ndarray, place: int, to: int | None = None) -> int:
        return next((x for x in changes(line) if x > place and (to is None or line[x] == to)), wide)

    while start < wide:
        a1 = after(row, start, 1 - colour)
        b1 = after(above, start, 1 - colour)
        b2 = after(above, b1)
        if b2 < a1:
            coded, start = coded + "0001", b2
        elif abs(a1 - b1) <= 3:
            coded, start, colour = coded + VERTICAL[a1 - b1], a1, 1 - colour
        else:
            a2 = after(row, a1)
            first, second = (WHITE, BLACK) if colour == 0 else (BLACK, WHITE)
            coded, start = coded + "001" + first[a1 - max(start, 0)] + second[a2 - a1], a2
    return coded


def ccitt(rows: np.ndarray, compression: str, two: bool = False) -> bytes:
    """Rows of 0 (white) and 1 (black); G3 with `two`: every other row two-dimensional."""
    white = np.zeros(rows.shape[1], int)
    if compression == "CCITT RLE":
        return b"".join(bits_to_bytes(runs(row)) for row in rows)
    pairs = list(zip(rows, [white, *rows[:-1]], strict=True))
    if compression == "CCITT G4":
        return bits_to_bytes("".join(two_dimensional(row, above) for row, above in pairs) + 2 * END_OF_LINE)
    if not two:
        return bits_to_bytes("".join(END_OF_LINE + runs(row) for row in rows))
    return bits_to_bytes(
        "".join(
            END_OF_LINE + ("1" + runs(row) if number % 2 == 0 else "0" + two_dimensional(row, above))
            for number, (row, above) in enumerate(pairs)
        )
    )


def compress(data: bytes, compression: str) -> bytes:
    return {"none": bytes, "Deflate": zlib.compress, "LZW": lzw, "PackBits": packbits}[compression](data)


def predicted(block: np.ndarray, predictor: int, order: str) -> bytes:
    """A block (rows, columns, samples) as bytes, after TIFF's differences."""
    if predictor == 3:
        high_first = block.astype(">f4").view(np.uint8).reshape(*block.shape, 4)
        parts = high_first.transpose(0, 3, 1, 2).reshape(block.shape[0], -1, block.shape[2]).astype(int)
        return np.diff(parts, axis=1, prepend=0).astype(np.uint8).tobytes()
    stored = block.view(f"u{block.dtype.itemsize}")
    if predictor == 2:
        stored = np.diff(stored, axis=1, prepend=stored.dtype.type(0))
    return stored.astype(stored.dtype.newbyteorder(order)).tobytes()


def tiff(
    pixels: np.ndarray,
    compression: str = "none",
    *,
    bits: int = 0,
    planes: str = "interleaved",
    alpha: str = "none",
    photometric: int | None = None,
    predictor: int = 1,
    order: str = "<",
    strip: int = 5,
    tile: int = 0,
    reversed_bits: bool = False,
    two: bool = False,
    extra: dict[int, tuple[int, list[int]]] | None = None,
    encoded: list[bytes] | None = None,
) -> bytes:
    """A TIFF of one page. (H,W,samples); bits = 1 takes 0 and 1. `encoded`: strips that are compressed already."""
    height, width, samples = pixels.shape
    bits = bits or 8 * pixels.dtype.itemsize
    if photometric is None:
        photometric = 2 if samples >= 3 else 1
    groups = [pixels[..., [n]] for n in range(samples)] if planes == "separate" else [pixels]
    wide, high = (tile, tile) if tile else (width, strip)
    blocks = []
    for group in groups:
        for top in range(0, height, high):
            for left in range(0, width, wide):
                block = group[top : top + high, left : left + wide]
                if tile:
                    block = np.pad(block, ((0, tile - block.shape[0]), (0, tile - block.shape[1]), (0, 0)), "edge")
                if compression.startswith("CCITT"):
                    blocks.append(ccitt(block[..., 0], compression, two))
                elif compression != "JPEG":
                    plain = predicted(block, predictor, order) if bits > 1 else np.packbits(block[..., 0], 1).tobytes()
                    blocks.append(compress(plain, compression))
    blocks = blocks if encoded is None else encoded
    if reversed_bits:
        blocks = [bytes(int(f"{value:08b}"[::-1], 2) for value in block) for block in blocks]
    offsets = [8]
    for block in blocks:
        offsets.append(offsets[-1] + len(block) + len(block) % 2)
    tags: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * samples),
        259: (3, [NUMBERS[compression]]),
        262: (3, [photometric]),
        277: (3, [samples]),
        284: (3, [2 if planes == "separate" else 1]),
        317: (3, [predictor]),
        339: (3, [3 if pixels.dtype.kind == "f" else 1] * samples),
    }
    if alpha != "none":
        tags[338] = (3, [{"premultiplied": 1, "straight": 2}[alpha]])
    if reversed_bits:
        tags[266] = (3, [2])
    if two:
        tags[292] = (4, [1])
    where, sizes = (4, offsets[:-1]), (4, [len(block) for block in blocks])
    tags |= {322: (3, [tile]), 323: (3, [tile]), 324: where, 325: sizes} if tile else {}
    tags |= {} if tile else {273: where, 278: (4, [strip]), 279: sizes}
    tags |= extra or {}
    body = b"".join(block + bytes(len(block) % 2) for block in blocks)
    start = offsets[-1]
    later = start + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for number, (kind, content) in sorted(tags.items()):
        packed = struct.pack(order + {1: "B", 3: "H", 4: "I", 7: "B"}[kind] * len(content), *content)
        if len(packed) > 4:
            place = later + len(values)
            values += packed + bytes(len(packed) % 2)
            packed = struct.pack(order + "I", place)
        entries += struct.pack(order + "HHI", number, kind, len(content)) + packed.ljust(4, b"\0")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", start)
    return head + body + struct.pack(order + "H", len(tags)) + entries + bytes(4) + values


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(samples: np.ndarray, bits: int, colour: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A PNG of (H,W,samples), the five filters in turn."""
    data = b""
    for top, left, down, across in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[top::down, left::across]
        if part.size == 0:
            continue
        if bits < 8:
            single = (part[..., 0, None].astype(np.uint8) >> np.arange(bits - 1, -1, -1)) & 1
            rows = np.packbits(single.reshape(part.shape[0], -1), axis=1)
        else:
            rows = np.ascontiguousarray(part.astype(f">u{bits // 8}")).view(np.uint8).reshape(part.shape[0], -1)
        step = max(1, part.shape[2] * bits // 8)
        above = np.zeros_like(rows[0], dtype=int)
        for number, row in enumerate(rows.astype(int)):
            left_of = np.concatenate([np.zeros(step, int), row])[: len(row)]
            corner = np.concatenate([np.zeros(step, int), above])[: len(row)]
            guess = left_of + above - corner
            near = np.stack([abs(guess - left_of), abs(guess - above), abs(guess - corner)])
            paeth = np.choose(near.argmin(axis=0), [left_of, above, corner])
            kind = number % 5
            used = (0 * row, left_of, above, (left_of + above) // 2, paeth)[kind]
            data += bytes([kind]) + ((row - used) % 256).astype(np.uint8).tobytes()
            above = row
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, int(interlaced))
    parts = png_chunk(b"IHDR", head) + extra + png_chunk(b"IDAT", zlib.compress(data)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def bmp(size: tuple[int, int], pixels: bytes, bits: int, number: int = 0, table: bytes = b"", dib: int = 40) -> bytes:
    """A BMP of (rows, columns): `pixels` as the file holds them, from the bottom up; `table`: palette or bit masks."""
    info = struct.pack("<IiiHHIIiiII", dib, size[1], size[0], 1, bits, number, len(pixels), 0, 0, 0, 0)
    start = 14 + len(info) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + table + pixels


def bmp_rows(rows: np.ndarray) -> bytes:
    """Rows of bytes, top row first, as a BMP stores them: bottom row first, each padded to four bytes."""
    return b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in rows[::-1])


def bmp_runs(rows: np.ndarray, bits: int) -> bytes:
    """Palette indices as run lengths, alternately as runs and, where at least three pixels follow, as they are."""
    coded = b""
    for row in rows[::-1].tolist():
        place, plain = 0, False
        while place < len(row):
            if plain and len(row) - place >= 3:
                part = row[place : place + min(5, len(row) - place)]
                packed = bytes(part)
                if bits == 4:
                    even = part + [0] * (len(part) % 2)
                    packed = bytes(a * 16 + b for a, b in zip(even[::2], even[1::2], strict=True))
                coded += bytes([0, len(part)]) + packed + bytes(len(packed) % 2)
                place += len(part)
            else:
                run = 1
                while place + run < len(row) and row[place + run] == row[place]:
                    run += 1
                coded += bytes([run, row[place] * (17 if bits == 4 else 1)])
                place += run
            plain = not plain
        coded += b"\0\0"
    return coded + b"\0\1"
