"""Finite or refused: what a generator paints and what it has learned are numbers in their range, or it stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flawsmith.errors import RunError
from flawsmith.interfaces import Generator
from flawsmith.run.records import PlanLine
from flawsmith.types import Generated

FARTHEST = 2.0
"""A picture's values lie in [-1,1]; up to here they are rounding or overshoot, which pasting clips."""


def require_finite(generator: Generator, generated: Generated, lines: Sequence[PlanLine], window: int) -> None:
    """Refuse a result that is no picture or no mask; of rows that the generator refused itself the mask is not read.

    Args:
        generator: What painted.
        generated: Its result, a row for each line.
        lines: What was asked for.
        window: Number of the window, from 0.

    Raises:
        RunError: names the generator, the sample and the window.
    """
    for row, line in enumerate(lines):
        picture = [generated.image[row], *([] if generated.base is None else [generated.base[row]])]
        wrong = next(filter(None, (_wrong(values, FARTHEST, "[-1, 1]") for values in picture)), "")
        if not (generated.refused and generated.refused[row]):
            wrong = wrong or _wrong(generated.mask[row], 1 + 1e-3, "a mask's [0, 1]")
        if wrong:
            advice = "this generator is at fault"
            if generator.trainable() or generator.needs_backbone:
                advice = 'train again, with backbone.dtype = "float32" or a lower train.learning_rate'
            raise RunError(
                f"{line.generator}: {line.role} {line.index}, window {window + 1}: painted {wrong}; {advice}"
            )


def require_finite_weights(generator: Generator, name: str) -> None:
    """Refuse weights that are no numbers, before they are saved.

    Args:
        generator: What was trained.
        name: Of the generator and of what it learned, for the sentence.

    Raises:
        RunError: names the weights.
    """
    weights = {f"{part}.{key}": value for part, net in generator.trainable().items() for key, value in _state(net)}
    for key, value in (weights | dict(generator.learned())).items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise RunError(f"{name}: training left values that are no numbers in {key}; lower train.learning_rate")


def _state(net: torch.nn.Module) -> Sequence[tuple[str, Tensor]]:
    state: Mapping[str, Tensor] = net.state_dict()
    return list(state.items())


def _wrong(values: Tensor, most: float, extent: str) -> str:
    """Return what is wrong with values, for a sentence; "" = nothing."""
    if bool((values.abs() <= most).all()):
        return ""
    if not bool(torch.isfinite(values).all()):
        return "values that are no finite numbers (NaN or infinite)"
    return f"values of up to {float(values.abs().max()):.3g}, far out of {extent}"
