"""What people decided of a run's samples: review.jsonl, one line per decision, the last one of a sample holds.

Lines are only ever appended, so no decision is lost, whoever writes at the same time and whatever is killed. A decision
holds for the picture that was looked at: when a sample is made anew, its old decisions count no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from flawsmith.data import images
from flawsmith.data.codecs.metadata_reading import metadata_of
from flawsmith.errors import DataError, RunError, nearest
from flawsmith.files import append_lines, digest, file_digest, read_lines, reading
from flawsmith.locks import locked
from flawsmith.paths import confined
from flawsmith.run.manifest import now
from flawsmith.run.records import Repair, Sample, Verdict, repair_from

FILE, FOLDER = "review.jsonl", "reviewed"
"""The decisions, and the folder of masks that were drawn anew, each with its picture."""
Word = Literal["keep", "reject", ""]
"""keep = it stands whatever the gate says; reject = it does not; "" = as the gate says."""


@dataclass(frozen=True, slots=True)
class Review:
    """A person's decision on one sample."""

    sample: int
    """Its index."""
    content: str
    """Hash of its picture and its mask, as they were looked at."""
    word: Word
    defect: str = ""
    """The defect type that it is of; "" = the one that was intended."""
    repair: Repair | None = None
    """Its mask as somebody drew it anew, and the picture that goes with it; None = its own."""
    at: str = ""
    """When, in UTC."""

    def to_json(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        line = {"sample": self.sample, "content": self.content, "word": self.word, "at": self.at}
        if self.repair:
            line["repair"] = asdict(self.repair)
        return {**line, "defect": self.defect} if self.defect else line


def decide(folder: Path, sample: Sample, word: Word, defect: str = "", repair: Repair | None = None) -> Review:
    """Append a decision to a run's reviews.

    Args:
        folder: The run.
        sample: What was looked at.
        word: What is decided.
        defect: The type that it is of; "" = the intended one.
        repair: Its mask, drawn anew (`redrawn`); None = its own.

    Raises:
        RunError: the place cannot be written.
    """
    named = "" if defect == sample.defect else defect
    review = Review(sample.index, content_of(folder, sample), word, named, repair, now())
    with locked(folder / "state" / "review.lock"):
        append_lines(confined(folder, FILE), [review.to_json()])
    return review


def reviews(folder: Path, samples: Sequence[Sample]) -> dict[int, Review]:
    """Return the decision that holds for each sample, by index; samples that are as the gate says have none.

    Args:
        folder: The run.
        samples: All that were made.

    Raises:
        RunError: a line is none of ours, or names a defect type that the sample's product does not have.
    """
    path = confined(folder, FILE)
    rows = read_lines(path)
    if not rows:
        return {}
    with reading(path, "delete that line"):
        last = {review.sample: review for review in map(_read, rows)}
    types: dict[str, set[str]] = {}
    for sample in samples:
        types.setdefault(sample.product, set()).add(sample.defect)
    hold: dict[int, Review] = {}
    for sample in samples:
        review = last.get(sample.index)
        if (
            review is None
            or not (review.word or review.defect or review.repair)
            or review.content != content_of(folder, sample)
        ):
            continue
        if review.defect and review.defect not in types[sample.product]:
            known = nearest(review.defect, types[sample.product])
            raise RunError(f"{path}: sample {sample.index} is of no type {review.defect!r}{known}; delete that line")
        hold[sample.index] = review
    return hold


def content_of(folder: Path, sample: Sample) -> str:
    """Return the hash of a sample's picture and mask; of a file that is gone it is that of "absent"."""
    return digest([file_digest(confined(folder, name)) if name else "" for name in (sample.image, sample.mask)])


def standing(samples: Sequence[Sample], verdicts: Mapping[int, Verdict]) -> list[Sample]:
    """Return the samples that the gate kept; of a label that it repaired, the repaired files are named."""
    kept = []
    for sample in samples:
        verdict = verdicts.get(sample.index)
        if verdict is not None and verdict.kept:
            kept.append(_as_judged(sample, verdict))
    return kept


def reviewed(
    folder: Path, made: Sequence[Sample], kept: Sequence[Sample], verdicts: Mapping[int, Verdict] | None = None
) -> list[Sample]:
    """Return what stands when the people who looked have their say, by index.

    Args:
        folder: The run.
        made: All samples that were made.
        kept: Those that stand without a review.
        verdicts: The gate's, by index; None = it judged nothing.
    """
    hold = reviews(folder, made)
    if not hold:
        return list(kept)
    by_index = {sample.index: sample for sample in kept}
    for sample in made:
        review = hold.get(sample.index)
        if review is None:
            continue
        if review.word == "reject":
            by_index.pop(sample.index, None)
        elif review.word == "keep" and confined(folder, sample.image).is_file():  # a deleted one cannot stand
            # With the label that was shown, also where the gate repaired it and rejected the sample all the same.
            by_index.setdefault(sample.index, _as_judged(sample, (verdicts or {}).get(sample.index)))
        if stands := by_index.get(sample.index):
            by_index[sample.index] = applied(review, stands)
    return [by_index[index] for index in sorted(by_index)]


def _as_judged(sample: Sample, verdict: Verdict | None) -> Sample:
    """Return a sample with the label that the gate gave it."""
    return replace(sample, **asdict(verdict.repair)) if verdict and verdict.repair else sample


def applied(review: Review, sample: Sample) -> Sample:
    """Return a sample with the defect type and the mask that a person gave it."""
    if review.defect:
        sample = replace(sample, defect=review.defect)
    if review.repair:
        sample = replace(sample, **asdict(review.repair))
    return sample


def redrawn(folder: Path, sample: Sample, mask: np.ndarray, photograph: Path) -> Repair:
    """Write a sample with a mask that was drawn anew; what lies outside is given back to the photograph.

    Args:
        folder: The run.
        sample: The sample as it was made.
        mask: bool (H,W), of its size.
        photograph: What it was painted on.

    Raises:
        DataError: the mask is empty or of another size, or the photograph does not fit any more.
        RunError: the place cannot be written.
    """
    picture, normal = images.read(confined(folder, sample.image)), images.read(photograph)
    if normal.shape != picture.shape or normal.dtype != picture.dtype:
        raise DataError(f"{photograph}: has changed since sample {sample.index} was painted on it; make it anew")
    if mask.shape != picture.shape[:2]:
        raise DataError(f"mask: {images.other_size(mask.shape, picture.shape)}")
    if not mask.any():
        raise DataError("the mask is empty; reject the sample where nothing of it is damage")
    if sample.paint != "whole":  # such a picture is synthetic throughout its window, in the mask and out of it
        picture[~mask] = normal[~mask]
    name = f"{FOLDER}/{sample.index:06d}-{digest(content_of(folder, sample), mask.tobytes().hex())[:8]}"
    repair = Repair(name + Path(sample.image).suffix, f"{name}.mask.png", int(mask.sum()))
    metadata = images.with_reasons(confined(folder, sample.image), metadata_of)
    images.write(confined(folder, repair.image), picture, metadata)
    images.write_mask(confined(folder, repair.mask), mask)
    hashes = [file_digest(confined(folder, file)) for file in (repair.image, repair.mask)]
    return replace(repair, image_hash=hashes[0], mask_hash=hashes[1])


def with_reviews(folder: Path, made: Callable[[], Sequence[Sample]], stamp: str | None) -> str | None:
    """Return what identifies the samples that stand: the stamp itself where nobody decided anything.

    Then `made` is not called: of a large run, reading all lines takes a while.
    """
    hold = reviews(folder, made()) if stamp and confined(folder, FILE).exists() else {}
    decided = [
        [index, review.word, review.defect, *([review.repair.mask] if review.repair else [])]
        for index, review in sorted(hold.items())
    ]
    return digest(stamp, decided) if decided else stamp


def _read(row: Any) -> Review:
    word, defect, at = row["word"], row.get("defect", ""), row.get("at", "")
    if word not in get_args(Word) or not all(isinstance(text, str) for text in (row["content"], defect, at)):
        raise ValueError(f"{word!r} is no decision")
    if not isinstance(row["sample"], int) or isinstance(row["sample"], bool):
        raise TypeError(f"{row['sample']!r} is no sample's number")
    repair = row.get("repair")
    return Review(row["sample"], row["content"], word, defect, repair_from(repair) if repair else None, at)
