"""What large sets and large photographs cost: `flawsmith check` on many files, and painting on line-scan photographs.

    python benchmarks/suites/large.py --out /tmp/large [--files 100000] [--only check|painting|pasting|patches]

check      seconds and peak memory of `flawsmith check` on so many files of 64 x 64 px (24 normal parts per defect).
painting   peak memory of a run on grey photographs of 16384 x 2000 px (two normal parts, two shots, batch 4),
           beside what `flawsmith check` estimated for it.
pasting    pairs per processor second of `generate` with crop_paste: 60 samples on eight photographs each of a surface
           and a part, of 256 and 2048 px, grey and in colour, with damage of up to 2000 px; reading and writing count.
patches    the same for crop_paste and patch_synthesis in turn on a surface, with damage of about 2,000 px on 256 px,
           10,000 px on 1024 px and 400 x 400 px on 4096 px: processor seconds per pair, their ratio, peak memory.

Every measurement but `pasting` is a process of its own; its peak is what the system says (ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sets import RESULTS

from flawsmith.config import load_config
from flawsmith.data import factory
from flawsmith.files import write_json
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.records import Sample
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train

_SIDE, _PER_DEFECT = 64, 24
_LINE = (2000, 16384)
_DAMAGE = 12
_SIDES = (256, 2048)
_PASTED = 30
"""Samples of each product."""
_DAMAGES = ((256, (50, 40), 32, 8), (1024, (110, 90), 16, 8), (4096, (400, 400), 4, 8), (4096, (400, 400), 4, 1))
"""Side of the photographs, height and width of the damage in px, samples, `generate.batch`."""
_GENERATORS = ("crop_paste", "controlnet_inpaint")


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


def many(root: Path, files: int) -> None:
    """Write a set of about so many files in the MVTec layout; no two photographs are equal."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (_SIDE, _SIDE), np.uint8)
    defects = files // (_PER_DEFECT + 2)
    for number in range(files - 2 * defects):
        picture = base.copy()
        picture[number % _SIDE] = rng.integers(0, 255, _SIDE)
        picture[:, number // _SIDE % _SIDE] = number % 251
        _save(root / f"part{number % 4}/train/good/{number:06d}.png", picture)
    for number in range(defects):
        picture, mask = base.copy(), np.zeros((_SIDE, _SIDE), np.uint8)
        top, left = rng.integers(0, _SIDE - _DAMAGE, 2)
        spot = np.s_[top : top + _DAMAGE, left : left + _DAMAGE]
        picture[spot], mask[spot] = rng.integers(0, 255, (_DAMAGE, _DAMAGE)), 255
        picture[0] = rng.integers(0, 255, _SIDE)
        home = root / f"part{number % 4}"
        _save(home / f"test/dent/{number:06d}.png", picture)
        _save(home / f"ground_truth/dent/{number:06d}_mask.png", mask)


def lines(root: Path) -> None:
    """Write four grey line-scan photographs, two of them with a dark spot."""
    rng = np.random.default_rng(1)
    for number in range(4):
        picture = rng.integers(90, 130, _LINE, np.uint8)
        if number < 2:
            _save(root / f"strip/train/good/{number}.png", picture)
            continue
        mask = np.zeros(_LINE, np.uint8)
        cv2.circle(mask, (5000 + 3000 * number, 900), 40, 255, -1)
        picture[mask > 0] = 30
        _save(root / f"strip/test/spot/{number}.png", picture)
        _save(root / f"strip/ground_truth/spot/{number}_mask.png", mask)


def measured(words: list[str]) -> tuple[str, float, float]:
    """Run the command line; return its output, its seconds and its peak memory in GB."""
    read, write = os.pipe()
    begun = time.time()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        os.execv(sys.executable, [sys.executable, "-m", "flawsmith", *words])
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as stream:
        output = stream.read()
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"flawsmith {' '.join(words)}: ended with {status}\n{output[-2000:]}")
    return output, time.time() - begun, usage.ru_maxrss / 1e6


