"""Which real pictures are learned from, which are kept for the test, and the check that no picture is both.

The rule is the same on every machine and draws nothing at random: of each product and defect type, in natural order of
the ids, the first k are shots and the rest are test. Normal parts follow the folder layout's own split; where it has
none, every fifth is held out. A test picture that is also learned from makes every later number worthless. So pictures
are compared by what they show, not by what they are called: `duplicates` leave the test, `leaks` stop a run, and
`near_duplicates` finds second photographs of one piece.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.fingerprints import differing_bits, fingerprint, fingerprints_of, identities
from flawsmith.data.layouts import natural_key
from flawsmith.data.masks.reading import read_label
from flawsmith.errors import Answer, DataError
from flawsmith.types import Example

HELD_OUT = 5
"""One in so many normal parts is kept for the test where the layout has no split of its own."""
NEAR_BITS = 12
"""Bits, of 64, in which the difference hashes of near-duplicates differ at most; fewer where all parts look alike."""
NEAR_CHANCE = 0.02
"""A shot and a normal part are never near-duplicates: at most this share of such pairs may lie within the limit.
On magnetic-tile, whose tiles were photographed up to six times, 136 of 198 second photographs are found this way (12
more are named that the file numbers do not show); of 69 test screws, all different pieces, 5 are named: a warning."""
NEAR_NORMALS = 2000
"""Of more normal parts of a product than this, every second (third, ...) one tells how alike parts are by chance."""
NEAR_OVERLAP = 0.4
"""Least intersection over union of their masks, at 32 x 32 and widened by one cell: the damage is in the same place."""

_NAMED = 3
"""As many pictures are named in a note; the rest are counted."""


@dataclass(frozen=True)
class Split:
    """What is learned from and what is tested on; each in natural order of the ids."""

    shots: tuple[Example, ...]
    """Defects to learn from."""
    normals: tuple[Example, ...]
    """Normal parts to learn from and to paint on."""
    test_defects: tuple[Example, ...]
    test_normals: tuple[Example, ...]
    notes: tuple[str, ...] = ()
    """Where the rule had to bend, as sentences for the report."""

    def of(self, product: str) -> Split:
        """Return one product's part."""
        names = ("shots", "normals", "test_defects", "test_normals")
        return replace(self, **{name: tuple(e for e in getattr(self, name) if e.product == product) for name in names})


def keeps_test(config: Config) -> bool:
    """Return whether a run keeps damaged pictures for the test: it proves, or measures against them (the papers' way).

    `flawsmith prove` can be called without either; it then has the pictures that are no shots.
    """
    return config.prove.enabled or config.prove.protocol == "field"


def split(examples: Iterable[Example], *, shots: int | Literal["third"], test: bool = True) -> Split:
    """Divide a set by the house rule.

    Args:
        examples: As `layouts.scan` returns them; their order does not matter.
        shots: Shots per product and defect type, or "third" (the first floor(n/3), the papers'). Never more than half
            of a defect type, so that something is left to test on; of two or three all but one, of a single one that.
        test: False: nothing is tested, so as many are shots as `shots` says; "third" stays a third. See `keeps_test`.

    Raises:
        DataError: there is nothing to learn from, or nothing normal to paint on.
    """
    ordered = sorted(examples, key=lambda example: natural_key(example.id))
    defects: dict[tuple[str, str], list[Example]] = defaultdict(list)
    normal: dict[str, list[Example]] = defaultdict(list)
    for example in ordered:
        if example.defect is None:
            normal[example.product].append(example)
        else:
            defects[example.product, example.defect].append(example)
    if not defects and shots:
        without = 'make some without any: data.shots = 0, generator.name = "rendered"'
        raise DataError(f"no shots: the set holds no defects; add photographs of damage with their masks, or {without}")
    if not normal:
        raise DataError("no normal parts: there is nothing to paint defects on; add photographs of good parts")
    notes: list[str] = []
    learned: list[Example] = []
    tested: list[Example] = []
    for (product, defect), members in sorted(defects.items()):
        count, note = _shots_of(len(members), shots, test=test)
        if note:
            notes.append(f"{product}/{defect}: {note}")
        learned += members[:count]
        tested += members[count:]
    learned, tested, moved = _together(learned, tested)
    notes += moved
    normals, test_normals = list[Example](), list[Example]()
    for product, members in sorted(normal.items()):
        kept, held, note = _hold_out(members)
        if note:
            notes.append(f"{product}: {note}")
        normals += kept
        test_normals += held
    return Split(_in_order(learned), _in_order(normals), _in_order(tested), _in_order(test_normals), tuple(notes))


def duplicates(split: Split, decoded: Collection[str] | None = None) -> list[str]:
    """Return the ids of normal test pictures that are exact copies of normal parts to learn from, in natural order.

    Args:
        split: A whole set.
        decoded: Ids of the pictures that are compared by their pixels; the others by the bytes of their files. None =
            all by their pixels.
    """
    shown = _shown((*split.normals, *split.test_normals), decoded)
    learned = {shown[example.id] for example in split.normals}
    return [example.id for example in split.test_normals if shown[example.id] in learned]


