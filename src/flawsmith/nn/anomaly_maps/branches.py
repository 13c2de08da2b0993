"""What DualAnoDiff's second branch draws beside a given picture: where it leaves grey, it sees damage.

The two branches of DualAnoDiff (Jin et al., CVPR 2025) make a whole picture and its damage alone together. To read a
picture the first branch is held at it, noised anew for each step (RePaint's blend, Lugmayr et al. 2022), and the second
is denoised beside it: a drawing of the damage alone, given the whole. That it can be read so is not the paper's but
ours; its authors make pictures and masks with it, and train detectors on these.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import denoise
from flawsmith.nn.methods.dual_unet import DualUNet
from flawsmith.nn.methods.mask_threshold import cell_distance


@runtime_checkable
class DrawsDamage(Protocol):
    """A generator with a second branch that draws the damage alone on grey (`dual_branch`)."""

    backbone: Backbone
    unet: DualUNet

    def prompts_of(self, defect: str, product: str) -> tuple[str, str]:
        """Return the prompts of the whole picture and of the damage alone."""

    def pair_of(self, defect: str, product: str) -> int:
        """Return the number of a defect type's pair of adapters."""


@torch.no_grad()
def branch_map(generator: DrawsDamage, image: Tensor, product: str, defect: str, draws: range, *, steps: int) -> Tensor:
    """Return how far from grey the second branch draws each cell, float32 (B,1,h,w), the mean over the noises.

    Args:
        generator: A trained one.
        image: float32 (B,3,H,W), RGB, [-1,1]; rows and columns are multiples of what the UNet halves.
        product: What is seen.
        defect: The defect type that both prompts name.
        draws: Seeds of the noises, one for each drawing; every picture gets the same.
        steps: Denoising steps of a drawing.
    """
    back, unet, count = generator.backbone, generator.unet, len(image)
    latent = back.encode(image)
    grey = unet.grey(image.shape[2:])[0].expand_as(latent)
    tokens = torch.stack([back.tokens(generator.prompts_of(defect, product))] * count)
    pair = [generator.pair_of(defect, product)] * count
    held = torch.ones(1, 2 * latent.shape[1], 1, 1, device=latent.device)
    held[:, : latent.shape[1]] = 0
    drawn = []
    for seed in draws:
        rows = [seed] * count
        pictures = denoise(
            unet.predictor(tokens, pair, latent, rows, None, guidance=1.0),
            back.noise,
            rows,
            (2 * latent.shape[1], *latent.shape[2:]),
            steps=steps,
            sampler="ddim",
            known=torch.cat([latent, grey], 1),
            known_mask=held,
            device=back.device,
        )
        drawn.append(cell_distance(pictures.chunk(2, dim=1)[1], grey))
    return torch.stack(drawn).mean(0).cpu()
