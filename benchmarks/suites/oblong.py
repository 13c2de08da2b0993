"""How to show detectors a photograph of 500 x 1250 pixels: squashed to a square, at its own shape, or in square tiles?

    python benchmarks/suites/oblong.py --out FOLDER

Procedural surfaces with small narrow damage, photographed at 500 x 1250 px: per surface 40 normal photographs and 10
shots of each of two defect types to learn from, 30 normal and 40 damaged ones to be tested on. `patchcore` learns the
normal ones alone, `probe` the shots too, with 3 seeds; EfficientNet-Lite0, default settings, no samples. Every way's
anomaly maps are brought back to 500 x 1250 before pixel AP is taken, so that all ways are asked about the same pixels;
tiles overlap, their maps are joined by the maximum, and a photograph's score is that of its loudest tile. Of a shot the
tiles without damage are left out. `cost` is the number of pixels that detectors see of a photograph, over that of the
square. Answers are added to the results as they come.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
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
from flawsmith.data.tensors import image_tensor
from flawsmith.data.training_set import TrainingSet, read_scaled
from flawsmith.evaluation.shape import Shape, proof_shape
from flawsmith.files import read_json, write_json
from flawsmith.interfaces import Detector
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.run.manifest import machine
from flawsmith.types import Example

RESULTS = Path(__file__).resolve().parents[1] / "results" / "oblong.json"
ROWS, COLUMNS = NATIVE = 500, 1250
ZOOM = 0.3
"""Scale of texture and damage: a scratch is some 100 px long and a few px wide."""
PRODUCTS = {"leather": ("cut", "scratch"), "steel": ("scratch", "dent")}
NORMALS, TEST_NORMALS, SHOTS, TESTS = 40, 30, 10, 20


@dataclass(frozen=True, slots=True)
class Way:
    """One way to show a photograph."""

    tile: Shape
    """Rows and columns of a piece of the photograph, native px."""
    shape: Shape
    """Rows and columns to which a piece is scaled."""

    def corners(self) -> list[int]:
        """Return the left edges of the pieces: the fewest that cover the photograph and overlap, evenly spread."""
        wide = self.tile[1]
        count = 1 if wide == COLUMNS else -(-COLUMNS * 5 // (wide * 4))
        return [round(left) for left in np.linspace(0, COLUMNS - wide, count)]

    def cost(self) -> float:
        """Return how many pixels detectors see of a photograph, over those of the square."""
        return len(self.corners()) * self.shape[0] * self.shape[1] / SQUARE.shape[0] ** 2


SQUARE = Way(NATIVE, (384, 384))
OWN = proof_shape(ProveConfig(), [NATIVE])
LARGE = proof_shape(ProveConfig(size=800), [NATIVE])
WAYS = {
    "squashed": SQUARE,
    "own shape": Way(NATIVE, OWN),
    "tiles": Way((ROWS, ROWS), (OWN[0], OWN[0])),
    "own shape, full resolution": Way(NATIVE, LARGE),
}


def photographs(folder: Path, surface: str) -> dict[str, list[Example]]:
    """Write a product's photographs where they are missing; return normals, shots, and what is tested on."""
    groups: dict[str, list[Example]] = {"normals": [], "shots": [], "tests": []}
    wanted = [("normals", None, NORMALS), ("tests", None, TEST_NORMALS)]
    for defect in PRODUCTS[surface]:
        wanted += [("shots", defect, SHOTS), ("tests", defect, TESTS)]
    files = [(group, defect, number) for group, defect, count in wanted for number in range(count)]
    for place, (group, defect, number) in enumerate(files):
        path = folder / surface / f"{group}-{defect or 'normal'}-{number:03d}.png"
        masks = (path.with_suffix(".mask.png"),) if defect else ()
        seed = 1000 * place
        while not path.is_file():
            write(path, masks, surface, defect, seed)
            seed += 1
        groups[group].append(Example(path.name, path, surface, defect, masks))
    return groups


def write(path: Path, masks: Sequence[Path], surface: str, defect: str | None, seed: int) -> None:
    """Write a photograph cut from a square piece, whole damage inside; nothing where the damage is too high for it."""
    piece = factory.make(surface, defect, seed=seed, size=COLUMNS, line=5, zoom=ZOOM, grey=True)
    rng = np.random.default_rng(seed)
    least, most = 0, COLUMNS - ROWS
    if defect:
        hit = np.flatnonzero(piece.mask.any(1))
        least, most = max(least, hit[-1] + 1 - ROWS), min(most, hit[0])
    if least > most:
        return
    top = int(rng.integers(least, most + 1))
    for mask in masks:
        images.write_mask(mask, piece.mask[top : top + ROWS])
    images.write(path, piece.image[top : top + ROWS])


