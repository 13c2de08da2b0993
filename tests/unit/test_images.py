"""data/images.py: what is read is what the file holds, there and back is exact, bad files get one clear sentence."""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from flawsmith.data import images
from flawsmith.data.codecs import coding
from flawsmith.errors import DataError, RunError

SHAPES = [(1, 1), (1, 7), (13, 17), (64, 3)]
DTYPES = [np.uint8, np.uint16, np.float32]


def noise(shape: tuple[int, ...], dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype is np.float32:
        return rng.random(shape, dtype=np.float32)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes, bits: int = 8, colour: int = 0, extra: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def exif_block(orientation: int) -> bytes:
    block = Image.Exif()
    block[274] = orientation
    return block.tobytes()


# --- reading what was written -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF", ".bmp"])
def test_write_then_read_is_the_same(tmp_path: Path, shape, colour, dtype, suffix):
    pixels = noise(shape + ((3,) if colour else ()), dtype)
    path = tmp_path / f"x{suffix}"
    if suffix == ".bmp" and dtype is not np.uint8 or suffix == ".png" and dtype is np.float32:
        with pytest.raises(DataError, match="cannot hold"):
            images.write(path, pixels)
        return
    images.write(path, pixels)
    back = images.read(path)
    assert back.dtype == pixels.dtype and np.array_equal(back, pixels)
    assert back.flags.c_contiguous and back.flags.writeable
    facts = images.describe(path)
    assert (facts.shape, facts.depth) == (shape, pixels.dtype.itemsize * 8)
    assert facts.mode == ("RGB" if colour else "grey")
    assert facts.codec == {".png": "PNG", ".bmp": "BMP"}.get(suffix, "TIFF")
    assert os.listdir(tmp_path) == [path.name]


def test_written_bytes_do_not_depend_on_when(tmp_path: Path):
    for suffix in (".png", ".tif", ".bmp"):
        images.write(tmp_path / f"a{suffix}", noise((9, 9, 3)))
        images.write(tmp_path / f"b{suffix}", noise((9, 9, 3)))
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_and_webp_agree_with_pillow(tmp_path: Path, mode):
    smooth = np.add.outer(np.arange(31), np.arange(45)).astype(np.uint8) * 2
    picture = Image.fromarray(smooth).convert(mode)
    picture.save(tmp_path / "x.JPG", quality=95)
    picture.save(tmp_path / "x.webp", lossless=True)
    with Image.open(tmp_path / "x.JPG") as known:
        assert np.array_equal(images.read(tmp_path / "x.JPG"), np.asarray(known))
    web = images.read(tmp_path / "x.webp")
    assert web.shape == (31, 45, 3) and np.array_equal(web[..., 1], smooth)
    assert images.describe(tmp_path / "x.JPG").codec == "JPEG"
    assert images.describe(tmp_path / "x.JPG").mode == ("grey" if mode == "L" else "RGB")


def test_content_counts_not_the_suffix(tmp_path: Path):
    Image.fromarray(noise((5, 6))).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    assert images.describe(tmp_path / "x.jpg").codec == "PNG"
    assert np.array_equal(images.read(tmp_path / "x.jpg"), noise((5, 6)))


@pytest.mark.parametrize("mode", ["P", "1", "LA", "RGBA", "P+alpha"])
def test_other_modes_of_png(tmp_path: Path, mode):
    path = tmp_path / "x.png"
    rgb = noise((6, 5, 3)) // 128 * 255
    if mode == "1":
        Image.fromarray(rgb[..., 0]).convert("1", dither=Image.Dither.NONE).save(path)
        want = rgb[..., 0]
    elif mode.startswith("P"):
        picture = Image.fromarray(rgb).quantize(8)
        picture.save(path, **({"transparency": bytes([0, 255, 100])} if mode == "P+alpha" else {}))
        want = np.asarray(picture.convert("RGB"))
    else:
        alpha = noise((6, 5), seed=1)
        colours = rgb if mode == "RGBA" else rgb[..., :1]
        Image.fromarray(np.concatenate([colours, alpha[..., None]], axis=2)).save(path)
        want = colours.squeeze(-1) if mode == "LA" else colours
    assert np.array_equal(images.read(path), want)
    assert images.describe(path).mode == ("grey" if want.ndim == 2 else "RGB")


@pytest.mark.parametrize(("colour", "channels"), [(4, 2), (6, 4)])
def test_16_bit_png_with_alpha(tmp_path: Path, colour, channels):
    pixels = noise((4, 5, channels), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    (tmp_path / "x.png").write_bytes(png(5, 4, rows, 16, colour))
    assert np.array_equal(images.read(tmp_path / "x.png"), pixels[..., 0] if channels == 2 else pixels[..., :3])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_become_8(tmp_path: Path, bits):
    (tmp_path / "x.png").write_bytes(png(2, 1, b"\0" + bytes([(2**bits - 1) << (8 - bits)]), bits))
    assert images.read(tmp_path / "x.png").tolist() == [[255, 0]]


TIFFS = [
    (mode, save)
    for mode in ("L", "RGB", "I;16", "F", "1", "P")
    for save in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "raw")
] + [("L", "jpeg"), ("RGB", "jpeg")]


@pytest.mark.parametrize(("mode", "save"), TIFFS)
def test_tiff_of_every_compression(tmp_path: Path, mode, save):
    grey = {"I;16": noise((24, 33), np.uint16), "F": noise((24, 33), np.float32)}.get(mode, noise((24, 33)))
    picture = Image.fromarray(noise((24, 33, 3))) if mode in ("RGB", "P") else Image.fromarray(grey)
    picture = picture.quantize(9) if mode == "P" else picture.convert(mode)
    path = tmp_path / "x.tif"
    picture.save(path, compression=save)
    with Image.open(path) as stored:
        want = np.asarray(stored.convert({"1": "L", "P": "RGB"}.get(mode, mode)))
    back = images.read(path)
    assert back.dtype == want.dtype and back.shape == want.shape
    assert np.abs(back.astype(float) - want).max() <= (3 if save == "jpeg" else 0)
    assert images.describe(path).shape == (24, 33)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("predictor", [False, True])
def test_tiff_planes_predictor_and_alpha(tmp_path: Path, dtype, predictor):
    pixels = noise((10, 11, 3), dtype)
    codec = {"compression": "zlib", "predictor": predictor and dtype is not np.float32}
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(pixels, -1, 0), planarconfig="separate", photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", pixels, photometric="rgb", bigtiff=True, byteorder=">", **codec)
    rgba = np.concatenate([pixels, pixels[..., :1]], axis=2)
    tifffile.imwrite(tmp_path / "c.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16), **codec)
    for name in "abc":
        assert np.array_equal(images.read(tmp_path / f"{name}.tif"), pixels), name


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "packbits"])
def test_tiff_where_white_is_zero(tmp_path: Path, dtype, compression):
    pixels = noise((10, 12), dtype)
    top = np.iinfo(dtype).max
    if compression:
        Image.fromarray(top - pixels).save(tmp_path / "x.tif", compression="packbits")
        data = bytearray((tmp_path / "x.tif").read_bytes())
        with tifffile.TiffFile(io.BytesIO(data)) as tif:
            struct.pack_into("<H", data, tif.pages.first.tags[262].valueoffset, 0)
        (tmp_path / "x.tif").write_bytes(data)
    else:
        tifffile.imwrite(tmp_path / "x.tif", top - pixels, photometric="miniswhite")
    assert np.array_equal(images.read(tmp_path / "x.tif"), pixels)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What Pillow's own exif_transpose does, written down independently for arrays of any depth."""
    return {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
        8: lambda a: np.rot90(a, 1),
    }[orientation](pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(tmp_path: Path, orientation):
    pixels, deep = noise((6, 9, 3)), noise((6, 9, 3), np.uint16)
    block = exif_block(orientation)
    Image.fromarray(pixels).save(tmp_path / "p.png", exif=block)
    Image.fromarray(pixels).save(tmp_path / "j.jpg", exif=block, quality=95)
    Image.fromarray(pixels).save(tmp_path / "w.webp", exif=block, lossless=True)
    Image.fromarray(pixels).save(tmp_path / "lzw.tif", compression="tiff_lzw", tiffinfo={274: orientation})
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    extra = chunk(b"eXIf", block.removeprefix(b"Exif\0\0"))
    (tmp_path / "deep.png").write_bytes(png(9, 6, rows, 16, 2, extra))
    late = png(9, 6, rows, 16, 2)
    (tmp_path / "late.png").write_bytes(late[:-12] + extra + late[-12:])
    with Image.open(tmp_path / "j.jpg") as picture:
        lossy = np.asarray(picture)
    for name, stored in {
        "p.png": pixels,
        "w.webp": pixels,
        "lzw.tif": pixels,
        "deep.tif": deep,
        "deep.png": deep,
        "late.png": deep,
        "j.jpg": lossy,
    }.items():
        want = turned(stored, orientation)
        assert np.array_equal(images.read(tmp_path / name), want), name
        assert images.describe(tmp_path / name).shape == want.shape[:2], name


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"x"]
)
def test_a_damaged_exif_block_is_upright(tmp_path: Path, block):
    extra = chunk(b"eXIf", block)
    (tmp_path / "x.png").write_bytes(png(3, 2, b"\0abc\0def", extra=extra))
    assert images.read(tmp_path / "x.png").tolist() == [[97, 98, 99], [100, 101, 102]]


