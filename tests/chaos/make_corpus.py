"""Write tests/chaos/corpus: small files of every sort that flawsmith reads, from which the fuzzers start.

    python tests/chaos/make_corpus.py

All of them are made here, by the libraries' encoders; none comes from anywhere else. A change of an encoder's version
changes bytes, not what is tried, so the files are committed and this is run when a sort is added.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
import torch
from PIL import Image
from safetensors.torch import save

from flawsmith.config import Config, commented_toml
from flawsmith.data.annotations.run_lengths import compressed, counts_of, packed

CORPUS = Path(__file__).with_name("corpus")
RNG = np.random.default_rng(0)
SIDE = 12
GREY = RNG.integers(0, 255, (SIDE, SIDE), np.uint8)
COLOUR = RNG.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
DEEP = RNG.integers(0, 65535, (SIDE, SIDE), np.uint16)
MASK = np.zeros((SIDE, SIDE), bool)
MASK[3:8, 4:9] = True
EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
"""An orientation of 6: on its side."""


def pillow(picture: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, metadata=None, software=False, **options)
    return stream.getvalue()


def pictures() -> dict[str, bytes]:
    colour, grey = Image.fromarray(COLOUR), Image.fromarray(GREY)
    turned = Image.Exif()
    turned[274] = 6
    palette = colour.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    made = {
        "grey.png": pillow(grey, "PNG"),
        "colour.png": pillow(colour, "PNG"),
        "palette.png": pillow(palette, "PNG"),
        "bits.png": pillow(Image.fromarray(MASK), "PNG"),
        "alpha.png": pillow(colour.convert("RGBA"), "PNG"),
        "turned.png": pillow(grey, "PNG", exif=turned),
        "deep.png": cv2.imencode(".png", DEEP)[1].tobytes(),
        "deep_colour.png": cv2.imencode(".png", np.dstack([DEEP] * 3))[1].tobytes(),
        "mask.png": pillow(Image.fromarray(MASK.view(np.uint8) * 255), "PNG"),
        "grey.jpg": pillow(grey, "JPEG"),
        "turned.jpg": pillow(colour, "JPEG", exif=EXIF),
        "progressive.jpg": pillow(colour, "JPEG", progressive=True),
        "restarts.jpg": cv2.imencode(".jpg", COLOUR, [cv2.IMWRITE_JPEG_RST_INTERVAL, 1])[1].tobytes(),
        "colour.bmp": pillow(colour, "BMP"),
        "palette.bmp": pillow(palette, "BMP"),
        "bits.bmp": pillow(Image.fromarray(MASK), "BMP"),
        "lossy.webp": pillow(colour, "WEBP"),
        "lossless.webp": pillow(colour, "WEBP", lossless=True),
        "alpha.webp": pillow(colour.convert("RGBA"), "WEBP"),
        "grey.tif": tiff(GREY),
        "deflate.tif": tiff(COLOUR, photometric="rgb", compression="zlib"),
        "deep.tif": tiff(DEEP),
        "float.tif": tiff(DEEP.astype(np.float32)),
        "big_endian.tif": tiff(DEEP, byteorder=">"),
        "planar.tif": tiff(np.moveaxis(COLOUR, 2, 0), photometric="rgb", planarconfig="separate"),
        "tiles.tif": tiff(GREY, tile=(16, 16)),
        "big.tif": tiff(GREY, bigtiff=True),
        "strips.tif": tiff(GREY, rowsperstrip=3),
        "pages.tif": tiff(np.stack([GREY] * 2), photometric="minisblack"),
        "lzw.tif": pillow(grey, "TIFF", compression="tiff_lzw"),
        "packbits.tif": pillow(colour, "TIFF", compression="packbits"),
        "palette.tif": pillow(palette, "TIFF"),
        "fax.tif": pillow(Image.fromarray(MASK), "TIFF", compression="group4"),
        "jpeg.tif": pillow(colour, "TIFF", compression="jpeg"),
    }
    return made


def annotations() -> dict[str, bytes]:
    polygon = [4, 3, 9, 3, 9, 8, 4, 8]
    size = {"height": SIDE, "width": SIDE}
    outlines = [
        [polygon],
        {"size": [SIDE, SIDE], "counts": counts_of(MASK)},
        {"size": [SIDE, SIDE], "counts": compressed(counts_of(MASK))},
    ]
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png", **size} for n in range(3)],
        "categories": [{"id": 1, "name": "crack"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": one, "iscrowd": 0}
            for n, one in enumerate(outlines)
        ],
    }
    stamp = base64.b64encode(pillow(Image.fromarray(np.full((3, 4), 255, np.uint8)), "PNG")).decode()
    shapes = [
        ("polygon", [[4, 3], [9, 3], [9, 8], [4, 8]]),
        ("rectangle", [[1, 1], [4, 4]]),
        ("circle", [[5, 5], [7, 5]]),
        ("line", [[0, 0], [5, 5]]),
        ("linestrip", [[0, 0], [5, 5], [5, 9]]),
        ("point", [[3, 3]]),
        ("mask", [[2, 2], [5, 4]]),
    ]
    labelme = {
        "shapes": [
            {"label": "crack", "points": points, "shape_type": sort, **({"mask": stamp} if sort == "mask" else {})}
            for sort, points in shapes
        ],
        "imagePath": "0.png",
        "imageHeight": SIDE,
        "imageWidth": SIDE,
    }
    drawn = [
        ("polygonlabels", {"points": [[30, 30], [70, 30], [70, 70]], "polygonlabels": ["crack"]}),
        ("brushlabels", {"format": "rle", "rle": packed(MASK), "brushlabels": ["crack"]}),
        ("rectanglelabels", {"x": 10, "y": 10, "width": 30, "height": 20, "rotation": 0, "rectanglelabels": ["chip"]}),
    ]
    results = [{"type": sort, "value": value, "original_height": SIDE, "original_width": SIDE} for sort, value in drawn]
    tasks = [
        {
            "data": {"image": "/data/local-files/?d=0.png"},
            "annotations": [{"result": results}],
            "meta": {"product": "magnet"},
        }
    ]
    lines = "0 0.3 0.3 0.7 0.3 0.7 0.7\n1 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n"
    return {
        "coco.json": json.dumps(coco).encode(),
        "labelme.json": json.dumps(labelme).encode(),
        "label_studio.json": json.dumps(tasks).encode(),
        "yolo.txt": lines.encode(),
    }


def others() -> dict[str, bytes]:
    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2, dtype=torch.bfloat16)}
    rows = [{"index": n, "name": "가\n", "scores": {"seam": 0.5, "none": None}, "reasons": []} for n in range(3)]
    tables = """[data]
root = "photographs"
defects = ["crack"]
[data.mask]
values = {crack = 1, chip = [2, "#ff0000"]}
[[data.patterns]]
image = "{defect}/{stem}.png"
[generate]
count = {crack = 3}
[screen.thresholds]
seam = "off"
"""
    return {
        "weights.safetensors": save(tensors, {"note": "text"}),
        "rows.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(),
        "all.toml": commented_toml(Config()).encode(),
        "tables.toml": tables.encode(),
    }


if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    for name, content in {**pictures(), **annotations(), **others()}.items():
        (CORPUS / name).write_bytes(content)
    print(len(list(CORPUS.iterdir())), "files,", sum(path.stat().st_size for path in CORPUS.iterdir()), "bytes")
