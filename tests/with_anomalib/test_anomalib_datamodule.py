"""flawsmith.integrations.anomalib: made damage in training, real damage in the test, and nothing lost on the way."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flawsmith.data import images
from flawsmith.errors import ConfigError, DataError, RunError
from flawsmith.run.dataset import load_split
from flawsmith.types import Example

pytest.importorskip("anomalib", reason="Anomalib is not installed: make test-anomalib has an environment with it")
from anomalib.models import Padim, Supersimplenet
from lightning.pytorch.callbacks import Callback
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, Resize

from flawsmith.integrations.anomalib import DataModule, Draem, backbone
from flawsmith.integrations.anomalib.datamodule import _product, by_picture
from flawsmith.integrations.anomalib.pictures import PaintedBatch, PictureDataset

pytestmark = pytest.mark.anomalib
LAYERS = ["stride8", "stride16"]


class Recorder(Callback):
    """Keeps, of every epoch, what the trainer's batches really held when the model got them."""

    def __init__(self) -> None:
        self.epochs: list[list[Any]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.epochs.append([])

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        for item in batch:
            marked = bool(item.gt_mask.any())
            self.epochs[-1].append((item.image_path, bool(item.gt_label), marked, tuple(item.image.shape)))


def origins(pictures: Any) -> Counter[tuple[str, bool]]:
    rows = pictures.samples
    return Counter(zip(rows.origin, rows.label_index.astype(bool), strict=True))


def test_made_damage_is_trained_on_and_real_damage_is_tested_on(finished_run: Any) -> None:
    data = DataModule(finished_run, validation=0)
    data.setup()
    assert origins(data.train_data) == {
        ("real", False): 12,
        ("control", False): 4,
        ("made", True): 8,
        ("real", True): 6,
    }
    split = load_split(finished_run)
    assert origins(data.test_data) == {("real", True): 10, ("real", False): 8}
    tested = {one.image_path for one in data.test_data}
    assert tested == {str(one.image) for one in (*split.test_defects, *split.test_normals)}
    learned = {one.image_path for one in data.train_data}
    assert not tested & learned and len(data.val_data) == 0
    alone = DataModule(finished_run, damaged=False, validation=0)
    alone.setup()
    assert origins(alone.train_data) == {("real", False): 12}
    made = DataModule(finished_run, shots=False, validation=0)
    made.setup()
    assert origins(made.train_data) == {("real", False): 12, ("control", False): 4, ("made", True): 8}


def test_a_photograph_is_on_one_side_with_all_that_was_made_of_it(finished_run: Any) -> None:
    data = DataModule(finished_run, validation=0.5)
    data.setup()
    photograph = {one.id: str(one.image) for one in load_split(finished_run).normals}
    of = {str(finished_run.path(one.image)): photograph[one.normal] for one in finished_run.kept()}
    of |= {str(finished_run.path(one.image)): photograph[one.normal] for one in finished_run.controls()}
    sides = [{of.get(path, path) for path in part.samples.image_path} for part in (data.train_data, data.val_data)]
    assert sides[1] and not sides[0] & sides[1]
    assert origins(data.val_data)[("made", True)] >= 2 and origins(data.train_data)[("made", True)] >= 2
    assert data.val_data.has_normal


def test_pictures_and_masks_are_those_on_disk(finished_run: Any) -> None:
    data = DataModule(finished_run)
    data.setup()
    made = {str(finished_run.path(one.image)): one for one in finished_run.kept()}
    looked_at = 0
    for item in data.train_data:
        picture = images.read(Path(item.image_path))
        assert (np.rint(item.image.numpy().transpose(1, 2, 0) * 255) == picture).all()
        if sample := made.get(item.image_path):
            mask = images.read_mask(finished_run.path(sample.mask), picture.shape)
            assert (item.gt_mask.numpy().astype(bool) == mask).all() and bool(item.gt_label)
            differs = (item.image != item.beneath).any(0).numpy()
            assert differs.any() and not (differs & ~mask).any()
            looked_at += 1
    assert looked_at == len(made) - origins(data.val_data)[("made", True)]


def test_every_epoch_of_a_supervised_training_holds_all_damage_with_masks(finished_run: Any, quick_engine: Any) -> None:
    """Set up by hand, then by the trainer for training and for testing: the first choice stays."""
    data = DataModule(finished_run, train_batch_size=6)
    data.setup()
    damaged = {row.image_path for row in data.train_data.samples.itertuples() if row.label_index}
    everything, chosen = len(data.train_data), data.train_data
    recorder = Recorder()
    engine = quick_engine(2, callbacks=[recorder])
    model = Supersimplenet(backbone=backbone(), layers=LAYERS, supervised=True)
    engine.fit(model, datamodule=data)
    assert len(recorder.epochs) == 2 and damaged
    for epoch in recorder.epochs:
        assert len(epoch) == everything
        assert {path for path, label, _, _ in epoch if label} == damaged
        assert all(label == marked for _, label, marked, _ in epoch)
        assert {shape for *_, shape in epoch} == {(3, 256, 256)}
    (said,) = engine.test(model, datamodule=data, verbose=False)
    assert data.train_data is chosen and set(said) >= {"image_AUROC", "pixel_AUROC"}
    assert float(model.post_processor.image_threshold) == float(model.post_processor.image_threshold)  # was set


def test_what_was_changed_by_hand_stays(finished_run: Any, quick_engine: Any) -> None:
    data = DataModule(finished_run, damaged=False)
    data.setup()
    data.train_data = data.train_data.subsample([0, 1, 2, 3])
    recorder = Recorder()
    engine = quick_engine(callbacks=[recorder])
    engine.fit(Padim(backbone=backbone(), layers=LAYERS, n_features=50), datamodule=data)
    assert [len(epoch) for epoch in recorder.epochs] == [4]


def test_what_stands_on_our_backbone_is_saved_and_loaded(finished_run: Any, quick_engine: Any, tmp_path: Path) -> None:
    data = DataModule(finished_run, damaged=False)
    engine, model = quick_engine(), Padim(backbone=backbone(), layers=LAYERS, n_features=50)
    engine.fit(model, datamodule=data)
    picture = data.test_data[0].image.unsqueeze(0)
    said = model.eval()(picture).anomaly_map
    again = Padim.load_from_checkpoint(engine.best_model_path).eval()
    assert torch.allclose(again(picture).anomaly_map, said, atol=1e-4)
    path = model.to_torch(tmp_path)
    saved = torch.load(path, weights_only=False)["model"]
    assert torch.allclose(saved(picture).anomaly_map, said, atol=1e-4)


def test_a_model_that_takes_damage_for_normal_is_not_shown_any(finished_run: Any, quick_engine: Any) -> None:
    model = Padim(backbone=backbone(), layers=LAYERS, n_features=50)
    with pytest.raises(ConfigError, match=r"Padim takes all .* for normal, and \d+ pictures are damaged"):
        quick_engine().fit(model, datamodule=DataModule(finished_run))
    with pytest.raises(ConfigError, match=r"DataModule\(run, damaged=False\)"):
        unsupervised = Supersimplenet(backbone=backbone(), layers=LAYERS)
        quick_engine(1).fit(unsupervised, datamodule=DataModule(finished_run))


def test_thin_damage_stays_in_a_smaller_mask_and_augmentation_moves_all_alike(finished_run: Any) -> None:
    data = DataModule(finished_run)
    data.setup()
    data.train_data.augmentations = Resize((24, 24), antialias=True)
    small = [item for item in data.train_data if bool(item.gt_label)]
    assert small and all(item.gt_mask.shape == (24, 24) and bool(item.gt_mask.any()) for item in small)
    data.train_data.augmentations = Compose([RandomHorizontalFlip(1.0)])
    flipped = list(data.train_data)
    data.train_data.augmentations = None
    for one, other in zip(flipped, data.train_data, strict=True):
        for name in ("image", "gt_mask", "beneath"):
            assert torch.equal(getattr(one, name).flip(-1), getattr(other, name)), name


def test_two_types_on_one_picture_are_one_item_with_both(tmp_path: Path) -> None:
    images.write(tmp_path / "a.png", np.full((32, 32), 90, np.uint8))
    examples = []
    for number, defect in enumerate(("crack", "chip")):
        mask = np.zeros((32, 32), bool)
        mask[4 + 10 * number : 8 + 10 * number, 5:9] = True
        images.write_mask(tmp_path / f"{defect}.png", mask)
        examples.append(Example(f"a.png#{defect}", tmp_path / "a.png", "bolt", defect, (tmp_path / f"{defect}.png",)))
    dataset = PictureDataset(by_picture(examples), "train")
    assert len(dataset) == 1 and dataset.samples.defect[0] == "crack+chip"
    (item,) = dataset
    assert int(item.gt_mask.sum()) == 32 and bool(item.gt_mask[4:8, 5:9].all()) and bool(item.gt_mask[14:18, 5:9].all())


def test_sixteen_bits_are_seen_in_their_range(sixteen_bit_run: Any) -> None:
    """12 bits in 16: Anomalib's own reader would clip all of it to white; its export has 8."""
    from anomalib.data import MVTecAD

    data = DataModule(sixteen_bit_run, num_workers=1)
    data.setup()
    for item in [data.train_data[0], data.test_data[0]]:
        native = images.read(Path(item.image_path)).astype(float)
        assert native.max() > 1000 and native.ndim == 2
        assert np.abs(item.image.numpy() - native / 4095).max() <= 0.5 / 255 + 1e-6
    seen = [path for batch in data.train_dataloader() for path in batch.image_path]
    assert sorted(seen) == sorted(data.train_data.samples.image_path)
    loaded = MVTecAD(root=sixteen_bit_run.path("export", "mvtec"), category="magnet", num_workers=0)
    loaded.setup()
    assert len({round(float(value), 4) for value in loaded.train_data[0].image.flatten()}) > 20
    assert float(loaded.train_data[0].image.max()) < 1


def test_draem_learns_damage_against_the_photograph_beneath(
    finished_run: Any, quick_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it reconstructs is the photograph, what it marks is the sample's mask, and shots are passed over."""
    model = Draem(pre_processor=Draem.configure_pre_processor((64, 64)))
    shown: list[tuple[Any, ...]] = []
    forward = model.model.forward

    def watched(image: torch.Tensor) -> Any:
        shown.append((image,))
        return forward(image)

    class Loss(type(model.loss)):  # type: ignore[misc]
        def forward(self, clean: Any, rebuilt: Any, mask: Any, said: Any) -> Any:
            shown[-1] += (clean, mask)
            return super().forward(clean, rebuilt, mask, said)

    monkeypatch.setattr(model.model, "forward", watched)
    model.loss = Loss()
    data = DataModule(finished_run, train_batch_size=8)
    engine = quick_engine(1, limit_val_batches=0)
    engine.fit(model, datamodule=data)
    count = origins(data.train_data)
    assert sum(len(image) for image, *_ in shown) == len(data.train_data) - count[("real", True)]
    painted = 0
    for image, clean, mask in shown:
        for one, beneath, label in zip(image, clean, mask, strict=True):
            differs = (one != beneath).any(0)
            assert bool(differs.any()) == bool(label.any())
            painted += bool(differs.any())
    assert painted == count[("made", True)] > 0


def test_draem_takes_real_losses_and_other_datamodules_are_refused(finished_run: Any) -> None:
    data = DataModule(finished_run)
    data.setup()
    data.train_data.augmentations = Resize((64, 64), antialias=True)
    rows = data.train_data.samples
    chosen = [*rows.index[rows.origin == "made"][:2], *rows.index[rows.label_index == 0][:1]]
    batch = PaintedBatch.collate([data.train_data[int(place)] for place in chosen])
    model = Draem()
    loss = model.training_step(batch)["loss"]
    assert torch.isfinite(loss) and float(loss) > 0
    batch.beneath = None
    with pytest.raises(ConfigError, match="was given another"):
        model.training_step(batch)


@pytest.mark.parametrize("product", ["", "magnet"])
def test_a_run_without_shots_has_its_product(run_without_shots: Any, product: str) -> None:
    data = DataModule(run_without_shots, product=product, validation=0)
    data.setup()
    assert data.product == "magnet" and not load_split(run_without_shots).shots
    learned = origins(data.train_data)
    assert learned[("real", False)] == 6 and learned[("made", True)] == len(run_without_shots.kept()) > 0
    assert origins(data.test_data) == {("real", True): 5, ("real", False): 8}


def test_a_run_of_nothing_is_one_sentence(finished_run: Any) -> None:
    nothing = replace(load_split(finished_run), shots=(), normals=())
    with pytest.raises(ConfigError, match="product: the run has no photographs to learn from"):
        _product(nothing, "")


def test_wrong_input_is_one_sentence(finished_run: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a flawsmith run"):
        DataModule(tmp_path)
    with pytest.raises(ConfigError, match="product: there is no 'magnets'; did you mean 'magnet'"):
        DataModule(finished_run, product="magnets")
    with pytest.raises(ConfigError, match="validation: 0.9"):
        DataModule(finished_run, validation=0.9)
    empty = DataModule(finished_run)
    empty._split = type(empty._split)(empty._split.shots, empty._split.normals, (), empty._split.test_normals)
    with pytest.raises(DataError, match="kept 8 normal and 0 damaged real pictures"):
        empty.setup()


def test_the_script_of_the_page_runs(
    finished_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/anomalib.md as it stands, but for one epoch."""
    page = (Path(__file__).parents[2] / "docs/anomalib.md").read_text("utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/my").symlink_to(finished_run.folder)
    monkeypatch.chdir(tmp_path)
    exec(script.replace("max_epochs=20", "max_epochs=1"), {})
    assert "'image_AUROC'" in capsys.readouterr().out and any((tmp_path / "results").rglob("model.ckpt"))
