"""One value range per product: which native values are black and white, and which mean "not measured".

It is decided once, from the pictures that are learned from, and goes with every `Example` from there on. So training,
painting, screening, proof, report and export read a picture alike, however bright its damage is.

    8 bits             0..255
    16 bits            0 to the end of the sensor's bits: the least of 8, 10, 12, 14 and 16 that hold every value
    16 bits, a map     the robust range, where some value means "not measured", or the values fill less than a quarter
    float32            0..1 where the normal pictures lie within, else the robust range

The robust range holds all but the outermost 0.1 % of the normal pictures' values, and beyond it what other values the
pictures have, by at most its own width on each side: so the damage of a shot is not cut off at the normal ones.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from flawsmith.data import images
from flawsmith.data.split import Split
from flawsmith.errors import DataError
from flawsmith.types import Example, Range

SAMPLED = 64
"""As many normal pictures, and as many shots, of a product are looked at, evenly spread over all."""
SENSORS = (8, 10, 12, 14, 16)
"""Bits of cameras whose pictures are stored in 16."""
OUTSIDE = 0.001
"""Share of the normal pictures' values that may lie below the robust range, and above it."""
MAP = 0.25
"""16-bit values that fill less than this share of the type are heights or depths; a photograph fills more."""
OFTEN = 0.001
"""Share of one picture that a value must fill to be taken for a sentinel, unless it lies very far out."""
FAR, APART, EXTREME = 4.0, 1.0, 1 / 16
"""Gap between a sentinel and all other values, over their width: of a value that occurs twice, of one that occurs
often, and of 0 or the type's largest value where that occurs often."""
OTHER_SCALE = 12.0
"""Ratio of the spreads of two pictures that no damage and no light explains; 12 bits fill a sixteenth of 16."""
_PIXELS = 1 << 16
"""So many values of a float32 picture are looked at, evenly spread, and its least and largest ones."""
_AT_ONCE = 1 << 20
"""Values of a 16-bit picture that are counted at once."""
_STEP = 257
"""8 bits spread over 16; a larger common divisor is chance."""


@dataclass(frozen=True, slots=True)
class Missing:
    """One sentinel in the normal pictures of a product."""

    value: float
    """NaN and the infinities included."""
    pixels: int
    pictures: int
    example: str
    """Id of the first picture that has it."""


@dataclass(frozen=True, slots=True)
class ValueSurvey:
    """What the normal pictures of a product say of its values."""

    span: Range
    pictures: int
    """Normal pictures that were looked at."""
    missing: tuple[Missing, ...] = ()
    empty: tuple[str, ...] = ()
    """Ids of normal pictures in which nothing is measured."""
    strange: tuple[str, ...] = ()
    """Ids of shots whose values are not on the scale of the normal pictures."""
    holes: tuple[float, ...] = ()
    """Values of float32 shots alone that stand far from all others: not measured, or the bottom of the damage."""


@dataclass
class _Values:
    """The distinct finite values of one picture, sorted, with their numbers."""

    id: str
    values: np.ndarray
    counts: np.ndarray
    unusual: Counter[float] = field(default_factory=Counter)
    """Pixels that are NaN or infinite; NaN under the key `NAN`."""

    def share(self, value: float) -> float:
        """Return which share of the picture has a value."""
        here = self.values == value
        return float(self.counts[here].sum() / max(1, self.counts.sum() + sum(self.unusual.values())))

    def without(self, sentinels: Iterable[float]) -> _Values:
        """Return what is measured."""
        keep = ~np.isin(self.values, list(sentinels))
        return _Values(self.id, self.values[keep], self.counts[keep], self.unusual)


NAN = float("nan")


def ranges_of(split: Split) -> dict[str, Range]:
    """Return each product's value range, decided by the rules above.

    Raises:
        DataError: in a normal picture nothing is measured, or shots are on another scale than the normal pictures.
    """
    surveys = {product: survey_values(normals, shots) for product, normals, shots in by_product(split)}
    if wrong := [sentence for product, one in surveys.items() for sentence in mistakes(product, one)]:
        raise DataError("\n".join(wrong))
    return {product: one.span for product, one in surveys.items()}


def mistakes(product: str, one: ValueSurvey) -> list[str]:
    """Return a sentence for each thing in a product's values that makes it useless."""
    sentences = []
    for names, problem in (
        (
            one.empty,
            "no pixel of the normal picture is measured (all are NaN, infinite or a sentinel); take it out of the "
            "folder, or name it in data.exclude",
        ),
        (
            one.strange,
            f"the values of the defect are on another scale than those of the normal pictures ({one.span.low:g} to "
            f"{one.span.high:g}); save all pictures of a product in the same units",
        ),
    ):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        sentences += [f"{product}: {names[0]}{more}: {problem}"] if names else []
    return sentences


