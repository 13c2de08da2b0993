"""The sections of a report, made from what `collect.py` read; proof and screening have files of their own."""

from __future__ import annotations

from typing import Any

from flawsmith.config import Config, commented_toml
from flawsmith.files import read_json, read_lines, reading
from flawsmith.reporting.charts import loss_curve, share_histogram
from flawsmith.reporting.collect import DefectCounts, Facts, changed_settings
from flawsmith.reporting.contact_sheets import COLUMNS, ContactSheet, opening_sheet
from flawsmith.reporting.document import (
    Document,
    Drawing,
    KeyFigure,
    PictureRow,
    Section,
    Sheet,
    Table,
    number_of,
    plain_name,
    table,
)
from flawsmith.reporting.explanations import attention_section
from flawsmith.reporting.proof import proof_section
from flawsmith.reporting.screening import screening_section
from flawsmith.reporting.sweep import Sweep
from flawsmith.reporting.verdict import NO_SHOTS, verdict_of
from flawsmith.run.folder import Run

_MOST_PROBLEMS = 12
_MOST_TIMES = 60
_REFUSED = {
    "empty": "{number} with no damage drawn at all {tries}",
    "overflow": "{number} with damage drawn over too much of the window {tries}",
}
"""What a generator's own words for a refusal mean."""


def document_of(facts: Facts) -> Document:
    """Return the whole report."""
    sections = [
        proof_section(facts.run, facts.split),
        _counts(facts),
        *(_defect(facts, sheet, number) for number, sheet in enumerate(facts.sheets)),
        _sweep(facts.sweep) if facts.sweep else None,
        attention_section(facts.run),
        screening_section(facts.run, facts.rejects),
        _metrics(facts.run),
        _training(facts) if facts.losses else None,
        _data(facts),
        _settings(facts.run.config),
        _provenance(facts),
    ]
    wrong = facts.exact.wrong
    more = len(wrong) - _MOST_PROBLEMS
    return Document(
        title=f"{', '.join(facts.products[:3]) or 'run'}: synthesised defects",
        opening=opening_sheet(facts.sheets),
        proof=verdict_of(facts.run) or ("" if facts.split.shots else f"The samples are not proven: {NO_SHOTS}."),
        summary=summary(facts),
        exact=facts.exact.holds,
        verdict=facts.exact.verdict,
        problems=(*wrong[:_MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])),
        figures=_key_figures(facts),
        sections=tuple(section for section in sections if section),
        footer=f"Run folder {facts.run.folder.name}. Generated pictures are synthetic: what was learned from them "
        "must be tested on real parts.",
    )


def summary(facts: Facts) -> str:
    """Return the report's first paragraph."""
    exact, generator = facts.exact, facts.run.config.generator.label
    if facts.backbone:
        generator = f"{generator} on the backbone {facts.backbone.name}"
    types, shots = sum(1 for defect in facts.defects if defect.kept), len(facts.split.shots)
    many = len(facts.products) > 3
    products = number_of(len(facts.products), "product") if many else ", ".join(facts.products)
    kept, rejected, given_up, waiting = (facts.total(name) for name in ("kept", "rejected", "given_up", "open"))
    turned_down = facts.total("turned_down")
    sentences = [
        f"{number_of(kept, 'labelled sample')} of {number_of(types, 'defect type')} of {products} "
        f"{'was' if kept == 1 else 'were'} generated from {number_of(shots, 'real defect photograph')} "
        f"(shots) by {generator}."
    ]
    if exact.holds and not exact.whole:
        sentences.append(
            "Each sample is a photograph of a normal part with painted damage, and a mask that marks every changed "
            "pixel."
        )
    else:
        sentences.append("Each sample is a photograph of a normal part with painted damage, and a mask.")
    if exact.whole:
        sentences.append(f"{number_of(exact.whole, 'sample')}: the window round the damage is synthetic throughout.")
    if rejected:
        sentences.append(f"The quality gate rejected {number_of(rejected, 'more sample')}.")
    if turned_down:
        sentences.append(f"People rejected {number_of(turned_down, 'more sample')}.")
    if given_up:
        were = "was" if given_up == 1 else "were"
        sentences.append(f"{number_of(given_up, 'sample')} {were} given up; the table says why.")
    if waiting:
        are = "is" if waiting == 1 else "are"
        sentences.append(f"{number_of(waiting, 'planned sample')} {are} not generated yet.")
    return " ".join(sentences)


def _key_figures(facts: Facts) -> tuple[KeyFigure, ...]:
    figures = [
        KeyFigure(f"{facts.total('kept'):,}", _made(facts)),
        KeyFigure(str(sum(1 for defect in facts.defects if defect.generated)), "defect types"),
        KeyFigure(str(len(facts.split.shots)), "real shots learned from"),
        KeyFigure(f"{facts.total('given_up'):,}", "samples given up"),
    ]
    if facts.screened:
        figures.append(KeyFigure(f"{facts.total('rejected'):,}", "samples rejected by the gate"))
    if turned_down := facts.total("turned_down"):
        figures.append(KeyFigure(f"{turned_down:,}", "samples rejected by people"))
    return (*figures, KeyFigure(f"{facts.exact.differing:,}", "pixels changed outside a mask"))


