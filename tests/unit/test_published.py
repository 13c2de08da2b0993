"""nn/methods/published.py and `flawsmith weights`: other tools read what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file
from typer.testing import CliRunner

from flawsmith import registry
from flawsmith.cli import app
from flawsmith.data import factory
from flawsmith.nn.attention import SmallAttention
from flawsmith.nn.methods.published import LORA_FILE, write_controlnet, write_lora

WORDS = ["a photo of a crack", "a photo of a dent"]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shaken(network: Any) -> Any:
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=rng)
    return network


@torch.no_grad()
def test_diffusers_reads_a_controlnet(make_backbone: Any, tmp_path: Path) -> None:
    plugin = registry.get("generators", "controlnet_inpaint")
    back = make_backbone(kl=True)
    control = shaken(plugin(back, plugin.Settings()).control)
    write_controlnet(control, tmp_path)
    theirs = ControlNetModel.from_pretrained(tmp_path, local_files_only=True).eval()
    latent, t, hint = normal(2, 4, 8, 8), torch.tensor([7, 650]), (normal(2, 3, 64, 64) > 0).float()
    text = back.embed(WORDS)
    down, middle = back.residuals(control, latent, t, text, hint)
    wanted = theirs(latent, t, text.states, hint, return_dict=False)
    for ours, one in zip((*down, middle), (*wanted[0], wanted[1]), strict=True):
        torch.testing.assert_close(ours, one, rtol=1e-4, atol=1e-5)
    assert float(middle.abs().max()) > 1e-3
    assert "_name_or_path" not in (tmp_path / "config.json").read_text().replace('"_name_or_path": ""', "")
    assert next(control.parameters()).is_contiguous(memory_format=torch.channels_last), "ours stays as it was"


@torch.no_grad()
def test_a_branch_as_lora_is_the_merged_unet(make_backbone: Any, tmp_path: Path) -> None:
    """Each layer's weight plus B A, in a plain UNet, is what the branch computes: PEFT's reading of such a file."""
    plugin = registry.get("generators", "dual_branch")
    back = make_backbone(kl=True)
    # More than the narrowest layer has, so that some are filled up with zeros.
    generator = plugin(back, plugin.Settings(saim="off", rank=48))
    shaken(generator.unet.branches.changes)
    folders = write_lora(generator.unet.branches, tmp_path)
    assert sorted(folder.name for folder in folders) == ["shared-alone", "shared-whole"]
    latent, t = normal(2, 4, 8, 8), torch.tensor([7, 650])
    text, mask = back.embed(WORDS), torch.ones(2, 1, 8, 8)
    grey = generator.unet.grey((64, 64))[0].expand(2, -1, -1, -1)
    twice = type(text).cat([text, text])
    said = generator.unet.predict(torch.cat([latent, latent]), torch.cat([t, t]), twice, [0, 0]).chunk(2)
    for branch, wanted in zip(("whole", "alone"), said, strict=True):
        tensors = load_file(tmp_path / f"shared-{branch}" / LORA_FILE)
        merged = back.fork()
        merged.unet = type(back.unet).from_config(back.unet.config).eval()
        merged.unet.load_state_dict(back.unet.state_dict())
        merged.unet.set_attn_processor(SmallAttention())
        layers = {key.removeprefix("unet.").removesuffix(".lora_A.weight") for key in tensors if ".lora_A." in key}
        assert len(tensors) == 2 * len(layers) and {x.shape[0] for k, x in tensors.items() if "_A" in k} == {48}
        for layer in layers:
            down, up = (tensors[f"unet.{layer}.lora_{part}.weight"] for part in "AB")
            merged.unet.get_submodule(layer).weight += up @ down
        plain = back.predict(latent, t, text, mask=mask, masked=grey)
        found = merged.predict(latent, t, text, mask=mask, masked=grey)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert float((found - plain).abs().max()) > 1e-2


def test_the_verb_writes_what_is_there_and_refuses_the_rest(backbone_folder: Path, tmp_path: Path) -> None:
    factory.write_dataset(tmp_path / "set", "tile", ("crack",), normals=3, per_defect=2, seed=1, size=64)
    config = tmp_path / "my.toml"
    config.write_text(
        f'[data]\nroot = "{tmp_path}/set"\nshots = 1\n[backbone]\nsource = "{backbone_folder}"\ndevice = "cpu"\n'
        'dtype = "float32"\n[train]\nsteps = 1\nbatch = 1\n[generate]\ncount = 1\n[prove]\nenabled = false\n'
    )
    runner = CliRunner()
    for name, written in (("controlnet_inpaint", "controlnet"), ("perlin", "")):
        out, run = tmp_path / f"{name}-weights", tmp_path / name
        told = ["train", str(config), "--out", str(run), "--set", f"generator.name={name}"]
        assert runner.invoke(app, told).exit_code == 0
        result = runner.invoke(app, ["weights", str(run), "--out", str(out)])
        if written:
            assert result.exit_code == 0 and (out / "tile" / written).is_dir(), result.output
        else:
            assert "perlin" in str(result.exception) and not out.exists()
    again = runner.invoke(app, ["weights", str(tmp_path / "perlin"), "--out", str(tmp_path / "set")])
    assert "is there already; name a new folder" in str(again.exception)
    index = json.loads((tmp_path / "controlnet_inpaint-weights/tile/controlnet/config.json").read_text())
    assert index["_class_name"] == "ControlNetModel" and index["in_channels"] == 16
