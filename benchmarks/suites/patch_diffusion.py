"""A trial: closed-form patch diffusion, alone and mixed with a network. Not part of flawsmith; docs/proof.md says why.

    python benchmarks/suites/patch_diffusion.py --data ../shared/data --out FOLDER [--only screw]

The score of a finite set of patches is known in closed form: at every noise level the clean pixel is the posterior mean
over all patches, given the noisy patch round it (Kamb & Ganguli, arXiv 2412.20292; of one picture at several scales:
arXiv 2606.04299). Here the patches are those of `patch_synthesis`, logarithms of ratios with the label's distance as
guide, and only how a mask is filled differs. Arms, with the example's plan and --each samples per defect type:

* `crop_paste`, `patch_synthesis`: as they are.
* `patch diffusion`: `patch_synthesis` with the closed form in place of the search for nearest patches. It also
  retextures: a sketch is noised a little, then denoised.
* `controlnet_inpaint, noise` and `..., patches`: one training; from noise, or from a sketch by `patch_synthesis`.
* `mixed`: `controlnet_inpaint` from noise, its clean picture at each step decoded and mixed with the patches' posterior
  mean, w * network + (1 - w) * patches, then encoded again. w falls from 1 at a noise level of HIGH (standard deviation
  over signal) to 0 at LOW. Where the window is enlarged, patches are compared at the camera's scale. Beneath the paint
  lies the photograph itself, and the last picture is not encoded, so nothing of its grain is lost.

Rulers: the classifier and the copies of `looks.py`; the kernel distance to test defects per type; for cracks the share
of their length that is visible, and the longest gap, along the asked mask. A pixel's width across the crack counts as
visible where it is darker than 95 % of such widths on the normal photographs under the same masks. CPU seconds are the
painting's alone, without training.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import looks
import numpy as np
import torch
from closed_form import HIGH, LOW, MixedPainter, closed_form
from looks import PASTE, SHOTS, Looks, looks_of
from real_pixels import SHARED, _told
from sets import FOLDERS, RESULTS, configuration, with_damage

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.patches.damage_profile import coarse_of
from flawsmith.data.patches.ratios import logs, undamaged
from flawsmith.data.split import without_near_duplicates
from flawsmith.data.tensors import image_tensor
from flawsmith.data.windows import spot_of
from flawsmith.files import read_json, write_bytes, write_json
from flawsmith.metrics.pictures import kid
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.run.dataset import Dataset, load_split, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.synthesis.painters import Painters
from flawsmith.synthesis.plan import asked_mask, make_plan
from flawsmith.synthesis.train import generator_class, load_backbone, train, working_size
from flawsmith.types import Example, FeatureSet

PATCHES, CLOSED, MIXED = "patch_synthesis", "patch diffusion", "mixed"
NETWORK, SKETCHED = "controlnet_inpaint, noise", "controlnet_inpaint, patches"
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    PASTE: ("crop_paste", {}),
    PATCHES: (PATCHES, {}),
    CLOSED: (PATCHES, {}),
    NETWORK: ("controlnet_inpaint", {"start": "noise"}),
    SKETCHED: ("controlnet_inpaint", {"start": "patches", "strength": 0.35}),
    MIXED: ("controlnet_inpaint", {"start": "noise"}),
}
"""Arm -> its generator and its settings."""
LINES = {"magnetic-tile": "crack"}
"""Set -> its type of fine lines."""


@dataclass(frozen=True, slots=True)
class Made:
    """An arm's samples: examples on disk, the shots and photographs that the plan names, where damage was asked for."""

    examples: list[Example]
    shots: list[str]
    normals: list[str]
    asked: list[Path]
    seconds: float
    """CPU seconds of painting per sample."""


