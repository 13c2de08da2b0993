"""Bytes -> what a label stores: palette indices, alpha and colours side by side, because each of them may be the label.

`coding.decode` gives what a photograph shows. A label is read for what its numbers mean, so nothing is looked up,
blended, scaled or turned here.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from flawsmith.data.codecs.coding import PILLOW, header, pixels_of
from flawsmith.data.codecs.png import decode_deep_png, essential_png
from flawsmith.data.codecs.table import Unreadable
from flawsmith.data.codecs.tiff import decode_tiff_indices
from flawsmith.data.codecs.whole import require_whole_jpeg


@dataclass(frozen=True, slots=True)
class StoredLabel:
    """The samples of a label as its file holds them; rows and columns are not turned."""

    values: np.ndarray
    """(H,W) grey or palette indices, or (H,W,3) RGB; uint8, uint16 or float32. One bit is 0 and 255."""
    palette: np.ndarray | None
    """uint8 (N,3) RGB when `values` are indices into it, else None."""
    alpha: np.ndarray | None
    """(H,W), the type of `values`; None where the file has none."""
    orientation: int
    """The EXIF orientation, 1 to 8; 1 where the file has none."""
    lossy: bool
    """True for JPEG and lossy WebP, whose values are not exact."""
    pages: int = 1
    """Pictures in the file; these are the samples of the first."""


def decode_label(data: bytes) -> StoredLabel:
    """Return the samples of a label.

    Raises:
        Unreadable: as `coding.decode`; other exceptions come from the libraries when the bytes are damaged.
    """
    facts, orientation = header(io.BytesIO(data))
    palette: np.ndarray | None = None
    lossy = facts.codec == "JPEG" or facts.codec == "WebP" and b"VP8 " in data[:64]
    if facts.codec == "TIFF":
        pixels, palette = decode_tiff_indices(data)
    elif facts.depth == 16:
        pixels = decode_deep_png(essential_png(data))
    else:
        plain = essential_png(data) if facts.codec == "PNG" else data
        if facts.codec == "JPEG":
            require_whole_jpeg(data)
        with PILLOW[facts.codec](io.BytesIO(plain)) as picture:
            picture.load()
            if picture.mode == "P":
                palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
            pixels = pixels_of(picture, "L" if picture.mode == "1" else picture.mode)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    samples = pixels.shape[2]
    alpha = pixels[..., -1] if samples in (2, 4) else None
    if pixels.dtype == np.uint16 and samples == 4 and facts.mode == "grey":
        pixels = pixels[..., :1]  # OpenCV repeats the grey of a PNG with alpha
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise Unreadable("some of its samples are infinite or not a number; replace them by finite values")
    values = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    return StoredLabel(values, palette, alpha, orientation, lossy, facts.pages)
