"""What was trained, as other tools read it: a ControlNet as diffusers has it, low-rank changes as PEFT names them.

Our own files hold the same numbers under names that keep all adapters of a model together.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from flawsmith.nn.loading.networks import quiet
from flawsmith.nn.methods.branches import Branches
from flawsmith.nn.methods.control import Control
from flawsmith.nn.weights import save_tensors

LORA_FILE = "pytorch_lora_weights.safetensors"
_LAYERS = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
"""A change's name -> diffusers' name of the layer."""


def write_controlnet(control: Control, folder: Path) -> None:
    """Write a ControlNet as a folder that `ControlNetModel.from_pretrained` reads, in float32.

    Its hint is the mask, three times: 1 where damage is to be made.
    """
    network = copy.deepcopy(control.net).cpu()
    torch.nn.Module.to(network, dtype=torch.float32)
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    network.register_to_config(_name_or_path="")  # else where the backbone lies is told to the world
    with quiet():
        network.save_pretrained(folder)


def write_lora(branches: Branches, folder: Path) -> list[Path]:
    """Write a branch's low-rank changes of the UNet each as a folder that `load_lora_weights` of diffusers reads.

    Args:
        branches: A trained UNet's; the exchange between branches (SAIM, BCM) has no place in such a file.
        folder: Where to; each adapter gets a folder of its name in it.

    Returns:
        The folders.
    """
    adapters: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for path, change in branches.changes_by_path():
        for part, layer in _LAYERS.items():
            low_rank = getattr(change, part)
            for row, name in enumerate(low_rank.names):
                at = f"unet.{path}.{layer}"
                adapters[name][f"{at}.lora_A.weight"] = low_rank.down[row].detach()
                adapters[name][f"{at}.lora_B.weight"] = low_rank.up[row].detach()
    written = []
    for name, tensors in adapters.items():
        rank = max(tensor.shape[0] for key, tensor in tensors.items() if ".lora_A." in key)
        adapter_folder = folder / name.replace("/", "-")
        # One rank throughout, as a reader scales by the first; a layer too narrow for it gets zeros.
        save_tensors(
            adapter_folder / LORA_FILE, {key: _filled_up(tensor, key, rank) for key, tensor in tensors.items()}, _NOTES
        )
        written.append(adapter_folder)
    return written


_NOTES = {"format": "pt", "library": json.dumps("flawsmith")}


def _filled_up(tensor: Tensor, key: str, rank: int) -> Tensor:
    """Return a matrix with zeros up to a rank: more rows of A, more columns of B."""
    lacking = rank - (tensor.shape[0] if ".lora_A." in key else tensor.shape[1])
    added = (0, 0, 0, lacking) if ".lora_A." in key else (0, lacking)
    return torch.nn.functional.pad(tensor, added)