def painted(name: str, config: Config, data: Dataset, trained: Run, folder: Path) -> Made:
    """Paint an arm's samples, or read what was painted before."""
    index = folder / "index.json"
    plan = make_plan(config, data, generator_class(config))
    if not index.is_file():
        backbone = load_backbone(config)
        painters = Painters(config, data, backbone, trained.path("weights") if backbone else None)
        seconds, paid = 0.0, 0
        with closed_form() if name == CLOSED else nullcontext():
            for _, lines in groupby(plan, key=lambda line: line.batch):
                batch = list(lines)
                if any((folder / f"{line.index:06d}.mask.png").is_file() for line in batch):
                    continue  # painted before the suite was stopped
                painter = painters.of(batch[0].job)
                if name == MIXED:
                    parts = config, painter.generator, working_size(config, backbone), data.split, data.photographs
                    painter = MixedPainter(*parts, partial(painters._sketcher, batch[0].job))
                start = time.process_time()
                for line, made in zip(batch, painter.paint(batch), strict=True):
                    if made.picture is not None and made.mask is not None:
                        images.write(folder / f"{line.index:06d}.png", made.picture)
                        images.write_mask(folder / f"{line.index:06d}.mask.png", made.mask)
                seconds, paid = seconds + time.process_time() - start, paid + len(batch)
                print(name, batch[-1].index, f"{seconds:.0f} CPU s", flush=True)
        made = [line.index for line in plan if (folder / f"{line.index:06d}.mask.png").is_file()]
        write_json(index, {"made": made, "seconds": seconds / max(paid, 1)})
    kept, examples, asked = read_json(index), [], []
    lines = [line for line in plan if line.index in set(kept["made"])]
    by_id = {one.id: one for one in (*data.split.normals, *data.split.shots)}
    for line in lines:
        picture, mask = (folder / f"{line.index:06d}{end}.png" for end in ("", ".mask"))
        asked.append(folder / f"{line.index:06d}.asked.png")
        span = by_id[line.shot].span
        examples.append(Example(picture.name, picture, line.product, line.defect, (mask,), span=span))
        if not asked[-1].is_file():
            parts = by_id[line.normal], by_id[line.shot], data.split.shots, data.photographs, config.generate.turn
            images.write_mask(asked[-1], asked_mask(line, *parts))
    ids = [line.shot for line in lines], [line.normal for line in lines]
    return Made(examples, *ids, asked, round(kept["seconds"], 3))


def widths_of(picture: np.ndarray, mask: np.ndarray, span: Any) -> np.ndarray:
    """Return how dark the darkest place of each pixel's width across a line is, float64 (L,): logarithms of ratios."""
    spot = spot_of([], mask, 12)
    inside, logarithms = mask[spot], logs(images.to_model(picture, span)[spot])
    change = coarse_of(logarithms - undamaged(logarithms, inside)).mean(axis=2)
    points = np.argwhere(inside).astype(float)
    points -= points.mean(axis=0)
    along = np.rint(points @ np.linalg.svd(points, full_matrices=False)[2][0]).astype(int)
    darkest = np.full(int(np.ptp(along)) + 1, np.inf)
    np.minimum.at(darkest, along - along.min(), change[inside])
    return np.asarray(darkest[np.isfinite(darkest)], np.float64)


def unbroken(lines: Sequence[np.ndarray], limit: float) -> dict[str, float]:
    """Return the share of all widths that are darker than a limit, and the mean of the longest gaps, in px."""
    gaps = []
    for line in lines:
        longest = length = 0
        for visible in line < limit:
            length = 0 if visible else length + 1
            longest = max(longest, length)
        gaps.append(longest)
    share = float(np.mean([(line < limit).mean() for line in lines]))
    return {"lines": len(lines), "visible": round(share, 4), "longest_gap_px": round(float(np.mean(gaps)), 2)}


def distances(real: Looks, made: Looks, extractor: Any) -> dict[str, float]:
    """Return the kernel distance x 1000 of each type's made windows to real ones, and their mean."""
    row = {}
    for defect in np.unique(real.defect):
        sets = []
        for one in (real, made):
            image = image_tensor([picture / np.float32(127.5) - 1 for picture in one.pictures[one.defect == defect]])
            vector = torch.cat([extractor.vector(image[number : number + 1]) for number in range(len(image))])
            sets.append(FeatureSet(image, image[:, 0] > 2, vector, (), extractor.name))
        (value,) = kid(*sets, np.random.default_rng(0), 0).values()
        row[str(defect)] = round(float(value.value or 0.0), 3)
    return {"mean": round(float(np.mean(list(row.values()))), 3), **row}


