"""preflight/backbone.py: what stands where a backbone should is said, with what to write, and torch is not needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flawsmith.errors import BackboneError
from flawsmith.preflight.backbone import look_over

NAMES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


UNET = {"in_channels": 9, "sample_size": 96, "cross_attention_dim": 1024}
VAE = {"_class_name": "AutoencoderKL", "latent_channels": 4, "block_out_channels": [128, 256, 512, 512]}


def write_weights(path: Path, count: int = 6) -> None:
    """Write a file of one tensor of float32 zeros, by the format's own definition."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    is_pickle = path.suffix == ".bin"
    path.write_bytes(bytes(4 * count) if is_pickle else len(header).to_bytes(8, "little") + header + bytes(4 * count))


def folder(place: Path, ending: str = ".safetensors", xl: bool = False) -> Path:
    """Make the shell of a diffusers folder: files with the right names, and one small tensor in each."""
    second = ["text_encoder_2", "tokenizer_2"] if xl else []
    texts = dict.fromkeys(("text_encoder", "text_encoder_2"), {"num_hidden_layers": 12})
    configs: dict[str, dict[str, Any]] = {
        **texts,
        "unet": UNET | ({"addition_embed_type": "text_time"} if xl else {}),
        "vae": VAE,
    }
    for part in ("vae", "text_encoder", "tokenizer", "unet", "scheduler", *second):
        (place / part).mkdir(parents=True)
        (place / part / "config.json").write_text(json.dumps(configs.get(part, {})))
        if part not in ("tokenizer", "tokenizer_2", "scheduler"):
            write_weights(place / part / f"{NAMES.get(part, 'model')}{ending}")
    index = {part: ["transformers", "X"] for part in second} | {"safety_checker": [None, None]}
    (place / "model_index.json").write_text(json.dumps(index))
    return place


@pytest.mark.parametrize(
    "ending", [".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin", "-00001-of-00001.safetensors"]
)
@pytest.mark.parametrize("xl", [False, True])
def test_a_whole_folder_passes(tmp_path: Path, ending: str, xl: bool) -> None:
    found = look_over(str(folder(tmp_path / "sd", ending, xl)), offline=True)
    assert found is not None and (found.inpaints, found.channels, found.size) == (True, 9, 768)
    assert found.text_layers == 12
    assert found.family == ("Stable Diffusion XL" if xl else "Stable Diffusion 2")
    assert found.parameters["unet"] == (12 if ending == ".fp16.bin" else 6)


def test_the_built_in_one_and_a_hub() -> None:
    built_in = look_over("builtin", offline=True)
    assert built_in is not None and (built_in.size, built_in.channels) == (128, 33)
    assert "22 M parameters" in built_in.sentence()
    assert look_over("someone/some-model", offline=False) is None


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


def stated(part: str, **values: Any) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        path = place / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        old = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(old | values))

    return change


def pointer(place: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3438167536\n"
    (place / "unet" / "diffusion_pytorch_model.safetensors").write_text(text)


def a_shard_is_missing(place: Path) -> None:
    path = place / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("diffusion_pytorch_model-00002-of-00003.safetensors"))


def torn(place: Path) -> None:
    path = place / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (stated("unet", in_channels=5), r"takes 5 channels; with 4 latent channels it should be 4 .* or 9"),
        (stated("unet", in_channels=None), "its configuration lacks"),
        (stated("unet", addition_embed_type="image"), "addition_embed_type 'image', which is not supported"),
        (stated("vae", _class_name="VQModel"), "class VQModel is not supported; known: AutoencoderDC"),
        (stated("scheduler", _class_name="FlowMatchEulerDiscreteScheduler"), "it is flow matching"),
        (a_shard_is_missing, "unet: file 1 of 3 of its weights is not there; copy the whole folder again"),
        (pointer, "it is a pointer of Git LFS: `git lfs pull` fetches the file"),
        (torn, r"text_encoder/model\.safetensors: not a readable safetensors file .it is not whole."),
    ],
)
def test_what_loading_would_refuse_is_said_before(
    tmp_path: Path, change: Callable[[Path], None], sentence: str
) -> None:
    place = folder(tmp_path / "sd")
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
