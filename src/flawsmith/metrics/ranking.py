"""How well scores rank defects above normal pixels or pictures: exact, streaming, without torch.

    ranking = Ranking(regions=True)
    for scores, mask in pictures:            # float32 (H,W), bool (H,W)
        ranking.add(scores, mask)
    found = ranking.result()                 # auroc, ap, f1_max, threshold
    found.aupro(0.3)

No thresholds are sampled. Between two neighbouring scores of defects no curve bends, so it is enough to know how many
normal scores lie above each distinct defect score: the normal ones are sorted once, as integers, and searched. Sums are
sums of integers too, so neither the order of adding nor the way over the disk (`spill`) changes a bit.
"""

from __future__ import annotations

import bisect
import errno
import tempfile
import weakref
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flawsmith.errors import ConfigError, DataError, RunError, nearest

_ONE = 2.0**62
"""1 as a fixed-point number: sums of shares as such integers stay below 2**63 and do not depend on their order."""
_CHUNK = 1 << 18
"""Defect scores that are looked up together: their neighbourhood among the normal ones fits a cache."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """What `Ranking.result` found. A score at or above a threshold is called a defect."""

    auroc: float
    """Area under the ROC curve; a defect and a normal score that tie count half (the trapezoid)."""
    ap: float
    """Average precision: sum over distinct thresholds of (recall gained) x (precision there), not interpolated."""
    f1_max: float
    """The best F1 over all distinct thresholds."""
    threshold: float
    """The threshold of `f1_max`; the highest one where several are best."""
    positives: int
    negatives: int
    """Defect scores, normal scores."""
    regions: int
    """8-connected regions of defect; 0 = they were not asked for."""
    _curve: list[np.ndarray] = field(repr=False, compare=False)
    """Rows (normal scores above, normal scores at or above, mean overlap in 1/_ONE), a row a distinct defect score."""

    def aupro(self, limit: float = 0.3) -> float:
        """Return the area under the per-region-overlap curve up to a false-positive rate, divided by that rate.

        At a threshold, x is the share of normal pixels at or above it and y the mean over regions of the share of the
        region's pixels at or above it; the pixels of all pictures share one curve (Bergmann et al., "The MVTec Anomaly
        Detection Dataset", IJCV 2021). The curve starts at (0, 0), the threshold above all scores, has a vertex at
        every distinct score, is straight between vertices, and is cut at `limit` by linear interpolation.

        Raises:
            ConfigError: `limit` is not in (0, 1], or the ranking was made without regions.
        """
        if not 0 < limit <= 1:
            raise ConfigError(f"aupro: limit = {limit} is no false-positive rate; give one above 0 and at most 1")
        if not self.regions:
            raise ConfigError("aupro: regions were not gathered; make the ranking with Ranking(regions=True)")
        end = limit * self.negatives
        area, last_x, last_y = 0.0, 0.0, 0.0
        for part in self._curve:
            rows = part.reshape(-1, 3)
            # Level up to the normal scores above a defect score, then slanted across those that tie with it.
            x = np.r_[last_x, rows[:, :2].ravel()]
            y = np.r_[last_y, rows[:, 2] / _ONE].repeat(2)[:-1]
            width, inside = np.diff(x), np.diff(np.minimum(x, end))
            area += float((inside * (y[:-1] + np.diff(y) * inside / np.maximum(width, 1) / 2)).sum())
            last_x, last_y = float(x[-1]), float(y[-1])
        return (area + max(end - last_x, 0.0) * last_y) / end

    def figures(self) -> dict[str, float]:
        """Return auroc, ap, f1_max and threshold by name, and aupro (to 0.3) where regions were gathered."""
        found = {name: float(getattr(self, name)) for name in ("auroc", "ap", "f1_max", "threshold")}
        return found | ({"aupro": self.aupro()} if self.regions else {})


class Ranking:
    """Gathers scores picture by picture and ranks them exactly.

    Float32 scores take 4 bytes a normal and 8 a defect one. With `spill` they go to a folder whenever `memory` bytes of
    them have gathered, sorted, in files without a name that vanish with this object even if the process is killed.
    Float16 scores are only counted: constant memory.

    Args:
        regions: Find the 8-connected regions of every mask, for `Ranked.aupro`.
        spill: Folder that exists, on a disk, for more scores than fit into memory; None = memory alone.
        memory: With `spill`, bytes of scores to gather before they are written; give half of what can be spared.
    """

    def __init__(self, *, regions: bool = False, spill: str | Path | None = None, memory: int = 1 << 30) -> None:
        if spill is not None and not Path(spill).is_dir():
            raise ConfigError(f"Ranking: spill = {str(spill)!r} is not a folder; name one that exists, on a disk")
        self._regions, self._spill, self._memory = regions, spill, memory
        self._found = self._positives = self._negatives = self._bytes = 0
        self._dtype: np.dtype | None = None
        self._held: tuple[list[np.ndarray], list[np.ndarray]] = [], []
        self._shelves = _Shelf(np.uint32, spill), _Shelf(np.uint64, spill)
        # Of float16 scores, by key: normal, defects, and the defects' shares of their regions in two limbs of 31 bits.
        self._counts = np.zeros((4, 1 << 16), np.int64)

    def add(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Add one picture's scores, or any array of scores.

        Args:
            scores: Float16 or float32, any shape, higher = more of a defect; infinities are scores like others, -0
                equals 0. Other numbers are taken where float32 holds them exactly.
            labels: Bool or integers of the same shape; not 0 = defect. With regions the last two axes are a picture.

        Raises:
            DataError: the shapes differ; a score is NaN or has more digits than float32; labels are fractions; there is
                no score; float16 and float32 are mixed.
            RunError: the spill folder is full or cannot be written; these scores are kept, do not add them again.
        """
        scores, labels = _checked(np.asarray(scores), np.asarray(labels), self._regions)
        if self._dtype not in (None, scores.dtype):
            raise DataError(f"Ranking: {scores.dtype} scores after {self._dtype} ones; give all pictures as one type")
        keys, flat = _keys(scores.ravel()), labels.ravel()
        self._dtype = scores.dtype
        areas = self._areas(labels)
        hit, rest = keys[flat], keys[~flat]
        self._positives += len(hit)
        self._negatives += len(rest)
        if scores.dtype == np.float16:
            self._counts[0] += np.bincount(rest, minlength=1 << 16)
            self._counts[1] += np.bincount(hit, minlength=1 << 16)
            if self._regions:
                share = np.rint(_ONE / areas).astype(np.int64)
                np.add.at(self._counts[2], hit, share >> 31)
                np.add.at(self._counts[3], hit, share & 0x7FFFFFFF)
            return
        self._held[0].append(rest)
        self._held[1].append(hit.astype(np.uint64) << np.uint64(32) | areas.astype(np.uint64))
        self._bytes += 4 * len(rest) + 8 * len(hit)
        if self._spill is not None and self._bytes >= self._memory:
            self._sort_held()

    def result(self) -> Ranked:
        """Return the figures of all that was added so far; more may be added afterwards.

        Raises:
            DataError: there is no defect or no normal score among them.
            RunError: the spill folder is full or cannot be written.
        """
        positives, negatives = self._positives, self._negatives
        if not positives or not negatives:
            missing, total = "normal" if positives else "defect", positives + negatives
            raise DataError(f"Ranking: none of {total} scores is labelled {missing}; add some, a ranking needs both")
        won, ap, best, threshold, hits, overlap = 0, 0, -1.0, 0.0, 0, 0
        curve = _Shelf(np.int64, self._spill)
        for keys, gained, share, above, reached in self._steps():
            lost = 2 * negatives - above - reached
            won += (int(gained @ (lost >> 32)) << 32) + int(gained @ (lost & 0xFFFFFFFF))  # in one it may pass 63 bits
            right = hits + np.cumsum(gained)
            hits = int(right[-1])
            ap += int(np.rint(right / (right + reached) * gained * (_ONE / positives)).astype(np.int64).sum())
            f1 = 2 * right / (right + reached + positives)
            at = int(f1.argmax())
            if f1[at] > best:
                best, threshold = float(f1[at]), _score(keys[at])
            if self._regions:
                share = overlap + np.cumsum(share)
                overlap = int(share[-1])
                curve.put(np.stack([above, reached, share], axis=1).ravel())
        figures = won / (2 * positives * negatives), ap / int(_ONE), best, threshold
        return Ranked(*figures, positives, negatives, self._found, curve.parts())

    def _areas(self, labels: np.ndarray) -> np.ndarray:
        """Return the area of its region for each defect pixel, in reading order; 0 without regions."""
        found = [np.zeros(0 if self._regions else np.count_nonzero(labels), np.int64)]
        for mask in labels.reshape(-1, *labels.shape[-2:]) if self._regions else ():
            if mask.any():
                count, region = cv2.connectedComponents(mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
                inside = region[mask]
                found.append(np.bincount(inside)[inside])
                self._found += count - 1
        return np.concatenate(found)

    def _sort_held(self) -> None:
        """Sort what was gathered since the last time into one more run."""
        for held, shelf in zip(self._held, self._shelves, strict=True):
            run: np.ndarray = np.concatenate([np.empty(0, shelf.defect), *held])
            held[:] = [run]  # a full disk loses nothing
            run.sort()
            if len(run):
                shelf.put(run)
            held.clear()
        self._bytes = 0

    def _steps(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield distinct defect keys, falling, with their count, share of regions, normal scores above, at or above."""
        if self._dtype == np.float16:
            normal, defect, upper, lower = self._counts
            keys = np.flatnonzero(defect)[::-1]
            reached = normal[::-1].cumsum()[::-1]
            shares = ((upper[keys].astype(object) << 31) + lower[keys]) // max(self._found, 1)
            yield keys.astype(np.uint16), defect[keys], shares.astype(np.int64), (reached - normal)[keys], reached[keys]
            return
        self._sort_held()
        normals, defects = (shelf.parts() for shelf in self._shelves)
        ends = [len(run) for run in defects]
        while any(ends):
            starts = _starts(defects, ends)
            packed = np.concatenate([run[a:b] for run, a, b in zip(defects, starts, ends, strict=True)])
            packed.sort()
            ends = starts
            keys = (packed >> np.uint64(32)).astype(np.uint32)
            first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
            share = gained = np.diff(first, append=len(keys))
            if self._regions:
                areas = (packed & np.uint64(0xFFFFFFFF)).astype(np.float64)
                share = np.add.reduceat(np.rint(_ONE / (areas * self._found)).astype(np.int64), first)
            below, upto = _ranks(normals, keys[first])
            columns = keys[first], gained, share, self._negatives - upto, self._negatives - below
            yield tuple(column[::-1] for column in columns)


class _Shelf:
    """Arrays of one type, in memory or one behind another in a nameless file."""

    def __init__(self, defect: type, folder: str | Path | None) -> None:
        self.defect, self._folder = defect, folder
        self._parts: list[np.ndarray] = []
        self._sizes: list[int] = []
        self._file: Any = None

    def put(self, part: np.ndarray) -> None:
        if self._folder is None:
            return self._parts.append(part)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
                weakref.finalize(self, self._file.close)
            self._file.seek(sum(self._sizes) * part.itemsize)
            rest = part.view(np.uint8).data
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            why = "the disk is full; free some space" if full else f"cannot be written ({error.strerror}); allow it"
            raise RunError(f"{self._folder}: {why}, or give Ranking(spill=...) a folder on another disk") from None
        self._sizes.append(len(part))

    def parts(self) -> list[np.ndarray]:
        if self._file is None:
            return self._parts[:]
        whole = np.asarray(np.memmap(self._file, self.defect, mode="r", shape=(sum(self._sizes),)))
        return np.split(whole, np.cumsum(self._sizes)[:-1])


def _starts(runs: Sequence[np.ndarray], ends: Sequence[int]) -> list[int]:
    """Return where, before `ends`, the highest _CHUNK entries or fewer begin, whatever the runs; no key is parted."""

    def below(key: int) -> list[int]:
        return [int(run[:end].searchsorted(np.uint64(key << 32))) for run, end in zip(runs, ends, strict=True)]

    fits = bisect.bisect_left(range(1 << 32), True, key=lambda key: sum(ends) - sum(below(key)) <= _CHUNK)
    highest = max(int(run[end - 1]) >> 32 for run, end in zip(runs, ends, strict=True) if end)
    return below(min(fits, highest))


def _ranks(runs: Sequence[np.ndarray], keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many entries of sorted runs are below, and how many at or below, each of ascending keys."""
    below, upto = np.zeros((2, len(keys)), np.int64)
    for run in runs:
        begin, end = run.searchsorted(keys[0]), run.searchsorted(keys[-1], "right")
        low = begin + run[begin:end].searchsorted(keys)
        tied = np.flatnonzero(run[np.minimum(low, len(run) - 1)] == keys)
        below += low
        low[tied] = begin + run[begin:end].searchsorted(keys[tied], "right")
        upto += low
    return below, upto


def _checked(scores: np.ndarray, labels: np.ndarray, regions: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return contiguous float16 or float32 scores and bool labels."""
    if scores.shape != labels.shape:
        raise DataError(f"Ranking: scores are {scores.shape} and labels {labels.shape}; give both in one shape")
    if not scores.size:
        raise DataError(f"Ranking: an array of shape {scores.shape} holds no score; add pictures that have pixels")
    if regions and scores.ndim < 2:
        raise DataError(f"Ranking: regions need pictures (..., H, W) and not shape {scores.shape}; or regions=False")
    if labels.dtype.kind not in "biu" or scores.dtype.kind not in "fbiu":
        raise DataError(f"Ranking: {scores.dtype} scores, {labels.dtype} labels; give float32 scores and bool labels")
    defect = np.float16 if scores.dtype == np.float16 else np.float32
    with np.errstate(over="ignore"):
        taken = np.ascontiguousarray(scores, dtype=defect).reshape(scores.shape)
    if scores.dtype not in (np.float16, np.float32) and not np.array_equal(taken, scores, equal_nan=True):
        raise DataError(f"Ranking: {scores.dtype} scores that float32 cannot hold; round them by .astype(np.float32)")
    return taken, np.ascontiguousarray(labels, dtype=bool).reshape(scores.shape)


def _keys(scores: np.ndarray) -> np.ndarray:
    """Return unsigned integers of the same width that are ordered as the scores are; -0 becomes 0."""
    top, unsigned = 1 << (8 * scores.itemsize - 1), np.dtype(f"u{scores.itemsize}")
    flip = (scores.view(f"i{scores.itemsize}") >> (8 * scores.itemsize - 1)).view(unsigned)  # negative: all its bits
    flip |= unsigned.type(top)
    keys = scores.view(unsigned) ^ flip
    keys[keys == top - 1] = top
    infinity = int(np.array(np.inf, scores.dtype).view(unsigned)) | top
    if keys.max() > infinity or keys.min() < 2 * top - 1 - infinity:
        raise DataError(f"Ranking: {int(np.isnan(scores).sum())} of {scores.size} scores are NaN; give numbers only")
    return keys


def _score(key: np.unsignedinteger) -> float:
    """Return the score of a key."""
    top = 1 << (8 * key.itemsize - 1)
    return float(np.array(int(key) ^ (top if key >= top else 2 * top - 1), key.dtype).view(f"f{key.itemsize}"))


def histograms(
    scores: Iterable[np.ndarray], labels: Iterable[np.ndarray], edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count each picture's scores in common bins.

    With edges at quantiles of the defect scores, AUROC and AP move by about half a bin's share of them, or less.

    Args:
        scores: A picture's scores each, any shape.
        labels: Bool or integers of the same shapes; not 0 = defect.
        edges: Rising, (B-1,); a score on an edge belongs to the bin above it.

    Returns:
        Defect counts and normal counts, int32 (pictures, B) each, bins from HIGH scores to low.
    """
    rows: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for one, mask in zip(scores, labels, strict=True):
        flat, hit = np.asarray(one).ravel(), np.asarray(mask).ravel() != 0
        for side, part in zip(rows, (flat[hit], flat[~hit]), strict=True):
            below = np.sort(part).searchsorted(edges)
            side.append(np.diff(below, prepend=0, append=len(part))[::-1].astype(np.int32))
    return np.array(rows[0]), np.array(rows[1])


def weighted_ap(pos: np.ndarray, neg: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of resamples of pictures, on binned scores: ties inside a bin are one threshold.

    For intervals; the point estimate belongs to `Ranking`, which is exact.

    Args:
        pos: Defect counts (P,B), bins from high scores to low, as `histograms` gives them.
        neg: Sound counts (P,B).
        weights: How often each picture is in each resample (R,P).

    Returns:
        float64 (R,); NaN where a resample has no defect score.
    """
    found = [np.zeros(0)]
    for gained, wrong in _resampled(pos, neg, weights):
        right = gained.cumsum(1)
        flagged = np.maximum(right + wrong.cumsum(1), np.finfo(float).tiny)
        with np.errstate(invalid="ignore"):
            found.append((gained * right / flagged).sum(1) / right[:, -1])
    return np.concatenate(found)


def weighted_auroc(pos: np.ndarray, neg: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the AUROC of resamples of pictures, as `weighted_ap` does; NaN where a resample lacks a class."""
    found = [np.zeros(0)]
    for gained, wrong in _resampled(pos, neg, weights):
        above = wrong.cumsum(1)
        with np.errstate(invalid="ignore"):
            found.append((gained * (above[:, -1:] - above + wrong / 2)).sum(1) / (gained.sum(1) * above[:, -1]))
    return np.concatenate(found)


def _resampled(pos: np.ndarray, neg: np.ndarray, weights: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (defect, normal) counts, float64 (r,B), in portions of resamples that take little memory."""
    pos, neg, weights = (np.asarray(array, np.float64) for array in (pos, neg, weights))
    if pos.shape != neg.shape or pos.ndim != 2 or weights.shape[1:] != (len(pos),):
        raise DataError(f"resamples: {pos.shape}, {neg.shape}, {weights.shape}; give (P,B), (P,B) and (R,P)")
    for start in range(0, len(weights), 64):
        yield weights[start : start + 64] @ pos, weights[start : start + 64] @ neg


def iou(mask_a: np.ndarray, mask_b: np.ndarray) -> float:
    """Return intersection over union of two bool masks of one shape; 1 when both are empty, for then they agree."""
    a, b = np.asarray(mask_a) != 0, np.asarray(mask_b) != 0
    if a.shape != b.shape:
        raise DataError(f"iou: the masks are {a.shape} and {b.shape}; give both in one shape")
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def accuracy(true: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Return the share of entries that are equal; `DataError` where the lengths differ or nothing is there."""
    if len(true) != len(predicted) or not len(true):
        raise DataError(f"accuracy: {len(true)} true and {len(predicted)} predicted; give as many of both, at least 1")
    return sum(bool(t == p) for t, p in zip(true, predicted, strict=True)) / len(true)


def confusion(true: Sequence[Hashable], predicted: Sequence[Hashable], defects: Sequence[Hashable]) -> np.ndarray:
    """Return int64 (K,K): entry [i, j] counts what is truly defects[i] and was called defects[j].

    Raises:
        DataError: the lengths differ, or an entry is none of `defect types`.
    """
    if len(true) != len(predicted):
        raise DataError(f"confusion: {len(true)} true and {len(predicted)} predicted; give as many of both")
    place = {defect: index for index, defect in enumerate(defects)}
    table = np.zeros((len(place), len(place)), np.int64)
    try:
        for t, p in zip(true, predicted, strict=True):
            table[place[t], place[p]] += 1
    except KeyError as error:
        defect = error.args[0]
        raise DataError(
            f"confusion: {defect!r} is none of the defect types{nearest(str(defect), map(str, defects))}"
        ) from None
    return table
