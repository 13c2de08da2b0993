"""Noise, targets, loss weights, the only denoising loop, and guidance: the theory of diffusion as the methods share it.

The schedule is diffusers' own: a scheduler's config gives the cumulative alphas, its `step` does the arithmetic of
a sampler. Everything else of a pipeline (what to feed, how to guide, what to keep) is in `denoise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, Literal

import diffusers
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from flawsmith.nn.loading.schedules import require_known

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy latent (B,C,h,w), timestep int64 (B,)) -> raw network output (B,C,h,w)."""


Sampler = Literal["dpm", "ddim", "euler", "unipc", "lcm", "tcd"]
"""DPM-Solver++ 2M (Lu 2022), DDIM (Song 2021), Euler (Karras 2022) and UniPC (Zhao 2023) for any model; LCM (Luo 2023)
and TCD (Zheng 2024) for models that were distilled for them, in few steps."""
_OF_THE_MODEL = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
                 "rescale_betas_zero_snr", "set_alpha_to_one", "steps_offset")  # fmt: skip
"""What a scheduler's configuration says of the model; all else is a sampler's."""
_TO_CLEAN = {"set_alpha_to_one": True, "clip_sample": False}
"""A sampler ends at the clean latent, where the files of Stable Diffusion let DDIM end one time before it."""


_EulerDiscrete: Any = EulerDiscreteScheduler


class _Euler(_EulerDiscrete):
    """Euler's method on latents whose variance stays, as all other samplers here have them, not on those that grow."""

    def set_timesteps(self, *given: Any, **named: Any) -> None:
        super().set_timesteps(*given, **named)
        self.timesteps: Tensor = self.timesteps.long()
        self.is_scale_input_called = True  # `step` scales

    def step(self, model_output: Any, timestep: Any, sample: Any, *given: Any, **named: Any) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
        level, following = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
        scaled = sample * (level.square() + 1).sqrt()
        moved = super().step(model_output, timestep.float(), scaled, *given, **{**named, "return_dict": False})
        return (moved[0] / (following.square() + 1).sqrt(),)


_SAMPLERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, _TO_CLEAN),
    "dpm": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
    ),
    "euler": (_Euler, {}),
    "unipc": (UniPCMultistepScheduler, {"solver_order": 2, "final_sigmas_type": "zero"}),
    "lcm": (LCMScheduler, _TO_CLEAN),
    "tcd": (TCDScheduler, _TO_CLEAN),
}
_DISTILLED = ("lcm", "tcd")
"""Samplers that add noise at every step but the last."""


