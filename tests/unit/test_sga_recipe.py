"""The recipe of the built-in adapter: stopped and gone on it is the same; it fills only what it was made for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from flawsmith.errors import ConfigError
from flawsmith.generators.cross_modal import CrossModal, CrossModalSettings
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.methods.csm import load_csm
from flawsmith.nn.methods.sga import fill_from_builtin
from flawsmith.nn.weights import load_tensors, save_tensors
from flawsmith.recipes import sga
from flawsmith.recipes.sga import Recipe, make_sga
from flawsmith.types import Encoded

RECIPE = Recipe(pictures=20, picture_size=64, views=1, portion=10, steps=2, batch=4, save_every=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("adapter")
    assert make_sga(folder / "whole", RECIPE) is not None
    return folder / "whole"


def test_stopped_and_gone_on_it_is_the_same(made: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    assert make_sga(tmp_path, RECIPE, seconds=0) is None, "it stops at the first chance"
    measured = make_sga(tmp_path, RECIPE)
    before = json.loads((made / "measured.json").read_text())
    assert measured is not None and measured.keys() == before.keys() and measured["windows"] == before["windows"]
    for said, losses in before["held_out_loss"].items():
        assert measured["held_out_loss"][said] == pytest.approx(losses, rel=0.01)
    # Not byte for byte: where an allocation lies decides how some processors' kernels round.
    again, wanted = (load_tensors(folder / "adapter.safetensors")[0] for folder in (tmp_path, made))
    assert again.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(again[name].float(), wanted[name].float(), rtol=0.02, atol=2e-3)
    assert measured["windows"] == {"trained": 18, "held_out": 2}
    rows = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]


def test_it_fills_what_it_was_made_for(made: Path) -> None:
    backbone = Backbone.load("builtin", device="cpu")
    generator = CrossModal(backbone, CrossModalSettings(ip_adapter=""))
    path, whose = made / "adapter.safetensors", (backbone.fingerprint, generator.csm.fingerprint)
    before = {name: value.clone() for name, value in generator.sga.named_parameters()}
    assert not fill_from_builtin(generator.sga, "another", whose[1], path)
    assert not fill_from_builtin(generator.sga, whose[0], "another", path)
    assert not fill_from_builtin(generator.sga, *whose, made / "none.safetensors")
    other = CrossModal(backbone, CrossModalSettings(ip_adapter="", tokens=2))
    assert not fill_from_builtin(other.sga, *whose, path)
    assert all(torch.equal(value, before[name]) for name, value in generator.sga.named_parameters())
    assert fill_from_builtin(generator.sga, *whose, path)
    for name, value in load_tensors(path)[0].items():
        assert torch.equal(generator.sga.get_parameter(name), value.float())
    assert any(not torch.equal(value, before[name]) for name, value in generator.sga.named_parameters())


def test_it_goes_on_from_an_adapter_of_another_backbone(made: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    start = made / "adapter.safetensors"
    recipe = RECIPE.model_copy(update={"start": str(start), "learning_rate": 1e-6, "steps": 1})
    assert make_sga(tmp_path, recipe) is not None
    before, after = (load_tensors(folder / "adapter.safetensors")[0] for folder in (made, tmp_path))
    for name in before:
        # A rate of 1e-6 moves nothing that float16 keeps; the words' own keys and values would be elsewhere.
        torch.testing.assert_close(after[name].float(), before[name].float(), rtol=2e-3, atol=1e-5)
    with pytest.raises(ConfigError, match="nowhere.safetensors is not there"):
        make_sga(tmp_path / "b", RECIPE.model_copy(update={"start": str(tmp_path / "nowhere.safetensors")}))


def test_another_file_to_start_from_is_another_training(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is another CSM: a checkpoint of the first must not pass for the second's."""
    identities: list[str] = []

    class Stopped(Exception):
        pass

    def trainer(*_: Any, identity: str, **__: Any) -> Any:
        identities.append(identity)
        raise Stopped

    monkeypatch.setattr(sga, "Trainer", trainer)
    shutil.copytree(made / "state", tmp_path / "state")  # its windows are encoded
    start = tmp_path / "start.safetensors"
    recipe = RECIPE.model_copy(update={"start": str(start)})
    tensors = load_tensors(made / "adapter.safetensors")[0]
    for scale in (1.0, 0.5, 1.0):
        save_tensors(start, {name: scale * value for name, value in tensors.items()})
        with pytest.raises(Stopped):
            sga.make_sga(tmp_path, recipe)
    assert identities[0] == identities[2] != identities[1]
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(load_csm("builtin", offline=True, device="cpu"), "fingerprint", "another")
        patched.setattr(sga, "_portion", lambda *given: first)
        first = Encoded(load_tensors(next(iter(sorted((made / "state").glob("seen-*")))))[0])
        sga.make_sga(tmp_path, recipe)
    assert len(set(identities)) == 3
