"""Adaptive attention re-weighting: where little damage shows as yet, the words are heard more.

AnomalyDiffusion (Hu et al., AAAI 2024, section 3.3). In each denoising step the picture that the step implies is
compared with the normal one inside the mask m:

    w = ||m||_1 * softmax( f( |m x0 - m y|^2 ) ),  f(d) = 1/d inside the mask, nothing outside
    RW-Attn(Q, K, V) = ( softmax(Q K' / sqrt(d)) * w ) V

A place whose difference is small gets a large weight, and the mean weight inside the mask is 1. As w scales all of a
place's attention alike, it scales what the place takes from the words: out = W_out( w * Attn(Q, K, V) ).

From the authors' code: weights are kept within 1 and 1.5. Ours: the difference counts in units of its mean inside the
mask, so that latents and pixels give maps of one kind; outside the mask the weight is 1, for nothing is painted there;
the map of a step is made of the step before it (one pass of the network a step, and none at the first); with guidance
the rows without text are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith.nn.attention import attend, gathered, projected

_LEAST = 1e-3
"""Differences below this share of their mean count as this."""


def weight_map(implied: Tensor, normal: Tensor, mask: Tensor, largest: float) -> Tensor:
    """Return the weight of each place, float32 (B,1,h,w): 1 outside the mask, between 1 and `largest` inside.

    Args:
        implied: float32 (B,C,h,w): the picture, or its latent, that a denoising step implies.
        normal: float32 (B,C,h,w): the normal one.
        mask: float32 (B,1,h,w) in {0,1}.
        largest: The cap; 1 = all weights are 1.
    """
    places = mask.flatten(1)
    count = places.sum(1, keepdim=True)
    difference = ((implied - normal) * mask).square().sum(1).flatten(1)
    mean = difference.sum(1, keepdim=True) / count.clamp_min(1)
    inverse = 1 / (difference / mean.clamp_min(1e-12)).clamp_min(_LEAST)
    # A row without any mask has nothing to share out, and softmax of nothing but -inf is no number.
    shares = torch.where(places > 0, inverse, -torch.inf).softmax(1).nan_to_num()
    weights = torch.where(places > 0, (count * shares).clamp(1, max(1.0, largest)), 1.0)
    return weights.view_as(mask)


class Reweighting:
    """The weights of the present denoising step, which the cross-attention of a UNet reads.

    Args:
        unet: A diffusers UNet of a `Backbone.fork`; its cross-attention gets other processors.
    """

    def __init__(self, unet: Any) -> None:
        self._weights: Tensor | None = None
        self._by_places: dict[int, Tensor] = {}
        processors = {}
        for name, processor in unet.attn_processors.items():
            layer = unet.get_submodule(name.removesuffix(".processor"))
            processors[name] = ReweightedAttention(self) if layer.is_cross_attention else processor
        unet.set_attn_processor(processors)

    @contextmanager
    def by(self, weights: Tensor | None) -> Iterator[None]:
        """Weight what each place takes from the words by float32 (B,1,h,w); None = all alike."""
        self._weights, self._by_places = weights, {}
        try:
            yield
        finally:
            self._weights, self._by_places = None, {}

    def of_places(self, places: int) -> Tensor | None:
        """Return the weights as float32 (B,1,places,1), for a layer of so many places; None = all alike."""
        if self._weights is None:
            return None
        if places not in self._by_places:
            rows, columns = self._weights.shape[-2:]
            while rows * columns > places:
                rows, columns = (rows + 1) // 2, (columns + 1) // 2
            scaled = F.adaptive_avg_pool2d(self._weights, (rows, columns))
            self._by_places[places] = scaled.flatten(2)[..., None]
        return self._by_places[places]


class ReweightedAttention:
    """Cross-attention whose result at each place is scaled by the step's weights; any other keyword is ignored."""

    def __init__(self, reweighting: Reweighting) -> None:
        self._reweighting = reweighting

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        mixed = attend(*projected(attn, hidden_states, context))
        weights = self._reweighting.of_places(hidden_states.shape[1])
        return gathered(attn, mixed if weights is None else mixed * weights.to(mixed.dtype))
