"""How real made damage looks: how well a classifier tells it from real damage, and how much of it repeats a shot.

    python benchmarks/suites/looks.py --out FOLDER RUNS [RUNS ...]
    python benchmarks/suites/looks.py --out FOLDER --factory

RUNS is a folder of finished runs of one set, one per arm, `crop_paste` among them, as suite `real_pixels` leaves it
("OUT/screw, 10 shots, test/runs"). The runs are only read. `--factory` draws docs/patches.jpg on procedural parts.

* **Windows**: the square round a label's box that metrics use (1.5 times the box, scaled to 128 px), the same for all.
* **Real** are the test defects, without second photographs of a shot. Shots are left out of the real class: samples are
  made of their pixels, so a shot seen as real, or a sample of it as made, would give its other samples away.
* **Features**: the extractor's embedding of the window and the means of its four maps, frozen. **Classifier**: logistic
  regression; every defect type weighs the same, and so do real and made.
* **Folds**: photographs that show the same piece share a fold, and so do all samples whose plan names the same shot; of
  the others, those that lie on the photograph of a tested sample are not learned from. (patch_synthesis takes patches
  of other shots too, which no record names: that can only help to find it out.) Folds are dealt anew several times.
* **AUROC**: share of the pairs of a real and a made window of one type, in one fold, that are told right; the mean over
  types. 0.5 = nothing is told. `shots` are told from test defects likewise: what is left of perfect damage. On
  magnetic-tile that is much, for nearly all shots are of the first of six exposures.
* **Intervals** resample pieces and shots, the same for all arms: differences are paired.
* **Copies** as the metric counts them: more like a shot than any two shots are like each other. `real` says how many
  test defects are.

The contact sheet of each set goes to --out alone: real and made windows in random order, the key beneath.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from sets import HOME, RESULTS, with_damage
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from flawsmith.choice.folds import pieces
from flawsmith.config import Config, load_config
from flawsmith.data import factory, images
from flawsmith.data.feature_windows import SIDE, FeatureWindow, window_of
from flawsmith.data.masks.reading import read_label
from flawsmith.data.previews import fit, jpeg
from flawsmith.data.split import without_near_duplicates
from flawsmith.data.tensors import image_tensor
from flawsmith.evaluation.arms import made_of
from flawsmith.files import read_json, write_bytes, write_json
from flawsmith.metrics.labels import copies
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.pipeline import run_all
from flawsmith.reporting.contact_sheets import closeup, closeup_side
from flawsmith.run.dataset import load_ranges, load_split
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.types import Example, FeatureSet

PASTE, REAL, SHOTS = "crop_paste", "real", "shots"
FOLDS, DEALS = 5, 5
"""Folds of the cross-validation, and how often they are dealt."""
RESAMPLES = 2000
STRENGTH = 0.01
"""Inverse regularisation of the classifier, on standardised features. Of 0.0001, 0.001, 0.01 and 0.1 the one that told
crop_paste from real damage best on both real sets."""
SHOWN = 3
"""Windows of each kind in a row of the contact sheet."""
SHEET = (REAL, PASTE, "patch_synthesis", "patch_synthesis, new shapes")
FACTORY = {
    "magnet": ("crack", "pores"),
    "leather": ("cut", "stain"),
    "tile": ("chip",),
    "screw": ("rust",),
}
"""Procedural parts of the sheet in the docs, and what goes wrong there."""
_BYTES = 200_000
_CELL, _NAMES = 208, 130
"""Px of a picture on that sheet, and beside a row for the type's name."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Windows of one kind, real or of an arm, one row each."""

    features: np.ndarray
    """float64 (N,D)."""
    defect: np.ndarray
    """Defect type: str (N,)."""
    group: np.ndarray
    """What must not be divided between folds, a piece or a shot: str (N,)."""
    photograph: np.ndarray
    """Id of the photograph that is seen: str (N,)."""
    pictures: np.ndarray
    """uint8 (N,SIDE,SIDE,3), RGB."""
    labels: np.ndarray
    """bool (N,SIDE,SIDE)."""


def looks_of(
    examples: Sequence[Example], groups: Sequence[str], photographs: Sequence[str], extractor: Extractor
) -> Looks:
    """Cut the windows of labelled pictures and describe them."""
    rows: list[np.ndarray] = []
    windows: list[FeatureWindow] = []
    for example in examples:
        window = window_of(example)
        image = image_tensor([window.image])
        parts = [extractor.vector(image), *(depth.mean((2, 3)) for depth in extractor.maps(image))]
        rows.append(torch.cat(parts, 1)[0].double().numpy())
        windows.append(replace(window, image=np.uint8(np.clip(127.5 * (window.image + 1) + 0.5, 0, 255))))
    return Looks(
        np.stack(rows),
        np.array([str(one.defect) for one in examples]),
        np.array(groups),
        np.array(photographs),
        np.stack([one.image for one in windows]),
        np.stack([one.mask for one in windows]),
    )


