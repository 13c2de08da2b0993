"""Component: a part of the product that is missing, doubled, turned, or in the wrong place. It needs no shot.

Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization"
(IJCV 2022) call such defects logical anomalies (MVTec LOCO). Nothing is torn or stained, so there is no damage to
learn: the component is cut out of the normal picture itself. Where it lay, the backdrop goes on, made of patches of the
surroundings (`data.patches.backdrop`); where it is laid, it takes the shading of that place. Ours throughout.

Components are drawn once (`drawn`), or found among the normal places that training cuts: closed places that stand out
and are seen again on another of them. On a window that shows none of these, what stands out there is taken; where
nothing does, a round piece of it, as cutpaste does.

Labels follow LOCO: of a missing component the place where it should be, of a doubled one the added one, of a turned one
all that it covered and covers now, of a moved one both places. A mask holds what visibly changed of that. LOCO's
saturation area, of which a metric asks no more to be found, is all of a mask, and of a moved component half of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from flawsmith import config
from flawsmith.data import images
from flawsmith.data.components.finding import MOST, components_in, overlap
from flawsmith.data.components.matching import MATCHES, Template, match
from flawsmith.data.patches.backdrop import without
from flawsmith.data.patches.on_normals import Drawn, drawn_rows, most_visible
from flawsmith.data.patches.ratios import from_logs, logs, signed_distance, undamaged
from flawsmith.data.poisson import grown
from flawsmith.errors import DataError
from flawsmith.interfaces import Generator
from flawsmith.types import Condition, Crop, Generated

_PLACES, _PER_PLACE, _COMPARED = 8, 4, 4
"""Normal places that components are looked for on, how many on each, and other places that are asked for each."""
_KNOWN = 8
"""Components of a product that are kept."""
_COVERS = 0.5
"""Intersection over union from which a known component and a place that stands out are one."""
_SAME = 0.5
"""Overlap from which two are one."""
_SOFT = 2.0
"""Px inside its outline over which a component that is laid fades in."""
_SHADING = 0.2
"""The most that a laid component's brightness is changed for its place, as a logarithm."""
_APART = 0.6
"""Least distance between the old and the new place of a moved component, as a share of its longer side."""
_PIECE = (0.08, 0.2)
"""Sides of a piece, as shares of the window's, where there is no component."""
_TRIES = 8
"""So many changes are made until one is seen well."""


class DrawnComponent(config.Settings):
    """A normal photograph on which somebody marked components."""

    image: Path
    """The photograph."""
    mask: Path
    """A picture of its size: 0 = no component; each connected place is one."""


class ComponentSettings(config.Settings):
    """What becomes of a component, and which components there are."""

    changes: Annotated[
        list[Literal["missing", "doubled", "turned", "moved"]], Field(min_length=1), config.Affects("generate")
    ] = ["missing", "doubled", "turned", "moved"]
    """What may become of a component; one of them is drawn for each sample."""
    drawn: list[DrawnComponent] = []
    """Components that somebody marked: {image = "good.png", mask = "marked.png"}; empty: they are found."""


