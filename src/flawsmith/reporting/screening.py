"""The section on screening: what was kept, the thresholds, and the reasons of what was rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from flawsmith.config import Config
from flawsmith.files import read_json, reading
from flawsmith.reporting.contact_sheets import COLUMNS, ContactSheet
from flawsmith.reporting.document import Section, Sheet, Table, number_of, plain_name, table
from flawsmith.run.folder import Run
from flawsmith.run.screened import read_rounds
from flawsmith.screening.rounds import lacks


def screening_section(run: Run, rejects: Sequence[ContactSheet]) -> Section | None:
    """Return the section, or None when the samples that the run has now are not screened.

    Args:
        run: A run.
        rejects: Sheets of what the gate rejected, one per product and reason.
    """
    path = run.path("gate", "gate.json")
    if run.verdicts() is None or not path.is_file():
        return None
    gate = read_json(path)
    with reading(path, "screen again"):
        sentences, thresholds = _sentences(run, gate), _threshold_table(run, gate)
        notes = tuple(f"{product}: {note}" for product, fitted in gate["products"].items() for note in fitted["notes"])
    return Section(
        "Screening",
        sentences=sentences,
        notes=notes,
        tables=(_yield_table(run), thresholds, _reason_table(run)),
        subsections=tuple(_rejected(sheet, number) for number, sheet in enumerate(rejects)),
    )


def _sentences(run: Run, gate: dict[str, Any]) -> tuple[str, ...]:
    """Return what was screened with what, and what a reader must know of it."""
    config, verdicts = run.config.screen, list((run.verdicts() or {}).values())
    kept = sum(verdict.kept for verdict in verdicts)
    share = f" ({kept / len(verdicts):.0%})" if verdicts else ""
    rounds = len(read_rounds(run))
    sentences = [
        f"{kept} of {len(verdicts)} samples were kept{share}; features of {gate['extractor']['name']} "
        f"({gate['extractor']['fingerprint']}). Every score, threshold and reason is in scores.jsonl; "
        "`flawsmith screen --replay` gives the same verdicts on any folder."
    ]
    if rounds:
        sentences.append(f"What was lacking was planned again in {number_of(rounds, 'round')}.")
    if repaired := sum(verdict.repair is not None for verdict in verdicts):
        sentences.append(f"{repaired} labels were fitted anew to what changed; the first labels stay in samples/.")
    if config.enabled and (short := lacks(run)):
        names = ", ".join(f"{defect} ({number})" for (_, defect), number in short.items())
        sentences.append(f"Still lacking after at most {number_of(config.rounds, 'round')}: {names}.")
    if config.enabled and not config.keep_rejected:
        sentences.append("Rejected pictures were deleted, as screen.keep_rejected = false asks.")
    return tuple(sentences)


def _yield_table(run: Run) -> Table:
    """Return a row per defect type, from planned to kept."""
    planned = run.planned()
    generated = Counter((sample.product, sample.defect) for sample in run.samples() if sample.made)
    kept = Counter((verdict.product, verdict.defect) for verdict in (run.verdicts() or {}).values() if verdict.kept)
    rows = [
        [*key, planned[key], generated[key], generated[key] - kept[key], kept[key], f"{kept[key] / planned[key]:.0%}"]
        for key in sorted(planned)
    ]
    heads = ("Product", "Defect type", "Planned", "Generated", "Rejected", "Kept", "Yield")
    return table(heads, rows, numbers=range(2, 7))


def _threshold_table(run: Run, gate: dict[str, Any]) -> Table:
    """Return a row per product and score: its rule, its threshold, and how many samples fell below it."""
    below: Counter[tuple[str, str]] = Counter()
    for verdict in (run.verdicts() or {}).values():
        below.update((verdict.product, reason.score) for reason in verdict.reasons)
    rows = []
    for product, fitted in gate["products"].items():
        for score, limit in fitted["limits"].items():
            left_out = fitted["left_out"].get(score)
            of_shots = f"{left_out['least']:.3g} – {left_out['greatest']:.3g}" if left_out else ""
            threshold = "" if limit is None else f"{limit:.3g}"
            rows.append([product, score, _rule(run.config, score), threshold, of_shots, below[product, score]])
    heads = ("Product", "Score", "Rule", "Threshold", "Left-out shots", "Samples below")
    return table(heads, rows, numbers=range(5, 6))


def _reason_table(run: Run) -> Table:
    """Return a row per reason, the commonest first; a sample may have several."""
    counts: Counter[str] = Counter()
    for verdict in (run.verdicts() or {}).values():
        counts.update({reason.text: 1 for reason in verdict.reasons}.keys())
    return table(("Reason", "Samples"), counts.most_common(), numbers=range(1, 2))


def _rule(config: Config, score: str) -> str:
    rule = config.screen.rule_of(score)
    if isinstance(rule, str):
        return "recorded only"
    name, number = next(iter(rule.items()))
    return {
        "absolute": f"at least {number:g}",
        "quantile": f"quantile {number:g} of shots",
        "keep": f"best {number:g}",
    }[name]


def _rejected(sheet: ContactSheet, number: int) -> Section:
    title = f"Rejected: {sheet.title} ({sheet.product}, {len(sheet.rows)} of {sheet.total})"
    name = f"rejected-{number:02d}-{plain_name(sheet.product)}"
    return Section(title, sheets=(Sheet(f"{sheet.product}, rejected: {sheet.title}", name, COLUMNS, sheet.rows),))
