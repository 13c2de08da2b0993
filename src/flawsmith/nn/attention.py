"""Attention processors: diffusers' one hook into its UNets."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

# torch's fused CPU kernel parallelises over heads and blocks of 32+ rows; below this many score entries an explicit
# softmax(QK)V is up to twice as fast in training (measured on two cores: 21 -> 32 windows/s for the built-in UNet).
EXPLICIT_SCORES = 256 * 256
# In half precision the fused kernel loses to it wherever there are few keys, which are words: 15 -> 8 ms a layer of
# 1024 queries and 77 keys, forward and backward (EPYC with avx512_bf16).
EXPLICIT_KEYS = 128


class SmallAttention:
    """Plain attention that takes the explicit product for few tokens on a CPU and torch's fused kernel otherwise.

    Unlike diffusers' own processors it takes any keyword argument in silence: every processor of a UNet receives
    all `cross_attention_kwargs`, also those meant for a neighbour.
    """

    @staticmethod
    def __call__(
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        return gathered(attn, attend(*projected(attn, hidden_states, context)))


# diffusers asks at every call which arguments a processor takes; working that out took a tenth of a small UNet's pass.
SmallAttention.__call__.__signature__ = signature(SmallAttention.__call__)  # type: ignore[attr-defined]


def projected(attn: Any, hidden: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's queries of `hidden` (B,T,C) and keys and values of `context`, each (B,heads,tokens,d)."""
    query, key, value = (
        split_heads(project(x), attn.heads)
        for project, x in ((attn.to_q, hidden), (attn.to_k, context), (attn.to_v, context))
    )
    return query, key, value


def gathered(attn: Any, mixed: Tensor) -> Tensor:
    """Return a layer's output (B,T,C) of its heads' results (B,heads,T,d)."""
    return attn.to_out[1](attn.to_out[0](join_heads(mixed)))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return (B,T,C) as (B,heads,T,C/heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Return (B,heads,T,d) as (B,T,heads*d)."""
    return x.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(QK'/sqrt(d))V for (B,heads,tokens,d)."""
    keys, half = key.shape[-2], query.dtype in (torch.bfloat16, torch.float16)
    if query.device.type == "cpu" and (query.shape[-2] * keys <= EXPLICIT_SCORES or (half and keys <= EXPLICIT_KEYS)):
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return scores.softmax(-1).to(value.dtype) @ value
    return nn.functional.scaled_dot_product_attention(query, key, value)


def use_small_attention(network: Any) -> None:
    """Give every plain attention layer of a diffusers network the processor above."""
    plain = all(
        module.group_norm is None and module.spatial_norm is None and not module.residual_connection
        for module in network.modules()
        if type(module).__name__ == "Attention"
    )
    if plain and torch.is_tensor(next(network.parameters(), None)):
        network.set_attn_processor(SmallAttention())
