"""Draw docs/rendered.jpg: damage without a shot on normal factory parts, and what size, severity and contrast do to it.

    python benchmarks/suites/rendered_sheet.py

Of each type the first that is drawn, none was chosen. The photographs are normal pieces of the procedural factory; what
draws on them knows nothing of how they were lit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from sets import HOME

from flawsmith.data import factory, images
from flawsmith.data.masks.poses import Pose
from flawsmith.data.previews import jpeg
from flawsmith.data.rendering.sites import site_mask, site_on
from flawsmith.data.tensors import image_tensor, mask_tensor, picture_of
from flawsmith.files import write_bytes
from flawsmith.generators.rendered import Rendered, RenderedSettings
from flawsmith.types import Condition, Crop

PARTS = ("steel", "cast", "screw", "plastic", "wood")
TYPES = ("scratch", "dent", "crack", "pores", "stain", "contamination", "chip", "rust")
DIALS = (("length", "dent"), ("severity", "scratch"), ("contrast", "dent"))
"""A dial, and the type that it is shown on."""
VALUES = {
    "length": (0.06, 0.09, 0.13, 0.18, 0.25, 0.34, 0.45, 0.6),
    "severity": (0.1, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0),
    "contrast": (0.25, 0.5, 0.75, 1.0, 1.3, 1.7, 2.2, 3.0),
}
_CELL, _NAMES, _BYTES, _SIZE = 118, 84, 300_000, 256


def painted(
    piece: factory.Piece, pose: Pose, defect: str, seed: int, light: Sequence[Crop], settings: RenderedSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Return a piece with damage in a site, uint8 (h,w,3), and where it is, bool (h,w)."""
    generator = Rendered(None, settings)
    generator.learn(light)
    normal, site = images.to_model(piece.image), site_mask(pose, piece.part)
    asked = Condition(image_tensor([normal]), mask_tensor([site]), (piece.surface,), (defect,))
    made = generator.sample(asked, [seed])
    picture = np.rint((picture_of(made.image[0]) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return picture, made.mask[0, 0].numpy() > 0.5


def closeup(picture: np.ndarray, pose: Pose, side: int) -> np.ndarray:
    """Return the square round a site at the size of a cell."""
    x, y = (int(np.clip(round(value), side // 2, _SIZE - side // 2)) for value in pose.array[:, 2])
    square = picture[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2]
    return cv2.resize(square, (_CELL - 4, _CELL - 4), interpolation=cv2.INTER_AREA)


def row(name: str, cells: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Return cells side by side with a name at the left and captions above."""
    left = np.full((_CELL, _NAMES, 3), 255, np.uint8)
    _write(left, name, _CELL // 2)
    body = np.concatenate([left, *(np.pad(one, ((2, 2), (2, 2), (0, 0)), constant_values=255) for one in cells)], 1)
    head = np.full((18, body.shape[1], 3), 255, np.uint8)
    for number, caption in enumerate(captions):
        _write(head[:, _NAMES + number * _CELL :], caption, 13)
    return np.concatenate([head, body]) if captions else body


def _write(picture: np.ndarray, text: str, base: int) -> None:
    cv2.putText(picture, text, (4, base), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)


def sheet() -> np.ndarray:
    """Return the whole picture, uint8 (H,W,3), RGB."""
    rows = []
    for number, surface in enumerate(PARTS):
        pieces = [factory.make(surface, None, seed=seed, size=_SIZE, line=11) for seed in range(6)]
        light = [Crop(images.to_model(one.image), one.part, surface, "") for one in pieces]
        cells = []
        for column, defect in enumerate(TYPES):
            rng = np.random.default_rng((number, column))
            pose = site_on(pieces[0].part, rng, size=(0.18, 0.3))
            picture, _ = painted(pieces[0], pose, defect, 10 * number + column, light, RenderedSettings())
            cells.append(closeup(picture, pose, 112))
        rows.append(row(surface, cells, () if number else TYPES))
    piece = factory.make("steel", None, seed=2, size=_SIZE, line=11)
    light = [Crop(images.to_model(piece.image), piece.part, "steel", "")]
    for dial, defect in DIALS:
        cells = []
        for value in VALUES[dial]:
            pose = site_on(
                piece.part, np.random.default_rng(4), size=(value,) * 2 if dial == "length" else (0.25, 0.25)
            )
            told = {"length": {}, "severity": {"severity": (value, value)}, "contrast": {"contrast": value}}[dial]
            picture, _ = painted(piece, pose, defect, 3, light, RenderedSettings(**told))
            cells.append(closeup(picture, pose, 160 if dial == "length" else 112))
        captions = [f"{dial} {value:g}" for value in VALUES[dial]]
        rows.append(row(defect, cells, captions))
    return np.concatenate(rows)


if __name__ == "__main__":
    write_bytes(HOME / "docs" / "rendered.jpg", jpeg(sheet(), _BYTES))
