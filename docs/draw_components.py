"""Draw docs/components.jpg: components of procedural parts that are missing, doubled, turned and moved.

    python docs/draw_components.py

Of each part the generator `component` learns from five normal pictures and changes a sixth, with one seed for each
change; none was chosen. Outlined: on the normal picture what it knows, on the others the mask.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from flawsmith.data import factory  # noqa: E402
from flawsmith.files import write_bytes  # noqa: E402
from flawsmith.generators.component import ComponentChange  # noqa: E402
from flawsmith.types import Condition, Crop  # noqa: E402

_PARTS = ("board", "screw", "tablet", "nut")
_CHANGES = ("missing", "doubled", "turned", "moved")
_SIDE, _CELL, _LEARNED = 256, 200, 5
_OUTLINE = (255, 230, 0)


def normal(part: str, seed: int) -> np.ndarray:
    """A normal picture of a part, float32 (SIDE,SIDE,3) in [-1,1]."""
    picture = factory.make(part, None, seed=seed, size=_SIDE, line=1).image
    colours = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
    return colours.astype(np.float32) / 127.5 - 1


def cell(picture: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
    """A picture with its masks outlined, uint8 (CELL,CELL,3)."""
    shown = np.clip((picture + 1) * 127.5, 0, 255).astype(np.uint8)
    shown = cv2.resize(shown, (2 * _SIDE, 2 * _SIDE), interpolation=cv2.INTER_CUBIC)
    for mask in masks:
        large = cv2.resize(mask.astype(np.uint8), (2 * _SIDE, 2 * _SIDE), interpolation=cv2.INTER_NEAREST)
        cv2.drawContours(shown, cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], -1, _OUTLINE, 1)
    return np.asarray(cv2.resize(shown, (_CELL, _CELL), interpolation=cv2.INTER_AREA))


def row(part: str) -> np.ndarray:
    """A part with what became of it, uint8 (CELL,5 CELL,3)."""
    everywhere = np.ones((_SIDE, _SIDE), bool)
    learned = ComponentChange(None, ComponentChange.Settings())
    learned.learn([Crop(normal(part, 10 + number), everywhere, part, "") for number in range(_LEARNED)])
    picture = normal(part, 3)
    cells = [cell(picture, learned.shown(picture, everywhere, part))]
    asked = Condition(
        torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous(), torch.ones(1, 1, _SIDE, _SIDE), (part,), ("x",)
    )
    for number, change in enumerate(_CHANGES):
        generator = ComponentChange(None, ComponentChange.Settings(changes=[change]))
        generator.restore(learned.learned())
        made = generator.sample(asked, [number])
        painted = bool((made.image != asked.normal).any())  # not where there is no room
        mask = made.mask[0, 0].numpy() > 0.5
        cells.append(cell(made.image[0].permute(1, 2, 0).numpy(), [mask] if painted else []))
    return np.concatenate(cells, axis=1)


def main() -> None:
    """Draw and write."""
    head = np.full((22, 5 * _CELL, 3), 255, np.uint8)
    for number, text in enumerate(("normal", *_CHANGES)):
        cv2.putText(head, text, (number * _CELL + 6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    sheet = np.concatenate([head, *map(row, _PARTS)])
    _, stored = cv2.imencode(".jpg", sheet[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    write_bytes(ROOT / "docs" / "components.jpg", stored.tobytes())


if __name__ == "__main__":
    main()
