"""data/codecs: every row of the table is decoded bit for bit as another implementation does; the rest is refused.

The other implementation is our own encoder (`coders.py`; PNG, BMP, TIFF), and tifffile where it decodes in Python. JPEG
and WebP are compared with OpenCV, whose build is its own but whose libraries (libjpeg-turbo, libwebp) are Pillow's too.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import coders
import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.codecs import coding, png
from flawsmith.data.codecs.table import READABLE, Storage, Unreadable
from flawsmith.errors import DataError
from flawsmith.preflight.check import check

CASES = [storage for row in READABLE for storage in row.combinations()]
Files = Iterator[tuple[bytes, np.ndarray]]
"""File contents, and the pixels that another implementation says they hold."""


def noise(shape: tuple[int, ...], bits: int = 8, seed: int = 0) -> np.ndarray:
    """Samples of `bits` bits, in runs of equal ones, so that every compression has something to do."""
    rng = np.random.default_rng(seed)
    if bits == 32:
        return rng.normal(0, 1, shape).astype(np.float32)
    values = rng.integers(0, 2**bits, shape, dtype=np.uint16 if bits > 8 else np.uint8)
    values[:, 1::3] = values[:, 0::3][:, : values[:, 1::3].shape[1]]
    return values


def fax_lines(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """(rows, columns, 1) of 0 and 1 in runs of at most 8, the rows alike enough for vertical and pass codes."""
    rng = np.random.default_rng(seed)
    lines = []
    while len(lines) < rows:
        ends = np.cumsum(rng.integers(1, 9, columns))
        line = np.searchsorted(ends, np.arange(columns), side="right") % 2
        shifted = np.r_[line[:1], line[:-1]]
        for candidate in (line, shifted):
            changes = [0, *np.flatnonzero(np.diff(candidate)) + 1, columns]
            if max(np.diff(changes)) <= 8:
                lines.append(candidate)
    return np.array(lines[:rows], np.uint8)[..., None]


def encoded(picture: Image.Image, name: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


def by_opencv(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels if pixels.ndim == 2 else pixels[..., 2::-1]


def smooth(colours: int) -> Image.Image:
    ramps = np.add.outer(np.arange(37) * 3, np.arange(45) * 2)
    picture = np.stack([ramps, ramps[::-1], 200 - ramps], axis=2).astype(np.uint8) + noise((37, 45, 3)) // 16
    return Image.fromarray(picture if colours == 3 else picture[..., 0])


def pngs(storage: Storage) -> Files:
    bits = storage.bits
    for interlaced in (False, True):
        for colour, samples in ((4, 2), (6, 4)) if storage.alpha == "straight" else ((0, 1), (2, 3), (3, 1)):
            if colour == 2 and bits < 8 or colour == 3 and bits == 16:
                continue
            pixels = noise((11, 13, samples), bits)
            palette = noise((2 ** min(bits, 8), 3), seed=1)
            extra = coders.png_chunk(b"PLTE", palette.tobytes()) if colour == 3 else b""
            want = pixels if bits >= 8 else pixels * (255 // (2**bits - 1))
            want = palette[pixels[..., 0]] if colour == 3 else want[..., :3] if samples > 2 else want[..., 0]
            yield coders.png(pixels, bits, colour, interlaced=interlaced, extra=extra), want


def jpegs(storage: Storage) -> Files:
    for colours in (1, 3):
        for subsampling in (0, 2):
            progressive = storage.compression == "progressive DCT"
            data = encoded(smooth(colours), "JPEG", quality=90, progressive=progressive, subsampling=subsampling)
            if storage.compression == "extended DCT":
                data = data.replace(b"\xff\xc0\0", b"\xff\xc1\0", 1)
            yield data, by_opencv(data)


def bmps(storage: Storage) -> Files:
    bits, number = storage.bits, {"none": 0, "RLE": 1 if storage.bits == 8 else 2, "bit fields": 3}[storage.compression]
    if bits <= 8:
        pixels, palette = noise((9, 13), bits), noise((2**bits, 4), seed=1)
        single = (pixels[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint8)) & 1
        packed = np.packbits(single.reshape(9, -1), axis=1)
        body = coders.bmp_runs(pixels, bits) if number else coders.bmp_rows(packed)
        yield coders.bmp((9, 13), body, bits, number, palette.tobytes()), palette[pixels][..., 2::-1]
    elif bits == 16:
        fives = noise((9, 13, 3), 5)
        top = np.array([31, 31, 31]) if number == 0 else np.array([31, 63, 31])
        shift = (10, 5, 0) if number == 0 else (11, 5, 0)
        words = sum(fives[..., n].astype("<u2") << shift[n] for n in range(3))
        masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F) if number else b""
        want = (fives.astype(int) * 255 // top).astype(np.uint8)
        body = coders.bmp_rows(words.astype("<u2").view(np.uint8))
        yield coders.bmp((9, 13), body, bits, number, masks), want
    elif number == 0:
        pixels = noise((9, 13, bits // 8))
        yield coders.bmp((9, 13), coders.bmp_rows(pixels.reshape(9, -1)), bits), pixels[..., 2::-1]
    else:
        pixels, alpha = noise((9, 13, 4)), storage.alpha == "straight"
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000 if alpha else 0)
        body = coders.bmp_rows(pixels.reshape(9, -1))
        yield coders.bmp((9, 13), body, 32, 3, masks + bytes(52), dib=108), pixels[..., 2::-1]


def webps(storage: Storage) -> Files:
    picture = smooth(3)
    if storage.alpha == "straight":
        picture.putalpha(Image.fromarray(noise((37, 45), seed=2)))
    lossless = "lossless" in storage.compression
    data = encoded(picture, "WEBP", lossless=lossless, exact=True, quality=90)
    yield data, by_opencv(data)
    if lossless:
        yield data, np.asarray(picture)[..., :3]


def tiffs(storage: Storage) -> Files:
    bits, compression, alpha = storage.bits, storage.compression, storage.alpha
    if compression == "JPEG":
        yield from jpeg_tiffs()
    elif bits == 1:
        for shape in ((11, 23), (8, 16), (1, 1)):
            pixels = fax_lines(*shape)
            for photometric, strip, turned in ((1, 5, False), (0, 64, False), (1, 3, True)):
                options = {"bits": 1, "photometric": photometric, "strip": strip, "reversed_bits": turned}
                shown = 255 * (pixels[..., 0] ^ (photometric == 0))
                yield coders.tiff(pixels, compression, **options), shown
                if compression == "CCITT G3":
                    yield coders.tiff(pixels, compression, two=True, **options), shown
    else:
        predictors = {"LZW": (1, 2, 3), "Deflate": (1, 2, 3)}.get(compression, (1,))
        for colours in (1, 3):
            pixels = noise((11, 13, colours + (alpha != "none")), bits)
            if alpha == "premultiplied":
                pixels[..., -1] = 1 if bits == 32 else 2**bits - 1
            for predictor in predictors[: 3 if bits == 32 else 2]:
                for order, layout in (("<", {"strip": 5}), (">", {"tile": 16}), (">", {"strip": 99})):
                    options = {"planes": storage.planes, "alpha": alpha, "predictor": predictor, "order": order}
                    data = coders.tiff(pixels, compression, **options, **layout)
                    yield data, pixels[..., 0] if colours == 1 else pixels[..., :3]
                    if compression != "LZW" and predictor != 3:  # what tifffile decodes in Python
                        known = tifffile.imread(io.BytesIO(data))
                        if known.ndim == 3 and storage.planes == "separate":
                            known = np.moveaxis(known, 0, -1)
                        known = known.reshape(11, 13, -1)
                        yield data, known[..., 0] if colours == 1 else known[..., :3]


def jpeg_tiffs() -> Files:
    for colours in (1, 3):
        data = encoded(smooth(colours), "TIFF", compression="jpeg")  # libtiff: strips, YCbCr, tables of their own
        with Image.open(io.BytesIO(data)) as picture:
            yield data, np.asarray(picture)
        yield data, by_opencv(data)
        whole = encoded(smooth(colours), "JPEG", subsampling=0)
        layers = np.zeros((37, 45, colours), np.uint8)
        data = coders.tiff(layers, "JPEG", strip=37, photometric=6 if colours == 3 else 1, encoded=[whole])
        yield data, by_opencv(whole)
    red = encoded(Image.fromarray(np.asarray(smooth(3)), "RGB"), "JPEG", keep_rgb=True)
    data = coders.tiff(np.zeros((37, 45, 3), np.uint8), "JPEG", strip=37, photometric=2, encoded=[red])
    yield data, by_opencv(data)


MAKERS: dict[str, Callable[[Storage], Files]] = {"PNG": pngs, "JPEG": jpegs, "BMP": bmps, "WebP": webps, "TIFF": tiffs}


@pytest.mark.parametrize("storage", CASES, ids=str)
def test_every_row_of_the_table_bit_for_bit(tmp_path: Path, storage: Storage):
    path = tmp_path / f"x.{storage.container.lower()}"
    number = 0
    for number, (data, want) in enumerate(MAKERS[storage.container](storage), 1):
        path.write_bytes(data)
        back = images.read(path)
        if back.ndim == 3 and want.ndim == 2:
            assert (back == back[..., :1]).all()
            back = back[..., 0]
        assert back.dtype == want.dtype and back.shape == want.shape, number
        assert back.tobytes() == np.ascontiguousarray(want).tobytes(), number
        assert images.describe(path).shape == want.shape[:2]
    assert number


def test_the_documentation_has_the_same_table():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for storage in CASES:
        rows = [line for line in lines if line.startswith(f"| {storage.container}")]
        assert any(storage.compression in line and str(storage.bits) in re.findall(r"\d+", line) for line in rows), (
            storage
        )


# --- within the table: what the combinations above do not vary ----------------------------------------------------


def test_lzw_runs_through_its_whole_table(tmp_path: Path):
    pixels = noise((70, 80, 3))
    (tmp_path / "x.tif").write_bytes(coders.tiff(pixels, "LZW", strip=70))
    assert np.array_equal(images.read(tmp_path / "x.tif"), pixels)


def test_one_strip_needs_no_rows_per_strip(tmp_path: Path):
    pixels = noise((9, 14, 3))
    data = coders.tiff(pixels, "LZW", strip=9)
    assert struct.pack("<HHI", 278, 4, 1) in data
    (tmp_path / "x.tif").write_bytes(data.replace(struct.pack("<HHI", 278, 4, 1), struct.pack("<HHI", 280, 4, 1)))
    assert np.array_equal(images.read(tmp_path / "x.tif"), pixels)


@pytest.mark.parametrize("compression", ["LZW", "PackBits"])
def test_pillow_sets_no_limit_to_a_strip(tmp_path: Path, compression, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    pixels = noise((9, 14, 3))
    (tmp_path / "x.tif").write_bytes(coders.tiff(pixels, compression))
    assert np.array_equal(images.read(tmp_path / "x.tif"), pixels)


def test_a_palette_of_8_bit_values_is_not_black(tmp_path: Path):
    """TIFF's colour map has 16 bits, and some writers fill it with values up to 255."""
    pixels, palette = noise((9, 14, 1)), noise((3, 256), seed=1)
    (tmp_path / "p.tif").write_bytes(
        coders.tiff(pixels, "none", photometric=3, extra={320: (3, palette.ravel().tolist())})
    )
    assert np.array_equal(images.read(tmp_path / "p.tif"), palette.T[pixels[..., 0]])


