"""What are overlapping tiles worth where damage is a few pixels wide on a photograph of 1024 x 1024 pixels?

    python benchmarks/suites/tiling.py --out FOLDER

Procedural steel with scratches and dents, 4 to 7 px wide and some 70 long: 12 normal photographs and 4 shots of each
defect type to learn from, 10 normal and 14 damaged ones to be tested on.
`patchcore` learns the normal ones alone, `probe` the shots too, with 2 seeds; EfficientNet-Lite0, default settings, no
samples. The same photographs are shown whole at 384 x 384, whole at 1024 x 1024, and at 1024 x 1024 in tiles of 384
that overlap, all by the code of `prove` (TrainingSet, Tiled, predicted). Maps of whole photographs are brought back to
1024 x 1024 before pixel AP is taken, so that all ways are asked about the same pixels. Maps of tiles are joined as the
proof does, by the mean weighted by the distance to the tile's edge, and with the first seed by the maximum too.

`seconds` is processor time of one thread, which other work on the machine disturbs least, from reading the photographs
to the figures, all trainings of a detector together; features are computed once per detector and way, and kept in
memory. The ways run in turn in one process.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch

from flawsmith import registry
from flawsmith.arithmetic.ranking import Ranking
from flawsmith.config import ProveConfig
from flawsmith.data import factory, images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet, read_scaled
from flawsmith.evaluation.arms import common_set
from flawsmith.evaluation.evaluator import predicted
from flawsmith.evaluation.shape import proof_shape, proof_tiles
from flawsmith.evaluation.tiled import Tiled
from flawsmith.files import write_json
from flawsmith.interfaces import Detector
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.run.manifest import machine
from flawsmith.types import Example

RESULTS = Path(__file__).resolve().parents[1] / "results" / "tiling.json"
SIDE, ZOOM = 1024, 0.1
NATIVE = (SIDE, SIDE)
SURFACE, DEFECTS = "steel", ("scratch", "dent")
NORMALS, TEST_NORMALS, SHOTS, TESTS = 12, 10, 4, 7
WAYS = {
    "whole, 384": ProveConfig(size=384),
    "whole, 1024": ProveConfig(size=SIDE),
    "tiles of 384": ProveConfig(tile=384),
}


def photographs(folder: Path) -> Split:
    """Write the photographs where they are missing."""
    groups: dict[str, list[Example]] = {"normals": [], "test_normals": [], "shots": [], "test_defects": []}
    wanted: list[tuple[str, str | None, int]] = [("normals", None, NORMALS), ("test_normals", None, TEST_NORMALS)]
    for defect in DEFECTS:
        wanted += [("shots", defect, SHOTS), ("test_defects", defect, TESTS)]
    files = [(group, defect, number) for group, defect, count in wanted for number in range(count)]
    for seed, (group, defect, number) in enumerate(files):
        path = folder / f"{group}-{defect or 'normal'}-{number:03d}.png"
        masks = (path.with_suffix(".mask.png"),) if defect else ()
        if not path.is_file():
            piece = factory.make(SURFACE, defect, seed=seed, size=SIDE, line=5, zoom=ZOOM, grey=True)
            for mask in masks:
                images.write_mask(mask, piece.mask)
            images.write(path, piece.image)
        groups[group].append(Example(path.name, path, SURFACE, defect, masks))
    return Split(**{name: tuple(group) for name, group in groups.items()})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a detector says of the test photographs."""

    maps: list[np.ndarray]
    """float32 (1024,1024) each."""
    scores: np.ndarray
    """float32 (P,)."""


def learned(part: ProveConfig, split: Split) -> TrainingSet:
    """Return the normal photographs and the shots as `prove` would take them in."""
    shapes = [NATIVE] * len(split.normals)
    training = common_set(split, [], proof_shape(part, shapes), DEFECTS, frozenset(), proof_tiles(part, shapes))
    for shot in split.shots:
        training.add(shot, "real")
    return training


def asked(detector: Detector, training: TrainingSet, tests: Sequence[Example]) -> Answer:
    """Ask about the test photographs as `prove` would; maps of whole ones are brought back to their own size."""
    if training.tiles is not None:
        detector = Tiled(detector, training.tiles)
    maps, scores = [], []
    for example in tests:
        told = predicted(detector, [read_scaled(example, NATIVE if training.tiles else training.shape).image])
        assert told.anomaly_map is not None and told.score is not None
        anomaly_map = told.anomaly_map[0][0].numpy()
        maps.append(cv2.resize(anomaly_map, NATIVE, interpolation=cv2.INTER_LINEAR))
        scores.append(float(told.score[0]))
    return Answer(maps, np.array(scores, np.float32))


