"""The quality gate: every made pair is scored by every filter; scores.jsonl says scores, thresholds, verdict, reasons.

The gate is fitted on the shots and normal parts of each product and saved in gate/, so that `flawsmith screen --replay`
gives the same verdicts on anyone's folder. Rejected pictures stay where they are (unless the settings say otherwise);
which pairs later stages see is decided in one place, `Run.kept`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flawsmith.config import ScreenConfig
from flawsmith.data import images
from flawsmith.data.photographs import Photographs
from flawsmith.data.split import Split
from flawsmith.errors import RunError
from flawsmith.files import digest, write_text
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.run.dataset import split_data
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.rounds import gate_hash
from flawsmith.run.verdicts import commonest
from flawsmith.screening.describe import Describer, Shown, screening_set
from flawsmith.screening.gate import FittedGate, Gate, Row, fit_gate, known_filters
from flawsmith.screening.rounds import discard, plan_more
from flawsmith.types import Example

_STAND_INS = 3
"""Sound photographs from which a shot's damage may be filled in."""


def screen(run: Run) -> Path:
    """Run the stage; does nothing when it is done already with the same input; returns the path of scores.jsonl.

    Raises:
        RunError: no pairs were generated yet.
        ConfigError: a filter, score or extractor is unknown.
    """
    config, path, part = run.config, run.path("scores.jsonl"), run.config.features
    known_filters(config.screen)
    made = run.stage_hash("generate")
    if not made:
        raise RunError(f"{run.folder}: no pairs are made yet; run `flawsmith generate {run.folder}` first")
    split = split_data(run)
    extractor = load_extractor(part.extractor, part.source, offline=config.backbone.offline)
    seen = [(e.id, digest(e.image), digest(e.mask) if e.mask else "") for e in split.shots]
    stamp = digest(gate_hash(config), made, run.samples(), seen, extractor.fingerprint, config.seed)
    if run.stage_hash("screen") == stamp and path.is_file() and run.path("gate", "gate.json").is_file():
        return path
    begun = time.time()
    run.forget("screen", "measure", "prove", "export", "report")
    describer = Describer(FeatureCache(extractor, run.path("state", "features")), 2 * config.generate.visible)
    pictures = Photographs(split.normals)
    rows = [row for row in run.samples() if row["status"] == "made"]
    products = sorted({example.product for example in split.shots})
    with progress("screen", len(rows), "pairs") as advance:
        fitted_gates = {
            product: fit_product(config.screen, split, product, describer, pictures) for product in products
        }
        gate = Gate(config.screen, extractor.name, extractor.fingerprint, describer.visible, fitted_gates)
        normals = {example.id: example for example in split.normals}
        judged: list[Row] = []
        for product in products:
            own = [row for row in rows if row["product"] == product]
            shown = (_pair(run, row, pictures, normals) for row in own)
            judged += judge(gate, product, shown, describer, run.folder, advance)
    gate.save(run.path("gate"))
    write_scores(path, judged)
    kept = sum(row["kept"] for row in judged)
    run.log(stage="screen", seconds=round(time.time() - begun, 1), what=f"{kept} of {len(judged)} pairs kept")
    run.finish("screen", stamp, kept=kept, rejected=len(judged) - kept)
    return path


def screened(run: Run) -> int:
    """Screen, and ask for what is lacking; return how many more pairs to generate, 0 = it was the last round."""
    screen(run)
    more = plan_more(run)
    if not more:
        discard(run)
    return more


def sentence(run: Run, more: int) -> str:
    """Return what the screening of a run found, and what is to be done next."""
    verdicts = list((run.verdicts() or {}).values())
    rejected = [row for row in verdicts if not row["kept"]]
    told = f"screen: {len(verdicts) - len(rejected)} of {len(verdicts)} pairs kept"
    told += f" ({commonest(rejected)})" if rejected else ""
    if more:
        told += f"; {more} more are asked for: run `flawsmith generate {run.folder}` and screen again"
    return told


