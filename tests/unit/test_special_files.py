"""Pipes, devices and files of the system in the place of any file: one sentence, at once; and names not in UTF-8."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.data.annotations import yolo
from flawsmith.data.annotations.lookout import is_manifest, lines_of
from flawsmith.data.annotations.marked import read_tree
from flawsmith.data.fingerprints import fingerprint
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.statistics import Outcome
from flawsmith.files import append_lines, file_digest, read_json, read_lines
from flawsmith.inspection.inspect import pictures_below
from flawsmith.nn.features import load_extractor
from flawsmith.nn.methods.csm import load_csm
from flawsmith.nn.networks.resnet import check_folder
from flawsmith.nn.weights import load_tensors, read_settings
from flawsmith.paths import NoFileError, open_file
from flawsmith.preflight.check import check
from flawsmith.run.folder import Run
from flawsmith.screening.gate import Gate
from flawsmith.synthesis.train import load_backbone

SPECIAL: dict[str, Callable[[Path], Any]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a file of the system": lambda path: path.symlink_to("/proc/self/maps"),
}


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Reading a pipe that nobody writes to would wait for ever."""

    def late(*_: Any) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


READERS: dict[str, Callable[[Path], Any]] = {
    "picture": images.read,
    "header": images.describe,
    "mask": lambda path: images.read_mask(path, (4, 4)),
    "configuration": load_config,
    "record": read_json,
    "lines": read_lines,
    "appended lines": lambda path: append_lines(path, [{}]),
    "weights": load_tensors,
    "annotations": read_tree,
    "polygons": yolo.read,
    "manifest": lambda path: [is_manifest(path)] and lines_of(path),
}


@pytest.mark.parametrize("what", SPECIAL)
@pytest.mark.parametrize("reader", READERS)
def test_it_is_refused_by_whatever_reads(reader: str, what: str, tmp_path: Path) -> None:
    SPECIAL[what](path := tmp_path / "x.png")
    with pytest.raises((FlawsmithError, NoFileError)) as error:
        READERS[reader](path)
    sentence = str(error.value)
    assert "x.png" in sentence and f"it is {what}, not a file with a content of its own" in sentence
    assert "\n" not in sentence
    with pytest.raises(NoFileError, match=what):
        open_file(path)
    assert file_digest(path) == "absent" or what == "a file of the system"
    assert f"it is {what}" in fingerprint(path).problem


def layout(name: str, root: Path, factory_root: Path) -> tuple[dict[str, Any], list[str]]:
    """Lay a set out as a layout has it; return its settings, and files to be replaced: photographs and a mask."""
    test, truth, good = (factory_root / "magnet" / part for part in ("test/crack", "ground_truth/crack", "train/good"))
    shots, normals = sorted(test.glob("*.png")), sorted(good.glob("*.png"))
    shapes: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
        "mvtec": ({}, ("m/test/crack/{}.png", "m/ground_truth/crack/{}_mask.png", "m/train/good/{}.png")),
        "visa": ({}, ("m/Data/Images/Anomaly/{}.png", "m/Data/Masks/Anomaly/{}.png", "m/Data/Images/Normal/{}.png")),
        "pairs": ({"data.normal": ["good"]}, ("crack/{}.png", "crack/{}_mask.png", "good/{}.png")),
        "pattern": (
            {
                "data.patterns": [{"image": "{defect}/{stem}.png", "mask": "m/{defect}/{stem}.png", "product": "m"}],
                "data.normal": ["good"],
            },
            ("crack/{}.png", "m/crack/{}.png", "good/{}.png"),
        ),
    }
    settings, (shot, mask, normal) = shapes[name]
    for number, (one, other) in enumerate(zip(shots, normals, strict=True)):
        for source, target in ((one, shot), (truth / f"{one.stem}_mask.png", mask), (other, normal)):
            (root / target.format(number)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, root / target.format(number))
    files = [pattern.format(0) for pattern in (shot, mask, normal)]
    return {"data.root": str(root), "data.layout": name, "prove.enabled": False, **settings}, files


