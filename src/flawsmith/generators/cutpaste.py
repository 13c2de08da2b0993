"""CutPaste: a piece of the normal picture, cut out and pasted elsewhere on it. It needs no shot.

Li, Sohn, Yoon, Pfister: "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization" (CVPR 2021),
section 2. A patch is a rectangle of 2 to 15 % of the picture, up to 3.3 times as long as wide; a scar is a thin
rectangle, turned by up to 45 degrees. Either is varied a little in brightness, contrast and saturation. `crop_paste`
is another thing: it pastes damage of real shots.

What differs: the picture is here the window round the asked mask, of 256 px or more; a scar's sides are shares of the
window instead of pixels of a picture of 256; the label stays inside where damage may lie; and of several draws one that
shows is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from flawsmith import config
from flawsmith.data.patches.on_normals import Drawn, drawn_rows, most_visible
from flawsmith.interfaces import Generator
from flawsmith.types import Condition, Generated

_AREA, _LONGEST = (0.02, 0.15), 1 / 0.3
"""A patch's share of the picture, and its sides' greatest ratio."""
_SCAR_WIDTH, _SCAR_LENGTH, _SCAR_TURN = (2 / 256, 16 / 256), (10 / 256, 25 / 256), 45
"""A scar's sides as shares of the picture's, and the greatest angle in degrees."""
_TRIES = 16
"""So many pieces are pasted, each on the picture as it was, until one is seen well."""


class CutPasteSettings(config.Settings):
    """What is cut, and how its colours are varied."""

    kind: Annotated[Literal["patch", "scar", "both"], config.Affects("generate")] = "both"
    """patch: a rectangle; scar: a thin turned one; both: one of the two, drawn for each sample (the paper's 3-way)."""
    jitter: Annotated[float, Field(ge=0, le=1), config.Affects("generate")] = 0.1
    """Brightness, contrast and saturation of the piece are varied by up to this share (the paper's: 0.1)."""


class CutPaste(Generator):
    """Paste a piece of the window elsewhere inside the asked mask. Learns nothing."""

    Settings: ClassVar[type[config.Settings]] = CutPasteSettings
    needs_backbone: ClassVar[bool] = False
    needs_mask: ClassVar[bool] = False
    without_shots: ClassVar[Literal["", "new", "always"]] = "new"
    paints_controls: ClassVar[bool] = False
    native: ClassVar[bool] = True
    settings: CutPasteSettings

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        """Damage each row inside its mask (everywhere, when the mask is empty); `steps` and `guidance` mean nothing."""
        return drawn_rows(asked, seeds, self._damaged)

    def _damaged(self, normal: np.ndarray, allowed: np.ndarray, product: str, rng: np.random.Generator) -> Drawn:
        places = np.argwhere(allowed)

        def pasted() -> Iterator[Drawn]:
            for _ in range(_TRIES):
                piece, angle = self._piece(normal, rng)
                picture, cover = _laid(piece, places[int(rng.integers(len(places)))], angle, normal)
                yield picture, cover & allowed

        return most_visible(pasted(), normal, allowed)

    def _piece(self, normal: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """Return a piece of a picture, its colours varied, float32 (h,w,3), and by how many degrees it is turned."""
        height, width = normal.shape[:2]
        scar = self.settings.kind == "scar" or (self.settings.kind == "both" and rng.random() < 0.5)
        angle = 0.0
        if scar:
            sides = np.array([rng.uniform(*_SCAR_LENGTH) * height, rng.uniform(*_SCAR_WIDTH) * width])
            angle = float(rng.uniform(-_SCAR_TURN, _SCAR_TURN))
        else:
            aspect = float(np.exp(rng.uniform(-1, 1) * np.log(_LONGEST)))
            side = np.sqrt(rng.uniform(*_AREA) * height * width)
            sides = np.array([side * np.sqrt(aspect), side / np.sqrt(aspect)])
        rows, columns = np.clip(np.rint(sides), 1, (height, width)).astype(int)
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        return self._jittered(normal[top : top + rows, left : left + columns], rng), angle

    def _jittered(self, piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        unit = (piece + 1) / 2
        brightness, contrast, saturation = 1 + self.settings.jitter * rng.uniform(-1, 1, 3)
        unit = unit * brightness
        unit = (unit - unit.mean()) * contrast + unit.mean()
        grey = unit.mean(axis=2, keepdims=True)
        return np.asarray(np.clip(grey + (unit - grey) * saturation, 0, 1) * 2 - 1, np.float32)


def _laid(piece: np.ndarray, centre: np.ndarray, angle: float, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay a piece over a picture with its centre at (row, column), turned: the picture (h,w,3), and where it lies."""
    rows, columns = piece.shape[:2]
    matrix = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), angle, 1.0)
    matrix[:, 2] += np.rint(centre[::-1] - np.array([columns - 1, rows - 1]) / 2)
    size = normal.shape[1], normal.shape[0]
    # Of a piece that is not turned every pixel keeps its value.
    cover = cv2.warpAffine(np.ones((rows, columns), np.uint8), matrix, size, flags=cv2.INTER_NEAREST) > 0
    laid = cv2.warpAffine(piece, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(cover[:, :, None], laid, normal), cover
