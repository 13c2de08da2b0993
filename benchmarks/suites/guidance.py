"""How strongly should controlnet_inpaint vary its first sketch, and follow its text? Judged by shots that it never saw.

    python benchmarks/suites/guidance.py --data ../shared/data --out FOLDER [--only screw]

The ten shots per defect type of an example are halved. The generator learns from one half, paints the same plan with
every start, strength and guidance, and is compared with the other half; then the other way round. The test set is not
read. For each way of painting:

* **KID** of its windows against those of the left-out shots: the mean over defect types and halves, and its paired
  difference from the example's own settings with the standard error over types and halves;
* **nearest shot**: likeness to the nearest shot that it learned from, 1 = the same picture, as the metric `copies` has
  it: what varies nothing is a copy;
* **unbroken**: of line-like damage, the share of the line's length along which something is seen: where the change from
  the normal photograph is at least a quarter of the median change that crop_paste makes along the same line.

Only the generator's backbone and the extractor that measures are named in the results; nothing is proved here.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from sets import FOLDERS, RESULTS, configuration

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.feature_windows import feature_window, window_of
from flawsmith.data.masks.lines.reading import read_line
from flawsmith.data.split import Split
from flawsmith.evaluation.measure import feature_set
from flawsmith.files import read_json, write_json
from flawsmith.metrics.labels import copies
from flawsmith.metrics.pictures import kid
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.pipeline import run_all
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.records import Sample
from flawsmith.types import Example

SAMPLES = 10
"""Samples per defect type and way of painting."""
SEEN = 0.25
"""Share of crop_paste's median change along a line from which on the line is seen."""
STARTS = {"shot": (0.2, 0.35, 0.5), "patches": (0.2, 0.35, 0.5), "noise": (1.0,)}
"""Start -> strengths; from noise there is none to choose."""
GUIDANCE = (1.0, 1.5, 3.0)
USUAL = "shot, strength 0.35, guidance 3"
"""What the examples told before this was measured: others are compared with it."""
SHARED = {
    "data.shots": 5,
    "train.steps": 240,
    "generate.count": SAMPLES,
    "generate.controls": 0,
    "measure.enabled": False,
    "prove.enabled": False,
    "export.formats": [],
}


def ways() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each way of painting, and the settings that it changes."""
    for start, strengths in STARTS.items():
        for strength in strengths:
            for guidance in GUIDANCE:
                settings = {"start": start, "strength": strength}
                varied = "" if start == "noise" else f", strength {strength:g}"
                name = f"{start}{varied}, guidance {guidance:g}"
                yield name, {"generator.settings": settings, "generate.guidance": guidance}


def halves(split: Split) -> list[list[Example]]:
    """Return every second shot of each defect type, and the others."""
    defects = sorted({str(shot.defect) for shot in split.shots})
    of_defect = [[shot for shot in split.shots if shot.defect == defect] for defect in defects]
    return [[shot for shots in of_defect for shot in shots[half::2]] for half in (0, 1)]


def without(config: Config, shots: Sequence[Example]) -> dict[str, Any]:
    """Return the setting that hides photographs and their masks."""
    root = config.data.root.resolve()
    paths = [path for shot in shots for path in (shot.image, *shot.masks)]
    hidden = [path.resolve().relative_to(root).as_posix() for path in paths]
    return {"data.exclude": [*config.data.exclude, *hidden]}


def normal_picture(run: Run, sample: Sample, normals: dict[str, Example]) -> tuple[np.ndarray, np.ndarray]:
    """Return a sample and the normal photograph beneath, float32 (H,W,3), RGB, [-1,1]."""
    below = images.read(normals[sample.normal].image)
    span = images.range_of(below, normals[sample.normal].span)
    return images.to_model(images.read(run.path(sample.image)), span), images.to_model(below, span)


def change_along(made: np.ndarray, below: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Return the largest change within a pixel of each point of a line, float (N,)."""
    change = cv2.dilate(np.abs(made - below).mean(axis=2), np.ones((3, 3), np.uint8))
    rows, columns = (np.clip(np.rint(path[:, axis]).astype(int), 0, change.shape[1 - axis] - 1) for axis in (1, 0))
    return np.asarray(change[rows, columns])


