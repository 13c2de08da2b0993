"""evaluation/explain.py: the loudest patch, the nearest normal ones and the nearest shot, planted and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.nn import functional as F

from flawsmith.data import images
from flawsmith.data.inspection_tiles import Tiles
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet
from flawsmith.detectors.patchcore import Patchcore, PatchcoreSettings
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.explain import Box, Explained, Explainer
from flawsmith.evaluation.tiled import Tiled
from flawsmith.interfaces import Detector
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.types import Example, Prediction

SIDE, ENLARGED = 64, 2
"""Pictures as detectors see them; photographs are so many times larger."""
SPOTS = {"dent": (8, 12), "rust": (36, 20)}
"""Where the shot of each type shows its damage, a square of 16 px."""
AT = (40, 8)
"""Where every test picture shows its damage."""


class Pooled(Extractor):
    """Colours: a real extractor, small enough to check by hand."""

    name, fingerprint, strides, channels = "pooled", "0" * 12, (2, 4), (3, 3)

    def maps(self, image: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(image, 2), F.avg_pool2d(image, 4)]

    def vector(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))


class Loud(Detector):
    """Calls what is bright loud; it has no memory."""

    Settings = PatchcoreSettings
    tells = frozenset({"localization"})

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Any:
        yield 1.0

    def predict(self, image: Tensor) -> Prediction:
        return Prediction(image.mean(1, keepdim=True), None, None)


def texture(defect: str) -> np.ndarray:
    """Bright noise, brightest in the middle, another of each type."""
    noise = np.random.default_rng(len(defect) + ord(defect[0])).integers(150, 190, (16, 16, 3))
    noise[4:12, 4:12] += 60
    return noise.astype(np.uint8)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = tmp_path_factory.mktemp("planted")

    def example(name: str, defect: str | None = None, at: tuple[int, int] = AT, label: tuple[int, int] = AT) -> Example:
        seed = sum(map(ord, name))
        picture = np.random.default_rng(seed).integers(0, 90, (SIDE, SIDE, 3)).astype(np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        if defect:
            picture[at[0] : at[0] + 16, at[1] : at[1] + 16] = texture(defect)
            mask[label[0] : label[0] + 16, label[1] : label[1] + 16] = 1
        large = (SIDE * ENLARGED, SIDE * ENLARGED)
        images.write(root / f"{name}.png", cv2.resize(picture, large, interpolation=cv2.INTER_NEAREST))
        masks = []
        if defect:
            masks = [root / f"{name}.mask.png"]
            images.write_mask(masks[0], cv2.resize(mask, large, interpolation=cv2.INTER_NEAREST) > 0)
        return Example(name, Path(root / f"{name}.png"), "plate", defect, tuple(masks))

    shots = tuple(example(f"shot-{defect}", defect, at, at) for defect, at in SPOTS.items())
    normals = tuple(example(f"normal-{number}") for number in range(4))
    tests = (
        example("missed", "rust", label=(0, 40)),  # the label lies where nothing is loud
        example("first", "rust"),
        example("second", "rust"),
        example("dented", "dent"),
    )
    return Split(shots, normals, tests, (example("good"), example("fine")))


def explained(split: Split, detector: Detector, extractor: Extractor, tiles: Tiles | None = None) -> Explained:
    shape = (SIDE, SIDE) if tiles is None else (tiles.side, tiles.side)
    defects = ("dent", "rust")
    evaluator = Evaluator(split, defects, shape, drop_near_duplicates=False, tiles=tiles)
    training = TrainingSet(shape, defects, evaluator.forbidden, tiles=tiles)
    for one in (*split.normals, *split.shots):
        training.add(one, "real")
    detector = detector if tiles is None else Tiled(detector, tiles)
    assert list(detector.fit(training, torch.Generator().manual_seed(0)))[-1] == 1.0
    return Explainer(split, evaluator, training, extractor, "cpu").explain(detector, "patchcore")


def patchcore(extractor: Extractor, **changes: Any) -> Patchcore:
    whole = {"memory": 20_000, "draw": 20_000, "depths": (0,), "blur": 0.0}
    return Patchcore(PatchcoreSettings(**whole | changes), ("dent", "rust"), extractor=extractor)


def features(example: Example) -> np.ndarray:
    """What `Pooled` says of a picture's cells, averaged over 3 x 3 with zeros outside: float64 (h,w,3)."""
    native = images.read(example.image).astype(np.float64)[::ENLARGED, ::ENLARGED] / 127.5 - 1
    cells = native.reshape(SIDE // 2, 2, SIDE // 2, 2, 3).mean((1, 3))
    return np.stack([uniform_filter(cells[..., one], 3, mode="constant") for one in range(3)], -1)


def cell_of(patch: Box) -> tuple[int, int]:
    """The cell in the middle of a box of 3 x 3 cells, each 2 px as detectors see it; none lies at the border here."""
    assert (patch[2] - patch[0], patch[3] - patch[1]) == (6 * ENLARGED, 6 * ENLARGED)
    return patch[0] // (2 * ENLARGED) + 1, patch[1] // (2 * ENLARGED) + 1


def test_the_nearest_are_those_of_a_brute_force_search(split: Split) -> None:
    told = explained(split, patchcore(Pooled()), Pooled())
    assert told.found == {"dent": (1, 1), "rust": (2, 3)}
    assert [(one.id, one.found) for one in told.faults] == [
        ("dented", True),
        ("first", True),
        ("missed", False),
    ], "of each type the first that was found and the first that was missed"
    maps = {one.id: features(one) for one in (*split.normals, *split.shots, *split.test_defects)}
    for fault in told.faults:
        assert fault.above == 1.0
        patch = maps[fault.id][cell_of(fault.patch)]
        far = {one.id: np.linalg.norm(maps[one.id] - patch, axis=2) for one in (*split.normals, *split.shots)}
        nearest = sorted((far[one.id].min(), one.id) for one in split.normals)[:3]
        assert [one.id for one in fault.normals] == [name for _, name in nearest]
        for one, (distance, _) in zip(fault.normals, nearest, strict=True):
            assert one.distance == pytest.approx(distance, abs=1e-3) and one.defect is None
        shot = fault.shot
        assert shot.defect == fault.defect and shot.id == f"shot-{fault.defect}"
        assert far[shot.id][cell_of(shot.patch)] == pytest.approx(shot.distance, abs=1e-3)
        # The small map is highest where the loudest patch lies.
        small = told.maps[told.faults.index(fault)] == 255
        rows, columns = (np.flatnonzero(small.any(axis)) * SIDE * ENLARGED / 96 for axis in (1, 0))
        assert fault.patch[0] - 2 <= rows.min() and rows.max() <= fault.patch[2] + 2
        assert fault.patch[1] - 2 <= columns.min() and columns.max() <= fault.patch[3] + 2
        # The loudest place is what no normal patch comes near, over all cells of the picture.
        every = np.concatenate([maps[one.id].reshape(-1, 3) for one in split.normals])
        distances = cdist(maps[fault.id].reshape(-1, 3), every).min(1)
        assert distances.max() == pytest.approx(nearest[0][0], abs=1e-3)


@pytest.mark.parametrize("tiles", [None, Tiles(40, 1 / ENLARGED)])
def test_the_same_damage_is_named_at_its_own_place(split: Split, tiles: Tiles | None) -> None:
    """The test pictures show the shots' very damage elsewhere, so nothing but the place differs."""
    for fault in explained(split, patchcore(Pooled()), Pooled(), tiles).faults:
        assert fault.shot.distance == pytest.approx(0, abs=1e-3)
        moved = [ENLARGED * (here - there) for here, there in zip(AT, SPOTS[fault.defect], strict=True)]
        shifts = [a - b for a, b in zip(fault.patch, fault.shot.patch, strict=True)]
        assert shifts == [*moved, *moved]
        assert len({one.id for one in fault.normals}) == len(fault.normals) > 0


def test_a_detector_without_memory_names_the_nearest_shot_alone(split: Split) -> None:
    told = explained(split, Loud(PatchcoreSettings(), ("dent", "rust")), Pooled())
    assert told.found == {"dent": (1, 1), "rust": (2, 3)}
    for fault in told.faults:
        assert fault.normals == () and fault.above is None
        assert fault.shot.defect == fault.defect
