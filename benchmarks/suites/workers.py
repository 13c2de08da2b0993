"""Pairs a second with 1, 2 and all cores, and what a cold start takes.

    python benchmarks/suites/workers.py             # five minutes on two quiet cores
    python benchmarks/suites/workers.py --quick     # a look

Each generator of pixels makes the same set with `generate.workers` = 1, 2 and the number of cores, in turn, so that a
busy machine slows all of them. Given are pairs per second by the clock, of the stage `generate` with its plan, and
processor seconds per pair, start included; `load` is how many processes wanted a core before and after. The pictures of
all runs are compared byte for byte.

A cold start is a new process, `flawsmith run`, from the start of Python to the first pair on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flawsmith.data import factory
from flawsmith.files import digest, write_json
from flawsmith.run.manifest import machine
from flawsmith.synthesis.batches.workers import cores

RESULTS = Path(__file__).parents[1] / "results" / "workers.json"
SIDE = 128
PAIRS = {"crop_paste": 4800, "patch_synthesis": 480}
"""Samples per run; few of the slower one."""
FIRST_PAIR = """
import json, sys, time
begun = time.time() - time.process_time()
from flawsmith.data import images
first, write = [], images.write_mask
def write_mask(*args, **kwargs):
    write(*args, **kwargs)
    first.append((time.process_time(), time.time() - begun))
images.write_mask = write_mask
from flawsmith.cli import main
try:
    main()
except SystemExit:
    pass
names = [name for name in ("diffusers", "transformers") if name in sys.modules]
print(json.dumps({"cpu_seconds": first[0][0], "seconds": first[0][1], "loaded": names}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs, once")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    pairs = {name: max(4, count // 10) for name, count in PAIRS.items()} if args.quick else PAIRS
    rounds = 1 if args.quick else args.rounds
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        factory.write_dataset(
            work / "data", "magnet", ("crack", "chip"), normals=12, per_defect=4, seed=1, size=SIDE, test_normals=2
        )
        generators = {generator: measured(work, generator, count, rounds) for generator, count in pairs.items()}
        starts = {generator: cold_start(work, generator) for generator in pairs}
    tree = {"machine": machine(), "cores": cores(), "load": [before, os.getloadavg()[0]], "side": SIDE}
    tree |= {"rounds": rounds, "generators": generators, "cold_start": starts}
    write_json(args.results, tree)
    print(f"written: {args.results}")


def measured(work: Path, generator: str, count: int, rounds: int) -> list[dict[str, Any]]:
    counts = sorted({1, 2, cores()})
    seconds: dict[int, list[float]] = {workers: [] for workers in counts}
    spent: dict[int, list[float]] = {workers: [] for workers in counts}
    pictures = set()
    for number in range(rounds):
        for workers in counts:
            run = work / f"{generator}-{workers}-{number}"
            flawsmith("train", write_config(work, generator, count, workers), "--out", run)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            flawsmith("generate", run)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent[workers].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            seconds[workers].append(next(row["seconds"] for row in log if row["stage"] == "generate"))
            pictures.add(digest(*[path.read_bytes().hex() for path in sorted((run / "samples").iterdir())]))
            print(f"{generator}, workers {workers}: {seconds[workers][-1]} s", file=sys.stderr, flush=True)
    if len(pictures) != 1:
        raise SystemExit(f"{generator}: the bytes differ with the number of workers")
    return [
        {
            "workers": workers,
            "pairs": count,
            "pairs_per_second": round(count / statistics.median(seconds[workers]), 2),
            "cpu_seconds_per_pair": round(statistics.median(spent[workers]) / count, 3),
        }
        for workers in counts
    ]


def cold_start(work: Path, generator: str) -> dict[str, Any]:
    config, run = write_config(work, generator, 2, 1), work / f"{generator}-cold"
    words = [sys.executable, "-c", FIRST_PAIR, "run", config, "--out", run, "--until", "generate"]
    ended = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in told.items()}


def write_config(work: Path, generator: str, count: int, workers: int) -> Path:
    path = work / "run.toml"
    path.write_text(
        f'[data]\nroot = "{work / "data"}"\nshots = 2\n[generator]\nname = "{generator}"\n'
        f"[generate]\ncount = {count // 2}\nbatch = 4\ncontrols = 0\nworkers = {workers}\n"
        "[measure]\nenabled = false\n[prove]\nenabled = false\n[export]\nformats = []\n"
    )
    return path


def flawsmith(*words: Any) -> None:
    command = [sys.executable, "-m", "flawsmith", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
