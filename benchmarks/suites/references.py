"""Does the reference matter, does a transferred defect type land, do what and where add up? On real sets.

    python benchmarks/suites/references.py matters  --data ../shared/data --out /tmp/refs --only magnetic-tile
    python benchmarks/suites/references.py defect types    --data ../shared/data --out /tmp/refs
    python benchmarks/suites/references.py transfer --data ../shared/data --out /tmp/refs
    python benchmarks/suites/references.py hybrid   --data ../shared/data --out /tmp/refs --only screw

`matters`: the same plan is painted three times, with the same words, masks and seeds: with a reference of the right
defect type, of the next defect type, and with the reference's weight at 0; and three times more in masks (and at
places) of another defect type, whose shape then does not tell which defect type was asked for. Two judges tell defect
types: the probe of `prove`, trained on the shots alone, looks at whole pictures; a logistic regression on the features
of windows round real *test* damage looks closely. A row of pictures goes to OUT/<set>-scale.png: the normal window,
then weights 0, 0.5 and 1.

`transfer`: one model of both sets; a sort of each is painted on the other, with the reference and with its weight at 0,
and compared (KID and Frechet distance of features) with that defect type's real test pictures.

`hybrid`: controlnet_inpaint and cross_modal, each trained as its example says, and both together with no more training,
paint the same plan: how defect types are told, and how much of the masks shows.

`defect types`: what `matters` cannot tell on real sets, whose defect types are shapes and places. With the built-in
adapter and no shot six factory defect types are painted from noise on normal windows, under the same masks for all,
with references of the right defect type, of another, and none; with the words for the defect type and without. A
classifier that factory defects taught names them.

Every painted picture is kept in OUT, so a suite that was stopped goes on; --set overrides keys of the example.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from backbone import WORDS, changes, factory_judge, factory_regions, homes_of, laid_in, sheet, sound_windows, tensor
from sets import FOLDERS, RESULTS, configuration, with_damage
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from flawsmith import registry
from flawsmith.config import parse_overrides, validate
from flawsmith.data import factory, images
from flawsmith.data.feature_windows import feature_window, window_of
from flawsmith.data.layouts import scan
from flawsmith.data.training_set import TrainingSet, read_scaled
from flawsmith.evaluation.evaluator import predicted
from flawsmith.evaluation.measure import feature_set
from flawsmith.evaluation.shape import proof_shape, shapes_of
from flawsmith.exports.export import write
from flawsmith.exports.mvtec import Mvtec
from flawsmith.files import write_json
from flawsmith.generators.cross_modal import CrossModal, CrossModalSettings
from flawsmith.nn import builtin
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.run.dataset import divide, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.records import PlanLine
from flawsmith.synthesis.paint import Painter
from flawsmith.synthesis.plan import make_plan
from flawsmith.synthesis.train import generator_class, load_backbone, train, working_size
from flawsmith.types import Batch, Condition, Example


class Studio:
    """A trained run that paints its plan again, with other references or another weight of them."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        train(run)
        self.data = open_dataset(run)
        self.split, self.pictures = self.data.split, self.data.photographs
        self.plugin = generator_class(run.config)
        self.backbone = load_backbone(run.config)
        self.generators: dict[str, Any] = {}

    def plan(self) -> list[PlanLine]:
        """Return the plan's lines."""
        return make_plan(self.config, self.data)

    def paint(self, lines: Sequence[PlanLine], folder: Path, scale: float | None) -> list[Path]:
        """Paint lines that are not in the folder yet; return a picture's path each, its mask beside it.

        `scale` is the reference's weight; None = what the configuration says, which any generator knows.
        """
        for job in sorted({line.job for line in lines}):
            if job not in self.generators:
                self.generators[job] = self.plugin.load(self.run.path("weights", *job.split("/")), self.backbone)
            generator = self.generators[job]
            # Weights may be older than the settings that only sampling reads.
            generator.settings = validate(self.plugin.Settings, self.config.generator.settings, where="--set")
            if scale is not None:
                generator.settings = generator.settings.model_copy(update={"scale": scale})
            painter = Painter(
                self.config, generator, working_size(self.config, self.backbone), self.split, self.pictures
            )
            own = [line for line in lines if line.job == job]
            for batch in sorted({line.batch for line in own}):
                group = [line for line in own if line.batch == batch]
                if all((folder / f"{line.index:06d}.json").is_file() for line in group):
                    continue
                for line, made in zip(group, painter.paint(group), strict=True):
                    if made.picture is not None and made.mask is not None:
                        images.write(folder / f"{line.index:06d}.png", made.picture)
                        images.write_mask(folder / f"{line.index:06d}.mask.png", made.mask)
                    write_json(folder / f"{line.index:06d}.json", made.sample.to_json())
                print(folder.name, batch, flush=True)
        return [folder / f"{line.index:06d}.png" for line in lines]