def judge(
    gate: Gate, product: str, pictures: Iterable[Shown], describer: Describer, folder: Path, advance: Any = None
) -> list[Row]:
    """Return a verdict a picture, in their order; labels that are repaired go to repaired/ below a folder.

    Raises:
        DataError: a picture and its normal photograph are of different sizes, or a mask is empty.
        ConfigError: the gate does not know the product, or a defect type.
    """
    fitted = gate.fitted(product)
    rows, repaired = [], {}
    for shown in pictures:
        row = describer.row(shown)
        if gate.settings.repair and shown.below is not None and _misfits(fitted, row, describer):
            picture, mask = describer.repaired(shown)
            if mask.any():
                repaired[shown.name] = _write_repaired(folder, shown.name, picture, mask)
                row = describer.row(
                    Shown(shown.name, shown.defect, picture, mask, below=shown.below, source=shown.source)
                )
        rows.append(row)
        if advance is not None:
            advance()
    judged = gate.judge(product, screening_set(rows, gate.extractor))
    return [row | ({"repaired": repaired[row["name"]]} if row["name"] in repaired else {}) for row in judged]


def write_scores(path: Path, rows: Sequence[Row]) -> None:
    """Write verdicts, a line each, in order of their names."""
    ordered = sorted(rows, key=lambda row: row["name"])
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ordered))


def fit_product(
    part: ScreenConfig, split: Split, product: str, describer: Describer, pictures: Photographs
) -> FittedGate:
    """Trainer the filters on one product's shots and normal parts."""
    shots = [example for example in split.shots if example.product == product]
    normals = [example for example in split.normals if example.product == product]
    looked = _evenly(normals, part.normals)
    stand_ins = [pictures.read(example).native for example in _evenly(normals, _STAND_INS)]
    real, masks = [], []
    for example in shots:
        photograph = pictures.read(example)
        assert photograph.mask is not None and example.defect is not None
        masks.append(photograph.mask)
        others = [_like(photograph.native, native) for native in stand_ins]
        real.append(
            describer.row(Shown(example.id, example.defect, photograph.native, photograph.mask, stand_ins=others))
        )
    normal = []
    for place, example in enumerate(looked):
        native = pictures.read(example).native
        mask = _laid(masks[place % len(masks)], native.shape[:2])
        normal.append(describer.row(Shown(example.id, "", native, mask)))
    defects = sorted({str(example.defect) for example in shots})
    name = describer.extractor.name
    return fit_gate(part, defects, screening_set(real, name), screening_set(normal, name))


def _pair(run: Run, row: dict[str, Any], pictures: Photographs, normals: dict[str, Example]) -> Shown:
    native = images.read(run.path(row["image"]))
    mask = images.read_mask(run.path(row["mask"]), native.shape)
    below = pictures.read(normals[row["normal"]]).native
    return Shown(f"{row['index']:06d}", row["defect"], native, mask, below, row["normal"])


def _misfits(fitted: FittedGate, row: dict[str, Any], describer: Describer) -> bool:
    """Return whether the label alone is reason enough to reject."""
    scores = fitted.filters["alignment"].score(screening_set([row], describer.extractor.name))
    limits = {name: fitted.limits.get(name) for name in scores}
    return any(float(scores[name]) < limit for name, limit in limits.items() if limit is not None)


def _write_repaired(folder: Path, name: str, picture: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    place = f"repaired/{name}"
    suffix = images.lossless_suffix(picture)
    images.write(folder / f"{place}{suffix}", picture)
    images.write_mask(folder / f"{place}.mask.png", mask)
    return {"image": f"{place}{suffix}", "mask": f"{place}.mask.png", "area": int(mask.sum())}


def _evenly(examples: Sequence[Example], most: int) -> list[Example]:
    count = min(most, len(examples))
    return [examples[int((place + 0.5) * len(examples) / count)] for place in range(count)]


def _like(native: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return another photograph in the size and number of channels of a first one."""
    if other.ndim != native.ndim:
        other = np.repeat(other[..., None], 3, axis=2) if native.ndim == 3 else other.mean(axis=2).astype(other.dtype)
    size = native.shape[1::-1]
    return np.asarray(cv2.resize(other, size, interpolation=cv2.INTER_AREA).astype(native.dtype, copy=False))


def _laid(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask in another size, never empty."""
    area = cv2.resize(mask.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray((area >= min(0.5, float(area.max()))) & (area > 0))
