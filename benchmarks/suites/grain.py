"""How much grain damage has in samples, against the shots that they are made of.

    python benchmarks/suites/grain.py RUNS [RUNS ...]
    python benchmarks/suites/grain.py --factory FOLDER

RUNS is a folder of finished runs of one set, one per arm, as suite `real_pixels` leaves it ("OUT/screw, 10 shots,
test/runs"); they are only read. `--factory` makes samples of procedural surfaces in FOLDER, whose photographs are 16
bits and float32: bent `crop_paste`, and `patch_synthesis` in re-posed masks and in new shapes.

* **Grain** is the standard deviation of noise after Immerkaer (1996), in the model's values: a smooth change of tone
  counts for nothing. Threads, edges and texture count as grain, in shots and samples alike. (The product's own measure
  has a median in place of the mean, which in 8 bits with little grain knows a few values only.)
* **inside** is the grain under the samples' masks over that under the labels of their type's shots, medians of both.
  What is brighter or darker than the shots' ground has more or less of it.
* **beside** is the same after each is divided by the grain of its own surroundings, up to 16 px away: photographs of
  one camera differ in grain, and a sample must suit its own. On surfaces this is what has to lie within 15 % of 1; on
  parts `inside` is, for the surroundings hold threads, outlines and the backdrop, of one place more than of another.
* **farthest** is the largest distance from 1 over the types, of either.
* **range** says whether all painted values lie inside the product's range.

Labels with fewer than 30 px more than a pixel from their border are left out: their edges would count.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from looks import finished
from sets import RESULTS

from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.windows import grain_map
from flawsmith.files import read_json, write_json
from flawsmith.pipeline import run_all
from flawsmith.run.dataset import load_ranges, load_split
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine

SAMPLES = 20
"""Of each type, at most, that are measured."""
ENOUGH = 30
"""Pixels more than one pixel from a label's border that tell its grain."""
ARMS: dict[str, dict[str, Any]] = {
    "crop_paste, bent": {"generator.name": "crop_paste", "generate.bend": 1.0},
    "patch_synthesis": {"generator.name": "patch_synthesis"},
    "patch_synthesis, new shapes": {"generator.name": "patch_synthesis", "generate.masks": "procedural"},
}
FACTORY = {"magnet": ("crack", "pores"), "tile": ("chip",), "leather": ("cut",)}
"""Procedural surfaces that are photographed with grain, and what goes wrong there."""
DEPTHS = {"16 bits": np.uint16, "float32": np.float32}