def wrong(lines: Sequence[PlanLine], studio: Studio) -> list[PlanLine]:
    """Return the lines with references of the next defect type in the alphabet."""
    shots = studio.split.shots
    defects = sorted({str(e.defect) for e in shots})
    following = dict(zip(defects, [*defects[1:], defects[0]], strict=True))
    changed = []
    for line in lines:
        others = [e.id for e in shots if e.defect == following[line.defect]]
        changed.append(replace(line, reference=others[line.index % len(others)]))
    return changed


def misplaced(lines: Sequence[PlanLine], studio: Studio) -> list[PlanLine]:
    """Return the lines with photograph, mask and place of the defect type after the next in the alphabet."""
    defects = sorted({str(e.defect) for e in studio.split.shots})
    queues = {defect: [line for line in lines if line.defect == defect] for defect in defects}
    other = {defect: defects[(number + 2) % len(defects)] for number, defect in enumerate(defects)}
    taken = dict.fromkeys(defects, 0)
    changed = []
    for line in lines:
        queue = queues[other[line.defect]]
        place = queue[taken[line.defect] % len(queue)]
        taken[line.defect] += 1
        own = {key: getattr(line, key) for key in ("index", "batch", "job", "seed", "defect", "reference")}
        changed.append(replace(place, **own))
    return changed


def close(examples: Sequence[Example], extractor: Any) -> np.ndarray:
    """Return the features of windows round the damage, float32 (N,D)."""
    return feature_set([window_of(example) for example in examples], extractor).vector.numpy()


class Judges:
    """Two that tell types: the probe of `prove`, taught by the shots, and a regression on windows round test damage."""

    def __init__(self, studio: Studio, extractor: Any) -> None:
        split, config = studio.split, studio.config
        self._extractor = extractor
        self.defects = sorted({str(e.defect) for e in split.shots})
        self._training = TrainingSet(proof_shape(config.prove, shapes_of(split.normals)), self.defects)
        for example in (*split.shots, *split.normals):
            self._training.add(example, "real")
        probe = registry.get("detectors", "probe")
        self._probe = probe(probe.Settings(), self.defects, extractor=extractor)
        for _ in self._probe.fit(self._training, torch.Generator().manual_seed(0)):
            pass
        self.tests = with_damage(e for e in split.test_defects if e.defect in self.defects)
        seen = close(self.tests, extractor)
        self._scaler = StandardScaler().fit(seen)
        self._close = LogisticRegression(max_iter=2000, C=0.05, class_weight="balanced")
        self._close.fit(self._scaler.transform(seen), [str(e.defect) for e in self.tests])

    def __call__(self, examples: Sequence[Example]) -> dict[str, float]:
        """Return the share of pictures whose defect type each judge names as it was asked for."""
        seen = torch.from_numpy(np.stack([read_scaled(e, self._training.shape)[0] for e in examples]))
        guess = predicted(self._probe, seen).probabilities
        assert guess is not None
        answers = [str(e.defect) for e in examples]
        whole = [self.defects[int(k)] == answer for k, answer in zip(guess.argmax(1), answers, strict=True)]
        near = self._close.predict(self._scaler.transform(close(examples, self._extractor))) == answers
        return {
            "probe": round(float(np.mean(whole)), 4),
            "close_up": round(float(np.mean(near)), 4),
            "pictures": len(answers),
        }


