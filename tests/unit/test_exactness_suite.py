"""benchmarks/suites/exactness.py: its readers agree with flawsmith's, and it finds what is not exact."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from flawsmith import registry
from flawsmith.data import images

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def suite() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS / "suites"))
    try:
        return importlib.import_module("exactness")
    finally:
        sys.path.remove(str(BENCHMARKS / "suites"))


def test_every_sort_of_photograph_is_read_as_others_read_it(suite: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    piece = rng.normal(120, 25, (18, 27, 3)).clip(0, 255).astype(np.uint8)
    for name, sort in suite.SORTS.items():
        path = tmp_path / f"{name}{sort.suffix}"
        sort.write(path, sort.content(piece, rng))
        read, by_others = images.read(path), suite.source_sorts.read(path)
        assert read.dtype == by_others.dtype, name
        np.testing.assert_array_equal(read, by_others, err_msg=name)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
def test_a_pixel_outside_the_mask_is_found(suite: ModuleType, depth: type[np.generic], tmp_path: Path) -> None:
    photograph = np.random.default_rng(1).uniform(1, 200, (20, 30)).astype(depth)
    mask = np.zeros((20, 30), bool)
    mask[5:9, 5:9] = True
    suffix = images.lossless_suffix(photograph)
    row = SimpleNamespace(role="sample", normal=f"normal{suffix}", image=f"image{suffix}", mask="mask.png")
    run = SimpleNamespace(path=lambda name: tmp_path / name)
    images.write(tmp_path / row.normal, photograph)
    images.write_mask(tmp_path / row.mask, mask)

    def reasons(change: np.ndarray) -> list[str]:
        made = photograph.copy()
        made[change] += depth(1)
        images.write(tmp_path / row.image, made)
        suite._photograph.cache_clear()
        wrong, outside = suite.faults(run, tmp_path, row)
        assert outside == 20 * 30 - 16
        return wrong

    assert reasons(mask) == []
    assert reasons(~mask | mask)[0] == f"{20 * 30 - 16} pixels outside its mask differ from the photograph"
    assert reasons(np.zeros_like(mask)) == ["nothing inside its mask differs from the photograph"]


def test_the_results_hold_for_every_generator() -> None:
    results = json.loads((BENCHMARKS / "results" / "exactness.json").read_text())
    assert set(registry.entries("generators")) <= set(results["generators"])
    assert results["all"]["pairs"] >= 1000
    assert results["all"]["wrong"] == 0
