"""The quality gate against planted faults on the real sets, its speed, and screened against unscreened in a proof.

    python benchmarks/suites/screen.py planted --data ../shared/data --runs /tmp/proofs --out /tmp/gate [--only screw]
    python benchmarks/suites/screen.py made --data ../shared/data --runs /tmp/proofs --out /tmp/gate [--only screw]
    python benchmarks/suites/screen.py speed --out /tmp/gate
    python benchmarks/suites/screen.py proof --plain /tmp/proofs/screw --screened /tmp/screened/screw --only screw

planted: of each set, 100 untouched normal parts passed off as damage, 100 made pairs whose mask is shifted by its own
width or height, 100 squares of noise, and exact copies of shots (each of them, twice, till there are 100), against
held-out real defects and the made pairs of a finished run below --runs. What is described is kept below --out: with
--seconds a portion is done, and the same command goes on. Held-out defects are judged one at a time, for a set of
photographs repeats itself as made pictures must not; those that seem to be second photographs of a shot are
counted apart. Their normal photograph is unknown: `visible` falls back to all normal parts, `alignment` abstains.

made: the made pairs of every finished run below --runs that is called as an example (screw, screw-dual, screw-csm),
one generator beside another.

The clean protocol holds: thresholds come from the shots alone; held-out defects are looked at here and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sets import EXAMPLES, FOLDERS, RESULTS, configuration

from flawsmith.config import Config, parse_overrides
from flawsmith.data import factory, images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.photographs import Photographs
from flawsmith.data.split import Split, near_duplicates
from flawsmith.evaluation.arms import OURS
from flawsmith.evaluation.statistics import MEAN
from flawsmith.files import write_json
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.run.dataset import Dataset, divide
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.records import Verdict
from flawsmith.screening.describe import Describer, Shown, screening_set
from flawsmith.screening.gate import Gate, fit_gate
from flawsmith.screening.replay import replay
from flawsmith.screening.screen import fit_product
from flawsmith.types import Example

RIGHT = {
    "untouched": ("visible",),
    "untouched, photograph unknown": ("visible", "realism", "defect_type"),
    "shifted mask": ("alignment",),
    "noise": ("realism", "outlier"),
    "noise, photograph unknown": ("realism", "outlier"),
    "copies of shots": ("duplicates",),
}
"""Planted fault -> filters whose reasons are the right ones."""


class Enough(Exception):
    """The portion's time is over."""


@dataclass
class Portion(Describer):
    """A describer that stops when its time is over."""

    until: float = float("inf")

    def describe(self, shown: Shown) -> dict[str, Any]:
        """Describe one picture.

        Raises:
            Enough: the time is over.
        """
        if time.monotonic() > self.until:
            raise Enough
        return super().describe(shown)


class Bench:
    """The gate of one set, fitted to its shots, and what it judges by."""

    def __init__(self, config: Config, describer: Portion) -> None:
        self.split, self._describer = divide(config), describer
        self._product, self.pictures = self.split.shots[0].product, Photographs(self.split.normals)
        data = Dataset(self.split, self.pictures, {}, "")
        self.fitted = fit_product(config.screen, data, self._product, describer)
        extractor, fitted_gates = describer.extractor, {self._product: self.fitted}
        self._gate = Gate(config.screen, extractor.name, extractor.fingerprint, describer.visible, fitted_gates)

    def judge(self, shown: Iterable[Shown]) -> list[Verdict]:
        """Return the verdicts on pictures that were made together."""
        rows = [self._describer.describe(one) for one in shown]
        return self._gate.judge(self._product, screening_set(rows, self._describer.extractor.name))


def made(config: Config, run: Run, describer: Portion, count: int) -> dict[str, Any]:
    """Return the figures of one run's made pairs."""
    bench = Bench(config, describer)
    figures = _figures(bench.judge(_made(run, bench.split, bench.pictures, count, shift=False)), ())
    given_up = sum(not row.made for row in run.samples())
    return {"generator": config.generator.name, "planned": len(run.samples()), "given_up": given_up, **figures}


