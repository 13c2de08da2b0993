"""Do DualAnoDiff's two branches agree? Mean overlap of the drawn mask with the damage in the whole picture, with SAIM
and without.

    python benchmarks/suites/dual_agreement.py --config examples/magnetic-tile-dual.toml --data FOLDER --out FOLDER

Two runs are trained from one configuration, OUT/with and OUT/without, which differ in `saim` alone; a training that was
killed goes on. Then both make the same windows (`out = "whole"`, the same seeds and defect types), in two ways. Both
pictures are synthetic throughout and nothing but SAIM ties one to the other. Chance is the overlap with the damage of
another window of the same defect type.

change  The whole picture starts from a normal window, made anew by --anew, and the second from grey: neither is
damaged.
        Where the whole picture shows damage is where it changed most, in as many pixels as the mask has.
tone    Both start from noise. Where the whole picture shows damage is what leaves the tone of its own surroundings (a
        median over a third of the window). The threshold is the one that finds the real shots' masks best, and how well
        it does that is reported: no overlap can be expected to exceed it. It suits surfaces and says little of parts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("FLAWSMITH_BENCH_THREADS", "2"))

import cv2
import numpy as np
import torch

import flawsmith as fs
from flawsmith.config import load_config, parse_overrides
from flawsmith.data.photographs import Photographs
from flawsmith.data.tiling import Window
from flawsmith.data.windows import cut
from flawsmith.files import write_json
from flawsmith.generators.dual_branch import DualBranch
from flawsmith.nn.methods.mask_threshold import overlaps, tidy
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.synthesis.learning import Job, views
from flawsmith.synthesis.train import jobs_of, load_backbone, working_size
from flawsmith.types import Condition

BATCH = 8


def off_tone(image: np.ndarray) -> np.ndarray:
    """How far pixels are from the median of their surroundings, float32 (H,W); `image` is float32 (H,W,3) in [-1,1]."""
    grey = np.rint((image.mean(axis=2) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    wide = (grey.shape[0] // 3) | 1
    far = cv2.absdiff(grey, cv2.medianBlur(grey, wide)).astype(np.float32) / 127.5
    return np.asarray(cv2.GaussianBlur(far, (0, 0), 1.0))


def ruler(run: Run, job: Job, pictures: Photographs, size: int) -> tuple[float, float]:
    """Return the threshold of `off_tone` that finds the shots' masks best, and its mean overlap with them."""
    seen = [one.view for one in views(run.config, job, pictures, size) if one.defect]
    distance = torch.from_numpy(np.stack([off_tone(view.image) for view in seen]))[:, None]
    mask = torch.from_numpy(np.stack([view.mask for view in seen]))[:, None].float()
    mean = overlaps(distance, mask, "pixel").mean(0)
    best = int(mean.argmax())
    return float(np.geomspace(0.01, 1.0, len(mean))[best]), float(mean[best])


