"""Paint one batch of planned pairs or controls at native resolution: cut windows, sample, paste back, re-fit labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.masks.poses import Pose, apply_pose_image, apply_pose_mask
from flawsmith.data.photographs import Photograph, Photographs, fullest, windows_over
from flawsmith.data.poisson import blended
from flawsmith.data.split import Split
from flawsmith.data.tensors import image_tensor, mask_tensor
from flawsmith.data.tiling import Window, one_window
from flawsmith.data.windows import Refit, cut, cut_mask, paste, refit, uncut
from flawsmith.interfaces import Generator
from flawsmith.synthesis.plan import Line, asked_mask
from flawsmith.synthesis.transfer import shots_for
from flawsmith.types import Batch, Condition, Example

Paint = Literal["replace", "residual"]
Stroke = tuple[Window, np.ndarray, np.ndarray | None, np.ndarray]
"""(window, made, base, mask): pictures float32 (size,size,3), the mask bool (H,W) at native size."""

Reference = tuple[np.ndarray, np.ndarray, str, str]
"""(window float32 (size,size,3), its mask bool (size,size), product, defect type) of a reference."""

FAINT = 0.5
"""With paint = auto: when residual paint shows in less of the mask than this, replacing paint is tried as well."""
_LEAST_MATTER = 0.05
"""Share of what is asked for that the shot's part must cover for the rest to be taken for backdrop."""
NATIVE_CONTEXT = 1.5
"""Side of the one window of a generator at native scale, over the side of the damage's box."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A finished sample: its line, and the picture with its label unless it was given up."""

    row: dict[str, Any]
    picture: np.ndarray | None
    """Native, like the normal photograph: same size, depth and mode."""
    mask: np.ndarray | None
    """bool (H,W)."""


