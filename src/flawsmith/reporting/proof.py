"""The section on the proof: verdicts first, then intervals, arms, negative controls, the curve and anomaly maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.split import Split
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.statistics import ALL, MEAN, TASKS
from flawsmith.files import read_json, reading
from flawsmith.paths import lies_below
from flawsmith.reporting.charts import CurvePoint, Interval, gain_curve, interval_chart
from flawsmith.reporting.document import Drawing, PictureRow, Section, Sheet, Table, number_of, table
from flawsmith.reporting.explanations import anomaly_maps, explanation_section, overlaid
from flawsmith.reporting.operating_point import operating_sections
from flawsmith.reporting.verdict import OURS, REAL, Tree, cannot_tell, few_seeds, points, rows_of, signed, stands
from flawsmith.run.dataset import load_ranges
from flawsmith.run.folder import Run
from flawsmith.run.mask_reading import rule_from
from flawsmith.types import Example, Range

NO_CONTROLS = "ours, no controls"
"""An arm of its own meaning, as OURS and REAL."""
ANOMALY_COLUMNS = ("test photograph", f"anomaly map, {REAL}", f"anomaly map, {OURS}")
_SIDE = 256
"""Of the square pictures that anomaly maps are shown on, in px; oblong ones have as many pixels."""
_OUTLINE = (255, 64, 32)


class _Column(NamedTuple):
    """A column of the table of arms: a figure's mean over defect types."""

    task: str
    figure: str
    head: str


_COLUMNS = (
    _Column("localization", "ap", "Pixel AP"),
    _Column("localization", "auroc", "Pixel AUROC"),
    _Column("localization", "f1_max", "Pixel F1-max"),
    _Column("localization", "aupro", "AUPRO"),
    _Column("detection", "auroc", "Image AUROC"),
    _Column("detection", "ap", "Image AP"),
    _Column("classification", "recall", "Mean recall"),
)


def proof_section(run: Run, split: Split) -> Section | None:
    """Return the section, a part per product; None when the samples that the run has now are not proven."""
    path = run.path("proof.json")
    if not run.is_current("prove") or not path.is_file():
        return None
    proof = read_json(path)
    title = "Proof: do the samples help?"
    with reading(path, "delete it and prove again"):
        products = tuple(_product(run, split, proof, name, number) for number, name in enumerate(proof["products"]))
    return replace(products[0], title=title) if len(products) == 1 else Section(title, subsections=products)


def _product(run: Run, split: Split, proof: Tree, name: str, number: int) -> Section:
    product = proof["products"][name]
    parts = [_comparison(product, arm, against, number) for arm, against in _compared(product)]
    parts[1:1] = operating_sections(product, proof["confidence"], proof["seeds"])
    parts.append(Section("All arms, mean over defect types", tables=(_arm_table(product),)))
    if product["best_on_test"]:
        title = "Best on test (the papers' way: the epoch was chosen by the test set)"
        parts.append(Section(title, tables=(_arm_table(product, best=True),)))
    title = "Pixel AP per defect type (its test pictures and all normal ones)"
    parts.append(Section(title, tables=(_defect_table(product),)))
    for arm in (OURS, REAL):
        if product["confusion"].get(arm):
            parts.append(Section(f"Confusion matrix, {arm}", tables=(_confusion_table(product, arm),), folded=True))
    if curves := _curves(product, number):
        parts.append(Section("How many samples help most", drawings=curves))
    if product["artefact"]:
        sentences = (_artefact_sentence(product),)
        parts.append(Section("Negative controls", sentences=sentences, tables=(_artefact_table(product),)))
    if facts := product.get("detector_facts"):  # missing in a proof of an earlier release
        parts.append(Section("What the detectors learned about themselves", tables=(_fact_table(facts),), folded=True))
    if looked := explanation_section(run, product, number, split):
        parts.append(looked)
    return Section(
        name,
        lead=_headline(proof, name),
        sentences=(*filter(None, [few_seeds(proof)]), _setup(proof, product), *_correction(proof)),
        notes=(*proof["reduced"], *product["notes"]),
        subsections=(*parts, *_anomaly_maps(run, product, name, number)),
    )


