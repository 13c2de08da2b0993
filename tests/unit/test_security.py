"""SECURITY.md, promise by promise: each test here carries the heading of the promise that it holds."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.errors import FlawsmithError
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.features import load_extractor
from flawsmith.nn.methods.csm import load_csm
from flawsmith.nn.methods.sga import _ip_adapter
from flawsmith.nn.weights import load_tensors
from flawsmith.pipeline import run_all
from flawsmith.run.folder import Run
from flawsmith.screening.gate import Gate

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "data.products": ["magnet"], "data.shots": 2, "generate.count": 1, "generator.name": "crop_paste",
    "prove.enabled": False, "measure.enabled": False, "screen.enabled": True, "screen.filters": ["visible"],
    "screen.thresholds": {"visible": "off"},
}  # fmt: skip
TAG = "<script>alert(1)<script>"
"""A defect type that would be a script in a page."""
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "shutil.rmtree")


@dataclass(frozen=True)
class Watched:
    """A run without measure and proof, and what it did outside of Python."""

    run: Run
    written: list[str]
    """Every path that was written, renamed or removed."""
    asked: list[Any]
    """Every connection, and every question for an address."""


def refuse_connections(patch: pytest.MonkeyPatch) -> list[Any]:
    """Refuse every connection and every question for an address; return what is asked."""
    asked: list[Any] = []

    def refuse(*words: Any, **_: Any) -> Any:
        asked.append(words)
        raise OSError("the network was asked")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        patch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        patch.setattr(socket, name, refuse)
    patch.setattr("time.sleep", lambda _: None)  # before a library tries again
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        patch.delenv(name, raising=False)
    return asked


@pytest.fixture(scope="module")
def watched(factory_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    here = tmp_path_factory.mktemp("watched")
    shutil.copytree(factory_root / "magnet", here / "parts" / "magnet")
    for folder in ("test", "ground_truth"):
        (here / "parts" / "magnet" / folder / "chip").rename(here / "parts" / "magnet" / folder / TAG)
    written: list[str] = []
    watching = True

    def watch(event: str, words: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event in WRITES:
            written.extend(os.fsdecode(word) for word in words[:2] if isinstance(word, (str, bytes, os.PathLike)))
        elif event == "open" and isinstance(words[0], (str, bytes)) and words[2] & (os.O_WRONLY | os.O_RDWR):
            written.append(os.fsdecode(words[0]))

    config = load_config(None, {"data.root": str(here / "parts"), **SETTINGS})
    with pytest.MonkeyPatch.context() as patch:
        asked = refuse_connections(patch)
        sys.addaudithook(watch)  # nobody can take it away again, so it is told to be quiet
        run = Run.create(here / "run", config)
        run_all(run)
        watching = False
    return Watched(run, written, asked)


class Evil:
    """What makes a folder when a pickle of it is loaded without care."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


def plain_pickle(path: Path, victim: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Evil(victim)}))


def torch_pickle(path: Path, victim: Path) -> None:
    torch.save({"weight": Evil(victim)}, path)


LOADERS: dict[str, Callable[[Path, Path, Any, Path], Any]] = {
    "a generator's weights": lambda file, *_: load_tensors(file.rename(file.with_suffix(".safetensors"))),
    "weights of efficientnet": lambda file, *_: load_extractor("efficientnet-lite0", file),
    "weights of inception": lambda file, *_: load_extractor("inception", file),
    "weights of lpips-vgg": lambda file, *_: load_extractor("lpips-vgg", file.parent),
    "an IP-Adapter": lambda file, *_: _ip_adapter(file),
    "a gate": lambda file, *_: _gate(file),
    "a backbone's network": lambda file, backbone, write, victim: _backbone(file, backbone, write, victim, "unet"),
    "a backbone in one file": lambda file, *_: Backbone.load(file.rename(file.with_suffix(".ckpt"))),
    "its text encoder": lambda file, backbone, write, victim: _backbone(file, backbone, write, victim, "text_encoder"),
    "a transformers folder": lambda file, backbone, write, victim: _dino(file, write, victim),
}


def _gate(file: Path) -> Gate:
    own = {"defects": ["chip"], "file": "000.safetensors", "filters": {}, "limits": {}, "notes": [], "left_out": {}}
    tree = {"version": 2, "extractor": {"name": "x", "fingerprint": "y"}, "visible": 0.1, "settings": {}}
    (file.parent / "gate.json").write_text(json.dumps({**tree, "products": {"magnet": own}}))
    file.rename(file.parent / "000.safetensors")
    return Gate.load(file.parent)


def _backbone(file: Path, backbone: Path, write: Any, victim: Path, part: str) -> Backbone:
    folder = file.parent / "backbone"
    shutil.copytree(backbone, folder)
    (weights,) = (folder / part).glob("*.safetensors")
    write(weights.with_name("diffusion_pytorch_model.bin" if part == "unet" else "pytorch_model.bin"), victim)
    weights.unlink()
    return Backbone.load(folder)


def _dino(file: Path, write: Any, victim: Path) -> Any:
    from transformers import Dinov2Config

    folder = file.parent / "dino"
    Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(folder)
    write(folder / "pytorch_model.bin", victim)
    return load_extractor("dinov2", folder)


