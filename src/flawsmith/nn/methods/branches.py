"""Branches of one frozen UNet in one batch and one forward pass: the networks of DualAnoDiff (CVPR 2025).

Two branches, the whole picture and the damage alone, share one batch: rows 0..B-1 are the first branch, rows B..2B-1
the second, and row i and row B+i belong together. In every attention layer each branch has low-rank changes of its own
(query, key, value, out); SAIM (`saim.py`) then lets the two exchange what they know, and BCM (`bcm.py`) shows a
background to the first branch's self-attention.

When sampling, the low-rank changes are merged into one set of weights per branch, and queries, keys and values of a
layer are one product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from flawsmith.errors import BackboneError
from flawsmith.nn.attention import attend, join_heads, split_heads
from flawsmith.nn.methods.bcm import BCM
from flawsmith.nn.methods.lora import LowRank, Rows
from flawsmith.nn.methods.saim import SAIM, Folded
from flawsmith.nn.weights import fresh_layers


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
    key_value: Tensor
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
    saim: bool = True
    """False: SAIM is left out (BCM's pass over the background has one branch)."""
    keep: dict[str, Tensor] | None = None
    """Filled with what enters each self-attention."""
    background: dict[str, Tensor] | None = None
    """The same of a background, (B,T,C) per layer, which the first half of the rows sees."""
    text: dict[str, tuple[Tensor, Tensor]] | None = None
    """Keys and values of the text, filled at the first denoising step and reused: the text stays the same."""


class Branches(nn.Module):
    """The trained parts of a UNet's attention layers, and the processors that use them.

    Args:
        unet: A diffusers UNet of one's own (`Backbone.fork`); its processors are replaced.
        names: Adapters by name; see `Rows`.
        rank: Of the low-rank changes.
        saim: Width within SAIM, 0 = the layer's own; None = no SAIM.
        zero_start: True: SAIM exchanges nothing at first.
        bcm: BCM's a at first; None = no BCM.

    Raises:
        BackboneError: an attention layer has norms or a residual of its own.
    """

    def __init__(
        self,
        unet: Any,
        names: Sequence[str],
        *,
        rank: int,
        saim: int | None,
        zero_start: bool,
        bcm: float | None,
    ) -> None:
        super().__init__()
        self.changes, self.saims, self.bcms = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.now = Pass()
        self._folded: tuple[int, dict[str, Folded], dict[str, Merged]] | None = None
        self._layers: dict[str, Any] = {}
        self._paths: dict[str, str] = {}
        with fresh_layers():
            for path, attn in unet.named_modules():
                if type(attn).__name__ != "Attention":
                    continue
                if attn.group_norm is not None or attn.spatial_norm is not None or attn.residual_connection:
                    raise BackboneError(f"unet.{path}: an attention layer with norms of its own cannot be branched")
                name = path.replace(".", "_")
                self._layers[name] = attn
                self._paths[path] = name
                self.changes[name] = Layer(attn, rank, names)
                width = attn.to_out[0].out_features
                if saim is not None:
                    self.saims[name] = SAIM(width, saim, zero_start=zero_start)
                if bcm is not None and not attn.is_cross_attention:
                    self.bcms[name] = BCM(width, bcm)
                attn.set_processor(BranchAttention(name, self))
        if not self._layers:
            raise BackboneError("this UNet has no attention layers to branch")

    @contextmanager
    def passing(self, now: Pass, *, folded: bool = False) -> Iterator[None]:
        """Let forward passes within use `now`; with `folded`, the folded and merged weights as well."""
        before = self.now, self._use_folded
        self.now, self._use_folded = now, folded
        try:
            yield
        finally:
            self.now, self._use_folded = before

    _use_folded = False

    def resumed(self) -> Callable[[], AbstractContextManager[None]]:
        """Return what brings the pass that is under way back, for a block that is computed again."""
        return partial(self.passing, self.now, folded=self._use_folded)

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
        saims = {name: part.folded().to(dtype) for name, part in self.saims.items() if isinstance(part, SAIM)}
        merged = {name: self._merge(name, dtype) for name in self._layers} if merge else {}
        self._folded = (version, saims, merged)

    def _merge(self, name: str, dtype: torch.dtype) -> Merged:
        attn, change = self._layers[name], self.changes[name]
        query, key, value, out = (
            getattr(change, part).merged(base.weight).mT.to(dtype) for part, base in _bases(attn).items()
        )
        if attn.is_cross_attention:
            return Merged(query.contiguous(), torch.cat([key, value], 2), None, out.contiguous())
        joined = torch.cat([query, key, value], 2)
        width = query.shape[2]
        return Merged(joined[:, :, :width], joined[:, :, width:], joined, out.contiguous())

    def changes_by_path(self) -> Iterator[tuple[str, nn.Module]]:
        """Return (path of an attention layer in the UNet, its low-rank changes by part)."""
        for path, name in self._paths.items():
            yield path, self.changes[name]

    def saim_of(self, name: str, dtype: torch.dtype) -> Folded | None:
        """Return a layer's SAIM: prepared when sampling, folded afresh with gradients when training."""
        if name not in self.saims:
            return None
        if self._use_folded and self._folded is not None:
            return self._folded[1][name]
        part = self.saims[name]
        assert isinstance(part, SAIM)
        return part.folded().to(dtype)

    def merged_of(self, name: str) -> Merged | None:
        """Return a layer's merged weights, or None when they are to be applied beside the frozen ones."""
        return self._folded[2].get(name) if self._use_folded and self._folded is not None else None


class BranchAttention:
    """The processor of one attention layer. It takes any keyword argument in silence: its neighbours' reach it too."""

    def __init__(self, name: str, owner: Branches) -> None:
        self._name, self.owner = name, owner

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        now, name, owner = self.owner.now, self._name, self.owner
        text, hidden = encoder_hidden_states, hidden_states
        if text is None and now.keep is not None:
            now.keep[name] = hidden
        context = hidden if text is None else text
        if text is None and now.background is not None and name in owner.bcms:
            first, second = hidden.chunk(2)
            context = torch.cat([owner.bcms[name](first, now.background[name]), second])
        merged = owner.merged_of(name) if now.rows.runs else None
        if merged is not None:
            query, key, value = self._merged(attn, merged, hidden, context, from_text=text is not None)
        else:
            query, key, value = (
                self._project(part, base, x)
                for (part, base), x in zip(_bases(attn).items(), (hidden, context, context), strict=False)
            )
        mixed = join_heads(attend(*(split_heads(x, attn.heads) for x in (query, key, value))))
        if merged is not None:
            out = _product(mixed, now.rows, merged.out, attn.to_out[0].bias)
        else:
            out = self._project("out", attn.to_out[0], mixed)
        if now.rows.runs and now.saim and (saim := owner.saim_of(name, out.dtype)) is not None:
            out = saim(out)
        return attn.to_out[1](out)

    def last_query_and_key(self, attn: Any, hidden: Tensor, context: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the query (1,T,C) and key (1,N,C) of a batch's last row; None = a pass over BCM's background alone."""
        if self.owner.now.keep is not None:
            return None
        bases = _bases(attn)
        query, key = (self._project(part, bases[part], x) for part, x in (("query", hidden), ("key", context)))
        return query[-1:], key[-1:]

    def _project(self, part: str, base: nn.Linear, x: Tensor) -> Tensor:
        """Return base(x) + the adapters' part: one product over all rows, then one over the runs of adapters."""
        plain = base(x)
        rows = self.owner.now.rows
        if not rows.runs:
            return plain
        change: LowRank = getattr(self.owner.changes[self._name], part)
        return plain + change(x, rows).to(plain.dtype)

    def _merged(
        self, attn: Any, merged: Merged, hidden: Tensor, context: Tensor, *, from_text: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        now = self.owner.now
        biases = [attn.to_q.bias, attn.to_k.bias, attn.to_v.bias]
        if context is hidden and merged.all is not None:
            bias = None if biases[0] is None else torch.cat(biases)
            query, key, value = _product(hidden, now.rows, merged.all, bias).chunk(3, dim=-1)
            return query, key, value
        query = _product(hidden, now.rows, merged.query, biases[0])
        if from_text and now.text is not None and self._name in now.text:
            return query, *now.text[self._name]
        bias = None if biases[1] is None else torch.cat(biases[1:])
        key, value = _product(context, now.rows, merged.key_value, bias).chunk(2, dim=-1)
        if from_text and now.text is not None:
            now.text[self._name] = key, value
        return query, key, value


def _product(x: Tensor, rows: Rows, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x (B,T,in) times each row's weight of a stack (adapters, in, out): (B,T,out)."""
    product = torch.bmm(rows.grouped(x), rows.take(weight)).reshape(*x.shape[:-1], -1)
    return product if bias is None else product + bias


def _bases(attn: Any) -> dict[str, nn.Linear]:
    """Return the four frozen projections of an attention layer by the names of their changes."""
    return {"query": attn.to_q, "key": attn.to_k, "value": attn.to_v, "out": attn.to_out[0]}