def _headline(proof: Tree, name: str) -> str:
    """Return the verdicts over all defect types as one sentence, corrected where the proof has corrected ones.

    Of a detector that learned nothing it says that instead.
    """
    if reason := cannot_tell(proof, name):
        return reason
    rows = {row["task"]: row for row in rows_of(proof["products"][name], OURS, REAL) if row["defect"] == MEAN}
    verdicts = [f"{TASKS[task][0]}: {stands(rows[task])} ({points(rows[task])})" for task in TASKS if task in rows]
    generator, judged = proof["generator"], "; ".join(verdicts)
    if len(proof["products"]) > 1:
        return f"{name}, {generator} beside the real shots, mean over defect types. {judged}."
    return f"{generator} beside the real shots, mean over defect types. {judged}."


def _setup(proof: Tree, product: Tree) -> str:
    """Return what was measured with what, as a sentence."""
    tests = sum(count for defect, count in product["test"].items() if defect != "normal")
    return (
        f"Protocol {proof['protocol']}; {', '.join(proof['detectors'])} on {proof['extractor']['name']} "
        f"({proof['extractor']['fingerprint']}), {_shown(product)}, "
        f"{number_of(proof['seeds'], 'seed')}; {tests} damaged and {product['test']['normal']} normal test pictures; "
        f"{proof['confidence']:.0%} intervals "
        f"from {proof['resamples']} paired resamples of test pictures and seeds. Differences are in points of 100."
    )


def _shown(product: Tree) -> str:
    """Return at which size detectors saw photographs, whole or in tiles."""
    rows, columns = _shape(product)
    pixels = f"{rows} x {columns} pixels"
    tiles = product.get("tiles")  # missing in a proof of an earlier release
    if not tiles:
        return pixels
    scale = "their own resolution" if tiles["scale"] == 1 else f"{tiles['scale']:.2f} times their own resolution"
    return f"photographs at {scale} in overlapping tiles of {pixels} ({tiles['per_picture']:.1f} per test picture)"


def _correction(proof: Tree) -> tuple[str, ...]:
    """Return what the correction of verdicts is, as a sentence; () = a proof of an earlier release has none."""
    rows = [row for product in proof["products"].values() for row in product["comparisons"]]
    if not all("corrected_verdict" in row for row in rows):
        return ()
    given = [row for row in rows if row["verdict"] != "no effect"]
    stand = sum(row["corrected_verdict"] != "no effect" for row in given)
    say = "says" if len(given) == 1 else "say"
    counted = f"{number_of(len(given), 'verdict')} {say} helps or harms"
    standing = f"{stand} of them stand{'s' if stand == 1 else ''}" if stand else "none of them stands"
    sentence = (
        f"This proof makes {number_of(len(rows), 'comparison')}, so some differ by chance alone. {counted}; {standing} "
        f"after the correction of Benjamini and Hochberg, which lets {1 - proof['confidence']:.0%} of those that stand "
        "be wrong. The sentence above uses corrected verdicts; the tables give the verdict of each comparison by "
        "itself, and say where it does not stand."
    )
    least = 2 / (proof["resamples"] + 1)
    if any(row["p_value"] <= least + 1e-6 for row in given if row["corrected_verdict"] == "no effect"):
        enough = math.ceil(2 * len(rows) / (1 - proof["confidence"]))
        coarse = (
            f"With {proof['resamples']} resamples the correction is coarse: with prove.resamples = {enough} more of "
            "them may stand."
        )
        return (sentence, coarse)
    return (sentence,)


def _both_verdicts(row: Tree) -> str:
    """Return the plain verdict, and the corrected one where it is another."""
    plain, corrected = row["verdict"], stands(row)
    return plain if plain == corrected else f"{plain} ({corrected})"