@pytest.mark.parametrize("write", [plain_pickle, torch_pickle])
@pytest.mark.parametrize("what", LOADERS)
def test_no_pickle_is_run(what: str, write: Any, backbone_folder: Path, tmp_path: Path) -> None:
    """A file that would make a folder when it is unpickled is refused, and the folder is not there."""
    victim = tmp_path / "victim"
    with pytest.raises(OSError):  # the file is really dangerous: the folder above this one is missing
        pickle.loads(pickle.dumps(Evil(victim / "too" / "deep")))
    write(tmp_path / "evil.pt", victim)
    with pytest.raises(FlawsmithError) as error:
        LOADERS[what](tmp_path / "evil.pt", backbone_folder, write, victim)
    assert not victim.exists()
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_nothing_is_written_as_a_pickle(watched: Watched) -> None:
    heads = {path.name: path.read_bytes()[:2] for path in watched.run.folder.rglob("*") if path.is_file()}
    assert len(heads) > 10
    assert [name for name, head in heads.items() if head[:1] == b"\x80"] == []
    zipped = [path for path in watched.run.folder.rglob("*") if path.is_file() and path.read_bytes()[:2] == b"PK"]
    for path in zipped:
        with np.load(path, allow_pickle=False) as arrays:  # raises where one holds objects
            assert all(arrays[name].dtype.kind == "f" for name in arrays.files)
    assert [name for name in heads if Path(name).suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt")] == []


def test_no_code_comes_with_weights(backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose configuration names Python beside it: nobody is asked whether it may run, and it does not."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    victim = tmp_path / "victim"
    code = f"import os\nos.mkdir({str(victim)!r})\nclass Evil: pass\n"
    own = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}
    own["auto_map"]["AutoTokenizer"] = ["evil.Evil", None]  # type: ignore[index]
    folder = tmp_path / "dino"
    folder.mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps(own))
    (folder / "evil.py").write_text(code)
    for extractor in ("dinov2", "dinov3"):
        with pytest.raises(FlawsmithError):
            load_extractor(extractor, folder)
    with pytest.raises(FlawsmithError):
        load_csm(str(folder))
    assert not victim.exists()
    shutil.copytree(backbone_folder, tmp_path / "backbone")
    for part in ("unet", "vae", "text_encoder", "scheduler"):
        path = next((tmp_path / "backbone" / part).glob("*config.json"))
        path.write_text(json.dumps({**json.loads(path.read_text()), **own, "model_type": "clip_text_model"}))
        (path.parent / "evil.py").write_text(code)
    Backbone.load(tmp_path / "backbone")
    assert not victim.exists()


def test_the_network_is_asked_only_when_it_was_wanted(
    watched: Watched, backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watched.asked == []
    asked = refuse_connections(monkeypatch)
    Backbone.load(backbone_folder)
    shutil.copytree(backbone_folder, tmp_path / "half", ignore=shutil.ignore_patterns("*.safetensors"))
    for refused in (
        lambda: Backbone.load("some/hub-id"),
        lambda: Backbone.load(tmp_path / "half"),
        lambda: load_extractor("dinov2", "some/hub-id"),
        lambda: load_csm("some/hub-id"),
    ):
        with pytest.raises(FlawsmithError):
            refused()
    assert asked == []
    with pytest.raises(FlawsmithError):
        Backbone.load("some/hub-id", offline=False)
    assert asked, "the test sees a connection where one is wanted"


def test_only_the_run_folder_is_written(watched: Watched) -> None:
    inside = (str(watched.run.folder), "/dev/")
    # Libraries keep caches of their own where they may.
    outside = [path for path in watched.written if not path.startswith(inside) and "cache" not in path]
    assert len(watched.written) > 20 and outside == []


def test_records_reach_nothing_outside_the_run(watched: Watched, tmp_path: Path) -> None:
    """More ways: tests/unit/test_confined.py."""
    shutil.copytree(watched.run.folder, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    (tmp_path / "victim.txt").write_text("alive")
    rows = run.path("samples.jsonl").read_text().splitlines()
    last = json.loads(rows[-1]) | {"image": "../victim.txt", "index": 7}
    run.path("samples.jsonl").write_text("\n".join([*rows[:-1], json.dumps(last)]) + "\n")
    for stage in (fs.generate, fs.export, fs.report):
        with pytest.raises(FlawsmithError, match="samples.jsonl"):
            stage(run)
    assert (tmp_path / "victim.txt").read_text() == "alive"


def test_the_report_loads_nothing_and_runs_nothing(watched: Watched) -> None:
    html = watched.run.path("report.html").read_text()
    assert "alert(1)" in html and TAG not in html and TAG not in watched.run.path("report.md").read_text()
    assert not re.search(r"<(script|iframe|object|embed|link|base|form)\b", html)
    assert not re.search(r"""\bon\w+\s*=\s*["']""", html)
    assert not re.search(r"""(src|href)\s*=\s*(?!["']?(data:|#))""", html)


def test_every_promise_has_a_test() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promised = set(re.findall(r"`(test_[a-z_]+)`", text))
    here = {name for name in globals() if name.startswith("test_")} - {"test_every_promise_has_a_test"}
    assert promised == here
