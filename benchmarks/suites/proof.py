"""Prove on the real sets whether the pairs help, and write the verdicts down.

    python benchmarks/suites/proof.py --data ../shared/data --out /tmp/proofs [--only screw] [--set prove.size=256]

The sets are not part of the project: see the head of each example for where to get them. A run folder that holds
finished stages is gone on with, so a long proof can be made in portions; the seconds are those of the stages' own log.
A generator a set is an example each: screw, screw-dual, screw-csm, screw-anomaly-diffusion.
To try other settings, copy a finished run folder and name the copy: what the settings do not touch is not made again.

    cp -r /tmp/proofs/screw "/tmp/proofs/screw, strength 0.6"
    python benchmarks/suites/proof.py ... --only screw --as "screw, strength 0.6" --set generator.settings.strength=0.6
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from sets import CARD, EXAMPLES, RESULTS, configuration

from flawsmith.config import parse_overrides
from flawsmith.evaluation.arms import OURS
from flawsmith.evaluation.statistics import MEAN
from flawsmith.files import write_json
from flawsmith.pipeline import run_all
from flawsmith.reporting.collect import changed_settings
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine


def summary(run: Run) -> dict[str, Any]:
    """Return what a finished run proved, without the pictures."""
    tree = json.loads(run.path("proof.json").read_text())
    log = [json.loads(line) for line in run.path("log.jsonl").read_text().splitlines()]
    seconds: dict[str, float] = defaultdict(float)
    for row in log:
        if "seconds" in row:
            seconds[row["stage"]] += row["seconds"]
    done = json.loads(run.path("manifest.json").read_text())["stages"]
    for own in tree["products"].values():
        own.pop("telling")
        own.pop("thumbs")
    return {
        "backbone": done["train"].get("backbone"),
        "settings": {key: value for key, value, _ in changed_settings(run.config) if not key.startswith("data.root")},
        "stage_seconds": {stage: round(value, 1) for stage, value in seconds.items()},
        "proof": tree,
    }


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="where the runs go, or lie")
    parser.add_argument("--only", choices=sorted(EXAMPLES), help="one example")
    parser.add_argument("--as", dest="name", help="with --only: the run folder's name and the entry's, for a trial")
    parser.add_argument("--set", action="append", default=[], help="override a key of the example")
    parser.add_argument("--results", type=Path, default=RESULTS / "proof.json")
    args = parser.parse_args()
    if args.name and not args.only:
        parser.error("--as names one trial, so it needs --only")
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    for name in [args.only] if args.only else sorted(EXAMPLES):
        entry = args.name or name
        run = Run.create(args.out / entry, configuration(args.data, name, parse_overrides(args.set)))
        run_all(run)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        results[entry] = {"machine": {**machine(), "threads": threads, "card": CARD}, **summary(run)}
        write_json(args.results, results)
        for own in results[entry]["proof"]["products"].values():
            for row in own["comparisons"]:
                if row["arm"] == OURS and row["defect"] == MEAN:
                    interval = [row["low"], row["high"]]
                    verdicts = row["verdict"], f"corrected: {row['corrected_verdict']}"
                    print(entry, row["against"], row["task"], *verdicts, row["difference"], interval)


if __name__ == "__main__":
    main()