def _shape(product: Tree) -> tuple[int, int]:
    """Return rows and columns of what the detectors saw."""
    rows, columns = product["shape"]
    return rows, columns


def _compared(product: Tree) -> list[tuple[str, str]]:
    """Return every (arm, against), ours against real-only first."""
    compared = dict.fromkeys((row["arm"], row["against"]) for row in product["comparisons"])
    return sorted(compared, key=lambda arms: (arms != (OURS, REAL), arms[0] != OURS))


def _comparison(product: Tree, arm: str, against: str, number: int) -> Section:
    """Return a comparison's verdicts; ours against real-only also as diagrams, and open."""
    rows = rows_of(product, arm, against)
    verdicts = {(row["task"], row["defect"]): f"{_both_verdicts(row)}: {points(row)}" for row in rows}
    cells = [
        [defect, *(verdicts.get((task, defect), "") for task in TASKS)]
        for defect in dict.fromkeys(row["defect"] for row in rows)
    ]
    heads = ("Defect type", *(f"{name} ({figure})" for name, figure in TASKS.values()))
    main = (arm, against) == _compared(product)[0]
    drawings = []
    for task, (name, figure) in TASKS.items() if main else ():
        intervals = [
            Interval(row["defect"], 100 * row["difference"], 100 * row["low"], 100 * row["high"], row["verdict"])
            for row in rows
            if row["task"] == task
        ]
        title = f"{name} ({figure}): {arm} against {against}"
        if intervals:
            svg = interval_chart(intervals, title, unit="points of 100")
            drawings.append(Drawing(title, svg, f"proof-{number:02d}-{name}"))
    return Section(f"{arm} against {against}", tables=(table(heads, cells),), drawings=tuple(drawings), folded=not main)


def _arm_table(product: Tree, *, best: bool = False) -> Table:
    """Return a row per arm: its name, what it learns from, and the means over defect types, in points of 100."""
    rows = []
    for name, arm in product["arms"].items():
        figures = product["best_on_test"].get(name) if best else arm["figures"]
        if figures:
            means = [figures.get(column.task, {}).get(MEAN, {}).get(column.figure) for column in _COLUMNS]
            rows.append([name, arm["text"], *(_mean(figure) for figure in means)])
    heads = ("Trained on", "What", *(column.head for column in _COLUMNS))
    return table(heads, rows, numbers=range(2, len(heads)))


def _defect_table(product: Tree) -> Table:
    """Return a row per arm: pixel AP of each defect type, of their mean and of all pictures together."""
    columns = (*product["defects"], MEAN, ALL)
    rows = []
    for name, arm in product["arms"].items():
        figures = arm["figures"].get("localization", {})
        rows.append([name, *(_mean(figures.get(column, {}).get("ap")) for column in columns)])
    return table(("Trained on", *columns), rows, numbers=range(1, len(columns) + 1))


def _confusion_table(product: Tree, arm: str) -> Table:
    """Return a row per defect type: how many of its test pictures are called which defect type."""
    rows = [
        [defect, *(f"{count:g}" for count in counts)]
        for defect, counts in zip(product["defects"], product["confusion"][arm], strict=True)
    ]
    heads = ("True defect type, called …", *product["defects"])
    return table(heads, rows, numbers=range(1, len(heads)))


def _curves(product: Tree, number: int) -> tuple[Drawing, ...]:
    """Return each task's deciding mean against the samples per shot, where there are more than two points."""
    drawings = []
    for task, (name, figure) in TASKS.items():
        points = [
            CurvePoint(row["samples_per_shot"], tuple(100 * value for value in row[task]))
            for row in product["curve"]
            if task in row
        ]
        if len(points) > 2:
            title = f"{name} against samples per shot"
            drawings.append(
                Drawing(title, gain_curve(points, title, unit=f"mean {figure}"), f"proof-{number:02d}-curve-{name}")
            )
    return tuple(drawings)


