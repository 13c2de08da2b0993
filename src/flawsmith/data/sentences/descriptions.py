"""What was said of a run's photographs, as the grammar understands it: wishes for samples, captions of shots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flawsmith.data.sentences.grammar import ParsedPrompt


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that was understood."""

    text: str
    parsed: tuple[ParsedPrompt, ...]


@dataclass(frozen=True, slots=True)
class Descriptions:
    """What a model said of photographs."""

    wishes: Mapping[tuple[str, str], tuple[Sentence, ...]]
    """(product, defect type) -> where and how it is plausible on normal photographs."""
    captions: Mapping[str, Sentence]
    """Id of a shot -> what its damage looks like."""

    def drawn(self, product: str, defect: str, rng: np.random.Generator) -> Sentence | None:
        """Return one of the wishes for a type on a product; None = there is none."""
        wishes = self.wishes.get((product, defect), ())
        return wishes[int(rng.integers(len(wishes)))] if wishes else None

    def appearance(self, shot: str) -> str:
        """Return the words of size and severity that a shot's caption has; "" = none."""
        return self.captions[shot].parsed[0].appearance if shot in self.captions else ""


NOTHING_SAID = Descriptions({}, {})