def without_duplicates(split: Split, ids: Sequence[str]) -> Split:
    """Return the split without the test pictures of `duplicates`, with a note that counts and names them."""
    if not ids:
        return split
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    one = "1 normal test picture is the same picture as a normal part to learn from, so it is left out"
    many = f"{len(ids)} normal test pictures are the same pictures as normal parts to learn from, so they are left out"
    note = f"{one if len(ids) == 1 else many}: {', '.join(ids[:_NAMED])}{more}"
    gone = set(ids)
    kept = tuple(example for example in split.test_normals if example.id not in gone)
    return replace(split, test_normals=kept, notes=(*split.notes, note))


def leaks(split: Split, decoded: Collection[str] | None = None) -> list[str]:
    """Return a sentence per picture that stands where it may not; [] = clean. Callers raise.

    That is a test defect that is also a shot, or a picture that is filed both as normal and as a defect. Where there is
    one, two defects that are one picture on the same side are said as well: when a picture is removed, the division
    moves, and they may come to lie on both sides. `decoded` is that of `duplicates`.
    """
    shown = _shown((*split.normals, *split.test_normals, *split.shots, *split.test_defects), decoded)
    normal: dict[str, str] = {}
    for example in (*split.normals, *split.test_normals):
        normal.setdefault(shown[example.id], example.id)
    sentences, same_side = [], []
    shots: dict[str, Example] = {}
    tests: dict[str, Example] = {}
    for example in split.shots:
        if other := normal.get(shown[example.id]):
            sentences.append(f"the shot {example.id} is the same picture as the normal part {other}; remove one")
        if (first := shots.setdefault(shown[example.id], example)).image != example.image:
            same_side.append(f"the shot {example.id} is the same as the shot {first.id}; remove one")
    for example in split.test_defects:
        if shot := shots.get(shown[example.id]):
            sentences.append(f"the test picture {example.id} is the same as the shot {shot.id}; remove one")
        if other := normal.get(shown[example.id]):
            sentences.append(f"the test picture {example.id} is the same as the normal part {other}; remove one")
        if (first := tests.setdefault(shown[example.id], example)).image != example.image:
            same_side.append(f"the test picture {example.id} is the same as the test picture {first.id}; remove one")
    return sentences + same_side if sentences else []


