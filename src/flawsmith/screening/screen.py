"""The quality gate: every sample is scored by every filter; scores.jsonl holds scores, thresholds, verdicts, reasons.

The gate is fitted on the shots and normal parts of each product and saved in gate/, so that `flawsmith screen --replay`
gives the same verdicts on anyone's folder. Rejected pictures stay where they are (unless the settings say otherwise);
which samples later stages see is decided in one place, `Run.kept`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from flawsmith.config import ScreenConfig
from flawsmith.data import images
from flawsmith.data.codecs.metadata_reading import metadata_of
from flawsmith.data.scaling import scaled_mask
from flawsmith.errors import DataError, RunError
from flawsmith.files import digest, file_digest
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.paths import confined
from flawsmith.run.dataset import Dataset, open_dataset, recorded_dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.records import Repair, Sample, Verdict, read_records, write_records
from flawsmith.run.screened import commonest, read_discarded
from flawsmith.run.stage import Inputs, Spread, stage
from flawsmith.run.unchanged import require_as_learned, require_as_made
from flawsmith.screening.describe import Described, Describer, Shown, screening_set
from flawsmith.screening.gate import FittedGate, Gate, fit_gate, known_filters
from flawsmith.screening.rounds import discard, plan_more
from flawsmith.types import Advance, Example

_STAND_INS = 3
"""Normal photographs from which a shot's damage may be filled in."""
_AT_ONCE = 16
"""Samples of one piece, where machines look at them."""
Looked = tuple[Described, Repair | None]
"""What is said of a picture, and the files of its repaired label; None = as it is."""


def screen(run: Run, data: Dataset | None = None, spread: Spread | None = None) -> Path:
    """Run the stage; does nothing when it is done already with the same input; returns the path of scores.jsonl.

    Args:
        run: The run.
        data: Its photographs, when they are open already.
        spread: Has gates fitted and samples described on whichever machine is free; None = one after another, here.

    Raises:
        RunError: no samples were generated yet, or they or their photographs were changed since.
        ConfigError: a filter, score or extractor is unknown.
    """
    config, path = run.config, run.path("scores.jsonl")
    known_filters(config.screen)
    generated = run.stage_hash("generate")
    if not generated:
        raise RunError(f"{run.folder}: no samples are made yet; run `flawsmith generate {run.folder}` first")
    data = data or open_dataset(run)
    if not data.split.shots:
        raise DataError(
            f"{run.folder}: screening compares with real shots, and this run learns from none; give it some"
        )
    extractor = _extractor(run)
    samples = [sample for sample in run.samples() if sample.made]
    require_as_learned(run, data)
    discarded = read_discarded(run)
    require_as_made(run, [sample for sample in samples if sample.index not in discarded])
    require_as_made(run, run.kept(partly=True), gone=True)  # repaired ones
    inputs = Inputs.of(
        config,
        "screen",
        generate=generated,
        samples=digest([sample.to_json() for sample in samples]),
        shots=data.content(data.split.shots),
        extractor=extractor.fingerprint,
    )

    def all_judged() -> bool:
        """A verdict that a user deleted would silently take its sample out of the export: then all are judged again."""
        verdicts = read_records(path, Verdict)
        repaired = [name for one in verdicts if (repair := one.repair) for name in (repair.image, repair.mask)]
        judged = {verdict.name for verdict in verdicts} == {_name(sample) for sample in samples}
        return judged and all(run.path(name).is_file() for name in repaired)

    outputs, there = [path, run.path("gate", "gate.json")], all_judged
    with stage(run, "screen", inputs, outputs=outputs, there=there) as work:
        if work.done:
            return path
        describer = _describer(run, extractor)
        products = sorted({shot.product for shot in data.split.shots})
        verdicts: list[Verdict] = []
        with progress("screen", len(samples), "samples") as advance:
            if spread is None:
                fitted = {product: fit_product(config.screen, data, product, describer) for product in products}
            else:
                calls = ((run, product, work.stamp) for product in products)
                fitted = {products[at]: gate for at, gate in spread(fit_one, calls, network=True)}
                fitted = {product: fitted[product] for product in products}
            gate = Gate(config.screen, extractor.name, extractor.fingerprint, describer.visible, fitted)
            normals = {example.id: example for example in data.split.normals}
            for product in products:
                those = [one for one in samples if one.product == product]
                if spread is None:
                    shown = (_shown(run, one, data, normals) for one in those)
                    verdicts += judge(gate, product, shown, describer, run.folder, advance)
                else:
                    looked = _looked_elsewhere(spread, run, gate.fitted(product), those, work.stamp, advance)
                    verdicts += _verdicts(gate, product, looked)
        gate.save(run.path("gate"))
        write_scores(path, verdicts)
        kept = sum(verdict.kept for verdict in verdicts)
        work.facts |= {"kept": kept, "rejected": len(verdicts) - kept}
        work.what = f"{kept} of {len(verdicts)} samples kept"
    return path


