"""The proof as a section of the report: verdicts first, then intervals, arms, curve, artefacts, pictures."""

from __future__ import annotations

from html import escape
from typing import Any

from flawsmith.evaluation.arms import OURS, REAL
from flawsmith.evaluation.statistics import ALL, MEAN, TASKS
from flawsmith.reporting.charts import gain_curve, intervals
from flawsmith.reporting.markup import listed, picture, table
from flawsmith.reporting.proof_rows import (
    FIGURES,
    TELLING_COLUMNS,
    arm_rows,
    artefact_rows,
    artefact_sentence,
    comparison,
    confusion_rows,
    curve_points,
    headline,
    interval_rows,
    kind_rows,
    pairs_compared,
    ruler,
    tellings,
    verdict_rows,
)
from flawsmith.run.folder import Run

_BUDGET = 24_000


def proof_section(run: Run, proof: dict[str, Any]) -> str:
    """Return the section's HTML, a part a product."""
    many = len(proof["products"]) > 1
    return "".join(_product(run, proof, product, many) for product in proof["products"])


def _product(run: Run, proof: dict[str, Any], product: str, many: bool) -> str:
    own = proof["products"][product]
    parts = [f"<h3>{escape(product)}</h3>"] if many else []
    parts += [f'<p class="lead">{escape(headline(proof, product))}</p>', f"<p>{escape(ruler(proof, product))}</p>"]
    notes = [*proof["reduced"], *own["notes"]]
    parts += [listed(notes)] if notes else []
    heads = ["Kind", *(f"{name} ({figure})" for name, figure in TASKS.values())]
    for number, (arm, against) in enumerate(pairs_compared(proof, product)):
        rows = comparison(proof, product, arm, against)
        body = table(heads, verdict_rows(rows))
        if number == 0:
            drawn = "".join(
                f"<div><h4>{escape(f'{name}, {figure}')}</h4>"
                f"{intervals(shown, f'{name}: {arm} against {against}', unit='points of 100')}</div>"
                for task, (name, figure) in TASKS.items()
                if (shown := interval_rows(rows, task))
            )
            parts += [f"<h3>{escape(f'{arm} against {against}')}</h3>", body, f'<div class="plots">{drawn}</div>']
        else:
            parts.append(f"<details><summary>{escape(f'{arm} against {against}')}</summary>{body}</details>")
    means = ["Trained on", "What", *(f"#{name}" for _, _, name in FIGURES)]
    parts += ["<h3>Every arm, means over defect types</h3>", table(means, arm_rows(proof, product))]
    if best := arm_rows(proof, product, best=True):
        parts += ["<h3>Best on test (the papers' way: the epoch was chosen by the test set)</h3>", table(means, best)]
    defects = ["Pixel AP", *(f"#{defect}" for defect in (*own["defects"], MEAN, ALL))]
    parts += [
        "<h3>Pixel AP of each defect type (its pictures and all normal ones)</h3>",
        table(defects, kind_rows(proof, product)),
    ]
    for arm in (OURS, REAL):
        if calls := confusion_rows(proof, product, arm):
            heads = ["Real defect type, called …", *(f"#{defect}" for defect in own["defects"])]
            parts.append(
                f"<details><summary>Which defect type is called which, {arm}</summary>{table(heads, calls)}</details>"
            )
    if curves := _curves(proof, product):
        parts += ["<h3>How many pairs help most</h3>", f'<div class="plots">{curves}</div>']
    if artefacts := artefact_rows(proof, product):
        names = ["Trained on", "#Artefact score", "#Heat, repainted", "#Heat, untouched"]
        parts += ["<h3>Controls</h3>", f"<p>{escape(artefact_sentence(proof, product))}</p>", table(names, artefacts)]
    return "".join(parts) + _tellings(run, proof, product)


def _curves(proof: dict[str, Any], product: str) -> str:
    drawn = []
    for task, (name, figure) in TASKS.items():
        points = curve_points(proof, product, task)
        if len(points) > 2:
            drawing = gain_curve(points, f"{name} against pairs a shot", unit=f"mean {figure}")
            drawn.append(f"<div><h4>{escape(f'{name}, {figure}')}</h4>{drawing}</div>")
    return "".join(drawn)


def _tellings(run: Run, proof: dict[str, Any], product: str) -> str:
    shown = tellings(run, proof, product)
    parts = []
    for what in ("gained", "lost"):
        if own := [one for one in shown if one.what == what]:
            rows = "".join(
                '<figure><div class="row three">'
                + "".join(picture(tile, name, _BUDGET) for tile, name in zip(one.tiles, TELLING_COLUMNS, strict=True))
                + f"</div><figcaption>{escape(one.caption)}</figcaption></figure>"
                for one in own
            )
            heads = "".join(f"<div>{escape(name)}</div>" for name in TELLING_COLUMNS)
            parts.append(
                f"<details><summary>Where the detector {what} most with our pairs ({len(own)} pictures)</summary>"
                f'<div class="telling"><div class="heads three">{heads}</div>{rows}</div></details>'
            )
    return "".join(parts)