def by_product(split: Split) -> list[tuple[str, list[Example], list[Example]]]:
    """Return (product, its normal pictures to learn from, its shots), in order of the names."""
    normals: dict[str, list[Example]] = defaultdict(list)
    shots: dict[str, list[Example]] = defaultdict(list)
    for example in split.normals:
        normals[example.product].append(example)
    for example in split.shots:
        shots[example.product].append(example)
    # A product of defects alone is painted on nothing; its shots are read as what they are.
    return [(product, normals[product] or shots[product], shots[product]) for product in sorted({*normals, *shots})]


def with_ranges(split: Split, ranges: Mapping[str, Range]) -> Split:
    """Return the split with every picture's value range."""
    groups = ("shots", "normals", "test_defects", "test_normals")
    return replace(
        split,
        **{
            name: tuple(replace(example, span=ranges.get(example.product)) for example in getattr(split, name))
            for name in groups
        },
    )


def survey_values(normals: Sequence[Example], shots: Sequence[Example] = ()) -> ValueSurvey:
    """Decide one product's value range from its normal pictures, and say what was seen.

    Args:
        normals: Its normal pictures to learn from, at least one.
        shots: Its defects to learn from: how bright a sensor's values get, and how far a map goes, is seen in them too.
    """
    chosen, others = _evenly(normals), _evenly(shots)
    depths = Counter(images.describe(example.image).depth for example in chosen)
    depth = depths.most_common(1)[0][0]
    if depth == 8:
        return ValueSurvey(Range(0.0, 255.0, depth=8, rule="8 bits"), len(chosen))
    pictures = [one for example in chosen if (one := _values(example, depth)) is not None]
    sentinels = _sentinels(pictures, depth)
    measured = [one.without(sentinels) for one in pictures]
    damaged = [one.without(sentinels) for example in others if (one := _values(example, depth)) is not None]
    missing = _missing(pictures, sentinels)
    empty = tuple(one.id for one in measured if not len(one.values))
    pool = _pooled(measured)
    if not len(pool.values):
        return ValueSurvey(Range(0.0, 1.0, depth=depth), len(chosen), missing, empty)
    if depth == 16:
        # The largest value of the type in a shot alone may be a dropout, which says nothing of the sensor.
        span = _integers(pool, _pooled([one.without([65535.0]) for one in damaged]), bool(sentinels))
    else:
        span = _floats(pool, _pooled(damaged))
    holes = _holes(measured, damaged) if depth == 32 else ()
    median = float(_quantile(pool, 0.5))
    strange = tuple(one.id for one in damaged if _strange(one, pool, span))
    span = replace(span, sentinels=sentinels, fill=median, depth=depth)
    return ValueSurvey(span, len(chosen), missing, empty, strange, holes)


def _strange(one: _Values, pool: _Values, span: Range) -> bool:
    """Tell whether most of a shot would be cut off, or lies beside all normal values and on another scale."""
    if not len(one.values):
        return False
    cut_off = (one.values < span.low) | (one.values > span.high)
    beside = (one.values < pool.values[0]) | (one.values > pool.values[-1])
    half = one.counts.sum() / 2
    if one.counts[cut_off].sum() > half:
        return True
    spread, usual = (float(_quantile(part, 0.95) - _quantile(part, 0.05)) for part in (one, pool))
    return bool(one.counts[beside].sum() > half and max(spread, usual) > OTHER_SCALE * min(spread, usual) > 0)


def _integers(pool: _Values, damaged: _Values, is_map: bool) -> Range:
    both = np.concatenate([pool.values, damaged.values]).astype(np.int64)
    bits = next(bits for bits in SENSORS if both.max() < 2**bits)
    step = int(np.gcd.reduce(both)) or 1
    step = step if step <= _STEP else 1
    spread = float(_quantile(pool, 1 - OUTSIDE) - _quantile(pool, OUTSIDE))
    # Values that are all multiples of 16 come from a 12-bit camera, not from a map.
    if is_map or bits == 16 and step == 1 and spread < MAP * 2**16:
        span = _robust(pool, damaged)
        low, high = float(np.floor(span.low)), float(np.ceil(span.high))
        return replace(span, low=low, high=high, step=step)
    rule = f"{bits} bits" if bits == 16 else f"{bits} bits in 16"
    top = 2**bits - 1
    if bits == 16 and step in (4, 16, 64, 256):
        rule, top = f"{17 - step.bit_length()} bits, left-aligned in 16", top // step * step
    return Range(0.0, float(top), rule=rule, step=step)


def _floats(pool: _Values, damaged: _Values) -> Range:
    if pool.values[0] >= 0 and pool.values[-1] <= 1:
        return Range(0.0, 1.0, rule="float32 within 0..1")
    return _robust(pool, damaged)


def _robust(pool: _Values, damaged: _Values) -> Range:
    low, high = float(_quantile(pool, OUTSIDE)), float(_quantile(pool, 1 - OUTSIDE))
    ends = [pool.values[0], pool.values[-1], *damaged.values[:1], *damaged.values[-1:]]
    width = high - low
    if width <= 0:
        return Range(low - 0.5, high + 0.5, rule="one value")
    low, high = max(float(min(ends)), low - width), min(float(max(ends)), high + width)
    return Range(low, high, rule="range of the measured values")


