"""How a product's masks are read: one rule per defect type, from all masks together and from what `data.mask` says.

What the masks leave open is an error that says which setting answers it. What is doubtful about one picture's label
stops a shot, which would teach it, and is a warning for a test picture.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from flawsmith.config import DataConfig, MaskConfig
from flawsmith.data import images
from flawsmith.data.annotations.parts import part_of
from flawsmith.data.masks.levels import Undecided
from flawsmith.data.masks.reading import ON_ITS_SIDE, read_label, turn_of
from flawsmith.data.masks.rules import rules_of
from flawsmith.data.masks.stamps import Stamps
from flawsmith.data.masks.stored import StoredMask, stored_mask
from flawsmith.errors import Answer, DataError, nearest
from flawsmith.types import Example, MaskRule

_LARGE = 0.5
"""Damage over more than this share of a picture asks whether the mask is inverted."""
_SHOWN = 3
_INVERTED, _AS_DRAWN = Answer("data.mask.inverted", True), Answer("data.mask.inverted", False)
_MANY = "the file holds {} pictures, and which of them are damage is not known; save each as a file of its own"

Rules = Mapping[tuple[str, str], MaskRule]
"""(product, defect type) -> how its masks are read."""


@dataclass(slots=True)
class Judgement:
    """How the masks of a set are read, and what is wrong with them; sentences name what they are about."""

    rules: dict[tuple[str, str], MaskRule] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    """What stops a run whatever is learned from."""
    broken: list[tuple[str, Path, str]] = field(default_factory=list)
    """(id of the photograph, mask, problem) of masks that cannot be read."""
    doubts: list[tuple[str, str]] = field(default_factory=list)
    """(id, problem) of labels that must not be learned from as they are."""
    empty: list[str] = field(default_factory=list)
    """Ids of photographs whose labels call nothing damaged."""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    answers: dict[str, tuple[Answer, ...]] = field(default_factory=dict)
    """Settings that answer an error or a doubt's problem, by its sentence."""


def judge(examples: Sequence[Example], data: DataConfig) -> Judgement:
    """Decide how the masks of a set are read; every mask is decoded once, and kept in memory as far as there is room.

    Args:
        examples: All photographs of the set, as `layouts.scan` gives them.
        data: Its settings; of them `mask` and `layout` count.
    """
    judgement = Judgement()
    annotated: set[tuple[str, str]] = set()
    masks: dict[str, list[tuple[Example, Path, StoredMask]]] = defaultdict(list)
    for example in examples:
        for path in example.masks if example.defect is not None else ():
            try:
                if (part := part_of(path)) is not None:
                    part.marked()
                    annotated.add((example.product, example.defect or ""))
                    continue
                stored = stored_mask(path)
                if stored.pages > 1:
                    judgement.broken.append((example.id, path, _MANY.format(stored.pages)))
                else:
                    masks[example.product].append((example, path, stored))
            except DataError as error:
                judgement.broken.append((example.id, path, _without(path, error)))
    judgement.errors += _unknown(examples, data.mask)
    for product, members in sorted(masks.items()):
        try:
            rules, notes = rules_of(members, data)
        except Undecided as question:
            judgement.errors.append(f"{product}: {question}")
            judgement.answers[judgement.errors[-1]] = question.answers
            continue
        judgement.rules |= {(product, defect): rule for defect, rule in rules.items()}
        judgement.notes += [f"{product}: {note}" for note in notes]
    # What an annotation file marks needs no rule; it is read by the plainest.
    judgement.rules |= {key: MaskRule() for key in annotated if key not in judgement.rules}
    _look_at_labels(examples, data.mask, judgement)
    return judgement


def with_rules(examples: Sequence[Example], rules: Rules) -> list[Example]:
    """Return the examples, each with the rule by which its masks are read."""
    return [
        replace(example, mask_rule=rules.get((example.product, example.defect or ""))) if example.masks else example
        for example in examples
    ]


def _unknown(examples: Sequence[Example], settings: MaskConfig) -> list[str]:
    """Say so where `data.mask.values` names no type of the set; one more, of which there is no photograph, may be."""
    known = {example.defect for example in examples if example.defect is not None}
    named = settings.values if isinstance(settings.values, dict) else {}
    if not known or not named or known & set(named):
        return []
    return [f"data.mask.values: there is no defect type {name!r}{nearest(name, known)}" for name in named]