def painted(lines: Sequence[PlanLine], paths: Sequence[Path]) -> list[Example]:
    """Return the pictures that came to be, as examples of the defect type that was asked for."""
    return [
        Example(path.name, path, line.product, line.defect, (path.with_suffix(".mask.png"),))
        for line, path in zip(lines, paths, strict=True)
        if path.is_file()
    ]


def matters(name: str, args: argparse.Namespace, extractor: Any) -> dict[str, Any]:
    """Return how often each way of painting is told as the defect type that was asked for."""
    studio = studio_of(f"{name}-csm", args.out / name, args, {})
    lines = studio.plan()
    elsewhere = misplaced(lines, studio)
    ways = {
        "right": (lines, None),
        "wrong": (wrong(lines, studio), None),
        "zeroed": (lines, 0.0),
        "right, mask of another defect type": (elsewhere, None),
        "wrong, mask of another defect type": (wrong(elsewhere, studio), None),
        "zeroed, mask of another defect type": (elsewhere, 0.0),
    }
    judges = Judges(studio, extractor)
    found: dict[str, Any] = {
        "real shots": judges(studio.split.shots),
        "real test (the close-up judge learned these)": judges(judges.tests),
    }
    for way, (planned, scale) in ways.items():
        folder = args.out / f"{name}-{way.replace(',', '').replace(' ', '-')}"
        found[way] = judges(painted(planned, studio.paint(planned, folder, scale)))
    scale_row(studio, lines, args.out / f"{name}-scale.png")
    return {"defects": judges.defects, "chance": round(1 / len(judges.defects), 4), "told_as_asked": found}


def defects(name: str, args: argparse.Namespace, extractor: Any) -> dict[str, Any]:
    """Return how often a classifier taught by factory defects names the type that was asked for, by the reference."""
    back = Backbone.load("builtin")
    judge, known = factory_judge(150, 0, extractor)
    views = sound_windows(divide(configuration(args.data, name)), builtin.WINDOW, args.count, 0)
    shapes = factory_regions(args.count, builtin.WINDOW, 0)
    found: dict[str, Any] = {"factory defects that it was not taught": known}
    looks = {defect: shown(defect, args.count) for defect in WORDS}
    following = dict(zip(WORDS, [*WORDS[2:], *WORDS[:2]], strict=True))
    generator = CrossModal(back, CrossModalSettings(start="noise"))
    for said in ("with words", "without words"):
        for way, scale in (("right", args.scale), ("wrong", args.scale), ("zeroed", 0.0)):
            told = {"scale": scale, "prompt": "a photo of a {defect}" if said == "with words" else ""}
            generator.settings = generator.settings.model_copy(update=told)
            row, taken = {}, {}
            for defect in WORDS:
                laid = []
                for first in range(0, args.count, 8):
                    some = slice(first, first + 8)
                    image = tensor(views[some])
                    names = ("",) * len(image), (defect,) * len(image)
                    seen = looks[following[defect] if way == "wrong" else defect][some]
                    pictures, masks, surfaces = zip(*seen, strict=True)
                    reference = Batch(
                        torch.cat(pictures),
                        torch.cat(masks),
                        surfaces,
                        (following[defect] if way == "wrong" else defect,) * len(image),
                    )
                    mask = torch.from_numpy(np.stack(shapes[some]))[:, None].float()
                    asked = Condition(image, mask, *names, reference=reference)
                    seeds = list(range(first, first + len(image)))
                    out = generator.sample(asked, seeds, steps=12, guidance=3.0)
                    assert out.base is not None
                    pairs = (part.permute(0, 2, 3, 1).numpy() for part in (out.image, out.base))
                    laid += [laid_in(*one) for one in zip(views[some], *pairs, shapes[some], strict=True)]
                guess = judge.predict(changes(extractor, laid, views, shapes))
                row[defect] = round(float((guess == defect).mean()), 4)
                taken[defect] = float((guess == following[defect]).mean())
                sheet(args.out / f"defect types-{name}-{said.replace(' ', '-')}-{way}-{defect}.png", [views, laid])
            found[f"{way}, {said}"] = {
                "as_asked": round(float(np.mean(list(row.values()))), 4),
                "as_the_wrong_reference": round(float(np.mean(list(taken.values()))), 4),
                **row,
            }
            print(name, way, said, found[f"{way}, {said}"], flush=True)
    return {"defects": list(WORDS), "chance": round(1 / len(WORDS), 4), "scale": args.scale, "told": found}


