"""Whole runs from the command line in the environment that runs this, on a few small factory parts.

    python tests/release/whole_run.py FOLDER [GENERATOR ...]

One run goes through every stage; then each other generator, or those named, trains a few steps and paints. What is
asked is that the libraries of the environment do what flawsmith needs of them, not what comes out. FOLDER is made anew.
`make test-lowest` tries all generators with the lowest versions, `make test-release` the wheel as it is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from flawsmith import registry
from flawsmith.data import factory

FLAWSMITH = Path(sys.executable).with_name("flawsmith")
SMALL = {
    "data.shots": 3,
    "train.steps": 2,
    "train.batch": 2,
    "train.views": 2,
    "generate.count": 2,
    "generate.steps": 2,
    "generate.attempts": 1,
}
PROOF = {
    "prove.seeds": 1,
    "prove.size": 96,
    "prove.curve": "[]",
    "prove.mix": "false",
    "prove.resamples": 100,
    "prove.against": '["crop_paste"]',
    "prove.near_duplicates": "keep",
    "prove.settings.patchcore.memory": 200,
    "prove.settings.memory_probe.memory": 200,
    "prove.settings.memory_probe.heads": 2,
    "prove.settings.memory_probe.head.steps": 10,
}


def flawsmith(*words: str, **settings: object) -> str:
    """Return what a command prints.

    Raises:
        SystemExit: it fails.
    """
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    done = subprocess.run([FLAWSMITH, *words, *overrides], capture_output=True, text=True, timeout=1200)
    if done.returncode or "Traceback" in done.stderr:
        sys.exit(
            f"flawsmith {' '.join(words)} ends with {done.returncode}:\n{done.stderr[-3000:]}{done.stdout[-1000:]}"
        )
    print(f"flawsmith {' '.join(words)}: done", flush=True)
    return done.stdout


def main(folder: Path, named: list[str]) -> None:
    if unknown := [name for name in named if name not in registry.entries("generators")]:
        sys.exit(f"no generator is called {', '.join(unknown)}; `flawsmith list` names them")
    shutil.rmtree(folder, ignore_errors=True)
    photographs, small = folder / "photographs", folder / "small.toml"
    factory.write_dataset(
        photographs, "magnet", ("chip", "crack"), normals=12, per_defect=6, seed=3, size=128, test_normals=4
    )
    print(flawsmith("--version", "-v"))
    small.write_text(flawsmith("new", "--from", str(photographs)), "utf-8")
    assert "next: flawsmith run" in flawsmith("check", str(small))
    whole, method = folder / "whole", {"generator.name": "controlnet_inpaint"}
    flawsmith("run", str(small), "--out", str(whole), **SMALL, **PROOF, **method)
    proof = json.loads((whole / "proof.json").read_text("utf-8"))
    assert proof and (whole / "report.html").stat().st_size > 10_000
    flawsmith("export", str(whole), **{"export.formats": '["coco", "yolo", "visa"]'})
    assert all((whole / "export" / name).is_dir() for name in ("mvtec", "coco", "yolo", "visa"))
    for name in named or registry.entries("generators"):
        if name in ("controlnet_inpaint", "few_steps"):  # the student learns from the former's run, below
            continue
        run = folder / name
        flawsmith("run", str(small), "--out", str(run), **SMALL, **{"generator.name": name, "prove.enabled": "false"})
        assert (run / "samples.jsonl").read_text("utf-8").count("\n") >= 2, name
    if not named:
        flawsmith("distill", str(whole), "--out", str(folder / "few_steps"), **{"train.steps": 1})
    print(f"whole runs in {folder}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("name the folder that is made anew: python tests/release/whole_run.py build/lowest")
    main(Path(sys.argv[1]), sys.argv[2:])
