"""The photographs of a set: their formats, which cannot be used, and the value range in which each product is read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median

from flawsmith.data import images
from flawsmith.data.fingerprints import fingerprints_of
from flawsmith.data.masks.of_normals import masks_among_normals
from flawsmith.data.masks.reading import read_label
from flawsmith.data.ranges import ValueSurvey, by_product, mistakes, survey_values
from flawsmith.data.split import Split
from flawsmith.errors import FlawsmithError, first_few
from flawsmith.preflight.findings import Findings, PictureFacts, grouped
from flawsmith.types import Example, Range

DECODED = 2000
"""Of more normal pictures than this, so many are decoded, evenly spread; a run decodes all of them."""


def describe(examples: Sequence[Example], findings: Findings) -> dict[str, images.Header]:
    """Read all headers: {id: facts} of those that can be read."""
    facts = {}
    for example in examples:
        try:
            facts[example.id] = images.describe(example.image)
        except FlawsmithError:
            pass  # named by `look_at`, which decodes it
    many = [(example.id, facts[example.id].pages) for example in examples if example.id in facts]
    for count in sorted({pages for _, pages in many if pages > 1}):
        names = [name for name, pages in many if pages == count]
        shown = first_few(names)
        hold = "the file holds" if len(names) == 1 else f"each of {len(names)} files holds"
        findings.notes.append(f"{shown}: {hold} {count} pictures; only the first is read")
    members: dict[str, list[images.Header]] = defaultdict(list)
    for example in {example.image: example for example in examples}.values():  # with several types it comes often
        if example.id in facts:
            members[example.product].append(facts[example.id])
    for product, headers in sorted(members.items()):
        formats = Counter(f"{fact.depth}-bit {fact.mode} {fact.codec}" for fact in headers)
        widths, heights = [fact.width for fact in headers], [fact.height for fact in headers]
        findings.pictures.append(
            PictureFacts(
                product,
                len(headers),
                (min(widths), median(widths), max(widths)),
                (min(heights), median(heights), max(heights)),
                dict(formats.most_common()),
            )
        )
        modes = Counter(f"{fact.depth}-bit {fact.mode}" for fact in headers)
        if len(modes) > 1:
            shown = ", ".join(f"{number} {name}" for name, number in modes.most_common())
            depths = len({fact.depth for fact in headers}) > 1
            advice = "pictures of several depths are not on one scale: save all with one" if depths else ""
            advice = advice or "one camera gives one format"
            findings.warnings.append(f"{product}: the photographs are of several formats ({shown}); {advice}")
    return facts


def look_at(examples: Sequence[Example], facts: dict[str, images.Header], findings: Findings) -> frozenset[str]:
    """Decode pictures and list those that cannot be used; return the ids of those that were decoded.

    All defects are decoded, and whatever has no readable header; of the normal pictures at most DECODED.
    """
    normals = [example for example in examples if example.defect is None and example.id in facts]
    count = min(DECODED, len(normals))
    chosen = {normals[int((number + 0.5) * len(normals) / count)].id for number in range(count)}
    if count < len(normals):
        findings.notes.append(
            f"{count} of {len(normals)} normal pictures, evenly spread, and all others were decoded; of the rest the "
            "headers were read, and exact copies were looked for by their bytes. `flawsmith run` decodes all"
        )
    chosen |= {example.id for example in examples if example.defect is not None or example.id not in facts}
    decoded = [example for example in examples if example.id in chosen]
    prints = fingerprints_of([example.image for example in decoded])
    broken = [(example.id, one.problem) for example, one in zip(decoded, prints, strict=True) if one.problem]
    unusable = grouped(broken, "1 picture cannot be used", "{} pictures cannot be used")
    findings.errors += [*unusable, *masks_among_normals(decoded)]
    faulty = [(example.id, one.fault) for example, one in zip(decoded, prints, strict=True) if one.fault]
    findings.warnings += grouped(faulty, "1 picture may be damaged", "{} pictures may be damaged")
    return frozenset(chosen)


def look_at_ranges(divided: Split, findings: Findings) -> dict[str, Range]:
    """Return each product's value range; say which it is, which values mean "not measured", and what is wrong."""
    ranges = {}
    for product, normals, shots in by_product(divided):
        try:
            one = survey_values(normals, shots)
        except FlawsmithError:
            continue  # a normal picture that cannot be read, which is named already
        ranges[product] = one.span
        findings.errors += mistakes(product, one)
        if one.span.depth > 8:
            findings.notes += _range_notes(product, one)
            if one.holes:
                findings.warnings.append(
                    f"{product}: {', '.join(f'{value:g}' for value in one.holes)} stands in shots alone, far from all "
                    "other values; where it means that nothing was measured, write NaN instead"
                )
            if not findings.errors and (flat := [shot.id for shot in shots if _is_cut_off(shot, one.span)]):
                shown = first_few(flat)
                findings.warnings.append(
                    f"{product}: most of the damage in {len(flat)} of {len(shots)} shots ({shown}) lies outside that "
                    "range, so it is seen as plain black or white; is the scale that of the normal pictures?"
                )
    return ranges


def _is_cut_off(shot: Example, span: Range) -> bool:
    native = images.read(shot.image)
    damage = native[read_label(shot, native.shape)]
    span = images.range_of(native, span)
    return bool(((damage < span.low) | (damage > span.high)).mean() > 0.5) if damage.size else False


def _range_notes(product: str, one: ValueSurvey) -> list[str]:
    span = one.span
    notes = [f"{product}: {span.rule}: {span.low:g}..{span.high:g} is black..white in all its pictures"]
    for missing in one.missing:
        pixels = "1 pixel" if missing.pixels == 1 else f"about {missing.pixels} pixels"
        notes.append(
            f"{product}: {missing.value:g} means that nothing was measured there ({pixels} in {missing.pictures} of "
            f"{one.pictures} normal pictures, e.g. {missing.example}); such pixels are left as they are"
        )
    return notes