def shown(defect: str, count: int) -> list[tuple[torch.Tensor, torch.Tensor, str]]:
    """Return windows (1,3,S,S) round factory defects of a type, with masks (1,1,S,S) and the surface they lie on."""
    homes = homes_of(defect)
    rng = np.random.default_rng(9)
    rows = []
    for number in range(count):
        piece = factory.make(homes[int(rng.integers(len(homes)))], defect, seed=900_000 + number)
        seen = feature_window(images.to_model(piece.image), piece.mask)
        rows.append((tensor([seen.image]), torch.from_numpy(seen.mask)[None, None].float(), piece.surface))
    return rows


def hybrid(name: str, args: argparse.Namespace, extractor: Any) -> dict[str, Any]:
    """Return, for each of two generators and for both together, how types are told and how much of the masks shows."""
    spatial = studio_of(name, args.out / f"{name}-spatial", args, {})
    semantic = studio_of(f"{name}-csm", args.out / f"{name}-semantic", args, {})
    weights = {"controlnet": spatial, "sga": semantic}
    told = {
        "generator.name": "hybrid",
        "generator.settings": {
            "spatial": spatial.config.generator.settings,
            "semantic": semantic.config.generator.settings,
            **{part: str(one.run.path("weights", spatial.split.shots[0].product)) for part, one in weights.items()},
        },
        "train.steps": 0,
    }
    both = studio_of(name, args.out / f"{name}-hybrid", args, told)
    judges = Judges(spatial, extractor)
    lines = spatial.plan()
    found: dict[str, Any] = {"real shots": judges(spatial.split.shots)}
    for way, studio in {"controlnet_inpaint": spatial, "cross_modal": semantic, "hybrid": both}.items():
        # One plan for all: the same photographs, masks, references and seeds.
        folder = args.out / f"{name}-by-{way}"
        paths = studio.paint(lines, folder, None)
        rows = [json.loads(path.with_suffix(".json").read_text()) for path in paths]
        agreement = [row["painted_share"] for row in rows]
        found[way] = {
            **judges(painted(lines, paths)),
            "mask_agreement": round(float(np.mean(agreement)), 4),
            "given_up": sum(row["status"] != "made" for row in rows),
        }
    return {
        "defects": judges.defects,
        "chance": round(1 / len(judges.defects), 4),
        "agreement_is": "mean share of the asked mask that visibly changed; outside it nothing does, so this is an IoU",
        "table": found,
    }


def studio_of(example: str, folder: Path, args: argparse.Namespace, told: dict[str, Any]) -> Studio:
    """Return a trained run of an example, with the suite's overrides."""
    overrides = {"generate.count": args.count, **parse_overrides(args.set), **told}
    return Studio(Run.create(folder, configuration(args.data, example, overrides)))


def scale_row(studio: Studio, lines: Sequence[PlanLine], path: Path) -> None:
    """Write rows of windows: normal, then the reference's weight at 0, 0.5 and 1; one row a defect type."""
    chosen = list({line.defect: line for line in reversed(lines)}.values())
    chosen = [replace(line, batch=0) for line in chosen]
    normals = {e.id: e for e in studio.split.normals}
    painted = [studio.paint(chosen, path.with_suffix("") / str(scale), scale) for scale in (0.0, 0.5, 1.0)]
    rows = []
    for number, line in enumerate(chosen):
        normal = images.read(normals[line.normal].image)
        tiles = []
        for column in range(4):
            file = painted[max(column - 1, 0)][number]
            if not file.is_file():
                continue
            native = normal if column == 0 else images.read(file)
            mask = images.read_mask(file.with_suffix(".mask.png"), native.shape)
            tiles.append(feature_window(images.to_model(native, images.range_of(normal)), mask).image)
        if len(tiles) == 4:
            rows.append(np.concatenate(tiles, axis=1))
    pixels = np.rint((np.concatenate(rows) + 1) * 127.5).astype(np.uint8)
    images.write(path, cv2.resize(pixels, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC))


