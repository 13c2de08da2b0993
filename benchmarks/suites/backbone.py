"""What a backbone can do before it has seen a single shot, and how fast it learns from ten: on real photographs.

    python benchmarks/suites/backbone.py autoencoder --data ../shared/data
    python benchmarks/suites/backbone.py words controls --data ../shared/data --backbone runs/my
    python benchmarks/suites/backbone.py adapt       --data ../shared/data --out /tmp/adapt --only screw
    python benchmarks/suites/backbone.py training    --backbone runs/my     # a folder that `flawsmith backbone` made

training     what it saw and how long that took, from the recipe's own logs.
autoencoder  mean PSNR of a round trip, on windows of 128 and 256 px and inside the masks of real damage.
words        six words, each painted from noise on the same normal windows under the same masks, rounded regions that
             fit any of them; a classifier that was taught what the factory's defects change in a picture names them.
             Without words it should know nothing; the factory's own damage laid on the same windows is the ceiling.
controls        normal windows repainted as normal against untouched ones; a classifier that was shown half of both
tells the
             other half apart or not (AUROC, 0.5 = it cannot).
adapt        controlnet_inpaint, ten shots a defect type, a few steps from these weights and many from random ones (the
UNet's;
             autoencoder and text encoder stay): distance of made damage to held-out real damage.

Both classifiers are logistic regressions on EfficientNet-Lite0's features. The sets are not part of the project.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sets import FOLDERS, RESULTS, configuration, with_damage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from flawsmith import registry
from flawsmith.config import parse_overrides
from flawsmith.data import factory, images
from flawsmith.data.augmentation import roughed
from flawsmith.data.feature_windows import feature_window, window_of
from flawsmith.data.masks.reading import read_label
from flawsmith.data.tiling import Window
from flawsmith.data.windows import cut, paste
from flawsmith.evaluation.measure import feature_set
from flawsmith.files import write_json
from flawsmith.nn import builtin
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import guided
from flawsmith.nn.features import load_extractor
from flawsmith.nn.inpaint import Known, guided_text, known_of, paint
from flawsmith.nn.text import Text
from flawsmith.recipes.backbone_data import prompt
from flawsmith.run.dataset import divide
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train
from flawsmith.types import Condition, Example

WORDS = ("scratch", "crack", "hole", "stain", "chip", "rust")
Floats = np.ndarray


def splits(args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Yield each set's name and its shots, normal parts and test pictures."""
    for name in [args.only] if args.only else sorted(FOLDERS):
        yield name, divide(configuration(args.data, name))


def tensor(views: Sequence[Floats]) -> Tensor:
    """Stack pictures (H,W,3) to (B,3,H,W)."""
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).contiguous().float()


def sound_windows(split: Any, side: int, count: int, seed: int) -> list[Floats]:
    """Cut windows of normal photographs, test ones among them, at the camera's scale."""
    rng = np.random.default_rng((seed, side))
    pool = [*split.normals, *split.test_normals]
    views = []
    while len(views) < count:
        seen = images.to_model(images.read(pool[int(rng.integers(len(pool)))].image))
        if min(seen.shape[:2]) < side:
            continue
        top, left = (int(rng.integers(n - side + 1)) for n in seen.shape[:2])
        views.append(cut(seen, Window(top, left, side), side))
    return views


def homes_of(defect: str) -> list[str]:
    """Return the surfaces that a factory defect lies on."""
    return [surface for surface in factory.SURFACES if defect in factory.defects_of(surface)]


def fits(mask: np.ndarray, size: int) -> bool:
    """Return whether a damage is neither a speck nor too large for a window."""
    rows, columns = np.nonzero(mask)
    return 60 < len(rows) < 0.12 * size * size and max(np.ptp(rows), np.ptp(columns)) <= 0.7 * size


