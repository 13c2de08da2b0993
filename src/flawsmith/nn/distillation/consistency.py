"""Consistency distillation: a student learns to say at once where a teacher's path of many steps would end.

    f(z_t) = f(z_s),  s = t - 240,  z_s = four DDIM steps of the guided teacher from z_t;   f(z_0) = z_0

Luo et al., "Latent Consistency Models" (2023), sections 4.2 to 4.4: on latents of real pictures, at the times that the
LCM sampler knows, with guidance in the teacher's steps and the pseudo-Huber distance. From Song & Dhariwal, "Improved
Techniques for Training Consistency Models" (ICLR 2024), section 3.2: what is aimed at is the student itself, and not an
average of it. Ours: four steps of 60 times where LCM takes one of 20, so that what is learned at the end of a path is
at its beginning after five hops and not after fifty; one weight of the text, so the student need not be told it; and
LCM's factors c_skip and c_out, 0 and 1 to five digits at all of these times, are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flawsmith.nn.diffusion import Noise

TIMES = 50
"""How many times of a schedule the student learns at; LCM's number, from which the sampler `lcm` picks its steps."""
TEACHER_STEPS = 4
"""Steps of the teacher between the two places where the student is to say the same."""
_APART = 3
"""So many of the times lie between the ends of one of them."""
_HUBER = 1e-3


def drawn_times(noise: Noise, count: int, rng: torch.Generator) -> Tensor:
    """Return int64 (count,), each one of the `TIMES` times 19, 39, ..., 999."""
    return (torch.randint(TIMES, (count,), generator=rng) + 1) * (len(noise) // TIMES) - 1


def earlier(noise: Noise, noisy: Tensor, prediction: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Take one DDIM step (Song et al. 2021, eta = 0).

    Args:
        noise: The schedule.
        noisy: float32 (B,C,h,w), at times t.
        prediction: The network's raw output for it.
        t: int64 (B,).

    Returns:
        The latent at times s, and s int64 (B,); where s is below 0, the clean latent.
    """
    s = t - _APART * (len(noise) // TIMES)
    clean = noise.clean(noisy, prediction, t)
    stepped = noise.add(clean, noise.noise_of(noisy, clean, t), s.clamp_min(0))
    return torch.where((s >= 0).view(-1, 1, 1, 1), stepped, clean), s


def distance(student: Tensor, aim: Tensor, weight: Tensor) -> Tensor:
    """Return the pseudo-Huber distance of each sample, float32 (B,): its mean under a weight (B,1,h,w)."""
    error = ((student.float() - aim.float()).square() + _HUBER**2).sqrt() - _HUBER
    return (error * weight).flatten(1).sum(1) / (weight.flatten(1).sum(1) * error.shape[1]).clamp_min(1e-8)
