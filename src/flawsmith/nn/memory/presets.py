"""What training does to fit a card: `train.memory`. Nothing here changes what is learned, but for rounding.

    preset   windows at once   blocks computed again   average on the host   optimiser on the host   encoders
    24GB     4                 no                      no                    no                      stay
    12GB     4                 yes                     yes                   no                      leave the card
    8GB      1                 yes                     yes                   yes                     leave the card

A batch that is larger than the windows at once is gone through in parts, whose gradients are added up before the step.
The optimiser is AdamW in every preset: one of 8 bits or with factors for moments would take less, and learn otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from flawsmith.nn.memory.recomputation import recompute

Memory = Literal["auto", "24GB", "12GB", "8GB"]
_LARGE = 200e6
"""Weights of a UNet from which on memory is short at all; the built-in one has 22 million."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How training spares memory."""

    windows: int = 0
    """How many windows of a batch are computed at once; 0 = all of them."""
    recomputes: bool = False
    """True: the blocks of the networks keep what enters them alone, and are computed again in the backward pass."""
    average_on_host: bool = False
    """True: the averaged weights are kept in the host's memory."""
    optimiser_on_host: bool = False
    """True: so are AdamW's moments, and its step is taken there."""
    parks_encoders: bool = False
    """True: autoencoder, text encoder and what else only encodes wait in the host's memory while steps are taken."""


PRESETS: dict[str, Preset] = {
    "24GB": Preset(windows=4),
    "12GB": Preset(windows=4, recomputes=True, average_on_host=True, parks_encoders=True),
    "8GB": Preset(1, True, True, True, True),
}
"""From much memory to little."""


def preset_of(memory: Memory, backbone: Any) -> Preset:
    """Return what `train.memory` asks for; "auto" looks at the card and at the size of the backbone.

    Args:
        memory: The setting.
        backbone: A `nn.backbone.Backbone`; None = the method has none.
    """
    if memory != "auto":
        return PRESETS[memory]
    if backbone is None or backbone.device.type != "cuda":
        return Preset()
    if sum(parameter.numel() for parameter in backbone.unet.parameters()) < _LARGE:
        return Preset()
    card = torch.cuda.get_device_properties(backbone.device).total_memory
    return next((preset for least, preset in _by_card() if card >= least * 2**30), PRESETS["8GB"])


def smaller(preset: Preset) -> str:
    """Return the name of the next preset that takes less; "" = there is none."""
    names = list(PRESETS)
    present = next((number for number, name in enumerate(names) if PRESETS[name] == preset), -1)
    return next(iter(names[present + 1 :]), "")


def spare(networks: list[Any], preset: Preset) -> None:
    """Let those networks that have attention processors of their own, UNet and ControlNet, do what a preset asks."""
    for network in networks:
        if preset.recomputes and hasattr(network, "attn_processors"):
            recompute(network)


def _by_card() -> list[tuple[float, Preset]]:
    """Return (GiB of a card, preset) from large to small; a card reports a little less than it is sold with."""
    return [(40.0, Preset()), (22.0, PRESETS["24GB"]), (11.0, PRESETS["12GB"])]
