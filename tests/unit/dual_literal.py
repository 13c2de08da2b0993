"""DualAnoDiff's attention as its authors compute it: slow, literal, one branch after the other. A reference for tests.

Rows are interleaved, picture then damage of each pair in turn. Each branch runs the frozen projections for itself; SAIM
is attention over two tokens with five full matrices, its key's bias included; BCM mixes what enters the projections.
The benchmark of speed runs the same code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

PARTS = ("query", "key", "value", "out")


class LiteralLayer(nn.Module):
    """What one attention layer is given: two sets of low-rank matrices, SAIM, BCM."""

    def __init__(self, change: Any, exchange: Any | None, backdrop: Any | None) -> None:
        super().__init__()
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for branch in (0, 1):
            for part in PARTS:
                own = getattr(change, part)
                self.down[f"{part}{branch}"] = nn.Parameter(own.down.detach()[branch].clone())
                self.up[f"{part}{branch}"] = nn.Parameter(own.up.detach()[branch].clone())
        self.has_saim, self.has_bcm = exchange is not None, backdrop is not None
        if exchange is not None:
            inner, width = exchange.inner.weight.shape
            self.norm = nn.LayerNorm(width, eps=1e-6)
            self.t_i, self.t_o = nn.Linear(width, inner), nn.Linear(inner, width)
            self.t_q, self.t_k, self.t_v = (nn.Linear(inner, inner) for _ in range(3))
            for own, other in (
                (self.norm, exchange.norm),
                (self.t_i, exchange.inner),
                (self.t_q, exchange.query),
                (self.t_v, exchange.value),
                (self.t_o, exchange.out),
            ):
                own.load_state_dict(other.state_dict())
            with torch.no_grad():
                self.t_k.weight.copy_(exchange.key.weight)
        if backdrop is not None:
            self.a = nn.Parameter(backdrop.share.detach().clone())
            self.mlp = nn.Sequential(
                nn.Linear(*reversed(backdrop.inner.weight.shape)), nn.Linear(*reversed(backdrop.outer.weight.shape))
            )
            self.mlp[0].load_state_dict(backdrop.inner.state_dict())
            self.mlp[1].load_state_dict(backdrop.outer.state_dict())

    def lora(self, part: str, branch: int, x: Tensor) -> Tensor:
        return x @ self.down[f"{part}{branch}"].T @ self.up[f"{part}{branch}"].T


class Literal(nn.Module):
    """The layers of a whole UNet, with the processors that use them; `mode` says which pass is under way.

    Args:
        unet: A UNet of one's own.
        branches: The `Branches` whose weights are copied.
    """

    def __init__(self, unet: Any, branches: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self.mode = "pair"
        """"pair", "w" (the background alone, kept) or "r" (the pair, seeing the background)."""
        self.ref: dict[str, Tensor] = {}
        for path, attn in unet.named_modules():
            if type(attn).__name__ == "Attention":
                name = path.replace(".", "_")
                parts = [own[name] if name in own else None for own in (branches.saims, branches.bcms)]
                self.layers[name] = LiteralLayer(branches.changes[name], *parts)
                attn.set_processor(LiteralProcessor(name, self))


class LiteralProcessor:
    def __init__(self, name: str, owner: Literal) -> None:
        self._name, self._owner = name, owner

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        layer: Any = self._owner.layers[self._name]
        mode = self._owner.mode
        if mode == "w":
            if encoder_hidden_states is None:
                self._owner.ref[self._name] = hidden_states
            return self._branch(attn, layer, 0, hidden_states, encoder_hidden_states, None)
        said = []
        for branch in (0, 1):
            h = hidden_states[branch::2]
            text = None if encoder_hidden_states is None else encoder_hidden_states[branch::2]
            see = mode == "r" and branch == 0 and text is None and layer.has_bcm
            said.append(self._branch(attn, layer, branch, h, text, self._owner.ref[self._name] if see else None))
        H = torch.stack(said, dim=1)  # b, 2, d, C
        if layer.has_saim:
            x = layer.t_i(layer.norm(H)).transpose(1, 2)  # b, d, 2, C: two tokens at each position
            q, k, v = layer.t_q(x), layer.t_k(x), layer.t_v(x)
            weights = (q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5).softmax(-1)
            H = H + layer.t_o(weights @ v).transpose(1, 2)
        return attn.to_out[1](H.flatten(0, 1))

    def _branch(
        self, attn: Any, layer: Any, branch: int, h: Tensor, text: Tensor | None, ground: Tensor | None
    ) -> Tensor:
        c = h if text is None else text
        if ground is not None:
            c = (1 - layer.a) * h + layer.a * layer.mlp(ground)
        q = attn.to_q(h) + layer.lora("query", branch, h)
        k = attn.to_k(c) + layer.lora("key", branch, c)
        v = attn.to_v(c) + layer.lora("value", branch, c)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        o = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return attn.to_out[0](o) + layer.lora("out", branch, o)
