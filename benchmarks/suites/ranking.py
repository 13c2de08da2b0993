"""Parity and speed of `flawsmith.arithmetic.ranking` against scikit-learn and the usual PRO loops.

    python benchmarks/suites/ranking.py            # 83 and 1725 maps of 256x256; about 8 minutes and 10 GB of memory
    python benchmarks/suites/ranking.py --quick    # 83 maps alone, about a minute

All sides get the same maps and run in turn in one process, on one thread, so that a busy machine slows all of them.
The maps are smooth noise with blobs of defect that score higher; a quarter of them is normal. The loops of 200
thresholds are timed on some of these and scaled, as the result says; where all 200 were run, their values show how far
such a loop is off.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
from scipy import ndimage

from flawsmith.arithmetic.ranking import Ranked, Ranking
from flawsmith.files import write_json

SIDE, THRESHOLDS, LIMIT = 256, 200, 0.3
CORNERS = np.ones((3, 3), int)


# ---- the maps -----------------------------------------------------------------------------------


def picture(rng: np.random.Generator, *, damaged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return scores float32 (H,W) in (0,1) and a mask bool (H,W)."""
    anomaly_map = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE), np.float32), (0, 0), 3) * 6
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if damaged:
        for _ in range(rng.integers(1, 5)):
            centre, axes = rng.integers(0, SIDE, 2).tolist(), rng.integers(3, 25, 2).tolist()
            cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        anomaly_map += 2.5 * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 4)
    return 1 / (1 + np.exp(2 - anomaly_map)), mask > 0


def pictures(count: int) -> Any:
    rng = np.random.default_rng(0)
    for number in range(count):
        yield picture(rng, damaged=number % 4 != 3)


# ---- the sides ----------------------------------------------------------------------------------


def ours(maps: np.ndarray, masks: np.ndarray, *, regions: bool) -> Ranked:
    ranking = Ranking(regions=regions)
    for scores, mask in zip(maps, masks, strict=True):
        ranking.add(scores, mask)
    found = ranking.result()
    if regions:
        found.aupro(LIMIT)
    return found


def scikit_learn(maps: np.ndarray, masks: np.ndarray) -> tuple[float, float, float]:
    """AUROC, AP and F1-max as one usually asks scikit-learn for them."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    scores, labels = maps.ravel(), masks.ravel()
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(roc_auc_score(labels, scores)), float(average_precision_score(labels, scores)), float(f1.max())


def usual_loop(maps: np.ndarray, masks: np.ndarray, every: int = 1) -> float:
    """PRO over 200 even thresholds, regions found anew at each, as in much published code; `every` thins the loop."""
    points = []
    for threshold in np.linspace(maps.max(), maps.min(), THRESHOLDS)[::every]:
        flagged = maps > threshold
        overlaps = []
        for one, mask in zip(flagged, masks, strict=True):
            places, count = ndimage.label(mask, structure=CORNERS)
            for number in range(1, count + 1):
                overlaps.append(one[places == number].mean())
        points.append(((flagged & ~masks).sum() / (~masks).sum(), np.mean(overlaps)))
    return area(points)


def kinder_loop(maps: np.ndarray, masks: np.ndarray, every: int = 1) -> float:
    """The same, but the regions are found once and kept as coordinates, and the normal pixels are counted once."""
    regions = []
    for number, mask in enumerate(masks):
        places, count = ndimage.label(mask, structure=CORNERS)
        regions += [(number, *np.nonzero(places == index)) for index in range(1, count + 1)]
    normal = ~masks
    total = normal.sum()
    points = []
    for threshold in np.linspace(maps.max(), maps.min(), THRESHOLDS)[::every]:
        flagged = maps > threshold
        overlaps = [flagged[where].mean() for where in regions]
        points.append((np.count_nonzero(flagged & normal) / total, np.mean(overlaps)))
    return area(points)


def area(points: list[tuple[float, float]]) -> float:
    """Return the trapezoid below the points that lie within the limit, stretched to it: the usual end of such code."""
    x, y = np.array([(0.0, 0.0), *points]).T
    within = x < LIMIT
    return float(np.trapezoid(y[within], x[within] / max(x[within].max(), np.finfo(float).tiny)))


def anomalib_aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    """Anomalib's own AUPRO, with its default settings; ImportError where it is not installed."""
    import torch
    from anomalib.metrics.aupro import _AUPRO

    metric = _AUPRO(fpr_limit=LIMIT)
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks.astype(np.int64)))
    return float(metric.compute())


