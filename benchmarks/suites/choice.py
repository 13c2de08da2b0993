"""Is the choice right? `flawsmith choose` inside the shots, then the test set: chosen against every fixed way.

    python benchmarks/suites/choice.py --data ../shared/data --out FOLDER --only screw [--split 1] [--seeds 3]
    python benchmarks/suites/choice.py --data ../shared/data --out FOLDER --only magnetic-tile --planted shuffled

Split 0 is the set as it lies: the first ten photographs of each defect type are shots. Other splits deal the
photographs anew: a folder of links whose names put them in another order. For each, the choice is made by folds inside
the shots; then detectors learn from the shots alone, from ten samples per shot of each candidate, and from what was
chosen, and the test set is read once per arm and seed. What was chosen is compared with the shots alone and with every
fixed way, paired over test pictures and seeds. Which fixed way is the best is known only after the test.

Planted: with `shuffled` every shot has the mask of another shot of its type, brought to its own size. Its samples show
nothing that a label says, and nothing should be chosen. Only surfaces can be shuffled: on a part another shot's mask
may lie beside the part, and a plan refuses that.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import real_pixels
from sets import CARD, FOLDERS, RESULTS, configuration, link, with_damage

from flawsmith.choice.candidates import MOST, candidates
from flawsmith.choice.choose import FOLDS, choose
from flawsmith.choice.records import Choice
from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.scaling import scaled_mask
from flawsmith.evaluation.arms import REAL
from flawsmith.evaluation.statistics import MEAN
from flawsmith.files import read_json, write_json
from flawsmith.run.dataset import divide
from flawsmith.run.manifest import machine

CHOSEN = "chosen"


def dealt_anew(config: Config, folder: Path, split: int, *, shuffled: bool) -> Config:
    """Return the configuration of a folder of links: the photographs in another order, or with others' masks too."""
    groups = divide(config)
    normals = (*groups.normals, *groups.test_normals)
    examples = [*normals, *with_damage((*groups.shots, *groups.test_defects))]
    rng, root = np.random.default_rng((split, 95)), folder / "photographs"
    ranks = rng.permutation(len(examples))
    defects = sorted({str(one.defect) for one in examples if one.defect})
    next_defect = {}
    for defect in defects:
        members = [one for one in examples if one.defect == defect]
        next_defect |= {one.id: other for one, other in zip(members, members[1:] + members[:1], strict=True)}
    for rank, one in zip(ranks, examples, strict=True):
        side = one.split or "train"
        name = f"{rank:05d}-{one.image.stem}"
        place = f"set/{side}/good" if one.defect is None else f"set/test/{one.defect}"
        link(root / place / f"{name}{one.image.suffix}", one.image)
        label = root / f"set/ground_truth/{one.defect}/{name}_mask.png"
        if not shuffled:
            for mask_file in one.masks:
                link(label.with_suffix(mask_file.suffix), mask_file)
        elif one.defect and not label.is_file():
            other = next_defect[one.id]
            mask = read_label(other, images.describe(other.image).shape)
            label.parent.mkdir(parents=True, exist_ok=True)
            images.write_mask(label, scaled_mask(mask, images.describe(one.image).shape[:2]))
    tree = config.model_dump()
    tree["data"] |= {"root": root, "layout": "mvtec", "products": ["set"], "normal": [], "product": "", "patterns": []}
    return Config.model_validate(tree)


def chosen_arm(choice: Choice) -> dict[str, Any]:
    """Return what the chosen run is told beside the example's settings."""
    generate, generator = choice.config.generate, choice.config.generator
    return {
        "generator.name": generator.name,
        "generator.settings": generator.settings,
        **{f"generate.{name}": getattr(generate, name) for name in ("masks", "count", "controls")},
    }


def main() -> None:
    """Parse, choose, test, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="where choices, runs and answers go, or lie")
    parser.add_argument("--only", choices=sorted(FOLDERS), required=True, help="the set")
    parser.add_argument("--split", type=int, default=0, help="which order of the photographs")
    parser.add_argument("--folds", type=int, default=FOLDS, help="folds of the choice")
    parser.add_argument("--seeds", type=int, default=3, help="trainings per arm of the test")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 = one per processor, on a card one")
    parser.add_argument("--planted", choices=["shuffled"], help="what should lead to no choice; nothing is tested")
    parser.add_argument("--results", type=Path, default=RESULTS / "choice.json")
    args = parser.parse_args()
    if args.planted and args.only != "magnetic-tile":
        parser.error("--planted needs a surface: --only magnetic-tile")
    entry = f"{args.only}, {f'planted: {args.planted}' if args.planted else f'split {args.split}'}"
    folder = args.out / entry.replace(":", "")
    config = configuration(args.data, args.only, real_pixels.SHARED)
    if args.split or args.planted:
        config = dealt_anew(config, folder, args.split, shuffled=bool(args.planted))
    results = read_json(args.results) if args.results.is_file() else {}
    went_on = (folder / "choice").is_dir()  # an earlier try has done a part of it
    begun = time.time()
    choice = choose(config, folder / "choice", folds=args.folds, workers=args.workers)
    row: dict[str, Any] = {
        "machine": {**machine(), "threads": os.environ["OMP_NUM_THREADS"], "card": CARD},
        "minutes": results.get(entry, {}).get("minutes") if went_on else round((time.time() - begun) / 60, 1),
        "choice": choice.tree(),
    }
    print("\n".join(one.sentence for one in choice.defects), flush=True)
    write_json(args.results, {**results, entry: row})  # the test may take as long again
    if not args.planted:
        row |= tested(config, folder, choice, args.seeds, args.workers)
        write_json(args.results, {**results, entry: row})


def tested(config: Config, folder: Path, choice: Choice, seeds: int, workers: int) -> dict[str, Any]:
    """Read the test set: return the figures of the fixed ways and of the chosen one, and their comparisons."""
    shots = {one.defect: 10 for one in choice.defects}
    fixed = [one.name for one in candidates(())]
    for one in candidates(()):
        masks, count = {"generate.masks": one.masks}, {"generate.count": {name: MOST * n for name, n in shots.items()}}
        real_pixels.ARMS[one.name] = {"generator.name": one.generator, **masks, **count}
    names = [*fixed]
    if any(one.candidate for one in choice.defects):
        real_pixels.ARMS[CHOSEN] = chosen_arm(choice)
        names.append(CHOSEN)
    pairs = [(CHOSEN, other) for other in (REAL, *fixed) if CHOSEN in names]
    if workers > 1:
        real_pixels.prepare(config, folder / "test", names, config.prove.detectors[0], seeds, workers)
    row = real_pixels.tested(config, folder / "test", names, config.prove.detectors[0], seeds, pairs)
    means = {name: row["arms"][name]["figures"]["localization"][MEAN]["ap"]["mean"] for name in fixed}
    return {**row, "fixed": means}


if __name__ == "__main__":
    main()
