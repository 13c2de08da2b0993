"""What a detector looked at when it found a fault, and when it missed one: its loudest patch, and what is nearest.

Of each defect type the first test picture that was found and the first that was missed, in the order of the test set,
so nobody chose them. A fault counts as found when the patch where the anomaly map is highest touches the label: the
pointing game of Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, with a patch as tolerance.
The nearest remembered normal patches are those that a memory compares with (Roth et al., CVPR 2022); the nearest shot
is the one with the nearest damaged patch, by the same features. proof.json keeps names, places and distances; a small
anomaly map of each picture lies in state/prove/.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith.data import images
from flawsmith.data.split import Split
from flawsmith.data.tensors import image_tensor
from flawsmith.data.training_set import TrainingPicture, TrainingSet
from flawsmith.evaluation.evaluator import Evaluator, predicted
from flawsmith.files import write_json
from flawsmith.interfaces import Detector
from flawsmith.nn.methods.patch_memory import PatchMemory, described, digest
from flawsmith.nn.networks.extractor import Extractor

MAP_SIDE = 96
"""Rows and columns of the small anomaly maps."""
NORMALS = 3
"""Normal photographs whose nearest patch is named."""
_DEPTHS = (1, 2)
"""Depths that describe a patch where the detector has no memory that says which."""

Box = tuple[int, int, int, int]
"""Top, left, bottom and right in the photograph's own pixels, the last ones not included."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A patch that lies near to what was found, in features."""

    id: str
    """Of the photograph."""
    defect: str | None
    """The shot's defect type; None = a normal photograph."""
    patch: Box
    distance: float
    """Euclidean, between the features of both patches."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a detector looked at in one test picture."""

    id: str
    defect: str
    found: bool
    """Whether the loudest patch touches the label."""
    patch: Box
    """The loudest patch: 3 x 3 cells, over which features are averaged."""
    above: float | None
    """Share of the normal test pictures whose image score is lower; None = the detector tells none."""
    normals: tuple[Neighbour, ...]
    """The nearest remembered patches, each of another photograph, nearest first; () = the detector has no memory."""
    shot: Neighbour


class Explained(NamedTuple):
    """What a detector looked at in a few test pictures of one product."""

    detector: str
    found: dict[str, tuple[int, int]]
    """Defect type -> faults that were found, and test pictures."""
    faults: tuple[Explanation, ...]
    """Per defect type at most one that was found and one that was missed."""
    maps: np.ndarray
    """uint8 (F,MAP_SIDE,MAP_SIDE): their anomaly maps, each from its own least value (0) to its greatest (255)."""

    def save(self, path: Path) -> None:
        """Write a JSON file, and beside it the maps one below the other, as a PNG file of the same name."""
        images.write(path.with_suffix(".png"), self.maps.reshape(-1, MAP_SIDE))
        faults = [asdict(fault) for fault in self.faults]
        write_json(path, {"detector": self.detector, "found": self.found, "faults": faults})


class _View(NamedTuple):
    """What an extractor is shown at once: a whole picture or a tile."""

    image: np.ndarray
    """uint8 (R,C,3)."""
    corner: tuple[int, int]
    """Row and column of its first pixel in the scaled picture."""
    scaled: tuple[int, int]
    """Rows and columns of the scaled picture."""


class _ShotPatches(NamedTuple):
    """The damaged patches of all shots."""

    patches: Tensor
    """float32 (N,D)."""
    sources: list[tuple[TrainingPicture, int, int]]
    """The picture of each, and its row and column on the grid."""