@pytest.mark.parametrize("compression", ["none", "Deflate", "LZW", "PackBits"])
@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_and_white_is_zero_in_every_compression(tmp_path: Path, compression, bits):
    pixels = noise((9, 14, 1), bits)
    palette = noise((3, 2**bits), 16, seed=1)
    colours = {320: (3, palette.ravel().tolist())}
    (tmp_path / "p.tif").write_bytes(coders.tiff(pixels, compression, photometric=3, extra=colours))
    (tmp_path / "w.tif").write_bytes(coders.tiff(pixels, compression, photometric=0))
    assert np.array_equal(images.read(tmp_path / "p.tif"), (palette.T // 256).astype(np.uint8)[pixels[..., 0]])
    assert np.array_equal(images.read(tmp_path / "w.tif"), 2**bits - 1 - pixels[..., 0])
    assert images.describe(tmp_path / "p.tif").mode == "RGB" and images.describe(tmp_path / "w.tif").mode == "grey"


def test_colours_below_straight_alpha_are_as_stored(tmp_path: Path):
    """OpenCV multiplies them: a picture of an editor with a transparent margin would come out darker."""
    pixels = np.full((4, 6, 4), 200, np.uint8)
    pixels[..., 3] = 90
    data = coders.tiff(pixels, "LZW", alpha="straight")
    assert not np.array_equal(by_opencv(data), pixels[..., :3])
    (tmp_path / "x.tif").write_bytes(data)
    assert np.array_equal(images.read(tmp_path / "x.tif"), pixels[..., :3])


# --- outside of the table: refused by its right name --------------------------------------------------------------


def grey_tiff(number: int) -> bytes:
    return coders.tiff(noise((9, 14, 1)), extra={259: (3, [number])})


def jpeg_with(before: bytes, after: bytes) -> bytes:
    data = encoded(smooth(1), "JPEG")
    assert before in data
    return data.replace(before, after, 1)


def written(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def sparse() -> bytes:
    return coders.tiff(noise((9, 14, 1)), extra={279: (4, [70, 0])})


def wrong_checksum(cut: bool = False) -> bytes:
    coded = zlib.compress(bytes(9 * 14))
    coded = coded[:-4] if cut else coded[:-1] + bytes([coded[-1] ^ 1])
    return coders.tiff(noise((9, 14, 1)), "Deflate", strip=9, encoded=[coded])


def lossless_in_tiff() -> bytes:
    coded = jpeg_with(b"\xff\xc0\0\x0b", b"\xff\xc3\0\x0b")
    return coders.tiff(np.zeros((37, 45, 1), np.uint8), "JPEG", strip=37, encoded=[coded])


REFUSED = {
    "jpeg2000.tif": (
        grey_tiff(34712),
        "compression JPEG 2000 of TIFF is not supported; convert it with `magick in.tif",
    ),
    "aperio.tif": (grey_tiff(33003), "compression JPEG 2000 of TIFF is not supported"),
    "zstd.tif": (grey_tiff(50000), "compression ZSTD of TIFF is not supported"),
    "lzma.tif": (grey_tiff(34925), "compression LZMA of TIFF is not supported"),
    "webp.tif": (grey_tiff(50001), "compression WebP of TIFF is not supported"),
    "old.tif": (grey_tiff(6), "compression old-style JPEG of TIFF is not supported"),
    "lerc.tif": (grey_tiff(34887), "compression LERC of TIFF is not supported"),
    "unknown.tif": (grey_tiff(40000), "compression number 40000 of TIFF is not supported"),
    "fax8.tif": (grey_tiff(4), "TIFF with compression CCITT G4, 8 bits is not supported"),
    "jpeg16.tif": (
        coders.tiff(noise((9, 14, 1), 16), extra={259: (3, [7])}),
        "TIFF with compression JPEG, 16 bits is not supported",
    ),
    "jpeg_alpha.tif": (
        coders.tiff(noise((9, 14, 4)), alpha="straight", extra={259: (3, [7])}),
        "TIFF with compression JPEG, 8 bits, straight alpha is not supported",
    ),
    "jpeg_planes.tif": (
        coders.tiff(noise((9, 14, 3)), planes="separate", extra={259: (3, [7])}),
        "TIFF with compression JPEG, 8 bits, separate colour planes is not supported",
    ),
    "jpeg_lossless.tif": (lossless_in_tiff(), "compression lossless JPEG of JPEG is not supported"),
    "bit_colours.tif": (
        coders.tiff(noise((9, 14, 3)), extra={258: (3, [1, 1, 1])}),
        "its pixels have 3 samples of 1 bit",
    ),
    "checksum.tif": (wrong_checksum(), "incorrect data check"),
    "no_checksum.tif": (wrong_checksum(cut=True), "strip or tile 1 of 1 ends too early"),
    "ycbcr.tif": (coders.tiff(noise((9, 14, 3)), "LZW", photometric=6), "YCbCr with compression LZW; save it as RGB"),
    "predictor.tif": (coders.tiff(noise((9, 14, 1)), "LZW", extra={317: (3, [3])}), "predictor 3 with TIFF"),
    "predicted_plain.tif": (coders.tiff(noise((9, 14, 1)), predictor=2), "predictor 2 with TIFF with compression none"),
    "white_float.tif": (coders.tiff(noise((9, 14, 1), 32), photometric=0), "float samples are MINISWHITE"),
    "bits4.tif": (coders.tiff(noise((9, 14, 1), 4), extra={258: (3, [4])}), "samples are 4-bit uint"),
    "sparse.tif": (sparse(), "strip or tile 2 of 2 ends too early or is missing"),
    "thumbnail.tif": (coders.tiff(noise((9, 14, 1)), extra={254: (4, [1])}), "first page is a thumbnail or a mask"),
    "composite.tif": (
        written(noise((3, 10, 12), 16), imagej=True, metadata={"axes": "CYX", "mode": "composite"}),
        "it holds 3 colour channels as 3 grey pictures",
    ),
    "ome.tif": (written(noise((3, 10, 12), 16), ome=True, metadata={"axes": "CYX"}), "3 colour channels as 3 grey"),
    "bits12.jpg": (
        jpeg_with(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c"),
        "JPEG with compression extended DCT, 12 bits",
    ),
    "lossless.jpg": (jpeg_with(b"\xff\xc0\0", b"\xff\xc3\0"), "compression lossless JPEG of JPEG is not supported"),
    "arithmetic.jpg": (jpeg_with(b"\xff\xc0\0", b"\xff\xc9\0"), "compression arithmetic DCT of JPEG is not supported"),
    "bits3.png": (coders.png(noise((4, 4, 1), 1), 1, 0).replace(b"\x01\0\0\0\0", b"\x03\0\0\0\0", 1), "3 bits is not"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_table_lacks_is_refused_by_its_name(tmp_path: Path, name, capfd):
    data, sentence = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        images.read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and sentence in text and text.count(";") == 1 and "\n" not in text, text
    assert capfd.readouterr() == ("", "")
    if name not in ("sparse.tif", "checksum.tif", "no_checksum.tif", "jpeg_lossless.tif"):  # the pixels alone tell
        with pytest.raises(DataError) as again:
            images.describe(path)
        assert str(again.value) == text


@pytest.mark.parametrize("compression", ["none", "Deflate", "LZW", "PackBits"])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_premultiplied_colours_are_refused_where_they_differ(tmp_path: Path, compression, bits):
    pixels = noise((9, 14, 4), bits)
    pixels[..., 3] = 1 if bits == 32 else 2**bits - 1
    pixels[2, 3:5, 3] = 0
    (tmp_path / "x.tif").write_bytes(coders.tiff(pixels, compression, alpha="premultiplied"))
    with pytest.raises(DataError, match=r"multiplied by alpha \(premultiplied\) and 2 pixels are not opaque"):
        images.read(tmp_path / "x.tif")


# --- files of many pictures ---------------------------------------------------------------------------------------


def test_the_pictures_of_a_file_are_counted(tmp_path: Path):
    stack = noise((4, 10, 12), 16)
    tifffile.imwrite(tmp_path / "pages.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "slices.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as tif:
        tif.write(stack[0])
        tif.write(stack[0, ::2, ::2], subfiletype=1)
    frames = [Image.fromarray(layer) for layer in noise((3, 10, 12, 3))]
    for name in ("x.png", "x.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    images.write(tmp_path / "one.png", stack[0])
    counts = {path.name: images.describe(path).pages for path in tmp_path.iterdir()}
    assert counts == {"pages.tif": 4, "slices.tif": 4, "pyramid.tif": 1, "x.png": 3, "x.webp": 3, "one.png": 1}
    for name in ("pages.tif", "slices.tif", "pyramid.tif"):
        assert np.array_equal(images.read(tmp_path / name), stack[0]), name
    for name in ("x.png", "x.webp"):
        assert np.array_equal(images.read(tmp_path / name), np.asarray(frames[0])), name


def test_check_notes_the_count(tmp_path: Path):
    for number in range(4):
        for folder in ("train/good", "test/dent"):
            path = tmp_path / "plate" / folder / f"{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            stack = noise((3, 64, 64), seed=number + 10 * len(folder))
            tifffile.imwrite(
                path, stack if folder == "test/dent" or number == 0 else stack[0], photometric="minisblack"
            )
        mask = tmp_path / "plate" / "ground_truth" / "dent" / f"{number}_mask.png"
        images.write_mask(mask, np.pad(np.ones((9, 9), bool), ((20, 35), (10, 45))))
    notes = check(Config.model_validate({"data": {"root": tmp_path, "layout": "mvtec", "shots": 2}})).notes
    (note,) = [note for note in notes if "only the first is read" in note]
    assert note.endswith(", ...: each of 5 files holds 3 pictures; only the first is read"), note


def test_a_png_in_small_pieces_is_read_as_one_in_large_ones(monkeypatch):
    samples = np.random.default_rng(4).integers(0, 256, (40, 50, 3), np.uint8)
    whole = coders.png(samples, 8, 2)
    start = whole.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", whole, start)
    coded, end = whole[start + 8 : start + 8 + length], start + 12 + length
    pieces = [coders.png_chunk(b"IDAT", coded[place : place + 100]) for place in range(0, length, 100)]
    small = whole[:start] + b"".join([*pieces[:5], coders.png_chunk(b"IDAT", b""), *pieces[5:]]) + whole[end:]
    assert png.essential_png(small) == whole
    np.testing.assert_array_equal(coding.decode(small), samples)
    monkeypatch.setattr(png, "_IDAT", 250)  # a large file stays in several pieces
    assert png.essential_png(small).count(b"IDAT") == -(-length // 300)
    np.testing.assert_array_equal(coding.decode(small), samples)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_grain_is_packed_in_another_way_than_flat_pictures(depth: type[np.unsignedinteger]):
    rng = np.random.default_rng(5)
    flat = np.zeros((64, 80), depth)
    flat[20:40, 30:50] = np.iinfo(depth).max
    grainy = (rng.normal(0.5, 0.03, (64, 80, 3)) * np.iinfo(depth).max).astype(depth)
    for pixels, filter_byte in ((flat, None), (grainy, 3)):
        coded = bytes(coding.encode(pixels, ".png"))
        np.testing.assert_array_equal(coding.decode(coded), pixels)
        order = pixels[:, :, ::-1] if pixels.ndim == 3 else pixels
        assert len(coded) <= len(cv2.imencode(".png", np.ascontiguousarray(order))[1])
        start = coded.index(b"IDAT") + 4
        lines = zlib.decompress(coded[start : coded.index(b"IEND") - 8])
        filters = {lines[row * (len(lines) // len(pixels))] for row in range(1, len(pixels))}
        assert filters == {filter_byte} if filter_byte else 3 not in filters


def test_a_whole_png_says_nothing_of_its_damaged_copy():
    whole = coders.png(np.zeros((9, 9, 1), np.uint8), 8, 0)
    for _ in range(2):
        png.essential_png(whole)
    start = whole.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", whole, start)
    rows = zlib.decompress(whole[start + 8 : start + 8 + length])[:-10]
    short = whole[:start] + coders.png_chunk(b"IDAT", zlib.compress(rows)) + whole[start + 12 + length :]
    for _ in range(2):
        with pytest.raises(Unreadable, match="end too early"):
            png.essential_png(short)
