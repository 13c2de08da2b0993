"""What a delivered model costs, and whether it says what torch says.

    python benchmarks/suites/inspection.py --out /tmp/inspection

A factory surface of 256 x 256 px with two defect types (60 normal parts, 8 shots and 20 samples per type) is delivered
once for each detector that has a graph, at its defaults (unet with a budget of 0.005, for it is made for GPUs).

agreement  share of the anomaly map's pixels that differ by at most 0.0001 from torch's under onnxruntime, and the
           greatest differences, on up to 8 normal pictures and 8 shots; `flawsmith deliver` refuses below 99.9 %.
inspect    pictures per second of `flawsmith inspect` on 200 PNG files, reading them and writing the table and the
           overlays of what is called defective included, with two workers; pictures per second of processor time,
           which busy neighbours change little (two free cores manage twice that); peak memory. Each in a process of its
           own, torch not loaded.
serve      median milliseconds of a request over HTTP, one after another, on one connection each.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sets import RESULTS

from flawsmith import registry
from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.files import write_json
from flawsmith.interfaces import Detector
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine

_SIDE, _PICTURES, _REQUESTS, _WORKERS = 256, 200, 50, 2
_BUDGET = {"unet": 0.005}


def delivered(out: Path, name: str) -> Path:
    """Deliver a model that stands on a detector."""
    from flawsmith.inspection.deliver import deliver
    from flawsmith.synthesis.generate import generate
    from flawsmith.synthesis.train import train

    root = out / "parts"
    if not root.is_dir():
        sizes = {"normals": 60, "per_defect": 16, "size": _SIDE, "test_normals": 20}
        factory.write_dataset(root, "magnet", ("crack", "chip"), seed=1, **sizes)
    table = {"data.root": str(root), "data.shots": 8, "generator.name": "crop_paste", "generate.count": 20}
    table |= {"prove.detectors": [name], "prove.budget": _BUDGET.get(name, 1.0)}
    run = Run.create(out / f"run-{name}", load_config(None, table))
    train(run)
    generate(run)
    return deliver(run)


def inspected(model: Path, folder: Path, out: Path, runtime: Any) -> dict[str, Any]:
    """Measure `inspect` on a folder; to be called in a process of its own."""
    from flawsmith.inspection.inspect import inspect

    inspect(model, next(folder.iterdir()), out, runtime=runtime)  # loads what is loaded once
    before = time.process_time()
    report = inspect(model, folder, out, runtime=runtime, workers=_WORKERS)
    spent = time.process_time() - before
    assert "torch" not in sys.modules
    return {
        "pictures": report.pictures,
        "called_defective": report.verdicts.get("defect", 0),
        "pictures_per_second": round(report.pictures / report.seconds, 1),
        "pictures_per_processor_second": round(report.pictures / spent, 1),
        "peak_megabytes": _peak(),
    }


def _peak() -> int:
    """Return the largest memory of this process; ru_maxrss would be that of the process that started it."""
    row = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(row.split()[1]) // 1024


def served(model: Path, folder: Path) -> dict[str, Any]:
    """Measure requests, one after another."""
    from flawsmith.inspection.inspector import Inspector
    from flawsmith.inspection.serve import InspectionServer

    server = InspectionServer(Inspector(model), port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    took = []
    for path in sorted(folder.iterdir())[:_REQUESTS]:
        begun = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.request("POST", "/inspect", path.read_bytes())
        assert json.loads(connection.getresponse().read())["verdict"]
        connection.close()
        took.append(1000 * (time.perf_counter() - begun))
    server.shutdown()
    return {"requests": len(took), "median_milliseconds": round(statistics.median(took), 1), "each": took}


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the set, the runs and the tables go")
    parser.add_argument("--results", type=Path, default=RESULTS / "inspection.json")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.out / "line"
    if not folder.is_dir():
        for number in range(_PICTURES):
            defect = (None, None, None, "crack")[number % 4]
            picture = factory.make("magnet", defect, seed=9000 + number, line=1, size=_SIDE).image
            images.write(folder / f"{number:03d}.png", picture)
    runtimes = [name for name in ("onnxruntime", "openvino") if find_spec(name)]
    packages = {name: version(name) for name in ("onnx", "onnxscript", *runtimes)}
    rows = {}
    for name in registry.entries("detectors"):
        try:
            if registry.get("detectors", name).graph is Detector.graph:
                continue
        except Exception:  # a package that it needs is not installed
            continue
        model = delivered(args.out, name)
        row: dict[str, Any] = {"agreement": json.loads((model / "model.json").read_text())["agreement"]}
        row["megabytes"] = round((model / "model.onnx").stat().st_size / 2**20, 1)
        for runtime in runtimes:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row[runtime] = pool.apply(inspected, (model, folder, args.out / f"{name}-{runtime}", runtime))
        row["serve"] = served(model, folder)
        rows[name] = row
        print(name, {key: value for key, value in row.items() if key != "serve"}, flush=True)
    used = {**machine(), "load": round(os.getloadavg()[0], 1)}
    used["packages"] |= packages
    write_json(args.results, {"machine": used, "side": _SIDE, "workers": _WORKERS, "detectors": rows})


if __name__ == "__main__":
    main()
