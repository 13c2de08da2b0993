"""Branches of one frozen UNet that talk to one another: DualAnoDiff's attention, in one batch and one forward pass.

Two branches, the whole picture and the damage alone, ride in one batch: rows 0..B-1 are the first branch, rows B..2B-1
the second, and row i and row B+i belong together. In every attention layer each branch has low-rank changes of its own
(q, k, v, out), and after the output projection the two exchange what they know at each position (SAIM).

SAIM is attention over two tokens with one head, so its softmax is a sigmoid and its five matrices fold into two
(`SAIM.folded`): 1.5 products of the layer's width a token instead of 5, exactly. Folding is done in training too,
where gradients pass through it; the key's bias cancels, so there is none. When sampling, the low-rank changes are
merged into one set of weights a branch, and queries, keys and values of a layer are one product.

BCM (background compensation) is a third, quieter row: a pass over the background keeps what enters each self-attention,
and the first branch's keys and values then see its own mixed with that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from flawsmith.errors import BackboneError
from flawsmith.nn.attention import attend
from flawsmith.nn.methods.lora import LowRank, Rows

_NARROW = 320
"""Width in the middle of BCM's mixing layers, as published."""


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
        seen = layer_norm(hidden, weight.shape, weight, bias, eps)
        if self.down is not None:
            seen = linear(seen, self.down)
        first, second = seen.chunk(2)
        apart = first - second
        key = linear(apart, self.gate)
        # Each branch looks at two tokens: the share of the first is a sigmoid of the difference of the two scores.
        scores = (seen.unflatten(0, (2, -1)) * key).sum(-1, keepdim=True) + (apart @ self.lean).unsqueeze(-1)
        mixed = torch.addcmul(second, scores.sigmoid().to(apart.dtype), apart).flatten(0, 1)
        return hidden + linear(mixed, self.mix, self.shift).to(hidden.dtype)


