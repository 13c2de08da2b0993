"""Sets larger than memory: what planning, painting, going on and exporting take, and whether memory stays flat.

    python benchmarks/suites/scale.py                                  # 120,000 pairs planned, painted for 10 minutes
    python benchmarks/suites/scale.py --pairs 2000 --seconds 30 --photographs 200   # a look
    python benchmarks/suites/scale.py --pairs 1000000 --photographs 100000          # half an hour more for the plan

Pictures are tiny (48 pixels), so that the counts are large and the pixels cheap. Each verb runs in a process of its
own, which is looked at from outside: resident memory (VmRSS) and processor seconds (user and system) beside what lies
on the disk by then. Processor seconds are given because the machine is shared; `load` says how busy it was.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith.data import factory, images
from flawsmith.files import write_json
from flawsmith.run.manifest import machine

SIDE = 48
"""Rows and columns of the pictures."""
CURVE = 24
"""Points of a curve that are kept, evenly spread."""
RESULTS = Path(__file__).parents[1] / "results" / "scale.json"


@dataclass(frozen=True)
class Point:
    """A process at one moment."""

    seconds: float
    """Of processor time."""
    megabytes: float
    """Resident."""
    done: int
    """Lines or files that lay on the disk."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=120_000)
    parser.add_argument("--photographs", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=600, help="of painting, by the clock; then it is stopped")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_json(args.results, measured(Path(name), args))
    print(f"written: {args.results}")


def measured(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    root, run = work / "data", work / "run"
    write_set(root, args.photographs)
    config = work / "run.toml"
    config.write_text(
        f"""
[data]
root = "{root}"
shots = 3
[generator]
name = "crop_paste"
[generate]
count = {args.pairs // 2}
batch = 32
controls = 0
workers = 1
[measure]
enabled = false
[prove]
enabled = false
[export]
formats = ["webdataset"]
"""
    )
    tree: dict[str, Any] = {"machine": machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0], "side": SIDE}
    tree |= {"pairs_planned": args.pairs, "photographs": args.photographs, "generator": "crop_paste", "batch": 32}
    opening = watched(["train", config, "--out", run], lambda: 0)
    tree["open_photographs"] = summary(opening, args.photographs)
    opening = watched(["train", run], lambda: 0)
    tree["open_photographs_again"] = summary(opening, args.photographs)

    plan, part = run / "plan.jsonl", run / "state"
    lines = run / "samples.jsonl"
    written = lambda: size(plan) or max((size(path) for path in part.glob(".plan.jsonl.*")), default=0)  # noqa: E731
    points: dict[str, list[Point]] = {"plan": [], "paint": []}
    painting = lambda: size(lines) > 0  # noqa: E731
    seen = watched(["generate", run], lambda: -size(lines) if painting() else written(), args.seconds, painting)
    plan_bytes, line_bytes = size(plan) / args.pairs, size(lines) / max(1, rows(lines))
    for point in seen:
        planning = point.done >= 0
        each = plan_bytes if planning else line_bytes
        points["plan" if planning else "paint"].append(
            Point(point.seconds, point.megabytes, round(abs(point.done) / each))
        )
    begun = points["paint"][0] if points["paint"] else points["plan"][-1]
    tree["plan"] = summary(points["plan"], args.pairs) | {"bytes_per_line": round(plan_bytes)}
    made = rows(lines)
    tree["paint"] = summary(points["paint"], made - begun.done, begun.seconds) | {"bytes_per_line": round(line_bytes)}
    tree["pairs_made"] = made
    tree["bytes_per_pair"] = round(sum(path.stat().st_size for path in (run / "samples").iterdir()) / made)
    # Another process goes on: it reads the plan, counts what is there and paints a few batches more.
    going_on = watched(["generate", run, "--shard", "0/1000"], lambda: 0)
    tree["one_shard_of_1000"] = summary(going_on, args.pairs)
    exported = watched(["export", run], lambda: sum(size(path) for path in run.glob("export/.*/*.tar")))
    tree["export_webdataset"] = summary(exported, rows(lines) + args.photographs)
    return tree


def write_set(root: Path, photographs: int) -> None:
    """Write a set in the mvtec layout: shots of the factory, and normal parts that differ by their grain."""
    factory.write_dataset(root, "magnet", ("crack", "chip"), normals=8, per_defect=4, seed=1, size=SIDE, test_normals=2)
    good = root / "magnet" / "train" / "good"
    parts = [images.read(path) for path in sorted(good.iterdir())]
    rng = np.random.default_rng(0)
    for number in range(photographs - len(parts)):
        part = parts[number % len(parts)]
        grain = rng.normal(0, 3, part.shape)
        images.write(good / f"more{number:06d}.png", np.clip(part + grain, 0, 255).astype(np.uint8))


def watched(
    words: list[Any], done: Callable[[], int], seconds: float = 1e9, counts: Callable[[], bool] = lambda: True
) -> list[Point]:
    """Run a verb and look at it twice a second; after so many seconds by the clock it is told to stop.

    Args:
        words: The verb and its arguments.
        done: Says how much lies on the disk.
        seconds: After so many it is stopped.
        counts: They are counted from when it first returns True.
    """
    command = [sys.executable, "-m", "flawsmith", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    points: list[Point] = []
    begun = 0.0
    while process.poll() is None:
        begun = begun or (time.monotonic() if counts() else 0.0)
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
            points.append(Point(round(used, 2), round(resident, 1), int(done())))
        except (OSError, ValueError, IndexError):  # it ended meanwhile
            pass
        if begun and time.monotonic() - begun > seconds:
            process.terminate()
            seconds = 1e9
        time.sleep(0.5)
    print(f"{' '.join(map(str, words))}: {points[-1] if points else 'too quick to see'}", file=sys.stderr, flush=True)
    if process.returncode not in (0, 143):
        raise SystemExit(f"{command} ended with {process.returncode}")
    return points


def summary(points: list[Point], count: int, before: float = 0.0) -> dict[str, Any]:
    """Return seconds, rate and memory of some points, and a curve of a few of them."""
    seconds = points[-1].seconds - before
    every = max(1, len(points) // CURVE)
    half = [point.megabytes for point in points[len(points) // 2 :]]
    return {
        "count": count,
        "cpu_seconds": round(seconds, 1),
        "per_cpu_second": round(count / max(seconds, 0.01), 1),
        "megabytes_most": max(point.megabytes for point in points),
        "megabytes_grown_in_second_half": round(max(half) - half[0], 1),
        "curve": [asdict(point) for point in points[::every]],
    }


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def rows(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


if __name__ == "__main__":
    if shutil.which("nice"):
        os.nice(5)
    main()