def _made(facts: Facts) -> str:
    return "labelled samples kept" if _is_chosen(facts) else "labelled samples generated"


def _is_chosen(facts: Facts) -> bool:
    """Return whether the gate or people had a say, so that a sample that was generated may not stand."""
    return facts.screened or facts.total("turned_down") > 0


def _counts(facts: Facts) -> Section:
    numbers = ("shots", "test", "planned", "generated", "given_up")
    rows = [
        [
            defect.product,
            defect.defect,
            *(getattr(defect, name) for name in numbers),
            "; ".join(_reasons(defect, facts.run.config)),
        ]
        for defect in facts.defects
    ]
    rows.append(["", "all defect types", *(facts.total(name) for name in numbers), ""])
    heads = ("Product", "Defect type", "Shots", "Test", "Planned", "Generated", "Given up", "Why")
    text = (
        "Shots are the real defects that were learned from; test counts the real defects that were kept apart and "
        "never looked at. A sample is given up when too little of its mask was visibly painted."
    )
    return Section("Counts", sentences=(text,), tables=(table(heads, rows, numbers=range(2, 7), total=True),))


def _reasons(defect: DefectCounts, config: Config) -> list[str]:
    """Return why samples of a defect type were given up or are missing, as phrases with their number."""
    attempts = config.generate.attempts
    tries = "at the only try" if attempts == 1 else f"in any of {attempts} tries"
    phrases = []
    for status, number in defect.given_up_because.items():
        if status == "invisible":
            phrases.append(f"{number} showed less than {config.generate.min_painted:.0%} of the mask {tries}")
        elif status in _REFUSED:
            phrases.append(_REFUSED[status].format(number=number, tries=tries))
        else:
            phrases.append(f"{number} {status}")
    return phrases + ([f"{defect.open} not generated yet"] if defect.open else [])


def _defect(facts: Facts, sheet: ContactSheet, number: int) -> Section:
    """Return the section of one defect type: how many samples, and the contact sheet."""
    config = facts.run.config
    (defect,) = [one for one in facts.defects if (one.product, one.defect) == (sheet.product, sheet.title)]
    title = f"{sheet.product}: {sheet.title}"
    name = f"{number:02d}-{plain_name(sheet.product)}-{plain_name(sheet.title)}"
    planned = number_of(defect.planned, "planned sample")
    sentences = [
        f"{defect.kept} of {planned} kept." if _is_chosen(facts) else f"{defect.kept} of {planned} generated.",
        f"Close-ups, real and synthetic, show {sheet.side} x {sheet.side} camera pixels.",
    ]
    if sheet.rows:
        sentences.append("In the column of the asked mask, red is its outline and blue the frame of the close-up.")
    else:
        none = (
            "No sample of this defect type is kept."
            if _is_chosen(facts)
            else "No sample of this defect type is generated."
        )
        sentences.append(none)
    drawings = []
    if defect.generated or defect.given_up:
        svg = share_histogram(defect.generated_shares, defect.given_up_shares, config.generate.min_painted)
        drawings.append(Drawing(f"painted share of the asked masks of {title}", svg, f"painted-{name}"))
    return Section(
        title,
        sentences=(" ".join(sentences),),
        notes=tuple(_reasons(defect, config)),
        drawings=tuple(drawings),
        sheets=(
            Sheet(
                f"contact sheet of {title}",
                name,
                COLUMNS,
                sheet.rows,
                f"Samples ({_shown_of(len(sheet.rows), sheet.total)})",
                sheet.shots,
                f"Real shots ({_shown_of(len(sheet.shots), defect.shots)}), at the zoom of the close-ups",
            ),
        ),
    )


def _shown_of(shown: int, total: int) -> str:
    return f"{shown} of {total}, evenly spread" if total > shown else f"all {total}"


def _sweep(sweep: Sweep) -> Section:
    text = (
        f"The first sample of each defect type, painted again with other values of generator.settings.{sweep.setting}; "
        "all else is equal, the seed included. At the right is the reference that was shown, where there was one."
    )
    rows = []
    for number, row in enumerate(sweep.rows):
        title = f"{row.defect} at several values of {sweep.setting}"
        pictures = PictureRow("; ".join(row.heads), row.tiles)
        sheet = Sheet(title, f"sweep-{number:02d}-{plain_name(row.defect)}", (), (pictures,))
        rows.append(Section(f"{row.product}: {row.defect}", sheets=(sheet,)))
    return Section(f"Sweep of {sweep.setting}", sentences=(text,), subsections=tuple(rows))


def _metrics(run: Run) -> Section | None:
    """Return the section on metrics.json, or None when the samples that the run has now were not measured."""
    path = run.path("metrics.json")
    if not run.is_current("measure") or not path.is_file():
        return None
    tree = read_json(path)
    with reading(path, "delete it and measure again"):
        return _measured(tree)