def check(out: Path, files: int) -> dict[str, Any]:
    """Measure `flawsmith check` on many files."""
    root = out / f"many-{files}"
    if not root.is_dir():
        many(root, files)
    config = out / "many.toml"
    config.write_text(f'[data]\nroot = "{root}"\n[generator]\nname = "crop_paste"\n[prove]\nagainst = []\n')
    output, seconds, memory = measured(["check", str(config)])
    sample = next((line for line in output.splitlines() if "decoded" in line), "")
    return {
        "files": files,
        "pixels": [_SIDE, _SIDE],
        "seconds": round(seconds, 1),
        "gb": round(memory, 2),
        "note": sample,
    }


def painting(out: Path) -> list[dict[str, Any]]:
    """Measure a run's memory on large photographs, with each of two generators."""
    root = out / "lines"
    if not root.is_dir():
        lines(root)
    rows = []
    for name in _GENERATORS:
        config = out / f"{name}.toml"
        config.write_text(
            f'[data]\nroot = "{root}"\nshots = 2\n[generator]\nname = "{name}"\n'
            "[train]\nsteps = 2\nviews = 2\nbatch = 4\n[generate]\ncount = 4\nsteps = 2\nbatch = 4\ncontrols = 0\n"
            "[measure]\nenabled = false\n[prove]\nenabled = false\n[export]\nformats = []\n"
        )
        output, _, _ = measured(["check", str(config)])
        estimate = re.search(r"memory\s*│ about ([\d.]+) GB", output)
        _, seconds, memory = measured(["run", str(config), "--out", str(out / f"run-{name}-{os.getpid()}")])
        row = {
            "generator": name,
            "pixels": list(_LINE),
            "batch": 4,
            "gb": round(memory, 2),
            "seconds": round(seconds, 1),
        }
        rows.append(row | {"estimated_gb": float(estimate[1]) if estimate else None})
    return rows