class SAIM(nn.Module):
    """SAIM: attention between the two branches at one position, after the output projection, as a residual.

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
            bent = (query @ self.inner.bias + self.query.bias) * scale
            shift = self.out.weight @ (value @ self.inner.bias + self.value.bias) + self.out.bias
            mix, down = self.out.weight @ value, None
            if inner.shape[0] < inner.shape[1]:
                down = inner
            else:
                query, key, mix = query @ inner, key @ inner, mix @ inner
            # linear() multiplies by the transpose: score = n . (query' key d), so gate = query' key.
            norm = (self.norm.weight, self.norm.bias, self.norm.eps)
            return Folded(norm, down, query.mT @ key * scale, key.mT @ bent, mix, shift)


class BCM(nn.Module):
    """BCM of one self-attention: (1 - a) hidden + a MLP(background's hidden), the MLP without an activation.

    Args:
        width: C of the layer.
        start: a at first; 0 as published (the MLP then learns nothing until a has moved).
    """

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor([start]))
        self.inner = nn.Linear(width, _NARROW)
        self.outer = nn.Linear(_NARROW, width)

    def forward(self, hidden: Tensor, ground: Tensor) -> Tensor:
        """Return what keys and values are made of, (B,T,C); `ground` is (B,T,C)."""
        weights = [p.to(hidden.dtype) for layer in (self.inner, self.outer) for p in (layer.weight, layer.bias)]
        seen = linear(linear(ground, *weights[:2]), *weights[2:])
        return torch.lerp(hidden, seen.to(hidden.dtype), self.share.to(hidden.dtype))


class Layer(nn.Module):
    """What is trained at one attention layer."""

    def __init__(self, attn: Any, rank: int, names: Sequence[str]) -> None:
        super().__init__()
        for part, base in _bases(attn).items():
            self.add_module(part, LowRank(base.in_features, base.out_features, rank, names))


@dataclass(frozen=True, slots=True)
class Merged:
    """A layer's weights for sampling, transposed, in the working precision."""

    query: Tensor
    """(adapters, C, C), a view into `all` in a self-attention."""
    words: Tensor
    """(adapters, in, 2C): keys and values."""
    all: Tensor | None
    """(adapters, C, 3C) in a self-attention, else None."""
    out: Tensor
    """(adapters, C, C)."""


@dataclass(slots=True)
class Pass:
    """What the processors need to know of the forward pass that is under way."""

    rows: Rows = Rows(())
    """The adapter of each row; none = the plain frozen network."""
    exchange: bool = True
    """False: SAIM is left out (BCM's pass over the background has one branch)."""
    keep: dict[str, Tensor] | None = None
    """Filled with what enters each self-attention."""
    ground: dict[str, Tensor] | None = None
    """The same of a background, (B,T,C) a layer, which the first half of the rows sees."""
    words: dict[str, tuple[Tensor, Tensor]] | None = None
    """Keys and values of the words, filled at a walk's first step and reused: words do not change on the way."""


class Branches(nn.Module):
    """The trained parts of a UNet's attention layers, and the processors that use them.

    Args:
        unet: A diffusers UNet of one's own (`Backbone.fork`); its processors are replaced.
        names: Adapters by name; see `Rows`.
        rank: Of the low-rank changes.
        exchange: Width within SAIM, 0 = the layer's own; None = no SAIM.
        zero_start: Of SAIM.
        backdrop: BCM's a at first; None = no BCM.

    Raises:
        BackboneError: an attention layer has norms or a residual of its own.
    """

    def __init__(
        self,
        unet: Any,
        names: Sequence[str],
        *,
        rank: int,
        exchange: int | None,
        zero_start: bool,
        backdrop: float | None,
    ) -> None:
        super().__init__()
        self.changes, self.exchanges, self.backdrops = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.now = Pass()
        self._folded: tuple[int, dict[str, Folded], dict[str, Merged]] | None = None
        self._layers: dict[str, Any] = {}
        # Fresh weights are drawn from a stream of their own; the global one is not ours to move.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            for path, attn in unet.named_modules():
                if type(attn).__name__ != "Attention":
                    continue
                if attn.group_norm is not None or attn.spatial_norm is not None or attn.residual_connection:
                    raise BackboneError(f"unet.{path}: an attention layer with norms of its own cannot be branched")
                name = path.replace(".", "_")
                self._layers[name] = attn
                self.changes[name] = Layer(attn, rank, names)
                width = attn.to_out[0].out_features
                if exchange is not None:
                    self.exchanges[name] = SAIM(width, exchange, zero_start=zero_start)
                if backdrop is not None and not attn.is_cross_attention:
                    self.backdrops[name] = BCM(width, backdrop)
                attn.set_processor(BranchAttention(name, self))
        if not self._layers:
            raise BackboneError("this UNet has no attention layers to branch")

    @contextmanager
    def passing(self, now: Pass, *, folded: bool = False) -> Iterator[None]:
        """Let forward passes within use `now`; with `folded`, the folded and merged weights as well."""
        before, self.now = self.now, now
        self._use_folded = folded
        try:
            yield
        finally:
            self.now, self._use_folded = before, False

    _use_folded = False

    @torch.no_grad()
    def fold(self, dtype: torch.dtype, *, merge: bool) -> None:
        """Prepare the weights for sampling; they are made anew only when what is trained has changed.

        Args:
            dtype: The precision to hold them in.
            merge: True: also the low-rank changes, one set of weights an adapter (wise for few adapters).
        """
        version = hash((sum(parameter._version for parameter in self.parameters()), dtype, merge))
        if self._folded is not None and self._folded[0] == version:
            return
        exchanges = {name: part.folded().to(dtype) for name, part in self.exchanges.items() if isinstance(part, SAIM)}
        merged = {name: self._merge(name, dtype) for name in self._layers} if merge else {}
        self._folded = (version, exchanges, merged)

    def _merge(self, name: str, dtype: torch.dtype) -> Merged:
        attn, change = self._layers[name], self.changes[name]
        query, key, value, out = (
            getattr(change, part).merged(base.weight).mT.to(dtype) for part, base in _bases(attn).items()
        )
        if attn.is_cross_attention:
            return Merged(query.contiguous(), torch.cat([key, value], 2), None, out.contiguous())
        every = torch.cat([query, key, value], 2)
        width = query.shape[2]
        return Merged(every[:, :, :width], every[:, :, width:], every, out.contiguous())

    def exchange_of(self, name: str, dtype: torch.dtype) -> Folded | None:
        """Return a layer's SAIM: prepared when sampling, folded afresh with gradients when training."""
        if name not in self.exchanges:
            return None
        if self._use_folded and self._folded is not None:
            return self._folded[1][name]
        part = self.exchanges[name]
        assert isinstance(part, SAIM)
        return part.folded().to(dtype)

    def merged_of(self, name: str) -> Merged | None:
        """Return a layer's merged weights, or None when they are to be applied beside the frozen ones."""
        return self._folded[2].get(name) if self._use_folded and self._folded is not None else None


class BranchAttention:
    """The processor of one attention layer. It takes any keyword argument in silence: its neighbours' reach it too."""

    def __init__(self, name: str, owner: Branches) -> None:
        self._name, self._owner = name, owner

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        now, name, owner = self._owner.now, self._name, self._owner
        words, hidden = encoder_hidden_states, hidden_states
        if words is None and now.keep is not None:
            now.keep[name] = hidden
        context = hidden if words is None else words
        if words is None and now.ground is not None and name in owner.backdrops:
            first, second = hidden.chunk(2)
            context = torch.cat([owner.backdrops[name](first, now.ground[name]), second])
        merged = owner.merged_of(name) if now.rows.runs else None
        if merged is not None:
            query, key, value = self._merged(attn, merged, hidden, context, from_words=words is not None)
        else:
            query, key, value = (
                self._project(part, base, x)
                for (part, base), x in zip(_bases(attn).items(), (hidden, context, context), strict=False)
            )
        parts = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))
        mixed = attend(*parts).transpose(1, 2).flatten(2)
        if merged is not None:
            seen = _product(mixed, now.rows, merged.out, attn.to_out[0].bias)
        else:
            seen = self._project("out", attn.to_out[0], mixed)
        if now.rows.runs and now.exchange and (exchange := owner.exchange_of(name, seen.dtype)) is not None:
            seen = exchange(seen)
        return attn.to_out[1](seen)

    def _project(self, part: str, base: nn.Linear, x: Tensor) -> Tensor:
        """Return base(x) + the adapters' part: one product over all rows, then one over the runs of adapters."""
        plain = base(x)
        rows = self._owner.now.rows
        if not rows.runs:
            return plain
        change: LowRank = getattr(self._owner.changes[self._name], part)
        return plain + change(x, rows).to(plain.dtype)

    def _merged(
        self, attn: Any, merged: Merged, hidden: Tensor, context: Tensor, *, from_words: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        now = self._owner.now
        biases = [attn.to_q.bias, attn.to_k.bias, attn.to_v.bias]
        if context is hidden and merged.all is not None:
            bias = None if biases[0] is None else torch.cat(biases)
            query, key, value = _product(hidden, now.rows, merged.all, bias).chunk(3, dim=-1)
            return query, key, value
        query = _product(hidden, now.rows, merged.query, biases[0])
        if from_words and now.words is not None and self._name in now.words:
            return query, *now.words[self._name]
        bias = None if biases[1] is None else torch.cat(biases[1:])
        key, value = _product(context, now.rows, merged.words, bias).chunk(2, dim=-1)
        if from_words and now.words is not None:
            now.words[self._name] = key, value
        return query, key, value


def _product(x: Tensor, rows: Rows, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x (B,T,in) times each row's weight of a stack (adapters, in, out): (B,T,out)."""
    said = torch.bmm(rows.grouped(x), rows.take(weight)).reshape(*x.shape[:-1], -1)
    return said if bias is None else said + bias


def _bases(attn: Any) -> dict[str, nn.Linear]:
    """Return the four frozen projections of an attention layer by the names of their changes."""
    return {"query": attn.to_q, "key": attn.to_k, "value": attn.to_v, "out": attn.to_out[0]}