def largest(detector: Detector, training: TrainingSet, tests: Sequence[Example]) -> list[np.ndarray]:
    """Return the maps of tiles joined by the maximum, which the proof does not do."""
    assert training.tiles is not None
    grid, joined = training.tiles.grid(NATIVE), []
    for example in tests:
        told = predicted(detector, grid.cut(read_scaled(example, NATIVE).image)).anomaly_map
        assert told is not None
        whole = np.full(NATIVE, -np.inf, np.float32)
        for window, tile in zip(grid.windows, told, strict=True):
            place = window.inside(NATIVE)
            whole[place] = np.maximum(whole[place], tile[0].numpy())
        joined.append(whole)
    return joined


def pixel_ap(maps: Sequence[np.ndarray], tests: Sequence[Example]) -> float:
    """Return the mean over defect types, each against all normal photographs, in points."""
    rankings = {defect: Ranking() for defect in DEFECTS}
    for anomaly_map, example in zip(maps, tests, strict=True):
        label = read_label(example, NATIVE) if example.masks else np.zeros(NATIVE, bool)
        for defect, ranking in rankings.items():
            if example.defect in (None, defect):
                ranking.add(anomaly_map, label)
    return round(100 * float(np.mean([ranking.result().ap for ranking in rankings.values()])), 2)


def image_auroc(scores: np.ndarray, tests: Sequence[Example]) -> float:
    """Return the mean over defect types, each against all normal photographs, in points."""
    values = []
    for defect in DEFECTS:
        ranking = Ranking()
        members = np.array([example.defect in (None, defect) for example in tests])
        damaged = np.array([example.defect is not None for example in tests])
        ranking.add(scores[members], damaged[members])
        values.append(ranking.result().auroc)
    return round(100 * float(np.mean(values)), 2)


def measured(name: str, plugin: str, split: Split, seeds: int) -> dict[str, Any]:
    """Train a detector with every seed and return its figures and seconds."""
    extractor = FeatureCache(load_extractor("efficientnet-lite0"), half=True, memory=3 << 30)
    tests = (*split.test_defects, *split.test_normals)
    figures: dict[str, list[float]] = {"pixel AP": [], "image AUROC": []}
    seconds = {"reading": 0.0, "training": 0.0, "asking": 0.0, "figures": 0.0}
    started = time.process_time()

    def lap(what: str) -> None:
        nonlocal started
        now = time.process_time()
        seconds[what] += now - started
        started = now

    training = learned(WAYS[name], split)
    lap("reading")
    for seed in range(seeds):
        made = registry.get("detectors", plugin)
        detector = made(made.Settings(), DEFECTS, extractor=extractor)
        for _ in detector.fit(training, torch.Generator().manual_seed(seed)):
            pass
        lap("training")
        answer = asked(detector, training, tests)
        lap("asking")
        figures["pixel AP"].append(pixel_ap(answer.maps, tests))
        figures["image AUROC"].append(image_auroc(answer.scores, tests))
        lap("figures")
        if training.tiles is not None and not seed:
            maximum = pixel_ap(largest(detector, training, tests), tests)
            figures.setdefault("pixel AP, joined by the maximum", []).append(maximum)
            started = time.process_time()  # the comparison costs the proof nothing
    pictures = {"normal": len(training.normal()), "damaged": len(training.damaged())}
    return {
        **figures,
        "pictures learned from": pictures,
        "seconds": {what: round(value, 1) for what, value in seconds.items()},
        "seconds in all": round(sum(seconds.values()), 1),
    }


def main() -> None:
    """Parse, make the photographs, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where photographs are kept")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of the probe")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    extractor = load_extractor("efficientnet-lite0")
    results: dict[str, Any] = {
        "machine": machine(),
        "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
        "seeds": args.seeds,
        "counts": {"normals": NORMALS, "shots": SHOTS, "test normals": TEST_NORMALS, "tests per type": TESTS},
        "threads": torch.get_num_threads(),
    }
    split = photographs(args.out)
    for plugin, seeds in (("patchcore", 1), ("probe", args.seeds)):
        first = None
        for name in WAYS:
            found = results.setdefault(name, {})[plugin] = measured(name, plugin, split, seeds)
            first = first or found["seconds in all"]
            found["seconds, over the first way"] = round(found["seconds in all"] / first, 2)
            results["load"] = [round(value, 2) for value in os.getloadavg()]
            write_json(args.results, results)
            print(name, plugin, found, flush=True)


if __name__ == "__main__":
    main()
