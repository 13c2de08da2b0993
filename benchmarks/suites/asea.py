"""ASEA on real shots: the share of the CSM's attention that lies on the damage, before and after.

    python benchmarks/suites/asea.py --data ../shared/data [--csm builtin] [--per-defect 5] [--out FILE]

The first shots of every sort of both sets (see the head of each example for where to get them), each read in the window
that shows most of its damage, as `generate` does. Minutes; nothing is trained.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sets import FOLDERS, RESULTS, configuration

from flawsmith.data.photographs import Photographs
from flawsmith.data.tiling import plan_windows
from flawsmith.data.windows import cut, cut_mask
from flawsmith.files import write_json
from flawsmith.nn.methods.asea import ASEA, features, pooled
from flawsmith.nn.methods.csm import load_csm
from flawsmith.run.dataset import divide
from flawsmith.run.manifest import machine

SIZE = 128
"""Side of the window in pixels: the built-in backbone's."""


def main() -> None:
    """Parse, read every shot, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--csm", default="builtin", help="the built-in CSM, or a folder of BLIP-2")
    parser.add_argument("--per-defect", type=int, default=5, help="shots of each defect type")
    parser.add_argument("--out", type=Path, default=RESULTS / "asea.json")
    args = parser.parse_args()
    csm = load_csm(args.csm)
    shots: list[dict[str, Any]] = []
    for name in FOLDERS:
        split = divide(configuration(args.data, name))
        pictures, seen = Photographs(split.normals), defaultdict(int)
        for shot in split.shots:
            seen[shot.defect] += 1
            if seen[shot.defect] > args.per_defect:
                continue
            photograph = pictures.read(shot)
            damage = photograph.mask
            assert damage is not None
            windows = plan_windows(damage, SIZE, context=1.6, min_thickness=6.0, max_zoom=2.0, overlap=0.3)
            best = max(windows, key=lambda window: int(damage[window.inside(damage.shape)].sum()))
            image = torch.from_numpy(cut(photograph.model(), best, SIZE)).permute(2, 0, 1)[None].contiguous()
            mask = torch.from_numpy(cut_mask(damage, best, SIZE))[None, None].float()
            words = [f"a photo of a {str(shot.defect).replace('_', ' ')} on {name.replace('-', ' ')}"]
            begun = time.perf_counter()
            found = features(csm, image, words, mask, ASEA())
            row = {
                "set": name,
                "defect": shot.defect,
                "id": shot.id,
                "area": round(float(pooled(mask, csm.grid).mean()), 5),
                "before": round(float(found.before), 5),
                "after": round(float(found.after), 5),
                "parity": round(float(features(csm, image, words, mask, ASEA(parity=True)).after), 5),
                "finite": bool(torch.isfinite(found.queries).all()),
                "seconds": round(time.perf_counter() - begun, 3),
            }
            shots.append(row)
            print(row, flush=True)
    groups = {"all": shots} | {name: [row for row in shots if row["set"] == name] for name in FOLDERS}
    means = {
        name: {
            "shots": len(rows),
            **{
                key: round(float(np.mean([row[key] for row in rows])), 4)
                for key in ("area", "before", "after", "parity")
            },
            "raised": sum(row["after"] > row["before"] for row in rows),
            "not_finite": sum(not row["finite"] for row in rows),
        }
        for name, rows in groups.items()
    }
    print(means)
    told = {"name": args.csm, "fingerprint": csm.fingerprint}
    write_json(args.out, {"machine": machine(), "reader": told, "window": SIZE, "mean": means, "shots": shots})


if __name__ == "__main__":
    main()
