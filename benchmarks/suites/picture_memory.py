"""Memory by size of photograph: the peak of a run that trains and paints, beside the bound and what `check` estimated.

    python benchmarks/suites/picture_memory.py --out FOLDER [--only ROW ...]

Eight normal photographs (two of 12,000 px) of a procedural surface and three shots (one) with a damage of 200 x 200 px,
grey or in colours, 8 or 16 bits. Each row is a process of its own that opens the set, trains and paints one batch; its
peak is what the system says (ru_maxrss), with all that was imported. `bound` is 500 MB and 6 bytes for each byte of a
photograph. What a network takes is not pictures': a row of `controlnet_inpaint` also says how much more it takes
than the same run on photographs of 256 px, `above_network_gb`.

It goes on where it was stopped: rows that are in the results are not measured again, unless `--only` names them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from large import generated, measured, plates
from sets import RESULTS

from flawsmith.files import write_json
from flawsmith.run.manifest import machine

_DAMAGE = 200
_BATCHES = {"crop_paste": (1, 8, 32), "patch_synthesis": (8,)}
"""`generate.batch` at 2048 px; larger photographs are painted in batches of 8, the largest of 4 or 2."""
_NETWORK = "controlnet_inpaint"


class Row(NamedTuple):
    """One measurement."""

    side: int
    colours: str
    bits: int
    generator: str
    batch: int

    @property
    def name(self) -> str:
        """As in the results."""
        return f"{self.side}-{self.colours}-{self.bits}-{self.generator}-{self.batch}"

    @property
    def photograph(self) -> int:
        """Bytes."""
        return self.side**2 * (1 if self.colours == "grey" else 3) * self.bits // 8


def rows() -> list[Row]:
    """Return what is measured; networks last, each on small photographs before it is on large ones."""
    every = []
    for colours in ("grey", "RGB"):
        every += [Row(2048, colours, 8, name, batch) for name, batches in _BATCHES.items() for batch in batches]
    every += [Row(4096, colours, 8, name, 8) for colours in ("grey", "RGB") for name in _BATCHES]
    every += [Row(4096, "RGB", 16, "crop_paste", 4), *(Row(12_000, "grey", 8, name, 2) for name in _BATCHES)]
    every += [Row(side, "RGB", 8, _NETWORK, 8) for side in (256, 2048, 4096)]
    return [*every, *(Row(side, "RGB", 8, _NETWORK, 32) for side in (256, 2048))]


def measure(row: Row, out: Path) -> dict[str, Any]:
    """Return what one row takes."""
    root = out / f"plates-{row.side}-{row.colours}-{row.bits}"
    shots = 1 if row.side > 4096 else 3
    damage = min(_DAMAGE, row.side // 4)
    if not root.is_dir():
        shutil.rmtree(out / "unfinished", ignore_errors=True)
        normals = 2 if row.side > 4096 else 8
        grey, deep = row.colours == "grey", row.bits == 16
        plates(out / "unfinished", row.side, (damage, damage), grey, deep=deep, normals=normals, shots=shots)
        (out / "unfinished").rename(root)
    config = out / f"{row.name}.toml"
    config.write_text(
        f'[data]\nroot = "{root}"\nshots = {shots}\n[generator]\nname = "{row.generator}"\n'
        "[train]\nsteps = 2\nviews = 2\nbatch = 4\n"
        f"[generate]\ncount = {row.batch}\nbatch = {row.batch}\nsteps = 2\ncontrols = 0\n"
        "[screen]\nenabled = false\n[prove]\nenabled = false\n"
    )
    run = out / f"run-{row.name}-{os.getpid()}"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        figures = pool.apply(generated, (config, run))
    shutil.rmtree(run)
    return {
        **row._asdict(),
        "damage": [damage, damage],
        "pictures": 3 if row.side > 4096 else 11,
        "pairs": figures["pairs"],
        "photograph_mb": round(row.photograph / 1e6, 1),
        "peak_gb": figures["peak_gb"],
        "bound_gb": round(0.5 + 6 * row.photograph / 1e9, 2),
        "estimated_gb": estimated(row, out),
    }


def estimated(row: Row, out: Path) -> float | None:
    """Return the GB that `flawsmith check` says of a row that was measured."""
    output, _, _ = measured(["check", str(out / f"{row.name}.toml")])
    estimate = re.search(r"memory\s*│ about ([\d.]+) GB", output)
    return float(estimate[1]) if estimate else None


def main() -> None:
    """Measure what is missing, write after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the sets and runs go")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in rows()], metavar="ROW")
    parser.add_argument("--estimates", action="store_true", help="ask `check` again about rows that were measured")
    parser.add_argument("--results", type=Path, default=RESULTS / "picture_memory.json")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    known = json.loads(args.results.read_text())["rows"] if args.results.exists() else []
    results = {Row(*(row[name] for name in Row._fields)).name: row for row in known}
    for number, row in enumerate(rows(), start=1):
        known_row = row.name in results
        if row.name not in (args.only or [row.name]) or known_row != args.estimates and not (args.only and known_row):
            continue
        again = {"estimated_gb": estimated(row, args.out)} if args.estimates else {}
        one = {**results[row.name], **again} if args.estimates else measure(row, args.out)
        network = results.get(row._replace(side=256, colours="RGB", bits=8).name)
        if network and row.side > 256:
            one["above_network_gb"] = round(one["peak_gb"] - network["peak_gb"], 2)
        results[row.name] = one
        print(f"{number} of {len(rows())}:", one, flush=True)
        ordered = [results[each.name] for each in rows() if each.name in results]
        write_json(args.results, {"machine": machine(), "threads": os.environ.get("OMP_NUM_THREADS"), "rows": ordered})


if __name__ == "__main__":
    main()