@dataclass
class _Canvas:
    """A sample while it is being painted."""

    line: Line
    normal: Photograph
    asked: np.ndarray
    part: np.ndarray
    shot: np.ndarray | None
    sketch: np.ndarray | None
    windows: list[Window]
    begun: np.ndarray
    """Native: what is painted on; the photograph itself, or see `_taken_over`."""
    taken: np.ndarray | None = None
    """bool (H,W): where `begun` stays as it is, and is damage all the same."""
    reference: Reference | None = None
    attempt: int = 0
    current: np.ndarray = field(init=False)
    strokes: list[Stroke] = field(default_factory=list)
    refused: str = ""
    """Why the generator took back what it had made of a window; that window stays unpainted."""
    whole: bool = False
    """True: its windows are synthetic throughout; the strokes' masks only say what of them is damage."""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget all paint."""
        self.current, self.strokes, self.refused = self.begun, [], ""


class Painter:
    """Paints batches of plan lines with one generator."""

    def __init__(self, config: Config, generator: Generator, size: int, split: Split, pictures: Photographs) -> None:
        self.generator = generator
        self._config, self._size, self._pictures = config, size, pictures
        self._by_id = {example.id: example for example in (*split.normals, *split.shots)}
        self._shots = split.shots
        self._references: dict[str, Reference] = {}

    def paint(self, lines: Sequence[Line]) -> list[Pair]:
        """Return a pair a line, in order; the same lines give the same bytes."""
        finished: dict[int, Pair] = {}
        todo = [self._canvas(line) for line in lines]
        for attempt in range(self._config.generate.attempts):
            for canvas in todo:
                canvas.attempt = attempt
                canvas.restart()
            self._rounds(todo)
            again = []
            for canvas in todo:
                pair = self._finish(canvas, last=attempt + 1 == self._config.generate.attempts)
                if pair is None:
                    again.append(canvas)
                else:
                    finished[canvas.line["index"]] = pair
            todo = again
            if not todo:
                break
        return [finished[line["index"]] for line in lines]

    def _canvas(self, line: Line) -> _Canvas:
        normal, shot = self._by_id[line["normal"]], self._by_id[line["shot"]]
        asked = asked_mask(line, normal, shot, shots_for(line, self._shots), self._pictures, self._config.generate.turn)
        photograph = self._pictures.read(normal)
        posed = sketch = None
        if "twin" in line:
            # A patch of normal matter from the same place of another photograph, so that the seam is one like a pair's.
            donor = self._pictures.read(self._by_id[line["donor"]]).model()
            posed = cv2.resize(donor, asked.shape[::-1], interpolation=cv2.INTER_AREA)
        elif line["pose"] is not None:
            posed, _ = apply_pose_image(self._pictures.read(shot).model(), Pose.from_json(line["pose"]), asked.shape)
        if posed is not None and not self.generator.native:
            sketch = blended(photograph.model(), posed, asked)
        begun, taken = photograph.native, None
        if sketch is not None and line.get("outline") and "twin" not in line and self.generator.needs_mask:
            asked, begun, taken = self._taken_over(line, shot, photograph, asked, sketch)
        asked, windows = self._windows(asked)
        part_of = self._pictures.part(normal)
        reference = self._reference(line["reference"]) if "reference" in line and "twin" not in line else None
        return _Canvas(line, photograph, asked, part_of, posed, sketch, windows, begun, taken, reference)

    def _taken_over(
        self, line: Line, shot: Example, photograph: Photograph, asked: np.ndarray, sketch: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return what the model is to paint, what it paints on, and what of that stays: where the shot shows backdrop.

        Of a broken tip the label and the outline cover the air where the normal part went on. The sketch shows it as
        the shot's camera saw it; a model asked for damage there would paint flakes on the backdrop.
        """
        there = apply_pose_mask(self._pictures.part(shot), Pose.from_json(line["pose"]), asked.shape)
        matter = asked & there
        taken = asked & ~matter
        if not taken.any() or matter.sum() < _LEAST_MATTER * asked.sum():
            return asked, photograph.native, None
        begun = images.apply_delta(photograph.native, sketch - photograph.model(), asked, photograph.span)
        return matter, begun, taken

    def _windows(self, asked: np.ndarray) -> tuple[np.ndarray, list[Window]]:
        """Return what is asked for within reach, and the windows to paint."""
        if self.generator.native:
            return asked, [one_window(asked, context=NATIVE_CONTEXT)]
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
            seen = self._pictures.read(example)
            damage = seen.mask
            assert damage is not None
            best = fullest(windows_over(self._config, damage, self._size), damage)
            image, mask = cut(seen.model(), best, self._size), cut_mask(damage, best, self._size)
            self._references[name] = (image, mask, example.product, str(example.defect))
        return self._references[name]

    def _rounds(self, canvases: list[_Canvas]) -> None:
        """Paint window after window; the r-th windows of all samples go through the network together."""
        for turn in range(max((len(canvas.windows) for canvas in canvases), default=0)):
            active = [canvas for canvas in canvases if turn < len(canvas.windows)]
            groups = [[canvas] for canvas in active] if self.generator.native else [active]
            for group in groups:
                self._stroke(group, turn)

    def _stroke(self, group: list[_Canvas], turn: int) -> None:
        size = None if self.generator.native else self._size
        windows = [canvas.windows[turn] for canvas in group]
        normals = [cut(images.to_model(c.current, c.normal.span), w, size) for c, w in zip(group, windows, strict=True)]
        # A control is repainted where its pair was, also by a generator that draws the masks of damage itself.
        draws = not self.generator.needs_mask and "twin" not in group[0].line
        where = [c.part if draws else c.asked for c in group]
        masks = mask_tensor([cut_mask(mask, w, size) for mask, w in zip(where, windows, strict=True)])
        products = tuple(canvas.line["product"] for canvas in group)
        defects = tuple("" if "twin" in canvas.line else canvas.line["defect"] for canvas in group)
        shot = sketch = None
        if all(canvas.sketch is not None for canvas in group):
            sketch = image_tensor(
                [cut(c.sketch, w, size) for c, w in zip(group, windows, strict=True) if c.sketch is not None]
            )
        if all(canvas.shot is not None for canvas in group):
            seen = [cut(c.shot, w, size) for c, w in zip(group, windows, strict=True) if c.shot is not None]
            shot = Batch(image_tensor(seen), masks, products, defects)
        seeds = [(canvas.line["seed"] * 64 + canvas.attempt) * 64 + turn for canvas in group]
        shown = [canvas.reference for canvas in group if canvas.reference is not None]
        reference = None
        if len(shown) == len(group):
            images_of, masks_of, theirs, types = zip(*shown, strict=True)
            reference = Batch(image_tensor(list(images_of)), mask_tensor(list(masks_of)), theirs, types)
        look = tuple(canvas.line.get("look", "") for canvas in group)
        asked = Condition(image_tensor(normals), masks, products, defects, shot, sketch, reference, look)
        part = self._config.generate
        made = self.generator.sample(asked, seeds, steps=part.steps, guidance=part.guidance)
        for row, (canvas, window) in enumerate(zip(group, windows, strict=True)):
            image = made.image[row].permute(1, 2, 0).numpy()
            base = None if made.base is None else made.base[row].permute(1, 2, 0).numpy()
            mask = canvas.asked
            canvas.whole = made.whole
            if made.refused and made.refused[row]:
                canvas.refused = made.refused[row]
                continue
            if draws:
                drawn, _ = uncut(made.mask[row].permute(1, 2, 0).numpy(), window, canvas.asked.shape)
                mask = drawn[:, :, 0] >= 0.5
            canvas.strokes.append((window, image, base, mask))
            if made.whole:
                everywhere = np.ones(mask.shape, bool)
                stroke = (window, image, None, everywhere)
                canvas.current = self._paste(canvas, canvas.current, stroke, "replace")
                continue
            first: Paint = "replace" if self._paint_of(canvas) == "replace" else "residual"
            canvas.current = self._paste(canvas, canvas.current, canvas.strokes[-1], first)

    def _finish(self, canvas: _Canvas, *, last: bool) -> Pair | None:
        """Return the pair; None = too little shows, try another seed."""
        if "twin" in canvas.line:
            return _control(canvas)
        paint = "whole" if canvas.whole else self._paint_of(canvas)
        if canvas.whole:
            # The photograph lies under nothing of the window: there is no change to fit a label to.
            drawn = _union(canvas)
            fitted, used = Refit(canvas.current, drawn, float(drawn.any())), paint
        else:
            fitted, used = self._refit(canvas, canvas.current), "residual" if paint == "auto" else paint
        if paint == "auto" and fitted.share < FAINT and any(base is not None for _, _, base, _ in canvas.strokes):
            other = canvas.begun
            for stroke in canvas.strokes:
                other = self._paste(canvas, other, stroke, "replace")
            replaced = self._refit(canvas, other)
            if replaced.share > fitted.share:
                fitted, used = replaced, "replace"
        shown = fitted.share >= self._config.generate.min_painted and bool(fitted.mask.any())
        if not shown and not last:
            return None
        line = canvas.line
        row = {
            "index": line["index"],
            "status": "made" if shown else "invisible" if canvas.strokes else canvas.refused,
            "product": line["product"],
            "defect": line["defect"],
            "normal": line["normal"],
            "shot": line["shot"],
            "seed": line["seed"],
            "attempt": canvas.attempt,
            "paint": used,
            "windows": [window.to_json() for window in canvas.windows],
            "painted_share": round(fitted.share, 4),
            "area": int(fitted.mask.sum()),
        }
        row |= {name: line[name] for name in ("reference", "borrowed") if name in line}
        return Pair(row, fitted.image, fitted.mask) if shown else Pair(row | {"area": 0}, None, None)

    def _refit(self, canvas: _Canvas, painted: np.ndarray) -> Refit:
        return refit(canvas.normal.native, painted, _union(canvas), threshold=2 * self._config.generate.visible)

    def _paste(self, canvas: _Canvas, onto: np.ndarray, stroke: Stroke, paint: Paint) -> np.ndarray:
        window, image, base, mask = stroke
        return paste(
            onto, image, base, mask, window, paint=paint, feather=self._config.generate.feather, span=canvas.normal.span
        )

    def _paint_of(self, canvas: _Canvas) -> str:
        paint = self._config.generate.paint
        return paint.get(canvas.line["defect"], "auto") if isinstance(paint, dict) else paint


def _union(canvas: _Canvas) -> np.ndarray:
    """Return where any of a sample's strokes means damage, bool (H,W)."""
    masks = [np.zeros(canvas.asked.shape, bool), *(mask for _, _, _, mask in canvas.strokes)]
    masks += [canvas.taken] if canvas.taken is not None and canvas.strokes else []
    return np.asarray(np.logical_or.reduce(masks))


def _control(canvas: _Canvas) -> Pair:
    """Return a finished control: however little shows of it is right, and its mask is all that was repainted."""
    line = canvas.line
    row = {name: line[name] for name in ("index", "twin", "product", "defect", "normal", "donor", "seed")}
    row |= {"status": "made", "area": int(canvas.asked.sum())}
    return Pair(row, canvas.current, canvas.asked)
