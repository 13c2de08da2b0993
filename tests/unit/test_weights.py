"""nn/weights.py: what is saved comes back, whole and in its place, and everything else is a clear sentence."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from flawsmith.errors import RunError
from flawsmith.nn.weights import load_modules, load_tensors, read_settings, save_modules, save_tensors, tensor_hash


def net(seed: int = 0, wide: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, wide), nn.BatchNorm1d(wide), nn.Linear(wide, 2))


def test_tensors_and_notes_come_back(tmp_path: Path):
    tensors = {
        "a/b.c": torch.randn(2, 3),
        "half": torch.randn(4).half(),
        "brain": torch.randn(4).bfloat16(),
        "whole": torch.arange(5),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(1.5),
    }
    path = tmp_path / "deep" / "x.safetensors"
    save_tensors(path, tensors, {"done": "7", "who": "größe"})
    found, notes = load_tensors(path)
    assert notes == {"done": "7", "who": "größe"}
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_views_of_one_storage_and_strided_tensors_are_saved_as_values(tmp_path: Path):
    whole = torch.arange(24.0).view(2, 3, 4)
    last = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    save_tensors(tmp_path / "x", {"all": whole, "row": whole[0], "turned": whole.transpose(0, 2), "last": last})
    found, _ = load_tensors(tmp_path / "x")
    assert torch.equal(found["row"], whole[0]) and torch.equal(found["turned"], whole.transpose(0, 2))
    assert torch.equal(found["last"], last)


def test_parameters_are_saved_without_their_graph(tmp_path: Path):
    save_tensors(tmp_path / "x", {"p": nn.Parameter(torch.ones(2)) * 2})
    assert not load_tensors(tmp_path / "x")[0]["p"].requires_grad


def test_the_same_tensors_are_the_same_bytes(tmp_path: Path):
    for name in "ab":
        save_tensors(tmp_path / name, {"x": torch.ones(3), "y": torch.zeros(2)}, {"n": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(RunError, match=r"gone\.safetensors: no such weights file; train first"):
        load_tensors(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 40, -1])
def test_a_torn_file(tmp_path: Path, keep: int):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"x": torch.randn(50)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match="not a readable safetensors file .*delete it and train again") as told:
        load_tensors(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [b"\x80\x04pickle", b"\xff" * 64, b"{}" * 40])
def test_a_foreign_file(tmp_path: Path, content: bytes):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunError, match="not a readable safetensors file"):
        load_tensors(path)


def test_a_folder_in_its_place(tmp_path: Path):
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(RunError, match="x.safetensors"):
        load_tensors(tmp_path / "x.safetensors")


def test_modules_and_settings_come_back_with_their_buffers(tmp_path: Path):
    first, second = net(1), net(2)
    first(torch.randn(8, 3))  # moves the running statistics
    save_modules(tmp_path, {"a": first, "b": second}, {"prompt": "a {defect}", "n": 3})
    assert {p.name for p in tmp_path.iterdir()} == {"a.safetensors", "b.safetensors", "settings.json"}
    twin, other = net(5), net(6)
    load_modules(tmp_path, {"a": twin, "b": other})
    for made, kept in ((twin, first), (other, second)):
        assert all(torch.equal(made.state_dict()[k], v) for k, v in kept.state_dict().items())
    assert read_settings(tmp_path) == {"prompt": "a {defect}", "n": 3}


def test_nothing_to_train_saves_settings_alone(tmp_path: Path):
    save_modules(tmp_path / "new", {}, {"a": 1})
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["settings.json"]


def test_other_shapes_are_refused_and_nothing_is_loaded(tmp_path: Path):
    save_modules(tmp_path, {"a": net(wide=4)}, {})
    other = net(seed=3, wide=5)
    before = tensor_hash(other.state_dict())
    with pytest.raises(RunError, match=r"does not fit this network \(\d+ tensors differ, e\.g\. 0\.bias\)"):
        load_modules(tmp_path, {"a": other})
    assert tensor_hash(other.state_dict()) == before


def test_other_names_are_refused(tmp_path: Path):
    save_modules(tmp_path, {"a": nn.Linear(3, 2)}, {})
    with pytest.raises(RunError, match="another backbone or with other settings"):
        load_modules(tmp_path, {"a": nn.Linear(3, 2, bias=False)})
    with pytest.raises(RunError, match=r"b\.safetensors: no such weights file"):
        load_modules(tmp_path, {"b": nn.Linear(3, 2)})


def test_settings_that_are_missing_or_broken(tmp_path: Path):
    with pytest.raises(RunError, match="holds no trained generator"):
        read_settings(tmp_path)
    (tmp_path / "settings.json").write_text('{"a": 1')
    with pytest.raises(RunError, match="not valid JSON"):
        read_settings(tmp_path)


def test_the_hash_is_sha256_over_names_shapes_and_values():
    # Written out, so that it can never depend on the process or the machine.
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1.5, -2.0])}
    digest = hashlib.sha256()
    digest.update(b"a(2,)" + tensors["a"].numpy().astype("<f4").tobytes())
    digest.update(b"b(2, 3)" + tensors["b"].numpy().astype("<f4").tobytes())
    assert tensor_hash(tensors) == digest.hexdigest()[:16] == "6bd8d70d41773fa5"


def test_the_hash_names_values_not_storage():
    value = torch.randn(4, 3, 2, 2).half().float()
    wanted = tensor_hash({"x": value})
    assert tensor_hash({"x": value.half()}) == wanted
    assert tensor_hash({"x": value.double()}) == wanted
    assert tensor_hash({"x": value.contiguous(memory_format=torch.channels_last)}) == wanted
    assert tensor_hash({"x": nn.Parameter(value)}) == wanted
    assert tensor_hash({"y": value}) != wanted
    assert tensor_hash({"x": value.view(3, 4, 2, 2)}) != wanted
    changed = value.clone()
    changed.view(-1)[7] += 1e-3
    assert tensor_hash({"x": changed}) != wanted


def test_the_hash_does_not_depend_on_order():
    a, b = torch.randn(3), torch.randn(3)
    assert tensor_hash({"a": a, "b": b}) == tensor_hash({"b": b, "a": a})