def test_ancillary_rubbish_in_a_png_is_quiet(tmp_path: Path, capfd):
    extra = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"bad")) + chunk(b"acTL", b"zz") + chunk(b"zTXt", b"\0\0\0")
    (tmp_path / "a.png").write_bytes(png(1, 1, b"\0\1\2\3\4\5\6", 16, 2, extra))
    (tmp_path / "b.png").write_bytes(png(1, 1, b"\0\1\2\3", 8, 2, extra))
    assert images.read(tmp_path / "a.png").tolist() == [[[258, 772, 1286]]]
    assert images.read(tmp_path / "b.png").tolist() == [[[1, 2, 3]]]
    assert capfd.readouterr() == ("", "")


# --- files that are no use ----------------------------------------------------------------------------------------


def _good(suffix: str, dtype: type = np.uint8) -> bytes:
    stream = io.BytesIO()
    if suffix in (".jpg", ".webp"):
        Image.fromarray(noise((40, 40, 3))).save(stream, {".jpg": "JPEG", ".webp": "WEBP"}[suffix])
        return stream.getvalue()
    return bytes(coding.encode(noise((40, 40, 3), dtype), suffix))


def _lzw() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise((40, 40, 3))).save(stream, "TIFF", compression="tiff_lzw")
    return stream.getvalue()