def windows(job: Job, pictures: Photographs, size: int, count: int) -> torch.Tensor:
    """Return normal windows from the middle of photographs, float32 (count,3,size,size)."""
    out = []
    for number in range(count):
        model = pictures.read(job.normals[number % len(job.normals)]).model()
        side = min(*model.shape[:2], size)
        middle = Window((model.shape[0] - side) // 2, (model.shape[1] - side) // 2, side)
        out.append(cut(model, middle, size))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float().contiguous()


def agreement(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Train what is not trained, make windows of every defect type in both ways and compare the two branches."""
    fs.train(run)
    config = run.config
    split, backbone = load_split(run), load_backbone(config)
    size, pictures, found = working_size(config, backbone), Photographs(split.normals), {}
    for job in jobs_of(config, split):
        generator = DualBranch.load(run.path("weights", *job.name.split("/")), backbone)
        limit, ceiling = ruler(run, job, pictures, size)
        normal = windows(job, pictures, size, args.count)
        for product, defect in sorted({(shot.product, shot.defect or "") for shot in job.shots}):
            row: dict[str, Any] = {"windows": args.count}
            for way in ("change", "tone"):
                told = {"out": "whole", "start": "noise"}
                if way == "change":
                    told = {"out": "whole", "start": "shot", "strength": args.anew, "detail": 0.0}
                generator.settings = generator.settings.model_copy(update=told)
                image, masks, refused = made(generator, normal, (product, defect), args, way)
                if way == "change":
                    damage = most_changed(image, generator.backbone, normal, masks)
                else:
                    far = torch.from_numpy(np.stack([off_tone(one) for one in image.permute(0, 2, 3, 1).numpy()]))
                    damage = tidy((far[:, None] > limit).float(), round(0.001 * size**2))
                    row |= {"ruler_threshold": round(limit, 4), "ruler_iou_on_shots": round(ceiling, 4)}
                each = iou(masks, damage)
                row[way] = {
                    "iou_mean": _mean(each),
                    "iou_chance": _mean(iou(masks, damage.roll(1, 0))),
                    "iou_each": [round(float(value), 4) for value in each],
                    "mask_area": _mean(masks.mean((1, 2, 3))),
                    "refused": {word: refused.count(word) for word in sorted(set(refused)) if word},
                }
                print(
                    f"{run.folder.name} {job.name} {defect} {way}: {row[way]['iou_mean']}", file=sys.stderr, flush=True
                )
            found[f"{product}/{defect}"] = row
    return found


def made(
    generator: DualBranch, normal: torch.Tensor, names: tuple[str, str], args: argparse.Namespace, way: str
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Return the whole pictures (N,3,S,S), the drawn masks (N,1,S,S) and why any was refused."""
    pictures, masks, refused = [], [], []
    for first in range(0, len(normal), BATCH):
        rows = normal[first : first + BATCH]
        product, defect = ((name,) * len(rows) for name in names)
        # A shot that is the normal window itself holds no damage: both branches then start without any.
        sketch = rows if way == "change" else None
        asked = Condition(rows, torch.ones_like(rows[:, :1]), product, defect, sketch=sketch)
        seeds = range(args.seed + first, args.seed + first + len(rows))
        seen = generator.sample(asked, seeds, steps=args.steps, guidance=args.guidance)
        pictures.append(seen.image)
        masks.append(seen.mask)
        refused += seen.refused
    return torch.cat(pictures), torch.cat(masks), refused


def most_changed(image: torch.Tensor, backbone: Any, normal: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return float32 (N,1,S,S): the pixels that changed most, as many as the mask has.

    Change is the mean difference of channels to the normal window's own round trip, blurred by two pixels.
    """
    rows = []
    for one, base, mask in zip(image, normal, masks, strict=True):
        before = backbone.decode(backbone.encode(base[None]))[0].cpu()
        change = cv2.GaussianBlur((one - before).abs().mean(0).numpy(), (0, 0), 2.0)
        many = int(mask.sum())
        limit = np.partition(change.ravel(), -many)[-many] if many else np.inf
        rows.append(torch.from_numpy(change >= limit)[None].float())
    return torch.stack(rows)


def iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the overlap of each pair of masks, float32 (N,); two empty masks have none."""
    both = (first * second).flatten(1).sum(1)
    return both / (torch.maximum(first, second).flatten(1).sum(1)).clamp_min(1)


def compared(found: dict[str, Any], way: str) -> dict[str, Any]:
    """Return the means over types, with SAIM and without, beside chance, and the paired difference's interval."""
    result: dict[str, Any] = {}
    for name, defects in found.items():
        for key in ("iou_mean", "iou_chance"):
            result.setdefault(name, {})[key] = round(
                float(np.mean([defect[way][key] for defect in defects.values()])), 4
            )
    gain = [
        first - second
        for with_it, without in zip(found["with"].values(), found["without"].values(), strict=True)
        for first, second in zip(with_it[way]["iou_each"], without[way]["iou_each"], strict=True)
    ]
    rng = np.random.default_rng(0)
    low, high = np.quantile([rng.choice(gain, len(gain)).mean() for _ in range(2000)], (0.025, 0.975))
    result["gain_by_saim"] = {
        "mean": round(float(np.mean(gain)), 4),
        "interval_95": [round(float(low), 4), round(float(high), 4)],
        "pairs": len(gain),
        "how": "bootstrap over windows made with the same seed and defect type, with and without",
    }
    return result


def _mean(values: torch.Tensor) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def main(argv: list[str] | None = None) -> int:
    here = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=here.parent / "examples" / "magnetic-tile-dual.toml")
    parser.add_argument("--data", default="", help="data.root")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two runs")
    parser.add_argument("--set", action="append", default=[], help="as for flawsmith run")
    parser.add_argument("--count", type=int, default=24, help="windows a defect type")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--anew", type=float, default=0.7, help="change: how much of the normal window is made anew")
    parser.add_argument("--results", type=Path, default=here / "results" / "dual_agreement.json")
    args = parser.parse_args(argv)
    changes = parse_overrides(args.set) | ({"data.root": args.data} if args.data else {})
    plain = load_config(args.config, changes)
    found = {}
    for name, saim in (("with", plain.generator.settings.get("saim", "narrow")), ("without", "off")):
        settings = plain.generator.settings | {"saim": saim}
        config = load_config(args.config, changes | {"generator.settings": settings})
        found[name] = agreement(Run.create(args.out / name, config), args)
    ways = {way: compared(found, way) for way in ("change", "tone")}
    told = {"count": args.count, "steps": args.steps, "guidance": args.guidance, "seed": args.seed, "anew": args.anew}
    facts = {
        "what": "mean IoU of the drawn mask with where the whole picture shows damage, told in two ways",
        "machine": machine(),
        "configuration": plain.model_dump(mode="json", include={"seed", "generator", "train", "data", "backbone"}),
        "sampling": told,
        **ways,
        "defects": found,
    }
    facts["configuration"]["data"]["root"] = Path(str(plain.data.root)).name
    write_json(args.results, facts)
    for name, defects in found.items():
        for defect, row in defects.items():
            told_row = ", ".join(f"{w} {row[w]['iou_mean']:.3f} (chance {row[w]['iou_chance']:.3f})" for w in ways)
            print(f"{name:8} {defect:32} {told_row}")
    print(json.dumps(ways, indent=1))
    print(f"written: {args.results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
