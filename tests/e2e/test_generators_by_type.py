"""One generator, and one kind of masks, for each defect type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flawsmith.config import load_config
from flawsmith.data import factory
from flawsmith.errors import ConfigError
from flawsmith.pipeline import run_all
from flawsmith.preflight.check import check
from flawsmith.run.folder import Run
from flawsmith.synthesis.generate import Shard, generate
from flawsmith.synthesis.train import train

MIXED = {"chip": "crop_paste", "crack": "patch_synthesis"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by type")
    factory.write_dataset(folder, "tile", ("chip", "crack"), normals=6, per_defect=4, seed=3, size=64)
    return folder


def settings(root: Path, **more: Any) -> dict[str, Any]:
    off = {f"{stage}.enabled": False for stage in ("measure", "prove", "screen")}
    plain = {"data.root": str(root), "data.shots": 2, "generate.count": 3, "generate.controls": 0.5}
    return {**off, **plain, "export.formats": [], "generator.name": MIXED, **more}


def pictures(run: Run) -> dict[str, bytes]:
    files = [*run.path("samples").iterdir(), *run.path("controls").iterdir()]
    return {path.relative_to(run.folder).as_posix(): path.read_bytes() for path in files}


def test_each_type_is_painted_by_its_own_generator_and_shards_agree(root: Path, tmp_path: Path):
    masks = {"crack": "procedural"}
    run = Run.create(tmp_path / "whole", load_config(None, settings(root, **{"generate.masks": masks})))
    report = run_all(run)
    assert {line.defect: line.generator for line in run.plan()} == MIXED
    assert {line.defect: line.mask_source for line in run.plan()} == {"chip": "shots", "crack": "procedural"}
    assert {line.job for line in run.plan()} == {"crop_paste/tile", "patch_synthesis/tile"}
    assert len(run.samples()) == 6 and len(run.controls()) == 2
    assert "crop_paste (chip) and patch_synthesis (crack)" in report.read_text(encoding="utf-8")
    sharded = Run.create(tmp_path / "shards", run.config)
    train(sharded)
    for number in (1, 0):
        generate(sharded, Shard(number, 2))
    assert pictures(sharded) == pictures(run)


def test_a_type_that_is_left_out_is_left_out(root: Path, tmp_path: Path):
    chosen = {"generator.name": {"crack": "patch_synthesis"}, "generate.count": {"crack": 2}}
    run = Run.create(tmp_path / "run", load_config(None, settings(root, **chosen)))
    run_all(run)
    assert {sample.defect for sample in run.samples()} == {"crack"}
    assert [path.name for path in run.path("weights").iterdir()] == ["tile"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"generator.name": {"chip": "crop_paste"}}, "generator.name: no generator for the defect type 'crack'; add"),
        ({"generator.name": {**MIXED, "dent": "crop_paste"}}, "generator.name: there is no defect type 'dent'"),
        ({"generator.name": {**MIXED, "chip": "crop_past"}}, "generator.name: generator 'crop_past' is unknown"),
        ({"generate.masks": {"cracks": "shots"}}, "generate.masks: there is no defect type 'cracks'"),
        ({"generator.settings": {"perlin": {}}}, "generator.settings.perlin: generator.name names no such generator"),
        ({"generator.settings": {"crop_paste": {"x": 1}}}, "generator.settings.crop_paste: x: unknown key"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_before_anything_is_made(
    root: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
):
    config = load_config(None, settings(root, **changes))
    assert any(sentence in error for error in check(config).errors), check(config).errors
    with pytest.raises(ConfigError, match="generat"):
        run_all(Run.create(tmp_path / "run", config))
    assert not (tmp_path / "run" / "samples").exists()


def test_auto_is_what_run_decides(root: Path, tmp_path: Path):
    config = load_config(None, settings(root, **{"generator.name": "auto"}))
    assert check(config).ok
    with pytest.raises(ConfigError, match='"auto" is chosen by `flawsmith run'):
        Run.create(tmp_path / "run", config)
