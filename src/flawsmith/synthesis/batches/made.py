"""What a run has made of its plan: lines and files on disk, read one line at a time; and how a sample is written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from flawsmith.data import images
from flawsmith.data.codecs.metadata_reading import metadata_of
from flawsmith.data.photographs import Photographs
from flawsmith.files import file_digest, mend_lines
from flawsmith.run.folder import FOLDER, Run
from flawsmith.run.records import PlanLine, Role, Sample, each_record, read_records, write_records
from flawsmith.run.shard import Shard
from flawsmith.synthesis.paint import PaintedLine


@dataclass(frozen=True, slots=True)
class Tally:
    """How many lines of samples or controls there are, each index once."""

    lines: int
    made: int
    """Those with a picture; the others were given up."""


def lines_file(run: Run, role: Role, shard: Shard) -> Path:
    """Return the file that a shard's lines go to."""
    return run.path(f"{FOLDER[role]}.{shard.name}.jsonl" if shard.name else f"{FOLDER[role]}.jsonl")


def each_row(run: Run, role: Role) -> Iterator[Sample]:
    """Yield what became of every sample or control tried so far, of all shards, file after file."""
    for path in run.line_files(role):
        yield from each_record(path, Sample)


def tally(run: Run, role: Role, total: int) -> Tally:
    """Count the lines with an index below `total`."""
    state = bytearray(total)
    for row in each_row(run, role):
        if row.index < total:
            state[row.index] = 2 if row.made else 1
    return Tally(total - state.count(0), state.count(2))


def there(run: Run, role: Role, total: int) -> bytearray:
    """Return 1 for each index below `total` whose line and files are on disk, from whichever shard."""
    state = bytearray(total)
    for row in each_row(run, role):
        if row.index < total and is_there(run, row):
            state[row.index] = 1
    return state


def is_there(run: Run, row: Sample) -> bool:
    """Return whether a line's files are on disk; one that was given up has none."""
    if not row.made:
        return True
    # To look each name up link by link takes longer than to look for the file; these lead nowhere else.
    if re.fullmatch(rf"{FOLDER[row.role]}/{row.index:06d}\.(png|tif)", row.image):
        return all(os.path.isfile(f"{run.folder}/{name}") for name in (row.image, row.mask))
    return run.path(row.image).is_file() and run.path(row.mask).is_file()


def whole_batches(run: Run, path: Path, batches: Iterable[list[PlanLine]], state: bytearray) -> bytearray:
    """Return 1 for each index whose batch is there as a whole; drop our lines of all others.

    Args:
        run: The run.
        path: Our file of lines.
        batches: Our batches.
        state: See `there`.
    """
    mend_lines(path)
    whole = bytearray(len(state))
    if any(state):
        for batch in batches:
            if all(state[line.index] for line in batch):
                for line in batch:
                    whole[line.index] = 1
    keep_lines(path, lambda row: row.index < len(whole) and bool(whole[row.index]))
    return whole


def keep_lines(path: Path, keeps: Callable[[Sample], bool]) -> list[int]:
    """Drop the lines of a file that are not to be kept; return their indices."""
    gone = [row.index for row in each_record(path, Sample) if not keeps(row)]
    if gone:
        write_records(path, (row for row in each_record(path, Sample) if keeps(row)))
    return gone


def drop_beyond(run: Run, paths: Iterable[Path], total: int) -> None:
    """Drop the samples of rounds that no longer hold, lines and pictures."""
    for path in paths:
        run.remove_pictures("sample", keep_lines(path, lambda row: row.index < total))


def sort_lines(path: Path) -> None:
    """Put lines in the order of the plan: a batch that was made again in the middle stands at the end."""
    if any(after.index < before.index for before, after in pairwise(each_record(path, Sample))):
        rows = read_records(path, Sample)
        rows.sort(key=lambda row: row.index)
        write_records(path, rows)


def clear(run: Run, role: Role) -> None:
    """Delete all lines and pictures of samples or controls."""
    run.remove_all_pictures(role)
    for lines in run.line_files(role):
        lines.unlink()


def write_sample(run: Run, photographs: Photographs, painted: PaintedLine) -> Sample:
    """Write a sample's picture and mask, and return its line with the names of the files.

    Args:
        run: The run.
        photographs: Those that may be painted on: the picture keeps its profile, resolution and EXIF block.
        painted: What was made.
    """
    sample = painted.sample
    if painted.picture is None or painted.mask is None:
        return sample
    suffix = images.lossless_suffix(painted.picture)
    name = f"{FOLDER[sample.role]}/{sample.index:06d}"
    image, mask = f"{name}{suffix}", f"{name}.mask.png"
    metadata = images.with_reasons(photographs.normals[sample.normal].image, metadata_of)
    images.write(run.path(image), painted.picture, metadata)
    images.write_mask(run.path(mask), painted.mask)
    image_hash, mask_hash = file_digest(run.path(image)), file_digest(run.path(mask))
    return replace(sample, image=image, mask=mask, image_hash=image_hash, mask_hash=mask_hash)
