"""backbone.lora: a user's LoRA is added to the UNet's weights, whoever wrote it, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from flawsmith.config import load_config
from flawsmith.errors import BackboneError
from flawsmith.nn.backbone import Backbone
from flawsmith.preflight.refuse import preflight
from flawsmith.run.folder import Run
from flawsmith.synthesis.backbones.of_run import RunBackbone

LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"
CONVOLUTION = "down_blocks.0.resnets.0.conv1"
RANK = 2


def changes(unet: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return (down, up) of a linear layer and of a 3 x 3 convolution."""
    rng, parts = torch.Generator().manual_seed(0), {}
    for name in (LINEAR, CONVOLUTION):
        shape = unet.get_submodule(name).weight.shape
        sides = (RANK, *shape[1:]), (shape[0], RANK, *(1,) * (len(shape) - 2))
        down, up = (torch.randn(side, generator=rng) for side in sides)
        parts[name] = down, up
    return parts


def written(path: Path, parts: dict[str, tuple[torch.Tensor, torch.Tensor]], way: str) -> str:
    """Write the changes as one of the two families of tools names them."""
    tensors = {}
    for name, (down, up) in parts.items():
        if way == "kohya":
            key = "lora_unet_" + name.replace(".", "_")
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}
        else:
            tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    save_file(tensors, path)
    return str(path)


@pytest.mark.parametrize(("way", "scale"), [("kohya", 1.0 / RANK), ("peft", 1.0)])
def test_the_layers_do_what_layer_and_change_do(way: str, scale: float, backbone_folder: Path, tmp_path: Path) -> None:
    plain = Backbone.load(backbone_folder, device="cpu", dtype="float32")
    parts = changes(plain.unet)
    file = written(tmp_path / "a.safetensors", parts, way)
    changed = Backbone.load(backbone_folder, device="cpu", dtype="float32", lora=[file])
    rng = torch.Generator().manual_seed(1)
    for name, (down, up) in parts.items():
        before, after = (back.unet.get_submodule(name) for back in (plain, changed))
        if name == LINEAR:
            x = torch.randn(3, down.shape[1], generator=rng)
            beside = x @ down.T @ up.T
        else:
            x = torch.randn(1, down.shape[1], 6, 6, generator=rng)
            beside = torch.nn.functional.conv2d(torch.nn.functional.conv2d(x, down, padding=1), up)
        with torch.no_grad():
            assert torch.allclose(after(x), before(x) + scale * beside, atol=1e-4)
    touched = {f"{name}.weight" for name in parts}
    theirs = changed.unet.state_dict()
    assert {key for key, value in plain.unet.state_dict().items() if not torch.equal(value, theirs[key])} == touched
    assert changed.weights == plain.weights and changed.fingerprint.startswith(f"{plain.fingerprint}-lora")


def test_a_run_notices_another_file(backbone_folder: Path, small_config: dict[str, Any], tmp_path: Path) -> None:
    parts = changes(Backbone.load(backbone_folder, device="cpu", dtype="float32").unet)
    file = written(tmp_path / "a.safetensors", parts, "kohya")
    run = Run.create(tmp_path / "run", load_config(None, small_config | {"backbone.lora": [file]}))
    first = RunBackbone(run).fingerprint
    written(tmp_path / "a.safetensors", {LINEAR: parts[LINEAR]}, "kohya")
    assert RunBackbone(run).fingerprint != first


def test_what_is_no_lora_of_this_backbone(backbone_folder: Path, tmp_path: Path, small_config: dict[str, Any]) -> None:
    unet = Backbone.load(backbone_folder, device="cpu", dtype="float32").unet
    parts = changes(unet)
    down, up = parts[LINEAR]
    files = {
        "gone": (None, "no such file; name a .safetensors file"),
        "text": (b"hello", "not a readable safetensors file"),
        "encoder": ({"lora_te_text_model_x.lora_down.weight": down}, "is no LoRA of this backbone's UNet"),
        "half": ({f"unet.{LINEAR}.lora_A.weight": down}, f"half of the change of {LINEAR} is missing"),
        "other": (
            {f"unet.{LINEAR}.lora_A.weight": down[:, 1:].contiguous(), f"unet.{LINEAR}.lora_B.weight": up},
            rf"{LINEAR} is \(\d+, 2\) and \(2, \d+\), and the layer",
        ),
    }
    for name, (content, sentence) in files.items():
        path = tmp_path / f"{name}.safetensors"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            save_file(content, path)
        with pytest.raises(BackboneError, match=rf"backbone.lora: .*{name}.safetensors.*{sentence}"):
            Backbone.load(backbone_folder, device="cpu", dtype="float32", lora=[str(path)])
    config = load_config(None, small_config | {"backbone.lora": [str(tmp_path / "gone.safetensors")]})
    assert [line for line in preflight(config, None) if "backbone.lora" in line]


def test_a_change_is_rounded_once(backbone_folder: Path, tmp_path: Path) -> None:
    """Added after the weights were rounded, it would be rounded with them once more."""
    exact = Backbone.load(backbone_folder, device="cpu", dtype="float32")
    file = written(tmp_path / "a.safetensors", changes(exact.unet), "kohya")
    for dtype in ("float32", "bfloat16"):
        exact = Backbone.load(backbone_folder, device="cpu", dtype="float32", lora=[file])
        found = Backbone.load(backbone_folder, device="cpu", dtype=dtype, lora=[file])
        for name in (LINEAR, CONVOLUTION):
            wanted = exact.unet.get_submodule(name).weight.to(found.dtype)
            assert torch.equal(found.unet.get_submodule(name).weight, wanted)
        assert found.fingerprint == exact.fingerprint
