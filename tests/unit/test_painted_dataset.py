"""synthesis/painted_dataset.py: the plan's samples, painted while a detector trains, whoever paints them."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import flawsmith as fs
from flawsmith.data import images
from flawsmith.data.scaling import scaled, scaled_mask
from flawsmith.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def run(factory_root: Path, tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    """A run that has generated two samples of each type of the magnet."""
    settings = {"data.root": str(factory_root), "data.products": ["magnet"], "data.shots": 2, "generate.count": 2}
    settings |= {"generator.name": "crop_paste", "generate.controls": 0}
    made = fs.Run.create(tmp_path_factory.mktemp("dataset") / "run", fs.load_config(None, settings))
    fs.train(made)
    fs.generate(made)
    return made


@pytest.fixture(scope="module")
def dataset(run: fs.Run) -> fs.PaintedDataset:
    return fs.PaintedDataset(run.folder, 6, shape=(40, 56))


def all_of(dataset: fs.PaintedDataset, epoch: int) -> list[dict[str, torch.Tensor]]:
    dataset.set_epoch(epoch)
    return [dataset[index] for index in range(len(dataset))]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_items_are_what_the_docstring_says(dataset: fs.PaintedDataset) -> None:
    assert dataset.defects == ("chip", "crack") and len(dataset) == 6
    for item in all_of(dataset, 3):
        assert item.keys() == {"image", "mask", "defect"}
        assert item["image"].dtype == torch.float32 and item["image"].shape == (3, 40, 56)
        assert -1 <= item["image"].min() < item["image"].max() <= 1
        assert item["mask"].shape == (1, 40, 56) and item["mask"].dtype == torch.float32
        assert set(item["mask"].unique().tolist()) == {0.0, 1.0}
        assert item["defect"].dtype == torch.int64 and item["defect"].shape == ()
    assert [int(item["defect"]) for item in all_of(dataset, 3)] == [0, 1] * 3
    for index in (-1, 6):
        with pytest.raises(IndexError):
            dataset[index]


def test_the_first_pictures_are_the_plans(run: fs.Run, dataset: fs.PaintedDataset) -> None:
    """The planner's own rules: number i of the first epoch is sample i of a run with this seed."""
    items = all_of(dataset, 0)
    native = fs.PaintedDataset(run, 4)
    for row in run.samples():
        picture, mask = (images.read(run.path(name)) for name in (row.image, row.mask))
        assert items[row.index]["defect"] == dataset.defects.index(row.defect)
        for item, shape in ((items[row.index], (40, 56)), (native[row.index], picture.shape[:2])):
            image = item["image"].permute(1, 2, 0).numpy()
            assert np.allclose(image, scaled(images.to_model(picture), shape), atol=1e-6)
            assert (item["mask"][0].numpy() == scaled_mask(mask > 0, shape)).all()


def test_an_epoch_is_always_the_same_and_never_like_another(dataset: fs.PaintedDataset, run: fs.Run) -> None:
    first, second, again = all_of(dataset, 0), all_of(dataset, 1), all_of(dataset, 0)
    assert all(map(equal, first, again))
    other = all_of(fs.PaintedDataset(run, 6, seed=1, shape=(40, 56)), 0)
    pictures = [item["image"].numpy().tobytes() for item in (*first, *second, *other)]
    assert len(set(pictures)) == 18


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of forking beside threads
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_paint_the_same(dataset: fs.PaintedDataset, persistent: bool) -> None:
    loader = DataLoader(
        dataset, batch_size=4, num_workers=2, multiprocessing_context="fork", persistent_workers=persistent
    )
    for epoch in (2, 5):
        expected = all_of(dataset, epoch)
        batches = list(loader)
        assert [len(batch["defect"]) for batch in batches] == [4, 2]
        for name in expected[0]:
            assert torch.equal(torch.cat([batch[name] for batch in batches]), torch.stack([e[name] for e in expected]))


def test_a_spawned_worker_opens_its_own_and_hears_of_the_epoch(dataset: fs.PaintedDataset) -> None:
    """What spawning does: the dataset is pickled, without what cannot be, and its epoch lies in shared memory."""
    dataset.set_epoch(0)
    spawned = pickle.loads(ForkingPickler.dumps(dataset))
    assert spawned._brush is None and equal(spawned[1], dataset[1])
    before = spawned[1]
    dataset.set_epoch(1)
    assert equal(spawned[1], dataset[1]) and not equal(spawned[1], before)


def test_only_what_is_asked_for(factory_root: Path) -> None:
    shots = {"data.shots": 2}
    everything = fs.PaintedDataset(factory_root, 3, settings=shots)
    assert everything.defects == ("bend", "chip", "crack")
    screws = fs.PaintedDataset(factory_root, 2, products=["screw"], generator="perlin", settings=shots)
    assert screws.defects == ("bend",) and screws[1]["image"].shape == (3, 128, 128)
    assert fs.PaintedDataset(factory_root, 2, defects=["chip"], settings=shots).defects == ("chip",)
    for how, sentence in (
        ({"products": ["screws"]}, "products: there are no shots of 'screws'; did you mean 'screw'?"),
        ({"defects": ["chp"]}, "defects: there are no shots of 'chp'; did you mean 'chip'?"),
        ({"products": ["screw"], "defects": ["chip"]}, "no product has shots of these types"),
        ({"seed": -1}, "a seed from 0"),
        ({"length": 0}, "a length is at least 1"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            fs.PaintedDataset(factory_root, **{"length": 2} | how)
    with pytest.raises(ConfigError, match="epoch: -1"):
        everything.set_epoch(-1)
    blind = fs.PaintedDataset(factory_root, 2, settings=shots | {"generate.min_painted": 1.0, "generate.visible": 1.0})
    with pytest.raises(DataError, match="of 8 samples of patch_synthesis none shows any damage"):
        blind[0]


def test_no_test_picture_gets_into_training(dataset: fs.PaintedDataset) -> None:
    split = dataset.brush.data.split
    held_out = {example.image.resolve() for example in (*split.test_normals, *split.test_defects)}
    read = {example.image.resolve() for example in dataset.brush.data.photographs.read._kept}
    assert all_of(dataset, 7) and read and not read & held_out
