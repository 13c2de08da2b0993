"""What is in the folder, what is wrong with it, and what a run will cost: `flawsmith check`.

Reads the set and writes nothing. Whatever would stop a run later is an error here, with the files' names; whatever
would only make it worse is a warning. Needs no network and imports none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median

import cv2
import numpy as np

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.layouts import find, gaps
from flawsmith.data.patterns import exclusions
from flawsmith.data.photographs import windows_over
from flawsmith.data.split import Split, duplicates, leaks, near_duplicate_warnings, split, without_duplicates
from flawsmith.errors import FlawsmithError
from flawsmith.preflight import pictures
from flawsmith.preflight.cost import estimate
from flawsmith.preflight.findings import DefectFacts, Findings, grouped
from flawsmith.preflight.refuse import preflight
from flawsmith.run.dataset import unknown_defects
from flawsmith.synthesis.counts import counts
from flawsmith.synthesis.transfer import transfers
from flawsmith.types import Example

CELL = 8.0
"""Working pixels to a latent cell: what is thinner, the model can only smear."""
PLANNED = 100
"""Windows are planned for so many masks in all, spread evenly over the types: planning is slow, a median is asked."""


@dataclass(slots=True)
class _Damage:
    """What the masks of one type measured."""

    share: list[float] = field(default_factory=list)
    thickness: list[float] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)
    drawn: list[float] = field(default_factory=list)


def check(config: Config) -> Findings:
    """Fingerprint a set over without changing anything; problems are listed, never raised."""
    data = config.data
    findings = Findings(data.root, data.layout)
    try:
        examples = find(data)
        findings.notes += exclusions(data)
    except FlawsmithError as error:
        findings.errors += [*preflight(config, None), *str(error).splitlines()]
        return findings
    findings.errors += gaps(examples, data)
    facts = pictures.describe(examples, findings)
    decoded = pictures.look_at(examples, facts, findings)
    damage, blank = _look_at_masks(examples, facts, config, findings)
    divided = _divide(examples, config, findings, decoded)
    findings.errors += preflight(config, divided)
    if divided and (unseen := [shot.id for shot in divided.shots if shot.id in blank]):
        findings.errors.append(
            f"{', '.join(unseen)}: a shot whose mask is empty teaches nothing; draw its damage first"
        )
    have = Counter((example.product, example.defect) for example in examples if example.defect is not None)
    defects = {key: number for key, number in sorted(have.items(), key=str) if key[1] is not None}
    _tabulate(examples, divided, defects, damage, findings)
    _check_defects(defects, config, findings)
    if defects and facts:
        windows = [number for one in damage.values() for number in one.windows]
        sizes = [
            (fact.width * fact.height * (fact.depth // 8) * (3 if fact.mode == "RGB" else 1), fact.width * fact.height)
            for fact in facts.values()
        ]
        findings.estimate, costly = estimate(
            config,
            defects,
            windows=mean(windows) if windows else 1.0,
            picture_bytes=median(size for size, _ in sizes),
            largest=max(sizes),
            photographs=len(divided.shots) + len(divided.normals) if divided else len(facts),
            transferred=_transferred(config, divided, findings),
        )
        findings.warnings += costly
    return findings


def _look_at_masks(
    examples: Sequence[Example], facts: dict[str, images.Header], config: Config, findings: Findings
) -> tuple[dict[tuple[str, str], _Damage], set[str]]:
    """Measure every mask; also return the ids of those that are empty."""
    blank: set[str] = set()
    damage: dict[tuple[str, str], _Damage] = defaultdict(_Damage)
    broken: list[tuple[str, str]] = []
    doubtful: list[tuple[str, str]] = []
    defects = [example for example in examples if example.masks and example.id in facts]
    every = max(1, -(-len(defects) // PLANNED))
    turn: Counter[tuple[str, str]] = Counter()
    for example in defects:
        assert example.defect is not None
        inspected = [images.inspect_mask(path, facts[example.id].shape) for path in example.masks]
        problems = [(example.id, problem) for _, sentences in inspected for problem in sentences]
        parts = [part for part, _ in inspected if part is not None]
        if len(parts) < len(inspected):
            broken += problems
            continue
        doubtful += problems
        mask = np.logical_or.reduce(parts)
        if not mask.any():
            blank.add(example.id)
            continue
        key = example.product, example.defect
        one = damage[key]
        one.share.append(float(mask.mean()))
        one.thickness.append(_thickness(mask))
        if turn[key] % every == 0:
            size = config.windows.size or 128
            windows = windows_over(config, mask, size)
            one.windows.append(len(windows))
            one.drawn.append(one.thickness[-1] * size / median(window.side for window in windows))
        turn[key] += 1
    findings.errors += grouped(broken, "mask", "cannot be used")
    findings.warnings += grouped(doubtful, "mask", "deserves a look")
    for (product, defect), one in sorted(damage.items()):
        thin = [value for value in one.drawn if value < CELL]
        if len(thin) > len(one.drawn) / 5:
            findings.warnings.append(
                f"{product}/{defect}: {100 * len(thin) / len(one.drawn):.0f} % of the damage is thinner than the model "
                f"can draw (median {median(thin):.1f} px at its working size, {CELL:g} are needed); raise "
                "windows.max_zoom, or use a generator that works in pixels"
            )
    return damage, blank


def _thickness(mask: np.ndarray) -> float:
    """Twice the greatest distance of a damaged pixel from normal ones; beyond the picture's edge all is normal."""
    left, top, wide, high = cv2.boundingRect(mask.view(np.uint8))
    padded = np.zeros((high + 2, wide + 2), np.uint8)
    padded[1:-1, 1:-1] = mask[top : top + high, left : left + wide]
    return 2 * float(cv2.distanceTransform(padded, cv2.DIST_L2, 5).max())


