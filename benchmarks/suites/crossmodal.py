"""Train the built-in CSM and write down how, from the recipe's own log.

    python benchmarks/suites/crossmodal.py --out FOLDER [--seconds 160] [--set KEY=VALUE]

Stops after --seconds and goes on when called again; at the end it writes the result. FOLDER without its state/ is what
lies in src/flawsmith/weights/reader. The figures are of held-out factory pictures, each beside what chance gives.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from flawsmith.config import parse_overrides, validate
from flawsmith.files import write_json
from flawsmith.nn.methods.csm import BuiltinCSM
from flawsmith.recipes.csm import Recipe, make_csm
from flawsmith.run.manifest import machine

HOME = Path(__file__).resolve().parents[2]


def main() -> None:
    """Parse, train on, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to train in")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; call again to go on")
    parser.add_argument("--set", action="append", default=[], help="override a key of the recipe")
    parser.add_argument("--results", type=Path, default=HOME / "benchmarks" / "results" / "crossmodal_v0.json")
    args = parser.parse_args()
    recipe = validate(Recipe, parse_overrides(args.set), where="--set")
    measured = make_csm(args.out, recipe, seconds=args.seconds)
    if measured is None:
        print("not done yet: the same command goes on")
        return
    rows = {row["step"]: row for row in map(json.loads, (args.out / "training.jsonl").read_text().splitlines())}
    result = {
        "machine": machine(),
        "fingerprint": BuiltinCSM.load(args.out).fingerprint,
        "bytes": sum(
            path.stat().st_size for path in args.out.rglob("*") if "state" not in path.parts and path.is_file()
        ),
        "training_seconds": round(sum(row["seconds"] for row in rows.values()), 1),
        **measured,
    }
    write_json(args.results, result)
    print(json.dumps(result["held_out"], indent=1))


if __name__ == "__main__":
    main()
