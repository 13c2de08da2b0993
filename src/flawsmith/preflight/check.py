"""What is in the folder, what is wrong with it, and what a run will cost: `flawsmith check`.

Reads the set and writes nothing but the page that is asked for. Whatever would stop a run later is an error here, with
the files' names; whatever would only make it worse is a warning. Needs no network and imports none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median

from flawsmith.config import AUTO, Config, GeneratorConfig
from flawsmith.data import images
from flawsmith.data.layouts import survey
from flawsmith.data.masks.of_normals import marked_normals
from flawsmith.data.photographs import Photographs
from flawsmith.data.ranges import with_ranges
from flawsmith.data.split import (
    Split,
    duplicates,
    keeps_test,
    leaks,
    near_duplicate_warnings,
    near_duplicates,
    split,
    without_duplicates,
)
from flawsmith.errors import Answer, FlawsmithError
from flawsmith.evaluation.shape import distorted, proof_shape
from flawsmith.nn.loading.facts import BackboneFacts
from flawsmith.preflight import pictures
from flawsmith.preflight.backbone import look_over
from flawsmith.preflight.findings import DefectFacts, Findings
from flawsmith.preflight.masks import Damage, look_at_masks
from flawsmith.preflight.outlines import write_page
from flawsmith.preflight.parts import look_at_parts
from flawsmith.preflight.plan_cost import CHOSEN_FIRST, SetFacts, plan_cost
from flawsmith.preflight.proof_data import thin_grounds
from flawsmith.preflight.refuse import preflight
from flawsmith.run.defect_types import without_shots, wrong_tables
from flawsmith.synthesis.counts import counts
from flawsmith.types import Example


def check(config: Config, page: Path | None = None) -> Findings:
    """Look a set over without changing anything; problems are listed, never raised.

    Args:
        config: The whole configuration.
        page: Where to write a page of photographs with the outlines of what was understood; None = nowhere.
    """
    data = config.data
    findings = Findings(data.root, data.layout)
    if config.generator.name == AUTO:
        config = config.model_copy(update={"generator": GeneratorConfig()})
        findings.notes.append(CHOSEN_FIRST)
    try:
        surveyed = survey(data)
    except FlawsmithError as error:
        findings.add_errors(preflight(config, None))
        findings.refuse(error)
        return findings
    examples: Sequence[Example] = surveyed.examples
    findings.files = surveyed.ledger.uses
    findings.errors += [*surveyed.errors, *marked_normals(data.root, surveyed.normal_masks)]
    findings.warnings += surveyed.warnings
    findings.notes += surveyed.notes
    facts = pictures.describe(examples, findings)
    decoded = pictures.look_at(examples, facts, findings)
    examples, labels = look_at_masks(examples, facts, config, findings)
    damage = labels.damage
    divided = _divide(examples, config, findings, decoded)
    near = near_duplicates(divided) if divided else []
    findings.warnings += near_duplicate_warnings(divided, near) if divided else []
    findings.add_errors(preflight(config, divided))
    if divided and config.prove.enabled:
        away = {test.id for _, test in near} if config.prove.near_duplicates == "drop" else set[str]()
        findings.add_warnings(thin_grounds(config, divided, away))
        findings.warnings += _stretched(divided, facts, config)
        findings.notes += [config.why_no_rival] if config.why_no_rival else []
    labels.say(divided, findings)
    normals = look_at_parts(divided, findings) if divided else None
    if page is not None:
        labelled = [*divided.shots, *divided.test_defects] if divided else examples
        findings.notes += _drawn(page, labelled, divided, normals, data.root)
    have = Counter((example.product, example.defect) for example in examples if example.defect is not None)
    defects = {key: number for key, number in sorted(have.items(), key=str) if key[1] is not None}
    _tabulate(examples, divided, defects, damage, findings)
    drawn = without_shots(config, divided) if divided else []
    _check_defects(defects, drawn, config, findings)
    _say_counts(config, divided, findings)
    if facts:
        findings.facts = _set_facts(config, defects, damage, facts, divided)
        findings.estimate, costly = plan_cost(config, findings.facts, divided)
        findings.add_warnings(costly)
    return findings


def _backbone(config: Config) -> BackboneFacts | None:
    """Return what the backbone is; None where that is unknown, or `preflight` has said what is wrong with it."""
    try:
        return look_over(config.backbone.source, offline=config.backbone.offline)
    except FlawsmithError:
        return None


def _drawn(
    page: Path, examples: Sequence[Example], divided: Split | None, normals: Photographs | None, root: Path
) -> list[str]:
    """Write the page of outlines; return a sentence that says where it is, or why it is not; [] = nothing to show."""
    if page.is_dir():
        return [f"{page} is a folder, so no outlines are drawn; name a file with --page"]
    if page.resolve().is_relative_to(root.resolve()):
        return [f"{page} would lie among the photographs, so no outlines are drawn; name another place with --page"]
    try:
        number = write_page(page, examples, divided, normals)
    except FlawsmithError as error:
        return [f"no outlines are drawn: {error}"]
    photographs = "1 photograph" if number == 1 else f"{number} photographs"
    shown = f"{page} shows what was understood, on {photographs}; open it in a browser"
    return [shown] if number else []


def _divide(examples: Sequence[Example], config: Config, findings: Findings, decoded: frozenset[str]) -> Split | None:
    try:
        divided = split(examples, shots=config.data.shots, test=keeps_test(config))
    except FlawsmithError as error:
        if not findings.errors:  # the survey has said it better
            findings.refuse(error)
        return None
    divided = without_duplicates(divided, duplicates(divided, decoded))
    findings.notes += divided.notes
    findings.errors += leaks(divided, decoded)
    divided = with_ranges(divided, pictures.look_at_ranges(divided, findings))
    return divided


def _stretched(divided: Split, facts: dict[str, images.Header], config: Config) -> list[str]:
    """Name the products whose photographs are too unlike in shape to be proven at one; in tiles none is stretched."""
    sentences: list[str] = []
    if config.prove.tile:
        return sentences
    for product in sorted({shot.product for shot in divided.shots}):
        part = divided.of(product)
        normals, others = (
            [facts[example.id].shape for example in group if example.id in facts]
            for group in (part.normals, (*part.shots, *part.test_defects, *part.test_normals))
        )
        if normals and (sentence := distorted(proof_shape(config.prove, normals), [*normals, *others])):
            sentences.append(f"{product}: {sentence}; photographs of one shape prove best as a product of their own")
    return sentences


def _tabulate(
    examples: Sequence[Example],
    divided: Split | None,
    defects: dict[tuple[str, str], int],
    damage: dict[tuple[str, str], Damage],
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


def _say_counts(config: Config, divided: Split | None, findings: Findings) -> None:
    """Refuse a sentence that cannot be read, and a count that asks for nothing."""
    if divided is None:
        return
    try:
        counts(config, divided)
    except FlawsmithError as error:
        findings.refuse(error)


def _set_facts(
    config: Config,
    defects: dict[tuple[str, str], int],
    damage: dict[tuple[str, str], Damage],
    headers: dict[str, images.Header],
    divided: Split | None,
) -> SetFacts:
    windows = [number for one in damage.values() for number in one.windows]
    sizes = [(header.bytes, header.width * header.height) for header in headers.values()]
    proven = {shot.product for shot in divided.shots} if divided else set()
    shapes = Counter(
        (normal.product, headers[normal.id].shape)
        for normal in (divided.normals if divided else ())
        if normal.product in proven and normal.id in headers
    )
    return SetFacts(
        defects=tuple((*key, number) for key, number in defects.items()),
        shapes=tuple((*key, number) for key, number in sorted(shapes.items())),
        windows=mean(windows) if windows else 1.0,
        picture_bytes=median(size for size, _ in sizes),
        largest=max(sizes),
        damaged=max((share for one in damage.values() for share in one.share), default=0.0) * max(sizes)[1],
        photographs=len(divided.shots) + len(divided.normals) if divided else len(headers),
        backbone=_backbone(config),
    )


def _check_defects(
    defects: dict[tuple[str, str], int], drawn: list[tuple[str, str]], config: Config, findings: Findings
) -> None:
    names = {defect for _, defect in (*defects, *drawn)}
    if drawn:
        types = ", ".join(dict.fromkeys(defect for _, defect in drawn))
        findings.notes.append(f"made without a shot: {types} (generate.without_shots.types)")
    if drawn and not config.data.shots and (config.prove.enabled or config.screen.enabled):
        findings.notes.append(
            "no real defect is learned from, so screening and the proof are left out (docs/how-to/zero-shots.md); the "
            "normal parts to test are kept for a proof to come"
        )
    findings.errors += wrong_tables(config, names) if names else []
    by_product: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for (product, defect), number in defects.items():
        by_product[product].append((number, defect))
    for product, numbers in sorted(by_product.items()):
        (least, rare), (most, common) = min(numbers), max(numbers)
        if most >= 3 * least and isinstance(config.generate.count, int):  # a table is a choice of its own
            balance = Answer("generate.count", "balance")
            sentence = f"{product}: {rare} has {least} pictures, {common} {most}; {balance} fills the gap"
            findings.add_warnings({sentence: (balance,)})
