"""What a backbone's UNet knows of factory windows that it never saw, by the sort of mask, and what words add to it.

    python benchmarks/suites/held_out.py --backbone builtin runs/my

The training loss itself (squared error of v or noise, under the mask alone) at four noise levels, on the same 96
windows with the same noise for every backbone: under the damage's own mask, loosened; under a rough one that does not
tell its shape; under one that covers all; and of normal windows under such masks. "without words": the empty prompt.
It is far more sensitive than looks or classifiers; no photograph is needed.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sets import RESULTS

from flawsmith.data import factory, images
from flawsmith.data.augmentation import damage_view, loosened, normal_view, roughed
from flawsmith.data.tensors import image_tensor, mask_tensor
from flawsmith.files import read_json, write_json
from flawsmith.nn import builtin
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import weighted_loss
from flawsmith.recipes.backbone_data import prompt, window_at
from flawsmith.run.manifest import machine

FIRST = 999_000_000
"""Seed of the first picture; recipes count from their seed times 1,000,000,007."""
LEVELS = (150, 400, 650, 900)
Row = tuple[np.ndarray, np.ndarray, str]


def windows(count: int) -> dict[str, list[Row]]:
    """Return windows with their masks and words, by what the mask is."""
    rng = np.random.default_rng(0)
    damaged, number = [], FIRST
    while len(damaged) < count:
        piece = factory.make_random(number, size=256, sound_share=0.0)
        damaged += [piece] if piece.mask.any() else []
        number += 1
    rows: dict[str, list[Row]] = {"own mask, loosened": [], "rough mask": [], "everything": [], "normal": []}
    for index, piece in enumerate(damaged):
        window = window_at(piece.mask, builtin.WINDOW, rng)
        view = damage_view(images.to_model(piece.image), piece.mask, [window], builtin.WINDOW, rng, tone=0.1)
        rough, said = roughed(view.mask, rng), prompt(piece.defect, piece.surface)
        rows["own mask, loosened"].append((view.image, loosened(view.mask, rng, 6), said))
        rows["rough mask"].append((view.image, rough, said))
        rows["everything"].append((view.image, np.ones_like(rough), said))
        other = damaged[(index * 7 + 3) % len(damaged)]
        mask = rough if index % 2 else view.mask
        normal = normal_view(
            images.to_model(other.normal), other.part, mask, window.side, builtin.WINDOW, rng, tone=0.1
        )
        rows["normal"].append((normal.image, normal.mask, prompt(None, other.surface)))
    return rows


@torch.no_grad()
def losses(back: Backbone, rows: list[Row]) -> dict[str, Any]:
    """Return the mean loss under the masks, with words at each noise level and on the whole, and without words."""
    found: dict[str, list[float]] = {f"t = {level}": [] for level in LEVELS} | {"without words": []}
    for first in range(0, len(rows), 16):
        pictures, masks, words = zip(*rows[first : first + 16], strict=True)
        image, mask = image_tensor(list(pictures)), mask_tensor(list(masks))
        latent, masked, cells = back.encode(image), back.encode(image * (1 - mask)), back.latent_mask(mask)
        for said in (list(words), [""] * len(words)):
            text, draw = back.embed(said), torch.Generator().manual_seed(first)
            for level in LEVELS:
                t = torch.full((len(latent),), level)
                fresh = torch.randn(latent.shape, generator=draw)
                out = back.predict(back.noise.add(latent, fresh, t), t, text, mask=cells, masked=masked)
                loss = weighted_loss(out, back.noise.target_of(latent, fresh, t), cells).tolist()
                found[f"t = {level}" if said[0] else "without words"] += loss
    worded = [float(np.mean(found[f"t = {level}"])) for level in LEVELS]
    told = {f"t = {level}": round(value, 4) for level, value in zip(LEVELS, worded, strict=True)}
    return {
        "with words": round(float(np.mean(worded)), 4),
        "without words": round(float(np.mean(found["without words"])), 4),
        **told,
    }


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=["builtin"], help='"builtin" or folders')
    parser.add_argument("--count", type=int, default=96, help="windows of each sort")
    parser.add_argument("--results", type=Path, default=RESULTS / "held_out.json")
    args = parser.parse_args()
    rows = windows(args.count)
    results = read_json(args.results) if args.results.exists() else {}
    for source in args.backbone:
        back = Backbone.load(source, device="cpu", dtype="float32")
        facts = {"machine": {**machine(), "threads": os.environ.get("OMP_NUM_THREADS", "")}, "windows": args.count}
        results[back.fingerprint] = {**facts, **{name: losses(back, some) for name, some in rows.items()}}
        write_json(args.results, results)
        print(source, back.fingerprint, results[back.fingerprint], flush=True)


if __name__ == "__main__":
    main()
