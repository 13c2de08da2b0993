"""What a choice is: what was tried, what each defect type takes, and the configuration that follows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from flawsmith.choice.candidates import Candidate
from flawsmith.choice.estimates import Estimate, estimates, overall
from flawsmith.config import Config
from flawsmith.evaluation.statistics import TASKS, Task

Figures = Mapping[Task, Mapping[str, float]]
"""Task -> defect type -> figure, 0..1: pixel AP, image AUROC, recall."""


@dataclass(frozen=True)
class Trial:
    """One way to learn against another, in every fold."""

    name: str
    differences: Mapping[Task, Mapping[str, Sequence[float]]]
    """Task -> defect type -> by how much the figure is higher, one number per fold that judged the type."""
    candidate: Candidate | None = None
    """None = a variation of what was taken."""

    @classmethod
    def of(
        cls, name: str, answers: Sequence[Figures], others: Sequence[Figures], candidate: Candidate | None = None
    ) -> Trial:
        """Compare the answers of two ways, fold by fold."""
        table: dict[Task, dict[str, list[float]]] = {}
        for one, other in zip(answers, others, strict=True):
            for task, row in one.items():
                for defect, figure in row.items():
                    table.setdefault(task, {}).setdefault(defect, []).append(figure - other[task][defect])
        return cls(name, table, candidate)

    def about(self, defects: Collection[str]) -> Trial:
        """Return the same of some types: others, that are not like them, lend them nothing."""
        table = {
            task: {name: values for name, values in row.items() if name in defects}
            for task, row in self.differences.items()
        }
        return replace(self, differences={task: row for task, row in table.items() if row})

    @property
    def lead(self) -> Task:
        """The task whose figure decides: where the damage is, else whether there is any, else which."""
        return next(task for task in TASKS if task in self.differences)

    @cached_property
    def effects(self) -> dict[Task, dict[str, Estimate]]:
        """Task -> defect type -> estimated effect."""
        return {task: estimates(row) for task, row in self.differences.items()}

    @property
    def mean(self) -> Estimate:
        """The mean effect over defect types."""
        return overall(self.differences[self.lead])

    def effect(self, defect: str) -> Estimate:
        """Return the effect on a type; of one that no fold could judge, the mean over the others."""
        return self.effects[self.lead].get(defect, self.mean)

    def serves(self, defect: str) -> bool:
        """Whether it helps the type beyond its standard error, and harms its detection by no more than that."""
        return self.effect(defect).helps and not self._harms_detection(defect)

    def raises(self, defect: str) -> bool:
        """Whether it rather helps the type than not, and harms its detection by no more than the standard error."""
        return self.effect(defect).value > 0 and not self._harms_detection(defect)

    def _harms_detection(self, defect: str) -> bool:
        detection = self.effects.get("detection", {}).get(defect)
        return detection is not None and detection.harms


@dataclass(frozen=True, slots=True)
class DefectChoice:
    """What one defect type takes."""

    defect: str
    candidate: Candidate | None
    """None = nothing that was tried serves it: learn from the real shots alone."""
    per_shot: int
    effect: Estimate | None
    """Of the candidate with MOST samples per shot, against the shots alone; `beside` = against nothing for this type
    while the others have samples."""
    judged: int
    """Folds that judged it; 0 = its shots show one piece, so it follows the others."""
    beside: bool = False
    """It takes samples only because the others do: against the shots alone nothing served it clearly."""

    @property
    def sentence(self) -> str:
        """The choice in words."""
        if self.candidate is None or self.effect is None:
            return f"{self.defect}: none of what was tried helps beyond its error; learn from the real shots alone"
        masks = "re-posed masks" if self.candidate.masks == "shots" else "new shapes"
        number = "1 sample" if self.per_shot == 1 else f"{self.per_shot} samples"
        words = f"{self.defect}: {number} per shot from {self.candidate.generator} in {masks}"
        effect = f"{100 * self.effect.value:+.1f} points, standard error {100 * self.effect.error:.1f}"
        if not self.judged:
            return f"{words} (its shots show one piece, so this follows the other types: {effect})"
        if self.beside:
            return f"{words} (beside the samples of the other types {effect})"
        return f"{words} ({effect})"


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why."""

    config: Config
    """What to run."""
    defects: tuple[DefectChoice, ...]
    trials: tuple[Trial, ...]
    """Each candidate against the shots alone."""
    every: Trial | None
    """Samples for all types against samples for those alone that gained by themselves, of the other types; None = all
    gained by themselves, none did, or no fold judged the others."""
    variations: tuple[Trial, ...]
    """Fewer samples, and no controls, against the mixture of what was taken."""
    real: Mapping[Task, Mapping[str, float]]
    """Task -> defect type -> figure of the shots alone, the mean over folds."""
    folds: int
    """Over all products."""
    detectors: tuple[str, ...]
    extractor: str

    @property
    def figure(self) -> str:
        """Name of the figure that decided."""
        return TASKS[self.trials[0].lead][1]

    def tree(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "folds": self.folds,
            "detectors": list(self.detectors),
            "extractor": self.extractor,
            "figure": self.figure,
            "defects": {
                one.defect: {
                    "generator": one.candidate.generator if one.candidate else None,
                    "masks": one.candidate.masks if one.candidate else None,
                    "per_shot": one.per_shot,
                    "effect": _plain(one.effect),
                    "folds": one.judged,
                    "beside": one.beside,
                    "sentence": one.sentence,
                }
                for one in self.defects
            },
            "controls": self.config.generate.controls,
            "real-only": {task: dict(row) for task, row in self.real.items()},
            "candidates": {trial.name: _rows(trial) for trial in self.trials},
            "all types": _rows(self.every) if self.every else None,
            "variations": {trial.name: _rows(trial) for trial in self.variations},
        }


def mean_figures(answers: Sequence[Figures]) -> dict[Task, dict[str, float]]:
    """Return the mean over the folds that judged a type."""
    rows: dict[Task, dict[str, list[float]]] = {}
    for one in answers:
        for task, row in one.items():
            for defect, figure in row.items():
                rows.setdefault(task, {}).setdefault(defect, []).append(figure)
    return {task: {name: float(np.mean(values)) for name, values in row.items()} for task, row in rows.items()}


def _rows(trial: Trial) -> dict[str, Any]:
    return {
        "differences": {
            task: {name: list(values) for name, values in row.items()} for task, row in trial.differences.items()
        },
        "effects": {task: {name: _plain(one) for name, one in row.items()} for task, row in trial.effects.items()},
        "mean": _plain(trial.mean),
    }


def _plain(estimate: Estimate | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    # JSON has no infinity: an error that nothing tells is left out.
    finite = {"error": estimate.error} if np.isfinite(estimate.error) else {}
    return {"value": estimate.value, **finite}