def factory_masks(count: int, size: int, seed: int) -> list[np.ndarray]:
    """Return the shapes of factory defects of any of the six defect types, moved to the middle."""
    rng, masks, number = np.random.default_rng((seed, 5)), list[np.ndarray](), 0
    while len(masks) < count:
        number += 1
        defect = WORDS[int(rng.integers(len(WORDS)))]
        homes = homes_of(defect)
        piece = factory.make(homes[int(rng.integers(len(homes)))], defect, seed=700_000 + seed * 10_000 + number)
        if not fits(piece.mask, size):
            continue
        rows, columns = np.nonzero(piece.mask)
        mask = np.zeros((size, size), bool)
        down, right = (size // 2 - (int(x.min()) + int(x.max())) // 2 for x in (rows, columns))
        mask[rows + down, columns + right] = True
        masks.append(mask)
    return masks


def factory_regions(count: int, size: int, seed: int) -> list[np.ndarray]:
    """Return rounded regions round factory defects of any of the six types, in the middle; none says of which."""
    rng = np.random.default_rng((seed, 6))
    return [roughed(mask, rng) for mask in factory_masks(count, size, seed)]


def repainted(
    back: Backbone, views: list[Floats], masks: list[np.ndarray], text: str, args: argparse.Namespace
) -> tuple[list[Floats], list[Floats]]:
    """Paint words from noise under masks; return the decoded windows, painted and as they were."""
    made, bases = list[Floats](), list[Floats]()
    for first in range(0, len(views), 8):
        some = slice(first, first + 8)
        image = tensor(views[some])
        mask = torch.from_numpy(np.stack(masks[some]))[:, None].float()
        known, embedded = known_of(back, image, mask), guided_text(back, [text] * len(image), args.guidance)
        rows = known.guided(args.guidance)

        def predict(latent: Tensor, t: Tensor, embedded: Text = embedded, rows: Known = rows) -> Tensor:
            return back.predict(latent, t, embedded, mask=rows.cells, masked=rows.masked)

        asked = Condition(image, mask, ("",) * len(image), ("",) * len(image))
        walk = guided(predict, args.guidance)
        seeds = [args.seed * 1000 + first + i for i in range(len(image))]
        out = paint(
            back, asked, known, walk, seeds, steps=args.steps, sampler="dpm", start="noise", strength=1.0, detail=0.0
        )
        assert out.base is not None
        made += list(out.image.permute(0, 2, 3, 1).numpy())
        bases += list(out.base.permute(0, 2, 3, 1).numpy())
    return made, bases


def laid_in(view: Floats, made: Floats, base: Floats, mask: np.ndarray, corner: int = 0) -> Floats:
    """Return a view with a painted window pasted in, residually, as runs do it."""
    side = mask.shape[0]
    whole = np.zeros(view.shape[:2], bool)
    whole[corner : corner + side, corner : corner + side] = mask
    eight = np.rint((view + 1) * 127.5).astype(np.uint8)
    return images.to_model(paste(eight, made, base, whole, Window(corner, corner, side), paint="residual", feather=4.0))


def close_ups(extractor: Any, views: Sequence[Floats], masks: Sequence[np.ndarray]) -> Floats:
    """Return the features of squares round the masks, float32 (N,D)."""
    windows = [feature_window(view, mask) for view, mask in zip(views, masks, strict=True)]
    return feature_set(windows, extractor).vector.numpy()


def autoencoder(back: Backbone, args: argparse.Namespace, extractor: Any) -> dict[str, Any]:
    """Return mean, median and least PSNR in dB of round trips."""
    found: dict[str, Any] = {}

    def trip(views: list[Floats]) -> Floats:
        parts = [tensor(views[i : i + 16]) for i in range(0, len(views), 16)]
        return np.concatenate([back.decode(back.encode(x)).permute(0, 2, 3, 1).numpy() for x in parts])

    def told(errors: list[float]) -> dict[str, float]:
        level = 10 * np.log10(4 / np.array(errors))
        values = {"mean": level.mean(), "median": np.median(level), "least": level.min()}
        return {key: round(float(value), 2) for key, value in values.items()} | {"windows": len(errors)}

    for name, split in splits(args):
        rows: dict[str, Any] = {}
        for side in (128, 256):
            try_side = side if name == "screw" else min(side, 192)  # tiles are as low as 200 px
            views = sound_windows(split, try_side, args.count, args.seed)
            errors = [float(np.square(a - b).mean()) for a, b in zip(trip(views), views, strict=True)]
            rows[f"normal, {try_side} px"] = told(errors)
        views, masks = [], []
        for example in [e for e in (*split.shots, *split.test_defects) if e.mask][: args.count]:
            native = images.read(example.image)
            mask = read_label(example, native.shape)
            ys, xs = np.nonzero(mask)
            if not len(ys):
                continue
            place = Window(int(ys.mean()) - 64, int(xs.mean()) - 64, 128)
            seen = cut(mask[..., None].astype(np.float32), place, 128)[..., 0] > 0.5
            if seen.any():
                views.append(cut(images.to_model(native), place, 128))
                masks.append(seen)
        made = trip(views)
        rows["inside masks of damage, 128 px"] = told(
            [float(np.square(a - b)[m].mean()) for a, b, m in zip(made, views, masks, strict=True)]
        )
        found[name] = rows
    return found


def changes(extractor: Any, after: Sequence[Floats], before: Sequence[Floats], masks: Sequence[np.ndarray]) -> Floats:
    """Return the features of the change in brightness, on mid-grey, in squares round the masks: float32 (N,D).

    A classifier of whole pictures knows the factory's surfaces, and misnames the factory's own damage on real ones.
    Both sets were taken by grey cameras, whose pictures keep no colour of the paint.
    """
    steps = [(a - b).mean(2, keepdims=True).repeat(3, 2).clip(-1, 1) for a, b in zip(after, before, strict=True)]
    return close_ups(extractor, steps, masks)


def factory_judge(teach: int, seed: int, extractor: Any) -> tuple[Any, float]:
    """Return a classifier of the `changes` of six types, taught by factory defects, and its share right on others."""
    after, before, defects, masks = [], [], [], []
    rng = np.random.default_rng(seed)
    for defect in WORDS:
        homes = homes_of(defect)
        for number in range(teach):
            piece = factory.make(homes[int(rng.integers(len(homes)))], defect, seed=800_000 + number)
            after.append(images.to_model(piece.image))
            before.append(images.to_model(piece.normal))
            masks.append(piece.mask if number % 2 else roughed(piece.mask, rng))
            defects.append(defect)
    seen = changes(extractor, after, before, masks)
    kept = np.arange(len(defects)) % 5 > 0
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000, C=0.005))
    judge.fit(seen[kept], np.array(defects)[kept])
    return judge, round(float(judge.score(seen[~kept], np.array(defects)[~kept])), 4)


