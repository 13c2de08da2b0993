"""The report as one HTML file: styles, pictures and diagrams inside it, no script, nothing from the network."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from flawsmith.config import commented_toml
from flawsmith.evaluation.measure import metric_rows, metrics_sentence, read_metrics
from flawsmith.reporting.charts import loss_curve, share_histogram
from flawsmith.reporting.collect import DefectFacts, Facts, changed_settings, number_of, reasons, summary, verdict
from flawsmith.reporting.contact_sheets import COLUMNS, Row, Sheet
from flawsmith.reporting.gate_rows import gate_sentences, reason_table, threshold_table, yield_table
from flawsmith.reporting.markup import listed, picture, table
from flawsmith.reporting.proof_html import proof_section
from flawsmith.reporting.proof_rows import read_proof
from flawsmith.reporting.sweep import sweep_sentence

PICTURE_BYTES = 10_000_000
"""All pictures of a page together, before base64 makes a third more of them."""
_MOST_SHOWN = 12


def html_page(facts: Facts) -> str:
    """Return the whole page."""
    title = f"{', '.join(facts.products[:3]) or 'run'}: synthesised defects"
    tiles = sum(len(row.tiles) for row in facts.sweep[1]) + sum(
        len(sheet.shots) + len(sheet.rows) * len(COLUMNS) for sheet in (*facts.sheets, *facts.rejects)
    )
    budget = PICTURE_BYTES // max(1, tiles)
    style = files("flawsmith.stages").joinpath("report.css").read_text(encoding="utf-8")
    by_defect = {(defect.product, defect.defect): defect for defect in facts.defects}
    sections = []
    if proof := read_proof(facts.run):
        sections.append(("proof", "Do the pairs help?", proof_section(facts.run, proof)))
    sections.append(("counts", "Counts", _counts(facts)))
    for number, sheet in enumerate(facts.sheets):
        defect = by_defect[sheet.product, sheet.defect]
        sections.append(
            (f"defect type-{number}", _name(facts, sheet.product, sheet.defect), _defect(facts, sheet, defect, budget))
        )
    if facts.sweep[1]:
        sections.append(("sweep", "Control", _dial(facts, budget)))
    if facts.gate:
        sections.append(("screening", "Screening", _screening(facts, facts.gate, budget)))
    if measured := read_metrics(facts.run):
        sections.append(("measures", "Measures", _measures(measured)))
    if facts.losses:
        sections.append(("training", "Training", _training(facts)))
    sections += [
        ("data", "Data", _data(facts)),
        ("settings", "Settings", _settings(facts)),
        ("origin", "Fingerprints, versions and times", _origin(facts)),
    ]
    links = "".join(f'<a href="#{place}">{escape(name)}</a>' for place, name, _ in sections)
    body = "".join(f'<section id="{place}"><h2>{escape(name)}</h2>{text}</section>' for place, name, text in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n<body><main>"
        f'<header><p class="over">flawsmith report</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(summary(facts))}</p></header>'
        f"{_verdict(facts)}{_figures(facts)}<nav>{links}</nav>\n{body}\n"
        f"<footer>Run folder {escape(facts.run.folder.name)}. Generated pictures are synthetic: what was learned from them "
        "must be tested on real parts.</footer></main></body></html>\n"
    )


def _verdict(facts: Facts) -> str:
    exact = facts.exact
    listed = exact.wrong[:_MOST_SHOWN]
    more = len(exact.wrong) - len(listed)
    lines = "".join(f"<li>{escape(line)}</li>" for line in listed)
    lines += f"<li>and {more} more</li>" if more else ""
    tail = f"<ul>{lines}</ul>" if lines else ""
    return f'<div class="verdict {"good" if exact.holds else "bad"}">{escape(verdict(exact))}{tail}</div>'


def _figures(facts: Facts) -> str:
    given_up = sum(defect.given_up for defect in facts.defects)
    shown = [
        (f"{facts.kept:,}", "labelled pairs kept" if facts.gate else "labelled pairs made"),
        (str(sum(1 for defect in facts.defects if defect.made)), "defect types"),
        (str(len(facts.split.shots)), "real shots learned from"),
        (f"{given_up:,}", "pairs given up"),
        *([(f"{facts.made - facts.kept:,}", "pairs rejected by the gate")] if facts.gate else []),
        (f"{facts.exact.differing:,}", "pixels changed outside a mask"),
    ]
    return (
        '<div class="figures">'
        + "".join(f"<div class=figure><b>{a}</b><span>{b}</span></div>" for a, b in shown)
        + "</div>"
    )


def _counts(facts: Facts) -> str:
    many = len(facts.products) > 1
    heads = [*(["Product"] if many else []), "Kind", "#Shots", "#Test", "#Asked", "#Generated", "#Given up", "Why"]
    rows = []
    for defect in facts.defects:
        numbers = [defect.shots, defect.test, defect.asked, defect.made, defect.given_up]
        why = "; ".join(reasons(defect, facts.run.config))
        rows.append([*([defect.product] if many else []), defect.defect, *numbers, why])
    sums = [
        sum(getattr(defect, name) for defect in facts.defects)
        for name in ("shots", "test", "asked", "made", "given_up")
    ]
    rows.append([*([""] if many else []), "all", *sums, ""])
    text = (
        "Shots are the real defects that were learned from; test are the real defects that were kept apart and never "
        "looked at. A pair is given up when too little of its mask was visibly painted."
    )
    return f"<p>{text}</p>{table(heads, rows, total=True)}"


def _defect(facts: Facts, sheet: Sheet, defect: DefectFacts, budget: int) -> str:
    told = f"{number_of(defect.kept, 'pair')} of {defect.asked} {'planned kept' if facts.gate else 'asked'}"
    if phrases := reasons(defect, facts.run.config):
        told += f" ({'; '.join(phrases)})"
    head = (
        f"<div><p>{escape(told)}. Close-ups, real and made, show {sheet.side} x {sheet.side} camera pixels.</p></div>"
    )
    if defect.made_shares or defect.given_up_shares:
        least = facts.run.config.generate.min_painted
        head += f"<div>{share_histogram(defect.made_shares, defect.given_up_shares, least)}</div>"
    parts = [f'<div class="kindhead">{head}</div>']
    if sheet.shots:
        strip = "".join(_shot(tile, name, budget) for name, tile in sheet.shots)
        of = f"{len(sheet.shots)} of {defect.shots}" if defect.shots > len(sheet.shots) else f"all {defect.shots}"
        parts.append(f"<h3>Real shots ({of}), at the zoom of the close-ups below</h3>")
        parts.append(f'<div class="wide"><div class="shots"><div class="row">{strip}</div></div></div>')
    if sheet.rows:
        heads = "".join(f"<div>{escape(name)}</div>" for name in COLUMNS)
        rows = "".join(_row(row, budget) for row in sheet.rows)
        spread = f"{len(sheet.rows)} of {sheet.of}, evenly spread" if sheet.of > len(sheet.rows) else f"all {sheet.of}"
        parts.append(f"<h3>Generated pairs ({spread})</h3>")
        parts.append(f'<div class="wide"><div class="rows"><div class="heads">{heads}</div>{rows}</div></div>')
        parts.append('<p class="legend">where: red = outline of the mask, blue = frame of the close-up.</p>')
    else:
        parts.append("<p>No pair of this defect type was made.</p>")
    return "".join(parts)


def _row(row: Row, budget: int) -> str:
    tiles = "".join(picture(tile, name, budget) for tile, name in zip(row.tiles, COLUMNS, strict=True))
    return f'<figure><div class="row">{tiles}</div><figcaption>{escape(row.caption)}</figcaption></figure>'


def _dial(facts: Facts, budget: int) -> str:
    name, rows = facts.sweep
    parts = [f"<p>{escape(sweep_sentence(name))}</p>"]
    for row in rows:
        where = f"{row.product}: " if len(facts.products) > 1 else ""
        tiles = "".join(picture(tile, head, budget) for tile, head in zip(row.tiles, row.heads, strict=True))
        told = escape("; ".join(row.heads))
        parts.append(f"<h3>{escape(where + row.defect)}</h3>")
        parts.append(f'<figure><div class="row">{tiles}</div><figcaption>{told}</figcaption></figure>')
    return "".join(parts)


def _screening(facts: Facts, tree: dict[str, Any], budget: int) -> str:
    parts = [f"<p>{escape(line)}</p>" for line in gate_sentences(facts.run, tree)]
    for heads, rows in (yield_table(facts.run), threshold_table(facts.run, tree), reason_table(facts.run)):
        parts.append(table(heads, rows))
    for sheet in facts.rejects:
        where = f"{sheet.product}: " if len(facts.products) > 1 else ""
        parts.append(f"<h3>Rejected, {escape(where + sheet.defect)} ({len(sheet.rows)} of {sheet.of})</h3>")
        heads_ = "".join(f"<div>{escape(name)}</div>" for name in COLUMNS)
        rows_ = "".join(_row(row, budget) for row in sheet.rows)
        parts.append(f'<div class="wide"><div class="rows"><div class="heads">{heads_}</div>{rows_}</div></div>')
    return "".join(parts)


def _measures(tree: dict[str, Any]) -> str:
    parts = [f"<p>{escape(metrics_sentence(tree))}</p>"]
    for product in tree["products"]:
        heads, rows = metric_rows(tree, product)
        parts += [f"<h3>{escape(product)}</h3>"] if len(tree["products"]) > 1 else []
        parts.append(table(heads, rows))
    return "".join(parts)


def _training(facts: Facts) -> str:
    parts = [
        '<p class="legend"><span class="key" style="color:#a9cbd8"></span>loss of each step'
        '<span class="key" style="color:#0b6e8a"></span>running mean. The loss of a diffusion model falls little and '
        "stays noisy, for each step draws another noise level; judge by the pictures.</p>"
    ]
    for job, losses in facts.losses.items():
        parts.append(f"<h3>{escape(job)}, {number_of(len(losses), 'step')}</h3>{loss_curve(losses, job)}")
    return "".join(parts)


def _data(facts: Facts) -> str:
    split, config = facts.split, facts.run.config
    rows: list[list[Any]] = [
        ["Folder", str(config.data.root)],
        ["Layout", config.data.layout],
        ["Shots (learned from)", len(split.shots)],
        ["Sound parts (learned from and painted on)", len(split.normals)],
        ["Test defects (kept apart)", len(split.test_defects)],
        ["Test normal parts (kept apart)", len(split.test_normals)],
        ["Leak check", "passed by content when the set was divided: no test picture is also learned from"],
    ]
    parts = [table([], rows)]
    for name, key in (("Notes on the split", "notes"), ("Warnings", "warnings")):
        if lines := facts.data.get(key):
            parts.append(f"<h3>{name}</h3>" + listed(lines))
    return "".join(parts)


def _settings(facts: Facts) -> str:
    changed = changed_settings(facts.run.config)
    rows = [[f"{key}", _plain(value), _plain(default)] for key, value, default in changed]
    shown = table(["Setting", "Value", "Default"], rows, mono=True) if rows else "<p>Every setting has its default.</p>"
    full = f"<details><summary>All settings</summary><pre>{escape(commented_toml(facts.run.config))}</pre></details>"
    return f"<p>What differs from the defaults:</p>{shown}{full}" if rows else f"{shown}{full}"


def _origin(facts: Facts) -> str:
    back = facts.backbone
    rows: list[list[Any]] = [
        ["Generator", facts.run.config.generator.name],
        ["Backbone", back["name"] if back else "none"],
        *([["Backbone fingerprint", back["fingerprint"]]] if back else []),
        ["Data fingerprint", facts.data.get("hash", "")],
        ["Seed", facts.run.config.seed],
        ["Started", facts.manifest.get("started", "")],
        ["Python", facts.manifest.get("python", "")],
        ["Machine", f"{facts.manifest.get('platform', '')}, {facts.manifest.get('processors', '?')} processors"],
        *([name, version] for name, version in facts.manifest.get("packages", {}).items()),
    ]
    parts = [table([], rows)]
    if facts.log:
        lines = [
            [row.get("at", ""), row.get("stage", ""), row.get("what", ""), _time(row.get("seconds"))]
            for row in facts.log
        ]
        parts.append("<h3>Times</h3>" + table(["When", "Stage", "What", "#Took"], lines[-60:]))
    return "".join(parts)


def _shot(tile: np.ndarray, name: str, budget: int) -> str:
    short = name.rsplit("/", 1)[-1]
    return (
        f'<figure title="{escape(name)}">{picture(tile, name, budget)}<figcaption>{escape(short)}</figcaption></figure>'
    )


def _name(facts: Facts, product: str, defect: str) -> str:
    return f"{product}: {defect}" if len(facts.products) > 1 else defect


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _time(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return ""
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
