"""Train the built-in SGA and write down how, from the recipe's own log.

    python benchmarks/suites/adapter.py --out FOLDER [--seconds 500] [--set KEY=VALUE]

Stops after --seconds and goes on when called again; at the end it writes the result. FOLDER/adapter.safetensors is
what lies in src/flawsmith/weights/adapter. The figures are losses on held-out factory windows, with the window itself,
another of its defect type, one of another defect type or nothing as the reference.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from sets import RESULTS

from flawsmith.config import parse_overrides, validate
from flawsmith.files import write_json
from flawsmith.nn.weights import load_tensors
from flawsmith.recipes.sga import Recipe, make_sga
from flawsmith.run.manifest import machine


def main() -> None:
    """Parse, train on, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to train in")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; call again to go on")
    parser.add_argument("--set", action="append", default=[], help="override a key of the recipe")
    parser.add_argument("--results", type=Path, default=RESULTS / "adapter.json")
    args = parser.parse_args()
    recipe = validate(Recipe, parse_overrides(args.set), where="--set")
    measured = make_sga(args.out, recipe, seconds=args.seconds)
    if measured is None:
        print("not done yet: the same command goes on")
        return
    rows = {row["step"]: row for row in map(json.loads, (args.out / "training.jsonl").read_text().splitlines())}
    made = args.out / "adapter.safetensors"
    result = {
        "machine": {**machine(), "threads": os.environ.get("OMP_NUM_THREADS", "")},
        **load_tensors(made)[1],
        "bytes": made.stat().st_size,
        "training_seconds": round(sum(row["seconds"] for row in rows.values()), 1),
        **measured,
    }
    write_json(args.results, result)
    print(json.dumps(result["held_out_loss"], indent=1))


if __name__ == "__main__":
    main()
