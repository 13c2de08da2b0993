"""factory_demo: as many shots as are promised, and enough of everything for a verdict and a threshold."""

from __future__ import annotations

from pathlib import Path

from flawsmith import factory_demo
from flawsmith.config import Config, load_config
from flawsmith.data import factory
from flawsmith.data.split import split
from flawsmith.evaluation.calibration import FIFTH, least_rate
from flawsmith.types import Example


def test_the_demo_uses_the_shots_that_it_promises_and_tests_on_forty_of_each_type(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(factory_demo.CONFIG.format(root="photographs", shots=factory_demo.SHOTS))
    config = load_config(tmp_path / "demo.toml")
    examples = []
    for product, defects in factory_demo.PRODUCTS.items():
        assert set(defects) <= set(factory.defects_of(product))
        for side, count in (("train", factory_demo.NORMALS), ("test", factory_demo.TEST_NORMALS)):
            names = [f"{product}/{side}/good/{number:03d}.png" for number in range(count)]
            examples += [Example(name, Path(name), product, split=side) for name in names]
        for defect in defects:
            names = [
                f"{product}/{defect}/{number:03d}.png" for number in range(factory_demo.SHOTS + factory_demo.TESTS)
            ]
            examples += [Example(name, Path(name), product, defect, (Path(name),)) for name in names]
    divided = split(examples, shots=config.data.shots)
    types = sum(map(len, factory_demo.PRODUCTS.values()))
    assert len(divided.shots) == config.data.shots * types and not divided.notes
    # A tenth of the tests may be dropped as second photographs of a shot.
    assert 0.9 * len(divided.test_defects) >= 40 * types and factory_demo.TEST_NORMALS >= 40
    assert least_rate(factory_demo.NORMALS // FIFTH) <= config.prove.false_alarm_rate == Config().prove.false_alarm_rate
    assert config.prove.detectors == Config().prove.detectors  # the default judge


def test_the_demo_has_a_surface_and_a_part() -> None:
    fill = [factory.make(product, None, seed=1, size=64).part.all() for product in factory_demo.PRODUCTS]
    assert any(fill) and not all(fill)
