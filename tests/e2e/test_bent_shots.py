"""generate.bend in a run: part of the plan, alike for every generator; samples stay exact, whoever makes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawsmith.config import Config, load_config
from flawsmith.data import images
from flawsmith.run.dataset import load_split, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.records import read_records
from flawsmith.synthesis.generate import Shard, generate
from flawsmith.synthesis.plan import make_plan
from flawsmith.synthesis.train import train


def configured(root: Path, **changes: Any) -> Config:
    overrides: dict[str, Any] = {
        "data.root": str(root),
        "data.shots": 2,
        "generator.name": "crop_paste",
        "generate.count": 3,
        "generate.batch": 2,
        "generate.bend": 1.0,
        "prove.enabled": False,
    }
    return load_config(None, {**overrides, **changes})


@pytest.fixture(scope="module")
def bent(tmp_path_factory: pytest.TempPathFactory, factory_root: Path) -> Run:
    run = Run.create(tmp_path_factory.mktemp("bent") / "r", configured(factory_root))
    train(run)
    generate(run)
    return run


def test_the_plan_says_how_each_shot_is_bent(bent: Run, factory_root: Path) -> None:
    """The same plan as without bending, but for the bends; and the same for another generator."""
    data, lines = open_dataset(bent), bent.plan()
    straight = make_plan(configured(factory_root, **{"generate.bend": 0.0}), data)
    assert [replace(one, pose=replace(one.pose, bend=None)) for one in lines] == straight  # type: ignore[type-var]
    assert not any("bend" in line.to_json()["pose"] for line in straight)
    bends = [line.pose.bend for line in lines if line.pose is not None and line.pose.bend is not None]
    assert len(bends) > len(lines) / 2 and len({bend.seed for bend in bends}) == len(bends)
    rival = make_plan(bent.config, data)
    assert [line.pose for line in rival] == [line.pose for line in lines]


def test_bent_samples_differ_in_their_masks_and_keep_the_background(bent: Run) -> None:
    normals = {example.id: example for example in load_split(bent).normals}
    rows = [row for row in bent.samples() if row.made]
    assert len(rows) == 9
    for row in rows:
        made, mask = images.read(bent.path(row.image)), images.read_mask(bent.path(row.mask), (128, 128))
        untouched = images.read(normals[row.normal].image)
        assert (made[~mask] == untouched[~mask]).all() and (made[mask] != untouched[mask]).any()


def test_shards_in_any_order_make_the_same_bytes(bent: Run, tmp_path: Path) -> None:
    again = Run.create(tmp_path / "r", bent.config)
    train(again)
    for number in (2, 0, 1):
        generate(again, Shard(number, 3))
    assert read_records(again.path("plan.jsonl"), type(bent.plan()[0])) == bent.plan()
    for row in bent.samples():
        for name in (row.image, row.mask):
            np.testing.assert_array_equal(images.read(again.path(name)), images.read(bent.path(name)))
            assert again.path(name).read_bytes() == bent.path(name).read_bytes()