@pytest.mark.parametrize("what", SPECIAL)
@pytest.mark.parametrize("name", ["mvtec", "visa", "pairs", "pattern"])  # all: tests/contract/test_every_layout.py
def test_check_says_it_in_every_layout(name: str, what: str, factory_root: Path, tmp_path: Path) -> None:
    settings, files = layout(name, tmp_path / "data", factory_root)
    settings |= {"screen.enabled": False, "generator.name": "crop_paste"}
    for file in files:
        path = tmp_path / "data" / file
        path.unlink()
        SPECIAL[what](path)
    SPECIAL[what](tmp_path / "data" / "notes")  # without a suffix: looked into, to tell a picture by its content
    found = check(load_config(None, settings))
    text = "\n".join(found.errors)
    shot, _, normal = files
    assert f"2 pictures cannot be used: it is {what}" in text and shot in text and normal in text
    assert f"{shot}: 1 mask cannot be used: it is {what}" in text


def backbone_of_a_run(folder: Path) -> Any:
    config = load_config(None, {"backbone.source": str(folder), "generator.name": "controlnet_inpaint"})
    return load_backbone(config)


WEIGHTS: dict[str, Callable[[Path], Any]] = {
    "backbone": backbone_of_a_run,
    "csm": lambda folder: load_csm(str(folder)),
    "dinov2": lambda folder: load_extractor("dinov2", folder),
    "lpips-vgg": lambda folder: load_extractor("lpips-vgg", folder),
    "efficientnet-lite0": lambda folder: load_extractor("efficientnet-lite0", folder / "x.pth"),
    "classifier": check_folder,
    "generator": read_settings,
    "proof": lambda folder: Outcome.load(folder / "a.npz"),
}


@pytest.mark.parametrize("what", SPECIAL)
@pytest.mark.parametrize("opened", WEIGHTS)
def test_folders_of_weights(opened: str, what: str, tmp_path: Path) -> None:
    names = ["config.json", "vae/config.json", "x.pth", "reader.json", "settings.json", "a.npz"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        SPECIAL[what](tmp_path / name)
    with pytest.raises(FlawsmithError) as error:
        WEIGHTS[opened](tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_check_says_it_of_a_backbone(factory_root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model_index.json")
    settings = {"data.root": str(factory_root), "backbone.source": str(tmp_path)}
    found = check(load_config(None, {**settings, "generator.name": "controlnet_inpaint"}))
    assert any("model_index.json: it is a pipe" in text for text in found.errors), found.errors


def test_other_doors(tmp_path: Path, factory_root: Path) -> None:
    SPECIAL["a pipe"](tmp_path / "x.png")
    SPECIAL["a pipe"](tmp_path / "config.json")
    SPECIAL["a device"](tmp_path / "gate.json")
    assert pictures_below(tmp_path / "x.png") == [tmp_path / "x.png"]  # and reading it gives its row "unreadable"
    assert tmp_path / "x.png" in pictures_below(tmp_path)
    with pytest.raises(FlawsmithError, match="it is a pipe"):
        Run.open(tmp_path)
    with pytest.raises(FlawsmithError, match="holds no gate"):
        Gate.load(tmp_path)
    shot = factory_root / "magnet" / "test" / "crack" / "000.png"
    mask = factory_root / "magnet" / "ground_truth" / "crack" / "000_mask.png"
    settings = {"data.products": ["magnet"]}
    brush = fs.Brush.open(factory_root, generator="crop_paste", settings=settings)
    for photograph, drawn in ((tmp_path / "x.png", mask), (shot, tmp_path / "x.png")):
        with pytest.raises(FlawsmithError, match=r"x\.png: it is a pipe"):
            brush.paint(photograph, drawn, "crack")


@pytest.mark.parametrize("folder", [False, True])
def test_names_that_are_not_utf8_are_said(folder: bool, factory_root: Path, tmp_path: Path) -> None:
    settings, files = layout("mvtec", tmp_path / "data", factory_root)
    path = os.fsencode(tmp_path / "data" / files[0])
    odd = os.path.dirname(path) + b"/kratz\xe4r" + (b"/0.png" if folder else b".png")
    os.makedirs(os.path.dirname(odd), exist_ok=True)
    shutil.copy(path, odd)
    found = check(load_config(None, settings))
    said = [error for error in found.errors if "UTF-8" in error]
    assert len(said) == 1 and "kratz\\xe4r" in said[0] and "1 name is not in UTF-8" in said[0]
    "\n".join(found.errors).encode("utf-8")  # it can be printed