def _artefact_sentence(product: Tree) -> str:
    held = product["held_out_controls"]
    return (
        f"{number_of(held, 'normal part')} {'was' if held == 1 else 'were'} repainted as normal and kept from all "
        "training. The artefact score is the share of them whose repainted place has a higher value than the same one "
        'untouched: 0.5 = repainting cannot be seen, 1 = the detector has learned "repainted = damaged". '
        f"'{NO_CONTROLS}' was trained without controls."
    )


def _artefact_table(product: Tree) -> Table:
    """Return a row per arm: its artefact score, and the anomaly map on repainted and on untouched places."""
    rows = [
        [name, *(f"{row[key]['mean']:.3f}" for key in ("louder", "control", "untouched"))]
        for name, row in product["artefact"].items()
    ]
    heads = ("Trained on", "Artefact score", "Anomaly map, repainted", "Anomaly map, untouched")
    return table(heads, rows, numbers=range(1, 4))


def _fact_table(facts: Tree) -> Table:
    """Return a row per arm: each fact as its mean over seeds."""
    names = sorted({name for row in facts.values() for name in row})
    rows = [[arm, *(f"{row[name]['mean']:.2f}" if name in row else "" for name in names)] for arm, row in facts.items()]
    return table(("Trained on", *names), rows, numbers=range(1, len(names) + 1))


def _anomaly_maps(run: Run, product: Tree, name: str, number: int) -> list[Section]:
    """Return the test pictures that differ most between ours and real-only, with both anomaly maps (seed 0)."""
    maps = {}
    for arm in (REAL, OURS):
        if (thumbs := anomaly_maps(run, product["thumbs"].get(arm, ""))) is not None:
            maps[arm] = thumbs
    shape = None if product.get("tiles") else _shape(product)
    parts = []
    span = load_ranges(run).get(name)
    for what in ("gained", "lost"):
        chosen = [row for row in product["telling"] if row["what"] == what]
        pictures = [
            _anomaly_row(row, run.config.data.root, name, shape, span, [maps[arm][row["index"]] for arm in maps])
            for row in chosen
            if len(maps) > 1
        ]
        if rows := tuple(picture for picture in pictures if picture):
            title = f"Where the detector lost most with our samples ({number_of(len(rows), 'picture')})"
            if what == "gained":
                title = f"Where the detector gained most with our samples ({number_of(len(rows), 'picture')})"
            sheet = Sheet(title, f"proof-{number:02d}-{what}", ANOMALY_COLUMNS, rows)
            parts.append(Section(title, sheets=(sheet,), folded=True))
    return parts


def _anomaly_row(
    row: Tree, root: Path, product: str, shape: tuple[int, int] | None, span: Range | None, maps: Sequence[np.ndarray]
) -> PictureRow | None:
    """Return a test picture with its label's outline, and maps (uint8 (t,t)) over it; None = it cannot be read.

    It has the proportions of `shape`, or with None its own. What does not lie below `root`, the data's, is not read.
    """
    from flawsmith.data.training_set import read_scaled  # torch loads with it

    rule = rule_from(row["mask_rule"]) if row.get("mask_rule") else None  # missing in a proof of an earlier release
    masks = tuple(map(Path, row["masks"]))
    example = Example(row["id"], Path(row["image"]), product, row["defect"], masks, mask_rule=rule, span=span)
    if not all(lies_below(file, root) for file in (example.image, *masks)):
        return None
    try:
        shape = shape or images.describe(example.image).shape
        scale = _SIDE / math.sqrt(math.prod(shape))
        image, mask, _ = read_scaled(example, (round(shape[0] * scale), round(shape[1] * scale)))
    except FlawsmithError:
        return None
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    marked = cv2.drawContours(image.copy(), outline, -1, _OUTLINE, 1)
    caption = f"{row['defect']}, {row['id']}: pixel AP in this picture {signed(row['change'])}"
    return PictureRow(caption, (np.asarray(marked), *(overlaid(image, one) for one in maps)))


def _mean(figure: Tree | None) -> str:
    return "" if figure is None else f"{100 * figure['mean']:.1f}"
