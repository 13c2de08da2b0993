"""What is read: (container, compression, bits, planes, alpha). Whatever is not in the table is refused by its name.

tests/unit/test_codecs.py checks every combination in `READABLE` bit for bit against a second implementation (JPEG and
WebP: another build of the same library). A row is added together with such a test, never before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

MAX_PIXELS = 2**28
"""16384 x 16384. More is a broken header or a picture to be cut in tiles first."""


class Unreadable(Exception):
    """Why these bytes are no picture for us, as the second half of a sentence."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture's header says, in the words of what `read` will return."""

    width: int
    """Columns, after the EXIF orientation was applied."""
    height: int
    """Rows, after the EXIF orientation was applied."""
    depth: int
    """Bits per sample as read: 8, 16 or 32 (float)."""
    mode: str
    """`grey` or `RGB`."""
    codec: str
    """PNG, JPEG, TIFF, BMP or WebP."""
    pages: int = 1
    """Pictures in the file; only the first is read."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width

    @property
    def bytes(self) -> int:
        """Raw bytes of the pixels as read."""
        return self.width * self.height * (self.depth // 8) * (3 if self.mode == "RGB" else 1)


@dataclass(frozen=True, slots=True)
class Storage:
    """How one file stores its samples."""

    container: str
    """PNG, JPEG, TIFF, BMP or WebP."""
    compression: str
    """The compression's own name; `none` = none."""
    bits: int
    """Bits per stored sample, or per palette index; 32 = float. BMP: bits per pixel, as its header counts."""
    planes: str = "interleaved"
    """`interleaved` (RGBRGB...), or `separate` (all R, all G, all B)."""
    alpha: str = "none"
    """`none`, `straight` (colours as they are), or `premultiplied` (colours times alpha)."""

    def __str__(self) -> str:
        parts = [f"{self.container} with compression {self.compression}", f"{self.bits} bits"]
        parts += ["separate colour planes"] if self.planes == "separate" else []
        parts += [f"{self.alpha} alpha"] if self.alpha != "none" else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: every combination of what it lists is read."""

    container: str
    compressions: tuple[str, ...]
    bits: tuple[int, ...]
    planes: tuple[str, ...] = ("interleaved",)
    alpha: tuple[str, ...] = ("none",)

    def combinations(self) -> Iterator[Storage]:
        """Yield every combination that the row allows."""
        for compression, bits, planes, alpha in product(self.compressions, self.bits, self.planes, self.alpha):
            yield Storage(self.container, compression, bits, planes, alpha)


READABLE: tuple[Row, ...] = (
    Row("PNG", ("Deflate",), (1, 2, 4)),
    Row("PNG", ("Deflate",), (8, 16), alpha=("none", "straight")),
    Row("JPEG", ("baseline DCT", "extended DCT", "progressive DCT"), (8,)),
    Row("BMP", ("none",), (1, 4, 8, 16, 24, 32)),
    Row("BMP", ("RLE",), (4, 8)),
    Row("BMP", ("bit fields",), (16, 32)),
    Row("BMP", ("bit fields",), (32,), alpha=("straight",)),
    Row("WebP", ("VP8 (lossy)", "VP8L (lossless)"), (8,), alpha=("none", "straight")),
    Row("TIFF", ("none", "Deflate", "LZW", "PackBits", "CCITT RLE", "CCITT G3", "CCITT G4"), (1,)),
    Row(
        "TIFF",
        ("none", "Deflate", "LZW", "PackBits"),
        (8, 16, 32),
        planes=("interleaved", "separate"),
        alpha=("none", "straight", "premultiplied"),
    ),
    Row("TIFF", ("JPEG",), (8,)),
)
"""The whitelist. Premultiplied alpha is read where it changes nothing: every pixel is opaque."""

_READABLE = {storage for row in READABLE for storage in row.combinations()}


def require_readable(storage: Storage) -> None:
    """Do nothing for what the table holds.

    Raises:
        Unreadable: anything else, by its name, with a command that makes it readable.
    """
    if storage in _READABLE:
        return
    known = any(storage.compression in row.compressions for row in READABLE if row.container == storage.container)
    reason = f"{storage} is" if known else f"compression {storage.compression} of {storage.container} is"
    raise Unreadable(f"{reason} not supported; convert it with {conversion(storage.container)}")


def conversion(container: str) -> str:
    """Return the command that rewrites a file of this container in a form that is read, without loss."""
    if container == "TIFF":
        return "`magick in.tif -compress zip out.tif`"
    return f"`magick in.{container.lower()} out.png`"
