"""The arms of a proof: which samples each learns from beside the shots, made by whichever generator.

Another generator's samples are made in a run folder of their own, `arms/<name>/`, by the same stages and from the same
plan: the same normal parts, shots, poses and seeds, so that the arms differ in the paint alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flawsmith.config import GeneratorConfig
from flawsmith.data.inspection_tiles import Tiles
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet
from flawsmith.evaluation.shape import Shape
from flawsmith.evaluation.statistics import OURS, REAL
from flawsmith.files import read_json, write_json
from flawsmith.run.dataset import Dataset, load_ranges, load_split
from flawsmith.run.folder import Run
from flawsmith.types import Example

Synthesize = Callable[[Run, Dataset], None]
"""Trains and generates a run; handed in, for evaluation knows no generator's way of being made."""
NO_CONTROLS = f"{OURS}, no controls"
MADE_ONLY = "made-only"
HELD_CONTROLS = 40
"""Controls a run keeps for the artefact score, at most; they and their normal parts are never learned from."""


@dataclass(frozen=True, slots=True)
class Made:
    """A sample or a control as a detector meets it, and what it was made from."""

    example: Example
    mask: Path
    """Where it was painted; a control's example has no label, for nothing is wrong with it."""
    normal: str
    """Id of the normal photograph beneath."""
    rank: int
    """Its number among the samples of its defect type, in the order of the plan."""
    donor: str = ""
    """Id of the photograph whose normal matter a control started from; "" = none, or a run that did not say it."""
    defect: str = ""
    """The sample's defect type; of a control that of the sample whose place it takes."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train a detector."""

    name: str
    text: str
    """What it learns from, in words."""
    samples: tuple[Made, ...] = ()
    controls: tuple[Made, ...] = ()
    shots: bool = True
    """Whether it learns from the real shots too."""

    def unseen(self, defects: Sequence[str]) -> list[str]:
        """Return which of these defect types no picture shows that it learns from; every type has shots."""
        shown = {one.example.defect for one in self.samples}
        return [] if self.shots else [defect for defect in defects if defect not in shown]

    def facts(self) -> dict[str, Any]:
        """Return what the report says of it."""
        return {
            "text": self.text,
            "samples": dict(sorted(Counter(str(one.example.defect) for one in self.samples).items())),
            "controls": len(self.controls),
        }


def mixed(other: str) -> str:
    """Return the name of the arm that learns from our samples and another generator's together."""
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
    if config.generate.without_shots.types:  # no test picture shows these, and the other generator may need shots
        unproven = config.generate.without_shots.model_copy(update={"types": []})
        generate = config.generate.model_copy(update={"without_shots": unproven})
        config = config.model_copy(update={"generate": generate})
    rival = Run.create(run.path("arms", name), config)
    write_json(rival.path("data.json"), read_json(run.path("data.json")))
    synthesize(rival, data)
    return rival


def made_of(run: Run, product: str) -> tuple[list[Made], list[Made]]:
    """Return a run's kept samples and its controls of one product."""
    count: Counter[str] = Counter()
    rank: dict[int, int] = {}
    samples, controls = [], []
    span = load_ranges(run).get(product)
    kept = {sample.index: sample for sample in run.kept()}
    known = {shot.defect for shot in load_split(run).shots if shot.product == product}
    screened = run.verdicts() is not None
    for sample in run.samples():
        if sample.product != product or sample.transferred_from:  # no test picture shows what a product never had
            continue
        if known and not sample.shot and sample.defect not in known:  # nor what it has no shots of
            continue
        stands = kept.get(sample.index)
        defect = stands.defect if stands else sample.defect  # whoever looked at it may have said another type
        rank[sample.index] = count[defect]
        if known and defect not in known:
            continue
        # Of a screened run the samples that stand are counted, so that "3 per shot" means 3 that anybody learns from.
        count[defect] += stands is not None or not screened
        if stands:
            mask = run.path(stands.mask)
            example = Example(stands.image, run.path(stands.image), product, defect, (mask,), span=span)
            samples.append(Made(example, mask, sample.normal, rank[sample.index], defect=defect))
    for control in run.controls():
        # What is made of a type that nobody can judge is left out, with its controls.
        if control.product == product and control.made and control.control_of in rank:
            example = Example(control.image, run.path(control.image), product, span=span)
            controls.append(
                Made(
                    example,
                    run.path(control.mask),
                    control.normal,
                    rank[control.control_of],
                    control.donor,
                    control.defect,
                )
            )
    return samples, controls


