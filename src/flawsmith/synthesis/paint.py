"""Paint one batch of samples or controls at native resolution: cut windows, generate, paste back, re-fit labels.

Of a sample that is being painted only the part round its damage is held; whole pictures are made one after another.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.masks.poses import apply_pose_mask
from flawsmith.data.photographs import Photograph, Photographs, fullest, windows_over
from flawsmith.data.poisson import blended
from flawsmith.data.split import Split
from flawsmith.data.tensors import image_tensor, mask_tensor, picture_of
from flawsmith.data.tiling import Spot, Window, native_window
from flawsmith.data.windows import Refit, cut, cut_mask, paste, refit, spot_of, uncut
from flawsmith.interfaces import Generator
from flawsmith.nn.device import one_thread
from flawsmith.nn.memory.portions import in_portions
from flawsmith.run.records import MADE, PlanLine, Sample
from flawsmith.synthesis.canvas import Canvas, Reference, Stroke
from flawsmith.synthesis.finite import require_finite
from flawsmith.synthesis.plan import asked_mask
from flawsmith.synthesis.posed_shot import posed_shot
from flawsmith.types import Batch, Condition, Example, Generated

Paint = Literal["replace", "residual"]
FAINT = 0.5
"""With paint = auto: when residual paint shows in less of the mask than this, replacing paint is tried as well."""
_LEAST_MATTER = 0.05
"""Share of what is asked for that the shot's part must cover for the rest to be taken for backdrop."""
_RIM = 8
"""Pixels round what is asked for that blending reads: its own rim of 3, and a border."""


@dataclass(frozen=True, slots=True)
class PaintedLine:
    """A finished sample or control: its line, and the picture with its mask unless it was given up."""

    sample: Sample
    """Without the names of its files, which whoever writes them adds."""
    picture: np.ndarray | None
    """Native, like the normal photograph: same size, depth and mode."""
    mask: np.ndarray | None
    """bool (H,W)."""