# ---- measuring ----------------------------------------------------------------------------------


def in_turn(
    works: dict[str, Callable[..., Any]], maps: np.ndarray, masks: np.ndarray, rounds: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return the seconds of each round and the last value of each side; a few maps first, to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    values = {name: work(maps[:8], masks[:8]) for name, work in works.items()}
    for turn in range(rounds):
        for name, work in works.items():
            begun = time.perf_counter()
            values[name] = work(maps, masks)
            seconds[name].append(time.perf_counter() - begun)
            print(f"round {turn + 1}/{rounds}  {name:40} {seconds[name][-1]:8.2f} s", file=sys.stderr, flush=True)
    return seconds, values


def measured(count: int, rounds: int, usual_every: int, kinder_every: int) -> dict[str, Any]:
    """Time all sides on `count` maps; every loop's seconds are scaled to all of its thresholds."""
    made = list(pictures(count))
    maps, masks = np.stack([scores for scores, _ in made]), np.stack([mask for _, mask in made])
    del made
    works: dict[str, Callable[..., Any]] = {
        "ours": partial(ours, regions=False),
        "scikit-learn": scikit_learn,
        "ours with AUPRO": partial(ours, regions=True),
        "usual loop": partial(usual_loop, every=usual_every),
        "kinder loop": partial(kinder_loop, every=kinder_every),
    }
    try:
        import anomalib.metrics  # noqa: F401

        works["anomalib"] = anomalib_aupro
    except ImportError:
        print("anomalib is not installed and is left out", file=sys.stderr)
    seconds, values = in_turn(works, maps, masks, rounds)
    thinned = {"usual loop": usual_every, "kinder loop": kinder_every}
    for name, every in thinned.items():
        seconds[name] = [one * THRESHOLDS / len(range(0, THRESHOLDS, every)) for one in seconds[name]]
    found, full = values["ours"], values["ours with AUPRO"]
    parity = dict(zip(("auroc", "ap", "f1_max"), values["scikit-learn"], strict=True))
    others = {name: values[name] for name in works if name not in ("ours", "scikit-learn", "ours with AUPRO")}
    against = {"scikit-learn": "ours", **dict.fromkeys(others, "ours with AUPRO")}
    return {
        "maps": count,
        "pixels": int(maps.size),
        "defect_pixels": found.positives,
        "regions": full.regions,
        "rounds": rounds,
        "figures": {name: getattr(found, name) for name in parity} | {"aupro": full.aupro(LIMIT)},
        "difference_from_scikit_learn": {name: abs(getattr(found, name) - value) for name, value in parity.items()},
        "aupro_of_others_is_off_by": {
            name: value - full.aupro(LIMIT) for name, value in others.items() if thinned.get(name, 1) == 1
        },
        "seconds": {name: [round(one, 3) for one in each] for name, each in seconds.items()},
        "thresholds_timed": {name: len(range(0, THRESHOLDS, every)) for name, every in thinned.items()},
        "times_faster": {
            name: round(statistics.median(b / a for a, b in zip(seconds[mine], seconds[name], strict=True)), 1)
            for name, mine in against.items()
        },
    }


def brute_parity(count: int = 3) -> float:
    """Return how far AUPRO is from a loop over every distinct threshold, on maps with ties."""
    rng = np.random.default_rng(1)
    pairs = [picture(rng, damaged=True) for _ in range(count)]
    scores, masks = np.stack([np.round(one, 3) for one, _ in pairs]), np.stack([mask for _, mask in pairs])
    regions = []
    for one, mask in zip(scores, masks, strict=True):
        places, number = ndimage.label(mask, structure=CORNERS)
        regions += [one[places == index] for index in range(1, number + 1)]
    x, y = [0.0], [0.0]
    for threshold in np.unique(scores)[::-1]:
        x.append(float((scores[~masks] >= threshold).mean()))
        y.append(float(np.mean([(region >= threshold).mean() for region in regions])))
    cut = np.searchsorted(x, LIMIT, "right")
    height = y[cut - 1] + (y[cut] - y[cut - 1]) * (LIMIT - x[cut - 1]) / (x[cut] - x[cut - 1])
    exact = np.trapezoid([*y[:cut], height], [*x[:cut], LIMIT]) / LIMIT
    return abs(ours(scores, masks, regions=True).aupro(LIMIT) - float(exact))


STREAM = """
import json, re, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ranking import LIMIT, Ranking, pictures
count = int(sys.argv[2])
ranking, seconds = Ranking(regions=True), 0.0
def peak():
    status = Path("/proc/self/status")
    return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) / 1024 if status.exists() else float("nan")
before = peak()
for scores, mask in pictures(count):
    begun = time.perf_counter()
    ranking.add(scores, mask)
    seconds += time.perf_counter() - begun
begun = time.perf_counter()
ranking.result().aupro(LIMIT)
seconds += time.perf_counter() - begun
print(json.dumps([seconds, peak() - before]))
"""


def streamed(count: int) -> dict[str, Any]:
    """Add map by map in a process of its own: seconds and peak memory."""
    command = [sys.executable, "-c", STREAM, str(Path(__file__).parent), str(count)]
    seconds, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"streamed: {seconds:.1f} s, {peak:.0f} MiB", file=sys.stderr, flush=True)
    return {"maps": count, "seconds": round(seconds, 2), "peak_mib_above_start": round(peak)}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("flawsmith", "numpy", "scipy", "scikit-learn", "opencv-python-headless", "anomalib"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def main(argv: list[str] | None = None) -> int:
    here = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=here / "results" / "ranking.json", help="JSON to write")
    parser.add_argument("--rounds", type=int, default=3, help="rounds on the small set")
    parser.add_argument("--large", type=int, default=1725, help="maps of the large set, one round")
    parser.add_argument("--quick", action="store_true", help="the small set alone, one round")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    stream = streamed(83 if args.quick else args.large)
    small = measured(83, 1 if args.quick else args.rounds, 5, 1)
    sets = [small] if args.quick else [small, measured(args.large, 1, 50, 10)]
    found = {
        "what": "seconds of one call, all sides in turn on the same maps; times_faster = median of theirs / ours",
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": 1,
            "load_before": load_before,
            "load_after": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        },
        "versions": versions(),
        "sides": {
            "ours": "Ranking: add picture by picture, result (AUROC, AP, F1-max)",
            "ours with AUPRO": "the same with regions, and aupro(0.3)",
            "scikit-learn": "roc_auc_score + average_precision_score + precision_recall_curve -> F1",
            "usual loop": "200 even thresholds, regions labelled again at each; scaled from the thresholds timed",
            "kinder loop": "200 even thresholds, regions labelled once; scaled from the thresholds timed",
            "anomalib": "its AUPRO with default settings: no loop, but one sort of all pixels and float32 sums",
        },
        "aupro_difference_from_every_distinct_threshold": brute_parity(),
        "sets": sets,
        "streamed": stream,
    }
    write_json(args.out, found)
    for one in sets:
        print(f"{one['maps']} maps: times faster {one['times_faster']}, off by {one['difference_from_scikit_learn']}")
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
