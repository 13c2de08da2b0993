"""Whole runs of dual_branch that the other generators cannot show: synthetic windows, masks that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.errors import RunError


def config_of(small_config: dict[str, Any], **settings: Any) -> fs.Config:
    table = {
        "data.products": ["magnet"],
        "data.defects": ["crack"],
        "generate.attempts": 2,
        "generate.controls": 0.5,
    }
    table |= {"generator.name": "dual_branch", "generator.settings": settings, "windows.context": 1.2}
    return load_config(None, small_config | table)


def test_whole_windows_are_synthetic_and_the_rest_is_the_photograph(small_config: dict[str, Any], tmp_path: Path):
    run = fs.Run.create(tmp_path / "run", config_of(small_config, out="whole", largest=1.0, smallest=0.0))
    fs.run_all(run)
    rows = run.samples()
    normals = {row["id"]: Path(row["image"]) for row in json.loads(run.path("data.json").read_text())["normals"]}
    assert len(rows) == 2 and all(row.made and row.paint == "whole" for row in rows)
    for row in rows:
        before, after = images.read(normals[row.normal]), images.read(run.path(row.image))
        mask = images.read_mask(run.path(row.mask), after.shape)
        inside = np.zeros(mask.shape, bool)
        for window in row.windows:
            inside[window.inside(mask.shape)] = True
        changed = (before != after).reshape(*mask.shape, -1).any(axis=2)
        assert not changed[~inside].any() and mask.any() and not mask[~inside].any()
        assert changed[inside & ~mask].any() or mask[inside].all(), "the window is not synthetic throughout"
    controls = run.controls()
    assert controls, "it paints normal as well"
    for row in controls:
        before, after = images.read(normals[row.normal]), images.read(run.path(row.image))
        mask = images.read_mask(run.path(row.mask), after.shape)
        assert np.array_equal(before[~mask], after[~mask]), "a control is exact outside its mask"
    page = run.path("report.md").read_text()
    assert "synthetic" in page and "Exact background" in page
    # The check still sees a change outside of the windows.
    outside = images.read(run.path(rows[0].image)).copy()
    assert not inside.all()
    hole = tuple(np.argwhere(~inside)[0])
    outside[hole] = 255 - outside[hole]
    images.write(run.path(rows[-1].image), outside)
    with pytest.raises(RunError, match="exact-background check failed"):
        fs.report(fs.Run.open(run.folder))


def test_refused_masks_are_named_and_nothing_is_written(small_config: dict[str, Any], tmp_path: Path):
    run = fs.Run.create(tmp_path / "run", config_of(small_config, largest=1e-6))
    fs.train(run)
    fs.generate(run)
    rows = run.samples()
    assert [row.status for row in rows] == ["overflow"] * 2
    assert all(row.attempt == 1 and row.image == "" and row.area == 0 for row in rows)
    fs.report(run)
    assert "2 with damage drawn over too much of the window in any of 2 tries" in run.path("report.md").read_text()
    with pytest.raises(RunError, match="2 overflow"):
        fs.export(run)
