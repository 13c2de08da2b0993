"""How well words explain the noise in a picture, cell by cell: those for damage against the one for normal.

A picture's latent is noised, and the noise is predicted under the prompt for normal and under that of each defect type,
the same noise for all. Where the error is smaller under a damaged prompt, the model takes what is there for damage.

That the word with the smallest error is the class, and that all words get the same noise, is of Li et al., "Your
Diffusion Model is Secretly a Zero-Shot Classifier", ICCV 2023, who classify whole pictures. The error under the normal
word alone is the idea of AnoDDPM (Wyatt et al., CVPRW 2022): a model that knows what is normal denoises damage badly;
there, as in DDAD (Mousakhan et al., 2023), it is reconstructed in many steps. Ours: the errors cell by cell, in a model
that learned to paint damage and not to find it; one prediction for each level and noise, no reconstruction; and an
inpainting model that is told that everything is to be painted, so all that it knows of the picture is in the noisy
latent. The bare difference of the predictions said less on factory parts than the difference of their errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import Predict, stacked_noise
from flawsmith.nn.inpaint import Known, known_of
from flawsmith.types import Condition


@runtime_checkable
class HearsWords(Protocol):
    """A generator whose network predicts noise under a prompt that names a defect type, or normal."""

    backbone: Backbone

    def predictor(self, asked: Condition, known: Known, guidance: float) -> Predict:
        """Return what sampling denoises with, for requests whose windows were encoded; a defect type "" is normal."""


@torch.no_grad()
def word_map(
    generator: HearsWords, image: Tensor, product: str, defects: Sequence[str], levels: Sequence[float], draws: range
) -> Tensor:
    """Return by how much words for damage explain the noise better, float32 (B,1,h,w), 0 = equally well.

    Args:
        generator: What is read.
        image: float32 (B,3,H,W), RGB, [-1,1]; rows and columns are multiples of what the UNet halves.
        product: What is seen.
        defects: The types whose words are read, their mean counts; () = the error under the normal word alone.
        levels: Noise levels, as shares of the schedule.
        draws: Seeds of the noises; every picture gets the same.
    """
    back, count = generator.backbone, len(image)
    mask = torch.ones_like(image[:, :1])
    known = known_of(back, image, mask)
    weights = {"": 1.0, **{defect: -1.0 / len(defects) for defect in defects}}
    total = torch.zeros_like(known.cells)
    for defect, weight in weights.items():
        asked = Condition(image, mask, (product,) * count, (defect,) * count)
        predict = generator.predictor(asked, known, 1.0)
        for seed in draws:
            drawn = stacked_noise([seed], tuple(known.latent.shape[1:])).to(back.device).expand_as(known.latent)
            for level in levels:
                t = torch.full((count,), round(level * (len(back.noise) - 1)), device=back.device)
                prediction = predict(back.noise.add(known.latent, drawn, t), t)
                error = prediction.float() - back.noise.target_of(known.latent, drawn, t)
                total += weight * error.square().mean(1, keepdim=True)
    return (total / (len(levels) * len(draws))).cpu()