def near_duplicates(split: Split) -> list[tuple[Example, Example]]:
    """Return (shot, test picture) for what seems to be the same damage of the same piece, photographed again.

    Near-duplicates are of one product and defect type, look more alike than different parts do (NEAR_BITS,
    NEAR_CHANCE), and have their damage in the same place (NEAR_OVERLAP).
    """
    normals: dict[str, list[Example]] = defaultdict(list)
    for example in split.normals:
        normals[example.product].append(example)
    for product, members in normals.items():
        normals[product] = members[:: -(-len(members) // NEAR_NORMALS)]
    chosen = [example for members in normals.values() for example in members]
    fingerprints_of([example.image for example in (*split.shots, *split.test_defects, *chosen)])
    pairs = []
    rows: dict[tuple[str, str | None], list[Example]] = defaultdict(list)
    columns: dict[tuple[str, str | None], list[Example]] = defaultdict(list)
    for table, group in ((rows, split.shots), (columns, split.test_defects)):
        for example in group:
            if not fingerprint(example.image).problem:  # what cannot be decoded would look like all else that cannot
                table[example.product, example.defect].append(example)
    masks: dict[str, np.ndarray | None] = {}
    for key, shots in rows.items():
        tests, normal = columns[key], normals[key[0]]
        by_chance = differing_bits(
            [shot.image for shot in split.shots if shot.product == key[0]], [one.image for one in normal]
        )
        limit = min(NEAR_BITS, int(np.quantile(by_chance, NEAR_CHANCE))) if by_chance.size else NEAR_BITS
        distances = differing_bits([shot.image for shot in shots], [test.image for test in tests])
        for shot, near in zip(shots, distances <= limit, strict=True):
            for index in np.flatnonzero(near):
                if _overlap(shot, tests[index], masks) >= NEAR_OVERLAP:
                    pairs.append((shot, tests[index]))
    return pairs


def near_duplicate_warnings(split: Split, pairs: Sequence[tuple[Example, Example]]) -> list[str]:
    """Return a warning per defect type that has `near_duplicates`, which were learned from: a proof leaves them out."""
    tests = {(example.product, example.defect): 0 for _, example in pairs}
    for example in split.test_defects:
        if (example.product, example.defect) in tests:
            tests[example.product, example.defect] += 1
    sentences = []
    for (product, defect), total in sorted(tests.items(), key=str):
        those = [(shot, test) for shot, test in pairs if (test.product, test.defect) == (product, defect)]
        count, (shot, test) = len({test.id for _, test in those}), those[0]
        sentences.append(
            f"{product}/{defect}: {count} of {total} test pictures seem to show the same damage as a shot, "
            f"photographed again (e.g. {test.id} and {shot.id}); the damage is learned from, so the proof leaves them "
            'out (unless prove.near_duplicates = "keep")'
        )
    return sentences


def without_near_duplicates(split: Split) -> Split:
    """Return the split without the test pictures of `near_duplicates`, with a note that counts them."""
    gone = {test.id for _, test in near_duplicates(split)}
    if not gone:
        return split
    note = f"{len(gone)} of {len(split.test_defects)} test defects were left out as second photographs of a shot"
    kept = tuple(example for example in split.test_defects if example.id not in gone)
    return replace(split, test_defects=kept, notes=(*split.notes, note))


def provable(split: Split, *, drop_near_duplicates: bool) -> Split:
    """Return one product's split with the test pictures on which something can be proven.

    Args:
        split: One product's pictures.
        drop_near_duplicates: Leave out what seems to be a second photograph of a shot.

    Raises:
        DataError: they lack normal or damaged ones.
    """
    kept = without_near_duplicates(split) if drop_near_duplicates else split
    if not kept.test_normals or not kept.test_defects:
        unproven = Answer("prove.enabled", False)
        raise DataError(
            f"{split.shots[0].product}: nothing can be proven, as the test set holds {len(kept.test_normals)} normal "
            f"and {len(kept.test_defects)} damaged pictures; add some, lower data.shots, or leave the proof out with "
            f"{unproven} (true keeps up to half of a defect type for the test)",
            answers=(unproven,),
        )
    return kept


def _shown(examples: Sequence[Example], decoded: Collection[str] | None) -> dict[str, str]:
    """Return {id: what is equal for equal pictures}; what cannot be decoded, which is reported elsewhere, is unique."""
    paths = [example.image for example in examples]
    if decoded is not None and len(decoded) < len(examples):
        chosen = {example.image for example in examples if example.id in decoded}
        return dict(zip((example.id for example in examples), identities(paths, chosen), strict=True))
    return {
        example.id: f"broken: {example.id}" if one.problem else one.pixels
        for example, one in zip(examples, fingerprints_of(paths), strict=True)
    }


def _shots_of(have: int, asked: int | Literal["third"], *, test: bool) -> tuple[int, str]:
    most = have // 2 if have >= 4 else max(1, have - 1)
    if not asked:
        return 0, ""
    want = max(1, have // 3) if asked == "third" else asked
    if not test and asked != "third":
        return min(want, have), "" if have > want else f"all {have} pictures are shots, for no proof is asked for"
    count = min(want, most)
    if have == 1:
        return 1, "its only picture is a shot, so nothing of this defect type is left to test on"
    if count < want:
        left = have - count
        return count, f"{count} of {have} pictures are shots, not {want}, so that {left} {_are(left)} left to test on"
    return count, ""


def _together(learned: list[Example], tested: list[Example]) -> tuple[list[Example], list[Example], list[str]]:
    """Keep a photograph that shows several defect types on one side: a shot of one type is a shot of all.

    Returns the shots, the test defects, and a note for each type that gets more shots so.
    """
    photographs = {example.image for example in learned}
    moved = [example for example in tested if example.image in photographs]
    kept = [example for example in tested if example.image not in photographs]
    more = Counter(f"{example.product}/{example.defect}" for example in moved)
    left = Counter(f"{example.product}/{example.defect}" for example in kept)
    notes = [
        f"{name}: {count} more of its pictures {_are(count)} shots, as another defect type on the same photograph is "
        f"learned from; {left[name]} {_are(left[name])} left to test on"
        for name, count in sorted(more.items())
    ]
    return [*learned, *moved], kept, notes


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _hold_out(members: Sequence[Example]) -> tuple[list[Example], list[Example], str]:
    """Divide one product's normal parts into those to learn from and those to test on."""
    test = [example for example in members if example.split == "test"]
    rest = [example for example in members if example.split != "test"]
    if test and rest:
        return rest, test, ""
    count = len(members) // HELD_OUT or min(1, len(members) - 1)
    if count == 0:
        return list(members), [], "its only normal part is learned from, so none is left to test on"
    places = {int((place + 0.5) * len(members) / count) for place in range(count)}
    held = [example for index, example in enumerate(members) if index in places]
    kept = [example for index, example in enumerate(members) if index not in places]
    if test or any(example.split for example in members):
        side = "test" if test else "train"
        return kept, held, f"all normal parts lie in {side}; {len(held)} of {len(members)} are held out for the test"
    return kept, held, ""


def _in_order(examples: Iterable[Example]) -> tuple[Example, ...]:
    return tuple(sorted(examples, key=lambda example: natural_key(example.id)))


def _overlap(left: Example, right: Example, masks: dict[str, np.ndarray | None]) -> float:
    """Return intersection over union of two masks, both at 32 x 32; 1 where one has no usable mask to object with."""
    for example in (left, right):
        if example.id not in masks:
            masks[example.id] = _small_mask(example)
    one, other = masks[left.id], masks[right.id]
    if one is None or other is None:
        return 1.0
    return float((one & other).sum() / max(1, (one | other).sum()))


def _small_mask(example: Example) -> np.ndarray | None:
    if not example.masks:
        return None
    try:
        mask = read_label(example, images.describe(example.image).shape)
    except DataError:
        return None
    small = cv2.resize(mask.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.dilate((small > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