class Noise:
    """A discrete noise schedule and the prediction target that goes with it.

    Args:
        config: A diffusers scheduler's configuration. Of its class are only the values taken that it does not state.

    Raises:
        BackboneError: it is a schedule of another kind (flow matching, EDM).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        require_known(config, "the backbone's scheduler")
        stated = getattr(diffusers, str(config.get("_class_name", "DDIMScheduler")), DDIMScheduler)
        usual = {key: one.default for key, one in signature(stated.__init__).parameters.items() if key in _OF_THE_MODEL}
        self.config = {**usual, **config}
        self.schedule = DDIMScheduler.from_config(_accepted(DDIMScheduler, self.config))
        self.target = str(self.schedule.config.prediction_type)
        self.alphas = self.schedule.alphas_cumprod.float()

    def __len__(self) -> int:
        return len(self.alphas)

    def add(self, latent: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return sqrt(a_t) latent + sqrt(1 - a_t) noise; t int64 (B,)."""
        signal, spread = self._levels(t, latent)
        return signal * latent + spread * noise

    def target_of(self, latent: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what the network is to predict: noise, latent, or v = sqrt(a) noise - sqrt(1-a) latent."""
        if self.target == "epsilon":
            return noise
        if self.target == "sample":
            return latent
        signal, spread = self._levels(t, latent)
        return signal * noise - spread * latent

    def clean(self, noisy: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """Return the clean latent that a network's output implies."""
        if self.target == "sample":
            return prediction
        signal, spread = self._levels(t, noisy)
        if self.target == "epsilon":
            return (noisy - spread * prediction) / signal.clamp_min(1e-4)
        return signal * noisy - spread * prediction

    def noise_of(self, noisy: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        """Return the noise that, with a clean latent, makes a noisy one; where hardly any is in it, about nothing."""
        signal, spread = self._levels(t, noisy)
        return (noisy - signal * clean) / spread.clamp_min(1e-4)

    def prediction_of(self, noisy: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        """Return the network's output that implies a clean latent; `clean` undoes it."""
        if self.target == "sample":
            return clean
        signal, spread = self._levels(t, noisy)
        if self.target == "epsilon":
            return (noisy - signal * clean) / spread
        return (signal * noisy - clean) / spread

    def _levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas.to(like.device)[t].to(torch.float32).view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def sampler(self, name: str, steps: int) -> Any:
        """Return a diffusers scheduler set to `steps`; its timesteps are int64, the noisiest first."""
        plugin, settings = _SAMPLERS[name]
        model = {key: value for key, value in self.config.items() if key in _OF_THE_MODEL}
        sampler = plugin.from_config(_accepted(plugin, {**model, "timestep_spacing": "trailing", **settings}))
        if name in _DISTILLED and steps > sampler.config.original_inference_steps:
            # A divisor of all times: multiples of any other number would begin below the noisiest.
            among = next((count for count in range(steps, len(self)) if len(self) % count == 0), len(self))
            sampler.set_timesteps(steps, original_inference_steps=among)
        else:
            sampler.set_timesteps(steps)
        if len(sampler.timesteps) > steps:
            # Rounding has "trailing" go on to a time of -1 for some numbers of steps, such as 61.
            sampler.timesteps, sampler.num_inference_steps = sampler.timesteps[:steps], steps
            if hasattr(sampler, "sigmas"):
                sampler.sigmas = torch.cat([sampler.sigmas[:steps], sampler.sigmas[-1:]])
        return sampler


def _accepted(plugin: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that a scheduler takes; it would complain of the others."""
    known = signature(plugin.__init__).parameters
    return {key: value for key, value in config.items() if key in known}


def stacked_noise(seeds: Sequence[int], shape: tuple[int, ...], *, stream: int = 0) -> Tensor:
    """Return float32 (len(seeds), *shape) standard normal noise; row i depends on seeds[i] and `stream` alone."""
    return torch.stack([torch.randn(shape, generator=_stream(seed, stream)) for seed in seeds])


def _stream(seed: int, number: int) -> torch.Generator:
    """Return one of a seed's streams of random numbers."""
    return torch.Generator().manual_seed((seed * 1_000_003 + number * 7919) % (2**63 - 1))


def weighted_loss(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the squared error of each sample, float32 (B,), weighted by (B,1,h,w) and normalised by its sum."""
    error = (prediction.float() - target.float()).square()
    if weight is None:
        return error.flatten(1).mean(1)
    return (error * weight).flatten(1).sum(1) / (weight.flatten(1).sum(1) * error.shape[1]).clamp_min(1e-8)


@torch.no_grad()
def denoise(
    predict: Predict,
    noise: Noise,
    seeds: Sequence[int],
    shape: tuple[int, ...],
    *,
    steps: int,
    sampler: Sampler = "dpm",
    start: Tensor | None = None,
    strength: float = 1.0,
    known: Tensor | None = None,
    known_mask: Tensor | None = None,
    adjust: Predict | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Run the denoising loop; return latents float32 (B,C,h,w).

    Args:
        predict: The network with text, guidance and conditions already bound.
        noise: The schedule.
        seeds: One per sample.
        shape: (C,h,w).
        steps: Steps of the whole schedule; with strength < 1 only the last `round(steps * strength)` are taken. Where
            that is none, one is: of as many steps as begin it at the strength's own noise.
        sampler: See `Sampler`.
        start: Latents to start from (SDEdit, Meng et al. 2022); None = pure noise.
        strength: 1 = `start` is forgotten, 0 = it is returned as it is.
        known: Latents to hold fixed outside `known_mask` at each noise level (RePaint's blend, Lugmayr et al. 2022),
            for a network that was not trained to inpaint.
        known_mask: float32 (B,1,h,w), 1 = free.
        adjust: (noisy latent, timestep int64 (B,)) -> what each step begins with in its place; None = the latent.
    """
    skip = 0
    if start is not None and strength < 1.0:
        if strength <= 0:
            return start.float()
        if (walked := round(steps * strength)) == 0:
            walked, steps = 1, min(len(noise), round(1 / strength))
        skip = steps - walked
    solver = noise.sampler(sampler, steps)
    named: dict[str, Any] = {"return_dict": False}
    if sampler in _DISTILLED:
        named["generator"] = [_stream(seed, 1) for seed in seeds]
    drawn = stacked_noise(seeds, shape).to(device)
    timesteps = solver.timesteps[skip:].to(device)
    if hasattr(solver, "set_begin_index"):
        solver.set_begin_index(skip)
    latent = drawn
    if start is not None and skip > 0:
        latent = noise.add(start.float(), drawn, timesteps[0].repeat(len(seeds)))
    for index, t in enumerate(timesteps):
        if adjust is not None:
            latent = adjust(latent, t.repeat(len(seeds)))
        prediction = predict(latent, t.repeat(len(seeds)))
        latent = solver.step(prediction.float(), t, latent, **named)[0]
        if known is not None and known_mask is not None:
            last = index + 1 == len(timesteps)
            held = known.float() if last else noise.add(known.float(), drawn, timesteps[index + 1].repeat(len(seeds)))
            latent = known_mask * latent + (1 - known_mask) * held
    return latent


def guided(predict: Callable[[Tensor, Tensor], Tensor], guidance: float, rescale: float = 0.0) -> Predict:
    """Classifier-free guidance (Ho & Salimans 2022) in one batch.

    Args:
        predict: Takes a doubled batch, the half with dropped text first.
        guidance: 1 = text as trained; then that half is not computed at all and `predict` gets B rows.
        rescale: How far a row's spread is brought back to that of its text alone, 0..1 (Lin et al. 2024, section 3.4).
    """
    if guidance == 1.0:
        return predict

    def both(latent: Tensor, t: Tensor) -> Tensor:
        dropped, prompted = predict(torch.cat([latent, latent]), torch.cat([t, t])).chunk(2)
        out = dropped + guidance * (prompted - dropped)
        if rescale:
            spread = [part.flatten(1).std(1).view(-1, 1, 1, 1) for part in (prompted, out)]
            out = out * (1 - rescale + rescale * spread[0] / spread[1])
        return out

    return both


def guidance_embedding(guidance: float, width: int) -> Tensor:
    """Return float32 (1,width): a weight of the text as a network reads it that was distilled with it (Luo 2023).

    Sines and cosines of 1000 times what is beyond 1, as timesteps are embedded (Vaswani et al. 2017).
    """
    half = width // 2
    rates = torch.exp(torch.arange(half) * -(math.log(10000.0) / (half - 1)))
    angles = (guidance - 1) * 1000 * rates
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))[None]
