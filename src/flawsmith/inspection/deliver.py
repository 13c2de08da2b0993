"""Train the final detector of a run on all that may be learned from, and write it as a folder to take away.

It learns from the normal parts, all shots, and the samples and controls that stand. Two groups stay out: the normal
photographs that set the threshold, with what is painted on them, and the test pictures, unless nothing is ever proven
on them. What the threshold and the held-out scores say is asked of the written files, not of torch: they are what
will run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from flawsmith import registry
from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.fingerprints import content_hash
from flawsmith.data.scaling import as_detectors_see
from flawsmith.data.split import Split, without_near_duplicates
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import ConfigError, DataError, RunError
from flawsmith.evaluation.arms import Arm, common_set, made_of, training_set, without
from flawsmith.evaluation.calibration import calibration_normals, evenly_spaced, kept_away
from flawsmith.evaluation.shape import proof_shape, proof_tiles, shapes_of
from flawsmith.evaluation.trainings import device_of, load_detector
from flawsmith.files import digest, file_digest, read_json, whole_folder, write_json, write_text
from flawsmith.inspection.card import card, example_script
from flawsmith.inspection.inspector import Inspector
from flawsmith.inspection.model import (
    CARD,
    EXAMPLE,
    FORMAT,
    HELD_OUT,
    LEARNED_FROM,
    NETWORK,
    HeldOut,
    Model,
    is_whole,
    read_model,
    require_rate,
    strangers,
    subsample,
    threshold_of,
    write_model,
)
from flawsmith.inspection.network import OPSET, agreement, network_of, outputs_of, require_packages, write_network
from flawsmith.interfaces import Detector
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.paths import confined
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.progress import progress
from flawsmith.run.screened import require_kept
from flawsmith.run.unchanged import require_as_learned, require_as_made
from flawsmith.types import Example

_COMPARED = 8
"""Calibration normals, and as many shots, on which the files are compared with torch."""


def deliver(run: Run, out: Path | None = None, *, rate: float | None = None, data: Dataset | None = None) -> Path:
    """Write a run's model, or one in a sub-folder per product; does nothing when it is there with the same input.

    Args:
        run: The run.
        out: Where to; None = `model` in the run folder. What was delivered there before is replaced.
        rate: The false-alarm rate of the threshold; None = `prove.false_alarm_rate`.
        data: Its photographs, when they are open already.

    Returns:
        The folder.

    Raises:
        RunError: no samples were made, none stands, or they or their photographs were changed since; or the folder
            holds something else.
        ConfigError: a package is missing, or the detector cannot be delivered.
        DataError: the rate is none.
    """
    config, folder = run.config, Path(out).absolute() if out is not None else run.path("model")
    rate = config.prove.false_alarm_rate if rate is None else rate
    require_rate(rate, "--rate")
    name = _detector_of(config)
    require_packages()
    _require_free(folder)
    if not run.samples_hash():
        raise RunError(f"{run.folder}: no samples are made yet; run `flawsmith generate {run.folder}` first")
    made = [*run.kept(), *run.controls()]
    require_kept(run)
    data = data or open_dataset(run)
    if not (products := sorted({shot.product for shot in data.split.shots})):
        raise RunError(
            f"{run.folder}: learns from no shots, so there is no detector to deliver; put photographs of defects with "
            "their masks into the set"
        )
    require_as_learned(run, data)
    require_as_made(run, made)
    part, device = config.features, device_of(config)
    extractor = load_extractor(part.extractor, part.source, offline=config.backbone.offline, device=device)
    if load_detector(config, name, ("x",), extractor, device).needs_extractor:
        extractor.graph()  # refused before anything is trained, as are the detector's settings
    folders = folders_of(folder, products)
    stamp = _stamp(run, data, name, extractor, rate)
    if all(_stamp_of(one) == stamp and is_whole(one) for one in folders.values()):
        return folder
    with run.alone("deliver"), whole_folder(folder, "the model") as empty:
        for product in products:
            inner = empty / folders[product].relative_to(folder)
            inner.mkdir(exist_ok=True)
            cached = FeatureCache(extractor, run.path("state", "features"))
            _Delivery(run, product, data.split.of(product), name, cached, rate, stamp).write(inner)
            cached.forget()
    run.log(stage="deliver", what=f"{', '.join(products)} to {folder}")
    return folder


def folders_of(folder: Path, products: Sequence[str]) -> dict[str, Path]:
    """Return where the model of each product lies: in a sub-folder, or of one product in the folder itself."""
    if len(products) == 1:
        return {products[0]: folder}
    flat = {product: product.replace("/", "-") for product in products}
    alike = Counter(flat.values())
    for product, name in flat.items():
        if alike[name] > 1 and product != name:  # "a/b" beside "a-b", which keeps its name
            flat[product] = f"{name}-{digest(product)[:4]}"
    return {product: confined(folder, name) for product, name in flat.items()}


class _Delivery:
    """One product's model in the making."""

    def __init__(
        self, run: Run, product: str, split: Split, name: str, extractor: Extractor, rate: float, stamp: str
    ) -> None:
        self._run, self._config, self._product = run, run.config, product
        self._name, self._extractor, self._rate, self._stamp = name, extractor, rate, stamp
        self._tested = keeps_tests_out(run)
        self._forbidden = (*split.test_defects, *split.test_normals) if self._tested else ()
        drop = run.config.prove.near_duplicates == "drop"
        self._tests = without_near_duplicates(split) if drop else split
        self._split = split if self._tested else _with_tests(split)
        photographs = shapes_of(self._split.normals)
        part = self._config.prove
        self._shape, self._tiles = proof_shape(part, photographs), proof_tiles(part, photographs)
        self._defects = tuple(sorted({str(shot.defect) for shot in self._split.shots}))
        first = self._split.shots[0]  # its own pixels may be of another depth than its product's
        self._span = first.span or images.range_of(images.read(first.image))
        samples, controls = made_of(run, product)
        painted = [one for made in (*samples, *controls) for one in {made.normal, made.donor}]
        self._calibration = calibration_normals(self._split.normals, (), painted)
        self._away = kept_away(self._split.normals, {example.id for example in self._calibration})
        samples, controls = without(self._away, samples, controls)
        self._arm = Arm("delivered", "all that may be learned from", tuple(samples), tuple(controls))

    def write(self, folder: Path) -> None:
        """Train, and write all files of the model into an empty folder."""
        with progress(f"deliver {self._product}", 100, "%") as advance:
            common = common_set(
                self._split,
                self._away,
                self._shape,
                self._defects,
                frozenset(content_hash(example.image) for example in self._forbidden),
                self._tiles,
            )
            training = training_set(common, self._arm, self._split)
            detector = load_detector(self._config, self._name, self._defects, self._extractor, device_of(self._config))
            done = 0
            rng = torch.Generator().manual_seed(self._config.seed * 1000)
            for share in detector.fit(training, rng, budget=self._config.prove.budget):
                advance(int(80 * share) - done, "training")
                done = int(80 * share)
            network = network_of(detector)
            write_network(network, outputs_of(detector), self._shape, folder)
            learned = self._learned()
            write_json(folder / LEARNED_FROM, {"pictures": learned})
            model = self._model(folder, detector, learned)
            write_model(folder, model)
            inspector = Inspector(folder, threads=2)
            advance(10, "comparing with torch")
            compared = [*evenly_spaced(self._calibration, _COMPARED), *evenly_spaced(self._split.shots, _COMPARED)]
            model = replace(model, agreement=agreement(network, inspector, self._seen(compared)))
            if self._calibration:
                scores, maps = [], []
                for score, anomaly_map in self._asked(inspector, self._calibration):
                    scores.append(score)
                    maps.append(subsample(anomaly_map, len(self._calibration)))
                source = "normal photographs of the run that nothing was learned from"
                model = replace(model, threshold=threshold_of(scores, maps, self._rate, source))
            write_model(folder, model)
            held_out = self._held_out(inspector, detector, training)
            write_json(folder / HELD_OUT, asdict(held_out))
            proof = read_json(self._run.path("proof.json")) if self._run.is_current("prove") else None
            proven = None if proof is None else proof["products"].get(self._product)
            write_text(folder / CARD, card(model, held_out, proven))
            write_text(folder / EXAMPLE, example_script(model))
            advance(10, "thresholds")

    def _model(self, folder: Path, detector: Detector, learned: Sequence[dict[str, str]]) -> Model:
        return Model(
            format=FORMAT,
            flawsmith=machine()["packages"]["flawsmith"],
            stamp=self._stamp,
            network=file_digest(folder / NETWORK),
            opset=OPSET,
            detector=self._name,
            product=self._product,
            defects=self._defects,
            outputs=outputs_of(detector),
            shape=self._shape,
            colour="RGB",
            span=self._span,
            tiles=self._tiles,
            extractor=self._extractor.name if detector.needs_extractor else "",
            extractor_fingerprint=self._extractor.fingerprint if detector.needs_extractor else "",
            learned_from=dict(sorted(Counter(row["role"] for row in learned).items())),
            learned_from_hash=file_digest(folder / LEARNED_FROM),
            agreement={},
            threshold=None,
        )

    def _learned(self) -> list[dict[str, str]]:
        """Return a row per picture that is learned from: id, role, defect type and hash of its pixels."""
        normals = [example for example in self._split.normals if example.id not in self._away]
        groups: tuple[tuple[str, Sequence[Example]], ...] = (
            ("normal part", normals),
            ("shot", self._split.shots),
            ("sample", [one.example for one in self._arm.samples]),
            ("control", [one.example for one in self._arm.controls]),
        )
        return [
            {"id": one.id, "role": role, "defect": one.defect or "", "pixels": content_hash(one.image)}
            for role, examples in groups
            for one in examples
        ]

    def _seen(self, examples: Sequence[Example]) -> np.ndarray:
        """Return photographs as the network takes them, uint8 (N,R,C,3); in tiles, the first of each."""
        rows = []
        for example in examples:
            native = images.read(example.image)
            if self._tiles is None:
                rows.append(as_detectors_see(native, self._span, self._shape))
            else:
                whole = as_detectors_see(native, self._span, self._tiles.size_of(native.shape))
                rows.append(self._tiles.grid(whole.shape).cut(whole)[0])
        return np.stack(rows)

    def _asked(self, inspector: Inspector, examples: Sequence[Example]) -> Iterator[tuple[float, np.ndarray]]:
        """Yield score and anomaly map of photographs, as the delivered files give them."""
        for example in examples:
            inspection = inspector.inspect(images.read(example.image))
            yield inspection.score, inspection.anomaly_map

    def _held_out(self, inspector: Inspector, detector: Detector, training: TrainingSet) -> HeldOut:
        """Return the scores of damage that was not learned from: of test pictures, or of shots out of fold."""
        scores: dict[str, list[float]] = {}
        if self._tested:
            tests = [one for one in self._tests.test_defects if one.defect in self._defects]
            for example, (score, _) in zip(tests, self._asked(inspector, tests), strict=True):
                scores.setdefault(str(example.defect), []).append(score)
            normals = tuple(score for score, _ in self._asked(inspector, self._tests.test_normals))
            source = "the run's test pictures, from which nothing was learned"
            return HeldOut(source, {name: tuple(row) for name, row in sorted(scores.items())}, normals)
        answer = detector.out_of_fold(training)
        if answer is None or answer[1].score is None:
            return HeldOut("", {})
        highest: dict[tuple[str, str], float] = {}
        for index, score in zip(answer[0], answer[1].score.tolist(), strict=True):
            picture = training.pictures[index]
            if picture.defect is not None:
                key = picture.defect, picture.example_id  # a photograph scores as its loudest tile
                highest[key] = max(score, highest.get(key, score))
        for (defect, _), score in sorted(highest.items()):
            scores.setdefault(defect, []).append(score)
        source = "the shots, each scored by a part of the detector that has not learned from it" if scores else ""
        return HeldOut(source, {name: tuple(row) for name, row in scores.items()})


