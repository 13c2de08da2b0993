"""What large sets and large photographs cost: `flawsmith check` on many files, and painting on line-scan photographs.

    python benchmarks/suites/large.py --out /tmp/large [--files 100000] [--only check|painting]

check      seconds and peak memory of `flawsmith check` on so many files of 64 x 64 px (24 normal parts per defect).
painting   peak memory of a run on grey photographs of 16384 x 2000 px (two normal parts, two shots, batch 4),
           beside what `flawsmith check` estimated for it.

Every measurement is a process of its own; its peak is what the system says (ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sets import RESULTS

from flawsmith.files import write_json
from flawsmith.run.folder import machine

_SIDE, _PER_DEFECT = 64, 24
_LINE = (2000, 16384)
_DAMAGE = 12
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


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the sets and runs go")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--only", choices=["check", "painting"])
    parser.add_argument("--results", type=Path, default=RESULTS / "large.json")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    results["machine"] = {**machine(), "threads": os.environ.get("OMP_NUM_THREADS", "")}
    if args.only in (None, "check"):
        results["check"] = check(args.out, args.files)
    if args.only in (None, "painting"):
        results["painting"] = painting(args.out)
    write_json(args.results, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
