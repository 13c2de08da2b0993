"""The part of a proof's section that says what happens at the user's false-alarm rate: misses, false alarms, shifts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flawsmith.evaluation.statistics import ALL
from flawsmith.reporting.document import Section, Table, number_of, table

Tree = Mapping[str, Any]


def operating_sections(product: Tree, confidence: float, seeds: int) -> list[Section]:
    """Return a section on false alarms and misses, and one on shifts; [] = the proof has no threshold.

    Args:
        product: A product's part of proof.json; one of an earlier release says nothing of thresholds.
        confidence: Of the intervals.
        seeds: Trainings per arm.
    """
    point = product.get("operating_point")
    if not point:
        return []
    rate, kept = (f"{100 * point[name]:.3g}%" for name in ("false_alarm_rate", "kept_rate"))
    low, high = (f"{100 * end:.1f}" for end in point["rate_range"])
    learned = number_of(len(point["calibration_normals"]), "normal photograph")
    sentences = (
        f"Each detector raises an alarm above a threshold of its own. {learned} that no detector learns from set it, "
        f"so that a new normal part of the same kind raises an alarm in at most {kept} of cases on average "
        f"(split-conformal quantile). With so many photographs the true rate of one threshold lies between {low} and "
        f"{high}% ({confidence:.0%} interval); more normal photographs bring it nearer. The test pictures set no "
        "threshold: they show what comes of it.",
        f"Shares in %, mean over {number_of(seeds, 'seed')}, with {confidence:.0%} intervals; 0 is best.",
    )
    sections = [Section(f"At a false-alarm rate of {rate}", sentences=sentences, tables=(_alarm_table(point),))]
    if any("shifts" in arm for arm in point["arms"].values()):
        sections.append(_shift_section(point))
    return sections


def _alarm_table(point: Tree) -> Table:
    """Return a row per arm: false alarms, misses over all defects and of each type; at last ours less real-only."""
    types = [ALL, *(defect for defect in point["test_defects"] if defect != ALL)]
    heads = [
        "Trained on",
        f"False alarms, of {point['test_normals']} normal",
        *(
            f"Missed, of {count} damaged" if defect == ALL else f"Missed {defect}, of {count}"
            for defect, count in ((name, point["test_defects"][name]) for name in types)
        ),
    ]
    rows = [
        [name, _share(arm["false_alarms"]), *(_share(arm["misses"][defect]) for defect in types)]
        for name, arm in point["arms"].items()
    ]
    if gap := point["difference"]:
        rows.append(
            [
                "ours less real-only, points",
                _points(gap["false_alarms"]),
                *(_points(gap["misses"][defect]) for defect in types),
            ]
        )
    return table(heads, rows, numbers=range(1, len(heads)), total=bool(gap))


def _shift_section(point: Tree) -> Section:
    """Return the false alarms of each arm when normal parts are photographed otherwise."""
    rows = {name: arm["shifts"] for name, arm in point["arms"].items() if "shifts" in arm}
    shifts = list(next(iter(rows.values())))
    described = tuple(f"{name.capitalize()}: {text}" for name, text in point["shifts"].items())
    sentence = (
        f"False alarms in % at the same thresholds, on {number_of(point['shifted_normals'], 'normal test picture')} as "
        "they would look with other light, out of focus, or from a noisier camera. A detector whose false alarms rise "
        "here needs a new threshold when the light, the lens or the camera changes."
    )
    cells = [[name, *(_share(shares[shift]) for shift in shifts)] for name, shares in rows.items()]
    heads = ("Trained on", *(shift.capitalize() for shift in shifts))
    shown = table(heads, cells, numbers=range(1, len(heads)))
    title = "False alarms when photographs change"
    return Section(title, sentences=(sentence,), notes=described, tables=(shown,))


def _share(share: Tree) -> str:
    return f"{100 * share['mean']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _points(gap: Tree) -> str:
    # + 0.0, so that no -0.0 is left
    mean, low, high = (f"{round(100 * gap[name], 1) + 0.0:+.1f}" for name in ("difference", "low", "high"))
    return f"{mean} [{low}, {high}]"