def keeps_tests_out(run: Run) -> bool:
    """Return whether the test pictures stay out of a delivered model: something is, or is to be, proven on them."""
    return run.config.prove.enabled or run.path("proof.json").is_file()


def _with_tests(split: Split) -> Split:
    """Return a split in which the test pictures are learned from too, as far as they are labelled."""
    labelled = tuple(example for example in split.test_defects if example.masks)
    return replace(
        split,
        shots=(*split.shots, *labelled),
        normals=(*split.normals, *split.test_normals),
        test_defects=(),
        test_normals=(),
    )


def _detector_of(config: Config) -> str:
    """Return the name of the detector that is delivered: the first that judges the proof.

    Raises:
        ConfigError: none is named, or it can have no graph.
    """
    if not config.prove.detectors:
        raise ConfigError("prove.detectors: names no detector, so there is none to deliver; memory_probe can be")
    name = config.prove.detectors[0]
    plugin: type[Detector] = registry.get("detectors", name)
    if plugin.graph is Detector.graph or not {"localization", "detection"} <= plugin.tells:
        raise ConfigError(f"prove.detectors: {name} comes first and cannot be delivered; memory_probe can be")
    return name


def _stamp(run: Run, data: Dataset, name: str, extractor: Extractor, rate: float) -> str:
    """Identify what a delivered model depends on."""
    part = run.config.prove
    settings = [name, part.settings.get(name, {}), part.budget, part.controls, part.protocol, part.size, part.tile]
    content = [data.hash, run.samples_hash(), extractor.fingerprint, run.stage_hash("prove"), keeps_tests_out(run)]
    return digest([*settings, run.config.seed, rate], content, FORMAT)


def _stamp_of(folder: Path) -> str:
    """Return the stamp of the model in a folder; "" = there is none that can be read."""
    try:
        return read_model(folder).stamp
    except DataError:
        return ""


def _require_free(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but delivered models: what is replaced is gone.

    Raises:
        RunError: names it.
    """
    if (alien := strangers(folder)) is not None:
        raise RunError(
            f"{folder}: holds something else than a delivered model ({alien}); move that, or name another folder with "
            "--out"
        )