def _divide(examples: Sequence[Example], config: Config, findings: Findings, decoded: frozenset[str]) -> Split | None:
    try:
        divided = split(examples, shots=config.data.shots)
    except FlawsmithError as error:
        if not findings.errors:  # `gaps` has said it better
            findings.errors.append(str(error))
        return None
    divided = without_duplicates(divided, duplicates(divided, decoded))
    findings.notes += divided.notes
    findings.errors += leaks(divided, decoded)
    pictures.look_at_ranges(divided, findings)
    findings.warnings += near_duplicate_warnings(divided)
    return divided


def _tabulate(
    examples: Sequence[Example],
    divided: Split | None,
    defects: dict[tuple[str, str], int],
    damage: dict[tuple[str, str], _Damage],
    findings: Findings,
) -> None:
    def count(group: Iterable[Example]) -> Counter[tuple[str, str | None]]:
        return Counter((example.product, example.defect) for example in group)

    everything = count(examples)
    learned = count((*divided.shots, *divided.normals)) if divided else Counter()
    tested = count((*divided.test_defects, *divided.test_normals)) if divided else Counter()
    most: dict[str, int] = defaultdict(int)
    for (product, _), number in defects.items():
        most[product] = max(most[product], number)
    for key, number in sorted(everything.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        product, defect = key
        one = damage.get((product, defect)) if defect is not None else None
        findings.defects.append(
            DefectFacts(
                product,
                defect or "",
                number,
                learned[key],
                tested[key],
                most[product] - number if defect is not None else 0,
                median(one.share) if one and one.share else None,
                median(one.thickness) if one and one.thickness else None,
                median(one.drawn) if one and one.drawn else None,
            )
        )


def _transferred(config: Config, divided: Split | None, findings: Findings) -> list[tuple[str, str]]:
    if divided is None:
        return []
    try:
        counts(config, divided)  # also refuses a sentence that cannot be read, and a count that asks for nothing
    except FlawsmithError as error:
        findings.errors += [line for line in str(error).splitlines() if line not in findings.errors]
    try:
        return list(transfers(config, divided))
    except FlawsmithError:  # `counts` has said it
        return []


def _check_defects(defects: dict[tuple[str, str], int], config: Config, findings: Findings) -> None:
    names = {defect for _, defect in defects}
    findings.errors += unknown_defects(config, names, "count", "paint") if names else []
    by_product: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for (product, defect), number in defects.items():
        by_product[product].append((number, defect))
    for product, numbers in sorted(by_product.items()):
        (least, rare), (most, common) = min(numbers), max(numbers)
        if most >= 3 * least:
            findings.warnings.append(
                f'{product}: {rare} has {least} pictures, {common} {most}; generate.count = "balance" fills the gap'
            )
