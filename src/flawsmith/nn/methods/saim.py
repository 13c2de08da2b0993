"""SAIM, the self-attention interaction module of DualAnoDiff (CVPR 2025): two branches exchange what they know.

At each position, after the output projection of an attention layer, it attends over two tokens, one per branch, with
one head, and adds the result. A softmax over two tokens is a sigmoid of the difference of their scores, so its five
matrices fold into two (`SAIM.folded`): 1.5 products of the layer's width per token instead of 5, exactly. Folding is
done in training too, where gradients pass through it. The key's bias cancels, so there is none.

Ours: a width within that is narrower than the layer's, and a start at which nothing is exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear


@dataclass(frozen=True, slots=True)
class Folded:
    """SAIM's weights, folded; k is the layer's width C, or the rank where that is smaller."""

    norm: tuple[Tensor, Tensor, float]
    """Weight (C,), bias (C,) and epsilon of the layer norm."""
    down: Tensor | None
    """(k,C); None = k is C, and this matrix is in the others already."""
    gate: Tensor
    """(k,k): query' key, over the square root of k."""
    lean: Tensor
    """(k,): what the query's bias adds."""
    mix: Tensor
    """(C,k): out value."""
    shift: Tensor
    """(C,): the biases of value and out."""

    def to(self, dtype: torch.dtype) -> Folded:
        """Return the same in another precision."""
        weight, bias, eps = self.norm
        down = None if self.down is None else self.down.to(dtype)
        rest = (part.to(dtype) for part in (self.gate, self.lean, self.mix, self.shift))
        return Folded((weight.to(dtype), bias.to(dtype), eps), down, *rest)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return (2B,T,C) after the exchange between rows i and B+i."""
        weight, bias, eps = self.norm
        tokens = layer_norm(hidden, weight.shape, weight, bias, eps)
        if self.down is not None:
            tokens = linear(tokens, self.down)
        first, second = tokens.chunk(2)
        difference = first - second
        key = linear(difference, self.gate)
        # Each branch attends to two tokens: the share of the first is a sigmoid of the difference of the two scores.
        scores = (tokens.unflatten(0, (2, -1)) * key).sum(-1, keepdim=True) + (difference @ self.lean).unsqueeze(-1)
        mixed = torch.addcmul(second, scores.sigmoid().to(difference.dtype), difference).flatten(0, 1)
        return hidden + linear(mixed, self.mix, self.shift).to(hidden.dtype)


class SAIM(nn.Module):
    """Attention between the two branches at one position, after the output projection, as a residual.

    Args:
        width: C of the layer.
        rank: Width within; 0 = C, as published.
        zero_start: True: at first nothing is exchanged (ours); False: torch's own start, as published.
    """

    def __init__(self, width: int, rank: int, *, zero_start: bool) -> None:
        super().__init__()
        within = min(rank, width) or width
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.inner = nn.Linear(width, within)
        self.query = nn.Linear(within, within)
        self.key = nn.Linear(within, within, bias=False)
        self.value = nn.Linear(within, within)
        self.out = nn.Linear(within, width)
        if zero_start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def folded(self) -> Folded:
        """Return the weights folded, float32; gradients pass through."""
        with torch.autocast(self.out.weight.device.type, enabled=False):
            inner, query, key, value = (part.weight for part in (self.inner, self.query, self.key, self.value))
            scale = inner.shape[0] ** -0.5
            query_bias = (query @ self.inner.bias + self.query.bias) * scale
            shift = self.out.weight @ (value @ self.inner.bias + self.value.bias) + self.out.bias
            mix, down = self.out.weight @ value, None
            if inner.shape[0] < inner.shape[1]:
                down = inner
            else:
                query, key, mix = query @ inner, key @ inner, mix @ inner
            # linear() multiplies by the transpose: score = n . (query' key d), so gate = query' key.
            norm = (self.norm.weight, self.norm.bias, self.norm.eps)
            return Folded(norm, down, query.mT @ key * scale, key.mT @ query_bias, mix, shift)
