"""The arms of a proof: which pairs each learns from beside the shots, made by whichever generator.

Another generator's pairs are made in a run folder of their own, `arms/<name>/`, by the same stages and from the same
plan: the same normal parts, shots, poses and seeds, so that the arms differ in the paint alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flawsmith.config import GeneratorConfig
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet
from flawsmith.files import read_json, write_json
from flawsmith.run.dataset import Dataset
from flawsmith.run.folder import Run
from flawsmith.types import Example

Synthesize = Callable[[Run, Dataset], None]
"""Trains and generates a run; handed in, for evaluation knows no generator's way of being made."""
REAL, OURS, NONE = "real-only", "ours", "none"
NO_CONTROLS = f"{OURS}, no controls"
HELD_CONTROLS = 40
"""Controls a run keeps for the artefact score, at most; they and their normal parts are never learned from."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A made picture as a detector meets it, and what it was made from."""

    example: Example
    mask: Path
    """Where it was painted; a control's example has no label, for nothing is wrong with it."""
    normal: str
    """Id of the normal photograph beneath."""
    place: int
    """Its place among the pairs of its defect type, in the order of the plan."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train a detector."""

    name: str
    says: str
    """What it learns from, in words."""
    pairs: tuple[Example, ...] = ()
    controls: tuple[Piece, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return what the report says of it."""
        return {
            "says": self.says,
            "pairs": dict(sorted(Counter(str(e.defect) for e in self.pairs).items())),
            "controls": len(self.controls),
        }


def mixed(other: str) -> str:
    """Return the name of the arm that learns from our pairs and another generator's together."""
    return f"{OURS} + {other}"


def rival_run(run: Run, name: str, data: Dataset, synthesize: Synthesize) -> Run:
    """Make another generator's samples from the same plan; return its run folder.

    Args:
        run: The run whose plan it is.
        name: One that `registry.known_rivals` let pass.
        data: The run's photographs.
        synthesize: Trains and generates a run.
    """
    # Others' samples are compared as they are made: the gate is a part of what stands against them.
    unscreened = run.config.screen.model_copy(update={"enabled": False})
    config = run.config.model_copy(update={"generator": GeneratorConfig(name=name), "screen": unscreened})
    rival = Run.create(run.path("arms", name), config)
    write_json(rival.path("data.json"), read_json(run.path("data.json")))
    synthesize(rival, data)
    return rival


def pieces(run: Run, product: str) -> tuple[list[Piece], list[Piece]]:
    """Return a run's kept samples and its controls of one product."""
    count: Counter[str] = Counter()
    place: dict[int, int] = {}
    samples, controls = [], []
    kept = {sample.index: sample for sample in run.kept()}
    screened = run.verdicts() is not None
    for sample in run.samples():
        if sample.product != product or sample.transferred_from:  # no test picture shows what a product never had
            continue
        place[sample.index] = count[sample.defect]
        # Of a screened run the samples that stand are counted, so that "3 per shot" means 3 that anybody learns from.
        count[sample.defect] += sample.index in kept or not screened
        if stands := kept.get(sample.index):
            mask = run.path(stands.mask)
            example = Example(stands.image, run.path(stands.image), product, sample.defect, mask)
            samples.append(Piece(example, mask, sample.normal, place[sample.index]))
    for control in run.controls():
        if control.product == product and control.made:
            example = Example(control.image, run.path(control.image), product)
            controls.append(Piece(example, run.path(control.mask), control.normal, place[control.control_of]))
    return samples, controls


def held_out(controls: Sequence[Piece], normals: Sequence[Example]) -> list[Piece]:
    """Choose the controls that judge artefacts: evenly spaced, and few enough that nine in ten normal parts stay."""
    count = min(HELD_CONTROLS, len(controls) // 2, max(1, len(normals) // 10))
    if not controls or count < 1:
        return []
    step = len(controls) / count
    return [controls[int(step * (place + 0.5))] for place in range(count)]


def make_arms(run: Run, others: dict[str, Run], product: str, split: Split, held: Sequence[Piece]) -> list[Arm]:
    """Return every arm that the configuration asks for, `real-only` first."""
    part = run.config.prove
    away = {piece.normal for piece in held}
    shots = Counter(str(e.defect) for e in split.shots)
    made, controls = (_without(group, away) for group in pieces(run, product))
    name = run.config.generator.name
    arms = [Arm(REAL, "shots and normal parts")]
    stores: dict[str, tuple[list[Piece], list[Piece]]] = {}
    for other, folder in others.items():
        own, own_controls = (_without(group, away) for group in pieces(folder, product))
        stores[other] = own, own_controls
        arms.append(
            Arm(other, f"and {len(own)} pairs of {other}{_with(own_controls)}", _examples(own), tuple(own_controls))
        )
    arms.append(Arm(OURS, f"and {len(made)} pairs of {name}{_with(controls)}", _examples(made), tuple(controls)))
    if controls:
        arms.append(Arm(NO_CONTROLS, f"and {len(made)} pairs of {name} alone", _examples(made)))
    if part.mix and others:
        first = next(iter(others))
        more, more_controls = stores[first]
        arms.append(
            Arm(
                mixed(first),
                f"and the pairs of {name} and of {first}{_with([*controls, *more_controls])}",
                _examples([*made, *more]),
                (*controls, *more_controls),
            )
        )
    for times in part.curve:
        limit = {defect: math.ceil(times * count) for defect, count in shots.items()}
        few = [p for p in made if p.place < limit[str(p.example.defect)]]
        if len(few) < len(made):
            most = max(limit.values())
            few_controls = [p for p in controls if p.place < most]
            arms.append(
                Arm(
                    f"{OURS} {times:g}x",
                    f"and {len(few)} pairs of {name}, {times:g} a shot{_with(few_controls)}",
                    _examples(few),
                    tuple(few_controls),
                )
            )
    return arms


def common_set(
    split: Split, held: Sequence[Piece], size: int, defects: Sequence[str], forbidden: frozenset[str]
) -> TrainingSet:
    """Return what every arm learns from: the normal parts but those under held-out controls. No test picture can enter."""
    away = {piece.normal for piece in held}
    made = TrainingSet(size, defects, forbidden)
    for example in split.normals:
        if example.id not in away:
            made.add(example, "real")
    return made


def training_set(common: TrainingSet, arm: Arm, split: Split) -> TrainingSet:
    """Return what an arm's detectors learn from: normal parts, shots, its pairs and controls."""
    made = common.clone()
    for example in split.shots:
        made.add(example, "real")
    for example in arm.pairs:
        made.add(example, "made")
    for piece in arm.controls:
        made.add(piece.example, "control", painted=piece.mask)
    return made


def _without(group: Sequence[Piece], normals: set[str]) -> list[Piece]:
    return [piece for piece in group if piece.normal not in normals]


def _examples(group: Sequence[Piece]) -> tuple[Example, ...]:
    return tuple(piece.example for piece in group)


def _with(controls: Sequence[Piece]) -> str:
    return f", with {len(controls)} controls" if controls else ""
