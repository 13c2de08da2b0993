"""data/codecs/metadata.py: what a photograph's file says beside its pixels travels into what is painted on it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.data.codecs.metadata import Metadata, upright_exif
from flawsmith.data.codecs.metadata_reading import metadata_of
from flawsmith.files import read_json
from flawsmith.run.folder import Run
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train

RGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


def exif_block(orientation: int, order: str = "<") -> bytes:
    """An EXIF block by hand: orientation and maker, then the directory of a preview."""
    maker = b"Camera Works\0"
    first = 8 + 2 + 2 * 12 + 4
    entries = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    entries += struct.pack(order + "HHII", 271, 2, len(maker), first)
    preview = struct.pack(order + "HHHII", 1, 259, 3, 1, 6) + bytes(4)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return (
        start + struct.pack(order + "H", 2) + entries + struct.pack(order + "I", first + len(maker)) + maker + preview
    )


def saved(form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, form, **options)
    return stream.getvalue()


def carried(content: bytes, pixels: np.ndarray, path: Path) -> Any:
    """Write pixels as a file that says what another one says; return it, opened by Pillow."""
    images.write(path, pixels, metadata_of(io.BytesIO(content)))
    assert np.array_equal(images.read(path), pixels)
    return Image.open(io.BytesIO(path.read_bytes()))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_profile_resolution_and_exif(form: str, order: str, tmp_path: Path) -> None:
    exif = b"Exif\0\0" * (form != "WEBP") + exif_block(6, order)
    content = saved(form, icc_profile=RGB, exif=exif, **({} if form == "WEBP" else {"dpi": (300, 150)}))
    (tmp_path / f"photograph.{form.lower()}").write_bytes(content)
    upright = images.read(tmp_path / f"photograph.{form.lower()}")
    assert upright.shape == (30, 20, 3), "it is turned"
    made = carried(content, upright, tmp_path / "made.png")
    assert made.info["icc_profile"] == RGB
    if form != "WEBP":
        assert made.info["dpi"] == pytest.approx((150, 300), abs=0.1), "turned with the picture"
    tags = made.getexif()
    assert tags[271] == "Camera Works" and tags.get(274) == 1
    assert images.orientation(tmp_path / "made.png") == 1 and not tags.get_ifd(1), "upright, without the old preview"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiff(dtype: type, tmp_path: Path) -> None:
    stream = io.BytesIO()
    pixels = COLOUR.astype(dtype)
    tifffile.imwrite(
        stream, pixels, photometric="rgb", iccprofile=RGB, resolution=(118.11, 59.055), resolutionunit="CENTIMETER"
    )
    path = tmp_path / f"made{images.lossless_suffix(pixels)}"
    images.write(path, pixels, metadata_of(io.BytesIO(stream.getvalue())))
    assert np.array_equal(images.read(path), pixels)
    again = metadata_of(io.BytesIO(path.read_bytes()))
    assert again.profile == RGB and again.resolution == pytest.approx((11811, 5905.5), rel=1e-3)


def test_chunks_that_stand_for_a_profile(tmp_path: Path) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    plain = saved("PNG")
    content = plain[:33] + chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sRGB", b"\0") + plain[33:]
    made = carried(content, COLOUR, tmp_path / "made.png")
    assert made.info["gamma"] == 0.45455 and made.info["srgb"] == 0


def test_nothing_said_nothing_written(tmp_path: Path) -> None:
    assert metadata_of(io.BytesIO(saved("PNG"))) == Metadata() == metadata_of(io.BytesIO(saved("JPEG")))
    assert metadata_of(io.BytesIO(saved("BMP", dpi=(96, 96)))).resolution == pytest.approx((3780, 3780), abs=1)
    images.write(tmp_path / "plain.png", COLOUR)
    images.write(tmp_path / "made.png", COLOUR, Metadata())
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "made.png").read_bytes()


def test_a_profile_of_other_channels_is_left_out() -> None:
    stream = io.BytesIO()
    Image.fromarray(COLOUR[..., 0]).save(stream, "PNG", icc_profile=RGB, dpi=(300, 300))
    metadata = metadata_of(stream)
    assert metadata.profile == b"" and metadata.resolution == pytest.approx((11811, 11811))


TORN = {
    "no block": b"nothing of the kind",
    "too short": b"II*\0\x08\0\0\0",
    "its directory lies elsewhere": b"II*\0\xff\xff\xff\xff" + bytes(20),
    "more entries than bytes": b"II*\0\x08\0\0\0\xff\xff" + bytes(20),
}


@pytest.mark.parametrize("name", TORN)
def test_a_torn_exif_block_is_left_out(name: str, tmp_path: Path) -> None:
    assert upright_exif(TORN[name]) == b""


def test_a_torn_profile_is_left_out(tmp_path: Path) -> None:
    plain = saved("PNG")
    body = b"x\0\0not deflated"
    torn = struct.pack(">I", len(body)) + b"iCCP" + body + struct.pack(">I", zlib.crc32(b"iCCP" + body))
    assert metadata_of(io.BytesIO(plain[:33] + torn + plain[33:])) == Metadata()


def test_samples_and_controls_say_what_their_photographs_say(factory_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set" / "magnet"
    for path in sorted((factory_root / "magnet").rglob("*.png")):
        target = root / path.relative_to(factory_root / "magnet")
        target.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(path.read_bytes()))
        truth = "ground_truth" in path.parts
        picture.save(target, **({} if truth else {"dpi": (600, 600), "exif": exif_block(1)}))
    settings = {"data.root": str(tmp_path / "set"), "data.shots": 2, "generator.name": "crop_paste"}
    settings |= {"generate.count": 1, "generate.controls": 1.0, "prove.enabled": False, "screen.enabled": False}
    run = Run.create(tmp_path / "run", load_config(None, settings))
    train(run)
    generate(run)
    made = [run.path(row.image) for row in (*run.samples(), *run.controls())]
    assert made and read_json(run.path("manifest.json"))["stages"]["generate"]["finished"]
    for path in made:
        picture = Image.open(io.BytesIO(path.read_bytes()))
        assert picture.info["dpi"] == pytest.approx((600, 600), abs=0.1) and picture.getexif()[271] == "Camera Works"
