"""Set a delivered model's threshold anew from tomorrow's normal parts, without training. Needs no torch.

A line changes: another lamp, another batch of material. The detector stays; what a normal part scores does not. The
table says what the new threshold costs: misses among stored scores of damage, and false alarms before and after. Those
scores were taken before the line changed, so misses afterwards may differ; false alarms on the new normal parts
themselves are those that set the new threshold, so their share after is what was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flawsmith.data import images
from flawsmith.data.fingerprints import fingerprint
from flawsmith.errors import DataError, first_few
from flawsmith.evaluation.calibration import LEAST, clopper_pearson
from flawsmith.inspection.inspect import in_order, pictures_below
from flawsmith.inspection.inspector import Inspector, Runtime
from flawsmith.inspection.model import (
    CONFIDENCE,
    Model,
    Threshold,
    learned_hashes,
    read_held_out,
    require_rate,
    subsample,
    threshold_of,
    write_model,
)
from flawsmith.run.progress import progress


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: how many of some pictures go wrong under the old threshold and under the new one."""

    what: str
    pictures: int
    before: int | None
    """None = there was no threshold."""
    after: int
    fitted: bool = False
    """These pictures set the new threshold, so `after` is no measurement."""

    def cells(self) -> tuple[str, str, str, str]:
        """Return the line as text: what, pictures, before, after; counts with their exact 95 % intervals."""
        after = f"{self.after} (set by them)" if self.fitted else self._share(self.after)
        return self.what, str(self.pictures), self._share(self.before), after

    def _share(self, count: int | None) -> str:
        if count is None:
            return ""
        low, high = clopper_pearson(count, self.pictures, CONFIDENCE)
        share = 100 * count / self.pictures
        return f"{count} ({share:.1f} %) [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration did."""

    before: Threshold | None
    after: Threshold
    table: tuple[Line, ...]
    left_out: tuple[str, ...]
    """Sentences about the pictures that could not be used."""
    source: str
    """Whose scores of damage the table counts; "" = the model holds none."""

    def sentences(self) -> list[str]:
        """Return what to tell the user beside the table."""
        after = self.after
        old = "none" if self.before is None else f"{self.before.value:.6g}"
        said = [
            f"threshold {old} -> {after.value:.6g}, from {after.normals} normal pictures; the true false-alarm rate "
            f"lies between {100 * after.rate_low:.2g} and {100 * after.rate_high:.2g} % (95 %)"
        ]
        if after.kept_rate > after.false_alarm_rate:
            said.append(
                f"so few pictures can keep no rate below {100 * after.kept_rate:.3g} %; give more for "
                f"{100 * after.false_alarm_rate:.3g} %"
            )
        said.append(f"misses are counted on {self.source}" if self.source else "the model holds no scores of damage")
        return said


def calibrate(
    folder: str | Path, normals: str | Path, *, rate: float | None = None, runtime: Runtime = "onnxruntime"
) -> Calibration:
    """Set the threshold of a delivered model anew, and keep the old one in its history.

    Args:
        folder: The model; its model.json is written, whole or not at all.
        normals: A folder of photographs of normal parts, as the line takes them now.
        rate: The share of normal parts that may raise a false alarm; None = as before, or 0.05.

    Raises:
        DataError: fewer than 5 of them can be used, or there is no model.
    """
    inspector = Inspector(folder, runtime)
    model, before = inspector.model, inspector.model.threshold
    rate = rate if rate is not None else 0.05 if before is None else before.false_alarm_rate
    require_rate(rate, "--rate")
    paths, left_out = _usable(pictures_below(Path(normals)), learned_hashes(inspector.folder))
    if len(paths) < LEAST:
        few = f"{len(paths)} of these pictures can be used, and a threshold takes at least {LEAST} normal ones"
        raise DataError("\n".join([f"{normals}: {few}", *left_out[:3]]))

    held_out = read_held_out(inspector.folder)

    def look(path: Path) -> tuple[float, np.ndarray]:
        picture = images.read(path)
        if inspector.other_depth(picture):
            raise DataError(
                f"{path}: has {picture.dtype.itemsize * 8} bits per sample, and the model learned from "
                f"{model.span.depth}; give pictures of the same depth"
            )
        inspection = inspector.inspect(picture)
        return inspection.score, subsample(inspection.anomaly_map, len(paths))

    scores: list[float] = []
    maps: list[np.ndarray] = []
    with progress("calibrate", len(paths), "pictures") as advance:
        for score, anomaly_map in in_order(look, paths, os.cpu_count() or 1):
            scores.append(score)
            maps.append(anomaly_map)
            advance()
    after = threshold_of(scores, maps, rate, f"pictures in {Path(normals).resolve().name}")
    write_model(inspector.folder, _with_threshold(model, after))
    lines = [
        _line(f"{defect}: missed", values, before, after, above=False) for defect, values in held_out.defects.items()
    ]
    if held_out.normals:
        lines.append(_line("false alarms: held-out normal pictures", held_out.normals, before, after, above=True))
    lines.append(replace(_line("false alarms: these pictures", scores, before, after, above=True), fitted=True))
    return Calibration(before, after, tuple(lines), tuple(left_out), held_out.source)


def _usable(paths: Sequence[Path], learned: frozenset[str]) -> tuple[list[Path], list[str]]:
    """Return the pictures that can set a threshold, and sentences about those that cannot."""
    kept, left_out, known, copies, contents = list[Path](), list[str](), list[str](), list[str](), set[str]()
    for path in paths:
        try:
            one = fingerprint(path)
        except DataError as error:  # a link that leads nowhere
            left_out.append(str(error))
            continue
        if one.problem:
            left_out.append(f"{path}: {one.problem}")
        elif one.pixels in learned:
            known.append(path.name)
        elif one.pixels in contents:
            copies.append(path.name)
        else:
            kept.append(path)
            contents.add(one.pixels)
    if known:
        what = "picture is" if len(known) == 1 else "pictures are"
        left_out.append(
            f"{len(known)} {what} left out ({first_few(known)}): "
            "what a model has learned from scores lower than a new part"
        )
    if copies:
        what = "picture is" if len(copies) == 1 else "pictures are"
        left_out.append(f"{len(copies)} {what} left out ({first_few(copies)}): a copy says nothing new of the line")
    return kept, left_out


def _with_threshold(model: Model, threshold: Threshold) -> Model:
    history = model.history if model.threshold is None else (*model.history, model.threshold)
    return replace(model, threshold=threshold, history=history)


def _line(what: str, scores: Sequence[float], before: Threshold | None, after: Threshold, *, above: bool) -> Line:
    """Count the scores that go wrong: those above a threshold, or those not above it."""

    def wrong(threshold: Threshold) -> int:
        return sum((score > threshold.value) == above for score in scores)

    return Line(what, len(scores), None if before is None else wrong(before), wrong(after))
