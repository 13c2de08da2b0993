"""What a training step and a denoising step cost: measured rates, brought to another backbone by its size.

Time grows with the parameters of the UNet and the pixels of the window; memory has a part that grows with the
parameters (networks, gradients, optimiser) and one that grows with the windows of a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from flawsmith.nn.loading.facts import BackboneFacts

PLAIN = "processor without bfloat16"
_GIB = 1.074  # GB


@dataclass(frozen=True, slots=True)
class Rate:
    """What one window of `size` pixels costs on one kind of machine, with a UNet of `parameters` million."""

    size: int
    """Working size at which the rate holds."""
    parameters: float
    """Of the UNet, in millions."""
    train: float
    """Seconds per window and training step (forward and backward)."""
    draw: float
    """Seconds per window and denoising step, without guidance."""
    fixed: float
    """GB while training, whatever the batch."""
    window: float
    """GB more for each window of a training step."""
    weights: float
    """MB that a trained generator saves."""

    def at(self, size: int, parameters: float) -> Rate:
        """Return the rate for another window and another UNet."""
        area, share = (size / self.size) ** 2, parameters / self.parameters
        return replace(
            self,
            size=size,
            parameters=parameters,
            train=self.train * area * share,
            draw=self.draw * area * share,
            fixed=self.fixed * share,
            # What a layer keeps grows with its width, and its parameters with the square of that.
            window=self.window * area * share**0.5,
            weights=self.weights * share,
        )


# The built-in backbone on a processor: what `make demo` and benchmarks/suites/real_data.py took on two cores with
# bfloat16 units, and without them half of what benchmarks/suites/proof.py took on one (entry `magnetic-tile, random
# weights`); memory with those units is that of suite `picture_memory.py`, without them windows are taken to be twice as
# large. The GPU row is a guess from the size of the network.
_BUILTIN = {
    "processor": Rate(128, 22.0, train=0.06, draw=0.03, fixed=0.85, window=0.015, weights=41),
    PLAIN: Rate(128, 22.0, train=0.13, draw=0.08, fixed=0.85, window=0.03, weights=41),
    "GPU": Rate(128, 22.0, train=0.003, draw=0.001, fixed=0.9, window=0.1, weights=41),
}
# Stable Diffusion 1.5's size, 512 px, by generator: memory as measured on an H100 (benchmarks/results/memory.json,
# `reserved_gib` with 1 and 16 windows per step). A step's time there, divided by its 16 windows, and a denoising step
# of one window with guidance, divided by two, are taken ten times: for a card of which 40 TFLOP/s are used.
_H100_TIMES = 10
_LARGE = {
    "controlnet_inpaint": Rate(512, 859.5, 0.2392 / 16, 0.233 / 8, _GIB * 9.67, _GIB * 1.194, weights=1445),
    "cross_modal": Rate(512, 859.5, 0.1674 / 16, 0.216 / 8, _GIB * 2.58, _GIB * 0.992, weights=90),
    "dual_branch": Rate(512, 859.5, 0.4073 / 16, 0.334 / 8, _GIB * 2.50, _GIB * 2.459, weights=66),
    "hybrid": Rate(512, 859.5, 0.3976 / 16, 0.247 / 8, _GIB * 10.18, _GIB * 2.100, weights=1535),
}
_SPARED: dict[str, tuple[float, int, dict[str, tuple[float, float]]]] = {
    "24GB": (
        *(22.0, 4),
        {
            "controlnet_inpaint": (7.65, 1.41),
            "cross_modal": (2.33, 0.76),
            "dual_branch": (2.25, 1.78),
            "hybrid": (7.93, 2.15),
        },
    ),
    "12GB": (
        *(11.0, 4),
        {
            "controlnet_inpaint": (6.77, 0.38),
            "cross_modal": (1.87, 0.24),
            "dual_branch": (1.77, 0.48),
            "hybrid": (6.90, 0.58),
        },
    ),
    "8GB": (
        *(0.0, 1),
        {
            "controlnet_inpaint": (4.35, 0.38),
            "cross_modal": (1.78, 0.24),
            "dual_branch": (1.71, 0.48),
            "hybrid": (4.50, 0.58),
        },
    ),
}
"""`train.memory` -> GiB of a card from which on "auto" takes it, windows at once (both of `nn.memory.presets`), and GiB
while training Stable Diffusion 1.5's size at 512 px, fixed and per window (benchmarks/results/training_memory.json)."""
_EVERYTHING = 40.0
"""GiB of a card from which on "auto" spares nothing."""
_CONTEXT = 0.5
"""GiB that CUDA takes for itself."""
_LEAST = 200.0
"""Millions of parameters of a UNet from which on "auto" spares anything."""
SMALL = 100.0
"""Millions of parameters up to which a UNet is nearer to the built-in one than to Stable Diffusion's."""


def rate_of(generator: str, facts: BackboneFacts | None, machine: str, size: int) -> Rate:
    """Return what a generator costs on a backbone.

    Args:
        generator: Its name; one that was not measured is taken for `controlnet_inpaint`.
        facts: What the backbone is; None = unknown, taken for Stable Diffusion 1.5's size.
        machine: "processor", PLAIN or "GPU".
        size: Side of the window in pixels.
    """
    parameters = 859.5 if facts is None else facts.parameters.get("unet", 0) / 1e6
    if facts is not None and 0 < parameters <= SMALL:
        return _BUILTIN[machine].at(size, parameters)
    rate = _LARGE.get(generator, _LARGE["controlnet_inpaint"])
    if machine == "GPU":
        rate = replace(rate, train=_H100_TIMES * rate.train, draw=_H100_TIMES * rate.draw)
    else:
        # On two cores at 40 GFLOP/s, from the published 0.8 TFLOP of a step; the memory is the card's.
        rate = replace(rate, train=60.0, draw=20.0)
    return rate.at(size, parameters or 859.5)


def spared(generator: str, facts: BackboneFacts | None, memory: str, card: float, size: int) -> float | None:
    """Return the GB of a card that training with a large backbone takes under `train.memory`, whatever the batch.

    Args:
        generator: As for `rate_of`.
        facts: Likewise.
        memory: The setting.
        card: GB of the card; 0 = unknown.
        size: Side of the window in pixels.

    Returns:
        None where nothing is spared: a small backbone, or "auto" and a large or unknown card.
    """
    parameters = (0 if facts is None else facts.parameters.get("unet", 0) / 1e6) or 859.5
    if memory == "auto" and (parameters < _LEAST or not card or card / _GIB >= _EVERYTHING):
        return None
    fitting = (name for name, (least, *_) in _SPARED.items() if card / _GIB >= least)
    _, windows, by_generator = _SPARED[next(fitting) if memory == "auto" else memory]
    fixed, window = by_generator.get(generator, by_generator["controlnet_inpaint"])
    share, area = parameters / 859.5, (size / 512) ** 2
    return _GIB * (fixed * share + window * windows * area * share**0.5 + _CONTEXT)
