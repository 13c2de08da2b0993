"""evaluation/shape.py: at which rows and columns a product is proven, and who is stretched by it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from flawsmith.config import Config, DataConfig, ProveConfig
from flawsmith.data import images
from flawsmith.evaluation.shape import NEARLY_SQUARE, Shape, distorted, proof_shape
from flawsmith.preflight.check import check

AUTO = ProveConfig()


@pytest.mark.parametrize(
    ("photographs", "part", "shape"),
    [
        ([(512, 512)], AUTO, (384, 384)),
        ([(300, 200)], AUTO, (288, 288)),
        ([(40, 30)], AUTO, (64, 64)),
        ([(300, 200)], ProveConfig(size=100), (100, 100)),
        ([(500, 1250)], AUTO, (256, 608)),
        ([(1250, 500)], AUTO, (608, 256)),
        ([(500, 1250)], ProveConfig(size=256), (160, 416)),
        ([(200, 500)], AUTO, (192, 512)),
        ([(160, 400)], AUTO, (160, 384)),
        ([(100, 8000)], AUTO, (32, 3424)),
        ([(500, 1250)], ProveConfig(protocol="field"), (256, 256)),
        ([(500, 1250)], ProveConfig(protocol="field", size=320), (320, 320)),
        ([(500, 1250), (1250, 500)], AUTO, (384, 384)),
        ([(500, 1250)] * 9 + [(500, 500)], AUTO, (256, 576)),
    ],
)
def test_square_while_nearly_square_else_as_the_photographs_are(
    photographs: list[Shape], part: ProveConfig, shape: Shape
):
    assert proof_shape(part, photographs) == shape


@pytest.mark.parametrize("proportion", [1.51, 2.0, 2.5, 4.0, 7.0])
def test_its_own_shape_has_about_as_many_pixels_and_keeps_the_proportions(proportion: float):
    for photograph in ((round(600 * proportion), 600), (600, round(600 * proportion))):
        rows, columns = proof_shape(AUTO, [photograph])
        assert 0.87 < rows * columns / 384**2 < 1.15 and rows % 32 == columns % 32 == 0
        assert abs(math.log(rows / columns * photograph[1] / photograph[0])) < math.log(1.13)


def test_who_is_stretched_is_counted():
    assert distorted((384, 384), [(300, 200), (200, 300), (7, 7)]) == "" and NEARLY_SQUARE == 1.5
    assert distorted((256, 608), [(500, 1250)] * 5) == ""
    assert distorted((384, 384), [(500, 1250), (1250, 500), (100, 100), (100, 160)]) == (
        "3 of 4 photographs have other proportions than the 384 x 384 pixels at which the proof shows all of them, "
        "so it stretches them, up to 2.5 times"
    )


def written(root: Path, normal: Shape, damaged: Shape) -> Config:
    rng = np.random.default_rng(0)
    for number in range(4):
        images.write(root / f"bar/train/good/{number}.png", rng.integers(0, 256, normal, np.uint8))
        images.write(root / f"bar/test/good/{number}.png", rng.integers(0, 256, normal, np.uint8))
        images.write(root / f"bar/test/cut/{number}.png", rng.integers(0, 256, damaged, np.uint8))
        mask = np.zeros(damaged, bool)
        mask[8:20, 8:20] = True
        images.write_mask(root / f"bar/ground_truth/cut/{number}_mask.png", mask)
    return Config(data=DataConfig(root=root, shots=2))


def test_check_warns_of_photographs_that_the_proof_stretches(tmp_path: Path):
    config = written(tmp_path, (40, 100), (40, 40))
    told = [warning for warning in check(config).warnings if "stretches" in warning]
    assert len(told) == 1 and told[0].startswith("bar: 4 of 12 photographs have other proportions than the ")
    unproven = config.model_copy(update={"prove": ProveConfig(enabled=False)})
    assert not [warning for warning in check(unproven).warnings if "stretches" in warning]


def test_check_says_nothing_of_photographs_of_one_shape(tmp_path: Path):
    found = check(written(tmp_path, (40, 100), (40, 100)))
    assert found.ok and not [warning for warning in found.warnings if "stretches" in warning]