def planted(name: str, config: Config, run: Run, describer: Portion, count: int) -> dict[str, Any]:
    """Return every group's figures on one set."""
    bench = Bench(config, describer)
    split, pictures, fitted = bench.split, bench.pictures, bench.fitted
    twins = {test.id for _, test in near_duplicates(split)}
    groups: dict[str, Iterator[Shown]] = {
        "untouched": _untouched(split, pictures, count, known=True),
        "untouched, photograph unknown": _untouched(split, pictures, count, known=False),
        "shifted mask": _made(run, split, pictures, count, shift=True),
        "noise": _noise(split, pictures, count, known=True),
        "noise, photograph unknown": _noise(split, pictures, count, known=False),
        "copies of shots": _copies(split, pictures, count),
        "made pairs": _made(run, split, pictures, count, shift=False),
    }
    found: dict[str, Any] = {}
    for group, shown in groups.items():
        found[group] = _figures(bench.judge(shown), RIGHT.get(group, ()))
        print(name, group, {key: value for key, value in found[group].items() if key != "median_scores"}, flush=True)
    real: dict[str, list[Verdict]] = {"held-out real defects": [], "second photographs of a shot": []}
    for example in split.test_defects:
        photograph = _damaged(example, pictures)
        if photograph is None or example.defect not in fitted.defects:
            continue
        group = "second photographs of a shot" if example.id in twins else "held-out real defects"
        real[group] += bench.judge([photograph])
    for group, judged in real.items():
        if judged:
            found[group] = _figures(judged, ())
            print(name, group, {k: v for k, v in found[group].items() if k != "median_scores"}, flush=True)
    return {"groups": found, "limits": fitted.limits, "left_out": fitted.left_out, "notes": fitted.notes}


def _figures(rows: list[Verdict], right: tuple[str, ...]) -> dict[str, Any]:
    failed = Counter(reason.score for row in rows for reason in row.reasons)
    filters = Counter(name for row in rows for name in {reason.score.partition(".")[0] for reason in row.reasons})
    names = list(rows[0].scores) if rows else []
    told = {name: [score for row in rows if (score := row.scores[name]) is not None] for name in names}
    figures: dict[str, Any] = {
        "pictures": len(rows),
        "rejected": round(sum(not row.kept for row in rows) / max(1, len(rows)), 4),
        "by_filter": {name: round(number / len(rows), 4) for name, number in sorted(filters.items())},
        "by_score": {name: round(number / len(rows), 4) for name, number in sorted(failed.items())},
        "median_scores": {name: round(float(np.median(values)), 4) for name, values in told.items() if values},
    }
    if right:
        named = [any(reason.score.partition(".")[0] in right for reason in row.reasons) for row in rows]
        figures["for_the_right_reason"] = round(sum(named) / max(1, len(rows)), 4)
    return figures


def _damaged(example: Example, pictures: Photographs) -> Shown | None:
    native = images.read(example.image)
    mask = read_label(example, native.shape) if example.masks else None
    return Shown(example.id, str(example.defect), native, mask) if mask is not None and mask.any() else None


def _places(split: Split, pictures: Photographs, count: int) -> Iterator[tuple[Example, np.ndarray, str, np.ndarray]]:
    """Yield a normal part, its picture, a defect type and a shot's mask of that defect type laid on it."""
    rng = np.random.default_rng(71)
    for number in range(count):
        shot = split.shots[number % len(split.shots)]
        normal = split.normals[int(rng.integers(len(split.normals)))]
        native, mask = pictures.read(normal).native, pictures.read(shot).mask
        assert mask is not None
        area = cv2.resize(mask.astype(np.float32), native.shape[1::-1], interpolation=cv2.INTER_AREA)
        yield normal, native, str(shot.defect), (area >= min(0.5, float(area.max()))) & (area > 0)


def _untouched(split: Split, pictures: Photographs, count: int, *, known: bool) -> Iterator[Shown]:
    for number, (normal, native, defect, mask) in enumerate(_places(split, pictures, count)):
        yield Shown(f"{number:06d}", defect, native, mask, native if known else None, normal.id if known else "")


