"""How a run's masks are read: decided once, kept in data.json, decided again when a mask file or setting changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flawsmith.config import DataConfig, affecting
from flawsmith.data.masks.judging import Rules, judge
from flawsmith.data.split import Split
from flawsmith.errors import DataError
from flawsmith.files import digest, file_state
from flawsmith.types import Example, MaskRule

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class MaskReading:
    """The rules of a run's masks, and what is to be said of them."""

    rules: Rules
    notes: tuple[str, ...]
    general: tuple[str, ...]
    """Warnings that no split changes."""
    doubts: tuple[tuple[str, str], ...]
    """(id, problem) of labels that no shot may have."""
    empty: tuple[str, ...]
    """Ids of photographs whose labels call nothing damaged."""
    stamp: str
    """Of the mask files and settings from which the rules were decided."""

    def require_clear(self, shots: Sequence[Example]) -> None:
        """Do nothing when no shot is among the doubtful.

        Raises:
            DataError: with a sentence for each that is.
        """
        ids = {shot.id for shot in shots}
        wrong = [f"{name}: {why}" for name, why in self.doubts if name in ids]
        _require_none("1 shot cannot be learned from", "{} shots cannot be learned from", wrong)

    def warnings(self, made: Split) -> list[str]:
        """Return the warnings of the masks, those of doubtful test pictures included."""
        ids = {example.id for example in made.test_defects}
        return [*self.general, *(f"{name}: {why}" for name, why in self.doubts if name in ids)]

    def tree(self) -> dict[str, Any]:
        """Return what data.json keeps."""
        return {
            "stamp": self.stamp,
            "rules": [{"product": key[0], "defect": key[1], **rule_tree(rule)} for key, rule in self.rules.items()],
            "notes": list(self.notes),
            "warnings": list(self.general),
            "doubts": [list(doubt) for doubt in self.doubts],
            "empty": list(self.empty),
        }


def read_masks(examples: Sequence[Example], data: DataConfig, known: Mapping[str, Any] | None) -> MaskReading:
    """Decide how masks are read, or take it from data.json where nothing changed since.

    Args:
        examples: All photographs, as `layouts.scan` gives them.
        data: Their settings.
        known: `MaskReading.tree` of the last time; None = there was none.

    Raises:
        DataError: a mask cannot be read, or the masks leave open what is damage.
    """
    files = [[example.id, example.defect, [file_state(path) for path in example.masks]] for example in examples]
    stamp = digest([files, data.layout, affecting(data.mask)])
    before: dict[tuple[str, str], MaskRule] = {}
    if known is not None:
        before = {(row["product"], row["defect"]): rule_from(row) for row in known["rules"]}
        if known["stamp"] == stamp and "empty" in known:  # before 0.3 it was not kept
            doubts = tuple((name, why) for name, why in known["doubts"])
            noted, warned, empty = (tuple(known[name]) for name in ("notes", "warnings", "empty"))
            return MaskReading(before, noted, warned, doubts, empty, stamp)
    judgement = judge(examples, data)
    if judgement.errors:
        answers = [answer for sentence in judgement.errors for answer in judgement.answers.get(sentence, ())]
        raise DataError("\n".join(judgement.errors), answers=answers)
    broken = [f"{path}: {why}" for _, path, why in judgement.broken]
    _require_none("1 mask cannot be used", "{} masks cannot be used", broken)
    changed = sorted(key for key, rule in judgement.rules.items() if key in before and before[key] != rule)
    notes = [
        f"{product}/{defect}: its masks are read in another way than when this run began, so what was made of them "
        f"is made again ({_differences(before[product, defect], judgement.rules[product, defect])})"
        for product, defect in changed
    ]
    return MaskReading(
        judgement.rules,
        (*judgement.notes, *notes),
        tuple(judgement.warnings),
        tuple(judgement.doubts),
        tuple(judgement.empty),
        stamp,
    )


def rule_tree(rule: MaskRule) -> dict[str, Any]:
    """Return a rule as plain values."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(rule).items()}


def rule_from(row: Mapping[str, Any]) -> MaskRule:
    """Return the rule that `rule_tree` wrote."""
    values: dict[str, Any] = {
        name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in MaskRule.__dataclass_fields__
    }
    return MaskRule(**values)


def _differences(old: MaskRule, new: MaskRule) -> str:
    before, after = asdict(old), asdict(new)
    changed = [name for name in before if before[name] != after[name]]
    return "; ".join(f"{name}: {before[name]} before, {after[name]} now" for name in changed)


def _require_none(one: str, many: str, sentences: Sequence[str]) -> None:
    if not sentences:
        return
    number = len(sentences)
    more = [f"and {number - _SHOWN} more; `flawsmith check` says all"] if number > _SHOWN else []
    raise DataError("\n".join([f"{one if number == 1 else many.format(number)}:", *sentences[:_SHOWN], *more]))
