"""Bad inputs, each through the real command line: one clear sentence, an exit code, and nothing half-written."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawsmith import files
from flawsmith.data import images

CONFIG = """seed = 0
[data]
root = {root}
products = ["magnet"]
shots = 2
[generator]
name = "controlnet_inpaint"
[backbone]
source = {backbone}
dtype = "float32"
[train]
steps = 2
views = 1
batch = 2
save_every = 1
[generate]
count = 1
steps = 1
batch = 1
attempts = 1
[measure]
enabled = false
[prove]
enabled = false
"""
RUN = ["run", "good.toml", "--out", "out"]


@dataclass
class Place:
    """Where a bad input is laid out: the working directory, with a good configuration and its own copy of the data."""

    here: Path
    backbone: Path
    finished: Path
    factory: Path

    @property
    def root(self) -> Path:
        """Its own copy of the photographs, to be broken; the configuration then names it."""
        root = self.here / "data"
        if not root.exists():
            shutil.copytree(self.factory / "magnet", root / "magnet")
            text = (self.here / "good.toml").read_text().replace(self.factory.as_posix(), root.as_posix())
            (self.here / "good.toml").write_text(text)
        return root

    @property
    def model(self) -> Path:
        """Its own copy of the backbone, to be broken."""
        folder = self.here / "backbone"
        if not folder.exists():
            shutil.copytree(self.backbone, folder)
        return folder

    @property
    def run(self) -> Path:
        """Its own copy of a finished run of the good configuration."""
        folder = self.here / "out"
        if not folder.exists():
            shutil.copytree(self.finished, folder)
        return folder

    def shot(self, number: int = 0) -> Path:
        return self.root / f"magnet/test/crack/{number:03d}.png"

    def mask(self, number: int = 0) -> Path:
        return self.root / f"magnet/ground_truth/crack/{number:03d}_mask.png"

    def normal(self, number: int = 0) -> Path:
        return self.root / f"magnet/train/good/{number:03d}.png"

    def config(self, text: str | bytes) -> None:
        (self.here / "good.toml").write_bytes(text if isinstance(text, bytes) else text.encode())


@dataclass(frozen=True)
class Bad:
    name: str
    words: tuple[str, ...]
    """What the sentence must say: what, where, and what would be right."""
    damage: Callable[[Place], Any] = lambda place: None
    command: list[str] = field(default_factory=lambda: RUN)


def sets(*pairs: str, command: list[str] | None = None) -> list[str]:
    return [*(command or RUN), *(word for pair in pairs for word in ("--set", pair))]


def one_shot(place: Place) -> None:
    """Leave one damaged picture, which is learned from."""
    for folder in ("test", "ground_truth"):
        shutil.rmtree(place.root / "magnet" / folder / "chip")
    for number in (1, 2, 3):
        place.shot(number).unlink()
        place.mask(number).unlink()


def flip(path: Path, place: float = 0.5) -> None:
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * place)] ^= 0xFF
    path.write_bytes(raw)


def cut_short(path: Path, share: float = 0.5) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


def torn_checkpoint(state: Path) -> None:
    """Leave what a kill in training leaves: no word that the model is learned, and a checkpoint; its disk failed."""
    (state / "learned.json").unlink()
    (state / "checkpoint.safetensors").write_bytes(b"\x60\x02\x00\x00\x00\x00\x00\x00{")


def jpeg(path: Path, mode: str = "RGB") -> Path:
    from PIL import Image

    target = path.with_suffix(".jpg")
    with Image.open(path) as picture:
        picture.convert(mode).save(target, quality=95)
    path.unlink()
    return target


def bomb(path: Path) -> None:
    """A PNG of a hundred bytes that claims 100000 x 100000 pixels."""
    body = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", body), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    )


def empty_masks(place: Place) -> None:
    for path in (place.root / "magnet/ground_truth").rglob("*.png"):
        images.write_mask(path, np.zeros((128, 128), bool))


def no_number(place: Place) -> None:
    pixels = np.full((128, 128), np.nan, np.float32)
    images.write(place.normal().with_suffix(".tif"), pixels)
    place.normal().unlink()


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def other_weights(place: Place) -> None:
    import torch

    from flawsmith.nn.weights import save_tensors

    save_tensors(place.run / "weights/magnet/control.safetensors", {"conv_in.weight": torch.zeros(4, 4)})


def forget(place: Place, *stages: str) -> None:
    """Make a finished run believe that it has still to do these stages."""
    manifest = json.loads((place.run / "manifest.json").read_text())
    for stage in stages:
        manifest["stages"].pop(stage, None)
    (place.run / "manifest.json").write_text(json.dumps(manifest))


def spoil_line(path: Path, number: int = 2) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = lines[number - 1][:-5]
    path.write_text("\n".join(lines) + "\n")


def unmade(place: Place) -> None:
    forget(place, "generate")
    shutil.rmtree(place.run / "samples")
    (place.run / "samples.jsonl").unlink()


def tampered(place: Place) -> None:
    path = place.run / "samples/000000.png"
    pixels = images.read(path)
    mask = images.read_mask(path.with_suffix(".mask.png"), pixels.shape)
    row, column = np.argwhere(~mask)[0]
    pixels[row, column] ^= 1
    images.write(path, pixels)


CONFIGS = [
    Bad(
        "config-missing",
        ("nowhere.toml", "no such configuration file", "flawsmith new"),
        command=["run", "nowhere.toml", "--out", "out"],
    ),
    Bad(
        "config-is-folder",
        ("folder", "text file"),
        lambda p: (p.here / "folder").mkdir(),
        ["run", "folder", "--out", "out"],
    ),
    Bad("config-below-a-file", ("good.toml/x.toml",), command=["check", "good.toml/x.toml"]),
    Bad("config-not-toml", ("good.toml", "not valid TOML", "line 2"), lambda p: p.config("seed = 1\nshots = = 3")),
    Bad("config-not-utf8", ("good.toml", "UTF-8"), lambda p: p.config(b'[data]\nroot = "\xff\xfe"')),
    Bad("unknown-key", ("good.toml: sed:", "unknown key", "'seed'"), lambda p: p.config("sed = 1")),
    Bad("unknown-key-2", ("train.step:", "unknown key", "'steps'"), command=sets("train.step=5")),
    Bad("unknown-key-3", ("data.patterns.0.imag:", "'image'"), command=sets('data.patterns=[{image="x", imag="y"}]')),
    Bad("unknown-section", ("trian:", "unknown key", "'train'"), command=sets("trian.steps=5")),
    Bad("wrong-type", ("train.steps:", "integer", "'many'"), command=sets("train.steps=many")),
    Bad("value-for-section", ("train:", "5"), command=sets("train=5")),
    Bad("section-for-value", ("train.steps.x", "steps is a value"), command=sets("train.steps=3", "train.steps.x=5")),
    Bad("seed-negative", ("seed:", "from 0 to 2147483647", "-1"), command=sets("seed=-1")),
    Bad("out-of-range", ("windows.max_zoom:", "16", "99"), command=sets("windows.max_zoom=99")),
    Bad("count-zero", ("generate.count:", "Samples per defect type"), command=sets("generate.count=0")),
    Bad("count-nothing", ("generate.count:", "asks for no sample"), command=sets("generate.count={crack=0}")),
    Bad("shots-negative", ("data.shots:", "Real pictures per defect type"), command=sets("data.shots=-1")),
    Bad("shots-zero", ("generator.name:", "learns damage from shots", "rendered"), command=sets("data.shots=0")),
    Bad("not-a-number", ("train.learning_rate:", "finite", "nan"), command=sets("train.learning_rate=nan")),
    Bad("infinite", ("generate.guidance:", "finite", "inf"), command=sets("generate.guidance=inf")),
    Bad("dtype", ("backbone.dtype:", "'float32'", "float8"), command=sets("backbone.dtype=float8")),
    Bad("set-without-value", ("--set train.steps", "key=value"), command=sets("train.steps")),
    Bad("set-without-key", ("--set =5", "key=value"), command=sets("=5")),
    Bad("two-at-once", ("train.batch:", "windows.size:"), command=sets("train.batch=0", "windows.size=-1")),
    Bad(
        "generator-unknown", ("generator.name", "'crop_past'", "'crop_paste'"), command=sets("generator.name=crop_past")
    ),
    Bad("exporter-unknown", ("export.formats", "'mvtek'", "'mvtec'"), command=sets("export.formats=['mvtek']")),
    Bad(
        "detector-setting-unknown",
        ("prove.settings.probe", "stepz", "'steps'"),
        command=sets("prove.enabled=true", "prove.settings.probe.stepz=3"),
    ),
    Bad("nothing-to-prove", ("prove.enabled", "data.shots", "0 damaged"), one_shot, sets("prove.enabled=true")),
    Bad(
        "extractor-missing",
        ("features.source", "dinov2", "folder"),
        command=sets("measure.enabled=true", "features.extractor=dinov2"),
    ),
    Bad("layout-unknown", ("data.layout", "'pears'", "'pairs'"), command=sets("data.layout=pears")),
    Bad("setting-unknown", ("generator.settings", "promt", "'prompt'"), command=sets("generator.settings.promt=x")),
    Bad(
        "setting-range",
        ("generator.settings", "strength", " 1, not 2"),
        command=sets("generator.settings.strength=2"),
    ),
    Bad(
        "prompt-field",
        ("generator.settings", "prompt", "{defect}", "colour"),
        command=sets("generator.settings.prompt=a {colour} {defect}"),
    ),
    Bad("new-generator-unknown", ("'crop_past'", "'crop_paste'"), command=["new", "--generator", "crop_past"]),
    Bad(
        "textures-missing",
        ("nowhere", "textures"),
        command=sets("generator.name=perlin", "generator.settings.textures=nowhere"),
    ),
    Bad(
        "diverged",
        ("diverged at step", "train.learning_rate"),
        command=sets("train.learning_rate=1e30", "train.steps=6"),
    ),
    Bad(
        "nothing-visible",
        ("no sample stands", "2 invisible", "generate.min_painted"),
        command=sets("generate.min_painted=1", "generate.visible=1"),
    ),
    Bad(
        "recipe-config-missing",
        ("nowhere.toml", "no such configuration file"),
        command=["backbone", "model", "--from", "nowhere.toml"],
    ),
    Bad(
        "backbone-out-is-file",
        ("good.toml", "name another folder"),
        command=["backbone", "good.toml", "--set", "pictures=4"],
    ),
    Bad("demo-out-is-file", ("good.toml", "file"), command=["demo", "--out", "good.toml"]),
    Bad("recipe-unknown", ("--set", "stepz"), command=["backbone", "model", "--set", "stepz=4"]),
]

DATA = [
    Bad("root-missing", ("nowhere", "no such folder", "data.root"), command=sets("data.root=nowhere")),
    Bad("root-is-file", ("good.toml", "is a file"), command=sets("data.root=good.toml")),
    Bad(
        "root-empty",
        ("empty", "no product folder", "mvtec expects"),
        lambda p: (p.here / "empty").mkdir(),
        sets("data.root=empty"),
    ),
    Bad(
        "no-normals",
        ("no normal parts", "train/good"),
        lambda p: [shutil.rmtree(p.root / f"magnet/{s}/good") for s in ("train", "test")],
    ),
    Bad(
        "no-defects",
        ("no defects", "test/<defect type>"),
        lambda p: [shutil.rmtree(p.root / f"magnet/test/{k}") for k in ("crack", "chip")],
    ),
    Bad("normal-unknown", ("data.normal", "'god'", "'good'"), command=sets("data.normal=god")),
    Bad("defect-unknown", ("data.defects", "'crak'", "'crack'"), command=sets("data.defects=['crak']")),
    Bad("product-unknown", ("data.products", "'magnets'", "'magnet'"), command=sets("data.products=['magnets']")),
    Bad(
        "product-climbs",
        ("data.product", "../../x"),
        lambda p: p.root,
        [
            "run",
            "good.toml",
            "--out",
            "out",
            "--set",
            "data.product=../../x",
            "--set",
            "data.products=[]",
            "--set",
            "data.root=data/magnet",
        ],
    ),
    Bad("count-defect-unknown", ("generate.count", "'crak'", "'crack'"), command=sets("generate.count={crak=2}")),
    Bad(
        "paint-defect-unknown",
        ("generate.paint", "'crak'", "'crack'"),
        command=sets("generate.paint={crak='replace'}"),
    ),
    Bad("pairs-no-normal", ("data.normal", "magnet"), command=sets("data.layout=pairs")),
    Bad(
        "pairs-normal-unknown",
        ("data.normal", "'magnets'", "'magnet'"),
        command=sets("data.layout=pairs", "data.normal=magnets"),
    ),
    Bad("visa-without-data", ("Data/Images", "visa expects"), command=sets("data.layout=visa")),
    Bad("pattern-none", ("data.patterns", "needs at least one"), command=sets("data.layout=pattern")),
    Bad(
        "pattern-no-fit",
        ("data.patterns[0].image", "fits none", "e.g."),
        command=sets("data.layout=pattern", 'data.patterns=[{image="{defect}/{stem}.gif"}]'),
    ),
    Bad("mask-missing", ("1 defect has no mask", "crack/000.png", "_mask.png"), lambda p: p.mask().unlink()),
    Bad(
        "mask-size",
        ("crack/000_mask.png", "64 x 64", "128 x 128"),
        lambda p: images.write_mask(p.mask(), np.ones((64, 64), bool)),
    ),
    Bad("masks-empty", ("empty", "mask"), empty_masks),
    Bad("png-broken", ("crack/000.png", "damaged", "copy it again"), lambda p: flip(p.shot())),
    Bad("png-cut", ("crack/003.png", "ends too early"), lambda p: cut_short(p.shot(3))),
    Bad("jpeg-cut", ("good/001.jpg", "copy it again"), lambda p: cut_short(jpeg(p.normal(1)))),
    Bad("jpeg-cmyk", ("good/001.jpg", "CMYK", "save it as RGB"), lambda p: jpeg(p.normal(1), "CMYK")),
    Bad("zero-bytes", ("good/002.png", "empty (0 bytes)"), lambda p: p.normal(2).write_bytes(b"")),
    Bad("text-as-png", ("good/000.png", "does not begin like"), lambda p: p.normal().write_text("hello")),
    Bad(
        "lfs-pointer",
        ("good/000.png", "git lfs pull"),
        lambda p: p.normal().write_text("version https://git-lfs.github.com/spec/v1\n"),
    ),
    Bad(
        "one-pixel",
        ("good/000.png", "1 x 1", "at least"),
        lambda p: images.write(p.normal(), np.zeros((1, 1, 3), np.uint8)),
    ),
    Bad("bomb", ("good/000.png", "100000 x 100000", "tiles"), lambda p: bomb(p.normal())),
    Bad("tiff-nan", ("good/000.tif", "not one of its pixels", "finite"), no_number),
    Bad(
        "leak",
        ("test picture", "crack/003.png", "is the same as the shot", "crack/000.png", "remove one"),
        lambda p: shutil.copy(p.shot(), p.shot(3)),
    ),
    Bad(
        "normal-is-shot",
        ("the shot", "crack/000.png", "good/001.png", "remove one"),
        lambda p: shutil.copy(p.shot(), p.normal(1)),
    ),
]

BACKBONES = [
    Bad(
        "hub-offline",
        ("runwayml/stable-diffusion-inpainting", "offline = false"),
        command=sets("backbone.source=runwayml/stable-diffusion-inpainting"),
    ),
    Bad("backbone-missing", ("nowhere", "no such folder", "builtin"), command=sets("backbone.source=nowhere")),
    Bad(
        "backbone-incomplete",
        ("backbone", "unet", "is missing"),
        lambda p: shutil.rmtree(p.model / "unet"),
        sets("backbone.source=backbone"),
    ),
    Bad(
        "unet-channels",
        ("UNet takes 12 channels", "16 (plain) or 33 (inpainting)"),
        lambda p: odd_unet(p),
        sets("backbone.source=backbone"),
    ),
    Bad(
        "vae-class",
        ("vae", "VQModel is not supported", "AutoencoderKL"),
        lambda p: edit_json(p.model / "vae/config.json", _class_name="VQModel"),
        sets("backbone.source=backbone"),
    ),
    Bad(
        "safetensors-corrupt",
        ("backbone", "not a readable safetensors file", "fetch it again"),
        lambda p: [x.write_bytes(b"\xff" * 100) for x in (p.model / "unet").glob("*.safetensors")],
        sets("backbone.source=backbone"),
    ),
    Bad(
        "safetensors-cut",
        ("backbone", "not a readable safetensors file", "fetch it again"),
        lambda p: [cut_short(x) for x in (p.model / "vae").glob("*.safetensors")],
        sets("backbone.source=backbone"),
    ),
    Bad(
        "tokenizer-corrupt",
        ("backbone", "cannot be loaded"),
        lambda p: [x.write_text("{") for x in (p.model / "tokenizer").glob("*.json")],
        sets("backbone.source=backbone"),
    ),
    Bad("device-unknown", ("backbone.device", "'gpu'", "auto, cpu, cuda"), command=sets("backbone.device=gpu")),
    Bad("device-meta", ("backbone.device", "'meta'", "auto, cpu, cuda"), command=sets("backbone.device=meta")),
    Bad("device-99", ("backbone.device", "'cuda:99'", "auto or cpu"), command=sets("backbone.device=cuda:99")),
    Bad("window-size", ("windows.size", "72", "multiple of 32"), command=sets("windows.size=72")),
]

RUNS = [
    *(
        Bad(
            f"{verb}-no-run",
            ("nothing", "not a flawsmith run", "flawsmith run CONFIG"),
            lambda p: (p.here / "nothing").mkdir(),
            [verb, "nothing"],
        )
        for verb in ("train", "generate", "export", "report")
    ),
    Bad("out-is-file", ("a file stands there", "--out"), lambda p: (p.here / "out").write_text("mine")),
    Bad("out-below-file", ("a file stands", "--out"), command=["run", "good.toml", "--out", "good.toml/out"]),
    Bad(
        "out-foreign",
        ("out", "not empty and not a flawsmith run", "--out"),
        lambda p: [(p.here / "out").mkdir(), (p.here / "out/thesis.txt").write_text("mine")],
    ),
    Bad(
        "config-json-cut",
        ("out/config.json", "not valid JSON", "flawsmith run"),
        lambda p: cut_short(p.run / "config.json"),
        ["report", "out"],
    ),
    Bad(
        "config-json-list",
        ("out/config.json", "flawsmith run"),
        lambda p: (p.run / "config.json").write_text("[]"),
        ["report", "out"],
    ),
    Bad(
        "manifest-cut",
        ("out/manifest.json", "not valid JSON", "delete it"),
        lambda p: cut_short(p.run / "manifest.json"),
    ),
    Bad("manifest-list", ("out/manifest.json", "delete it"), lambda p: (p.run / "manifest.json").write_text("[1]")),
    Bad(
        "data-json-cut",
        ("out/data.json", "not valid JSON", "delete it"),
        lambda p: cut_short(p.run / "data.json"),
        ["report", "out"],
    ),
    Bad(
        "plan-spoilt",
        ("out/plan.jsonl", "line 2", "delete the file"),
        lambda p: [unmade(p), spoil_line(p.run / "plan.jsonl", 2)],
        ["generate", "out"],
    ),
    Bad(
        "plan-cut",
        ("out/plan.jsonl", "2 lines", "delete the file"),
        lambda p: [unmade(p), cut_short(p.run / "plan.jsonl", 0.6)],
        ["generate", "out"],
    ),
    Bad(
        "samples-spoilt",
        ("out/samples.jsonl", "line 1", "delete"),
        lambda p: spoil_line(p.run / "samples.jsonl", 1),
        ["report", "out"],
    ),
    Bad(
        "generate-untrained",
        ("not trained", "flawsmith train"),
        lambda p: forget(p, "train", "generate"),
        ["generate", "out"],
    ),
    Bad(
        "report-too-early",
        ("data.json", "not run"),
        lambda p: [(p.run / n).unlink() for n in ("data.json", "plan.jsonl")],
        ["report", "out"],
    ),
    Bad("export-too-early", ("no sample stands", "flawsmith generate"), unmade, ["export", "out"]),
    Bad(
        "weights-cut",
        ("control.safetensors changed", "delete it", "flawsmith train"),
        lambda p: [unmade(p), cut_short(p.run / "weights/magnet/control.safetensors")],
        ["generate", "out"],
    ),
    Bad(
        "weights-gone",
        ("its weights are gone", "flawsmith train"),
        lambda p: [unmade(p), shutil.rmtree(p.run / "weights/magnet")],
        ["generate", "out"],
    ),
    Bad(
        "weights-foreign",
        ("control.safetensors changed", "put back what was there"),
        lambda p: [unmade(p), other_weights(p)],
        ["generate", "out"],
    ),
    Bad(
        "weights-settings",
        ("settings.json changed", "flawsmith train"),
        lambda p: [unmade(p), cut_short(p.run / "weights/magnet/settings.json")],
        ["generate", "out"],
    ),
    Bad(
        "checkpoint-cut",
        ("checkpoint.safetensors", "delete it"),
        lambda p: [forget(p, "train"), torn_checkpoint(p.run / "state/magnet")],
        ["train", "out"],
    ),
    Bad("background-touched", ("000000.png", "1 pixels outside the mask"), tampered, ["report", "out"]),
    Bad("shard-order", ("--shard 3/2", "i/n", "0/4"), lambda p: p.run, ["generate", "out", "--shard", "3/2"]),
    Bad("shard-word", ("--shard x", "i/n"), lambda p: p.run, ["generate", "out", "--shard", "x"]),
    Bad("shard-power", ("--shard ²/3", "i/n"), lambda p: p.run, ["generate", "out", "--shard", "²/3"]),
    Bad("shard-none", ("--shard 0/0", "i/n"), lambda p: p.run, ["generate", "out", "--shard", "0/0"]),
]

TABLE = [*CONFIGS, *DATA, *BACKBONES, *RUNS]


def odd_unet(place: Place) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(place.model / "unet")
    config = {**unet.config, "in_channels": 12}
    shutil.rmtree(place.model / "unet")
    UNet2DConditionModel.from_config(config).save_pretrained(place.model / "unet")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, backbone_folder: Path, factory_root: Path) -> Path:
    """A finished run of the good configuration. Copy it, do not write it."""
    here = tmp_path_factory.mktemp("finished")
    write_config(here, backbone_folder, factory_root)
    monkey = pytest.MonkeyPatch()
    try:
        monkey.chdir(here)
        assert flawsmith(monkey, *RUN) == 0
    finally:
        monkey.undo()
    return here / "out"


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone_folder: Path, factory_root: Path, finished: Path
) -> Place:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, backbone_folder, factory_root)
    return Place(tmp_path, backbone_folder, finished, factory_root)


def write_config(here: Path, backbone: Path, root: Path) -> None:
    text = CONFIG.format(root=json.dumps(root.as_posix()), backbone=json.dumps(backbone.as_posix()))
    (here / "good.toml").write_text(text)


def flawsmith(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    from flawsmith import cli

    monkeypatch.setattr(sys, "argv", ["flawsmith", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def sentence_of(out: str, err: str) -> str:
    """Return the one message on stderr; what comes before it is progress."""
    assert "Traceback" not in out + err
    lines = err.splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("flawsmith: ")]
    assert len(starts) == 1, err
    return "\n".join(lines[starts[0] :])


def leftovers(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name.endswith(".part"))


def test_there_are_enough_bad_inputs_and_each_has_its_name():
    assert len(TABLE) >= 40 and len({bad.name for bad in TABLE}) == len(TABLE)


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_one_sentence(bad: Bad, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    bad.damage(place)
    capsys.readouterr()
    code = flawsmith(monkeypatch, *bad.command)
    said = sentence_of(*capsys.readouterr())
    assert code == 2
    for word in bad.words:
        assert word in said, said
    assert len(said) < 1000 and ": :" not in said and "\n\n" not in said
    assert leftovers(place.here) == []


@pytest.mark.parametrize(
    "name",
    [
        "exporter-unknown",
        "detector-setting-unknown",
        "nothing-to-prove",
        "extractor-missing",
        "count-defect-unknown",
        "paint-defect-unknown",
        "jpeg-cut",
        "zero-bytes",
        "window-size",
    ],
)
def test_it_is_said_before_any_training(name: str, place: Place, monkeypatch: pytest.MonkeyPatch):
    bad = next(bad for bad in TABLE if bad.name == name)
    bad.damage(place)
    assert flawsmith(monkeypatch, *bad.command) == 2
    assert not list(place.here.rglob("checkpoint.safetensors"))


@pytest.mark.parametrize("name", ["config-missing", "unknown-key-2", "generator-unknown", "report-no-run"])
def test_the_same_in_a_process_of_its_own(name: str, place: Place):
    bad = next(bad for bad in TABLE if bad.name == name)
    bad.damage(place)
    done = subprocess.run(
        [sys.executable, "-m", "flawsmith", *bad.command], cwd=place.here, capture_output=True, text=True, check=False
    )
    said = sentence_of(done.stdout, done.stderr)
    assert done.returncode == 2 and done.stdout == "" and all(word in said for word in bad.words)


def mended(place: Place, name: str) -> None:
    """Do what the sentence asks for."""
    if name == "mask-missing":
        shutil.copy(place.factory / "magnet/ground_truth/crack/000_mask.png", place.mask())
    if name == "zero-bytes":
        shutil.copy(place.factory / "magnet/train/good/002.png", place.normal(2))
    if name in ("plan-spoilt", "plan-cut"):
        (place.run / "plan.jsonl").unlink()
    if name == "weights-cut":
        (place.run / "weights/magnet/control.safetensors").unlink()
    if name == "checkpoint-cut":
        (place.run / "state/magnet/checkpoint.safetensors").unlink()
    if name == "manifest-cut":
        (place.run / "manifest.json").unlink()
    if name == "samples-spoilt":
        spoilt = place.run / "samples.jsonl"
        spoilt.write_text("".join(spoilt.read_text().splitlines(keepends=True)[1:]))
    if name == "background-touched":
        (place.run / "samples/000000.png").unlink()


MENDED = [
    "generator-unknown",
    "mask-missing",
    "zero-bytes",
    "backbone-missing",
    "plan-spoilt",
    "weights-cut",
    "checkpoint-cut",
    "manifest-cut",
    "samples-spoilt",
    "background-touched",
]


@pytest.mark.parametrize("name", MENDED)
def test_the_same_command_works_once_it_is_put_right(
    name: str, place: Place, finished: Path, monkeypatch: pytest.MonkeyPatch
):
    bad = next(bad for bad in TABLE if bad.name == name)
    bad.damage(place)
    assert flawsmith(monkeypatch, *bad.command) == 2
    mended(place, name)
    assert flawsmith(monkeypatch, *RUN) == 0
    assert results(place.here / "out") == results(finished)


def results(run: Path) -> dict[str, bytes]:
    """What must be equal byte for byte, whatever happened on the way."""
    found = {}
    for pattern in ("weights/**/*.safetensors", "plan.jsonl", "samples*.jsonl", "samples/*", "export/**/*"):
        for path in run.glob(pattern):
            if path.is_file():
                found[path.relative_to(run).as_posix()] = path.read_bytes()
    # Provenance names the folders of this computer.
    return {name: re.sub(rb'"source": "[^"]*/', b'"source": "', raw) for name, raw in found.items()}


def test_check_lists_every_unreadable_picture(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    place.normal(0).write_bytes(b"")
    place.normal(1).write_text("hello")
    flip(place.shot(0))
    cut_short(place.shot(3))
    images.write_mask(place.mask(1), np.ones((64, 64), bool))
    assert flawsmith(monkeypatch, "check", "good.toml", "--set", "generator.name=crop_past") == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert "generator.name: generator 'crop_past' is unknown; did you mean 'crop_paste'?" in out
    for name in ("good/000.png", "good/001.png", "crack/000.png", "crack/003.png", "crack/001.png"):
        assert name in out
    assert "not ready: " in out


class FullDisk(io.FileIO):
    """A disk that takes half of what is written and then is full."""

    def write(self, content: Any) -> int:
        super().write(bytes(content)[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("nth", [1, 6, 10, 17, 22, 27])
def test_a_full_disk(
    nth: int, place: Place, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The n-th file that is written does not fit; later the same command completes, byte for byte."""
    calls = 0

    def opened(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        nonlocal calls
        if mode in ("wb", "ab"):
            calls += 1
            if calls == nth:
                return FullDisk(path, mode)
        return open(path, mode, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", opened, raising=False)
        assert flawsmith(patch, *RUN) == 2
        said = sentence_of(*capsys.readouterr())
    assert "the disk is full" in said and "same command again" in said
    assert leftovers(place.here) == []
    assert flawsmith(monkeypatch, *RUN) == 0
    assert results(place.here / "out") == results(finished)
    files.read_lines(place.here / "out/log.jsonl")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (place.here / "locked").mkdir(mode=0o500)
    assert flawsmith(monkeypatch, "run", "good.toml", "--out", "locked/out") == 2
    assert "may not be written" in sentence_of(*capsys.readouterr())


def test_a_forbidden_place(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The same for root, whom no folder refuses."""

    def refused(path: Any, *_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", refused, raising=False)
        assert flawsmith(patch, *RUN) == 2
    assert "may not be written; choose another with --out" in sentence_of(*capsys.readouterr())
    assert flawsmith(monkeypatch, *RUN) == 0