def laid_on(views: Sequence[Floats], defect: str) -> tuple[list[Floats], list[np.ndarray]]:
    """Return windows with what a factory defect of a type changes added to them, and rounded regions round it."""
    laid, regions, number = list[Floats](), list[np.ndarray](), 0
    rng = np.random.default_rng(9)
    homes = homes_of(defect)
    size = views[0].shape[0]
    while len(laid) < len(views):
        number += 1
        piece = factory.make(homes[int(rng.integers(len(homes)))], defect, seed=900_000 + number)
        if not fits(piece.mask, size):
            continue
        rows, columns = np.nonzero(piece.mask)
        top, left = (int(np.clip(x.mean() - size / 2, 0, piece.mask.shape[0] - size)) for x in (rows, columns))
        place = (slice(top, top + size), slice(left, left + size))
        after, before = (images.to_model(picture)[place] for picture in (piece.image, piece.normal))
        view, mask = views[len(laid)], piece.mask[place]
        laid.append(laid_in(view, np.clip(view + after - before, -1, 1).astype(np.float32), view, mask))
        regions.append(roughed(mask, rng))
    return laid, regions


def words(back: Backbone, args: argparse.Namespace, extractor: Any) -> dict[str, Any]:
    """Return how often each word's paint is named right by a classifier taught with the factory's defects."""
    judge, known = factory_judge(args.teach, args.seed, extractor)
    found: dict[str, Any] = {
        "chance": round(1 / len(WORDS), 4),
        "factory defects that it was not taught": known,
    }
    for name, split in splits(args):
        views = sound_windows(split, builtin.WINDOW, 20, args.seed)
        shapes = factory_regions(20, builtin.WINDOW, args.seed)
        rows: dict[str, Any] = {}
        for way in ("factory damage laid on", "word", "emptied"):
            right = {}
            for defect in WORDS:
                if way == "factory damage laid on":
                    laid, regions = laid_on(views, defect)
                else:
                    made, bases = repainted(back, views, shapes, prompt(defect) if way == "word" else "", args)
                    laid = [laid_in(*row) for row in zip(views, made, bases, shapes, strict=True)]
                    regions = shapes
                said = judge.predict(changes(extractor, laid, views, regions))
                right[defect] = round(float((said == defect).mean()), 4)
                if args.out:
                    sheet(args.out / f"words-{name}-{way}-{defect}.png", [views, laid])
            rows[way] = {"mean": round(float(np.mean(list(right.values()))), 4), **right}
        found[name] = rows
    return found


