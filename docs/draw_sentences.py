"""Draw docs/sentences.jpg: what `--prompt` makes of four sentences on factory parts.

    python docs/draw_sentences.py

The places are drawn once, on the first normal photograph of each part. Of each sentence the first four samples of
crop_paste; none was chosen. Outlined: the masks.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

import flawsmith as fs  # noqa: E402
from flawsmith.data import factory, images  # noqa: E402
from flawsmith.data.masks.part_frames import PartFrame  # noqa: E402
from flawsmith.data.masks.parts import part_mask  # noqa: E402
from flawsmith.files import write_bytes  # noqa: E402

SENTENCES = (
    ("screw", "a large scratch on the screw head", {}),
    ("nut", "two short scratches beside the hole", {}),
    ("washer", "a scratch along the left edge", {}),
    ("steel", "a 4 mm long and 0.3 mm wide scratch, vertical", {"data.pixel_mm": 0.05}),
)
SIDE, COUNT, HEAD = 200, 4, 22


def places_of(product: str, photograph: Path, folder: Path) -> dict[str, Any]:
    """Draw a part's place on its photograph: the wide fifth of a screw, the middle of a nut."""
    picture = images.read(photograph)
    part, place = part_mask(picture), np.zeros(picture.shape[:2], bool)
    if product == "screw":
        rows, columns = np.nonzero(part)
        frame = np.linalg.inv(PartFrame.of(part).matrix())
        along = frame[0] @ np.stack([columns, rows, np.ones_like(rows)])
        wide = along < np.quantile(along, 0.2)
        place[rows[wide], columns[wide]] = True
    elif product == "nut":
        frame = PartFrame.of(part)
        y, x = np.mgrid[: part.shape[0], : part.shape[1]]
        place = np.hypot(x - frame.x, y - frame.y) < 0.28 * np.sqrt(part.sum())
    else:
        return {}
    mask = folder / f"{product}.png"
    images.write_mask(mask, place)
    name = "screw_head" if product == "screw" else "hole"
    drawn_on = photograph.relative_to(folder / "set").as_posix()
    return {name: {"mask": str(mask), "drawn_on": drawn_on, "product": product}}


def row(product: str, sentence: str, changes: dict[str, Any], folder: Path) -> np.ndarray:
    """The samples of a sentence, side by side under its words: uint8 (H,W,3)."""
    root = folder / "set"
    factory.write_dataset(root, product, ("scratch",), normals=6, per_defect=5, seed=2, size=256, test_normals=1)
    first = min((root / product / "train" / "good").glob("*.png"))
    settings = {
        "data.root": str(root),
        "data.products": [product],
        "data.shots": 4,
        "data.places": places_of(product, first, folder),
        "generator.name": "crop_paste",
        "generate.count": COUNT,
        "generate.controls": 0,
        "generate.prompt": sentence,
        **changes,
    }
    run = fs.Run.create(folder / f"run {product}", fs.load_config(None, settings))
    fs.train(run)
    fs.generate(run)
    cells = []
    for sample in run.samples():
        if not sample.made:
            cells.append(np.full((SIDE, SIDE, 3), 255, np.uint8))
            continue
        picture = images.read(run.path(sample.image))
        mask = images.read_mask(run.path(sample.mask), picture.shape).astype(np.uint8)
        shown = picture.copy() if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
        around = cv2.dilate(mask, np.ones((7, 7), np.uint8))  # the damage itself stays visible
        outlines = cv2.findContours(around, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(shown, outlines, -1, (255, 230, 0), 1)
        cells.append(cv2.resize(shown, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    head = np.full((HEAD, COUNT * SIDE, 3), 255, np.uint8)
    cv2.putText(head, sentence, (6, HEAD - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([head, np.concatenate(cells, axis=1)])


def main() -> None:
    """Draw and write."""
    with tempfile.TemporaryDirectory() as folder:
        sheet = np.concatenate([row(*sentence, Path(folder)) for sentence in SENTENCES])
    _, stored = cv2.imencode(".jpg", sheet[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    write_bytes(ROOT / "docs" / "sentences.jpg", stored.tobytes())


if __name__ == "__main__":
    main()
