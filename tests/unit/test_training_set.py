"""data/training_set.py: what detectors may learn from, and the door that no test picture passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flawsmith.data import images
from flawsmith.data.fingerprints import content_hash
from flawsmith.data.scaling import scaled_mask
from flawsmith.data.tensors import image_tensor
from flawsmith.data.training_set import TrainingSet, read_scaled
from flawsmith.errors import DataError
from flawsmith.types import Example


@pytest.fixture
def crack(tmp_path: Path) -> Example:
    rng = np.random.default_rng(0)
    images.write(tmp_path / "crack.png", rng.integers(0, 256, (40, 60), np.uint8))
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:45] = True
    images.write_mask(tmp_path / "crack_mask.png", mask)
    return Example("crack.png", tmp_path / "crack.png", "tile", "crack", (tmp_path / "crack_mask.png",))


def test_a_test_picture_cannot_enter_under_any_name(crack: Example, tmp_path: Path):
    forbidden = {content_hash(crack.image)}
    training = TrainingSet((32, 32), ["crack"], forbidden)
    # Saved again, as colour, under another name, and called normal: still the same picture.
    copy = tmp_path / "innocent.png"
    images.write(copy, np.repeat(images.read(crack.image)[..., None], 3, axis=2))
    for example in (crack, Example("innocent.png", copy, "tile")):
        with pytest.raises(DataError, match="is a picture of the test set, so no detector may learn from it"):
            training.add(example, "made")
    assert len(training) == 0
    clone = training.clone()
    with pytest.raises(DataError, match="test set"):
        clone.add(crack, "real")


def test_pictures_come_out_as_they_went_in(crack: Example):
    training = TrainingSet((32, 32), ["chip", "crack"])
    training.add(crack, "real")
    training.add(Example("normal.png", crack.image, "tile"), "control")
    batch = training.batch([0, 1])
    assert batch.image.shape == (2, 3, 32, 32) and batch.image.dtype == torch.float32
    assert -1 <= float(batch.image.min()) and float(batch.image.max()) <= 1
    assert batch.mask.shape == (2, 1, 32, 32) and set(batch.mask.unique().tolist()) == {0.0, 1.0}
    assert float(batch.mask[1].sum()) == 0 and batch.defect == ("crack", "") and batch.product == ("tile", "tile")
    assert (training.label(0), training.label(1)) == (1, -1)
    assert training.damaged() == training.damaged("crack", "real") == [0] and training.damaged("crack", "made") == []
    assert training.normal("control") == [1] and training.normal("real") == []


def test_a_clone_grows_alone(crack: Example):
    training = TrainingSet((32, 32), ["crack"])
    training.add(crack, "real")
    clone = training.clone()
    clone.add(crack, "made")
    assert (len(training), len(clone)) == (1, 2)


def test_what_does_not_fit_is_said(crack: Example, tmp_path: Path):
    with pytest.raises(DataError, match="its defect type 'crack' is none of chip"):
        TrainingSet((32, 32), ["chip"]).add(crack, "real")
    images.write_mask(tmp_path / "empty.png", np.zeros((40, 60), bool))
    empty = Example("crack.png", crack.image, "tile", "crack", (tmp_path / "empty.png",))
    with pytest.raises(DataError, match="has no marked damage"):
        TrainingSet((32, 32), ["crack"]).add(empty, "real")


@pytest.mark.parametrize("shape", [(50, 50), (64, 192)])
def test_scaling_keeps_the_label_over_the_damage(tmp_path: Path, shape: tuple[int, int]):
    picture = np.full((100, 300), 40, np.uint8)
    mask = np.zeros((100, 300), bool)
    mask[40:60, 120:180] = True
    picture[mask] = 220
    images.write(tmp_path / "a.png", picture)
    images.write_mask(tmp_path / "m.png", mask)
    image, label, _ = read_scaled(Example("a", tmp_path / "a.png", "x", "hole", (tmp_path / "m.png",)), shape)
    assert image.shape == (*shape, 3) and label.shape == shape
    bright = image[..., 0] > 130
    assert (bright & label).sum() / (bright | label).sum() > 0.95


@pytest.mark.parametrize("size", [8, 50, 200])
def test_a_hairline_never_vanishes(size: int):
    mask = np.zeros((400, 400), bool)
    mask[200, 100:300] = True
    assert scaled_mask(mask, (size, size)).any()
    assert not scaled_mask(np.zeros((400, 400), bool), (size, size)).any()


def test_a_speck_survives_where_one_side_shrinks_and_the_other_grows():
    for column in range(0, 600, 7):
        mask = np.zeros((100, 600), bool)
        mask[50, column] = True
        small = scaled_mask(mask, (256, 256))
        assert 1 <= small.sum() < 20 and abs(np.argwhere(small).mean(0) - (128, column * 256 / 600)).max() < 3


def test_tensors_cover_the_range():
    tensor = image_tensor(np.array([[[[0, 128, 255]]]], np.uint8))
    assert tensor.shape == (1, 3, 1, 1)
    assert tensor.flatten().tolist() == pytest.approx([-1.0, 0.00392, 1.0], abs=1e-4)
