"""Where in a window the words of a prompt acted: the cross-attention of a UNet, averaged over all of its denoising.

Tang et al., "What the DAAM: Interpreting Stable Diffusion Using Cross Attention", ACL 2023, section 3: the share of
attention that each place gives to a token, averaged over heads, scaled bicubically to the latent's size, and averaged
over layers and steps; of a word of several tokens the mean. With guidance only the prompted half of a batch is looked
at, as there. Of DualAnoDiff's two branches it is the one that makes the damage alone, whose rows come last.

It listens in front of the layers and computes their scores once more, so what a UNet returns does not change by a bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith.nn.attention import split_heads


class AttentionMaps:
    """Collects the cross-attention of a UNet for the last row of every batch, which with guidance is a prompted one.

    Args:
        unet: A diffusers UNet, whatever its attention processors are.
    """

    def __init__(self, unet: Any) -> None:
        self._layers = [layer for layer in unet.modules() if getattr(layer, "is_cross_attention", False)]
        self._totals: dict[int, Tensor] = {}
        self._counts: dict[int, int] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while the UNet works."""
        handles = [layer.register_forward_pre_hook(self._hear, with_kwargs=True) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def take(self, size: tuple[int, int]) -> Tensor | None:
        """Return what was heard since the last time, and forget it.

        Args:
            size: Rows and columns of the latent.

        Returns:
            float32 (T,h,w): for each of the text's T tokens the mean share, 0..1, of the attention of each place;
            None = nothing was heard.
        """
        total, count = None, 0
        for places, shares in self._totals.items():
            grid = grid_of(places, size)
            scaled = F.interpolate(shares.unflatten(-1, grid)[None], size, mode="bicubic", align_corners=False)[0]
            total, count = scaled if total is None else total + scaled, count + self._counts[places]
        self._totals, self._counts = {}, {}
        return None if total is None else (total / count).clamp(0, 1)

    @torch.no_grad()
    def _hear(self, layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Add up what a layer is about to attend to: its places x tokens, averaged over heads."""
        hidden = given[0] if given else named["hidden_states"]
        context = named.get("encoder_hidden_states")
        if context is None or hidden.dim() != 3:
            return
        # A processor that changes queries and keys says what they are (`branches.BranchAttention`).
        of_processor = getattr(layer.processor, "last_query_and_key", None)
        if of_processor is None:
            projected = layer.to_q(hidden[-1:]), layer.to_k(context[-1:])
        elif (projected := of_processor(layer, hidden, context)) is None:
            return
        query, key = (split_heads(x, layer.heads).float() for x in projected)
        shares = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)[0].mean(0).T.cpu()
        places = shares.shape[-1]
        self._totals[places] = self._totals.get(places, 0) + shares
        self._counts[places] = self._counts.get(places, 0) + 1


@contextmanager
def word_shares(unet: Any, tokens: Tensor) -> Iterator[list[Tensor]]:
    """Collect what some tokens get of a UNet's cross-attention in one pass; gradients flow to what enters the UNet.

    Args:
        unet: A diffusers UNet whose attention processors change neither queries nor keys.
        tokens: float32 (B,T): the weight of each of the text's T tokens, a row for each of the pass.

    Yields:
        A list that the pass fills: a tensor float32 (B,places), 0..1, for each layer, averaged over heads.
    """
    shares: list[Tensor] = []

    def hear(layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden, context = given[0] if given else named["hidden_states"], named["encoder_hidden_states"]
        query, key = (split_heads(x, layer.heads).float() for x in (layer.to_q(hidden), layer.to_k(context)))
        scores = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1).mean(1)
        shares.append((scores @ tokens[:, :, None])[..., 0])

    crossing = [layer for layer in unet.modules() if getattr(layer, "is_cross_attention", False)]
    handles = [layer.register_forward_pre_hook(hear, with_kwargs=True) for layer in crossing]
    try:
        yield shares
    finally:
        for handle in handles:
            handle.remove()


def grid_of(places: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of a layer of so many places: the latent's, halved as often as fits."""
    rows, columns = size
    while rows * columns > places:
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    if rows * columns != places:
        raise ValueError(f"{places} places are no halving of a latent of {size[0]} x {size[1]}")
    return rows, columns
