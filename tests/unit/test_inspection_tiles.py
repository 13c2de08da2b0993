"""data/inspection_tiles.py and what stands on it: photographs cut, learned from, asked about and joined in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from flawsmith import config
from flawsmith.config import Config, DataConfig, ProveConfig, load_config
from flawsmith.data import images
from flawsmith.data.fingerprints import content_hash
from flawsmith.data.inspection_tiles import OVERLAP, Tiles
from flawsmith.data.split import Split
from flawsmith.data.tensors import image_tensor
from flawsmith.data.training_set import TrainingSet
from flawsmith.detectors.patchcore import Patchcore, PatchcoreSettings
from flawsmith.errors import ConfigError, DataError
from flawsmith.evaluation.arms import common_set
from flawsmith.evaluation.evaluator import Evaluator, describe_ahead, predicted
from flawsmith.evaluation.shape import Shape, proof_shape, proof_tiles
from flawsmith.evaluation.tiled import Tiled
from flawsmith.interfaces import Detector
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.preflight.check import check
from flawsmith.testing import tiny_extractor
from flawsmith.types import Example, Prediction

SIZES: list[Shape] = [(32, 32), (33, 32), (100, 75), (20, 90), (5, 3), (1, 64), (64, 64)]


def written(root: Path, name: str, picture: np.ndarray, defect: str | None = None, mask: np.ndarray | None = None):
    images.write(root / f"{name}.png", picture)
    masks = () if mask is None else (root / f"{name}_mask.png",)
    for path in masks:
        images.write_mask(path, mask)
    return Example(f"{name}.png", root / f"{name}.png", "tile", defect, masks)


# --- the grid -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_tiles_cover_a_picture_and_overlap(size: Shape):
    grid = Tiles(32).grid(size)
    seen = np.zeros(size, int)
    for window in grid.windows:
        seen[window.inside(size)] += 1
    assert seen.min() >= 1 and len(grid) == len(grid.windows)
    for axis, length in enumerate(size):
        starts = sorted({(window.top, window.left)[axis] for window in grid.windows})
        assert all(b - a <= 32 * (1 - OVERLAP) + 0.5 for a, b in zip(starts, starts[1:], strict=False))
        if length >= 32:
            assert starts[0] == 0 and starts[-1] == length - 32
            # One tile fewer would not do.
            assert len(starts) == 1 or (len(starts) - 2) * 32 * (1 - OVERLAP) < length - 32


@pytest.mark.parametrize("size", SIZES)
def test_a_tile_shows_the_picture_and_beyond_it_the_reflection(size: Shape):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    grid = Tiles(32).grid(size)
    above, left = (max(0, -min(corner)) for corner in zip(*((w.top, w.left) for w in grid.windows), strict=True))
    below, right = (max(0, 32 - length) for length in size)
    filled = np.pad(picture, ((above, below), (left, right), (0, 0)), mode="reflect")
    for window, tile in zip(grid.windows, grid.cut(picture), strict=True):
        top, start = window.top + above, window.left + left
        np.testing.assert_array_equal(tile, filled[top : top + 32, start : start + 32])
        assert tile.dtype == np.uint8


@pytest.mark.parametrize("size", SIZES)
def test_maps_are_joined_by_the_distance_to_the_tiles_edge(size: Shape):
    """Against the definition, pixel by pixel."""
    grid, rng = Tiles(32).grid(size), np.random.default_rng(1)
    maps = rng.normal(size=(len(grid), 32, 32)).astype(np.float32)
    expected = np.zeros(size)
    for row, column in np.ndindex(*size):
        above = below = 0.0
        for window, tile in zip(grid.windows, maps, strict=True):
            r, c = row - window.top, column - window.left
            if 0 <= r < 32 and 0 <= c < 32:
                weight = min(r + 1, 32 - r) * min(c + 1, 32 - c)
                above, below = above + weight * float(tile[r, c]), below + weight
        expected[row, column] = above / below
    whole = grid.joined(list(maps))
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_cut_is_joined_to_what_it_was(size: Shape):
    picture = np.random.default_rng(2).normal(size=size).astype(np.float32)
    grid = Tiles(32).grid(size)
    np.testing.assert_allclose(grid.joined(grid.cut(picture)), picture, rtol=1e-5, atol=1e-6)
    if len(grid) == 1:
        np.testing.assert_array_equal(grid.joined(grid.cut(picture)), picture)


def test_every_marked_pixel_is_learned_where_it_is_seen_best():
    grid = Tiles(32).grid((60, 88))  # tiles at 0, 28 and 0, 28, 56
    assert [(w.top, w.left) for w in grid.windows] == [(t, x) for t in (0, 28) for x in (0, 28, 56)]
    mask = np.zeros((60, 88), bool)
    mask[5, 29:33] = True  # all four in two tiles; from column 30 on the second shows them farther from its edge
    assert grid.best_seen(mask) == [0, 1]
    mask[5, 29] = False
    assert grid.best_seen(mask) == [1] and mask[:32, :32].any()
    assert grid.best_seen(np.ones((60, 88), bool)) == list(range(6)) and grid.best_seen(np.zeros((60, 88), bool)) == []


def test_scale_is_one_for_all_photographs_of_a_product():
    photographs = [(100, 200), (50, 50), (400, 400)]
    assert proof_tiles(ProveConfig(), photographs) is None
    native = proof_tiles(ProveConfig(tile=64), photographs)
    assert native == Tiles(64, 1.0, (1 << 27) // (64 * 64 * 3)) and native.size_of((100, 200, 3)) == (100, 200)
    larger = proof_tiles(ProveConfig(tile=64, size=200), photographs)  # the median has 141.4^2 pixels
    assert larger is not None and larger.size_of((100, 200)) == (141, 283) and larger.size_of((50, 50)) == (71, 71)
    assert proof_shape(ProveConfig(tile=64, size=200), photographs) == (64, 64)
    many = proof_tiles(ProveConfig(tile=2048), photographs * 100)
    assert many is not None and many.per_normal == 1


def test_tiles_do_not_go_with_the_papers_protocol():
    with pytest.raises(ConfigError, match="tile: should be 0 with protocol = 'field'"):
        load_config(None, {"prove.protocol": "field", "prove.tile": 64})
    with pytest.raises(ConfigError, match="tile: should be 0, or 32 pixels or more"):
        load_config(None, {"prove.tile": 8})


# --- learning from tiles --------------------------------------------------------------------------------------------


def test_of_damage_the_tiles_that_show_it_of_normal_matter_as_many_as_asked(tmp_path: Path):
    rng = np.random.default_rng(0)
    mask, painted = np.zeros((60, 88), bool), np.zeros((60, 88), bool)
    mask[2:5, 80:83] = True
    painted[50:56, 2:8] = True
    shot = written(tmp_path, "shot", rng.integers(0, 256, (60, 88), np.uint8), "hole", mask)
    normal = written(tmp_path, "normal", rng.integers(0, 256, (60, 88), np.uint8))
    control = written(tmp_path, "control", rng.integers(0, 256, (60, 88), np.uint8))
    images.write_mask(tmp_path / "painted.png", painted)
    training = TrainingSet((32, 32), ["hole"], tiles=Tiles(32, per_normal=4))
    training.add(shot, "real")
    training.add(normal, "real")
    training.add(control, "control", painted=tmp_path / "painted.png")
    assert len(training.damaged("hole", "real")) == 1 and len(training.normal("real")) == 4
    assert len(training.normal("control")) == 1
    (damaged,), (repainted,) = training.damaged(), training.normal("control")
    one, other = training.pictures[damaged], training.pictures[repainted]
    np.testing.assert_array_equal(one.mask, mask[:32, 56:])
    np.testing.assert_array_equal(one.image[..., 0], images.read(shot.image)[:32, 56:])
    assert other.painted is not None
    np.testing.assert_array_equal(other.painted, painted[28:, :32])
    assert one.id == "shot.png at 0, 56" and training.batch(range(6)).image.shape == (6, 3, 32, 32)
    # The same tiles in every arm, others of another photograph.
    again = TrainingSet((32, 32), ["hole"], tiles=Tiles(32, per_normal=4))
    again.add(normal, "real")
    assert [one.id for one in again.pictures] == [training.pictures[place].id for place in training.normal("real")]
    clone = again.clone()
    clone.add(shot, "real")
    assert (len(again), len(clone)) == (4, 5)


def test_no_tile_of_a_test_picture_can_enter(tmp_path: Path):
    normal = written(tmp_path, "normal", np.random.default_rng(0).integers(0, 256, (60, 88), np.uint8))
    training = TrainingSet((32, 32), ["hole"], {content_hash(normal.image)}, tiles=Tiles(32))
    with pytest.raises(DataError, match="is a picture of the test set"):
        training.add(normal, "real")


# --- asking about whole photographs ---------------------------------------------------------------------------------


class Brightness(Detector):
    """How bright a pixel is: a detector whose answers anyone can compute."""

    Settings: ClassVar[type[config.Settings]] = config.Settings
    tells: ClassVar[frozenset[str]] = frozenset({"localization", "detection", "classification"})

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        yield 1.0

    def predict(self, image: Tensor) -> Prediction:
        assert image.shape[-2:] == (32, 32)
        score = image[:, 0].amax((1, 2))
        share = (image[:, 1].mean((1, 2)) + 1) / 2
        return Prediction(image[:, :1], score, torch.stack([share, 1 - share], 1))


def test_map_score_and_defect_type_are_those_of_the_whole_photograph():
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 200, (*size, 3), np.uint8) for size in SIZES]
    pictures[2][90, 70, 0] = 255  # in the last tile alone
    detector = Tiled(Brightness(config.Settings(), ("a", "b")), Tiles(32))
    told = predicted(detector, pictures)
    assert told.anomaly_map is not None and told.score is not None and told.probabilities is not None
    for number, picture in enumerate(pictures):
        plain = image_tensor([picture])[0]
        torch.testing.assert_close(told.anomaly_map[number][0], plain[0], rtol=1e-5, atol=1e-6)
        assert float(told.score[number]) == float(plain[0].max())
    share = float((image_tensor([pictures[2][68:, 43:]])[0, 1].mean() + 1) / 2)
    assert told.probabilities[2].tolist() == pytest.approx([share, 1 - share], abs=1e-6)
    assert detector.tells == Brightness.tells and detector.reduced(0.5) == ""


def test_damage_that_scaling_loses_is_found_in_tiles(tmp_path: Path):
    """Stripes one pixel wide have the mean of what surrounds them, so a photograph at a quarter of its size lost them.

    Through the evaluator, on photographs of two shapes; pixel figures against scikit-learn at native resolution. All
    features are computed ahead.
    """
    rng = np.random.default_rng(0)
    shapes: list[Shape] = [(128, 192), (96, 96)] * 3
    surface = [rng.integers(124, 132, shape, np.uint8) for shape in (*shapes, *shapes)]
    damaged, masks = [picture.copy() for picture in surface[:6]], [np.zeros(shape, bool) for shape in shapes]
    for picture, mask in zip(damaged, masks, strict=True):
        mask[40:52, 60:72] = True
        picture[mask] = np.tile(np.array([68, 188], np.uint8), 72)
    holes = [
        written(tmp_path, f"hole{number}", picture, "hole", mask)
        for number, (picture, mask) in enumerate(zip(damaged, masks, strict=True))
    ]
    normals = [written(tmp_path, f"normal{number}", picture) for number, picture in enumerate(surface[6:])]
    split = Split(tuple(holes[:1]), tuple(normals[:3]), tuple(holes[1:]), tuple(normals[3:]))
    aurocs = {}
    for name, tiles in (("whole", None), ("tiles", Tiles(64))):
        shape = (32, 48) if tiles is None else (64, 64)
        evaluator = Evaluator(split, ("hole",), shape, drop_near_duplicates=False, tiles=tiles)
        training = common_set(split, [], shape, ("hole",), evaluator.forbidden, tiles)
        part = PatchcoreSettings(memory=200, draw=2000, depths=(0,), blur=1.0)
        extractor = FeatureCache(tiny_extractor(), tmp_path / name, memory=0)
        assert len(evaluator.asked) == 8
        describe_ahead(extractor, training, evaluator, range(len(training) + len(evaluator.asked)))
        ahead = sorted((tmp_path / name).rglob("*.npz"))
        detector: Detector = Patchcore(part, ("hole",), extractor=extractor)
        detector = detector if tiles is None else Tiled(detector, tiles)
        for _ in detector.fit(training, torch.Generator().manual_seed(0)):
            pass
        figures = evaluator.evaluate(detector, {"localization", "detection"}).figures
        assert ahead == sorted((tmp_path / name).rglob("*.npz")), "nothing is left to be computed in silence"
        aurocs[name] = figures["localization"]["hole"]["auroc"], figures["detection"]["hole"]["auroc"]
    assert min(aurocs["tiles"]) > 0.99 and max(aurocs["whole"]) < 0.9
    told = predicted(detector, [evaluator.read(example).image for example in evaluator.tests])
    assert told.anomaly_map is not None and told.score is not None
    scores = np.concatenate([one.numpy().ravel() for one in told.anomaly_map])
    labels = np.concatenate([mask.ravel() for mask in (*masks[1:], *(np.zeros(shape, bool) for shape in shapes[3:]))])
    pixels = figures["localization"]["hole"]
    assert pixels["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert pixels["ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    image_auroc = roc_auc_score(np.arange(8) < 5, told.score.numpy())
    assert figures["detection"]["hole"]["auroc"] == pytest.approx(image_auroc)


# --- before a run ---------------------------------------------------------------------------------------------------


def test_check_counts_the_tiles_and_says_nothing_of_stretching(tmp_path: Path):
    rng = np.random.default_rng(0)
    for number in range(4):
        for folder, size in (("train/good", (40, 100)), ("test/good", (40, 100)), ("test/cut", (100, 40))):
            images.write(tmp_path / f"bar/{folder}/{number}.png", rng.integers(0, 256, size, np.uint8))
        mask = np.zeros((100, 40), bool)
        mask[8:20, 8:20] = True
        images.write_mask(tmp_path / f"bar/ground_truth/cut/{number}_mask.png", mask)
    whole, tiles = (
        check(Config(data=DataConfig(root=tmp_path, shots=2), prove=ProveConfig(tile=side))) for side in (0, 32)
    )
    assert [one for one in whole.warnings if "stretches" in one] and tiles.ok
    assert not [one for one in tiles.warnings if "stretches" in one]
    assert "8.0 tiles of 32 px per photograph" in tiles.estimate["proof"] and "tiles" not in whole.estimate["proof"]
