"""What a generator is given, what it makes, and each denoising step between: recorded while a `Brush` paints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import strip  # noqa: F401  it puts flawsmith and docs/ on the path
from torch import Tensor

from flawsmith import Brush
from flawsmith.data.tensors import picture_of
from flawsmith.synthesis.by_hand.painted import Painted
from flawsmith.types import Condition, Generated


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the denoising loop, of the first row of its batch."""

    t: int
    noisy: Tensor
    """float32 (1,C,h,w): x_t."""
    clean: Tensor
    """float32 (1,C,h,w): x_0 as the network predicts it from there."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A window that was painted."""

    generator: Any
    asked: Condition
    generated: Generated
    steps: list[Step]
    painted: Painted

    @property
    def normal(self) -> np.ndarray:
        """float32 (h,w,3) in [-1,1]."""
        return picture_of(self.asked.normal[0])

    @property
    def made(self) -> np.ndarray:
        """float32 (h,w,3) in [-1,1]: the window as the generator left it."""
        return picture_of(self.generated.image[0])

    @property
    def mask(self) -> np.ndarray:
        """bool (h,w): what was asked for."""
        return self.asked.mask[0, 0].numpy() > 0.5


def paint(
    brush: Brush, photograph: Path, mask: np.ndarray, defect: str, seed: int, *, product: str, loop: Any = None
) -> Heard:
    """Paint by hand, and return the window that shows most of the mask.

    Args:
        brush: What paints.
        photograph: A file.
        mask: bool (H,W).
        defect: The defect type.
        seed: As for `Brush.paint`.
        product: What the photograph shows.
        loop: The module whose `denoise` the method calls; None = it denoises nothing.
    """
    windows: list[tuple[Condition, Generated, list[Step]]] = []
    loops: list[list[Step]] = [[]]
    painter = brush.painters.of(brush.job_of(product, defect))
    painter.listener = lambda asked, generated: windows.append((asked, generated, loops[-1]))
    painter_of = patch.object(brush.painters, "of", lambda job: painter)  # it makes a new one each time
    with painter_of, steps_of(loop, loops) if loop is not None else nullcontext():
        painted = brush.paint(photograph, mask, defect, seed, product=product)
    asked, generated, steps = max(windows, key=lambda one: float(one[0].mask.sum()))
    return Heard(painter.generator, asked, generated, steps, painted)


@contextmanager
def steps_of(loop: Any, loops: list[list[Step]]) -> Iterator[None]:
    """Add a list of steps for each run of the denoising loop that a module starts."""
    denoise: Callable[..., Tensor] = loop.denoise

    def listened(predict: Callable[[Tensor, Tensor], Tensor], noise: Any, *given: Any, **named: Any) -> Tensor:
        loops.append([])

        def heard(latent: Tensor, t: Tensor) -> Tensor:
            prediction = predict(latent, t)
            clean = noise.clean(latent, prediction, t)
            loops[-1].append(Step(int(t[0]), latent[:1].clone(), clean[:1].clone()))
            return prediction

        return denoise(heard, noise, *given, **named)

    with patch.object(loop, "denoise", listened):
        yield