def controls(back: Backbone, args: argparse.Namespace, extractor: Any) -> dict[str, Any]:
    """Return how well repainted normal windows are told from untouched ones."""
    found = {}
    for name, split in splits(args):
        side = 256 if name == "screw" else 192
        views = sound_windows(split, side, 2 * args.count, args.seed + 1)
        shapes = factory_masks(2 * args.count, builtin.WINDOW, args.seed + 1)
        corner = (side - builtin.WINDOW) // 2
        inner = slice(corner, corner + builtin.WINDOW)
        half = args.count
        made, bases = repainted(back, [v[inner, inner] for v in views[:half]], shapes[:half], prompt(None), args)
        laid = [
            laid_in(v, m, b, s, corner) for v, m, b, s in zip(views[:half], made, bases, shapes[:half], strict=True)
        ]
        whole = [np.pad(s, (side - builtin.WINDOW) // 2) for s in shapes]
        seen = close_ups(extractor, [*laid, *views[half:]], whole)
        truth = np.arange(2 * half) < half
        taught = np.arange(2 * half) % 2 == 0
        judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000, C=0.05)).fit(
            seen[taught], truth[taught]
        )
        grain = [
            float(np.std((m - cv2.GaussianBlur(m, (0, 0), 1.0))[s]))
            / max(float(np.std((v - cv2.GaussianBlur(v, (0, 0), 1.0))[s])), 1e-6)
            for m, v, s in zip(laid, views[:half], whole[:half], strict=True)
        ]
        found[name] = {
            "auroc": round(float(roc_auc_score(truth[~taught], judge.decision_function(seen[~taught]))), 4),
            "windows_each": half,
            "side": side,
            "grain_left": round(float(np.median(grain)), 3),
        }
        if args.out:
            sheet(args.out / f"controls-{name}.png", [views[:16], laid[:16]])
    return found


def adapt(back: Backbone, args: argparse.Namespace, extractor: Any) -> dict[str, Any]:
    """Return the distance to held-out damage after some steps from these weights and from random ones."""
    found: dict[str, Any] = {}
    blank = args.out / "random"
    if not (blank / "unet").is_dir():
        torch.manual_seed(0)
        unet = type(back.unet).from_config(back.unet.config)
        Backbone(back.vae, back.text_encoder, unet, back.noise.config, dtype="float32").save(blank)
    metrics = {name: registry.get("metrics", name) for name in ("kid", "frechet")}
    for name, split in splits(args):
        defects = {str(e.defect) for e in split.shots}
        real = with_damage(e for e in split.test_defects if e.defect in defects)
        theirs = feature_set([window_of(e) for e in real], extractor)
        ways = [(args.backbone, steps) for steps in args.few] + [(str(blank), steps) for steps in args.many]
        for seed in range(args.seeds):
            for source, steps in ways:
                told = {
                    "seed": seed,
                    "backbone.source": source,
                    "train.steps": steps,
                    "generate.count": args.pairs,
                    "generate.controls": 0.0,
                    "generator.settings": {"start": "noise"},
                    "prove.enabled": False,
                    **parse_overrides(args.overrides),
                }
                of = "random" if source == str(blank) else "these"
                place = args.out / f"{name}-{of}-{steps}-{seed}"
                run = Run.create(place, configuration(args.data, f"{name}-inpaint", told))
                train(run)
                generate(run)
                made = [
                    Example(sample.image, run.path(sample.image), "", sample.defect, (run.path(sample.mask),))
                    for sample in run.kept()
                ]
                row: dict[str, Any] = {"made": len(made)}
                if len(made) > 10:
                    ours = feature_set([window_of(e) for e in made], extractor)
                    for metric in metrics.values():
                        values = metric(theirs, ours, np.random.default_rng(0), 0)
                        row |= {key: figure.value for key, figure in values.items()}
                found.setdefault(name, {}).setdefault(f"{of} weights, {steps} steps", []).append(row)
                print(name, of, steps, seed, row, flush=True)
    return found


