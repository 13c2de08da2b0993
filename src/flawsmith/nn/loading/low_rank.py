"""Low-rank changes (LoRA) of a UNet that a user has as a file, such as LCM's: added to the weights, once.

A change of a layer is scale x up @ down, scale = alpha / rank (Hu et al. 2022; of convolutions flattened). Two ways of
naming are common, both by the layer's own name in diffusers:

    unet.down_blocks.0.....to_q.lora_A.weight  .lora_B.weight               diffusers, PEFT (also .lora.down, .lora.up)
    lora_unet_down_blocks_0_..._to_q.lora_down.weight  .lora_up.weight  .alpha               kohya's scripts, LCM-LoRA
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flawsmith.errors import BackboneError, RunError
from flawsmith.files import file_digest
from flawsmith.nn.loading.facts import low_rank_stamps
from flawsmith.nn.weights import StoredTensors

_SIDES = {
    "down": r"(?:lora_down|lora_A(?:\.default)?|lora\.down)\.weight",
    "up": r"(?:lora_up|lora_B(?:\.default)?|lora\.up)\.weight",
    "alpha": "alpha",
}
_SIDE = "|".join(f"(?P<{side}>{pattern})" for side, pattern in _SIDES.items())
_KEY = re.compile(rf"(?:lora_unet_|unet\.|base_model\.model\.)?(?P<layer>.+)\.(?:{_SIDE})")


def add_low_rank(unet: Any, files: Sequence[str]) -> str:
    """Add the changes of some files to a UNet's weights in place; return what names them, "" = none.

    Raises:
        BackboneError: a file is not there, no safetensors file, or changes layers that this UNet does not have.
    """
    low_rank_stamps(files)
    for file in files:
        try:
            tensors = StoredTensors(Path(file))
        except RunError as error:
            raise BackboneError(f"backbone.lora: {str(error).partition(';')[0]}; copy the file again") from None
        _add(unet, tensors, file)
    return "".join(f"-lora{file_digest(Path(file))[:8]}" for file in files)


@torch.no_grad()
def _add(unet: Any, tensors: Mapping[str, Tensor], file: str) -> None:
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(getattr(layer, "weight", None), Tensor)}
    by_name = {**layers, **{name.replace(".", "_"): layer for name, layer in layers.items()}}
    parts: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key in tensors:
        found = _KEY.fullmatch(key)
        if found is None or found["layer"] not in by_name:
            strange.append(key)
            continue
        side = next(side for side in _SIDES if found[side])
        parts.setdefault(found["layer"], {})[side] = tensors[key].float()
    if strange or not parts:
        what = f"{len(strange)} tensors are no change of it, e.g. {strange[0]}" if strange else "it holds no tensors"
        raise BackboneError(
            f"backbone.lora: {file}: is no LoRA of this backbone's UNet ({what}); one that also changes the text "
            "encoder cannot be used"
        )
    for name, part in parts.items():
        weight = by_name[name].weight
        if not {"down", "up"} <= part.keys():
            raise BackboneError(f"backbone.lora: {file}: half of the change of {name} is missing; copy the file again")
        down, up = part["down"].flatten(1), part["up"].flatten(1)
        if up.shape[1] != len(down) or len(up) * down.shape[1] != weight.numel() or len(up) != len(weight):
            shapes = f"{tuple(part['up'].shape)} and {tuple(part['down'].shape)}"
            raise BackboneError(f"backbone.lora: {file}: {name} is {shapes}, and the layer {tuple(weight.shape)}")
        scale = float(part["alpha"]) / len(down) if "alpha" in part else 1.0
        change = (scale * up @ down).view(weight.shape).to(weight.device)
        weight.copy_((weight.float() + change).to(weight.dtype))
