"""Show what a run made: report.html (one file, no network) and report.md with its pictures in report/."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith.config import Config, affecting, commented_toml
from flawsmith.errors import RunError
from flawsmith.evaluation.measure import metric_rows, metrics_sentence, read_metrics
from flawsmith.files import digest, write_bytes, write_text
from flawsmith.reporting.charts import loss_curve
from flawsmith.reporting.collect import Facts, changed_settings, gather, number_of, reasons, summary, verdict
from flawsmith.reporting.contact_sheets import COLUMNS, compose, jpeg
from flawsmith.reporting.gate_rows import gate_sentences, reason_table, threshold_table, yield_table
from flawsmith.reporting.html import html_page
from flawsmith.reporting.proof_markdown import proof_lines, table_lines
from flawsmith.reporting.sweep import sweep_sentence
from flawsmith.run.folder import Run
from flawsmith.run.stage import FOLLOWS, Inputs, is_done, stage


def report(run: Run) -> Path:
    """Write both reports and return the path of report.html.

    Every made pair is compared with its photograph first. When one breaks the exact-background rule, the reports are
    written all the same and say so, and then this raises.

    Raises:
        RunError: the run has no data yet, or a pair differs from its photograph outside its mask, has an empty mask or
            cannot be read; names the first.
    """
    path = run.path("report.html")
    with stage(run, "report", _inputs(run), there=False) as work:
        facts = gather(run)
        write_text(path, html_page(facts))
        _write_markdown(facts)
        work.what = f"{facts.exact.pairs} samples compared"
        if not facts.exact.holds:
            more = len(facts.exact.wrong) - 3
            first = "\n".join(facts.exact.wrong[:3]) + (f"\nand {more} more" if more > 0 else "")
            raise RunError(
                f"{path}: written, but the exact-background check failed; a photograph or a made file was changed "
                f"since; put the photograph back, or delete the made pictures and run again:\n{first}"
            )
    return path


def is_reported(run: Run) -> bool:
    """Return whether the reports on disk are of this configuration, these weights and these samples."""
    return is_done(run, "report", _inputs(run), [run.path("report.html"), run.path("report.md")])


def _inputs(run: Run) -> Inputs:
    """Return what the reports show: every setting, and what every stage made."""
    stages = {name: run.stage_hash(name) or "" for name in FOLLOWS if name != "report"}
    samples = digest([sample.to_json() for sample in run.samples()])
    return Inputs(affecting(run.config), affecting(Config()), {**stages, "samples": samples})


def _write_markdown(facts: Facts) -> None:
    """Write report.md and its pictures; what an earlier report left in report/ goes."""
    folder = facts.run.path("report")
    shutil.rmtree(folder, ignore_errors=True)
    lines = [f"# {', '.join(facts.products[:3]) or 'run'}: synthesised defects", "", summary(facts), ""]
    lines += [f"**{verdict(facts.exact)}**", ""]
    lines += [f"- {line}" for line in facts.exact.wrong[:12]] + ([""] if facts.exact.wrong else [])
    lines += proof_lines(facts.run, folder)
    lines += ["## Counts", "", *_counts(facts), ""]
    for number, sheet in enumerate(facts.sheets):
        name = f"{sheet.product}: {sheet.defect}"
        file = f"{number:02d}-{_plain_name(sheet.product)}-{_plain_name(sheet.defect)}.jpg"
        write_bytes(folder / file, jpeg(compose(sheet)))
        lines += [f"## {name}", ""]
        shots = f"Above: {number_of(len(sheet.shots), 'real shot')}. " if sheet.shots else ""
        made = f"Below: {len(sheet.rows)} of {number_of(sheet.of, 'made pair')}; columns: {', '.join(COLUMNS)}. "
        lines += [f"{shots}{made}Close-ups show {sheet.side} x {sheet.side} camera pixels.", ""]
        lines += [f"![contact sheet of {name}](report/{file})", ""]
    lines += _dial(facts, folder)
    lines += _screening(facts, folder)
    if measured := read_metrics(facts.run):
        lines += ["## Measures", "", metrics_sentence(measured), ""]
        for product in measured["products"]:
            lines += [*table_lines(*metric_rows(measured, product)), ""]
    if facts.losses:
        lines += ["## Training", ""]
    for number, (job, losses) in enumerate(facts.losses.items()):
        drawing = loss_curve(losses, job)
        lines += [f"{job}, {number_of(len(losses), 'step')}:", ""]
        if drawing.startswith("<svg"):
            file = f"loss-{number:02d}-{_plain_name(job)}.svg"
            write_text(folder / file, drawing)
            lines += [f"![loss of {job}](report/{file})", ""]
    lines += _data(facts) + _settings(facts) + _origin(facts)
    write_text(facts.run.path("report.md"), "\n".join(lines).rstrip() + "\n")


def _dial(facts: Facts, folder: Path) -> list[str]:
    name, rows = facts.sweep
    if not rows:
        return []
    lines = ["## Control", "", sweep_sentence(name), ""]
    for number, row in enumerate(rows):
        file = f"sweep-{number:02d}-{_plain_name(row.defect)}.jpg"
        write_bytes(folder / file, jpeg(np.concatenate(row.tiles, axis=1)))
        lines += [f"{row.product}: {row.defect}; from the left: {'; '.join(row.heads)}.", ""]
        lines += [f"![{row.defect} at several values of {name}](report/{file})", ""]
    return lines


def _screening(facts: Facts, folder: Path) -> list[str]:
    if not facts.gate:
        return []
    lines = ["## Screening", ""]
    for sentence in gate_sentences(facts.run, facts.gate):
        lines += [sentence, ""]
    for heads, rows in (yield_table(facts.run), threshold_table(facts.run, facts.gate), reason_table(facts.run)):
        lines += [*table_lines(heads, rows), ""] if rows else []
    for number, sheet in enumerate(facts.rejects):
        file = f"rejected-{number:02d}-{_plain_name(sheet.product)}.jpg"
        write_bytes(folder / file, jpeg(compose(sheet)))
        name = f"{sheet.product}, rejected: {sheet.defect}"
        lines += [f"### {name} ({len(sheet.rows)} of {sheet.of})", "", f"![{name}](report/{file})", ""]
    return lines


def _counts(facts: Facts) -> list[str]:
    rows: list[Sequence[Any]] = []
    for defect in facts.defects:
        why = "; ".join(reasons(defect, facts.run.config))
        rows.append(
            [defect.product, defect.defect, defect.shots, defect.test, defect.asked, defect.made, defect.given_up, why]
        )
    return table_lines(["product", "defect", "shots", "test", "asked", "made", "given up", "why"], rows)


def _data(facts: Facts) -> list[str]:
    split = facts.split
    rows: list[list[Any]] = [
        ["shots", len(split.shots)],
        ["normal parts", len(split.normals)],
        ["test defects", len(split.test_defects)],
        ["test normal parts", len(split.test_normals)],
        ["leak check", "passed by content when the set was divided"],
    ]
    told = [f"- {line}" for line in [*facts.data.get("notes", []), *facts.data.get("warnings", [])]]
    return ["## Data", "", *table_lines(["", ""], rows), "", *told, *([""] if told else [])]


def _settings(facts: Facts) -> list[str]:
    rows = changed_settings(facts.run.config)
    changed = table_lines(["setting", "value", "default"], rows) if rows else ["Every setting has its default."]
    return ["## Settings", "", *changed, "", "```toml", commented_toml(facts.run.config).rstrip(), "```", ""]


def _origin(facts: Facts) -> list[str]:
    back = facts.backbone
    rows: list[Sequence[Any]] = [
        ["generator", facts.run.config.generator.name],
        ["backbone", f"{back['name']}, {back['fingerprint']}" if back else "none"],
        ["data", facts.data.get("hash", "")],
        ["python", facts.manifest.get("python", "")],
        *facts.manifest.get("packages", {}).items(),
    ]
    times = [[row.get("stage", ""), row.get("what", ""), row.get("seconds", "")] for row in facts.log]
    lines = ["## Fingerprints, versions and times", "", *table_lines(["", ""], rows), ""]
    return lines + (table_lines(["stage", "what", "seconds"], times) if times else [])


def _plain_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_") or "x"
