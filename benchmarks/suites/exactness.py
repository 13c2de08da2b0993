"""Exactness: outside its mask, every pixel of a made picture is the photograph's, for each generator and source sort.

    python benchmarks/suites/exactness.py --out FOLDER [--only GENERATOR ...]

Each generator that is registered makes samples and negative controls on procedural parts and surfaces that are stored
in every sort of `source_sorts.py`: grey and colours, 8, 12, 16 bits and float32, with alpha, with a palette, turned by
EXIF, with pixels that were not measured. A sort is a product with photographs of four shapes, from 64 x 64 to
300 x 200 px. Masks are re-posed and procedural, damage is painted over, as a residual and as the generator likes.
Networks train for two steps: what they paint looks like nothing, and only what lies round it counts here.

Of each pair, photograph and made picture are read by other libraries than flawsmith reads them with. It holds when

- both have the same shape, depth and number of colours, and no pixel outside the mask differs in a bit (NaN included),
- the mask is a PNG of 8 grey bits with the photograph's rows and columns, holds 0 and 255, and marks something,
- of a sample, at least one pixel inside the mask differs (a control may come out as the photograph).

It goes on where it was stopped; what was checked is checked again in a second. Time is processor time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import source_sorts
from PIL import Image
from sets import RESULTS
from source_sorts import SORTS

from flawsmith import registry
from flawsmith.config import load_config
from flawsmith.data import factory
from flawsmith.files import write_json
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.progress import progress
from flawsmith.run.records import Sample
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train

_PIECES = ("magnet", "screw", "wood", "washer")
_TYPES = ("chip", "pit", "streak")
"""Names of the defect types; `_SETTINGS` paints each in another way."""
_SHAPES = ((64, 64), (96, 160), (200, 72), (300, 200))
"""Rows and columns of the normal photographs."""
_SHOTS = ((128, 128), (96, 150))
_SAMPLES = 6
"""Of each sort."""
_SETTINGS = f"""[train]
scope = "all"
steps = 2
views = 1
batch = 8
[generate]
count = {_SAMPLES}
steps = 2
guidance = 1.0
controls = 0.34
feather = 2.0
paint = {{ pit = "replace", streak = "residual" }}
masks = {{ streak = "mixed", chip = "shots", pit = "shots" }}
[screen]
enabled = false
[measure]
enabled = false
[prove]
enabled = false
[export]
formats = []
"""


def photographs(root: Path) -> None:
    """Write the set: each sort a product with four normal photographs and two shots of one defect type."""
    for number, (name, sort) in enumerate(SORTS.items()):
        surface, defect = _PIECES[number % len(_PIECES)], _TYPES[number % len(_TYPES)]
        suits = "scratch" if "scratch" in factory.defects_of(surface) else factory.defects_of(surface)[0]
        for place, shape in enumerate((*_SHAPES, *_SHOTS)):
            damaged = place >= len(_SHAPES)
            side = max(shape)
            rng = np.random.default_rng((number, place))
            seed = 100 * number + place
            piece = factory.make(surface, suits if damaged else None, seed=seed, size=side, line=number)
            top, left = ((side - length) // 2 for length in shape)
            spot = np.s_[top : top + shape[0], left : left + shape[1]]
            mask, picture = piece.mask[spot].copy(), piece.image[spot].copy()
            if damaged and mask.sum() < 20:  # it lies where the piece was cut off
                cv2.circle(image := mask.view(np.uint8), (shape[1] // 2, shape[0] // 2), 6, 1, -1)
                picture[image > 0] //= 2
            folder = root / name / ("test" if damaged else "train") / (defect if damaged else "good")
            folder.mkdir(parents=True, exist_ok=True)
            sort.write(folder / f"{place}{sort.suffix}", sort.content(np.ascontiguousarray(picture), rng))
            if damaged:
                labels = root / name / "ground_truth" / defect
                labels.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(labels / f"{place}_mask.png"), mask.astype(np.uint8) * 255)


def made(generator: str, root: Path, folder: Path) -> Run:
    """Make the samples of one generator, or go on with them."""
    file = folder.with_suffix(".toml")
    file.write_text(f'[generator]\nname = "{generator}"\n[data]\nroot = "{root}"\nshots = 2\n{_SETTINGS}')
    run = Run.open(folder) if folder.exists() else Run.create(folder, load_config(file))
    opened = open_dataset(run)
    train(run, opened)
    generate(run, data=opened)
    return run


_photograph = lru_cache(8)(source_sorts.read)


def faults(run: Run, root: Path, row: Sample) -> tuple[list[str], int]:
    """Return what is wrong with one pair, in words, and how many pixels lie outside its mask."""
    path = run.path(row.image)
    before, after = _photograph(root / row.normal), source_sorts.read(path)
    if before.shape != after.shape or before.dtype != after.dtype:
        return [f"{after.shape} {after.dtype} for a photograph of {before.shape} {before.dtype}"], 0
    with Image.open(run.path(row.mask)) as picture:
        mode, values = (picture.format, picture.mode), np.asarray(picture)
    if mode != ("PNG", "L") or values.shape != before.shape[:2]:
        return [f"its mask is {mode} of {values.shape}"], 0
    wrong = [] if set(np.unique(values).tolist()) <= {0, 255} else ["its mask holds other values than 0 and 255"]
    mask = values > 0
    # Bits, not values: NaN equals itself, and 0.0 is not -0.0.
    bits = {1: np.uint8, 2: np.uint16, 4: np.uint32}[before.dtype.itemsize]
    pairs = (np.ascontiguousarray(pixels).view(bits).reshape(*mask.shape, -1) for pixels in (before, after))
    differs = np.not_equal(*pairs).any(axis=2)
    if not mask.any():
        wrong.append("its mask is empty")
    if count := int((differs & ~mask).sum()):
        wrong.append(f"{count} pixels outside its mask differ from the photograph")
    if not (differs & mask).any() and row.role == "sample":
        wrong.append("nothing inside its mask differs from the photograph")
    return wrong, int((~mask).sum())


def checked(generator: str, run: Run, root: Path) -> dict[str, Any]:
    """Return what all pairs of a generator come to."""
    samples, controls = ([row for row in rows if row.made] for rows in (run.samples(), run.controls()))
    wrong: list[str] = []
    outside = 0
    with progress(f"check {generator}", len(samples) + len(controls), "pairs") as advance:
        for row in (*samples, *controls):
            found_wrong, pixels = faults(run, root, row)
            outside += pixels
            wrong += [f"{row.role} {row.index} on {row.normal}: {reason}" for reason in found_wrong]
            advance()
    of_sort = Counter(row.product for row in samples)
    return {
        "samples": len(samples),
        "controls": len(controls),
        "given_up": sum(not row.made for row in run.samples()),
        "fewest_of_a_sort": min(of_sort.get(name, 0) for name in SORTS),
        "pixels_outside": outside,
        "wrong": wrong,
    }


def main() -> None:
    """Make, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the photographs and runs go")
    parser.add_argument("--only", nargs="+", choices=sorted(registry.entries("generators")))
    parser.add_argument("--results", type=Path, default=RESULTS / "exactness.json")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    root = args.out / "photographs"
    if not root.is_dir():
        photographs(args.out / "unfinished")
        (args.out / "unfinished").rename(root)
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    rows: dict[str, Any] = results.get("generators", {})
    for generator in args.only or sorted(registry.entries("generators")):
        begun = time.process_time()
        run = made(generator, root, args.out / generator)
        row = checked(generator, run, root)
        seconds = time.process_time() - begun
        before = rows.get(generator, {}).get("processor_seconds", 0.0)
        rows[generator] = {**row, "processor_seconds": round(max(seconds, before), 1)}
        print(generator, rows[generator], flush=True)
        whole = {name: sum(row[name] for row in rows.values()) for name in ("samples", "controls", "pixels_outside")}
        whole |= {
            "pairs": whole["samples"] + whole["controls"],
            "wrong": sum(len(row["wrong"]) for row in rows.values()),
        }
        results = {"machine": machine(), "sorts": list(SORTS), "shapes": _SHAPES, "all": whole, "generators": rows}
        write_json(args.results, results)
    print(results["all"])
    if results["all"]["wrong"]:
        raise SystemExit("not exact: see `wrong` in the results")


if __name__ == "__main__":
    main()