class Painter:
    """Paints batches of plan lines with one generator."""

    def __init__(
        self,
        config: Config,
        generator: Generator,
        size: int,
        split: Split,
        photographs: Photographs,
        sketcher: Callable[[], Generator],
        at_once: int = 0,
    ) -> None:
        self.generator, self._sketcher, self._at_once = generator, sketcher, at_once
        self._config, self._size, self._photographs = config, size, photographs
        self._by_id = ChainMap({shot.id: shot for shot in split.shots}, photographs.normals)
        self._shots = split.shots
        self._references: dict[str, Reference] = {}
        self.listener: Callable[[Condition, Generated], None] | None = None
        """Is told of every batch of windows, once it is painted."""

    def paint(self, lines: Sequence[PlanLine]) -> Iterator[PaintedLine]:
        """Yield what became of each line, in order; the same lines give the same bytes."""
        # A network takes the windows of all lines together; to a generator of pixels each line is alone.
        for group in ([line] for line in lines) if self.generator.native else [lines]:
            yield from self._painted([self._canvas(line) for line in group])

    def paint_on(self, line: PlanLine, photograph: Photograph, asked: np.ndarray) -> PaintedLine:
        """Return what became of a line on a photograph that need not be one of the run's, in a mask that was drawn.

        Args:
            line: With `mask_source = "file"`; the names of its photograph and its mask file are not followed.
            photograph: What is painted on, (H,W) pixels.
            asked: bool (H,W), not empty: where damage is to be, and nowhere else.
        """
        return next(self._painted([self._canvas_on(line, lambda: photograph, asked, asked)]))

    def _painted(self, canvases: Sequence[Canvas]) -> Iterator[PaintedLine]:
        """Yield what became of each canvas, in order."""
        finished: dict[int, PaintedLine] = {}
        todo = list(canvases)
        for attempt in range(self._config.generate.attempts):
            for canvas in todo:
                canvas.attempt = attempt
                canvas.restart()
            self._rounds(todo)
            again = []
            for canvas in todo:
                painted = self._finish(canvas, last=attempt + 1 == self._config.generate.attempts)
                if painted is None:
                    again.append(canvas)
                else:
                    finished[canvas.line.index] = painted
            todo = again
            if not todo:
                break
        for canvas in canvases:
            one = finished.pop(canvas.line.index)
            if one.picture is None or one.mask is None:
                yield one
            else:
                yield PaintedLine(one.sample, canvas.laid(one.picture), canvas.laid_mask(one.mask))

    def _canvas(self, line: PlanLine) -> Canvas:
        normal, shot = self._by_id[line.normal], self._by_id.get(line.shot)
        asked = asked_mask(line, normal, shot, self._shots, self._photographs, self._config.generate.turn)
        # A drawn mask says where damage may lie, also to generators that draw their own inside it; so does a site to
        # one that is always given sites. To others it only says round where.
        kept = line.mask_source == "file" or (line.mask_source == "site" and self.generator.without_shots == "always")
        part = asked if kept else self._photographs.part(normal)
        return self._canvas_on(line, lambda: self._photographs.read(normal), asked, part)

    def _canvas_on(
        self, line: PlanLine, photograph: Callable[[], Photograph], asked: np.ndarray, part: np.ndarray
    ) -> Canvas:
        shot = self._by_id.get(line.shot)
        damage, taken = asked, None
        sketched = (line.is_control or line.pose is not None) and not self.generator.native
        starts = "" if self.generator.native else self.generator.starts_with
        if sketched and line.outline and shot and not line.is_control and self.generator.needs_mask:
            asked, taken = self._taken_over(line, shot, asked)
        asked, windows = self._windows(asked)
        spot = spot_of(windows, damage, _RIM)
        whole = photograph()
        normal, below = whole.native[spot].copy(), whole.model(spot)
        span, grey = whole.span, images.is_grey(whole.native)
        del whole  # room for the shot's photograph
        posed = self._posed(line, below, damage, spot)
        reference = self._reference(line.reference) if line.reference and not line.is_control else None
        damage, ground, sketch = damage[spot], normal, None
        if sketched and posed is not None:
            sketch = blended(below, posed, damage)
            if taken is not None:
                change, taken = sketch - below, taken[spot].copy()
                ground = images.apply_delta(normal, change, damage, span)
        if starts == "patches" or (starts == "shot" and posed is None):
            sketch = self._of_patches(line, below, damage, posed)
        mine = asked[spot].copy(), part[spot].copy()
        return Canvas(
            line, photograph, spot, normal, span, grey, *mine, posed, sketch, windows, ground, taken, reference
        )

    def _of_patches(
        self, line: PlanLine, normal: np.ndarray, damage: np.ndarray, posed: np.ndarray | None
    ) -> np.ndarray:
        """Return a normal picture (h,w,3) with damage made of patches of shots, or with normal matter of a control."""
        words, masks = ((line.product,), ("" if line.is_control else line.defect,)), mask_tensor([damage])
        shot = None if posed is None else Batch(image_tensor([posed]), masks, *words)
        asked = Condition(image_tensor([normal]), masks, *words, shot)
        # The seed that the sketcher itself would be given for this line.
        made = self._sketcher().sample(asked, [line.seed * 64 * 64], steps=1, guidance=1.0)
        return picture_of(made.image[0])

    def _posed(self, line: PlanLine, normal: np.ndarray, damage: np.ndarray, spot: Spot) -> np.ndarray | None:
        """Return what lies under a spot of the photograph when the shots, or a control's donor, are laid over it."""
        shape = damage.shape
        if line.is_control:
            # A patch of normal matter from the same place of another photograph, so that its seam is like a sample's.
            donor = self._photographs.read(self._by_id[line.donor])
            if donor.native.shape[:2] == tuple(shape[:2]):
                return donor.model(spot)
            size = int(shape[1]), int(shape[0])
            return np.asarray(cv2.resize(donor.model(), size, interpolation=cv2.INTER_AREA)[spot])
        return posed_shot(line, self._by_id, normal, damage, spot, self._photographs)

    def _taken_over(self, line: PlanLine, shot: Example, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return what the model is to paint, and what the sketch has painted already: where the shot shows backdrop.

        Of a broken tip the label and the outline cover the air where the normal part went on. The sketch shows it as
        the shot's camera saw it; a model asked for damage there would paint flakes on the backdrop.
        """
        assert line.pose is not None
        shot_part = apply_pose_mask(self._photographs.part(shot), line.pose.unbent, asked.shape)
        matter = asked & shot_part
        taken = asked & ~matter
        if not taken.any() or matter.sum() < _LEAST_MATTER * asked.sum():
            return asked, None
        return matter, taken

    def _windows(self, asked: np.ndarray) -> tuple[np.ndarray, list[Window]]:
        """Return what is asked for within reach, and the windows to paint."""
        if self.generator.native:
            return asked, [native_window(asked, drawn=not self.generator.needs_mask)]
        lone = not self.generator.needs_mask
        windows = windows_over(self._config, asked, self._size, lone=lone)
        if not lone:
            return asked, windows
        # A generator that draws masks would draw a damage of its own into each window.
        window = fullest(windows, asked)
        reach = np.zeros_like(asked)
        reach[window.inside(asked.shape)] = True
        return asked & reach, [window]

    def _reference(self, name: str) -> Reference:
        """Return the window of a shot that shows most of its damage, at the working size; cut once."""
        if name not in self._references:
            example = self._by_id[name]
            photograph = self._photographs.read(example)
            damage = photograph.mask
            assert damage is not None
            best = fullest(windows_over(self._config, damage, self._size), damage)
            image, mask = cut(photograph.native, best, self._size, photograph.span), cut_mask(damage, best, self._size)
            self._references[name] = Reference(image, mask, example.product, str(example.defect))
        return self._references[name]

    def _rounds(self, canvases: list[Canvas]) -> None:
        """Paint window after window; the n-th windows of all samples go through the network together."""
        for number in range(max((len(canvas.windows) for canvas in canvases), default=0)):
            active = [canvas for canvas in canvases if number < len(canvas.windows)]
            groups = [[canvas] for canvas in active] if self.generator.native else [active]
            for group in groups:
                self._paint_windows(group, number)

    def _paint_windows(self, group: list[Canvas], number: int) -> None:
        """Paint the n-th window of each canvas, all in one batch."""
        part = self._config.generate
        # A control is repainted where its sample was, also by a generator that draws the masks of damage itself.
        draws = not self.generator.needs_mask and not group[0].line.is_control
        asked = self._condition(group, number, draws=draws)
        seeds = [(canvas.line.seed * 64 + canvas.attempt) * 64 + number for canvas in group]
        with one_thread(self.generator.native):
            generated = in_portions(self.generator, asked, seeds, self._at_once, part.steps, part.guidance)
        require_finite(self.generator, generated, [canvas.line for canvas in group], number)
        if self.listener:
            self.listener(asked, generated)
        for row, canvas in enumerate(group):
            window, mask = canvas.window(number), canvas.asked
            image = generated.image[row].permute(1, 2, 0).numpy()
            base = None if generated.base is None else generated.base[row].permute(1, 2, 0).numpy()
            canvas.whole = generated.whole
            if generated.refused and generated.refused[row]:
                canvas.refused = generated.refused[row]
                continue
            if draws:
                drawn, _ = uncut(generated.mask[row].permute(1, 2, 0).numpy(), window, canvas.asked.shape)
                mask = drawn[:, :, 0] >= 0.5
                if canvas.line.mask_source == "file" and not generated.whole:
                    mask &= canvas.part  # scaled to native size, it spills over what somebody drew
            canvas.strokes.append(Stroke(window, image, base, mask))
            if generated.whole:
                everywhere = Stroke(window, image, None, np.ones(mask.shape, bool))
                canvas.current = self._paste(canvas, canvas.current, everywhere, "replace")
                continue
            first: Paint = "replace" if self._paint_of(canvas) == "replace" else "residual"
            canvas.current = self._paste(canvas, canvas.current, canvas.strokes[-1], first)

    def _condition(self, group: list[Canvas], number: int, *, draws: bool) -> Condition:
        """Return the request for the n-th windows of a group, as far as it is painted by now."""
        size = None if self.generator.native else self._size
        both = [(canvas, canvas.window(number)) for canvas in group]
        normals = [cut(canvas.current, window, size, canvas.span) for canvas, window in both]
        room = [(canvas.part if draws else canvas.asked, window) for canvas, window in both]
        mirrored = not (draws and size is None)  # what is drawn beyond the picture would be lost
        masks = mask_tensor([cut_mask(mask, window, size, mirrored=mirrored) for mask, window in room])
        products = tuple(canvas.line.product for canvas in group)
        defects = tuple("" if canvas.line.is_control else canvas.line.defect for canvas in group)
        sketches = [cut(canvas.sketch, window, size) for canvas, window in both if canvas.sketch is not None]
        shots = [cut(canvas.shot, window, size) for canvas, window in both if canvas.shot is not None]
        references = [canvas.reference for canvas in group if canvas.reference is not None]
        shot = sketch = reference = None
        if len(sketches) == len(group):
            sketch = image_tensor(sketches)
        if len(shots) == len(group):
            shot = Batch(image_tensor(shots), masks, products, defects)
        if len(references) == len(group):
            reference = Batch(
                image_tensor([one.image for one in references]),
                mask_tensor([one.mask for one in references]),
                tuple(one.product for one in references),
                tuple(one.defect for one in references),
            )
        appearance = tuple(canvas.line.appearance for canvas in group)
        return Condition(image_tensor(normals), masks, products, defects, shot, sketch, reference, appearance)

    def _finish(self, canvas: Canvas, *, last: bool) -> PaintedLine | None:
        """Return the sample, its picture and mask of the canvas's size; None = too little shows, try another seed."""
        if canvas.line.is_control:
            # However little shows of it is right, and its mask is all that was repainted.
            used = "replace" if self._paint_of(canvas) == "replace" else "residual"
            return PaintedLine(canvas.sample(MADE, used, 1.0, int(canvas.asked.sum())), canvas.current, canvas.asked)
        paint = "whole" if canvas.whole else self._paint_of(canvas)
        if canvas.whole:
            # The photograph lies under nothing of the window: there is no change to fit a label to.
            drawn = canvas.damage()
            fitted, used = Refit(canvas.current, drawn, float(drawn.any())), paint
        else:
            fitted, used = self._refit(canvas, canvas.current), "residual" if paint == "auto" else paint
        if paint == "auto" and fitted.share < FAINT and any(stroke.base is not None for stroke in canvas.strokes):
            other = canvas.ground
            for stroke in canvas.strokes:
                other = self._paste(canvas, other, stroke, "replace")
            replaced = self._refit(canvas, other)
            if replaced.share > fitted.share:
                fitted, used = replaced, "replace"
        shown = fitted.share >= self._config.generate.min_painted and bool(fitted.mask.any())
        if not shown and not last:
            return None
        status = MADE if shown else "invisible" if canvas.strokes else canvas.refused
        sample = canvas.sample(status, used, fitted.share, int(fitted.mask.sum()) if shown else 0)
        return PaintedLine(sample, fitted.image, fitted.mask) if shown else PaintedLine(sample, None, None)

    def _refit(self, canvas: Canvas, painted: np.ndarray) -> Refit:
        visible = 2 * self._config.generate.visible
        return refit(canvas.normal, painted, canvas.damage(), threshold=visible, span=canvas.span)

    def _paste(self, canvas: Canvas, onto: np.ndarray, stroke: Stroke, paint: Paint) -> np.ndarray:
        return paste(
            onto,
            stroke.image,
            stroke.base,
            stroke.mask,
            stroke.window,
            paint=paint,
            feather=self._config.generate.feather,
            span=canvas.span,
            grey=canvas.grey,
        )

    def _paint_of(self, canvas: Canvas) -> str:
        paint = self._config.generate.paint
        return paint.get(canvas.line.defect, "auto") if isinstance(paint, dict) else paint
