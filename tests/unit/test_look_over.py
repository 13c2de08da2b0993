"""preflight/backbone.py: what stands where a backbone should is said, with what to write, and torch is not needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flawsmith.errors import BackboneError
from flawsmith.preflight.backbone import look_over

NAMES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


def folder(place: Path, ending: str = ".safetensors", xl: bool = False) -> Path:
    """Make the shell of a diffusers folder: files with the right names, and nothing in them."""
    second = ["text_encoder_2", "tokenizer_2"] if xl else []
    for part in ("vae", "text_encoder", "tokenizer", "unet", "scheduler", *second):
        (place / part).mkdir(parents=True)
        (place / part / "config.json").write_text("{}")
        if part not in ("tokenizer", "tokenizer_2", "scheduler"):
            (place / part / f"{NAMES.get(part, 'model')}{ending}").touch()
    index = {part: ["transformers", "X"] for part in second} | {"safety_checker": [None, None]}
    (place / "model_index.json").write_text(json.dumps(index))
    return place


@pytest.mark.parametrize("ending", [".safetensors", ".fp16.safetensors", ".bin", "-00001-of-00002.safetensors"])
@pytest.mark.parametrize("xl", [False, True])
def test_a_whole_folder_passes(tmp_path: Path, ending: str, xl: bool) -> None:
    look_over(str(folder(tmp_path / "sd", ending, xl)), offline=True)


def test_the_built_in_one_and_a_hub_are_not_looked_at() -> None:
    look_over("builtin", offline=True)
    look_over("someone/some-model", offline=False)


def drop(name: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        for path in sorted((place / name).glob("*")) if (place / name).is_dir() else []:
            path.unlink()
        (place / name).rmdir() if (place / name).is_dir() else (place / name).unlink()

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop("tokenizer"), r"no whole diffusers folder; tokenizer is missing"),
        (drop("text_encoder_2"), r"no whole diffusers folder; text_encoder_2 is missing"),
        (drop("vae/config.json"), r"vae holds no config.json; copy the whole folder again"),
        (drop("unet/diffusion_pytorch_model.safetensors"), r"unet holds no weights \(unet/"),
    ],
)
def test_what_is_not_whole_is_said(tmp_path: Path, change: Callable[[Path], None], sentence: str) -> None:
    place = folder(tmp_path / "sd", xl=True)
    change(place)
    with pytest.raises(BackboneError, match=sentence):
        look_over(str(place), offline=True)


def test_what_people_have_instead(tmp_path: Path) -> None:
    one = tmp_path / "v1-5-pruned.safetensors"
    one.touch()
    with pytest.raises(BackboneError, match=r"v1-5-pruned\.safetensors: not a readable safetensors file"):
        look_over(str(one), offline=True)
    snapshot = folder(tmp_path / "models--runwayml--stable-diffusion-v1-5" / "snapshots" / "abc")
    look_over(str(snapshot.parents[1]), offline=True)
    look_over(str(snapshot.parent), offline=True)
    above = folder(tmp_path / "models" / "mine").parent
    with pytest.raises(BackboneError, match=f"is the folder above; write {above / 'mine'}$"):
        look_over(str(above), offline=True)
    with pytest.raises(BackboneError, match="no such folder or file, and asking a hub is off"):
        look_over("someone/some-model", offline=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackboneError, match="vae, text_encoder, tokenizer, unet, scheduler is missing"):
        look_over(str(tmp_path / "empty"), offline=True)


def test_no_torch() -> None:
    code = "import sys, flawsmith.preflight.backbone; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
