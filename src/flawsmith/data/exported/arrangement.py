"""What goes out: a record for each picture, with a name of its own, for training or for validation.

A photograph is on one side with all that was painted on it: else a detector would be validated on backgrounds that it
has learned. Real shots are for training, because the samples were made from them; held-out normal parts are for
validation.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from flawsmith.config import Settings, nfc
from flawsmith.data import images
from flawsmith.data.exported.names import folder_names
from flawsmith.data.exported.pictures import Depth, ranges_of, suffix_of, write_picture
from flawsmith.data.masks.reading import read_label
from flawsmith.errors import DataError
from flawsmith.files import digest
from flawsmith.types import Advance, Example, Range

Side = Literal["train", "val"]
T = TypeVar("T")


class DividedSettings(Settings):
    """What every export can be told that divides its pictures into training and validation."""

    bits: Depth = "8"
    """Depth of the pictures: "8" (deeper ones of a product on one scale), or "native" as the photograph has it."""
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Share of the samples of each type for validation, by photograph; 0 = none (held-out normal parts stay there)."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One picture that goes out, with all that is known to be damaged on it."""

    image: Path
    """Where it lies now."""
    id: str
    product: str
    damaged: tuple[Example, ...]
    """Itself once for each of its defect types; () = a normal part."""
    photograph: str
    """Id of the photograph that it is, or was painted on."""
    made: bool
    """Whether it was painted."""
    side: Side
    name: str = ""
    """A file name without a suffix that no other picture has: `screw-scratch-0003`."""
    span: Range | None = None

    def provenance(self, how: str) -> dict[str, Any]:
        """Return where it came from, in words for the export's own tables; `how` is what `write_picture` said."""
        origin = "made" if self.made else "real"
        return {"product": self.product, "origin": origin, "source": self.id, "photograph": self.photograph, "how": how}


@dataclass(frozen=True, slots=True)
class Written:
    """A picture as it was written."""

    of: Outgoing
    file: Path
    shape: tuple[int, int]
    labels: dict[str, np.ndarray]
    """Defect type -> its damage, bool (H,W), never empty."""
    how: str


def arranged(examples: Sequence[Example], validation: float) -> list[Outgoing]:
    """Return every picture once, named and divided, in the order of the examples.

    Args:
        examples: As an exporter gets them.
        validation: Share of each defect type's samples that is for validation.

    Raises:
        DataError: there is nothing, or a damaged picture has no mask.
    """
    if not examples:
        raise DataError("nothing to export: there are neither normal parts nor defects")
    types: dict[Path, list[Example]] = defaultdict(list)
    for example in examples:
        if example.defect is not None and not example.masks:
            raise DataError(f"{example.image}: a defect without a mask cannot be exported; draw one, or leave it out")
        types[example.image].append(example)
    pictures = [
        Outgoing(
            image,
            members[0].id,
            members[0].product,
            tuple(one for one in members if one.defect is not None),
            members[0].painted_on or members[0].id,
            bool(members[0].painted_on),
            "val" if members[0].defect is None and members[0].split == "test" else "train",
            span=members[0].span,
        )
        for image, members in types.items()
    ]
    chosen = _for_validation(pictures, validation)
    return _named([replace(one, side="val") if one.photograph in chosen else one for one in pictures])


def _for_validation(pictures: Sequence[Outgoing], share: float) -> set[str]:
    """Return the photographs that are for validation because enough samples were painted on them.

    Photographs come in an order drawn from their ids, since neighbours in a folder may show one lot. Of a defect type
    with two samples or more at least one is for validation, and at least one is not.
    """
    painted: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for picture in pictures:
        if picture.made:
            painted[picture.photograph].update((one.product, one.defect or "") for one in picture.damaged)
    total: Counter[tuple[str, str]] = Counter()
    for counts in painted.values():
        total += counts
    left = {name: min(max(round(share * n), 1), n - 1) if share and n > 1 else 0 for name, n in total.items()}
    stay = dict(total)
    chosen: set[str] = set()
    for photograph in sorted(painted, key=digest):
        counts = painted[photograph]
        if any(left[name] > 0 for name in counts) and all(stay[name] > count for name, count in counts.items()):
            chosen.add(photograph)
            for name, count in counts.items():
                left[name] -= count
                stay[name] -= count
    return chosen