def spots(root: Path, side: int, grey: bool) -> None:
    """Write eight normal photographs of a surface and of a part, and three with a dark spot of up to 2000 px each."""
    long, short = (30, 20) if side > 512 else (12, 8)
    for product in ("magnet", "screw"):
        for number in range(12):
            piece = factory.make(product, None, seed=number, size=side, line=3, grey=grey)
            picture = piece.image if grey else cv2.cvtColor(piece.image, cv2.COLOR_RGB2BGR)
            folder = "test/good" if number == 8 else "train/good"
            if number < 9:
                _save(root / product / folder / f"{number}.png", picture)
                continue
            inner = cv2.distanceTransform(np.pad(piece.part, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
            places = np.argwhere(inner > 0.7 * inner.max())
            row, column = places[len(places) * (number - 8) // 4]
            mask = np.zeros((side, side), np.uint8)
            cv2.ellipse(mask, (int(column), int(row)), (long, short), 40.0 * number, 0, 360, 255, -1)
            picture[mask > 0] //= 3
            _save(root / product / "test/spot" / f"{number}.png", picture)
            _save(root / product / "ground_truth/spot" / f"{number}_mask.png", mask)


def pasting(out: Path) -> list[dict[str, Any]]:
    """Measure the processor time of crop_paste in `generate`."""
    rows = []
    for side, grey in ((side, grey) for side in _SIDES for grey in (True, False)):
        root = out / f"spots-{side}-{'grey' if grey else 'colour'}"
        if not root.is_dir():
            spots(root, side, grey)
        config = out / f"{root.name}.toml"
        config.write_text(
            f'[data]\nroot = "{root}"\nshots = 1\n[generator]\nname = "crop_paste"\n'
            f"[generate]\ncount = {_PASTED}\ncontrols = 0\n"
        )
        run, samples, seconds = _sampled(config, out / f"run-{root.name}-{os.getpid()}")
        size = sum(run.path(name).stat().st_size for one in samples for name in (one.image, one.mask))
        rows.append(
            {
                "pixels": [side, side],
                "colours": "grey" if grey else "RGB",
                "pairs": len(samples),
                "mean_mask": round(float(np.mean([one.area for one in samples]))),
                "processor_seconds": round(seconds, 2),
                "pairs_per_processor_second": round(len(samples) / seconds, 2),
                "mb_per_pair": round(size / len(samples) / 1e6, 2),
            }
        )
    return rows


def plates(
    root: Path, side: int, box: tuple[int, int], grey: bool, *, deep: bool = False, normals: int = 8, shots: int = 3
) -> None:
    """Write normal photographs of a surface, and shots with a dark rectangle of this height and width each.

    With `deep` they have 16 bits, of which the lower eight are noise.
    """
    piece_side = min(side, 1024)
    for number in range(normals + shots):
        picture = factory.make("magnet", None, seed=number, size=piece_side, line=3, grey=grey).image
        picture = picture if grey else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        more = side - piece_side  # a surface is larger by being continued, for rendering one takes minutes
        if deep:
            noise = np.random.default_rng(number).integers(0, 256, picture.shape, np.uint16)
            picture = (picture.astype(np.uint16) << 8) + noise
        picture = cv2.copyMakeBorder(picture, 0, more, 0, more, cv2.BORDER_REFLECT)
        if number < normals:
            _save(root / "magnet/train/good" / f"{number}.png", picture)
            continue
        mask, top, left = np.zeros((side, side), np.uint8), side // 4 + number, side // 4 + 2 * number
        spot = np.s_[top : top + box[0], left : left + box[1]]
        mask[spot] = 255
        picture[spot] //= 3
        _save(root / "magnet/test/spot" / f"{number}.png", picture)
        _save(root / "magnet/ground_truth/spot" / f"{number}_mask.png", mask)


def generated(config: Path, folder: Path) -> dict[str, Any]:
    """Train and generate a run; return what it cost. Called in a process of its own."""
    _, samples, seconds = _sampled(config, folder)
    return {
        "pairs": len(samples),
        "mean_mask": round(float(np.mean([one.area for one in samples]))),
        "seconds_per_pair": round(seconds / len(samples), 4),
        "pairs_per_second": round(len(samples) / seconds, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def _sampled(config: Path, folder: Path) -> tuple[Run, list[Sample], float]:
    """Train and generate a run; return it, its samples and the processor seconds of `generate`."""
    run = Run.create(folder, load_config(config))
    opened = open_dataset(run)
    train(run, opened)
    before = time.process_time()
    generate(run, data=opened)
    seconds = time.process_time() - before
    return run, [sample for sample in run.samples() if sample.made], seconds


def patches(out: Path) -> list[dict[str, Any]]:
    """Measure the processor time and memory of `generate` with crop_paste and patch_synthesis."""
    rows = []
    for (side, box, count, batch), grey in ((damage, grey) for damage in _DAMAGES for grey in (True, False)):
        root = out / f"plates-{side}-{'grey' if grey else 'colour'}"
        if not root.is_dir():
            plates(root, side, box, grey)
        figures = {}
        for name in ("crop_paste", "patch_synthesis"):
            config = out / f"{root.name}-{name}-{batch}.toml"
            config.write_text(
                f'[data]\nroot = "{root}"\nshots = 3\n[generator]\nname = "{name}"\n'
                f"[generate]\ncount = {count}\nbatch = {batch}\ncontrols = 0\n[prove]\nenabled = false\n"
            )
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                folder = out / f"run-{config.stem}-{os.getpid()}"
                figures[name] = pool.apply(generated, (config, folder))
        times = [figures[name]["seconds_per_pair"] for name in figures]
        rows.append(
            {
                "pixels": [side, side],
                "colours": "grey" if grey else "RGB",
                "damage": list(box),
                "batch": batch,
                **figures,
                "times_crop_paste": round(times[1] / times[0], 1),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the sets and runs go")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--only", choices=["check", "painting", "pasting", "patches"])
    parser.add_argument("--results", type=Path, default=RESULTS / "large.json")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    used = {**machine(), "threads": os.environ.get("OMP_NUM_THREADS", ""), "load": round(os.getloadavg()[0], 1)}
    if args.only not in ("pasting", "patches"):
        results["machine"] = used
    if args.only in (None, "check"):
        results["check"] = check(args.out, args.files)
    if args.only in (None, "painting"):
        results["painting"] = painting(args.out)
    if args.only in (None, "pasting"):
        results["pasting"] = {"machine": used, "rows": pasting(args.out)}
    if args.only in (None, "patches"):
        results["patches"] = {"machine": used, "rows": patches(args.out)}
    write_json(args.results, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
