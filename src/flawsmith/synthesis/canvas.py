"""A sample while it is being painted: the photograph round the damage, what is asked for, the strokes so far.

A batch of samples is painted at once, so of each only this part is held, not its photograph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from flawsmith.data.photographs import Photograph
from flawsmith.data.tiling import Spot, Window
from flawsmith.run.records import PlanLine, Sample
from flawsmith.types import Range


@dataclass(frozen=True, slots=True)
class Stroke:
    """One window that a generator painted."""

    window: Window
    """Counted from the corner of the canvas."""
    image: np.ndarray
    """float32 (size,size,3) in [-1,1]: the window with the damage."""
    base: np.ndarray | None
    """float32 (size,size,3): the normal window after the same decoder; None = the normal window itself."""
    mask: np.ndarray
    """bool (h,w) of the canvas's size: where damage is meant."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A window of a real shot whose appearance is asked for."""

    image: np.ndarray
    """float32 (size,size,3) in [-1,1]."""
    mask: np.ndarray
    """bool (size,size)."""
    product: str
    defect: str


@dataclass
class Canvas:
    """A sample while it is being painted. Its pictures and masks are those of `spot`, (h,w) px."""

    line: PlanLine
    photograph: Callable[[], Photograph]
    """Returns what is painted on, (H,W) px."""
    spot: Spot
    """The part of the photograph that its windows and the damage take."""
    normal: np.ndarray
    """Native: the photograph there."""
    span: Range
    """The photograph's."""
    grey: bool
    """The photograph has three channels, all equal throughout."""
    asked: np.ndarray
    """bool: where damage is to be painted."""
    part: np.ndarray
    """bool: where the part lies; all True for a surface."""
    shot: np.ndarray | None
    """float32 (h,w,3) in [-1,1]: the shot re-posed, its damage under `asked`."""
    sketch: np.ndarray | None
    """float32 (h,w,3) in [-1,1]: the photograph with the shot's damage blended in."""
    windows: list[Window]
    """Counted from the photograph's corner."""
    ground: np.ndarray
    """Native: what the paint is laid on; the photograph itself, or see `Painter._taken_over`."""
    taken: np.ndarray | None = None
    """bool: where `ground` shows damage already, which no generator paints."""
    reference: Reference | None = None
    attempt: int = 0
    current: np.ndarray = field(init=False)
    """Native: the picture so far."""
    strokes: list[Stroke] = field(default_factory=list)
    refused: str = ""
    """Why the generator took back what it had made of a window; that window stays unpainted."""
    whole: bool = False
    """True: its windows are synthetic throughout; the strokes' masks only say what of them is damage."""

    def __post_init__(self) -> None:
        self.restart()

    def window(self, number: int) -> Window:
        """Return a window, counted from the spot's corner."""
        return self.windows[number].seen_from(self.spot)

    def restart(self) -> None:
        """Forget all paint."""
        self.current, self.strokes, self.refused = self.ground, [], ""

    def damage(self) -> np.ndarray:
        """Return where any stroke means damage, bool (h,w)."""
        union = np.zeros(self.asked.shape, bool)
        for stroke in self.strokes:
            union |= stroke.mask
        if self.taken is not None and self.strokes:
            union |= self.taken
        return union

    def laid(self, patch: np.ndarray) -> np.ndarray:
        """Return the photograph with a picture of the spot in it."""
        picture = self.photograph().native.copy()
        picture[self.spot] = patch
        return picture

    def laid_mask(self, patch: np.ndarray) -> np.ndarray:
        """Return a mask of the spot as one of the photograph, bool (H,W)."""
        mask = np.zeros(self.photograph().native.shape[:2], bool)
        mask[self.spot] = patch
        return mask

    def sample(self, status: str, paint: str, share: float, area: int) -> Sample:
        """Return the line of what became of it, without the names of its files."""
        line = self.line
        return Sample(
            index=line.index,
            role=line.role,
            status=status,
            generator=line.generator,
            product=line.product,
            defect=line.defect,
            normal=line.normal,
            shot=line.shot,
            seed=line.seed,
            attempt=self.attempt,
            paint=paint,
            windows=tuple(self.windows),
            painted_share=round(share, 4),
            area=area,
            reference=line.reference if not line.is_control else "",
            transferred_from=line.transferred_from,
            control_of=line.control_of,
            donor=line.donor,
        )