def dealt(looks: Looks, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of each row, int (N,): each type's groups are dealt evenly, in random order."""
    fold = np.zeros(len(looks.defect), int)
    for defect in np.unique(looks.defect):
        groups = np.unique(looks.group[looks.defect == defect])
        number = dict(zip(rng.permutation(groups).tolist(), np.arange(len(groups)) % FOLDS, strict=True))
        mine = np.flatnonzero(looks.defect == defect)
        fold[mine] = [number[group] for group in looks.group[mine]]
    return fold


@dataclass(frozen=True, slots=True)
class Told:
    """Pairs of a real and a made window of one type that were in one fold, over all deals."""

    right: np.ndarray
    """float64 (R,M): how often the made one scored higher; a tie counts half."""
    asked: np.ndarray
    """float64 (R,M): how often the pair was asked about."""

    def auroc(self, real: np.ndarray, made: np.ndarray) -> np.ndarray:
        """Return the share told right of B resamples, whose weights are float64 (B,R) and (B,M)."""
        return np.asarray(((real @ self.right) * made).sum(1) / ((real @ self.asked) * made).sum(1))


def told(real: Looks, made: Looks) -> dict[str, Told]:
    """Tell made from real windows by cross-validation; return the pairs of each defect type."""
    defects = [str(name) for name in np.unique(real.defect)]
    spots = {name: (np.flatnonzero(real.defect == name), np.flatnonzero(made.defect == name)) for name in defects}
    right, asked = ({n: np.zeros((len(r), len(m))) for n, (r, m) in spots.items()} for _ in range(2))
    for deal in range(DEALS):
        folds = dealt(real, np.random.default_rng((0, 91, deal))), dealt(made, np.random.default_rng((0, 92, deal)))
        for fold in range(FOLDS):
            tested = tuple(one == fold for one in folds)
            seen = set(made.photograph[tested[1]])
            learned = ~tested[0], ~tested[1] & np.array([name not in seen for name in made.photograph])
            scores = _scores(real, made, learned)
            for name, (reals, mades) in spots.items():
                pairs = tested[0][reals][:, None] & tested[1][mades][None]
                higher = np.sign(scores[1][mades][None] - scores[0][reals][:, None]) / 2 + 0.5
                right[name] += pairs * higher
                asked[name] += pairs
    return {name: Told(right[name], asked[name]) for name in defects}


def _scores(real: Looks, made: Looks, learned: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Learn from some rows; return how made all real and all made rows look."""
    rows = np.concatenate([real.features[learned[0]], made.features[learned[1]]])
    target = np.repeat([0, 1], [learned[0].sum(), learned[1].sum()])
    defect = np.concatenate([real.defect[learned[0]], made.defect[learned[1]]])
    keys, inverse, counts = np.unique(
        np.char.add(defect.astype(str), target.astype(str)), return_inverse=True, return_counts=True
    )
    weights = len(target) / len(keys) / counts[inverse]
    scale = StandardScaler().fit(rows, sample_weight=weights)
    # Turned into the space that the rows span: the same solution, in a fraction of the time.
    basis = np.linalg.svd(scale.transform(rows), full_matrices=False)[2].T
    classifier = LogisticRegression(C=STRENGTH, max_iter=1000)
    classifier.fit(scale.transform(rows) @ basis, target, sample_weight=weights)
    return tuple(classifier.decision_function(scale.transform(one.features) @ basis) for one in (real, made))


def weights_of(looks: Looks, name: str, drawn: dict[str, np.ndarray]) -> np.ndarray:
    """Return the weights of one type's rows in each resample, float64 (B,N)."""
    return np.stack([drawn[group] for group in looks.group[looks.defect == name]], 1)


def drawn_groups(looks: Looks, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw each type's groups with replacement; return how often each came in every resample, float64 (B,)."""
    drawn = {}
    for name in np.unique(looks.defect):
        groups = np.unique(looks.group[looks.defect == name])
        times = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), RESAMPLES)
        drawn |= {str(group): times[:, number].astype(float) for number, group in enumerate(groups)}
    return drawn


def figure(value: float, draws: np.ndarray) -> dict[str, float]:
    """Return a figure with the middle 95 % of its resamples."""
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return {"value": round(float(value), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def copied(shots: Looks, other: Looks) -> dict[str, Any]:
    """Return the share of copies of shots, and the mean likeness to the nearest: of each type, and their means."""
    rows: dict[str, dict[str, float]] = {"copies": {}, "nearest": {}}
    for name in np.unique(shots.defect):
        sets = [_feature_set(one, str(name)) for one in (shots, other)]
        for key, share in copies(*sets, np.random.default_rng(0), 0).items():
            rows[key][str(name)] = round(float(share.value or 0.0), 4)
    return {key: {"mean": round(float(np.mean(list(row.values()))), 4), **row} for key, row in rows.items()}


def _feature_set(looks: Looks, name: str) -> FeatureSet:
    mine = looks.defect == name
    image = image_tensor([picture / np.float32(127.5) - 1 for picture in looks.pictures[mine]])
    return FeatureSet(image, torch.from_numpy(looks.labels[mine]), torch.zeros(len(image), 1), (), "")


def finished(folder: Path) -> dict[str, Run]:
    """Return the runs of a folder whose samples are made, by arm; nothing in them is changed."""
    if not folder.is_dir():
        raise SystemExit(f"{folder}: there is no such folder of runs; suite real_pixels makes one")
    runs = {}
    for path in sorted(folder.iterdir()):
        if (path / "manifest.json").is_file() and (path / "config.json").is_file():
            # `Run.open` would tidy up, where perhaps another process is at work.
            run = Run(path, Config.model_validate(read_json(path / "config.json")))
            if run.stage_hash("generate"):
                runs[path.name] = run
    if PASTE not in runs:
        raise SystemExit(f"{folder}: holds no finished run {PASTE!r}; `real_pixels.py` makes it")
    return runs


def arm_looks(run: Run, extractor: Extractor) -> Looks:
    """Return the windows of a run's samples, grouped by the shot that the plan names."""
    (product,) = products_of(run)
    samples, _ = made_of(run, product)
    shot = {sample.image: sample.shot for sample in run.kept()}
    examples = [one.example for one in samples]
    return looks_of(examples, [shot[one.id] for one in examples], [one.normal for one in samples], extractor)


def products_of(run: Run) -> list[str]:
    """Return the products of a run."""
    return sorted({shot.product for shot in load_split(run).shots})


def judged(folder: Path, out: Path) -> dict[str, Any]:
    """Judge all finished arms of a set, and draw its contact sheet."""
    runs = finished(folder)
    split = without_near_duplicates(load_split(runs[PASTE]))
    split = replace(split, test_defects=tuple(with_damage(split.test_defects)))
    extractor = FeatureCache(load_extractor("efficientnet-lite0"), out / "features", memory=1 << 20)
    names = [one.id for one in split.test_defects]
    piece = pieces(replace(split, shots=split.test_defects))
    real = looks_of(split.test_defects, [piece[name] for name in names], names, extractor)
    ids = [one.id for one in split.shots]
    shots = looks_of(split.shots, ids, ids, extractor)
    arms = {SHOTS: shots} | {name: arm_looks(run, extractor) for name, run in runs.items()}
    rng = np.random.default_rng((0, 93))
    drawn = drawn_groups(real, rng) | drawn_groups(shots, rng)
    defects = [str(name) for name in np.unique(real.defect)]
    values: dict[str, dict[str, float]] = {}
    draws: dict[str, np.ndarray] = {}
    tree: dict[str, Any] = {}
    for name, made in arms.items():
        pairs = told(real, made)
        whole = {d: float(pairs[d].auroc(*(np.ones((1, n)) for n in pairs[d].right.shape))[0]) for d in defects}
        resamples = [pairs[d].auroc(weights_of(real, d, drawn), weights_of(made, d, drawn)) for d in defects]
        values[name], draws[name] = whole, np.mean(resamples, axis=0)
        tree[name] = {
            "windows": {d: int((made.defect == d).sum()) for d in defects},
            "auroc": {
                "mean": figure(float(np.mean(list(whole.values()))), draws[name]),
                **{d: round(value, 4) for d, value in whole.items()},
            },
        }
        if name != SHOTS:
            tree[name] |= copied(shots, made)
        print(folder.parent.name, name, tree[name]["auroc"], tree[name].get("copies"), flush=True)
    usual = float(np.mean(list(values[PASTE].values())))
    for name in arms:
        if name not in (PASTE, SHOTS):
            mean = float(np.mean(list(values[name].values())))
            tree[name]["auroc_above_crop_paste"] = figure(mean - usual, draws[name] - draws[PASTE])
            print(folder.parent.name, name, "above", PASTE, tree[name]["auroc_above_crop_paste"], flush=True)
    of_real = copied(shots, real)
    print(folder.parent.name, REAL, of_real["copies"], flush=True)
    picture = drawn_sheet({REAL: real, **arms}, defects)
    write_bytes(out / f"{folder.parent.name}.png", _png(picture))
    return {
        "machine": {**machine(), "threads": os.environ["OMP_NUM_THREADS"]},
        "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
        "classifier": f"logistic regression, C = {STRENGTH}, standardised features",
        "window": SIDE,
        "folds": FOLDS,
        "deals": DEALS,
        "resamples": RESAMPLES,
        "real": {
            "windows": {d: int((real.defect == d).sum()) for d in defects},
            "pieces": {d: len(np.unique(real.group[real.defect == d])) for d in defects},
            **of_real,
        },
        "arms": tree,
    }


def drawn_sheet(kinds: dict[str, Looks], defects: Sequence[str]) -> np.ndarray:
    """Return windows of all kinds in random order, a row per type, with the key beneath: uint8 (H,W,3), RGB."""
    rng = np.random.default_rng((0, 94))
    names = [name for name in SHEET if name in kinds]
    letters = {name: chr(ord("A") + number) for number, name in enumerate(names)}
    rows, key = [], []
    for defect in defects:
        cells = []
        for name in names:
            mine = np.flatnonzero(kinds[name].defect == defect)
            chosen = rng.choice(mine, SHOWN, replace=len(mine) < SHOWN)
            cells += [(letters[name], kinds[name].pictures[number]) for number in chosen]
        order = rng.permutation(len(cells))
        rows.append(np.concatenate([np.pad(cells[n][1], ((2, 2), (2, 2), (0, 0))) for n in order], axis=1))
        key.append(f"{defect}: " + " ".join(cells[n][0] for n in order))
    lines = [*key, ", ".join(f"{letter} = {name}" for name, letter in letters.items())]
    return np.concatenate([*rows, *(_text(line, rows[0].shape[1]) for line in lines)])


def _text(line: str, width: int, height: int = 22) -> np.ndarray:
    strip = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(strip, line, (6, height - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def _png(picture: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())


def factory_sheet(out: Path) -> np.ndarray:
    """Make samples of procedural parts; return the first of each type beside the shot that its plan names."""
    root = out / "factory"
    for product, defects in FACTORY.items():
        if not (root / product).is_dir():
            factory.write_dataset(root, product, defects, normals=12, per_defect=8, seed=3, size=256)
    settings = {"data.root": str(root), "data.shots": 8, "generate.count": 1, "generate.controls": 0}
    settings |= {f"{stage}.enabled": False for stage in ("screen", "measure", "prove")} | {"export.formats": []}
    new = {"generate.masks": "procedural"}
    runs = []
    for name, generator, more in ((PASTE, PASTE, {}), (SHEET[2], SHEET[2], {}), (SHEET[3], SHEET[2], new)):
        run = Run.create(
            out / "factory runs" / name, load_config(None, {**settings, "generator.name": generator, **more})
        )
        run_all(run)
        runs.append(run)
    shots, spans = {shot.id: shot for shot in load_split(runs[0]).shots}, load_ranges(runs[0])
    rows = []
    for number, sample in enumerate(runs[0].samples()):
        seen = [(images.read(shots[sample.shot].image), read_label(shots[sample.shot], (256, 256)))]
        for run in runs:
            made = run.samples()[number]
            seen.append((images.read(run.path(made.image)), images.read_mask(run.path(made.mask), (256, 256))))
        side = closeup_side(mask for _, mask in seen)
        cells = [fit(closeup(picture, spans[sample.product], mask, side), _CELL) for picture, mask in seen]
        name = np.concatenate([_text("", _NAMES, _CELL // 2), _text(f"{sample.product}, {sample.defect}", _NAMES)])
        name = np.pad(name, ((0, _CELL - len(name)), (0, 0), (0, 0)), constant_values=255)
        rows.append(np.concatenate([name, *cells], axis=1))
    heads = ("", "real shot", *(name for name in SHEET[1:]))
    head = np.concatenate([_text(text, _CELL if text else _NAMES) for text in heads], axis=1)
    return np.concatenate([head, *rows])


def main() -> None:
    """Parse, judge or draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of runs of one set each, by arm")
    parser.add_argument("--out", type=Path, required=True, help="where features and contact sheets go")
    parser.add_argument("--factory", action="store_true", help="draw docs/patches.jpg")
    parser.add_argument("--results", type=Path, default=RESULTS / "looks.json")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.factory:
        write_bytes(HOME / "docs" / "patches.jpg", jpeg(factory_sheet(args.out), _BYTES))
    for folder in args.runs:
        row = judged(folder, args.out)
        results = read_json(args.results) if args.results.is_file() else {}
        write_json(args.results, {**results, folder.parent.name: row})


if __name__ == "__main__":
    main()