def _measured(tree: dict[str, Any]) -> Section:
    text = (
        f"Windows round the damage, {tree['window']} x {tree['window']} pixels, samples against {tree['real']}; "
        f"features of {tree['extractor']['name']} ({tree['extractor']['fingerprint']}); 95 % intervals from "
        f"{tree['resamples']} resamples of pictures."
    )
    products = tuple(Section(product, tables=(metric_table(tree, product),)) for product in tree["products"])
    if len(products) == 1:
        return Section("Metrics", sentences=(text,), tables=products[0].tables)
    return Section("Metrics", sentences=(text,), subsections=products)


def metric_table(tree: dict[str, Any], product: str) -> Table:
    """Return one product's figures in metrics.json, a row per defect type: "value [low, high]"."""
    defects = tree["products"][product]
    names = list(dict.fromkeys(name for defect in defects.values() for name in defect["figures"]))
    rows = [
        [
            f"{name} ({defect['made']} samples, {defect['real']} real)",
            *(_figure(defect["figures"].get(n)) for n in names),
        ]
        for name, defect in defects.items()
    ]
    return table(["Defect type", *names], rows)


def _figure(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "" if figure is None else f"no value: {figure.get('reason', '')}"
    interval = f" [{figure['low']:.3g}, {figure['high']:.3g}]" if "low" in figure else ""
    rough = f"; {figure['reason']}" if figure.get("reason") else ""  # what its value must be read with
    return f"{figure['value']:.3g}{interval}{rough}"


def _training(facts: Facts) -> Section:
    text = (
        "The thin line is the loss per training step, the bold line its running mean. The loss of a diffusion model "
        "falls little and stays noisy, because each step draws another noise level; judge by the pictures."
    )
    models = []
    for number, (job, losses) in enumerate(facts.losses.items()):
        drawing = Drawing(f"loss of {job}", loss_curve(losses, job), f"loss-{number:02d}-{plain_name(job)}")
        models.append(Section(f"{job}, {number_of(len(losses), 'step')}", drawings=(drawing,)))
    return Section("Training", sentences=(text,), subsections=tuple(models))


def _data(facts: Facts) -> Section:
    split, config = facts.split, facts.run.config.data
    rows: list[list[object]] = [
        ["Folder", config.root],
        ["Layout", config.layout],
        ["Shots (learned from)", len(split.shots)],
        ["Normal parts (learned from and painted on)", len(split.normals)],
        ["Test defects (kept apart)", len(split.test_defects)],
        ["Test normal parts (kept apart)", len(split.test_normals)],
        ["Leak check", "passed by content when the set was divided: no test picture is also learned from"],
    ]
    lists = (("Notes on the split", split.notes), ("Warnings", _warnings(facts.run)))
    parts = tuple(Section(title, notes=tuple(lines)) for title, lines in lists if lines)
    return Section("Data", tables=(table((), rows),), subsections=parts)


def _warnings(run: Run) -> list[str]:
    path = run.path("data.json")
    tree = read_json(path)
    with reading(path):
        return [str(line) for line in tree["warnings"]]


def _settings(config: Config) -> Section:
    changed = changed_settings(config)
    return Section(
        "Settings",
        sentences=("What differs from the defaults:" if changed else "Every setting has its default.",),
        tables=(table(("Setting", "Value", "Default"), changed, mono=True),),
        subsections=(Section("All settings", code=commented_toml(config), folded=True),),
    )


def _provenance(facts: Facts) -> Section:
    """Return what made the run: fingerprints, versions, the machine, and how long each stage took."""
    run = facts.run
    manifest = read_json(run.path("manifest.json"))
    rows: list[list[object]] = [
        ["Generator", run.config.generator.label],
        ["Backbone", facts.backbone.name if facts.backbone else "no backbone"],
        ["Backbone fingerprint", facts.backbone.fingerprint if facts.backbone else ""],
        ["Data fingerprint", run.data_hash()],
        ["Seed", run.config.seed],
        ["Started", manifest.get("started", "")],
        ["Python", manifest.get("python", "")],
        ["Machine", f"{manifest.get('platform', '')}, {manifest.get('processors', '?')} processors"],
        *manifest.get("packages", {}).items(),
    ]
    log = [
        [line.get("at", ""), line.get("stage", ""), line.get("what", ""), _time(line.get("seconds"))]
        for line in read_lines(run.path("log.jsonl"))
        if isinstance(line, dict)
    ]
    title = "Times" if len(log) <= _MOST_TIMES else f"Times, the last {_MOST_TIMES} of {len(log)} lines of log.jsonl"
    last = table(("When", "Stage", "What", "Took"), log[-_MOST_TIMES:], numbers=range(3, 4))
    times = Section(title, tables=(last,))
    return Section("Fingerprints, versions and times", tables=(table((), rows),), subsections=(times,) if log else ())


def _time(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return ""
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
