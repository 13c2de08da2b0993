"""A run in one process against the same run on a Ray cluster of two nodes, also when a worker or a node dies.

    .venv-ray/bin/python benchmarks/suites/on_ray.py            # some minutes alone; `make ray` makes that environment
    .venv-ray/bin/python benchmarks/suites/on_ray.py --quick    # a look

The cluster is that of tests/ray: two nodes with one processor each, both on this machine, so nothing is said of
networks or of gained time; moto and gcp-storage-emulator stand for S3 and Google Cloud Storage. Every run is a process
of its own, `flawsmith run`; what it made is compared file by file with what one process made. Seconds by the clock are
those of log.jsonl; seconds of processor time are summed over the run, Ray and the store, five times a second. `lost` is
what had to be painted again. `load` says how many processes wanted one of the two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flawsmith.data import factory
from flawsmith.files import write_json
from flawsmith.run.manifest import machine

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "on_ray.json"
SIDE = 64
"""Rows and columns of the photographs."""
BATCH = 4
EVERY = 0.2
"""Seconds between two looks at the processes."""

sys.path.insert(0, str(ROOT / "tests" / "ray"))
from object_stores import missing, serving  # noqa: E402
from two_nodes import Cluster, command, contents, painted_again, variables  # noqa: E402


class ProcessorTime:
    """Seconds of processor time that all processes with a variable of their environment have spent so far."""

    def __init__(self, name: str, value: str) -> None:
        self._mark = f"{name}={value}\0".encode()
        self._strangers: set[tuple[str, str]] = set()
        self._seconds: dict[tuple[str, str], float] = {}

    def spent(self) -> float:
        """Look at all processes, and return the sum; of one that ended, what it had spent when last looked at."""
        for place in Path("/proc").iterdir():
            if not place.name.isdigit():
                continue
            with suppress(OSError, IndexError, ValueError):
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                key = place.name, fields[19]  # number and time of start: numbers are used again
                if key in self._strangers:
                    continue
                if key not in self._seconds and self._mark not in (place / "environ").read_bytes():
                    self._strangers.add(key)
                    continue
                self._seconds[key] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return sum(self._seconds.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few samples, few steps")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        deaths, temporary = work / "deaths", work / "temporary"
        deaths.mkdir()
        temporary.mkdir()
        os.environ |= variables(deaths, temporary)
        for tree in measured(work, deaths, quick=args.quick):  # written as it grows: a busy machine takes long
            load = {"load": [round(before, 1), round(os.getloadavg()[0], 1)]}
            versions = {"ray": version("ray"), "nodes": 2, "batch": BATCH, "side": SIDE}
            write_json(args.results, {"machine": machine(), **versions, **load, **tree})
    print(f"written: {args.results}")


def measured(work: Path, deaths: Path, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Yield what is known, after each run."""
    root = work / "parts"
    factory.write_dataset(root, "magnet", ("crack",), normals=8, per_defect=7, seed=1, size=SIDE, test_normals=3)
    factory.write_dataset(root, "screw", ("scratch",), normals=6, per_defect=7, seed=2, size=SIDE, test_normals=3)
    pixels, network = pasted(root, quick), trained(root, 2 if quick else 12)
    processors = ProcessorTime("FLAWSMITH_TEST_DEATHS", str(deaths))
    rows = {"one process": one_run(work / "p1", pixels, processors)}
    (deaths / "painted").unlink()

    begun, spent = time.monotonic(), processors.spent()
    cluster = Cluster(deaths)
    try:
        start = {"seconds": round(time.monotonic() - begun, 1), "cpu_seconds": round(processors.spent() - spent, 1)}
        tree = {"start_of_ray": start, "pasted": {"settings": pixels | {"data.root": ""}, "runs": rows}}
        os.environ["RAY_ADDRESS"] = cluster.address
        on = ("--on", "ray")
        rows["on ray"] = one_run(work / "p2", pixels, processors, *on) | same(work / "p1", work / "p2")
        yield tree
        for dies in ("worker", "node"):
            (deaths / "painted").unlink()
            (deaths / dies).touch()
            run = work / f"p-{dies}"
            row = one_run(run, pixels, processors, *on)
            if (deaths / dies).exists():
                raise SystemExit(f"no {dies} died")
            lost = painted_again(deaths)
            row["lost"] = {"batches": -(-len(lost) // BATCH), "samples": len(lost)}
            rows[f"on ray, a {dies} killed"] = row | same(work / "p1", run)
            yield tree
        cluster.add_node()
        cluster.wait_for_nodes(2)
        runs = {"one process": one_run(work / "n1", network, processors)}
        runs["on ray"] = one_run(work / "n2", network, processors, *on) | same(work / "n1", work / "n2")
        tree["trained"] = {"settings": network | {"data.root": ""}, "runs": runs}
        yield tree
        for kind, name in (("s3", "S3"), ("gs", "Google Cloud Storage")):
            if missing(kind):
                print(f"left out: {name}, for {' and '.join(missing(kind))} is absent", file=sys.stderr)
                continue
            with serving(kind) as bucket:
                run = work / f"p-{kind}"
                row = one_run(run, pixels, processors, *on, "--share", f"{bucket}/runs")
                rows[f"on ray, no shared folder: {name}"] = row | same(work / "p1", run)
                yield tree
    finally:
        cluster.shutdown()


def pasted(root: Path, quick: bool) -> dict[str, Any]:
    """Return the settings of a run with all stages whose generator is crop_paste on a machine that may die."""
    return {
        "data.root": str(root),
        "data.shots": 5,
        "generator.name": "dying",
        "generate.count": 6 if quick else 24,
        "generate.batch": BATCH,
        "generate.controls": 0.5,
        "generate.workers": 1,
        "screen.enabled": True,
        "screen.rounds": 1,
        "measure.enabled": False,
        "prove.against": [] if quick else ["crop_paste"],
        "prove.curve": [],
        "prove.mix": False,
        "prove.detectors": ["probe"],
        "prove.settings": {
            "probe": {"steps": 8 if quick else 40, "places": 64, "views": 1},
            "patchcore": {"memory": 20, "draw": 100},
        },
        "prove.seeds": 1 if quick else 2,
        "prove.size": SIDE,
        "prove.resamples": 100,
    }


def trained(root: Path, steps: int) -> dict[str, Any]:
    """Return the settings of a run that trains two models of the built-in backbone and paints with them."""
    return {
        "data.root": str(root),
        "data.shots": 5,
        "generator.name": "controlnet_inpaint",
        "backbone.dtype": "float32",
        "train.scope": "product",
        "train.steps": steps,
        "train.views": 4,
        "train.batch": 2,
        "windows.size": SIDE,
        "generate.count": BATCH,
        "generate.batch": BATCH,
        "generate.steps": 2,
        "measure.enabled": False,
        "prove.enabled": False,
        "export.formats": [],
    }


def one_run(run: Path, settings: dict[str, Any], processors: ProcessorTime, *more: str) -> dict[str, Any]:
    """Run the command line; return seconds by the clock and of processor time, of all and of each stage.

    What comes before training is called `start`; a stage's processor time includes the way to it from the stage before.
    """
    begun, before = time.monotonic(), processors.spent()
    with open(run.parent / f"{run.name}.txt", "w+") as said:
        process = subprocess.Popen(command(settings, run, *more), stdout=said, stderr=subprocess.STDOUT)
        last, counted = before, 0
        stages: dict[str, dict[str, float]] = {}
        ended = False
        while not ended:
            ended = process.poll() is not None
            spent = processors.spent()
            if "start" not in stages and "train" in begun_stages(run):
                stages["start"] = {"seconds": round(time.monotonic() - begun, 1), "cpu_seconds": round(spent - last, 1)}
                last = spent
            finished = finished_stages(run)
            for row in finished[counted:]:
                stage = stages.setdefault(row["stage"], {"seconds": 0.0, "cpu_seconds": 0.0})
                stage["seconds"] = round(stage["seconds"] + row["seconds"], 1)
                stage["cpu_seconds"] = round(stage["cpu_seconds"] + spent - last, 1)
                last = spent
            counted = len(finished)
            time.sleep(EVERY)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{run.name}: ended with {process.returncode}: {said.read()[-2000:]}")
    row = {"seconds": round(time.monotonic() - begun, 1), "cpu_seconds": round(processors.spent() - before, 1)}
    print(f"{run.name} {' '.join(more)}: {row}", file=sys.stderr, flush=True)
    return {**row, "stages": stages}


def begun_stages(run: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        stages: dict[str, Any] = json.loads((run / "manifest.json").read_text())["stages"]
        return stages
    return {}


def finished_stages(run: Path) -> list[dict[str, Any]]:
    """Return the lines of log.jsonl that say how long a stage took."""
    with suppress(OSError):
        lines = (run / "log.jsonl").read_text().split("\n")[:-1]
        return [row for row in map(json.loads, lines) if "seconds" in row]
    return []


def same(one: Path, other: Path) -> dict[str, Any]:
    """Compare all files that two runs made, byte for byte."""
    first, second = contents(one), contents(other)
    differing = [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)]
    if differing:
        raise SystemExit(f"{other.name}: {len(differing)} files differ: {sorted(differing)[:5]}")
    return {"files_compared": len(first), "bytes_compared": sum(map(len, first.values())), "files_differing": 0}


if __name__ == "__main__":
    main()
