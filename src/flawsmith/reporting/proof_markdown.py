"""The proof as lines of report.md, with its drawings beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flawsmith.evaluation.statistics import ALL, MEAN, TASKS
from flawsmith.files import write_text
from flawsmith.reporting.charts import intervals
from flawsmith.reporting.proof_rows import (
    FIGURES,
    arm_rows,
    artefact_rows,
    artefact_sentence,
    comparison,
    headline,
    interval_rows,
    kind_rows,
    pairs_compared,
    read_proof,
    ruler,
    verdict_rows,
)
from flawsmith.run.folder import Run


def proof_lines(run: Run, folder: Path) -> list[str]:
    """Return the section, [] when nothing is proven yet; drawings go into `folder`, which stands beside report.md."""
    proof = read_proof(run)
    if proof is None:
        return []
    lines = ["## Do the pairs help?", ""]
    for number, product in enumerate(proof["products"]):
        lines += _product(proof, product, folder, number)
    return lines


def _product(proof: dict[str, Any], product: str, folder: Path, number: int) -> list[str]:
    own = proof["products"][product]
    lines = [f"**{headline(proof, product)}**", "", ruler(proof, product), ""]
    notes = [*proof["reduced"], *own["notes"]]
    lines += [f"- {note}" for note in notes] + ([""] if notes else [])
    heads = ["defect", *(f"{name} ({figure})" for name, figure in TASKS.values())]
    for place, (arm, against) in enumerate(pairs_compared(proof, product)):
        rows = comparison(proof, product, arm, against)
        lines += [f"### {arm} against {against}", "", *table_lines(heads, verdict_rows(rows)), ""]
        for task, (name, _) in TASKS.items():
            shown = interval_rows(rows, task)
            if place == 0 and shown:
                file = f"proof-{number:02d}-{name}.svg"
                write_text(folder / file, intervals(shown, f"{name}: {arm} against {against}", unit="points of 100"))
                lines += [f"![{name}: {arm} against {against}](report/{file})", ""]
    means = ["trained on", "what", *(name for _, _, name in FIGURES)]
    lines += ["### Every arm, means over defect types", "", *table_lines(means, arm_rows(proof, product)), ""]
    if best := arm_rows(proof, product, best=True):
        lines += ["### Best on test (the epoch was chosen by the test set)", "", *table_lines(means, best), ""]
    defects = ["pixel AP", *own["defects"], MEAN, ALL]
    lines += ["### Pixel AP of each defect type", "", *table_lines(defects, kind_rows(proof, product)), ""]
    if artefacts := artefact_rows(proof, product):
        names = ["trained on", "artefact score", "anomaly_map, repainted", "anomaly_map, untouched"]
        lines += ["### Controls", "", artefact_sentence(proof, product), "", *table_lines(names, artefacts), ""]
    return lines


def table_lines(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return a Markdown table."""

    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(heads), line(["---"] * len(heads)), *(line(row) for row in rows)]