def transfer(args: argparse.Namespace, extractor: Any) -> dict[str, Any]:
    """Return the distance of borrowed pairs to the type's real pictures, with the reference and from words alone."""
    root = args.out / "both"
    if not root.is_dir():
        every = [e for name in FOLDERS for e in scan(configuration(args.data, name).data)]
        write(Mvtec(Mvtec.Settings()), [e for e in every if not e.mask] + with_damage(every), root)
    transfers = [{"from": "magnetic-tile", "defect": args.tile_defect}, {"from": "screw", "defect": args.screw_defect}]
    overrides = {
        "data.root": str(root),
        "data.layout": "mvtec",
        "data.normal": [],
        "data.product": "",
        "train.scope": "all",
        "generate.transfer": transfers,
        "generate.count": {args.tile_defect: args.count, args.screw_defect: args.count},
        "generate.reference": "random",
        **parse_overrides(args.set),
    }
    config = configuration(args.data, "magnetic-tile-csm", overrides)
    studio = Studio(Run.create(args.out / "transfer", config))
    lines = [line for line in studio.plan() if line.transferred_from]
    found: dict[str, Any] = {}
    metrics = {name: registry.get("metrics", name) for name in ("kid", "frechet")}
    for loan in transfers:
        own = [line for line in lines if line.defect == loan["defect"]]
        real = with_damage(
            e for e in studio.split.test_defects if (e.product, e.defect) == (loan["from"], loan["defect"])
        )
        theirs = feature_set([window_of(e) for e in real], extractor)
        rows: dict[str, Any] = {"real": len(real)}
        for way, scale in (("reference", 1.0), ("words alone", 0.0)):
            paths = studio.paint(own, args.out / f"transfer-{way.replace(' ', '-')}", scale)
            made = [Example(p.name, p, "", loan["defect"], (p.with_suffix(".mask.png"),)) for p in paths if p.is_file()]
            ours = feature_set([window_of(e) for e in made], extractor)
            figures = {}
            for metric in metrics.values():
                figures |= metric(theirs, ours, np.random.default_rng(0), 200)
            rows[way] = {"made": len(made), **{k: [v.value, v.low, v.high] for k, v in figures.items()}}
        rows["painted_on"] = sorted({line.product for line in own})
        found[f"{loan['defect']} of {loan['from']}"] = rows
    return found


def main() -> None:
    """Parse, paint, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("matters", "defects", "transfer", "hybrid"))
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs and pictures go, or lie")
    parser.add_argument("--only", choices=sorted(FOLDERS), help="one set")
    parser.add_argument("--count", type=int, default=20, help="pairs a defect type")
    parser.add_argument("--scale", type=float, default=1.0, help="defect types: weight of the reference")
    parser.add_argument("--tile-defect", default="crack")
    parser.add_argument("--screw-defect", default="scratch_neck")
    parser.add_argument("--set", action="append", default=[], help="override a key of the example")
    parser.add_argument("--results", type=Path, default=RESULTS / "references.json")
    args = parser.parse_args()
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    extractor = FeatureCache(load_extractor("efficientnet-lite0"), args.out / "features")
    names = [args.only] if args.only else sorted(FOLDERS)
    for name in names if args.what != "transfer" else ["transfer"]:
        key = f"{name}, {args.what}" if args.what in ("hybrid", "defects") else name
        if args.what == "transfer":
            entry = transfer(args, extractor)
        else:
            entry = {"matters": matters, "defects": defects, "hybrid": hybrid}[args.what](name, args, extractor)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        back = Backbone.load("builtin").fingerprint
        facts = {"machine": {**machine(), "threads": threads}, "backbone": back, "set": args.set, "count": args.count}
        results[key] = {**facts, **entry}
        write_json(args.results, results)
        print(json.dumps(entry, indent=1))


if __name__ == "__main__":
    main()
