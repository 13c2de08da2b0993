"""Masks as run lengths, in the two ways that labelling tools store them.

COCO (https://cocodataset.org/#format-data) counts pixels column by column, first those that are not marked, and may
write the counts as text of 6 bits a letter. Label Studio packs the bytes of a picture of four channels, row by row, in
the bit stream of `@thi.ng/rle-pack`; the mask is its alpha channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

_FIRST_LETTER = 48
_MORE, _SIGN, _LOW = 0x20, 0x10, 0x1F
_CHANNELS = 4
_WORD = 8
_SIZES = (3, 4, 8, 16)
"""Bits in which a packed run's length is written, the shortest that holds it."""


def counts_of(mask: np.ndarray) -> list[int]:
    """Return COCO's counts of a bool mask (H,W): pixels off, on, off, ... column by column."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(count) for count in np.diff([0, *changes.tolist(), mask.size])]


def mask_of(counts: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """Return the mask of COCO's counts: bool (H,W).

    Raises:
        ValueError: the counts are of another number of pixels.
    """
    runs = np.asarray(counts, np.int64)
    if (runs < 0).any() or runs.sum() != shape[0] * shape[1]:
        raise ValueError(f"its run lengths are of {int(runs.sum())} pixels, not of {shape[1]} x {shape[0]}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape, order="F")


def compressed(counts: Sequence[int]) -> str:
    """Return COCO's counts as text: from the third on, each as its difference from the one two before it."""
    letters = []
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        more = True
        while more:
            low = value & _LOW
            value >>= 5
            more = value != (-1 if low & _SIGN else 0)
            letters.append(chr(_FIRST_LETTER + (low | _MORE if more else low)))
    return "".join(letters)


def decompressed(text: str) -> list[int]:
    """Return the counts of COCO's text.

    Raises:
        ValueError: it ends within a number, or holds other letters.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for letter in text:
        code = ord(letter) - _FIRST_LETTER
        if not 0 <= code < 64:
            raise ValueError(f"its run lengths hold {letter!r}, which COCO's text does not use")
        value |= (code & _LOW) << shift
        shift += 5
        if not code & _MORE:
            if code & _SIGN:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError("its run lengths end within a number")
    return counts


def packed(mask: np.ndarray) -> list[int]:
    """Return a bool mask (H,W) as Label Studio's bytes: 255 in all four channels where it is marked."""
    flat = np.concatenate([mask[:1, :1].ravel(), mask.ravel()])
    starts = [0, *(np.flatnonzero(flat[1:] != flat[:-1])).tolist()]
    lengths = np.diff([*starts, mask.size]) * _CHANNELS
    bits = [f"{mask.size * _CHANNELS:032b}", f"{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    marked = bool(mask[0, 0])
    for length in lengths.tolist():
        value = "1" * _WORD if marked else "0" * _WORD
        while length:
            part = min(length, 1 << _SIZES[-1])
            number = next(number for number, size in enumerate(_SIZES) if part <= 1 << size)
            bits.append(f"1{number:02b}{part - 1:0{_SIZES[number]}b}{value}")
            length -= part
        marked = not marked
    stream = np.frombuffer("".join(bits).encode(), np.uint8) - ord("0")
    return [int(byte) for byte in np.packbits(stream)]


def unpacked(packed_bytes: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """Return the mask of Label Studio's bytes: bool (H,W), where alpha is more than half.

    Raises:
        ValueError: they are cut short, or of another number of pixels.
    """
    stream = _Bits(packed_bytes)
    total = stream.number(32)
    if total != shape[0] * shape[1] * _CHANNELS:
        raise ValueError(f"its brush strokes are of {total // _CHANNELS} pixels, not of {shape[1]} x {shape[0]}")
    word = stream.number(5) + 1
    sizes = [stream.number(4) + 1 for _ in _SIZES]
    values: np.ndarray = np.zeros(total, np.uint8 if word <= 8 else np.uint32)
    at = 0
    while at < total:
        repeated = stream.number(1)
        length = stream.number(sizes[stream.number(2)]) + 1
        values[at : at + length] = stream.numbers(1 if repeated else min(length, total - at), word)
        at += length
    return values.reshape(-1, _CHANNELS)[:, -1].reshape(shape) > (1 << word) // 2 - 1


class _Bits:
    """Reads numbers from a stream of bits, the highest bit first."""

    def __init__(self, content: Iterable[int]) -> None:
        try:
            self._bits = np.unpackbits(np.array(list(content), np.uint8))
        except (TypeError, ValueError, OverflowError):
            raise ValueError("its brush strokes are no list of bytes") from None
        self._at = 0

    def number(self, bits: int) -> int:
        return int(self.numbers(1, bits)[0])

    def numbers(self, count: int, bits: int) -> np.ndarray:
        end = self._at + count * bits
        if end > len(self._bits):
            raise ValueError("its brush strokes are cut short")
        weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.int64)
        rows = self._bits[self._at : end].reshape(count, bits)
        self._at = end
        return np.asarray(rows @ weights)