def screened(run: Run, data: Dataset | None = None, spread: Spread | None = None) -> int:
    """Screen, and ask for what is lacking; return how many more samples to generate, 0 = it was the last round."""
    screen(run, data, spread)
    more = plan_more(run)
    if not more:
        discard(run)
    return more


def sentence(run: Run, more: int) -> str:
    """Return what the screening of a run found, and what is to be done next."""
    verdicts = list((run.verdicts() or {}).values())
    rejected = [verdict for verdict in verdicts if not verdict.kept]
    text = f"screen: {len(verdicts) - len(rejected)} of {len(verdicts)} samples kept"
    text += f" ({commonest(rejected)})" if rejected else ""
    if more:
        text += f"; {more} more are asked for: run `flawsmith generate {run.folder}` and screen again"
    return text


def judge(
    gate: Gate,
    product: str,
    pictures: Iterable[Shown],
    describer: Describer,
    folder: Path,
    advance: Advance | None = None,
) -> list[Verdict]:
    """Return a verdict per picture, in their order; labels that are repaired go to repaired/ below a folder.

    Raises:
        DataError: a picture and its normal photograph are of different sizes, or a mask is empty.
        ConfigError: the gate does not know the product, or a defect type.
    """
    fitted = gate.fitted(product)
    looked: list[Looked] = []
    for shown in pictures:
        looked.append(look(fitted, shown, describer, folder, repairs=gate.settings.repair))
        if advance is not None:
            advance()
    return _verdicts(gate, product, looked)


def look(fitted: FittedGate, shown: Shown, describer: Describer, folder: Path, *, repairs: bool) -> Looked:
    """Describe one picture; a label that is reason enough to reject is repaired first, where that is asked for.

    Args:
        fitted: The gate of the picture's product.
        shown: The picture.
        describer: Describes it.
        folder: A repaired picture and its label go to repaired/ below it.
        repairs: Whether labels are repaired.
    """
    described = describer.describe(shown)
    if repairs and shown.below is not None and _misfits(fitted, described, describer):
        picture, mask = describer.repaired(shown)
        if mask.any():
            repair = _write_repaired(folder, shown, picture, mask)
            return describer.describe(replace(shown, image=picture, mask=mask)), repair
    return described, None


def _verdicts(gate: Gate, product: str, looked: Sequence[Looked]) -> list[Verdict]:
    verdicts = gate.judge(product, screening_set([described for described, _ in looked], gate.extractor))
    return [replace(verdict, repair=repair) for verdict, (_, repair) in zip(verdicts, looked, strict=True)]


def _looked_elsewhere(
    spread: Spread, run: Run, fitted: FittedGate, samples: Sequence[Sample], stamp: str, advance: Advance
) -> list[Looked]:
    """Return what `look` says of samples of one product, in their order, a few at a time on each machine."""
    chunks = [samples[first : first + _AT_ONCE] for first in range(0, len(samples), _AT_ONCE)]
    looked: dict[int, list[Looked]] = {}
    for number, rows in spread(look_at, ((run, fitted, chunk, stamp) for chunk in chunks), network=True):
        looked[number] = rows
        advance(len(rows))
    return [one for number in range(len(chunks)) for one in looked[number]]


_OPENED: dict[tuple[str, str], tuple[Dataset, Describer]] = {}
"""What the last piece in this process looked with, by run and stamp."""


def _opened(run: Run, stamp: str) -> tuple[Dataset, Describer]:
    key = str(run.folder.absolute()), stamp
    if key not in _OPENED:
        _OPENED.clear()
        _OPENED[key] = recorded_dataset(run), _describer(run, _extractor(run))
    return _OPENED[key]


def fit_one(run: Run, product: str, stamp: str) -> FittedGate:
    """Fit one product's gate: a piece for `Spread`; `stamp` identifies the screening."""
    data, describer = _opened(run, stamp)
    return fit_product(run.config.screen, data, product, describer)


