"""What a layout makes of the files below the root: the record that every layout returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flawsmith.data.layouts.mask_names import Matches
from flawsmith.data.layouts.tree import Tree
from flawsmith.types import Example

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files, or rows of a table, that are left out for one reason."""

    reason: str
    """Why, as what stands behind "3 pictures are left out:"."""
    names: tuple[str, ...]
    """Ids of the files; for rows, what each says."""
    severity: Severity
    remedy: str = ""
    """What would be right; a sentence's second half."""
    noun: str = "picture"
    """What one of them is called; rows of a table are not counted as files."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a layout makes of the files below the root."""

    examples: tuple[Example, ...]
    normal_masks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Photograph of a normal part -> masks that lie where a defect's would: they should mark nothing."""
    tables: tuple[str, ...] = ()
    """Tables that were read."""
    of_the_absent: frozenset[str] = frozenset()
    """Masks of photographs that `data.exclude` leaves out, or that are links to nothing."""
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
    """What was read in a way that a user may not have meant, as sentences."""


class Gathering:
    """What a layout has read so far.

    Args:
        tree: The files below the root.
        labels: How masks should be named; a sentence's second half.
    """

    def __init__(self, tree: Tree, labels: str) -> None:
        self._tree, self._labels = tree, labels
        self.examples: dict[str, Example] = {}
        self.normal_masks: dict[str, tuple[str, ...]] = {}
        self.tables: list[str] = []
        self.of_the_absent: set[str] = set()
        self.left_out: list[LeftOut] = []
        self.warnings: list[str] = []

    def take(self, file: str, masks: Iterable[str], product: str, defect: str | None, split: str = "") -> None:
        """Take in a photograph with its masks; `defect` None = a normal part. One that is not to be read stays out."""
        tree, label = self._tree, self._tree.here(masks)
        if file in tree.gone:
            self.of_the_absent.update(label)
            return
        if defect is None and label:
            self.normal_masks[file] = label
        paths = () if defect is None else tuple(map(tree.path, label))
        self.examples[file] = Example(file, tree.path(file), product, defect, paths, split)

    def take_marked(self, file: str, masks: Sequence[tuple[str, Path]], product: str, split: str = "") -> None:
        """Take in a photograph once for each mask, (defect type, mask); [] = a normal part.

        Where there are several, an example's id is the photograph's with its type behind, and a number where the type
        has several: `line1/7.png#scratch`, `line1/7.png#scratch#2`.
        """
        if file in self._tree.gone:
            return
        image = self._tree.path(file)
        if not masks:
            self.examples[file] = Example(file, image, product, None, (), split)
        total, number = Counter(defect for defect, _ in masks), Counter[str]()
        for defect, mask in masks:
            number[defect] += 1
            name = file if len(masks) == 1 else f"{file}#{defect}"
            name += f"#{number[defect]}" if total[defect] > 1 else ""
            self.examples[name] = Example(name, image, product, defect, (mask,), split)

    def leave_out(
        self, reason: str, names: Iterable[str], severity: Severity, remedy: str, noun: str = "picture"
    ) -> None:
        """Leave out files, or rows of a table, for one reason; see `LeftOut`."""
        self.left_out.append(LeftOut(reason, tuple(names), severity, remedy, noun))

    def leave(self, matches: Matches) -> None:
        """Leave out the masks whose photograph cannot be told."""
        orphaned = self._tree.here(matches.orphans)
        self.left_out += [*orphans(orphaned, self._labels), *unclear(self._tree, matches)]

    def reading(self) -> Reading:
        """Return all of it."""
        return Reading(
            tuple(self.examples.values()),
            self.normal_masks,
            tuple(self.tables),
            frozenset(self.of_the_absent),
            tuple(self.left_out),
            tuple(self.warnings),
        )


def orphans(masks: Iterable[str], remedy: str) -> tuple[LeftOut, ...]:
    """Return masks of no photograph as what is left out; () when there is none."""
    names = tuple(masks)
    return (LeftOut("no photograph has such a name", names, "error", remedy, "mask"),) if names else ()


def unclear(tree: Tree, matches: Matches) -> tuple[LeftOut, ...]:
    """Return files of which only one can be the mask of a photograph, a record for each photograph, and masks that may
    belong to several photographs."""
    names = tree.here(matches.of_several)
    remedy = "give each a name that one photograph alone has, or name the other photographs in data.exclude"
    return (
        *(
            LeftOut(f"each could be the mask of {photograph}", files, "error", "keep one of them")
            for photograph, masks in matches.unclear.items()
            if photograph not in tree.gone and len(files := tree.here(masks)) > 1
        ),
        *([LeftOut("more than one photograph has such a name", names, "error", remedy, "mask")] if names else []),
    )