class Half:
    """Paints and judges with one half of the shots.

    Args:
        name: The set.
        data: The folder of all sets.
        folder: Where the runs are kept.
        left_out: The shots that nothing is learned from.
        hidden: The setting that hides them.
    """

    def __init__(
        self, name: str, data: Path, folder: Path, left_out: Sequence[Example], hidden: dict[str, Any]
    ) -> None:
        self._name, self._data, self._folder, self._hidden = name, data, folder, hidden
        self._extractor: Extractor = FeatureCache(load_extractor("efficientnet-lite0"), folder / "features")
        pasted = self.painted("crop_paste", {"generator.settings": {}})
        split = load_split(pasted)
        if {shot.id for shot in split.shots} & {shot.id for shot in left_out}:
            raise SystemExit(f"{name}: learns from what it is judged by")
        self._normals = {one.id: one for one in split.normals}
        self.defects = sorted({str(shot.defect) for shot in split.shots})
        self._left_out, self._shots = (
            {
                defect: feature_set([window_of(one) for one in group if one.defect == defect], self._extractor)
                for defect in self.defects
            }
            for group in (left_out, split.shots)
        )
        self._lines = dict(self._lines_of(pasted))
        self.pasted = self.judged(pasted)

    def painted(self, generator: str, told: dict[str, Any]) -> Run:
        """Return the run of a generator, painted with these settings; its training is kept from way to way."""
        settings = {**SHARED, **self._hidden, "generator.name": generator, **told}
        run = Run.create(self._folder / generator, configuration(self._data, self._name, settings))
        run_all(run)
        return run

    def judged(self, run: Run) -> dict[str, dict[str, float]]:
        """Return the figures of a run: of each, a value per defect type."""
        figures: dict[str, dict[str, float]] = {"kid": {}, "nearest": {}, "unbroken": {}}
        for defect in self.defects:
            samples = [one for one in run.kept() if one.defect == defect]
            windows = []
            for sample in samples:
                made, below = normal_picture(run, sample, self._normals)
                mask = images.read_mask(run.path(sample.mask), made.shape[:2])
                windows.append(feature_window(made, mask, below))
            looks, rng = feature_set(windows, self._extractor), np.random.default_rng(0)
            (distance,) = kid(self._left_out[defect], looks, rng, 0).values()
            likeness = copies(self._shots[defect], looks, rng, 0)["nearest"]
            for name, figure in (("kid", distance), ("nearest", likeness)):
                if figure.value is not None:
                    figures[name][defect] = figure.value
            shares = [self._unbroken(run, one) for one in samples if one.index in self._lines]
            if shares:
                figures["unbroken"][defect] = float(np.mean(shares))
        return figures

    def _lines_of(self, pasted: Run) -> Iterator[tuple[int, tuple[np.ndarray, float]]]:
        for sample in pasted.kept():
            made, below = normal_picture(pasted, sample, self._normals)
            line = read_line(images.read_mask(pasted.path(sample.mask), made.shape[:2]))
            if line is not None:
                yield sample.index, (line.path, float(np.median(change_along(made, below, line.path))))

    def _unbroken(self, run: Run, sample: Sample) -> float:
        path, usual = self._lines[sample.index]
        return float((change_along(*normal_picture(run, sample, self._normals), path) >= SEEN * usual).mean())


def summary(
    rows: Sequence[dict[str, dict[str, float]]], usual: Sequence[dict[str, dict[str, float]]]
) -> dict[str, Any]:
    """Return the means over halves and defect types, and KID's difference from the usual settings."""
    means = {
        name: round(float(np.mean(values)), 4)
        for name in ("kid", "nearest", "unbroken")
        if (values := [value for row in rows for value in row[name].values()])
    }
    apart = [
        row["kid"][defect] - other["kid"][defect]
        for row, other in zip(rows, usual, strict=True)
        for defect in row["kid"]
    ]
    error = float(np.std(apart, ddof=1)) / len(apart) ** 0.5
    return {**means, "kid_difference": round(float(np.mean(apart)), 4), "standard_error": round(error, 4)}


def main() -> None:
    """Parse, paint, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs go, or lie")
    parser.add_argument("--only", choices=sorted(FOLDERS), help="one set")
    parser.add_argument("--results", type=Path, default=RESULTS / "guidance.json")
    args = parser.parse_args()
    for name in [args.only] if args.only else sorted(FOLDERS):
        whole = configuration(
            args.data, name, {**SHARED, "data.shots": 10, "generator.name": "crop_paste", "generator.settings": {}}
        )
        first = Run.create(args.out / name / "whole", whole)
        run_all(first)
        shots = halves(load_split(first))
        judges = [
            Half(name, args.data, args.out / name / f"half {number}", left_out, without(whole, left_out))
            for number, left_out in enumerate(shots)
        ]
        rows: dict[str, list[dict[str, dict[str, float]]]] = {"crop_paste": [judge.pasted for judge in judges]}
        for way, told in ways():
            rows[way] = [judge.judged(judge.painted("controlnet_inpaint", told)) for judge in judges]
            print(name, way, summary(rows[way], rows["crop_paste"]), flush=True)
        backbone = read_json(args.out / name / "half 0" / "controlnet_inpaint" / "config.json")["backbone"]["source"]
        results = read_json(args.results) if args.results.is_file() else {}
        results[name] = {
            "machine": {**machine(), "threads": os.environ["OMP_NUM_THREADS"]},
            "backbone": backbone,
            "extractor": "efficientnet-lite0",
            "learned_shots": 5,
            "left_out_shots": 5,
            "samples": SAMPLES,
            "usual": USUAL,
            "ways": {way: summary(row, rows[USUAL]) for way, row in rows.items()},
        }
        write_json(args.results, results)


if __name__ == "__main__":
    main()
