"""Anomalib as a detector, and as a reader of what we export; needs `pip install "flawsmith[anomalib]"`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flawsmith.data import images
from flawsmith.errors import ConfigError
from flawsmith.exports.export import write
from flawsmith.exports.mvtec import Mvtec
from flawsmith.testing import example_training
from flawsmith.types import Example

pytest.importorskip("anomalib", reason='anomalib is not installed: pip install "flawsmith[anomalib]"')

from flawsmith.detectors.anomalib import Anomalib, AnomalibSettings

RANDOM = {"backbone": "resnet18", "layers": ["layer1", "layer2"], "pre_trained": False}


def test_it_is_asked_for_what_it_knows() -> None:
    with pytest.raises(ConfigError, match="'Padimm' is no class of anomalib.models"):
        Anomalib(AnomalibSettings(model="Padimm"), ("disc",))
    detector = Anomalib(AnomalibSettings(model="Padim", arguments={"colour": 3}), ("disc",))
    with pytest.raises(ConfigError, match="does not take them: .*colour"):
        list(detector.fit(example_training(6), torch.Generator()))


def test_nothing_of_its_talk_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    detector = Anomalib(AnomalibSettings(model="Padim", arguments=RANDOM), ("disc", "bar"))
    assert list(detector.fit(example_training(6), torch.Generator())) == [1.0]
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_supervised_model_sees_the_damage() -> None:
    from flawsmith.detectors.anomalib import _Pictures

    training = example_training(8)
    plain, taught = _Pictures(training, damaged=False), _Pictures(training, damaged=True)
    assert (len(plain), len(taught)) == (4, 8)
    items = [taught[place] for place in range(8)]
    assert sum(bool(item.gt_label) for item in items) == 4
    assert all(bool(item.gt_mask.any()) == bool(item.gt_label) for item in items)
    assert 0 <= float(items[0].image.min()) and float(items[0].image.max()) <= 1


def test_it_reads_our_export_as_mvtec_ad(tmp_path: Path) -> None:
    from anomalib.data import MVTecAD

    examples = []
    for number, defect in enumerate([None, None, None, "crack", "crack", "scratch"]):
        picture = np.full((64, 64, 3), 90 + number, np.uint8)
        mask = np.zeros((64, 64), bool)
        mask[10:20, 10:30] = True
        image, label = tmp_path / f"{number}.png", tmp_path / f"{number}.mask.png"
        images.write(image, picture)
        images.write_mask(label, mask)
        examples.append(Example(str(number), image, "bolt", defect, (label,) if defect else ()))
    write(Mvtec(Mvtec.Settings()), examples, tmp_path / "export")
    data = MVTecAD(root=tmp_path / "export", category="bolt", train_batch_size=2, eval_batch_size=2, num_workers=0)
    data.setup()
    assert len(data.train_data) == 3
    tested = list(data.test_data)
    assert sum(bool(item.gt_label) for item in tested) >= 1
    assert all(item.gt_mask is not None and int(item.gt_mask.sum()) == 200 for item in tested if bool(item.gt_label))
