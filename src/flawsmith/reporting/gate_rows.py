"""What the report says of the screening, as plain rows: the yield of each defect type, thresholds, reasons."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flawsmith.config import Config
from flawsmith.files import read_json
from flawsmith.run.folder import Run
from flawsmith.run.rounds import read_rounds
from flawsmith.screening.rounds import lacks

Table = tuple[list[str], list[list[Any]]]


def read_gate(run: Run) -> dict[str, Any] | None:
    """Return gate.json's tree, or None when the pairs that the run has now are not screened."""
    path = run.path("gate", "gate.json")
    if run.verdicts() is None or not path.is_file():
        return None
    tree: dict[str, Any] = read_json(path)
    return tree


def gate_sentences(run: Run, tree: dict[str, Any]) -> list[str]:
    """Return what was screened with what, and what must be known of it."""
    verdicts = list((run.verdicts() or {}).values())
    kept = sum(verdict.kept for verdict in verdicts)
    share = f" ({kept / len(verdicts):.0%})" if verdicts else ""
    rounds = len(read_rounds(run))
    told = [
        f"{kept} of {len(verdicts)} made pairs were kept{share}; features of {tree['extractor']['name']} "
        f"({tree['extractor']['fingerprint']}). Every score, threshold and reason is in scores.jsonl; "
        "`flawsmith screen --replay` gives the same verdicts on any folder."
    ]
    if rounds:
        told.append(f"What was lacking was planned again in {rounds} {'round' if rounds == 1 else 'rounds'}.")
    if repaired := sum(verdict.repair is not None for verdict in verdicts):
        told.append(f"{repaired} labels were fitted anew to what changed; the pairs as they were stay in samples/.")
    if run.config.screen.enabled and (short := lacks(run)):
        names = ", ".join(f"{number} of {defect}" for (_, defect), number in short.items())
        told.append(f"Still lacking after {run.config.screen.rounds} rounds at most: {names}.")
    if run.config.screen.enabled and not run.config.screen.keep_rejected:
        told.append("Rejected pictures were deleted, as screen.keep_rejected = false asks.")
    many = len(tree["products"]) > 1
    for product, own in tree["products"].items():
        told += [f"{product}: {line}." if many else f"{line[0].upper()}{line[1:]}." for line in own["notes"]]
    return told


def yield_table(run: Run) -> Table:
    """Return heads and rows: a defect type each, from planned to kept."""
    planned = Counter((line.product, line.defect) for line in run.plan())
    made = Counter((sample.product, sample.defect) for sample in run.samples() if sample.made)
    kept = Counter((one.product, one.defect) for one in (run.verdicts() or {}).values() if one.kept)
    rows = []
    for key in sorted(planned):
        share = f"{kept[key] / planned[key]:.0%}"
        rows.append([*key, planned[key], made[key], made[key] - kept[key], kept[key], share])
    return ["product", "defect", "planned", "made", "rejected", "kept", "yield"], rows


def threshold_table(run: Run, tree: dict[str, Any]) -> Table:
    """Return heads and rows: a product's score each, with its rule and how many pairs fell below it."""
    failed: Counter[tuple[str, str]] = Counter()
    for verdict in (run.verdicts() or {}).values():
        failed.update((verdict.product, reason.score) for reason in verdict.reasons)
    rows = []
    for product, own in tree["products"].items():
        for score, limit in own["limits"].items():
            left_out = own["left_out"].get(score)
            of_shots = f"{left_out['least']:.3g} to {left_out['greatest']:.3g}" if left_out else "not told"
            least = "" if limit is None else f"{limit:.3g}"
            rows.append([product, score, _rule(run.config, score), least, of_shots, failed[product, score]])
    return ["product", "score", "rule", "least", "left-out shots", "below"], rows


def reason_table(run: Run) -> Table:
    """Return heads and rows: a reason each, commonest first; a pair may have several."""
    counts: Counter[str] = Counter()
    for verdict in (run.verdicts() or {}).values():
        counts.update({reason.text: 1 for reason in verdict.reasons}.keys())
    return ["reason", "samples"], [[text, number] for text, number in counts.most_common()]


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