def _look_at_labels(examples: Sequence[Example], settings: MaskConfig, judgement: Judgement) -> None:
    """Read every label by its rule, and list what is doubtful about it."""
    large: dict[str, list[tuple[str, float]]] = defaultdict(list)
    labels: Counter[str] = Counter()
    stamps: dict[str, Stamps] = defaultdict(Stamps)  # of types as product/type, and of products
    bad = {name for name, _, _ in judgement.broken}
    turns: dict[str, dict[str, None]] = defaultdict(dict)  # each photograph once: it may have several masks
    for example in with_rules(examples, judgement.rules):
        if example.mask_rule is None or example.id in bad:
            continue
        try:
            photograph = images.describe(example.image).shape
        except DataError:
            continue  # said of the photograph
        if not _fits(example, photograph, turns, judgement):
            continue
        damage = read_label(example, photograph)
        if not damage.any():
            judgement.empty.append(example.id)
        labels[example.product] += 1
        for name in (f"{example.product}/{example.defect}", example.product):
            stamps[name].add(damage)
        if damage.all() and settings.inverted != "auto":
            judgement.warnings.append(f"{example.id}: the mask covers the whole picture; nothing of it is background")
        elif (share := float(damage.mean())) > _LARGE and settings.inverted is not False:
            large[example.product].append((example.id, share))
        elif _is_framed(damage):
            judgement.doubts.append(
                (example.id, "a line round the whole picture counts as damage; erase the frame from the mask")
            )
    for product, members in sorted(large.items()):
        if settings.inverted == "auto":
            _say_large(product, members, labels[product], judgement)
        elif 2 * len(members) > labels[product] and len(members) > 1:
            judgement.errors.append(
                f"{product}: data.mask.inverted = true makes more than half of the picture damage in {len(members)} of "
                f"{labels[product]} masks ({_names([name for name, _ in members])}), so they are not inverted; run it "
                "apart from the others, with data.products"
            )
    for name, one in sorted(stamps.items()):
        if area := one.area():
            judgement.warnings.append(
                f"{name}: the same {area} pixels are damage in all {one.count} masks; is a legend, a time or a logo "
                "drawn into them? Erase it, or name its colour in data.mask.ignore"
            )
    if ids := list(turns["turned"]):
        judgement.notes.append(f"{_names(ids)}: the mask is turned as its photograph's EXIF orientation says")
    if ids := list(turns["unsure"]):
        judgement.warnings.append(
            f"{_names(ids)}: only one of photograph and mask says by EXIF that it is turned, and sizes cannot tell "
            "whether the mask is too; look at the page that `flawsmith check` writes"
        )


def _fits(
    example: Example, photograph: tuple[int, int], turns: dict[str, dict[str, None]], judgement: Judgement
) -> bool:
    """Return whether the masks have the photograph's size; note which are turned to have it, and which perhaps are."""
    fits = True
    for path in example.masks:
        if (part := part_of(path)) is not None:
            try:
                part.drawn(example.image, photograph)
            except DataError as error:
                judgement.broken.append((example.id, path, _without(path, error)))
                fits = False
            continue
        stored = stored_mask(path)
        try:
            turn = turn_of(path, stored, example, photograph)
        except DataError as error:
            judgement.broken.append((example.id, path, _without(path, error)))
            fits = False
            continue
        photograph_turn = images.orientation(example.image)
        sizes_tell = max(photograph_turn, stored.orientation) >= ON_ITS_SIDE and photograph[0] != photograph[1]
        if turn != stored.orientation:
            turns["turned"][example.id] = None
        elif photograph_turn != stored.orientation and not sizes_tell:
            turns["unsure"][example.id] = None
    return fits


def _say_large(product: str, members: Sequence[tuple[str, float]], labels: int, judgement: Judgement) -> None:
    """Ask whether masks are inverted: an error when most of a product's are large, else a doubt about each."""
    if 2 * len(members) > labels and len(members) > 1:
        judgement.errors.append(
            f"{product}: {len(members)} of {labels} masks call more than half of the picture damaged "
            f"({_names([name for name, _ in members])}): inverted? Set {_INVERTED}, or {_AS_DRAWN} when it really is "
            "damage"
        )
        judgement.answers[judgement.errors[-1]] = (_INVERTED, _AS_DRAWN)
        return
    for name, share in members:
        covers = "the whole picture" if share == 1 else f"{100 * share:.0f} % of the picture"
        doubt = f"the mask calls {covers} damaged: inverted? Draw it again, or set {_AS_DRAWN} when it really is damage"
        judgement.doubts.append((name, doubt))
        judgement.answers[doubt] = (_AS_DRAWN,)


def _is_framed(damage: np.ndarray) -> bool:
    """Return whether the outermost pixels are damage all round, and most of those further in are not."""
    if min(damage.shape) < 9:
        return False
    rim, inner = damage.copy(), damage[3:-3, 3:-3]
    rim[1:-1, 1:-1] = True
    within = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    return bool(rim.all() and within.mean() < 0.5)


def _without(path: Path, error: DataError) -> str:
    """Return what an error says of a file, without the file's name."""
    return str(error).removeprefix(f"{path}: ")


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (f", ... ({len(ids)} in all)" if len(ids) > _SHOWN else "")