def _noise(split: Split, pictures: Photographs, count: int, *, known: bool) -> Iterator[Shown]:
    """Squares of the label's area, uniform noise over the whole range."""
    rng = np.random.default_rng(72)
    for number, (normal, native, defect, mask) in enumerate(_places(split, pictures, count)):
        side = int(np.clip(np.sqrt(mask.sum()), 8, min(mask.shape) // 3))
        ys, xs = np.nonzero(mask)
        top = int(np.clip(ys.mean() - side / 2, 0, mask.shape[0] - side))
        left = int(np.clip(xs.mean() - side / 2, 0, mask.shape[1] - side))
        square = np.zeros_like(mask)
        square[top : top + side, left : left + side] = True
        picture = native.copy()
        most = np.iinfo(native.dtype).max if native.dtype != np.float32 else 1
        picture[square] = (rng.random((side * side, *native.shape[2:])) * most).astype(native.dtype)
        yield Shown(f"{number:06d}", defect, picture, square, native if known else None, normal.id if known else "")


def _copies(split: Split, pictures: Photographs, count: int) -> Iterator[Shown]:
    for number in range(count):
        shot = split.shots[number % len(split.shots)]
        photograph = pictures.read(shot)
        assert photograph.mask is not None
        yield Shown(f"{number:06d}", str(shot.defect), photograph.native, photograph.mask)


def _made(run: Run, split: Split, pictures: Photographs, count: int, *, shift: bool) -> Iterator[Shown]:
    rows = [row for row in run.samples() if row.made]
    normals = {example.id: example for example in split.normals}
    given = 0
    for place in np.linspace(0, len(rows) - 1, min(len(rows), 2 * count)).astype(int):
        row = rows[place]
        native = images.read(run.path(row.image))
        mask = images.read_mask(run.path(row.mask), native.shape)
        label = _shifted(mask) if shift else mask
        if label is None or given == count:
            continue  # so large that it does not fit beside itself
        given += 1
        below = pictures.read(normals[row.normal]).native
        yield Shown(f"{row.index:06d}", row.defect, native, label, below, row.normal)


def _shifted(mask: np.ndarray) -> np.ndarray | None:
    """Return the mask beside itself, by its own width or height, where most of it stays in the picture."""
    ys, xs = np.nonzero(mask)
    width, height = int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1
    for down, along in ((0, width), (0, -width), (height, 0), (-height, 0)):
        rows, columns = ys + down, xs + along
        inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
        if inside.mean() > 0.5:
            moved = np.zeros_like(mask)
            moved[rows[inside], columns[inside]] = True
            return moved
    return None


def speed(folder: Path, extractor: str, source: str, count: int = 1000) -> dict[str, Any]:
    """Time the screening of pictures of 256 px from files: decoding, features, scores and verdicts."""
    place = folder / "speed"
    normal = [factory.make("steel", None, seed=number, line=1, size=256).image for number in range(40)]
    rng = np.random.default_rng(73)
    rows, columns = np.mgrid[:256, :256]

    def damaged(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        below = normal[number % len(normal)]
        (top, left), (high, wide) = rng.integers(40, 216, 2), rng.integers(6, 30, 2)
        mask = ((rows - top) / high) ** 2 + ((columns - left) / wide) ** 2 <= 1
        picture = below.copy()
        picture[mask] = (0.4 * picture[mask] + rng.integers(0, 25, 3)).astype(np.uint8)
        return picture, mask, below

    for number in range(count):
        picture, mask, below = damaged(number)
        defect = place / "pictures" / ("pit", "dent")[number % 2]
        images.write(defect / f"{number:06d}.png", picture)
        images.write_mask(defect / f"{number:06d}.mask.png", mask)
        images.write(defect / f"{number:06d}.normal.png", below)
    describer = Describer(load_extractor(extractor, source), 2 * Config().generate.visible)
    begun = time.monotonic()
    shots = [
        describer.describe(Shown(str(n), ("pit", "dent")[n % 2], *damaged(n)[:2], stand_ins=normal[:3]))
        for n in range(20)
    ]
    seen = [describer.describe(Shown(str(n), "", normal[n], damaged(n)[1])) for n in range(40)]
    name = describer.extractor.name
    fitted = fit_gate(Config().screen, ("dent", "pit"), screening_set(shots, name), screening_set(seen, name))
    gate = Gate(Config().screen, name, describer.extractor.fingerprint, describer.visible, {"plate": fitted})
    gate.save(place / "gate")
    ready = time.monotonic()
    told = replay(place / "gate", place / "pictures", source=source)
    done = time.monotonic()
    return {
        "pictures": count,
        "size": 256,
        "fit_seconds": round(ready - begun, 1),
        "screen_seconds": round(done - ready, 1),
        "load": os.getloadavg(),
        "told": told.partition(";")[0],
    }


def compared(plain: Path, screened: Path) -> dict[str, Any]:
    """Return what two finished proofs say of our pairs, screened and not, beside each other."""
    found: dict[str, Any] = {}
    for name, folder in (("unscreened", plain), ("screened", screened)):
        run = Run.open(folder)
        if (run.screened() is not None) != (name == "screened"):
            sys.exit(f"{folder}: is {'not ' if name == 'screened' else ''}screened")
        tree = json.loads(run.path("proof.json").read_text())
        rows = [
            {"product": product, **{k: v for k, v in row.items() if k != "defect"}}
            for product, own in tree["products"].items()
            for row in own["comparisons"]
            if row["arm"] == OURS and row["defect"] == MEAN
        ]
        kept = Counter(row.defect for row in run.kept())
        found[name] = {"pairs": dict(kept), "planned": len(run.samples()), "seeds": tree["seeds"], "comparisons": rows}
    return found


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["planted", "made", "speed", "proof"])
    parser.add_argument("--data", type=Path, help="the folder that holds the sets")
    parser.add_argument("--runs", type=Path, help="the folder that holds finished runs, called as the examples are")
    parser.add_argument("--out", type=Path, default=Path("/tmp/gate"), help="where features and files for timing go")
    parser.add_argument("--only", choices=sorted(EXAMPLES), help="one example")
    parser.add_argument("--plain", type=Path, help="proof: the run that is not screened")
    parser.add_argument("--screened", type=Path, help="proof: the run that is")
    parser.add_argument("--extractor", default="efficientnet-lite0")
    parser.add_argument("--source", default="", help="its weights")
    parser.add_argument("--count", type=int, default=100, help="pictures of each planted fault")
    parser.add_argument("--seconds", type=float, default=1e9, help="length of this portion")
    parser.add_argument("--set", action="append", default=[], help="override a key of the example")
    parser.add_argument("--results", type=Path, default=RESULTS / "screen.json")
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(args.results.read_text()) if args.results.exists() else {}

    def keep(key: str, value: Any) -> None:
        results.setdefault(args.part, {})[key] = {
            "machine": {**machine(), "threads": os.environ.get("OMP_NUM_THREADS", "")}, **value
        }  # fmt: skip
        write_json(args.results, results)

    if args.part == "speed":
        keep(args.extractor, speed(args.out, args.extractor, args.source))
        print(results["speed"][args.extractor])
        return
    names = [args.only] if args.only else sorted(FOLDERS)
    if args.part == "made" and not args.only:
        names = [name for name in sorted(EXAMPLES) if (args.runs / name).is_dir()]
        if not names:
            parser.error(f"--runs {args.runs}: holds no run called as an example ({', '.join(sorted(EXAMPLES))})")
    if args.part == "proof":
        keep(names[0], compared(args.plain, args.screened))
        return
    for name in names:
        config = configuration(args.data, name, parse_overrides(args.set))
        run = Run.open(args.runs / name)
        extractor = load_extractor(args.extractor, args.source)
        cached = FeatureCache(extractor, args.out / f"{name}-{args.extractor}")
        describer = Portion(cached, 2 * config.generate.visible, until=time.monotonic() + args.seconds)
        try:
            if args.part == "made":
                found = made(config, run, describer, args.count)
            else:
                found = planted(name, config, run, describer, args.count)
        except Enough:
            print(f"{name}: the portion is over; the same command goes on", file=sys.stderr)
            sys.exit(3)
        keep(f"{name}, {describer.extractor.name}", {"fingerprint": describer.extractor.fingerprint, **found})


if __name__ == "__main__":
    main()
