"""A sample while it is being painted: the photograph, what is asked for, and the strokes so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flawsmith.data.photographs import Photograph
from flawsmith.data.tiling import Spot, Window
from flawsmith.data.windows import cut
from flawsmith.run.records import PlanLine, Sample


@dataclass(frozen=True, slots=True)
class Stroke:
    """One window that a generator painted."""

    window: Window
    image: np.ndarray
    """float32 (size,size,3) in [-1,1]: the window with the damage."""
    base: np.ndarray | None
    """float32 (size,size,3): the normal window after the same decoder; None = the normal window itself."""
    mask: np.ndarray
    """bool (H,W) of the photograph's size: where damage is meant."""


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
    """A sample while it is being painted."""

    line: PlanLine
    normal: Photograph
    """What is painted on, (H,W) pixels."""
    asked: np.ndarray
    """bool (H,W): where damage is to be painted."""
    part: np.ndarray
    """bool (H,W): where the part lies; all True for a surface."""
    spot: Spot
    """The part of the photograph that its windows see."""
    shot: np.ndarray | None
    """float32 (h,w,3) in [-1,1], of the spot: the shot re-posed, its damage under `asked`."""
    sketch: np.ndarray | None
    """float32 (h,w,3) in [-1,1], of the spot: the photograph with the shot's damage blended in."""
    windows: list[Window]
    ground: np.ndarray
    """Native: what the paint is laid on; the photograph itself, or see `Painter._taken_over`."""
    taken: np.ndarray | None = None
    """bool (H,W): where `ground` shows damage already, which no generator paints."""
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

    def seen(self, part: np.ndarray, window: Window, size: int | None) -> np.ndarray:
        """Return what a window sees of a picture of the spot."""
        return cut(part, window.seen_from(self.spot), size)

    def restart(self) -> None:
        """Forget all paint."""
        self.current, self.strokes, self.refused = self.ground, [], ""

    def damage(self) -> np.ndarray:
        """Return where any stroke means damage, bool (H,W)."""
        union = np.zeros(self.asked.shape, bool)
        for stroke in self.strokes:
            union |= stroke.mask
        if self.taken is not None and self.strokes:
            union |= self.taken
        return union

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