def look_at(run: Run, fitted: FittedGate, samples: Sequence[Sample], stamp: str) -> list[Looked]:
    """Return what `look` says of some samples of one product: a piece for `Spread`."""
    data, describer = _opened(run, stamp)
    normals = {example.id: example for example in data.split.normals}
    repairs = run.config.screen.repair
    shown = (_shown(run, sample, data, normals) for sample in samples)
    return [look(fitted, one, describer, run.folder, repairs=repairs) for one in shown]


def _extractor(run: Run) -> Extractor:
    part, where = run.config.features, run.config.backbone
    return load_extractor(part.extractor, part.source, offline=where.offline, device=where.device)


def _describer(run: Run, extractor: Extractor) -> Describer:
    return Describer(FeatureCache(extractor, run.path("state", "features")), 2 * run.config.generate.visible)


def write_scores(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the verdicts, one line each, in order of their names."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.name)
    write_records(path, ordered)


def fit_product(part: ScreenConfig, data: Dataset, product: str, describer: Describer) -> FittedGate:
    """Fit the filters on one product's shots and normal parts."""
    shots = [example for example in data.split.shots if example.product == product]
    normals = [example for example in data.split.normals if example.product == product]
    stand_ins = [data.photographs.read(example) for example in _evenly(normals, _STAND_INS)]
    of_shots, masks = [], []
    for shot in shots:
        photograph = data.photographs.read(shot)
        assert photograph.mask is not None and shot.defect is not None
        masks.append(photograph.mask)
        others = [_like(photograph.native, images.filled(one.native, one.span)) for one in stand_ins]
        native, mask = photograph.native, photograph.mask
        shown = Shown(shot.id, shot.defect, native, mask, stand_ins=others, span=photograph.span)
        of_shots.append(describer.describe(shown))
    of_normals = []
    for number, normal in enumerate(_evenly(normals, part.normals)):
        photograph = data.photographs.read(normal)
        mask = scaled_mask(masks[number % len(masks)], photograph.native.shape[:2])
        of_normals.append(describer.describe(Shown(normal.id, "", photograph.native, mask, span=photograph.span)))
    defects = sorted({str(shot.defect) for shot in shots})
    name = describer.extractor.name
    fitted = fit_gate(part, defects, screening_set(of_shots, name), screening_set(of_normals, name))
    return replace(fitted, span=normals[0].span)


def _shown(run: Run, sample: Sample, data: Dataset, normals: Mapping[str, Example]) -> Shown:
    native = images.read(run.path(sample.image))
    mask = images.read_mask(run.path(sample.mask), native.shape)
    below = data.photographs.read(normals[sample.normal])
    file = run.path(sample.image)
    return Shown(_name(sample), sample.defect, native, mask, below.native, sample.normal, span=below.span, file=file)


def _name(sample: Sample) -> str:
    """Return the name of a sample's verdict."""
    return f"{sample.index:06d}"


def _misfits(fitted: FittedGate, described: Described, describer: Describer) -> bool:
    """Return whether the label alone is reason enough to reject."""
    scores = fitted.filters["alignment"].score(screening_set([described], describer.extractor.name))
    limits = {name: fitted.limits.get(name) for name in scores}
    return any(float(scores[name]) < limit for name, limit in limits.items() if limit is not None)


def _write_repaired(folder: Path, shown: Shown, picture: np.ndarray, mask: np.ndarray) -> Repair:
    stem = f"repaired/{shown.name}"
    suffix = images.lossless_suffix(picture)
    metadata = images.with_reasons(shown.file, metadata_of) if shown.file else None
    images.write(confined(folder, f"{stem}{suffix}"), picture, metadata)
    images.write_mask(confined(folder, f"{stem}.mask.png"), mask)
    hashes = [file_digest(confined(folder, name)) for name in (f"{stem}{suffix}", f"{stem}.mask.png")]
    return Repair(f"{stem}{suffix}", f"{stem}.mask.png", int(mask.sum()), *hashes)


def _evenly(examples: Sequence[Example], most: int) -> list[Example]:
    count = min(most, len(examples))
    return [examples[int((number + 0.5) * len(examples) / count)] for number in range(count)]


def _like(native: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return another photograph in the size and number of channels of a first one."""
    if other.ndim != native.ndim:
        other = np.repeat(other[..., None], 3, axis=2) if native.ndim == 3 else other.mean(axis=2).astype(other.dtype)
    size = native.shape[1::-1]
    return np.asarray(cv2.resize(other, size, interpolation=cv2.INTER_AREA).astype(native.dtype, copy=False))
