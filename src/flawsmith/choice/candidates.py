"""What is to choose from: a generator, and where its masks come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flawsmith import registry
from flawsmith.config import Config, GeneratorConfig
from flawsmith.evaluation.arms import Made

USUAL = ("patch_synthesis", "crop_paste")
"""Generators that are always tried: they need no backbone, train nothing and paint in a fraction of a second."""
Masks = Literal["shots", "procedural"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to make samples."""

    generator: str
    masks: Masks

    @property
    def name(self) -> str:
        """Its name, also that of its folder: "patch_synthesis", "patch_synthesis, new shapes"."""
        return self.generator if self.masks == "shots" else f"{self.generator}, new shapes"

    def configured(self, config: Config, per_shot: int, shots: dict[str, int]) -> Config:
        """Return the configuration of a run that makes so many samples per shot in this way, and nothing else.

        Args:
            config: What is said of the photographs, windows, training and generation.
            per_shot: Samples per shot.
            shots: Defect type -> its number of shots.
        """
        settings = config.generator.settings if config.generator.name == self.generator else {}
        count = {defect: per_shot * number for defect, number in shots.items()}
        return config.model_copy(
            update={
                "generator": GeneratorConfig(name=self.generator, settings=settings),
                "generate": config.generate.model_copy(update={"masks": self.masks, "count": count}),
                "screen": config.screen.model_copy(update={"enabled": False}),
            }
        )


def candidates(also: Sequence[str]) -> list[Candidate]:
    """Return the usual generators and others that are named, each in re-posed masks and, if it can, in new shapes.

    Raises:
        ConfigError: one of the others is unknown.
    """
    made = []
    for name in dict.fromkeys((*USUAL, *also)):
        registry.require("generators", name, "--also")
        made.append(Candidate(name, "shots"))
        if not registry.get("generators", name).needs_shot:
            made.append(Candidate(name, "procedural"))
    return made


@dataclass(frozen=True, slots=True)
class Samples:
    """What one candidate made in one fold."""

    samples: tuple[Made, ...]
    controls: tuple[Made, ...]

    def of(self, defects: Sequence[str], per_shot: int, shots: dict[str, int]) -> Samples:
        """Return those of some defect types, so many per shot."""

        def kept(one: Made) -> bool:
            return one.defect in defects and one.rank < per_shot * shots[one.defect]

        return Samples(tuple(filter(kept, self.samples)), tuple(filter(kept, self.controls)))
