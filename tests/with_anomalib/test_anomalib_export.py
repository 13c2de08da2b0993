"""Anomalib's own datamodules load the export `mvtec` of a run, and a model fits and is tested on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawsmith.data import images
from flawsmith.exports.export import write
from flawsmith.exports.mvtec import Mvtec
from flawsmith.types import Example

pytest.importorskip("anomalib", reason="Anomalib is not installed: make test-anomalib has an environment with it")
from anomalib.data import Folder, MVTecAD
from anomalib.models import Padim

pytestmark = pytest.mark.anomalib
RANDOM = {"backbone": "resnet18", "layers": ["layer1", "layer2"], "pre_trained": False}


def mvtec_ad(run: Any) -> Any:
    root = run.path("export", "mvtec")
    return MVTecAD(root=root, category="magnet", train_batch_size=4, eval_batch_size=4, num_workers=0)


def folder(run: Any) -> Any:
    root = run.path("export", "mvtec", "magnet")
    return Folder(
        name="magnet",
        root=root,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=["test/chip", "test/crack"],
        mask_dir=["ground_truth/chip", "ground_truth/crack"],
        train_batch_size=4,
        eval_batch_size=4,
        num_workers=0,
        val_split_mode="same_as_test",
    )


@pytest.mark.parametrize("loader", [mvtec_ad, folder])
def test_it_loads_and_padim_fits(loader: Any, finished_run: Any, quick_engine: Any) -> None:
    data = loader(finished_run)
    data.setup()
    assert len(data.train_data) == 12 and not data.train_data.has_anomalous
    tested = list(data.test_data)
    assert [bool(item.gt_label) for item in tested].count(True) == 8 and len(tested) == 16
    made = {str(finished_run.path(one.image)): one for one in finished_run.kept()}
    lines = finished_run.path("export", "mvtec", "provenance.jsonl").read_text().splitlines()
    assert len(made) == 8 and len(lines) == 12 + 16
    areas = sorted(int(item.gt_mask.sum()) for item in tested if bool(item.gt_label))
    assert areas == sorted(one.area for one in made.values())
    engine, model = quick_engine(), Padim(**RANDOM)
    engine.fit(model, datamodule=data)
    (said,) = engine.test(model, datamodule=data, verbose=False)
    assert 0 <= said["image_AUROC"] <= 1 and said["pixel_AUROC"] > 0.5


def test_each_mask_is_that_of_its_picture(tmp_path: Path) -> None:
    examples = []
    for number, defect in enumerate([None, None, None, "crack", "crack", "scratch"]):
        picture = np.full((64, 64, 3), 90 + number, np.uint8)
        mask = np.zeros((64, 64), bool)
        mask[10:20, 10 : 20 + number] = True
        picture[mask] = 100 + number
        image, label = tmp_path / f"{number}.png", tmp_path / f"{number}.mask.png"
        images.write(image, picture)
        images.write_mask(label, mask)
        examples.append(Example(str(number), image, "bolt", defect, (label,) if defect else ()))
    write(Mvtec(Mvtec.Settings()), examples, tmp_path / "export")
    data = MVTecAD(root=tmp_path / "export", category="bolt", train_batch_size=2, eval_batch_size=2, num_workers=0)
    data.setup()
    assert len(data.train_data) == 3
    damaged = [item for item in data.test_data if bool(item.gt_label)]
    assert len(damaged) == 3
    for item in damaged:
        number = round(float(item.image.max()) * 255) - 100
        assert int(item.gt_mask.sum()) == 10 * (10 + number)
        assert bool((item.image[0][item.gt_mask] * 255).round().eq(100 + number).all())


def test_its_loco_datamodule_loads_the_export_mvtec_loco(finished_run: Any, tmp_path: Path) -> None:
    from anomalib.data import MVTecLOCO

    from flawsmith.exports.export import exported
    from flawsmith.exports.mvtec_loco import MvtecLoco

    examples = exported(finished_run)
    write(MvtecLoco(MvtecLoco.Settings(logical=["chip"])), examples, tmp_path / "loco")
    data = MVTecLOCO(root=tmp_path / "loco", category="magnet", train_batch_size=4, eval_batch_size=4, num_workers=0)
    data.setup()
    assert len(data.train_data) + len(data.val_data) == 12 and len(data.val_data) == 2
    tested = {str(item.image_path): item for item in data.test_data}
    made = [one for one in examples if one.painted_on]
    damaged = {path: item for path, item in tested.items() if bool(item.gt_label)}
    assert len(damaged) == len(made) == 8
    assert {Path(path).parent.name for path in damaged} == {"logical_anomalies", "structural_anomalies"}
    areas = sorted(one.area for one in finished_run.kept())
    assert sorted(int((item.gt_mask > 0).sum()) for item in damaged.values()) == areas
