"""How well scores rank defects above normal pixels or pictures: exact, streaming, without torch.

    ranking = Ranking(regions=True)
    for scores, mask in pictures:            # float32 (H,W), bool (H,W)
        ranking.add(scores, mask)
    found = ranking.result()                 # auroc, ap, f1_max, threshold
    found.aupro(0.3)

No thresholds are sampled. Between two neighbouring scores of defects no curve bends, so it is enough to know how many
normal scores lie above each distinct defect score: the normal ones are sorted once, as integers, and searched. Sums are
sums of integers too, so the order of adding does not change a bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from flawsmith.errors import ConfigError, DataError

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
    """int64 rows, one per distinct defect score: normal scores above, at or above, and mean overlap in 1/_ONE."""

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

    Float32 scores take 4 bytes per normal score and 8 per defect score. Float16 scores are only counted, in constant
    memory.

    Args:
        regions: Find the 8-connected regions of every mask, for `Ranked.aupro`.
    """

    def __init__(self, *, regions: bool = False) -> None:
        self._regions = regions
        self._found = self._positives = self._negatives = 0
        self._dtype: np.dtype | None = None
        # Of float32 scores: keys of the normal ones (uint32), and of the defects with their region's area (uint64).
        self._normals: list[np.ndarray] = []
        self._defects: list[np.ndarray] = []
        # Of float16 scores, by key: normal, defects, and the defects' shares of their regions in two limbs of 31 bits.
        self._counts = np.zeros((4, 1 << 16), np.int64)

    def add(self, scores: np.ndarray, labels: np.ndarray, ignored: np.ndarray | None = None) -> None:
        """Add one picture's scores, or any array of scores.

        Args:
            scores: Float16 or float32, any shape, higher = more of a defect; infinities are scores like others, -0
                equals 0. Other numbers are taken where float32 holds them exactly.
            labels: Bool or integers of the same shape; not 0 = defect. With regions the last two axes are a picture.
            ignored: Bool of the same shape: what counts neither as defect nor as normal; None = nothing.

        Raises:
            DataError: the shapes differ; a score is NaN or has more digits than float32; labels are fractions; there is
                no score; float16 and float32 are mixed.
        """
        scores, labels = _checked(np.asarray(scores), np.asarray(labels), self._regions)
        if self._dtype not in (None, scores.dtype):
            raise DataError(f"Ranking: {scores.dtype} scores after {self._dtype} ones; give all pictures as one type")
        if ignored is not None and ignored.shape != scores.shape:
            raise DataError(f"Ranking: {ignored.shape} ignored, {scores.shape} scores; give arrays of one shape")
        labels = labels if ignored is None else labels & ~ignored
        keys, flat = _keys(scores.ravel()), labels.ravel()
        self._dtype = scores.dtype
        areas = self._areas(labels)
        hit, rest = keys[flat], keys[~flat if ignored is None else ~(flat | ignored.ravel())]
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
        self._normals.append(rest)
        self._defects.append(hit.astype(np.uint64) << np.uint64(32) | areas.astype(np.uint64))

    def result(self) -> Ranked:
        """Return the figures of all that was added so far; more may be added afterwards.

        Raises:
            DataError: there is no defect or no normal score among them.
        """
        positives, negatives = self._positives, self._negatives
        if not positives or not negatives:
            missing, total = "normal" if positives else "defect", positives + negatives
            raise DataError(f"Ranking: none of {total} scores is labelled {missing}; add some, a ranking needs both")
        won, ap, best, threshold, hits, overlap = 0, 0, -1.0, 0.0, 0, 0
        curve: list[np.ndarray] = []
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
                curve.append(np.stack([above, reached, share], axis=1).ravel())
        figures = won / (2 * positives * negatives), ap / int(_ONE), best, threshold
        return Ranked(*figures, positives, negatives, self._found, curve)

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

    def _steps(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield distinct defect keys, falling, with their count, share of regions, normal scores above, at or above."""
        if self._dtype == np.float16:
            normal, defect, upper, lower = self._counts
            keys = np.flatnonzero(defect)[::-1]
            reached = normal[::-1].cumsum()[::-1]
            shares = ((upper[keys].astype(object) << 31) + lower[keys]) // max(self._found, 1)
            yield keys.astype(np.uint16), defect[keys], shares.astype(np.int64), (reached - normal)[keys], reached[keys]
            return
        normals, defects = _sorted(self._normals), _sorted(self._defects)
        end = len(defects)
        while end:
            start = _start(defects, end)
            packed, end = defects[start:end], start
            keys = (packed >> np.uint64(32)).astype(np.uint32)
            first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
            share = gained = np.diff(first, append=len(keys))
            if self._regions:
                areas = (packed & np.uint64(0xFFFFFFFF)).astype(np.float64)
                share = np.add.reduceat(np.rint(_ONE / (areas * self._found)).astype(np.int64), first)
            below, upto = _ranks(normals, keys[first])
            columns = keys[first], gained, share, self._negatives - upto, self._negatives - below
            yield tuple(column[::-1] for column in columns)


def _sorted(parts: list[np.ndarray]) -> np.ndarray:
    """Return all entries in rising order, and leave them so: another result need not sort them again."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    parts[0].sort()
    return parts[0]


def _start(packed: np.ndarray, end: int) -> int:
    """Return where, before `end`, the highest _CHUNK entries or fewer begin; entries of one key stay together."""

    def first(key: int) -> int:
        return int(packed[:end].searchsorted(np.uint64(key << 32)))

    if end <= _CHUNK:
        return 0
    key = int(packed[end - _CHUNK]) >> 32
    begin = first(key)
    if begin == end - _CHUNK:
        return begin
    above = first(key + 1)
    return above if above < end else begin


def _ranks(normals: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of the sorted normal keys are below, and how many at or below, each of ascending keys."""
    begin, end = normals.searchsorted(keys[0]), normals.searchsorted(keys[-1], "right")
    below = begin + normals[begin:end].searchsorted(keys)
    upto = below.copy()
    tied = np.flatnonzero(normals[np.minimum(below, len(normals) - 1)] == keys)
    upto[tied] = begin + normals[begin:end].searchsorted(keys[tied], "right")
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
    dtype = np.float16 if scores.dtype == np.float16 else np.float32
    with np.errstate(over="ignore"):
        taken = np.ascontiguousarray(scores, dtype=dtype).reshape(scores.shape)
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
