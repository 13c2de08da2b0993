"""Noise, targets, loss weights, the only denoising loop, and guidance: the theory of diffusion as the methods share it.

The schedule is diffusers' own: a scheduler's config gives the cumulative alphas, its `step` does the arithmetic of
a sampler. Everything else of a pipeline (what to feed, how to guide, what to keep) is in `denoise`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy latent (B,C,h,w), timestep int64 (B,)) -> raw network output (B,C,h,w)."""


class Noise:
    """A discrete noise schedule and the prediction target that goes with it.

    Args:
        config: A diffusers scheduler config; beta schedule, prediction_type and rescale_betas_zero_snr are read.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = dict(config)
        self.schedule = DDIMScheduler.from_config(self.config)
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
        """Return a diffusers scheduler set to `steps`: "ddim" (Song 2021) or "dpm" (DPM-Solver++ 2M, Lu 2022)."""
        config = {**self.config, "timestep_spacing": "trailing"}
        config.pop("_class_name", None)
        if name == "ddim":
            sampler: Any = DDIMScheduler.from_config({**config, "clip_sample": False})
        else:
            sampler = DPMSolverMultistepScheduler.from_config(
                {**config, "algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"}
            )
        sampler.set_timesteps(steps)
        return sampler


def stacked_noise(seeds: Sequence[int], shape: tuple[int, ...], *, stream: int = 0) -> Tensor:
    """Return float32 (len(seeds), *shape) standard normal noise; row i depends on seeds[i] and `stream` alone."""
    rows = []
    for seed in seeds:
        rng = torch.Generator().manual_seed((seed * 1_000_003 + stream * 7919) % (2**63 - 1))
        rows.append(torch.randn(shape, generator=rng))
    return torch.stack(rows)


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
    sampler: str = "dpm",
    start: Tensor | None = None,
    strength: float = 1.0,
    known: Tensor | None = None,
    known_mask: Tensor | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Run the denoising loop; return latents float32 (B,C,h,w).

    Args:
        predict: The network with text, guidance and conditions already bound.
        noise: The schedule.
        seeds: One per sample.
        shape: (C,h,w).
        steps: Steps of the whole schedule; with strength < 1 only the last `round(steps * strength)` are taken.
        sampler: "dpm" or "ddim".
        start: Latents to start from (SDEdit, Meng et al. 2022); None = pure noise.
        strength: 1 = `start` is forgotten, 0 = it is returned as it is.
        known: Latents to hold fixed outside `known_mask` at each noise level (RePaint's blend, Lugmayr et al. 2022),
            for a network that was not trained to inpaint.
        known_mask: float32 (B,1,h,w), 1 = free.
    """
    solver = noise.sampler(sampler, steps)
    skip = 0
    drawn = stacked_noise(seeds, shape).to(device)
    if start is not None and strength < 1.0:
        skip = steps - max(0, min(steps, round(steps * strength)))
        if skip == steps:
            return start.float()
    timesteps = solver.timesteps[skip:].to(device)
    if hasattr(solver, "set_begin_index"):
        solver.set_begin_index(skip)
    latent = drawn
    if start is not None and skip > 0:
        latent = noise.add(start.float(), drawn, timesteps[0].repeat(len(seeds)))
    for index, t in enumerate(timesteps):
        prediction = predict(latent, t.repeat(len(seeds)))
        latent = solver.step(prediction.float(), t, latent, return_dict=False)[0]
        if known is not None and known_mask is not None:
            last = index + 1 == len(timesteps)
            held = known.float() if last else noise.add(known.float(), drawn, timesteps[index + 1].repeat(len(seeds)))
            latent = known_mask * latent + (1 - known_mask) * held
    return latent


def guided(predict: Callable[[Tensor, Tensor], Tensor], guidance: float) -> Predict:
    """Classifier-free guidance (Ho & Salimans 2022) in one batch.

    Args:
        predict: Takes a doubled batch, the half with dropped text first.
        guidance: 1 = text as trained; then that half is not computed at all and `predict` gets B rows.
    """
    if guidance == 1.0:
        return predict

    def both(latent: Tensor, t: Tensor) -> Tensor:
        dropped, prompted = predict(torch.cat([latent, latent]), torch.cat([t, t])).chunk(2)
        return dropped + guidance * (prompted - dropped)

    return both
