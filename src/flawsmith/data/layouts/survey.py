"""A folder of photographs -> a survey: every photograph with its product, type and masks, and the ledger."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace

from flawsmith.config import DataConfig, nfc
from flawsmith.data.layouts.annotated import coco, label_studio, labelme, lookout, yolo
from flawsmith.data.layouts.doubles import previews_among
from flawsmith.data.layouts.folders import mvtec, pairs, pattern, visa
from flawsmith.data.layouts.ledger import EXCLUDED, Ledger, account
from flawsmith.data.layouts.reading import LeftOut, Reading
from flawsmith.data.layouts.tree import Tree, list_tree, natural_key, without_suffix
from flawsmith.errors import ConfigError, DataError, first_few, nearest
from flawsmith.types import Example

LAYOUTS: dict[str, Callable[[DataConfig, Tree], Reading]] = {
    "mvtec": mvtec.read_mvtec,
    "visa": visa.read_visa,
    "pairs": pairs.read_pairs,
    "pattern": pattern.read_pattern,
    "coco": coco.read_coco,
    "labelme": labelme.read_labelme,
    "yolo": yolo.read_yolo,
    "label_studio": label_studio.read_label_studio,
    "lookout": lookout.read_lookout,
}
"""Name in the configuration -> the function that reads such a folder."""
_OUTLINES = (".json", ".xml", ".txt")
"""How the files of outlines end that labelling tools write beside a photograph."""
_MODULES = {
    "mvtec": mvtec,
    "visa": visa,
    "pairs": pairs,
    "pattern": pattern,
    "coco": coco,
    "labelme": labelme,
    "yolo": yolo,
    "label_studio": label_studio,
    "lookout": lookout,
}


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies below the root, as a layout understands it."""

    examples: tuple[Example, ...]
    """The photographs of the products and defect types that are asked for, in natural order of their ids."""
    normal_masks: dict[str, tuple[str, ...]]
    """Photograph of a normal part -> masks that lie where a defect's would."""
    ledger: Ledger
    gaps: tuple[str, ...]
    """What the set lacks before anything can be learned from it, as sentences."""
    warnings: tuple[str, ...]
    """What was left out or read in a way that a user may not have meant, as sentences."""

    @property
    def errors(self) -> list[str]:
        """Return all that stops a run, as sentences."""
        return [*self.gaps, *self.ledger.sentences("error")]

    @property
    def notes(self) -> list[str]:
        """Return what is worth knowing and no reason to worry, as sentences."""
        excluded = self.ledger.uses.get(EXCLUDED, 0)
        text = "1 file is" if excluded == 1 else f"{excluded} files are"
        return [*([f"data.exclude: {text} left out"] if excluded else []), *self.ledger.sentences("note")]


def scan(data: DataConfig) -> list[Example]:
    """Return every photograph with its product, defect type and masks, in natural order of the ids.

    Raises:
        DataError: as `survey`, and whatever it finds wrong: nothing normal or nothing damaged, a defect without a
            mask, a file that could be a defect or its mask and is left out.
        ConfigError: an unknown layout or a template that cannot work.
    """
    surveyed = survey(data)
    if wrong := surveyed.errors:
        raise DataError("\n".join(wrong))
    return list(surveyed.examples)


