"""Does damage lie on the part? Samples on parts whose outline is known, for re-posed masks and new shapes.

    python benchmarks/suites/on_part.py --out FOLDER [--only washer]

The procedural factory knows where each of its parts is; flawsmith has to find it in the photograph. Of each part six
production lines (materials, backdrops, light), and of each line eight normal photographs and six shots of each of two
defect types. `crop_paste` and `patch_synthesis` in re-posed masks, and `patch_synthesis` in new shapes, make eight
samples per type. `off` is the share of a label that lies off the part of the normal photograph beneath, in the mean
over samples; `astray` is the share of samples with more than half of the label off the part. Both are given for the
shots as well: damage at an edge is there in part. `outline` is how the part that was found in the normal photographs
overlaps with the true one (intersection over union), in the mean.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sets import RESULTS
from spoilings import overlap

from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.data.masks.parts import part_mask
from flawsmith.files import read_json, write_json
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.progress import progress
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train

PARTS = {
    "screw": ("scratch", "rust"),
    "washer": ("scratch", "rust"),
    "nut": ("scratch", "stain"),
    "tablet": ("stain", "crack"),
}
"""Part -> its two defect types."""
WAYS = {
    "crop_paste": ("crop_paste", "shots"),
    "patch_synthesis": ("patch_synthesis", "shots"),
    "patch_synthesis, new shapes": ("patch_synthesis", "procedural"),
}
"""Name -> generator and masks."""
LINES, NORMALS, SHOTS, SAMPLES, SIZE = 6, 8, 6, 8, 256


def written(root: Path, part: str, line: int) -> tuple[dict[str, np.ndarray], list[float], list[float]]:
    """Write a line's photographs.

    Args:
        root: Where they go, in the layout `mvtec`.
        part: The part.
        line: Its production line.

    Returns:
        Where each normal part is, bool (SIZE,SIZE); how what is found overlaps with each; of each shot the share off.
    """
    outlines, overlaps, off = {}, [], []
    for number in range(NORMALS):
        piece = factory.make(part, None, seed=1000 * line + number, size=SIZE, line=line)
        images.write(root / part / "train" / "good" / f"{number:03d}.png", piece.image)
        outlines[f"{part}/train/good/{number:03d}.png"] = piece.part
        overlaps.append(overlap(part_mask(piece.image), piece.part))
    for place, defect in enumerate(PARTS[part], 1):
        for number in range(SHOTS):
            piece = factory.make(part, defect, seed=1000 * line + 100 * place + number, size=SIZE, line=line)
            images.write(root / part / "test" / defect / f"{number:03d}.png", piece.image)
            images.write_mask(root / part / "ground_truth" / defect / f"{number:03d}_mask.png", piece.mask)
            off.append(share_off(piece.mask, piece.part))
    return outlines, overlaps, off


def share_off(mask: np.ndarray, part: np.ndarray) -> float:
    """Return which share of a label lies off the part."""
    return float((mask & ~part).sum() / mask.sum())


def made(root: Path, folder: Path, way: str, outlines: dict[str, np.ndarray]) -> list[float]:
    """Make samples; return of each which share of its label lies off the part."""
    generator, masks = WAYS[way]
    settings = {
        "data.root": str(root),
        "data.shots": SHOTS,
        "generator.name": generator,
        "generate.masks": masks,
        "generate.count": SAMPLES,
        "generate.controls": 0,
        "screen.enabled": False,
        "measure.enabled": False,
        "prove.enabled": False,
    }
    run = Run.create(folder, load_config(None, settings))
    data = open_dataset(run)
    train(run, data)
    generate(run, data=data)
    samples = [one for one in run.samples() if one.made]
    masks_of = (images.read_mask(run.path(one.mask), (SIZE, SIZE)) for one in samples)
    return [share_off(mask, outlines[one.normal]) for one, mask in zip(samples, masks_of, strict=True)]


def facts(shares: Iterable[float]) -> dict[str, Any]:
    """Return the figures of many labels."""
    each = list(shares)
    return {
        "labels": len(each),
        "off": round(float(np.mean(each)), 4),
        "astray": round(float(np.mean([share > 0.5 for share in each])), 4),
    }


def main() -> None:
    """Parse, make, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where photographs and runs go, or lie")
    parser.add_argument("--only", choices=sorted(PARTS), help="one part")
    parser.add_argument("--entry", default="today", help="the entry of the results")
    parser.add_argument("--results", type=Path, default=RESULTS / "on_part.json")
    args = parser.parse_args()
    results: dict[str, Any] = read_json(args.results) if args.results.is_file() else {}
    parts = [args.only] if args.only else list(PARTS)
    with progress("parts", len(parts) * LINES, "lines") as advance:
        for part in parts:
            shares: dict[str, list[float]] = {name: [] for name in ("shots", *WAYS)}
            every_overlap: list[float] = []
            for line in range(LINES):
                root = args.out / f"{part} {line}" / "photographs"
                outlines, overlaps, off = written(root, part, line)
                shares["shots"] += off
                every_overlap += overlaps
                for way in WAYS:
                    shares[way] += made(root, args.out / f"{part} {line}" / way, way, outlines)
                advance(1, f"{part}, line {line}")
            rows = {name: facts(each) for name, each in shares.items()}
            outline = {"photographs": len(every_overlap), "overlap": round(float(np.mean(every_overlap)), 4)}
            entry = results.get(args.entry, {"parts": {}})
            results[args.entry] = {
                "machine": machine(),
                "parts": {**entry["parts"], part: {"outline": outline, **rows}},
            }
            write_json(args.results, results)
            print(
                f"{part}: outline {outline['overlap']:.3f}",
                *(f"{name}: off {row['off']:.3f}, astray {row['astray']:.3f}" for name, row in rows.items()),
                sep="\n  ",
            )


if __name__ == "__main__":
    main()