def pieces(way: Way, example: Example, folder: Path) -> list[tuple[slice, Example]]:
    """Return the pieces of a photograph as files of their own, and the columns that each covers."""
    everywhere = slice(0, COLUMNS)
    if way.tile == NATIVE:
        return [(everywhere, example)]
    native, cut = images.read(example.image), []
    label = read_label(example, NATIVE) if example.masks else np.zeros(NATIVE, bool)
    for left in way.corners():
        columns = slice(left, left + way.tile[1])
        path = folder / example.product / f"{example.image.stem}-{left:04d}.png"
        damaged = bool(label[:, columns].any())
        masks = (path.with_suffix(".mask.png"),) if damaged else ()
        if not path.is_file():
            for mask in masks:
                images.write_mask(mask, label[:, columns])
            images.write(path, native[:, columns])
        defect = example.defect if damaged else None
        cut.append((columns, Example(path.name, path, example.product, defect, masks)))
    return cut


def learned(way: Way, groups: dict[str, list[Example]], defects: tuple[str, ...], folder: Path) -> TrainingSet:
    """Return the normal photographs and the shots, in pieces; a shot's pieces without damage are left out."""
    training = TrainingSet(way.shape, defects)
    for example in (*groups["normals"], *groups["shots"]):
        for _, piece in pieces(way, example, folder):
            if piece.defect == example.defect:
                training.add(piece, "real")
    return training


def answers(detector: Detector, way: Way, tests: list[Example], folder: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the anomaly map float32 (500,1250) of each photograph, and its score."""
    for example in tests:
        whole, scores = np.full(NATIVE, -np.inf, np.float32), []
        for columns, piece in pieces(way, example, folder):
            predicted = detector.predict(image_tensor([read_scaled(piece, way.shape)[0]]))
            assert predicted.anomaly_map is not None and predicted.score is not None
            small = predicted.anomaly_map[0, 0].numpy()
            large = cv2.resize(small, way.tile[::-1], interpolation=cv2.INTER_LINEAR)
            whole[:, columns] = np.maximum(whole[:, columns], large)
            scores.append(float(predicted.score[0]))
        yield whole, max(scores)


def figures(detector: Detector, way: Way, tests: list[Example], defects: tuple[str, ...], folder: Path) -> list[float]:
    """Return pixel AP and image AUROC: the means over defect types, each against all normal photographs."""
    pixels, pictures = ([Ranking() for _ in defects] for _ in range(2))
    for example, (whole, score) in zip(tests, answers(detector, way, tests, folder), strict=True):
        label = read_label(example, NATIVE) if example.masks else np.zeros(NATIVE, bool)
        for number, defect in enumerate(defects):
            if example.defect in (None, defect):
                pixels[number].add(whole, label)
                pictures[number].add(np.array([score], np.float32), np.array([example.defect is not None]))
    aps, aurocs = [one.result().ap for one in pixels], [one.result().auroc for one in pictures]
    return [round(100 * float(np.mean(values)), 2) for values in (aps, aurocs)]


def main() -> None:
    """Parse, make the photographs, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where photographs, tiles and features are kept")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the probe")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    extractor = FeatureCache(load_extractor("efficientnet-lite0"), args.out / "features", half=True)
    results: dict[str, Any] = read_json(args.results) if args.results.exists() else {}
    results["machine"] = machine()
    results["extractor"] = {"name": extractor.name, "fingerprint": extractor.fingerprint}
    for name, way in WAYS.items():
        for surface, defects in PRODUCTS.items():
            groups = photographs(args.out / "photographs", surface)
            entry = results.setdefault(surface, {}).setdefault(name, {})
            if len(entry.get("probe", {}).get("pixel AP", [])) >= args.seeds:
                continue
            entry |= {
                "tile": list(way.tile),
                "shape": list(way.shape),
                "pieces": len(way.corners()),
                "cost": round(way.cost(), 2),
            }
            folder = args.out / f"tiles-{way.tile[1]}"
            training = learned(way, groups, defects, folder)
            for plugin, seeds in (("patchcore", 1), ("probe", args.seeds)):
                rows = []
                for seed in range(seeds):
                    made = registry.get("detectors", plugin)
                    detector = made(made.Settings(), defects, extractor=extractor)
                    for _ in detector.fit(training, torch.Generator().manual_seed(seed)):
                        pass
                    rows.append(figures(detector, way, groups["tests"], defects, folder))
                aps, aurocs = zip(*rows, strict=True)
                entry[plugin] = {"pixel AP": list(aps), "image AUROC": list(aurocs)}
            write_json(args.results, results)
            extractor.forget()
            print(surface, name, entry["patchcore"], entry["probe"], flush=True)


if __name__ == "__main__":
    main()
