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
    mask, reads = torch.ones_like(image[:, :1]), len(levels) * len(draws)
    once = known_of(back, image, mask)
    # All that is read of a picture goes through the network together: levels within noises within pictures.
    known = Known(*(part.repeat_interleave(reads, 0) for part in (once.latent, once.masked, once.cells)))
    noises = stacked_noise(draws, tuple(once.latent.shape[1:])).to(back.device)
    drawn = noises.repeat_interleave(len(levels), 0).repeat(count, 1, 1, 1)
    places = [round(level * (len(back.noise) - 1)) for level in levels]
    t = torch.tensor(places, device=back.device).repeat(count * len(draws))
    noisy, target = back.noise.add(known.latent, drawn, t), back.noise.target_of(known.latent, drawn, t)
    images, masks = (part.repeat_interleave(reads, 0) for part in (image, mask))
    total = torch.zeros_like(once.cells)
    for defect, weight in {"": 1.0, **{defect: -1.0 / len(defects) for defect in defects}}.items():
        asked = Condition(images, masks, (product,) * len(t), (defect,) * len(t))
        error = generator.predictor(asked, known, 1.0)(noisy, t).float() - target
        total += weight * error.square().mean(1, keepdim=True).unflatten(0, (count, reads)).mean(1)
    return total.cpu()
