"""Run the examples on the real sets from beginning to end, and write down what came out and how long it took.

    python benchmarks/suites/real_data.py --data ../shared/data --out /tmp/real

The sets are not part of the project: see the head of each example for where to get them.
"""

from __future__ import annotations

import argparse
import collections
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from sets import FOLDERS, RESULTS, configuration

from flawsmith.data import images
from flawsmith.files import write_json
from flawsmith.pipeline import run_all
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine


def measure(name: str, data: Path, out: Path) -> dict[str, Any]:
    """Run one example and return what a reader wants to know of it."""
    config = configuration(data, f"{name}-inpaint")
    run = Run.create(out / name, config)
    begun = time.time()
    run_all(run)
    seconds = time.time() - begun
    log = [json.loads(line) for line in run.path("log.jsonl").read_text().splitlines()]
    stage = {row["stage"]: row["seconds"] for row in log if "seconds" in row}
    rows = run.samples()
    made = [row for row in rows if row.made]
    normals = {example.id: example for example in load_split(run).normals}
    outside = empty = 0
    for row in made:
        picture, source = images.read(run.path(row.image)), images.read(normals[row.normal].image)
        mask = images.read_mask(run.path(row.mask), picture.shape)
        same = picture.shape == source.shape and picture.dtype == source.dtype
        outside += int((picture != source)[~mask].sum()) if same else picture.size
        empty += not mask.any()
    done = json.loads(run.path("manifest.json").read_text())["stages"]["train"]
    return {
        "example": name,
        "backbone": done["backbone"],
        "generator": config.generator.model_dump(mode="json"),
        "train_steps": config.train.steps,
        "shots_a_kind": config.data.shots,
        "minutes": round(seconds / 60, 2),
        "stage_seconds": stage,
        "pairs": dict(collections.Counter(row.defect for row in made)),
        "given_up": dict(collections.Counter(row.defect for row in rows if not row.made)),
        "windows_a_pair": round(float(np.mean([len(row.windows) for row in made])), 2),
        "paint": dict(collections.Counter(row.paint for row in made)),
        "differing_pixels_outside_masks": outside,
        "empty_masks": empty,
    }


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    parser.add_argument("--only", choices=sorted(FOLDERS), help="one example")
    parser.add_argument("--results", type=Path, default=RESULTS / "real_data.json")
    args = parser.parse_args()
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    for name in [args.only] if args.only else sorted(FOLDERS):
        results[name] = {"machine": machine(), **measure(name, args.data, args.out)}
        write_json(args.results, results)
        print(json.dumps(results[name], indent=1))


if __name__ == "__main__":
    main()
