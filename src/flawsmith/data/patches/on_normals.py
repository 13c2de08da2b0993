"""Damage drawn on normal pictures alone: what generators share that read no defect photograph and draw their masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from flawsmith.data.tensors import image_tensor, mask_tensor, picture_of
from flawsmith.types import Condition, Generated

_SEEN, _ENOUGH, _SPECK = 0.05, 0.25, 64
"""A change of so much, of 2, is seen; one that is seen in so much of its mask is enough; and a mask of fewer px counts
as one of so many, for fitting the label would take it away."""

Drawn = tuple[np.ndarray, np.ndarray]
"""A damaged picture, float32 (h,w,3) in [-1,1], and its mask, bool (h,w)."""


def drawn_rows(
    asked: Condition, seeds: Sequence[int], draw: Callable[[np.ndarray, np.ndarray, str, np.random.Generator], Drawn]
) -> Generated:
    """Damage each row of a request inside its mask; everywhere, when that is empty.

    Args:
        asked: B requests.
        seeds: B seeds.
        draw: (normal picture float32 (h,w,3) in [-1,1], where damage may lie as bool (h,w), product, random numbers) ->
            the damaged picture with its mask.
    """
    made, masks = [], []
    for row, seed in enumerate(seeds):
        allowed = asked.mask[row, 0].cpu().numpy() > 0.5
        allowed = allowed if allowed.any() else np.ones_like(allowed)
        image, mask = draw(picture_of(asked.normal[row]), allowed, asked.product[row], np.random.default_rng(seed))
        made.append(image)
        masks.append(mask)
    damage, pictures = mask_tensor(masks).to(asked.mask), image_tensor(made).to(asked.normal)
    return Generated(torch.where(damage > 0.5, pictures, asked.normal), damage)


def most_visible(
    draws: Iterable[Drawn], normal: np.ndarray, allowed: np.ndarray, otherwise: Drawn | None = None
) -> Drawn:
    """Return the first draw that is seen well, else the one that is seen best.

    Args:
        draws: No more are taken than needed.
        normal: float32 (h,w,3): the picture before.
        allowed: bool (h,w): where damage may lie.
        otherwise: What is returned where no draw changes anything (a picture without texture); None = another tone all
            over `allowed`.
    """
    if otherwise is None:
        otherwise = np.where(normal > 0, normal - 0.2, normal + 0.2).astype(np.float32), allowed
    best, greatest = otherwise, 0.0
    for picture, mask in draws:
        change = np.abs(picture[mask] - normal[mask]).max(axis=1, initial=0)
        visibility = float((change > _SEEN).sum() + change.sum()) / max(len(change), _SPECK)
        if visibility > greatest:
            best, greatest = (picture, mask), visibility
        if visibility >= _ENOUGH:
            break
    return best