def judged(name: str, data_root: Path, out: Path, each: int, names: Sequence[str]) -> dict[str, Any]:
    """Make all arms of a set, measure them, and draw their contact sheet."""
    shared = {**SHARED, "data.shots": 10, "generate.count": each, "screen.enabled": False}
    config = configuration(data_root, name, shared)
    configs = {
        arm: _told(config, {"generator.name": plugin, "generator.settings": settings})
        for arm, (plugin, settings) in ARMS.items()
    }
    run = Run.create(out / name / "runs" / NETWORK, configs[NETWORK])
    train(run)
    data = open_dataset(run)
    arms = {arm: painted(arm, configs[arm], data, run, out / name / arm) for arm in names}
    split = without_near_duplicates(load_split(run))
    split = replace(split, test_defects=tuple(with_damage(split.test_defects)))
    extractor = FeatureCache(load_extractor("efficientnet-lite0"), out / "features", memory=1 << 20)
    real = looks_of(split.test_defects, looks.pieces(split), [one.id for one in split.test_defects], extractor)
    ids = [one.id for one in split.shots]
    shots = looks_of(split.shots, ids, ids, extractor)
    kinds = {arm: looks_of(made.examples, made.shots, made.normals, extractor) for arm, made in arms.items()}
    rng = np.random.default_rng((0, 93))
    drawn = looks.drawn_groups(real, rng) | looks.drawn_groups(shots, rng)
    defects = [str(defect) for defect in np.unique(real.defect)]
    tree: dict[str, Any] = {}
    draws: dict[str, np.ndarray] = {}
    for arm, made in kinds.items():
        pairs = looks.told(real, made)
        whole = {d: float(pairs[d].auroc(*(np.ones((1, n)) for n in pairs[d].right.shape))[0]) for d in defects}
        weights = [(looks.weights_of(real, d, drawn), looks.weights_of(made, d, drawn)) for d in defects]
        draws[arm] = np.mean([pairs[d].auroc(*pair) for d, pair in zip(defects, weights, strict=True)], axis=0)
        mean = float(np.mean(list(whole.values())))
        tree[arm] = {
            "samples": len(made.defect),
            "cpu_seconds_per_sample": arms[arm].seconds,
            "auroc": {
                "mean": looks.figure(mean, draws[arm]),
                **{defect: round(value, 4) for defect, value in whole.items()},
            },
            "copies": looks.copied(shots, made)["copies"],
            "kid": distances(real, made, extractor),
        }
        for other in (PATCHES, NETWORK):
            if other in draws and other != arm:
                first = tree[other]["auroc"]["mean"]["value"]
                tree[arm][f"auroc_above {other}"] = looks.figure(mean - first, draws[arm] - draws[other])
        print(name, arm, tree[arm], flush=True)
    of_real: dict[str, Any] = {"windows": len(real.defect), "kid_of_shots": distances(real, shots, extractor)}
    if defect := LINES.get(name):
        of_real |= lines_of(data, split.test_defects, arms, tree, defect)
    looks.SHEET = (looks.REAL, *names)
    looks.SHOWN = 2
    write_bytes(out / f"{name}.png", looks._png(looks.drawn_sheet({looks.REAL: real, **kinds}, defects)))
    return {
        "machine": {**machine(), "threads": os.environ["OMP_NUM_THREADS"]},
        "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
        "backbone": run.record("train")["backbone"],
        "train_steps": config.train.steps,
        "mixed": {"high": HIGH, "low": LOW},
        "samples_per_defect": each,
        "real": of_real,
        "arms": tree,
    }


def lines_of(
    data: Dataset, tests: Sequence[Example], arms: dict[str, Made], tree: dict[str, Any], defect: str
) -> dict[str, Any]:
    """Put the figures of visible lines into each arm's row; return those of real lines."""
    by_id = {one.id: data.photographs.read(one) for one in data.split.normals}
    lines: dict[str, list[np.ndarray]] = {}
    normal: list[np.ndarray] = []
    for arm, made in arms.items():
        for example, path, base in zip(made.examples, made.asked, made.normals, strict=True):
            if example.defect != defect:
                continue
            photograph = by_id[base]
            asked = images.read_mask(path, photograph.native.shape)
            lines.setdefault(arm, []).append(widths_of(images.read(example.image), asked, photograph.span))
            if arm == PASTE:
                normal.append(widths_of(photograph.native, asked, photograph.span))
    limit = float(np.quantile(np.concatenate(normal), 0.05))
    for arm, rows in lines.items():
        tree[arm]["lines"] = unbroken(rows, limit)
        print(arm, tree[arm]["lines"], flush=True)
    real = []
    for example in tests:
        if example.defect == defect:
            picture = images.read(example.image)
            real.append(widths_of(picture, read_label(example, picture.shape), images.range_of(picture, example.span)))
    print(SHOTS, unbroken(real, limit), limit, flush=True)
    return {"lines": unbroken(real, limit), "limit": round(limit, 4)}


def main() -> None:
    """Parse, paint, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="where samples, features and contact sheets go, or lie")
    parser.add_argument("--only", choices=sorted(FOLDERS), help="one set")
    parser.add_argument("--each", type=int, default=12, help="samples per defect type")
    parser.add_argument("--arms", nargs="+", choices=[*ARMS], default=[*ARMS])
    parser.add_argument("--results", type=Path, default=RESULTS / "patch_diffusion.json")
    args = parser.parse_args()
    for name in [args.only] if args.only else sorted(FOLDERS):
        names = [arm for arm in ARMS if arm in (PASTE, PATCHES, *args.arms)]
        row = judged(name, args.data, args.out, args.each, names)
        results = read_json(args.results) if args.results.is_file() else {}
        write_json(args.results, {**results, name: row})


if __name__ == "__main__":
    main()
