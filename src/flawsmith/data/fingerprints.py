"""Fingerprints of pictures: a hash of the pixels, whether they can be decoded, and what they resemble.

Decoding is the slow part of every check, so it is done once per file: the leak check, the search for near-duplicates
and `flawsmith check` all read from here.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.codecs.coding import fault
from flawsmith.errors import DataError
from flawsmith.files import file_digest
from flawsmith.paths import open_file


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What one decoding tells of a picture."""

    pixels: str
    """SHA-256 of the upright pixels; of the file's bytes where they cannot be decoded."""
    bits: np.ndarray
    """bool (64,): the signs of the steps between neighbours in a row of the picture shrunk to 9 x 8."""
    problem: str
    """Why it cannot be decoded, as the end of a sentence that begins with its path; "" = it can."""
    two_values: bool = False
    """True: its samples have one or two values in all, as those of a mask."""
    fault: str = ""
    """Why it may be damaged though it can be decoded, as `problem`; "" = no sign of it."""


_ROOM = 48 << 20
"""Bytes of pictures that are decoded side by side."""
_FINGERPRINTS: dict[tuple[str, tuple[int, ...]], Fingerprint] = {}
_FILES: dict[tuple[str, tuple[int, ...]], str] = {}
"""Hashes of the bytes of files that were not decoded; `file_digest` remembers fewer than a large set has."""


def fingerprint(path: Path) -> Fingerprint:
    """Return a picture's fingerprint; it is kept while path and state of the file stay.

    Raises:
        DataError: there is no such file; what is there but broken has a `problem` instead.
    """
    key = _key(path)
    if key not in _FINGERPRINTS:
        try:
            pixels = images.read(path)
            if pixels.dtype.kind == "f" and not np.isfinite(pixels).any():
                raise DataError(f"{path}: not one of its pixels is a finite number, so it shows nothing; take it out")
            _FINGERPRINTS[key] = Fingerprint(
                _pixel_hash(pixels), _difference_bits(pixels), "", _has_two_values(pixels), _fault(path)
            )
        except DataError as error:
            try:
                with open_file(path) as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
            except OSError:
                digest = str(path)
            _FINGERPRINTS[key] = Fingerprint(digest, np.zeros(64, bool), str(error).removeprefix(f"{path}: "))
    return _FINGERPRINTS[key]


def _key(path: Path) -> tuple[str, tuple[int, ...]]:
    """Return the path and state of a file by which it is kept."""
    try:
        facts = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); was it moved?") from None
    return os.path.abspath(path), (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _fault(path: Path) -> str:
    return images.with_reasons(path, lambda stream: fault(stream.read()))


def content_hash(path: Path) -> str:
    """Return the SHA-256 of the picture's upright pixels, the same for a copy saved again without loss.

    Grey saved as RGB, 8 bits saved as 16, another codec or an EXIF turn instead of turned pixels make no difference. A
    file that cannot be decoded has the hash of its bytes. Kept in memory while the file's state stays.
    """
    return fingerprint(path).pixels


def fingerprints_of(paths: Sequence[Path]) -> list[Fingerprint]:
    """Return the fingerprints of many pictures, in their order; those not known are decoded side by side."""
    keys = list(map(_key, paths))
    if unknown := [path for path, key in zip(paths, keys, strict=True) if key not in _FINGERPRINTS]:
        with ThreadPoolExecutor(_side_by_side(unknown)) as pool:
            list(pool.map(fingerprint, unknown))
    # A file that was changed meanwhile is known under another key.
    return [_FINGERPRINTS.get(key) or fingerprint(path) for path, key in zip(paths, keys, strict=True)]


def _side_by_side(paths: Sequence[Path]) -> int:
    """Return how many pictures are decoded at once: fewer of large ones, which take memory.

    Decoding and hashing leave Python's lock, so threads help; more than eight only fight over the disk.
    """
    largest = max(paths, key=lambda path: path.stat().st_size if path.exists() else 0, default=None)
    try:
        size = images.describe(largest).bytes if largest else 0
    except DataError:  # the fingerprint will say it
        size = 0
    return max(1, min(8, os.cpu_count() or 1, _ROOM // max(size, 1)))


def identities(paths: Sequence[Path], decoded: Collection[Path]) -> list[str]:
    """Return what is equal for equal pictures, decoding only some of them.

    A picture that is not decoded equals another one only if their files are the same byte for byte; what is decoded,
    also if their pixels are the same.
    """
    sizes = [path.stat().st_size if path.exists() else -1 for path in paths]
    of_size = Counter(sizes)
    names = [
        f"bytes: {_bytes_hash(path)}" if of_size[size] > 1 and size >= 0 else f"alone: {path}"
        for path, size in zip(paths, sizes, strict=True)
    ]
    inside = [(name, path) for name, path in zip(names, paths, strict=True) if path in decoded]
    prints = fingerprints_of([path for _, path in inside])
    # Two empty or broken files are no copies of each other.
    pixels = {
        name: f"broken: {path}" if one.problem else one.pixels for (name, path), one in zip(inside, prints, strict=True)
    }
    return [pixels.get(name, name) for name in names]


def _bytes_hash(path: Path) -> str:
    key = _key(path)
    if key not in _FILES:
        _FILES[key] = file_digest(path)
    return _FILES[key]


def differing_bits(rows: Sequence[Path], columns: Sequence[Path]) -> np.ndarray:
    """Return int (rows, columns): in how many of 64 bits the difference hashes of two pictures differ."""
    if not columns:
        return np.zeros((len(rows), 0), int)
    left, right = (np.stack([fingerprint(path).bits for path in paths]) for paths in (rows, columns))
    return np.asarray((left[:, None] != right[None]).sum(axis=2))


def _pixel_hash(pixels: np.ndarray) -> str:
    """Hash what is seen, not how it was saved: equal channels are grey, 8 bits spread over 16 are 8 bits."""
    if pixels.ndim == 3 and (pixels[..., :1] == pixels[..., 1:]).all():
        pixels = pixels[..., 0]
    if pixels.dtype == np.uint16 and not (pixels % 257).any():
        pixels = (pixels // 257).astype(np.uint8)
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _has_two_values(pixels: np.ndarray) -> bool:
    if len(np.unique(pixels[:: max(1, len(pixels) // 16)])) > 2:  # a few rows of nearly every photograph
        return False
    return bool(((pixels == pixels.min()) | (pixels == pixels.max())).all())


def _difference_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.kind == "f":  # one NaN would spread over a whole cell
        pixels = images.filled(pixels, images.range_of(pixels))
    small: np.ndarray = cv2.resize(pixels, (9, 8), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.ndim == 3:
        small = small.mean(axis=2)
    return (small[:, 1:] > small[:, :-1]).ravel()