def told_apart(picture: np.ndarray, mask: np.ndarray) -> tuple[float, float] | None:
    """Return the grain under a mask, and that over the grain round it; None where the mask is too thin to tell.

    Args:
        picture: float32 (H,W,C) in [-1,1].
        mask: bool (H,W).
    """
    if np.count_nonzero(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))) < ENOUGH:
        return None
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    away = cv2.distanceTransform(1 - padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    ring = (away > 3) & (away < 16)
    if ring.sum() < ENOUGH:
        return None
    local = grain_map(picture)
    local[[0, -1]], local[:, [0, -1]] = np.nan, np.nan  # reflected at the picture's border
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    inside, beside = (float(np.nanmean(local[where])) * np.sqrt(np.pi / 2) / 6 for where in (inner, ring))
    return inside, inside / beside


def by_type(pairs: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return `told_apart` of each picture (H,W,C) and mask of each defect type, float64 (N,2)."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for defect, picture, mask in pairs:
        if (row := told_apart(picture, mask)) is not None:
            rows.setdefault(defect, []).append(row)
    return {defect: np.array(figures) for defect, figures in rows.items()}


def measured(run: Run) -> dict[str, Any]:
    """Return the figures of one run, by defect type, and whether its samples stay inside the product's range."""
    spans, split, within = load_ranges(run), load_split(run), True

    def shown(native: np.ndarray, product: str) -> np.ndarray:
        return np.atleast_3d(images.to_model(native, spans[product]))

    def of_shots() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for shot in split.shots:
            native = images.read(shot.image)
            yield f"{shot.product}, {shot.defect}", shown(native, shot.product), read_label(shot, native.shape)

    def of_samples() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        nonlocal within
        measured_of: Counter[tuple[str, str]] = Counter()
        for sample in run.kept():
            measured_of[sample.product, sample.defect] += 1
            if measured_of[sample.product, sample.defect] > SAMPLES:
                continue
            native, span = images.read(run.path(sample.image)), spans[sample.product]
            mask = images.read_mask(run.path(sample.mask), native.shape[:2])
            painted = native[mask]
            within &= bool(np.isfinite(painted).all() and painted.min() >= span.low and painted.max() <= span.high)
            yield f"{sample.product}, {sample.defect}", shown(native, sample.product), mask

    shots, samples = by_type(of_shots()), by_type(of_samples())
    rows = {}
    for defect in sorted(shots.keys() & samples.keys()):
        inside, beside = np.median(samples[defect], axis=0) / np.median(shots[defect], axis=0)
        rows[defect] = {"inside": round(float(inside), 3), "beside": round(float(beside), 3)}
        rows[defect] |= {"shots": len(shots[defect]), "samples": len(samples[defect])}
    farthest = {
        key: round(max((abs(row[key] - 1) for row in rows.values()), default=0.0), 3) for key in ("inside", "beside")
    }
    return {"types": rows, "farthest": farthest, "range": within}


def factory_runs(out: Path) -> Iterator[tuple[str, str, Run]]:
    """Yield depth, arm and run of samples of procedural parts."""
    for depth, sort in DEPTHS.items():
        root = out / depth
        for product, defects in FACTORY.items():
            if not (root / product).is_dir():
                factory.write_dataset(root, product, defects, normals=6, per_defect=6, seed=3, size=256)
                _deepen(root / product, sort)
        for arm, overrides in ARMS.items():
            settings = {"data.root": str(root), "data.shots": 6, "generate.count": 2, "generate.controls": 0}
            settings |= {f"{stage}.enabled": False for stage in ("screen", "measure", "prove")}
            run = Run.create(
                out / "runs" / depth / arm, load_config(None, {**settings, **overrides, "export.formats": []})
            )
            run_all(run)
            yield depth, arm, run


def _deepen(folder: Path, sort: type) -> None:
    """Write photographs anew as a deeper camera, or a sensor of other units, would have taken them."""
    rng = np.random.default_rng(0)
    for path in sorted(folder.rglob("*.png")):
        if path.parts[-3] == "ground_truth":
            continue
        light = images.read(path).mean(axis=2) + rng.uniform(-0.5, 0.5, (256, 256))  # between the steps of 8 bits
        native = np.clip(light * 257, 0, 65535).astype(np.uint16) if sort is np.uint16 else np.float32(light / 85 - 1.7)
        path.unlink()
        images.write(path.with_suffix(images.lossless_suffix(native)), native)


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of runs of one set each, by arm")
    parser.add_argument("--factory", type=Path, help="make samples of procedural parts there")
    parser.add_argument("--results", type=Path, default=RESULTS / "grain.json")
    args = parser.parse_args()
    if not args.runs and not args.factory:
        parser.error("name folders of runs, or --factory with a folder")
    table: dict[str, dict[str, Any]] = {}
    for folder in args.runs:
        for arm, run in finished(folder).items():
            table.setdefault(folder.parent.name, {})[arm] = measured(run)
    for depth, arm, run in factory_runs(args.factory) if args.factory else ():
        table.setdefault(f"factory, {depth}", {})[arm] = measured(run)
    for entry, arms in table.items():
        for arm, row in arms.items():
            print(
                entry,
                arm,
                row["farthest"],
                {defect: list(figures.values())[:2] for defect, figures in row["types"].items()},
            )
        results = read_json(args.results) if args.results.is_file() else {}
        write_json(args.results, {**results, entry: {"machine": machine(), "arms": arms}})


if __name__ == "__main__":
    main()
