"""The recipe of the built-in reader: stopped and gone on it is the same; captions are true of what they describe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flawsmith.nn.methods.csm import BuiltinCSM
from flawsmith.recipes.csm import Caption, Recipe, _numbers, _true, make_csm

RECIPE = Recipe(pictures=10, picture_size=64, views=1, portion=5, steps=3, batch=6, cells=32, save_every=1)


def test_stopped_and_gone_on_it_is_the_same(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    measured = make_csm(whole, RECIPE)
    assert measured is not None
    assert make_csm(halved, RECIPE, seconds=0) is None, "it stops at the first chance"
    assert make_csm(halved, RECIPE) == measured
    assert BuiltinCSM.load(whole).fingerprint == BuiltinCSM.load(halved).fingerprint
    assert measured["held_out"]["windows"] == 1
    assert json.loads((whole / "measured.json").read_text()) == measured
    rows = [json.loads(line) for line in (whole / "training.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]


def test_a_text_is_true_of_all_that_it_describes() -> None:
    """A short phrase is true of every picture of its defect type; a whole caption of those that it describes."""
    shown = [
        Caption("crack", "steel", "a small crack on steel"),
        Caption("crack", "wood", "a large crack on wood"),
        Caption("hole", "wood", "a hole in wood"),
    ]
    facts = _numbers(shown)
    expected = {0: [[1, 1, 0], [1, 1, 0], [0, 0, 1]], 1: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}
    for level, rows in expected.items():
        assert _true(facts, facts, torch.full((3,), level)).int().tolist() == rows
    mixed = _true(facts, facts, torch.tensor([0, 1, 2]))
    assert mixed.int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("defect", ["", "crack"])
def test_what_is_said_of_a_window(defect: str) -> None:
    texts = Caption(defect, "steel", "the whole").texts()
    assert texts[2] == "the whole" and "steel" in texts[1] and ("crack" if defect else "sound") in texts[0]
