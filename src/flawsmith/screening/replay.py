"""Replay a saved gate on anyone's folder: the same pictures get the same verdicts, without the photographs behind it.

    beside            FOLDER/[product/]<defect type>/.../x.png with x.mask.png, and x.normal.png where that is known
    mvtec|visa|pairs  as `data.layout` has them; the normal photograph is unknown
    a run folder      its samples, with the photographs that its data.json names

Where the normal photograph is unknown, a filter that needs it falls back to all normal parts that the gate has seen, or
abstains: its score is null.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flawsmith.config import DataConfig
from flawsmith.data import images, layouts
from flawsmith.data.masks.reading import read_label
from flawsmith.errors import ConfigError, DataError, nearest
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.paths import is_hidden
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.mask_reading import read_masks
from flawsmith.run.progress import progress
from flawsmith.run.records import Verdict
from flawsmith.run.screened import commonest
from flawsmith.screening.describe import Describer, Shown
from flawsmith.screening.gate import Gate
from flawsmith.screening.screen import judge, write_scores
from flawsmith.types import Example, MaskRule, Range

LAYOUTS = ("beside", "mvtec", "visa", "pairs")
_MASK, _NORMAL = ".mask", ".normal"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to judge."""

    product: str
    defect: str
    image: Path
    masks: tuple[Path, ...]
    normal: Path | None
    """The photograph that was painted on; None = unknown."""
    mask_rule: MaskRule | None = None
    """How the masks are read; None = they are flawsmith's own."""


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
        out: The file of verdicts; None = FOLDER/replayed.jsonl. Labels that are repaired go to repaired/ beside it,
            or in a run folder to replayed/repaired/.
        source: File, folder or hub id of the extractor's weights; "" = the usual place.
        offline: True: the hub is never asked.
        extractor: A loaded one, in place of the one that the gate names.

    Raises:
        RunError: there is no gate.
        ConfigError: the extractor's weights are not those of the gate, or a defect type or product is unknown to it.
        DataError: a picture has no mask, or there is no picture.
    """
    loaded = Gate.load(gate / "gate" if (gate / "gate").is_dir() else gate)
    network = extractor or load_extractor(loaded.extractor, source, offline=offline)
    loaded.require(network)
    pictures = _pictures(folder, layout, loaded)
    path = out or folder / "replayed.jsonl"
    repairs = path.parent / "replayed" if _is_run(path.parent) else path.parent  # a run's repaired/ is what it uses
    describer = Describer(network, loaded.visible)
    verdicts: list[Verdict] = []
    names = [picture.image.stem for picture in pictures]
    twice = len(set(names)) < len(names)
    with progress("replay", len(pictures), "pictures") as advance:
        for product in sorted({picture.product for picture in pictures}):
            ours = [picture for picture in pictures if picture.product == product]
            span = loaded.fitted(product).span
            shown = (_shown(picture, folder, span, full=twice) for picture in ours)
            verdicts += judge(loaded, product, shown, describer, repairs, advance)
    write_scores(path, verdicts)
    rejected = [verdict for verdict in verdicts if not verdict.kept]
    kept = len(verdicts) - len(rejected)
    if rejected:
        return f"{kept} of {len(verdicts)} pictures kept ({commonest(rejected)}); {path}"
    return f"{kept} of {len(verdicts)} pictures kept; {path}"


def _pictures(folder: Path, layout: str, gate: Gate) -> list[Picture]:
    """Return the pictures to judge, in natural order of their names: the order in which copies are looked for."""
    if layout not in LAYOUTS:
        raise ConfigError(f"--layout {layout}: unknown{nearest(layout, LAYOUTS)}")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    of_a_run = _is_run(folder) and layout == "beside"
    if of_a_run:
        pictures = list(_of_run(Run.open(folder)))
    elif layout == "beside":
        pictures = list(_beside(folder, gate))
    else:
        only = next(iter(gate.fitted_gates)) if len(gate.fitted_gates) == 1 else ""
        scanned = layouts.scan(DataConfig(root=folder, layout=layout, product=only if layout == "pairs" else ""))
        pictures = [Picture(e.product, e.defect, e.image, e.masks, None) for e in scanned if e.defect and e.masks]
    if not pictures:
        raise DataError(f"{folder}: holds no picture with a mask; put x.mask.png beside x.png, or name a --layout")
    if not of_a_run:
        examples = [Example(p.image.name, p.image, p.product, p.defect, p.masks) for p in pictures]
        rules = read_masks(examples, DataConfig(layout="visa" if layout == "visa" else "mvtec"), None).rules
        pictures = [replace(p, mask_rule=rules.get((p.product, p.defect))) for p in pictures]
    return sorted(pictures, key=lambda picture: layouts.natural_key(picture.image.name))


def _is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _of_run(run: Run) -> Iterator[Picture]:
    normals = {example.id: example.image for example in load_split(run).normals}
    for sample in run.samples():
        image, mask = run.path(sample.image), run.path(sample.mask)
        if sample.made and image.is_file():
            yield Picture(sample.product, sample.defect, image, (mask,), normals.get(sample.normal))


def _beside(folder: Path, gate: Gate) -> Iterator[Picture]:
    for path in sorted(folder.rglob("*")):
        stem = path.stem
        if path.suffix.lower() not in images.SUFFIXES or stem.endswith((_MASK, _NORMAL)):
            continue
        parts = path.relative_to(folder).parts[:-1]
        if "repaired" in parts or is_hidden(path, folder):
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
            raise DataError(f"{path}: which defect type is it? Put it below a folder with the name of the type")
        normals = sorted(path.parent.glob(f"{_escaped(stem)}{_NORMAL}.*"))
        product = product or next(iter(gate.fitted_gates))
        yield Picture(product, rest[0], path, (mask,), normals[0] if normals else None)


def _shown(picture: Picture, folder: Path, span: Range | None, *, full: bool) -> Shown:
    native = images.read(picture.image)
    name = picture.image.relative_to(folder).with_suffix("").as_posix() if full else picture.image.stem
    below = images.read(picture.normal) if picture.normal is not None else None
    example = Example(name, picture.image, picture.product, picture.defect, picture.masks, mask_rule=picture.mask_rule)
    label = read_label(example, native.shape)
    return Shown(name, picture.defect, native, label, below, span=span, file=picture.image)


def _escaped(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)