def survey(data: DataConfig, tree: Tree | None = None) -> Survey:
    """Look at a folder without opening a photograph; what is missing or left out is listed, not raised.

    Args:
        data: What is asked for.
        tree: The files below its root, where they are listed already.

    Raises:
        DataError: the root is missing or of another layout; a named folder, type or product does not exist; a glob of
            `data.exclude` fits nothing.
        ConfigError: an unknown layout or a template that cannot work.
    """
    if data.layout not in LAYOUTS:
        raise ConfigError(f"data.layout: {data.layout!r} is unknown{nearest(data.layout, LAYOUTS)}")
    tree = tree or list_tree(data)
    try:
        reading = _without_previews(LAYOUTS[data.layout](data, tree))
    except DataError as error:
        if (said := _with_finder(str(error), data)) == str(error):
            raise
        raise DataError(said) from None
    examples = [
        replace(example, product=nfc(example.product), defect=None if example.defect is None else nfc(example.defect))
        for example in reading.examples
    ]
    examples.sort(key=lambda example: natural_key(example.id))
    products, defects = {nfc(name) for name in data.products}, {nfc(name) for name in data.defects}
    for name, wanted, known in (
        ("data.products", products, {example.product for example in examples}),
        ("data.defects", defects, {example.defect for example in examples if example.defect is not None}),
    ):
        for word in sorted(wanted):
            if known and word not in known:
                raise DataError(f"{name}: {data.root} holds no {word!r}{nearest(word, known)}")
    chosen = tuple(
        example
        for example in examples
        if (not products or example.product in products)
        and (not defects or example.defect is None or example.defect in defects)
    )
    ids = {example.id for example in chosen}
    masks = {name: files for name, files in reading.normal_masks.items() if name in ids}
    ledger = account(tree, reading, ids, data.layout)
    warnings = (*ledger.sentences("warning"), *reading.warnings)
    return Survey(chosen, masks, ledger, tuple(_gaps(chosen, data, tree)), warnings)


def _with_finder(sentence: str, data: DataConfig) -> str:
    """Return what a layout says of a folder; where it finds nothing of its own, also how to find one that does."""
    if data.layout == "pattern" or _MODULES[data.layout].EXPECTED not in sentence:
        return sentence
    return f"{sentence}; let `flawsmith new --from {shlex.quote(str(data.root))}` find the layout that fits"


def _without_previews(reading: Reading) -> Reading:
    """Leave out what is called as a preview of another photograph, as an error."""
    previews = previews_among(reading.examples)
    if not previews:
        return reading
    kept = tuple(example for example in reading.examples if example.id not in previews)
    reason = "they are called as previews of other photographs"
    left_out = LeftOut(reason, tuple(sorted(previews, key=natural_key)), "error", "name them in data.exclude")
    return replace(reading, examples=kept, left_out=(*reading.left_out, left_out))


def _gaps(examples: tuple[Example, ...], data: DataConfig, tree: Tree) -> list[str]:
    """Return what a set lacks before anything can be learned from it, as sentences; [] = nothing."""
    layout = _MODULES[data.layout]
    if not examples:
        nothing = f"{data.root}: no pictures found in the layout {data.layout!r}; {layout.EXPECTED}"
        return [_with_finder(nothing, data)]
    wrong = []
    normal = {example.product for example in examples if example.defect is None}
    damaged = {example.product for example in examples if example.defect is not None}
    if not normal:
        wrong.append(f"{data.root}: no normal parts found; {layout.EXPECTED}")
    elif not damaged and data.shots:
        without = 'without any, set data.shots = 0 and generator.name = "rendered"'
        wrong.append(f"{data.root}: no defects found; {layout.EXPECTED}; {without}")
    elif lone := sorted(damaged - normal):
        wrong.append(f"{data.root}: no normal parts of {', '.join(map(repr, lone))}; add some, or set data.products")
    if bare := [example.id for example in examples if example.defect is not None and not example.masks]:
        shown = first_few(bare)
        one = "1 defect has" if len(bare) == 1 else f"{len(bare)} defects have"
        wrong.append(f"{data.root}: {one} no mask: {shown}; {layout.MASKS}{_outlines(bare, tree)}")
    return wrong


def _outlines(bare: list[str], tree: Tree) -> str:
    """Return a hint where a labelling tool's file lies beside a defect without a mask."""
    stems = {without_suffix(file) for file in bare}
    for file in tree.everything():
        if file.lower().endswith(_OUTLINES) and without_suffix(file) in stems:
            return f" ({file} is a labelling tool's file, which other layouts read: labelme, coco, yolo, label_studio)"
    return ""