class Explainer:
    """Says of a trained detector what it looked at.

    Args:
        split: One product's photographs.
        evaluator: Its test pictures.
        training: What the detector learned from.
        extractor: Whose features say what is near.
        device: Where it computes.
    """

    def __init__(
        self, split: Split, evaluator: Evaluator, training: TrainingSet, extractor: Extractor, device: str
    ) -> None:
        self._examples = {example.id: example for example in (*split.normals, *split.shots)}
        self._evaluator, self._training = evaluator, training
        self._extractor, self._device = extractor, device

    @torch.inference_mode()
    def explain(self, detector: Detector, name: str) -> Explained:
        """Return how many faults of each type were found, and a few of them explained.

        Args:
            detector: A trained one that tells localization.
            name: The registry's name of it.
        """
        memory = detector.remembered()
        depths = tuple(depth for depth in _DEPTHS if depth < len(self._extractor.channels)) or (0,)
        depths = depths if memory is None else memory.depths
        shots, pictures = self._shot_patches(depths), self._remembered_pictures(memory)
        tests = self._evaluator.tests
        scores = predicted(detector, [self._evaluator.read(one).image for one in tests if not one.defect]).score
        counts, faults = Counter[tuple[str, bool]](), list[tuple[Explanation, np.ndarray]]()
        for example in tests:
            if example.defect is None:
                continue
            scaled = self._evaluator.read(example)
            told = predicted(detector, [scaled.image])
            assert told.anomaly_map is not None
            loudest = divmod(int(told.anomaly_map[0].argmax()), scaled.mask.shape[1])
            view = self._view(scaled.image, loudest)
            cells = self._cells(view.image, depths)
            grid = cells.shape[1], cells.shape[2]
            cell = _cell_of(loudest, grid, view)
            top, left, bottom, right = _box(cell, grid, view, view.scaled)
            found = bool(scaled.mask[top:bottom, left:right].any())
            counts[example.defect, found] += 1
            if counts[example.defect, found] > 1:
                continue
            patch = cells[:, cell[0], cell[1]]
            normals = () if memory is None else self._nearest_normals(patch, memory, pictures, grid)
            above = None
            if scores is not None and told.score is not None:
                above = round(float((scores < told.score[0]).float().mean()), 4)
            shot = self._nearest_shot(patch, shots, grid)
            box = _box(cell, grid, view, images.describe(example.image).shape)
            fault = Explanation(example.id, example.defect, found, box, above, normals, shot)
            faults.append((fault, _small(told.anomaly_map[0][0].numpy())))
        defects = sorted({defect for defect, _ in counts})
        found_of = {one: (counts[one, True], counts[one, True] + counts[one, False]) for one in defects}
        faults.sort(key=lambda both: (both[0].defect, not both[0].found))
        maps = np.stack([small for _, small in faults]) if faults else np.zeros((0, MAP_SIDE, MAP_SIDE), np.uint8)
        return Explained(name, found_of, tuple(fault for fault, _ in faults), maps)

    def _cells(self, image: np.ndarray, depths: Sequence[int]) -> Tensor:
        """Return the patches of a picture uint8 (R,C,3): float32 (D,h,w), on the CPU."""
        return described(self._extractor.maps(image_tensor([image]).to(self._device)), depths)[0]

    def _view(self, image: np.ndarray, place: tuple[int, int]) -> _View:
        """Return what shows a place of a scaled picture best: the picture itself, or one of its tiles."""
        size = image.shape[0], image.shape[1]
        if self._evaluator.tiles is None:
            return _View(image, (0, 0), size)
        grid, there = self._evaluator.tiles.grid(size), np.zeros(size, bool)
        there[place] = True
        window = grid.windows[grid.best_seen(there)[0]]
        return _View(grid.seen(image, window), (window.top, window.left), size)

    def _remembered_pictures(self, memory: PatchMemory | None) -> dict[int, TrainingPicture]:
        """Return the normal pictures by the digest under which a memory knows them."""
        if memory is None:
            return {}
        normals = self._training.normal("real")  # a control may show what a photograph shows, byte for byte
        digests = [digest(picture) for batch in self._training.batches(normals) for picture in batch.image]
        return {one: self._training.pictures[number] for one, number in zip(digests, normals, strict=True)}

    def _shot_patches(self, depths: Sequence[int]) -> _ShotPatches:
        patches, sources = [], []
        for number in self._training.damaged(None, "real"):
            picture = self._training.pictures[number]
            cells = self._cells(picture.image, depths)
            mask = torch.from_numpy(picture.mask.astype(np.float32))[None]
            # A cell counts when any of its pixels is damaged: else a hairline would have none.
            places = F.adaptive_max_pool2d(mask, cells.shape[1:])[0].nonzero()
            patches.append(cells[:, places[:, 0], places[:, 1]].T)
            sources += [(picture, row, column) for row, column in places.tolist()]
        return _ShotPatches(torch.cat(patches), sources)

    def _nearest_normals(
        self, patch: Tensor, memory: PatchMemory, pictures: dict[int, TrainingPicture], grid: tuple[int, int]
    ) -> tuple[Neighbour, ...]:
        nearest: dict[str, Neighbour] = {}
        for distance, place in memory.nearest_first(patch):
            picture = pictures[place.picture]
            if picture.example_id not in nearest:
                cell = place.row, place.column
                nearest[picture.example_id] = self._neighbour(picture, cell, grid, distance)
            if len(nearest) == NORMALS:
                break
        return tuple(nearest.values())

    def _nearest_shot(self, patch: Tensor, shots: _ShotPatches, grid: tuple[int, int]) -> Neighbour:
        distances = (shots.patches - patch).norm(dim=1)
        nearest = int(distances.argmin())
        picture, row, column = shots.sources[nearest]
        return self._neighbour(picture, (row, column), grid, float(distances[nearest]))

    def _neighbour(
        self, picture: TrainingPicture, cell: tuple[int, int], grid: tuple[int, int], distance: float
    ) -> Neighbour:
        example = self._examples[picture.example_id]
        view = _View(picture.image, picture.corner or (0, 0), self._evaluator.size_of(example))
        box = _box(cell, grid, view, images.describe(example.image).shape)
        return Neighbour(example.id, picture.defect, box, round(distance, 4))


def _small(anomaly_map: np.ndarray) -> np.ndarray:
    """Return an anomaly map float32 (R,C) as uint8 (MAP_SIDE,MAP_SIDE), from its least to its greatest value."""
    small = cv2.resize(anomaly_map, (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_AREA)
    least, most = float(small.min()), float(small.max())
    return np.asarray(np.rint((small - least) / max(most - least, 1e-12) * 255), np.uint8)


def _cell_of(place: tuple[int, int], grid: tuple[int, int], view: _View) -> tuple[int, int]:
    """Return the row and column on a view's grid of cells of a place (row, column) in the scaled picture."""
    row, column = (
        (at - start) * count // length
        for at, start, count, length in zip(place, view.corner, grid, view.image.shape[:2], strict=True)
    )
    return row, column


def _box(cell: tuple[int, int], grid: tuple[int, int], view: _View, photograph: Sequence[int]) -> Box:
    """Return the 3 x 3 cells round a cell in the pixels of a photograph (H,W[,C]), as far as it reaches."""
    ends = []
    for axis in (0, 1):
        step, pixels = view.image.shape[axis] / grid[axis], photograph[axis]
        low, high = (view.corner[axis] + edge * step for edge in (cell[axis] - 1, cell[axis] + 2))
        first = min(max(0, math.floor(low * pixels / view.scaled[axis])), pixels - 1)
        ends.append((first, max(min(pixels, math.ceil(high * pixels / view.scaled[axis])), first + 1)))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right