class ComponentChange(Generator):
    """Take away, add, turn or move a component. Reads normal places in `learn`; needs no shot."""

    Settings: ClassVar[type[config.Settings]] = ComponentSettings
    needs_backbone: ClassVar[bool] = False
    needs_mask: ClassVar[bool] = False
    without_shots: ClassVar[Literal["", "new", "always"]] = "new"
    paints_controls: ClassVar[bool] = False
    native: ClassVar[bool] = True
    settings: ComponentSettings

    def __init__(self, backbone: None, settings: config.Settings) -> None:
        super().__init__(backbone, settings)
        self._known: dict[str, list[Template]] = {}

    @classmethod
    def starts_from(cls, settings: config.Settings) -> tuple[Path, ...]:
        assert isinstance(settings, ComponentSettings)
        return tuple(path for one in settings.drawn for path in (one.image, one.mask))

    def learn(self, crops: Iterable[Crop]) -> None:
        """Cut the drawn components out of their photographs, or look for components on the normal places.

        Raises:
            DataError: a drawn mask is empty, cannot be read, or has another size than its photograph.
        """
        places: dict[str, list[np.ndarray]] = {}
        products: list[str] = []
        for crop in crops:
            products.append(crop.product)
            if not crop.defect:
                places.setdefault(crop.product, []).append(np.ascontiguousarray(crop.image, np.float32))
        if self.settings.drawn:
            templates = [template for one in self.settings.drawn for template in _cut_out(one)]
            self._known = {product: templates for product in dict.fromkeys(products)}
        else:
            self._known = {product: _recurring(pictures) for product, pictures in places.items()}

    def learned(self) -> dict[str, Tensor]:
        """Return each component's picture and mask; the names say product and number."""
        tensors = {}
        for product, templates in self._known.items():
            for number, template in enumerate(templates):
                tensors[f"picture {json.dumps([product, number])}"] = torch.from_numpy(template.picture.copy())
                tensors[f"mask {json.dumps([product, number])}"] = torch.from_numpy(template.mask.astype(np.uint8))
        return tensors

    def restore(self, learned: Mapping[str, Tensor]) -> None:
        self._known = {}
        for product, number in sorted(
            json.loads(name.partition(" ")[2]) for name in learned if name.startswith("picture ")
        ):
            key = json.dumps([product, number])
            template = Template(learned[f"picture {key}"].numpy(), learned[f"mask {key}"].numpy() > 0)
            self._known.setdefault(product, []).append(template)

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        """Damage each row inside its mask (everywhere, when the mask is empty); `steps` and `guidance` mean nothing."""
        return drawn_rows(asked, seeds, self._damaged)

    def _damaged(self, normal: np.ndarray, allowed: np.ndarray, product: str, rng: np.random.Generator) -> Drawn:
        components = self.shown(normal, allowed, product) or [_piece(allowed, rng)]
        everything = np.logical_or.reduce(components)
        sizes = np.sqrt([component.sum() for component in components])  # of what is small there is more

        def draws() -> Iterator[Drawn]:
            for _ in range(_TRIES):
                component = components[int(rng.choice(len(components), p=sizes / sizes.sum()))]
                change = self.settings.changes[int(rng.integers(len(self.settings.changes)))]
                made = _changed(normal, component, change, allowed, everything & ~component, rng)
                if made is not None:
                    yield made

        # Where there is no room for a change nothing is painted: the sample is tried again, and given up at last.
        return most_visible(draws(), normal, allowed, otherwise=(normal, components[0]))

    def shown(self, normal: np.ndarray, allowed: np.ndarray, product: str) -> list[np.ndarray]:
        """Return the components that a window shows, bool (h,w) each."""
        shown: list[np.ndarray] = []
        standing_out = [component.mask for component in components_in(normal, allowed)]
        for template in self._known.get(product, ()):
            mask, score = match(template, normal)
            # No two parts are quite alike: where this one's outline is seen, it counts.
            inside = next((other for other in standing_out if _covers(mask, other)), mask & allowed)
            if score >= MATCHES and 2 * inside.sum() > mask.sum() and _is_new(inside, shown):
                shown.append(inside)
        return shown or standing_out