def _tiff(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def _cmyk() -> bytes:
    stream = io.BytesIO()
    Image.new("CMYK", (4, 4)).save(stream, "JPEG")
    return stream.getvalue()


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


BAD = {
    "empty.png": (b"", "the file is empty"),
    "text.jpg": (b"hello, this is no picture", "does not begin like"),
    "gif.png": (b"GIF89a" + bytes(30), "it is a picture of the format GIF, which is not read; save it as PNG"),
    "jp2.png": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(30), "it is a picture of the format JPEG 2000, which is not read"),
    "lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "link.png": (b"../../../../blobs/0006", "a link that was stored as text"),
    "annex.png": (b"/annex/objects/SHA256E-s1--0.png\n", "a link that was stored as text"),
    "cut.png": (_good(".png")[:-300], "ends too early"),
    "cut16.png": (_good(".png", np.uint16)[:-300], "ends too early"),
    "no_end.png": (_good(".png")[:-12], "ends too early"),
    "header_only.png": (_good(".png")[:20], "header is cut short"),
    "signature_only.png": (_good(".png")[:8], "header is cut short"),
    "flipped.png": (_flipped(_good(".png"), 600), "damaged"),
    "flipped16.png": (_flipped(_good(".png", np.uint16), 600), "damaged"),
    "cut.jpg": (_good(".jpg")[:-300], "ends too early"),
    "head.jpg": (_good(".jpg")[:30], "cannot be decoded"),
    "cut.tif": (_good(".tif")[:-900], "cannot be decoded"),
    "cut_lzw.tif": (_lzw()[:2000], "cannot be decoded"),
    "head.tif": (_good(".tif")[:8], "cannot be decoded"),
    "cut.bmp": (_good(".bmp")[:-300], "cannot be decoded"),
    "head.bmp": (b"BM" + bytes(5), "cannot be decoded"),
    "cut.webp": (_good(".webp")[:100], "cannot be decoded"),
    "bomb.png": (png(200_000, 200_000, b"\0"), "claims 200000 x 200000 pixels, more than"),
    "bomb16.png": (png(60_000, 60_000, b"\0", 16), "more than"),
    "zero.png": (png(0, 5, b"\0"), "claims 0 x 5 pixels"),
    "cmyk.jpg": (_cmyk(), "colours are CMYK"),
    "cmyk.tif": (_tiff(noise((4, 4, 4)), photometric="separated"), "colours are SEPARATED"),
    "double.tif": (_tiff(np.zeros((4, 4))), "samples are 64-bit float"),
    "signed.tif": (_tiff(np.zeros((4, 4), np.int16)), "16-bit signed"),
    "wide.tif": (_tiff(np.zeros((4, 4), np.uint32)), "32-bit uint"),
    "bands.tif": (_tiff(noise((4, 4, 9)), photometric="minisblack", planarconfig="contig"), "9 samples per pixel"),
    "x.gif": (b"GIF89a", ".gif is not a picture format; known: .png"),
    "x": (b"abc", "no suffix is not a picture format"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_clear_sentence(tmp_path: Path, name, capfd):
    data, sentence = BAD[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        images.read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and sentence in text and "\n" not in text and ";" in text, text
    assert capfd.readouterr() == ("", ""), "decoders must keep quiet"


def test_missing_folder_and_forbidden(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        images.read(tmp_path / "x.png")
    (tmp_path / "y.png").mkdir()
    with pytest.raises(DataError, match="a folder, not a picture"):
        images.read(tmp_path / "y.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_damage_anywhere_is_a_data_error_or_a_picture(tmp_path: Path, suffix):
    """Flip one byte at many places: whatever the decoder raises, only DataError comes out, and no warning."""
    data = _good(suffix)
    rng = np.random.default_rng(1)
    for place in np.unique(np.r_[:64, rng.integers(0, len(data), 80)]):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(_flipped(data, min(int(place), len(data) - 1)))
        for reader in (images.describe, images.read):
            try:
                reader(path)
            except DataError as error:
                assert "\n" not in str(error)


# --- native <-> model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [False, True])
def test_there_and_back_is_exact_for_every_value(dtype, colour):
    every = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(16, -1)
    pixels = np.stack([every, every[::-1], every[:, ::-1]], axis=2) if colour else every
    seen = images.to_model(pixels)
    assert seen.dtype == np.float32 and seen.shape == (*every.shape, 3) and seen.min() == -1 and seen.max() == 1
    black, everywhere = np.zeros_like(pixels), np.ones(every.shape, bool)
    back = images.apply_delta(black, seen - images.to_model(black), everywhere)
    assert back.dtype == pixels.dtype and np.array_equal(back, pixels)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0), (1e6, 1e6 + 10), (7.0, 7.0)])
def test_float_pictures_keep_their_range(low, high):
    pixels = (noise((9, 8), np.float32) * (high - low) + low).astype(np.float32)
    seen = images.to_model(pixels)
    assert seen.min() >= -1 and seen.max() <= 1
    span = images.range_of(pixels)
    start, everywhere = np.full_like(pixels, span.low), np.ones(pixels.shape, bool)
    back = images.apply_delta(start, seen - images.to_model(start, span), everywhere, span)
    assert np.allclose(back, pixels, atol=1e-6 * max(span.high - span.low, abs(high)))
    if (low, high) == (0.0, 1.0):
        assert span == images.Range(0, 1)


def test_a_window_of_a_float_picture_takes_the_range_of_the_whole():
    pixels = np.linspace(-5, 5, 100, dtype=np.float32).reshape(10, 10)
    span = images.range_of(pixels)
    assert np.array_equal(images.to_model(pixels[2:4], span), images.to_model(pixels)[2:4])


def test_12_bits_in_16():
    pixels = np.array([[0, 4095]], np.uint16)
    span = images.Range(0, 4095)
    assert images.to_model(pixels, span)[..., 0].tolist() == [[-1, 1]]
    step = images.to_model(pixels[:, ::-1], span) - images.to_model(pixels, span)
    assert images.apply_delta(pixels, step, np.ones((1, 2), bool), span).tolist() == [[4095, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("colour", [False, True])
def test_apply_delta_touches_nothing_outside(dtype, colour):
    native = noise((20, 21) + ((3,) if colour else ()), dtype)
    inside = np.zeros((20, 21), bool)
    inside[3:9, 4:11] = True
    delta = np.random.default_rng(1).normal(0, 1, (20, 21, 3)).astype(np.float32)
    before = native.copy()
    made = images.apply_delta(native, delta, inside)
    assert np.array_equal(native, before) and made.dtype == native.dtype
    assert made[~inside].tobytes() == native[~inside].tobytes()
    assert (made[inside] != native[inside]).mean() > 0.9
    assert images.apply_delta(native, delta * 0, inside).tobytes() == native.tobytes()
    assert images.apply_delta(native, delta, inside & False).tobytes() == native.tobytes()


def test_apply_delta_has_the_scale_of_the_model():
    native = np.full((1, 2), 100, np.uint8)
    delta = np.zeros((1, 2, 3), np.float32)
    delta[0, 0] = 2 * 10 / 255
    delta[0, 1] = 2.0
    assert images.apply_delta(native, delta, np.ones((1, 2), bool)).tolist() == [[110, 255]]
    goal = images.to_model(np.array([[13, 250]], np.uint8))
    step = goal - images.to_model(native)
    assert images.apply_delta(native, step, np.ones((1, 2), bool)).tolist() == [[13, 250]]
    with pytest.raises(ValueError, match="do not fit"):
        images.apply_delta(native, delta[..., :1], np.ones((1, 2), bool))


def test_apply_delta_never_clips_what_it_does_not_change():
    native = np.array([[5000, 3000]], np.uint16)
    span = images.Range(0, 4095)
    zero = np.zeros((1, 2, 3), np.float32)
    assert np.array_equal(images.apply_delta(native, zero, np.ones((1, 2), bool), span), native)
    assert images.apply_delta(native, zero + 2, np.ones((1, 2), bool), span).tolist() == [[5000, 4095]]


# --- masks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[0, 1]], "is no mask of flawsmith's own"),
        ([[0, 128, 255]], "is no mask of flawsmith's own"),
        ([[[0, 0, 0], [255, 255, 255]]], "is no mask of flawsmith's own"),
        ([[0], [255]], "1 x 2 pixels, but its photograph 2 x 1.*lies on its side"),
        ([[0, 0, 0]], "3 x 1 pixels, but its photograph 2 x 1; they must be the same$"),
    ],
)
def test_only_what_write_mask_wrote_is_read_unjudged(tmp_path: Path, values, said):
    images.write(tmp_path / "m.png", np.array(values, np.uint8))
    shape = (1, 3) if "own" in said and len(values[0]) == 3 else (1, 2)
    with pytest.raises(DataError, match=said):
        images.read_mask(tmp_path / "m.png", shape)


def test_write_mask(tmp_path: Path):
    mask = np.array([[True, False]])
    images.write_mask(tmp_path / "m.png", mask)
    assert images.read(tmp_path / "m.png").tolist() == [[255, 0]]
    assert np.array_equal(images.read_mask(tmp_path / "m.png", (1, 2, 3)), mask)
    with pytest.raises(DataError, match="a mask is bool"):
        images.write_mask(tmp_path / "m.png", mask.astype(np.uint8))


# --- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pixels", "sentence"),
    [
        ("x.jpg", noise((2, 2)), "loses detail; write .png instead"),
        ("x.webp", noise((2, 2), np.float32), "loses detail; write .tif instead"),
        ("x.gif", noise((2, 2)), "written as .png, .tif or .bmp, not .gif"),
        ("x", noise((2, 2)), "not without a suffix"),
        ("x.png", noise((2, 2), np.float32), "cannot hold float32"),
        ("x.bmp", noise((2, 2), np.uint16), "cannot hold uint16"),
        ("x.png", np.zeros((2, 2), np.int64), "int64 pixels are not written"),
        ("x.png", np.zeros((2, 2, 4), np.uint8), "not the shape of a picture"),
        ("x.png", np.zeros((0, 2), np.uint8), "not the shape of a picture"),
    ],
)
def test_what_is_not_written(tmp_path: Path, name, pixels, sentence):
    with pytest.raises(DataError) as caught:
        images.write(tmp_path / name, pixels)
    assert sentence in str(caught.value) and os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "sentence"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "may not be written")]
)
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch, number, sentence):
    images.write(tmp_path / "x.png", noise((3, 3)))

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunError, match=sentence):
        images.write(tmp_path / "x.png", noise((3, 3), seed=2))
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["x.png"] and np.array_equal(images.read(tmp_path / "x.png"), noise((3, 3)))


def test_folders_are_made(tmp_path: Path):
    images.write(tmp_path / "a" / "b" / "x.png", noise((2, 2)))
    assert images.read(tmp_path / "a" / "b" / "x.png").shape == (2, 2)


def test_lossless_suffix():
    assert [images.lossless_suffix(np.zeros((1, 1), dtype)) for dtype in DTYPES] == [".png", ".png", ".tif"]


def test_pictures_of_8_bits_are_looked_up_as_they_are_computed() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    span = images.Range(10.0, 200.0)
    looked_up = images.levels(picture, span)
    computed = np.stack([images.levels(row, span) for row in picture])  # few values, which no table is made for
    assert picture[0].size < images._MANY < picture.size and looked_up.dtype == np.float32
    np.testing.assert_array_equal(looked_up, computed)
    np.testing.assert_array_equal(images.levels(picture[:, :, 1], span), computed[:, :, 1])