def training(back: Backbone, args: argparse.Namespace, extractor: Any) -> dict[str, Any]:
    """Return steps, samples and seconds of both halves, and their losses averaged over 25 steps."""
    recipe = json.loads((Path(args.backbone) / "recipe.json").read_text())
    rows = [json.loads(line) for line in (Path(args.backbone) / "training.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {"recipe": recipe}
    for half, size in (("autoencoder", recipe["autoencoder_batch"]), ("unet", recipe["batch"])):
        own = {row["step"]: row for row in rows if row["half"] == half}  # a killed run repeats its last steps
        losses = [own[step]["loss"] for step in sorted(own)]
        found[half] = {
            "steps": len(own),
            "samples_seen": len(own) * size,
            "seconds": round(sum(row["seconds"] for row in own.values()), 1),
            "loss_mean_of_25_steps": [round(float(np.mean(losses[i : i + 25])), 4) for i in range(0, len(losses), 25)],
        }
    found["distinct_windows"] = recipe["turns"] * recipe["views"]
    found["factory_pictures"] = (recipe["turns"]) * recipe["pictures"]
    return found


def sheet(path: Path, rows: list[list[Floats]]) -> None:
    """Write rows of windows as one picture, to look at."""
    grid = np.concatenate([np.concatenate(row[:16], axis=1) for row in rows])
    images.write(path, np.rint((grid + 1) * 127.5).astype(np.uint8))


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=("training", "autoencoder", "words", "controls", "adapt"))
    parser.add_argument("--data", type=Path, help="the folder that holds the sets")
    parser.add_argument("--backbone", default="builtin", help='"builtin" or a diffusers folder')
    parser.add_argument("--only", choices=sorted(FOLDERS), help="one set")
    parser.add_argument("--out", type=Path, help="where pictures to look at, and adapt's runs, go")
    parser.add_argument("--count", type=int, default=200, help="windows")
    parser.add_argument("--teach", type=int, default=150, help="factory defects a word")
    parser.add_argument("--steps", type=int, default=12, help="denoising steps")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="adapt: how often")
    parser.add_argument("--few", type=int, nargs="*", default=[100, 300], help="adapt: steps from these weights")
    parser.add_argument("--many", type=int, nargs="*", default=[300, 1000, 3000], help="adapt: from random ones")
    parser.add_argument("--pairs", type=int, default=10, help="adapt: pairs a defect type")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="adapt: a key of the example")
    parser.add_argument("--results", type=Path, default=RESULTS / "backbone.json")
    args = parser.parse_args()
    if args.data is None and args.what != ["training"]:
        parser.error("all but training need --data")
    if "adapt" in args.what and args.out is None:
        parser.error("adapt needs --out")
    back = Backbone.load(args.backbone)
    extractor = load_extractor("efficientnet-lite0")
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    own = results.setdefault(back.fingerprint, {})
    for what in args.what:
        suites = {
            "training": training,
            "autoencoder": autoencoder,
            "words": words,
            "controls": controls,
            "adapt": adapt,
        }
        suite = suites[what]
        found = suite(back, args, extractor)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        keys = ("count", "teach", "steps", "guidance", "seed", "seeds", "pairs", "overrides")
        told = {key: getattr(args, key) for key in keys}
        entry = {"machine": {**machine(), "threads": threads}, "extractor": "efficientnet-lite0", **told, **found}
        own[what] = {**own.get(what, {}), **entry} if args.only else entry
        write_json(args.results, results)
        print(json.dumps({what: found}, indent=1))


if __name__ == "__main__":
    main()
