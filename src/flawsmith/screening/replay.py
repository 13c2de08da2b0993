"""Replay a saved gate on anyone's folder: the same pictures get the same verdicts, without the photographs behind it.

    beside            FOLDER/[product/]<defect type>/.../x.png with x.mask.png, and x.normal.png where that is known
    mvtec|visa|pairs  as `data.layout` has them; the normal photograph is unknown
    a run folder      its made pairs, with the photographs that its data.json names

Where the normal photograph is unknown, a filter that needs it falls back to all normal parts that the gate has seen, or
abstains: its score is null.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flawsmith.config import DataConfig
from flawsmith.data import images, layouts
from flawsmith.errors import ConfigError, DataError, nearest
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.verdicts import commonest
from flawsmith.screening.describe import Describer, Shown
from flawsmith.screening.gate import Gate
from flawsmith.screening.screen import judge, write_scores

LAYOUTS = ("beside", "mvtec", "visa", "pairs")
_MASK, _NORMAL = ".mask", ".normal"

Prediction = tuple[str, str, Path, Path, Path | None]
"""(product, defect type, picture, mask, normal photograph)."""


def replay(
    gate: Path,
    folder: Path,
    *,
    layout: str = "beside",
    out: Path | None = None,
    source: str = "",
    offline: bool = True,
    extractor: Extractor | None = None,
) -> str:
    """Judge a folder of pictures by a saved gate, write the verdicts, and return a sentence.

    Args:
        gate: A gate's folder, or a run's that has one.
        folder: The pictures; see above.
        layout: How they lie.
        out: The file of verdicts; None = FOLDER/replayed.jsonl. Labels that are repaired go to repaired/ beside it.
        source: File, folder or hub id of the extractor's weights; "" = the usual place.
        offline: True: the hub is never asked.
        extractor: A loaded one, in place of the one that the gate names.

    Raises:
        RunError: there is no gate.
        ConfigError: the extractor's weights are not those of the gate, or a defect type or product is unknown to it.
        DataError: a picture has no mask, or there is no picture.
    """
    fitted = Gate.load(gate / "gate" if (gate / "gate").is_dir() else gate)
    asked = extractor or load_extractor(fitted.extractor, source, offline=offline)
    fitted.require(asked)
    found = _found(folder, layout, fitted)
    path = out or folder / "replayed.jsonl"
    describer = Describer(asked, fitted.visible)
    rows = []
    with progress("replay", len(found), "pictures") as advance:
        for product in sorted({item[0] for item in found}):
            own = [item for item in found if item[0] == product]
            fitted.fitted(product)
            names = [item[2].stem for item in own]
            twice = len(set(names)) < len(names)
            shown = (_shown(item, folder, full=twice) for item in own)
            rows += judge(fitted, product, shown, describer, path.parent, advance)
    write_scores(path, rows)
    rejected = [row for row in rows if not row["kept"]]
    told = f"screen: {len(rows) - len(rejected)} of {len(rows)} pictures kept"
    return told + (f" ({commonest(rejected)})" if rejected else "") + f"; {path}"


def _found(folder: Path, layout: str, gate: Gate) -> list[Prediction]:
    """Return the pictures to judge, in natural order of their names: the order in which copies are looked for."""
    if layout not in LAYOUTS:
        raise ConfigError(f"--layout {layout}: unknown{nearest(layout, LAYOUTS)}")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if (folder / "config.json").is_file() and layout == "beside":
        found = list(_of_run(Run.open(folder)))
    elif layout == "beside":
        found = list(_beside(folder, gate))
    else:
        only = next(iter(gate.fitted_gates)) if len(gate.fitted_gates) == 1 else ""
        scanned = layouts.scan(DataConfig(root=folder, layout=layout, product=only if layout == "pairs" else ""))
        found = [(e.product, e.defect, e.image, e.mask, None) for e in scanned if e.defect and e.mask]
    if not found:
        raise DataError(f"{folder}: holds no picture with a mask; put x.mask.png beside x.png, or name a --layout")
    return sorted(found, key=lambda item: layouts.natural_key(item[2].name))


def _of_run(run: Run) -> Iterator[Prediction]:
    normals = {example.id: example.image for example in load_split(run).normals}
    for row in run.samples():
        if row["status"] == "made" and run.path(row["image"]).is_file():
            pair = run.path(row["image"]), run.path(row["mask"])
            yield row["product"], row["defect"], *pair, normals.get(row["normal"])


def _beside(folder: Path, gate: Gate) -> Iterator[Prediction]:
    for path in sorted(folder.rglob("*")):
        stem = path.stem
        if path.suffix.lower() not in images.SUFFIXES or stem.endswith((_MASK, _NORMAL)):
            continue
        parts = path.relative_to(folder).parts[:-1]
        if "repaired" in parts:
            continue
        mask = path.with_name(f"{stem}{_MASK}.png")
        if not mask.is_file():
            raise DataError(f"{path}: has no mask; put {mask.name} beside it")
        product = parts[0] if parts and parts[0] in gate.fitted_gates else ""
        rest = parts[1:] if product else parts
        if not product and len(gate.fitted_gates) > 1:
            known = ", ".join(gate.fitted_gates)
            raise DataError(f"{path}: which product is it? Put it below a folder that is called {known}")
        if not rest:
            raise DataError(
                f"{path}: which defect type is it? Put it below a folder that is called as the defect type is"
            )
        normals = sorted(path.parent.glob(f"{_escaped(stem)}{_NORMAL}.*"))
        yield product or next(iter(gate.fitted_gates)), rest[0], path, mask, normals[0] if normals else None


def _shown(item: Prediction, folder: Path, *, full: bool) -> Shown:
    _, defect, picture, mask, normal = item
    native = images.read(picture)
    name = picture.relative_to(folder).with_suffix("").as_posix() if full else picture.stem
    below = images.read(normal) if normal is not None else None
    return Shown(name, defect, native, images.read_mask(mask, native.shape), below)


def _escaped(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)