def _named(pictures: Sequence[Outgoing]) -> list[Outgoing]:
    """Give every picture a name: its product, its defect type, and a number among those of the same."""
    products = folder_names((one.product for one in pictures), [])
    defects = folder_names((_type(one) for one in pictures if one.damaged), ["normal"])
    of: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(pictures):
        stem = f"{products[one.product]}-{defects[_type(one)] if one.damaged else 'normal'}"
        of[stem.replace(".", "_")].append(number)  # WebDataset ends a key at the first dot
    names: dict[int, str] = {}
    for stem, numbers in of.items():
        digits = max(4, len(str(len(numbers) - 1)))
        names |= {number: f"{stem}-{place:0{digits}d}" for place, number in enumerate(numbers)}
    taken = Counter(name.lower() for name in names.values())
    # "a-b" with type "c" and "a" with type "b-c" give one name; the picture's number tells them apart.
    return [
        replace(one, name=names[number] if taken[names[number].lower()] == 1 else f"{names[number]}-p{number}")
        for number, one in enumerate(pictures)
    ]


def _type(picture: Outgoing) -> str:
    return "+".join(nfc(one.defect or "") for one in picture.damaged)


def write_pictures(
    pictures: Sequence[Outgoing],
    examples: Sequence[Example],
    bits: Depth,
    place: Callable[[Outgoing], Path],
    work: Callable[[Written], T],
    advance: Advance,
) -> Iterator[T]:
    """Write every picture, and yield in their order what `work` makes of each.

    Args:
        pictures: As `arranged` returns them.
        examples: What they were arranged from; each is counted by `advance` once.
        bits: Depth of the files.
        place: Path of a picture's file, without its suffix.
        work: Called with each written picture, from several threads.
        advance: As an exporter gets it.

    Raises:
        DataError: a picture cannot be read, or a mask is empty.
    """
    spans = ranges_of(examples) if bits == "8" else {}
    counts = Counter(example.image for example in examples)

    def one(picture: Outgoing) -> T:
        facts = images.describe(picture.image)
        target = place(picture)
        target = target.with_name(target.name + suffix_of(facts, bits))
        how = write_picture(picture.image, target, facts, spans.get(picture.product), bits)
        return work(Written(picture, target, facts.shape, labels_of(picture, facts.shape), how))

    # Codecs leave Python's lock; a picture may be large and pictures many, so only a few are held at once.
    threads = min(4, os.cpu_count() or 1)
    waiting: deque[tuple[Outgoing, Future[T]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for picture in pictures:
            waiting.append((picture, pool.submit(one, picture)))
            if len(waiting) > 2 * threads:
                yield _taken(waiting, counts, advance)
        while waiting:
            yield _taken(waiting, counts, advance)
    finally:
        pool.shutdown(cancel_futures=True)


def _taken(waiting: deque[tuple[Outgoing, Future[T]]], counts: Counter[Path], advance: Advance) -> T:
    picture, made = waiting.popleft()
    result = made.result()
    advance(counts[picture.image])
    return result


def labels_of(picture: Outgoing, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the damage of each defect type on a picture: bool (H,W), never empty.

    Raises:
        DataError: a mask is empty, or as `read_label`.
    """
    labels: dict[str, np.ndarray] = {}
    for example in picture.damaged:
        mask = read_label(example, shape)
        if not mask.any():
            raise DataError(f"{example.masks[0]}: the mask is empty, so {example.image} is no defect; leave it out")
        name = example.defect or ""
        labels[name] = labels[name] | mask if name in labels else mask
    return labels


def defect_types(pictures: Sequence[Outgoing]) -> list[str]:
    """Return the defect types of all pictures, sorted; their places are the numbers of the classes."""
    return sorted({one.defect or "" for picture in pictures for one in picture.damaged})


def counted(pictures: Sequence[Outgoing]) -> dict[str, int]:
    """Return the pictures of each side, for the report: {"train": 80, "val": 20}."""
    return dict(sorted(Counter(picture.side for picture in pictures).items()))