def _covers(mask: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two masks are of one component: each lies mostly in the other."""
    return float((mask & other).sum()) > _COVERS * float((mask | other).sum())


def _is_new(mask: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    return all(overlap(mask, other) < _SAME for other in others)


def _cut_out(drawn: DrawnComponent) -> list[Template]:
    """Return the components that somebody marked on a photograph."""
    native, marked = images.read(drawn.image), images.read(drawn.mask)
    if marked.shape[:2] != native.shape[:2]:
        raise DataError(f"{drawn.mask}: {images.other_size(marked.shape, native.shape)}")
    where = marked.any(axis=2) if marked.ndim == 3 else marked > 0
    count, labels = cv2.connectedComponents(np.asarray(where, np.uint8), connectivity=8)
    if count < 2:
        raise DataError(f"{drawn.mask}: no component is marked; paint each with any value but 0")
    picture = images.to_model(native, images.range_of(native, None))
    return [Template.cut(picture, labels == number) for number in range(1, min(count, MOST + 1))]


def _recurring(pictures: Sequence[np.ndarray]) -> list[Template]:
    """Return the components of normal places, float32 (h,w,3) each, that are seen again on another of them."""
    evenly = np.linspace(0, len(pictures) - 1, min(len(pictures), _PLACES)).round().astype(int)
    pictures = [pictures[number] for number in evenly]
    ranked: list[tuple[float, Template]] = []
    for number, picture in enumerate(pictures):
        everywhere = np.ones(picture.shape[:2], bool)
        known = [mask for mask, score in (match(template, picture) for _, template in ranked) if score >= MATCHES]
        for component in components_in(picture, everywhere)[:_PER_PLACE]:
            if not _is_new(component.mask, known):
                continue
            template = Template.cut(picture, component.mask)
            others = [
                pictures[(number + step) % len(pictures)] for step in range(1, min(_COMPARED, len(pictures) - 1) + 1)
            ]
            again = [match(template, other)[1] for other in others]
            if not others or max(again) >= MATCHES:
                seen_again = float(np.mean(again)) if again else 1.0
                ranked.append((seen_again * float(np.sqrt(component.mask.sum())), template))
    ranked.sort(key=lambda one: -one[0])
    return [template for _, template in ranked[:_KNOWN]]


def _piece(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an ellipse inside where damage may lie, bool (h,w), not empty."""
    rows, columns = np.nonzero(allowed)
    at = int(rng.integers(len(rows)))
    axes = [max(int(rng.uniform(*_PIECE) * length / 2), 1) for length in allowed.shape[::-1]]
    piece = np.zeros(allowed.shape, np.uint8)
    cv2.ellipse(piece, (int(columns[at]), int(rows[at])), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    inside = (piece > 0) & allowed
    return inside if inside.any() else allowed


def _changed(
    normal: np.ndarray,
    component: np.ndarray,
    change: str,
    allowed: np.ndarray,
    others: np.ndarray,
    rng: np.random.Generator,
) -> Drawn | None:
    """Return a picture with a component changed, and where; None = there is no room for it.

    Args:
        normal: float32 (h,w,3).
        component: bool (h,w).
        change: missing, doubled, turned or moved.
        allowed: bool (h,w): where the picture may change.
        others: bool (h,w): the other components.
        rng: All randomness.
    """
    rows, columns = np.nonzero(component)
    matrix: np.ndarray = np.eye(2, 3)
    if change == "turned":
        right = float(rng.integers(1, 4)) * 90.0
        matrix = cv2.getRotationMatrix2D(
            (float(columns.mean()), float(rows.mean())), right if rng.random() < 0.5 else rng.uniform(20, 340), 1.0
        )
    elif change != "missing":
        free = allowed & ~grown(others, 1)
        places = _room(component, free & ~grown(component, 1) if change == "doubled" else free)
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        far = places[np.abs(places).max(axis=1) >= _APART * longer] if len(places) else places
        if not len(far):
            return None
        matrix[:, 2] = far[int(rng.integers(len(far)))]
    if change == "doubled":
        base, mask = normal, np.zeros_like(component)
    else:
        base, mask = without(normal, component, rng, others=others), component
    if change == "missing":
        return base, mask
    picture, footprint = _laid(normal, base, component, matrix, allowed)
    return picture, mask | footprint


def _room(component: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return by how much a component can be shifted so that it lies where it is free, int (N,2): across, down."""
    rows, columns = np.nonzero(component)
    top, left = int(rows.min()), int(columns.min())
    shape = component[top : rows.max() + 1, left : columns.max() + 1].astype(np.uint8)
    # Of a large component every other pixel says enough.
    step = max(1, int(np.sqrt(shape.sum() / 400)))
    kernel = np.zeros_like(shape)
    kernel[::step, ::step] = shape[::step, ::step]
    fits = cv2.erode(free.astype(np.uint8), kernel, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.argwhere(fits)[:, ::-1] - (left, top)


def _laid(
    normal: np.ndarray, base: np.ndarray, component: np.ndarray, matrix: np.ndarray, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture with a component of the normal one laid on it, moved by a matrix (2,3), and where it lies.

    It becomes as much lighter or darker as its new surroundings are, up to a limit: what is beyond is no shading.
    """
    size = component.shape[::-1]
    logarithms, footprint = logs(normal), cv2.warpAffine(component.astype(np.float32), matrix, size) > 0.5
    exact = bool(np.allclose(matrix[:, :2], np.eye(2)))
    flags = cv2.INTER_NEAREST if exact else cv2.INTER_CUBIC
    moved = cv2.warpAffine(logarithms, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    light = undamaged(logs(base), footprint)[footprint].mean() - undamaged(logarithms, component)[component].mean()
    pasted = from_logs(moved + np.float32(np.clip(light, -_SHADING, _SHADING)))
    share = np.clip(signed_distance(footprint) / _SOFT, 0, 1)[:, :, None]
    mask = footprint & allowed
    return np.where(mask[:, :, None], base + share * (pasted - base), base).astype(np.float32), mask
