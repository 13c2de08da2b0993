"""Folds inside what may be learned from: shots and normal parts that are left out in turn, to judge by.

Photographs that seem to show the same damage of the same piece share a fold. If they did not, a detector that simply
remembers would look best: on magnetic-tile, whose tiles were photographed up to six times, `real-only` gains most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flawsmith.data.fingerprints import content_hash
from flawsmith.data.split import Split, near_duplicates
from flawsmith.types import Example

NORMALS = 40
"""Normal parts that are left out in a fold, at most."""


@dataclass(frozen=True, slots=True)
class Fold:
    """What is learned from, and what that is judged by."""

    number: int
    split: Split
    """`shots` and `normals` are learned from; `test_defects` and `test_normals` are the shots and normal parts that
    are left out. The run's own test pictures are in none of the four."""

    @property
    def judged(self) -> tuple[str, ...]:
        """Defect types of which there is a shot on both sides."""
        sides = ({str(one.defect) for one in side} for side in (self.split.shots, self.split.test_defects))
        return tuple(sorted(set.intersection(*sides)))


def folds_of(split: Split, count: int) -> list[Fold]:
    """Deal one product's shots and normal parts into folds; a fold that could judge no defect type is left out.

    Copies of one photograph share a fold, whatever they are called.

    Args:
        split: One product's pictures; its test pictures are not looked at.
        count: Folds, 2 or more. A defect type whose shots show fewer pieces is left out in as many folds.
    """
    place = _dealt(pieces(split), split.shots, count)
    contents = {normal.id: content_hash(normal.image) for normal in split.normals}
    shown = list(dict.fromkeys(contents.values()))
    step = max(count, len(shown) // NORMALS)
    folds = []
    for number in range(count):
        left_out = {shot.id for shot in split.shots if place[shot.id] == number}
        contents_out = set(shown[number::step])
        normals_out = {name for name, content in contents.items() if content in contents_out}
        made = Split(
            tuple(shot for shot in split.shots if shot.id not in left_out),
            tuple(normal for normal in split.normals if normal.id not in normals_out),
            tuple(shot for shot in split.shots if shot.id in left_out),
            tuple(normal for normal in split.normals if normal.id in normals_out),
        )
        fold = Fold(number, made)
        if fold.judged and made.normals and made.test_normals:
            folds.append(fold)
    return folds


def pieces(split: Split) -> dict[str, str]:
    """Return the id of each shot -> the first id of those that seem to show the same damage of the same piece.

    A photograph that shows several defect types is one piece.
    """
    of_photograph: dict[str, str] = {}
    first = {shot.id: of_photograph.setdefault(content_hash(shot.image), shot.id) for shot in split.shots}

    def root(name: str) -> str:
        while first[name] != name:
            name = first[name]
        return name

    for one, other in near_duplicates(replace(split, test_defects=split.shots)):
        ends = sorted((root(one.id), root(other.id)))
        first[ends[1]] = ends[0]
    return {shot.id: root(shot.id) for shot in split.shots}


def _dealt(piece_of: dict[str, str], shots: Sequence[Example], count: int) -> dict[str, int]:
    """Return the fold of each shot, -1 = it is never left out, for its type shows one piece alone.

    Each type's largest pieces come first; each goes to the fold that holds the fewest shots of its type, and of all.
    """
    place = {shot.id: -1 for shot in shots}
    total = [0] * count
    for defect in sorted({str(shot.defect) for shot in shots}):
        members: dict[str, list[str]] = defaultdict(list)
        for shot in shots:
            if shot.defect == defect:
                members[piece_of[shot.id]].append(shot.id)
        if len(members) < 2:
            continue
        held = [0] * count
        for piece in sorted(members, key=lambda name: -len(members[name])):
            number = place[piece]
            if number < 0:  # else it shows another type too, and was dealt with that one
                number = min(range(count), key=lambda one: (held[one], total[one]))
                place |= {name: number for name, one in piece_of.items() if one == piece}
            held[number] += len(members[piece])
            total[number] += len(members[piece])
    return place
