"""What generators share that read no defect photograph (`cutpaste`, `nsa`, `perlin`): they draw a mask of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
import torch

from flawsmith.data.tensors import image_tensor, mask_tensor, picture_of
from flawsmith.interfaces import Generator
from flawsmith.types import Condition, Generated

_SEEN, _ENOUGH, _SPECK = 0.05, 0.25, 64
"""A change of so much, of 2, is seen; one that is seen in so much of its mask is enough; and a mask of fewer px counts
as one of so many, for fitting the label would take it away."""


class DrawsOnNormal(Generator):
    """Draws its own mask inside the asked one, at the camera's own scale; needs no backbone and no shot."""

    needs_backbone: ClassVar[bool] = False
    needs_mask: ClassVar[bool] = False
    paints_controls: ClassVar[bool] = False
    native: ClassVar[bool] = True

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int = 1, guidance: float = 1.0) -> Generated:
        """Damage each row inside its mask (everywhere, when the mask is empty); `steps` and `guidance` mean nothing."""
        made, masks = [], []
        for row, seed in enumerate(seeds):
            allowed = asked.mask[row, 0].cpu().numpy() > 0.5
            allowed = allowed if allowed.any() else np.ones_like(allowed)
            rng = np.random.default_rng(seed)
            image, mask = self.damaged(picture_of(asked.normal[row]), allowed, asked.product[row], rng)
            made.append(image)
            masks.append(mask)
        damage, pictures = mask_tensor(masks).to(asked.mask), image_tensor(made).to(asked.normal)
        return Generated(torch.where(damage > 0.5, pictures, asked.normal), damage)

    @abstractmethod
    def damaged(
        self, normal: np.ndarray, allowed: np.ndarray, product: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a damaged picture, float32 (h,w,3) in [-1,1], and its mask, bool (h,w), inside what is allowed.

        Args:
            normal: float32 (h,w,3), RGB, in [-1,1].
            allowed: bool (h,w), not empty: where damage may lie.
            product: What the picture shows.
            rng: Decides everything.
        """


def most_visible(
    draws: Iterable[tuple[np.ndarray, np.ndarray]], normal: np.ndarray, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first draw that is seen well, else the one that is seen best.

    Args:
        draws: (picture, mask), of which no more are taken than needed.
        normal: float32 (h,w,3): the picture before.
        allowed: bool (h,w). Where no draw changes anything (a picture without texture), all of it gets another tone.
    """
    best, most = (np.where(normal > 0, normal - 0.2, normal + 0.2).astype(np.float32), allowed), 0.0
    for picture, mask in draws:
        change = np.abs(picture[mask] - normal[mask]).max(axis=1, initial=0)
        seen = float((change > _SEEN).sum() + change.sum()) / max(len(change), _SPECK)
        if seen > most:
            best, most = (picture, mask), seen
        if seen >= _ENOUGH:
            break
    return best
