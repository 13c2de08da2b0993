"""The masks of a set, as `flawsmith check` sees them: how they are read, what is doubtful, how large the damage is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import cv2
import numpy as np

from flawsmith import registry
from flawsmith.config import Config, GeneratorConfig
from flawsmith.data import images
from flawsmith.data.masks.judging import judge, with_rules
from flawsmith.data.masks.reading import read_label
from flawsmith.data.photographs import windows_over
from flawsmith.data.split import Split
from flawsmith.errors import Answer, DataError
from flawsmith.preflight.findings import Findings, grouped
from flawsmith.types import Example

CELL = 8.0
"""Working pixels to a latent cell: what is thinner, the model can only smear."""
PLANNED = 100
"""Windows are planned for so many masks in all, spread evenly over the types: planning is slow, a median is asked."""


@dataclass(slots=True)
class Damage:
    """What the masks of one type measured."""

    share: list[float] = field(default_factory=list)
    thickness: list[float] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)
    drawn: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Labels:
    """What was seen of the labels."""

    damage: dict[tuple[str, str], Damage]
    doubts: list[tuple[str, str]]
    """(id, problem) of labels that must not be learned from as they are; empty masks among them."""
    answers: dict[str, tuple[Answer, ...]]
    """Settings that answer a problem, by the problem."""

    def say(self, divided: Split | None, findings: Findings) -> None:
        """Name what is doubtful: an error for a shot, which would teach it, a warning for a test picture."""
        shots = {shot.id for shot in divided.shots} if divided else set()
        learned = [(name, problem) for name, problem in self.doubts if name in shots]
        findings.add_errors(
            self._answered(grouped(learned, "1 shot cannot be learned from", "{} shots cannot be learned from"))
        )
        others = [doubt for doubt in self.doubts if doubt not in learned]
        findings.add_warnings(self._answered(grouped(others, "1 mask deserves a look", "{} masks deserve a look")))

    def _answered(self, sentences: Sequence[str]) -> dict[str, tuple[Answer, ...]]:
        """Return sentences, each of which ends with a problem, with the settings that answer that."""
        return {
            sentence: next((its for problem, its in self.answers.items() if sentence.endswith(problem)), ())
            for sentence in sentences
        }


def look_at_masks(
    examples: Sequence[Example], facts: Mapping[str, images.Header], config: Config, findings: Findings
) -> tuple[list[Example], Labels]:
    """Decide how the masks are read, and measure them all; return the examples with their rules, and what was seen."""
    judgement = judge(examples, config.data)
    examples = with_rules(examples, judgement.rules)
    unreadable = [(name, why) for name, _, why in judgement.broken]
    findings.add_errors({sentence: judgement.answers.get(sentence, ()) for sentence in judgement.errors})
    findings.errors += grouped(unreadable, "1 mask cannot be used", "{} masks cannot be used")
    findings.warnings += judgement.warnings
    findings.notes += judgement.notes
    broken = {name for name, _ in unreadable}
    labels = Labels(defaultdict(Damage), list(judgement.doubts), judgement.answers)
    defects = [one for one in examples if one.mask_rule is not None and one.id in facts and one.id not in broken]
    every = max(1, -(-len(defects) // PLANNED))
    turn: Counter[tuple[str, str]] = Counter()
    for example in defects:
        assert example.defect is not None
        try:
            mask = read_label(example, facts[example.id].shape)
        except DataError:
            continue  # changed while it was looked at
        if not mask.any():
            labels.doubts.append(
                (example.id, "the mask is empty; draw the damage, or move the photograph to the normal parts")
            )
            continue
        key = example.product, example.defect
        one = labels.damage[key]
        one.share.append(float(mask.mean()))
        one.thickness.append(_thickness(mask))
        if turn[key] % every == 0:
            size = config.windows.size or 128
            windows = windows_over(config, mask, size)
            one.windows.append(len(windows))
            one.drawn.append(one.thickness[-1] * size / median(window.side for window in windows))
        turn[key] += 1
    known = registry.entries("generators")
    by_model = any(name in known and not known[name].pixels for name in config.generator.names)
    for (product, defect), one in sorted(labels.damage.items()):
        thin = [value for value in one.drawn if value < CELL]
        if by_model and len(thin) > len(one.drawn) / 5:
            in_pixels = Answer("generator.name", GeneratorConfig().label)
            sentence = (
                f"{product}/{defect}: {100 * len(thin) / len(one.drawn):.0f} % of the damage is thinner than the model "
                f"can draw (median {median(thin):.1f} px at its working size, {CELL:g} are needed); raise "
                f"windows.max_zoom, or use a generator that works in pixels: {in_pixels}"
            )
            findings.add_warnings({sentence: (in_pixels,)})
    return examples, labels


def _thickness(mask: np.ndarray) -> float:
    """Twice the greatest distance of a damaged pixel from normal ones; beyond the picture's edge all is normal."""
    left, top, wide, high = cv2.boundingRect(mask.view(np.uint8))
    padded = np.zeros((high + 2, wide + 2), np.uint8)
    padded[1:-1, 1:-1] = mask[top : top + high, left : left + wide]
    return 2 * float(cv2.distanceTransform(padded, cv2.DIST_L2, 5).max())
