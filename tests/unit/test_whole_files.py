"""data/codecs/whole.py: a picture of which a part is missing is refused, or said to be damaged, never just black."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.data.codecs.coding import decode, fault
from flawsmith.data.codecs.label import decode_label
from flawsmith.data.masks.stored import decode_mask
from flawsmith.errors import DataError
from flawsmith.files import read_json
from flawsmith.preflight.check import check
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run

RNG = np.random.default_rng(0)
GREY = RNG.integers(20, 220, (40, 60), np.uint8)
SMOOTH = np.repeat(np.repeat(RNG.integers(20, 220, (5, 8, 3), np.uint8), 8, 0), 8, 1)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def saved(picture: Any, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(stream, form, **options)
    return stream.getvalue()


def tiff(picture: np.ndarray, compression: str | None) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, picture, photometric="minisblack", compression=compression, rowsperstrip=10)
    return stream.getvalue()


FILES = {
    "png grey": saved(GREY, "PNG"),
    "png colour": saved(SMOOTH, "PNG"),
    "png palette": saved(Image.fromarray(SMOOTH).quantize(16), "PNG"),
    "png bits": saved(Image.fromarray(GREY > 100), "PNG"),
    "png deep": bytes(images.encode(GREY.astype(np.uint16) * 200, ".png")),
    "jpeg grey": saved(GREY, "JPEG"),
    "jpeg colour": saved(SMOOTH, "JPEG"),
    "jpeg progressive": saved(SMOOTH, "JPEG", progressive=True),
    "jpeg restarts": saved(SMOOTH, "JPEG", restart_marker_blocks=2),
    "bmp grey": saved(GREY, "BMP"),
    "bmp palette": saved(Image.fromarray(SMOOTH).quantize(16), "BMP"),
    "webp": saved(SMOOTH, "WEBP"),
    "webp lossless": saved(SMOOTH, "WEBP", lossless=True),
    "tiff": tiff(GREY, None),
    "tiff deflate": tiff(GREY, "zlib"),
    "tiff lzw": saved(SMOOTH, "TIFF", compression="tiff_lzw"),
    "tiff packbits": saved(GREY, "TIFF", compression="packbits"),
    "tiff jpeg": saved(SMOOTH, "TIFF", compression="jpeg"),
    "tiff g4": saved(Image.fromarray(GREY > 100), "TIFF", compression="group4"),
    "tiff palette": saved(Image.fromarray(SMOOTH).quantize(16), "TIFF"),
}


def label_of(content: bytes) -> np.ndarray:
    return decode_label(content).values


@pytest.mark.parametrize("read", [decode, label_of])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_is_refused_or_read_as_it_was(name: str, read: Callable[[bytes], np.ndarray]) -> None:
    content = FILES[name]
    whole, refused = read(content), 0
    for length in {*np.linspace(1, len(content) - 1, 15).astype(int).tolist(), *range(len(content) - 6, len(content))}:
        try:
            assert np.array_equal(read(content[:length]), whole), length
        except AssertionError:
            raise
        except Exception:  # `images.read` makes a sentence of whatever a decoder raises
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("png", "jpeg"))])
def test_a_copy_that_was_broken_off_and_filled_with_zeros(name: str) -> None:
    content = FILES[name]
    for length in np.linspace(40, len(content) - 3, 15).astype(int).tolist():
        with pytest.raises(Exception):  # noqa: B017  # as above
            decode(content[:length] + bytes(len(content) - length))


# --- PNG ----------------------------------------------------------------------------------------------------------


def png(rows: bytes, bits: int, colour: int, *, palette: bytes = b"", interlaced: int = 0, coded: bytes = b"") -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 16, bits, colour, 0, 0, interlaced))
    colours = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + head + colours + chunk(b"IDAT", coded or zlib.compress(rows)) + chunk(b"IEND", b"")


def rows_of(bits: int, colour: int, interlaced: int) -> bytes:
    """16 rows of 20 pixels, each row with filter 0."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    shapes = [(16, 20)]
    if interlaced:
        shapes = [(len(range(top, 16, down)), len(range(left, 20, across))) for left, top, across, down in ADAM7]
    made = b""
    for high, wide in shapes:
        for _ in range(high if wide else 0):
            made += b"\0" + RNG.integers(0, 2, -(-wide * samples * bits // 8), np.uint8).tobytes()
    return made


FORMS = [(1, 0), (2, 3), (4, 3), (8, 0), (8, 2), (8, 3), (8, 4), (8, 6), (16, 0), (16, 2), (16, 4), (16, 6)]


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("bits", "colour"), FORMS)
def test_a_png_stream_that_ends_early(bits: int, colour: int, interlaced: int, tmp_path: Path) -> None:
    rows = rows_of(bits, colour, interlaced)
    more: dict[str, Any] = {"palette": bytes(3 * 256 if bits == 8 else 3 * 2**bits) if colour == 3 else b""}
    more |= {"interlaced": interlaced}
    path = tmp_path / "x.png"
    path.write_bytes(png(rows, bits, colour, **more))
    assert images.read(path).shape[:2] == (16, 20)
    decode_mask(path)
    coded = zlib.compress(rows)
    torn = {
        "a stream of half the rows": {"rows": rows[: len(rows) // 2]},
        "one byte too few": {"rows": rows[:-1]},
        "half a stream": {"coded": coded[: len(coded) // 2]},
        "without its checksum": {"coded": coded[:-4]},
        "with another checksum": {"coded": coded[:-4] + b"\1\2\3\4"},
        "no stream": {"coded": b"\x78"},
    }
    for what, parts in torn.items():
        path.write_bytes(png(**{"rows": b"", "bits": bits, "colour": colour, **more, **parts}))  # type: ignore[arg-type]
        for read in (images.read, decode_mask):
            with pytest.raises(DataError, match=r"pixels (end too early|are damaged)"):
                read(path)
                raise AssertionError(what)


@pytest.mark.parametrize(
    ("palette", "words"),
    [(b"", "of a palette that is missing"), (bytes(5), "has 5 bytes"), (bytes(3 * 257), "has 771 bytes")],
)
@pytest.mark.parametrize("read", [images.read, decode_mask])
def test_a_palette_that_is_missing(palette: bytes, words: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(rows_of(8, 3, 0), 8, 3, palette=palette))
    with pytest.raises(DataError, match=words):
        read(path)


def test_a_colour_that_the_palette_lacks(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    rows = b"".join(b"\0" + bytes([0] * 19 + [row % 3]) for row in range(16))
    path.write_bytes(png(rows, 8, 3, palette=bytes(6)))
    with pytest.raises(DataError, match="colours that its palette lacks"):
        images.read(path)
    assert decode_mask(path).values.levels.tolist() == [0, 1, 2], "in a mask the numbers count, not their colours"


# --- TIFF ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [273, 279])
@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("tiff")])
def test_a_tiff_strip_that_is_empty_or_nowhere(name: str, tag: int, tmp_path: Path) -> None:
    content = bytearray(FILES[name])
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        entry = file.pages.first.tags[tag]
        size = {3: 2, 4: 4}[int(entry.dtype)]
        place = entry.valueoffset + size * (entry.count // 2)
    content[place : place + size] = bytes(size)
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    for read in (images.read, decode_mask):
        with pytest.raises(DataError, match="ends too early or is missing|strips"):
            read(path)


# --- JPEG ---------------------------------------------------------------------------------------------------------


def with_exif() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return saved(SMOOTH, "JPEG", exif=exif, comment=b"made by a test")


def torn_exif() -> bytes:
    content = bytearray(with_exif())
    place = content.index(b"\xff\xe1") + 2
    content[place : place + 2] = struct.pack(">H", struct.unpack_from(">H", content, place)[0] - 5)
    return bytes(content)


def without_an_interval() -> bytes:
    content = FILES["jpeg restarts"]
    first, second = content.index(b"\xff\xd1"), content.index(b"\xff\xd2")
    return content[:first] + content[second:]


TORN = {
    "a part that is longer than it says": (torn_exif(), "belong to none"),
    "a part that is longer than the file": (
        with_exif().replace(b"\xff\xfe\0\x10", b"\xff\xfe\xff\xf0"),
        "which cannot be",
    ),
    "an interval that is missing": (without_an_interval(), "between two restart marks are missing"),
    "bytes between two parts": (with_exif().replace(b"\xff\xdb", b"lost\xff\xdb", 1), "4 bytes before its part DB"),
}


@pytest.mark.parametrize("name", [*(name for name in FILES if not name.startswith("jpeg ")), "exif", *TORN])
def test_what_is_torn_in_a_jpeg_is_said(name: str) -> None:
    content, words = TORN.get(name, (FILES.get(name) or with_exif(), ""))
    assert words in fault(content) if words else not fault(content)


@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}, {"restart_marker_rows": 1}, {}])
def test_whole_jpegs_have_no_fault(options: dict[str, Any]) -> None:
    for picture in (GREY, SMOOTH):
        assert fault(saved(picture, "JPEG", **options)) == ""
        assert fault(saved(picture, "JPEG", **options) + b"\xff\xd8 a preview behind the picture") == ""


def test_check_and_a_run_warn_of_a_torn_jpeg(factory_root: Path, tmp_path: Path) -> None:
    shutil.copytree(factory_root / "magnet", tmp_path / "set" / "magnet")
    path = next((tmp_path / "set" / "magnet" / "train" / "good").iterdir())
    stream = io.BytesIO()
    Image.open(path).convert("RGB").save(stream, "JPEG", quality=95, restart_marker_blocks=4)
    content = stream.getvalue()
    first, second = content.index(b"\xff\xd1"), content.index(b"\xff\xd2")
    path.write_bytes(content[:first] + content[second:])
    config = load_config(None, {"data.root": str(tmp_path / "set"), "data.shots": 2, "generator.name": "crop_paste"})
    said = [text for text in check(config).warnings if "may be damaged" in text]
    assert len(said) == 1 and path.name in said[0] and "restart marks" in said[0]
    run = Run.create(tmp_path / "run", config)
    for _ in range(2):  # remembered, when nothing changed
        open_dataset(run)
        warnings = read_json(run.path("data.json"))["warnings"]
        assert sum(path.name in text and "may be damaged" in text for text in warnings) == 1