def _evenly(examples: Sequence[Example]) -> list[Example]:
    count = min(SAMPLED, len(examples))
    return [examples[int((number + 0.5) * len(examples) / count)] for number in range(count)]


def _values(example: Example, depth: int) -> _Values | None:
    """Return a picture's values; None where it has another depth, or is named elsewhere as broken."""
    try:
        pixels = images.read(example.image)
    except DataError:
        return None
    if pixels.dtype.itemsize * 8 != depth:
        return None
    flat = pixels.ravel()
    if depth == 16:
        counts = np.zeros(1 << 16, np.int64)
        for first in range(0, flat.size, _AT_ONCE):  # NumPy counts in 64 bits: four times the picture
            counts += np.bincount(flat[first : first + _AT_ONCE], minlength=1 << 16)
        values = np.flatnonzero(counts)
        return _Values(example.id, values.astype(np.float64), counts[values])
    finite = np.isfinite(flat)
    unusual: Counter[float] = Counter()
    if not finite.all():
        rest = flat[~finite]
        unusual = Counter({NAN: int(np.isnan(rest).sum()), np.inf: int((rest == np.inf).sum())})
        unusual[-np.inf] = int((rest == -np.inf).sum())
        flat = flat[finite]
    if not flat.size:
        return _Values(example.id, np.zeros(0), np.zeros(0, np.int64), +unusual)
    step = max(1, flat.size // _PIXELS)
    values, counts = np.unique(flat[::step], return_counts=True)
    ends = np.array([flat.min(), flat.max()])
    # The ends are counted exactly: a sentinel may be rarer than the pixels that are looked at.
    exact = [int((flat == end).sum()) for end in ends]
    inner = ~np.isin(values, ends)
    values = np.concatenate([ends[:1], values[inner], ends[1:]]) if ends[0] < ends[1] else ends[:1]
    counts = np.concatenate([exact[:1], counts[inner] * step, exact[1:]]) if ends[0] < ends[1] else np.array(exact[:1])
    return _Values(example.id, values.astype(np.float64), counts, +unusual)


def _pooled(pictures: Sequence[_Values]) -> _Values:
    if not pictures:
        return _Values("", np.zeros(0), np.zeros(0, np.int64))
    values, where = np.unique(np.concatenate([one.values for one in pictures]), return_inverse=True)
    weights = np.concatenate([one.counts for one in pictures])
    return _Values("", values, np.bincount(where, weights, len(values)).astype(np.int64))


def _quantile(pool: _Values, share: float) -> np.float64:
    reached = np.cumsum(pool.counts)
    return np.float64(pool.values[min(np.searchsorted(reached, share * reached[-1]), len(reached) - 1)])


def _sentinels(pictures: Sequence[_Values], depth: int) -> tuple[float, ...]:
    """Return the finite values that mean "not measured": single values at either end, far from all others."""
    pool = _pooled(pictures)
    extremes = {0.0, 65535.0} if depth == 16 else {0.0}
    saturated = {float(2**bits - 1) for bits in SENSORS if bits < 16} if depth == 16 else set()
    sentinels: list[float] = []
    while len(pool.values) > 3:
        width = float(pool.values[-2] - pool.values[1])
        gaps = ((0, pool.values[1] - pool.values[0]), (-1, pool.values[-1] - pool.values[-2]))
        new = []
        for end, gap in gaps:
            value, often = float(pool.values[end]), False
            if value not in saturated and gap > EXTREME * width:
                often = max(one.share(value) for one in pictures) >= OFTEN
            least = min(EXTREME if value in extremes else FAR, APART) if often else FAR
            if value not in saturated and gap > least * width and (often or pool.counts[end] > 1):
                new.append(value)
        if not new:
            break
        sentinels += new
        pool = pool.without(new)
    return tuple(sorted(sentinels))


def _holes(normals: Sequence[_Values], shots: Sequence[_Values]) -> tuple[float, ...]:
    """Return the values that would be sentinels if the shots were normal pictures too, at the greatest distance."""
    alone = _sentinels([*normals, *shots], 32)
    pool = _pooled([one.without(alone) for one in (*normals, *shots)])
    if not len(pool.values):
        return ()
    low, high = float(pool.values[0]), float(pool.values[-1])
    return tuple(value for value in alone if max(low - value, value - high) > FAR * (high - low))


def _missing(pictures: Sequence[_Values], sentinels: Sequence[float]) -> tuple[Missing, ...]:
    rows = []
    for value in sentinels:
        having = [one for one in pictures if (one.values == value).any()]
        pixels = sum(int(one.counts[one.values == value].sum()) for one in having)
        rows.append(Missing(value, pixels, len(having), having[0].id))
    for value in (NAN, np.inf, -np.inf):
        having = [one for one in pictures if one.unusual[value]]
        if having:
            rows.append(Missing(value, sum(one.unusual[value] for one in having), len(having), having[0].id))
    return tuple(rows)
