"""Draw docs/peers.jpg: damage without a shot by flawsmith and by two other packages, side by side on factory parts.

    python -m venv peers && peers/bin/pip install -e . defect-synthesis==0.1.0 pyimgano==0.9.1
    peers/bin/python benchmarks/suites/peers_sheet.py

Every package draws as it is installed, with its defaults, of each type the first that comes; none was chosen. The
others are told where the part is, as their interface allows, and choose a place on it themselves; flawsmith's paint
in a site as `generate.without_shots` draws it. Shown are the surroundings of the mask that each gives. Over --seeds
pictures of each type and part it counts what the others' masks leave out: pixels that changed outside of them.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sets import HOME, RESULTS

from flawsmith.data import factory, images
from flawsmith.data.previews import jpeg
from flawsmith.data.rendering.sites import site_mask, site_on
from flawsmith.data.tensors import image_tensor, mask_tensor, picture_of
from flawsmith.files import write_bytes, write_json
from flawsmith.generators.cutpaste import CutPaste
from flawsmith.generators.nsa import NSA
from flawsmith.generators.rendered import Rendered
from flawsmith.interfaces import Generator
from flawsmith.run.manifest import machine
from flawsmith.types import Condition, Crop

ROWS = (
    ("steel", "scratch"),
    ("steel", "rust"),
    ("cast", "crack"),
    ("cast", "pores"),
    ("screw", "scratch"),
    ("screw", "stain"),
    ("wood", "stain"),
    ("plastic", "scratch"),
)
"""Part and type of damage."""
OURS: dict[str, type[Generator]] = {"rendered": Rendered, "cutpaste": CutPaste, "nsa": NSA}
PEERS = ("defect-synthesis", "pyimgano")
SIZE, SIDE, HEAD, BYTES = 256, 132, 24, 300_000
Painted = tuple[np.ndarray, np.ndarray]
"""A picture, uint8 (H,W,3) RGB, and the mask that came with it, bool (H,W)."""


def by_flawsmith(name: str, pieces: list[factory.Piece], defect: str, seed: int) -> Painted:
    """Return the first of the pieces with damage on it; the generator learns from all of them what it needs."""
    first = pieces[0]
    generator = OURS[name](None, OURS[name].Settings())
    generator.learn([Crop(images.to_model(one.image), one.part, one.surface, "") for one in pieces])
    site = site_mask(site_on(first.part, np.random.default_rng(seed), size=(0.18, 0.3)), first.part)
    asked = Condition(image_tensor([images.to_model(first.image)]), mask_tensor([site]), (first.surface,), (defect,))
    made = generator.sample(asked, [seed], steps=1, guidance=1.0)
    picture = np.rint((picture_of(made.image[0]) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return picture, made.mask[0, 0].numpy() > 0.5


def by_defect_synthesis(piece: factory.Piece, defect: str, seed: int) -> Painted:
    import defect_synthesis as peer

    makers: dict[str, Callable[[], Any]] = {
        "scratch": peer.ScratchGenerator,
        "crack": peer.CrackGenerator,
        "pores": peer.PittingGenerator,
        "stain": peer.StainGenerator,
        "rust": lambda: peer.StainGenerator(stain_type="rust"),
    }
    random.seed(seed)  # it draws from the global streams
    np.random.seed(seed)
    made = makers[defect]().apply(_bgr(piece.image), roi_mask=piece.part.astype(np.uint8) * 255)
    return _bgr(made.image), made.anomaly_mask > 0


def by_pyimgano(piece: factory.Piece, defect: str, seed: int) -> Painted:
    from pyimgano.synthesis import AnomalySynthesizer, SynthSpec

    preset = {"pores": "pit"}.get(defect, defect)
    synthesizer = AnomalySynthesizer(SynthSpec(preset=preset))
    made = synthesizer(_bgr(piece.image), seed=seed, roi_mask=piece.part.astype(np.uint8) * 255)
    return _bgr(made.image_u8), made.mask_u8 > 0


def _bgr(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture[..., ::-1])


BY_PEER = {"defect-synthesis": by_defect_synthesis, "pyimgano": by_pyimgano}


def pieces_of(surface: str) -> list[factory.Piece]:
    return [factory.make(surface, None, seed=seed, size=SIZE, line=11) for seed in range(6)]


def sheet() -> np.ndarray:
    """Return the picture: uint8 (H,W,3) RGB."""
    sys.path[:0] = [str(HOME / "docs")]
    from sheets import grid, near

    rows = []
    for number, (surface, defect) in enumerate(ROWS):
        pieces = pieces_of(surface)
        painted = [by_flawsmith(name, pieces, defect, number) for name in OURS]
        painted += [BY_PEER[name](pieces[0], defect, number) for name in PEERS]
        normal = near(pieces[0].image, painted[0][1], SIDE)
        rows.append((f"{surface}: {defect}", [normal, *(near(picture, mask, SIDE) for picture, mask in painted)]))
    headings = ("normal", *OURS, *(f"{name} {version(name)}" for name in PEERS))
    return grid(headings, rows, SIDE, HEAD, 0.38)


def counted(name: str, seeds: int) -> dict[str, Any]:
    """Return what a peer's masks say of what it changed, over several pictures of each type and part."""
    outside, inside, empty, pictures, seconds = [], [], 0, 0, 0.0
    for surface, defect in ROWS:
        piece = pieces_of(surface)[0]
        for seed in range(seeds):
            begun = time.process_time()
            picture, mask = BY_PEER[name](piece, defect, seed)
            seconds += time.process_time() - begun
            changed = (picture != piece.image).any(axis=2)
            pictures += 1
            if not changed.any() or not mask.any():
                empty += 1
                continue
            outside.append(float((changed & ~mask).sum() / changed.sum()))
            inside.append(float((mask & ~changed).sum() / mask.sum()))
    return {
        "version": version(name),
        "pictures": pictures,
        "nothing_drawn": empty,
        "with_changes_outside_the_mask": sum(share > 0 for share in outside),
        "changed_pixels_outside_the_mask": round(float(np.mean(outside)), 4),
        "mask_pixels_unchanged": round(float(np.mean(inside)), 4),
        "processor_seconds_a_picture": round(seconds / pictures, 4),
    }


def main() -> None:
    """Parse, draw, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="pictures of each type and part that are counted")
    parser.add_argument("--picture", type=Path, default=HOME / "docs" / "peers.jpg")
    parser.add_argument("--results", type=Path, default=RESULTS / "peers.json")
    args = parser.parse_args()
    try:
        for name in PEERS:
            version(name)
    except PackageNotFoundError as error:
        raise SystemExit(f"error: {error.name} is not installed; the head of this file says how") from None
    write_bytes(args.picture, jpeg(sheet(), BYTES))
    peers = {name: counted(name, args.seeds) for name in PEERS}
    write_json(args.results, {"machine": machine(), "size": SIZE, "rows": [list(row) for row in ROWS], "peers": peers})
    for name, row in peers.items():
        print(name, row)


if __name__ == "__main__":
    main()
