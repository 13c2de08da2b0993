"""What a proof takes, time and memory: this checkout beside another one.

    git worktree add --detach ../before REVISION
    python benchmarks/suites/proof_cost.py --against ../before       # half an hour on two quiet cores

The same photographs (a procedural surface, and parts before a background) are made, learned from and screened by each
side, with `crop_paste` and each side's own defaults, but without `measure` and the proof; then `flawsmith run` goes on
with the proof (and writes export and report once more), and is looked at from outside. `seconds` are by the clock,
`cpu_seconds` of all its processes, `megabytes` the highest sum over its processes at one moment, where pages that they
share count once (Pss). A side may train more detectors than the other: `trainings` are all, and the times are given for
one of them too. `load` is how many processes wanted a core at the start; the sides run one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flawsmith.data import factory
from flawsmith.files import write_json
from flawsmith.run.manifest import machine

HOME = Path(__file__).resolve().parents[2]
RESULTS = HOME / "benchmarks" / "results" / "proof_cost.json"
SETS = {"surface": ("magnet", ("crack", "pores")), "part": ("screw", ("rust", "chip"))}
"""Set -> the product of the factory, and its defect types."""
CONFIGURATION = """
[data]
root = "{root}"
shots = 10
[generator]
name = "crop_paste"
[generate]
count = {samples}
[measure]
enabled = false
[prove]
against = []
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="another checkout of this repository")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--samples", type=int, default=50, help="for each defect type")
    parser.add_argument("--side", type=int, default=256, help="rows and columns of the photographs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if not (args.against / "src" / "flawsmith").is_dir():
        parser.error(f"--against: there is no src/flawsmith in {args.against}; name a checkout of this repository")
    checkouts = {"before": args.against.resolve(), "today": HOME}
    tree: dict[str, Any] = {"machine": machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    tree |= {"generator": "crop_paste", "samples": args.samples, "shots": 10, "side": args.side, "sets": {}}
    tree["revisions"] = {name: revision(checkout) for name, checkout in checkouts.items()}
    with tempfile.TemporaryDirectory() as work:
        for name in args.sets:
            surface, defects = SETS[name]
            root = Path(work) / name / "photographs"
            factory.write_dataset(root, surface, defects, normals=60, per_defect=30, test_normals=40, size=args.side)
            config = Path(work) / name / "run.toml"
            config.write_text(CONFIGURATION.format(root=root, samples=args.samples))
            sides = {side: proved(checkouts[side], config, config.with_name(side)) for side in checkouts}
            ratios = {key: round(sides["today"][key] / sides["before"][key], 2) for key in sides["today"]}
            tree["sets"][name] = {**sides, "today_over_before": ratios}
            print(f"{name}: {json.dumps(tree['sets'][name])}", file=sys.stderr, flush=True)
            write_json(args.results, tree)
    print(f"written: {args.results}")


def revision(checkout: Path) -> str:
    return subprocess.run(
        ["git", "-C", checkout, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


def proved(checkout: Path, config: Path, run: Path) -> dict[str, float]:
    """Make a run with a checkout without its proof, then go on, and return what that takes."""
    # Users leave the C library's memory to itself: with a fixed MALLOC_MMAP_THRESHOLD_ it fetches large buffers anew
    # from the system at every step, and a training takes longer.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment = inherited | {"PYTHONPATH": str(checkout / "src")}

    def command(*words: Any) -> list[str]:
        return [sys.executable, "-m", "flawsmith", *map(str, words)]

    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "env": environment, "cwd": run.parent}
    log = run.with_name(f"{run.name}.log")
    with open(log, "wb") as errors:
        words = command("run", config, "--out", run, "--set", "prove.enabled=false")
        if subprocess.run(words, stderr=errors, **quiet).returncode:
            raise SystemExit(f"{checkout}: {log.read_text()[-2000:]}")
    before, begun, highest = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0.0
    with open(log, "wb") as errors:
        process = subprocess.Popen(command("run", config, "--out", run), stderr=errors, start_new_session=True, **quiet)
        while process.poll() is None:
            highest = max(highest, megabytes(process.pid))
            time.sleep(0.5)
    seconds = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"{checkout}: {log.read_text()[-2000:]}")
    cpu = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    trainings = len(list((run / "state" / "prove").glob("*/*.npz")))
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "megabytes": round(highest, 1),
        "trainings": trainings,
        "seconds_each": round(seconds / trainings, 2),
        "cpu_seconds_each": round(cpu / trainings, 2),
    }


def megabytes(session: int) -> float:
    """Return the proportional memory of all processes of a session."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                rollup = (folder / "smaps_rollup").read_text()
                total += int(rollup.partition("\nPss:")[2].split()[0])
        except (OSError, IndexError, ValueError):  # it ended meanwhile
            pass
    return total / 1024


if __name__ == "__main__":
    main()