def held_out(controls: Sequence[Made], normals: Sequence[Example]) -> list[Made]:
    """Choose the controls that judge artefacts: evenly spaced, and few enough that nine in ten normal parts stay."""
    count = min(HELD_CONTROLS, len(controls) // 2, max(1, len(normals) // 10))
    if not controls or count < 1:
        return []
    step = len(controls) / count
    return [controls[int(step * (number + 0.5))] for number in range(count)]


def make_arms(run: Run, rivals: dict[str, Run], product: str, split: Split, away: Collection[str]) -> list[Arm]:
    """Return every arm that the configuration asks for, `real-only` first.

    Args:
        run: The run.
        rivals: Runs of other generators, by name.
        product: The product that is proven.
        split: Its photographs.
        away: Ids of normal photographs that no arm may learn from, nor from what is painted on them.
    """
    part, name = run.config.prove, run.config.generator.label
    shots = Counter(str(shot.defect) for shot in split.shots)
    samples, controls = without(away, *made_of(run, product))
    of_rivals = {rival: without(away, *made_of(folder, product)) for rival, folder in rivals.items()}
    arms = [Arm(REAL, "shots and normal parts")]
    for rival, (theirs, their_controls) in of_rivals.items():
        arms.append(_arm(rival, f"and {len(theirs)} samples of {rival}", theirs, their_controls))
    arms.append(_arm(OURS, f"and {len(samples)} samples of {name}", samples, controls))
    if controls:
        arms.append(_arm(NO_CONTROLS, f"and {len(samples)} samples of {name} alone", samples, []))
    if samples:  # normal parts alone would be `none`
        text = f"normal parts and {len(samples)} samples of {name}, no shots"
        arms.append(replace(_arm(MADE_ONLY, text, samples, controls), shots=False))
    if part.mix and rivals:
        first = next(iter(rivals))
        more, more_controls = of_rivals[first]
        text = f"and the samples of {name} and of {first}"
        arms.append(_arm(mixed(first), text, [*samples, *more], [*controls, *more_controls]))
    for times in part.curve:
        limit = {defect: math.ceil(times * count) for defect, count in shots.items()}
        few = [one for one in samples if one.rank < limit[str(one.example.defect)]]
        if len(few) < len(samples):
            few_controls = [one for one in controls if one.rank < limit.get(one.defect, 0)]
            text = f"and {len(few)} samples of {name}, {times:g} per shot"
            arms.append(_arm(f"{OURS} {times:g}x", text, few, few_controls))
    return arms


def common_set(
    split: Split,
    away: Collection[str],
    shape: Shape,
    defects: Sequence[str],
    forbidden: frozenset[str],
    tiles: Tiles | None = None,
) -> TrainingSet:
    """Return what every arm learns from: the normal parts but those that are kept away.

    Args:
        split: One product's photographs.
        away: Ids of normal photographs that no arm may learn from: beneath held-out controls, and calibration normals.
        shape: Rows and columns of the pictures that detectors see.
        defects: The defect types, in the order in which detectors count them.
        forbidden: Content hashes of all test pictures: none of them can enter.
        tiles: How photographs are cut into tiles of that shape; None = detectors see them whole.
    """
    training = TrainingSet(shape, defects, forbidden, tiles=tiles)
    for example in split.normals:
        if example.id not in away:
            training.add(example, "real")
    return training


def training_set(common: TrainingSet, arm: Arm, split: Split) -> TrainingSet:
    """Return what an arm's detectors learn from: normal parts, its samples and controls, and mostly the shots."""
    training = common.clone()
    for example in split.shots if arm.shots else ():
        training.add(example, "real")
    for sample in arm.samples:
        training.add(sample.example, "made", photograph=sample.normal)
    for control in arm.controls:
        training.add(control.example, "control", painted=control.mask, photograph=control.normal)
    return training


def _arm(name: str, text: str, samples: Sequence[Made], controls: Sequence[Made]) -> Arm:
    if controls:
        text = f"{text}, with {len(controls)} control{'' if len(controls) == 1 else 's'}"
    return Arm(name, text, tuple(samples), tuple(controls))


def without(away: Collection[str], *groups: Sequence[Made]) -> tuple[list[Made], ...]:
    """Return groups without what shows a part of these photographs."""
    return tuple([one for one in group if one.normal not in away and one.donor not in away] for group in groups)
