"""What is to choose from: a generator, and where its masks come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flawsmith import registry
from flawsmith.config import AUTO, Config, GeneratorConfig
from flawsmith.evaluation.arms import Made

USUAL = ("patch_synthesis", "crop_paste")
"""Generators that are always tried: they need no backbone, train nothing and paint in a fraction of a second."""
MOST = 10
"""Samples per shot that every candidate makes."""
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

    def settings_in(self, config: Config) -> dict[str, Any]:
        """Return what a configuration says of its generator; {} = it does not name it."""
        part = config.generator
        known = part.name != AUTO and self.generator in part.names
        return part.alone(self.generator).settings if known else {}

    def configured(self, config: Config, shots: dict[str, int]) -> Config:
        """Return the configuration of a run that makes MOST samples per shot in this way, and nothing else.

        Args:
            config: What is said of the photographs, windows, training and generation.
            shots: Defect type -> its number of shots.
        """
        settings = self.settings_in(config)
        count = {defect: MOST * number for defect, number in shots.items()}
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
class Mixture:
    """What each defect type takes; a type that is left out takes nothing."""

    of: Mapping[str, Candidate]
    per_shot: int = MOST
    controls: bool = True

    @property
    def name(self) -> str:
        """What it is, in full."""
        parts = [f"{defect}: {candidate.name}" for defect, candidate in sorted(self.of.items())]
        return f"{self.per_shot} per shot{'' if self.controls else ', no controls'}; {'; '.join(parts)}"


Way = Candidate | Mixture | None
"""What an arm is made by; None = nothing, it learns from shots and normal parts alone."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What one candidate made in one fold."""

    samples: tuple[Made, ...]
    controls: tuple[Made, ...]

    def of(self, defect: str, count: int) -> Samples:
        """Return the first so many of a defect type, with the controls that take their places."""

        def kept(one: Made) -> bool:
            return one.defect == defect and one.rank < count

        return Samples(tuple(filter(kept, self.samples)), tuple(filter(kept, self.controls)))
