"""Decoupled cross-attention: a UNet that hears tokens of a reference beside the words, through the same queries.

    out = W_out( Attn(Q, K_text, V_text) + s * Attn(Q, K_ref, V_ref) )

Ye et al., "IP-Adapter" (2023), and the SGA of AnomalyControl-CSM (arXiv 2412.06510). The words' path is untouched, so
without a reference the UNet is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flawsmith.errors import ConfigError
from flawsmith.nn.attention import attend, gathered, projected
from flawsmith.nn.weights import load_tensors, save_tensors

BUILTIN = Path(__file__).resolve().parent.parent / "weights" / "adapter" / "adapter.safetensors"
"""Made by `recipes/ip_adapter.py`."""


class Adapter(nn.Module):
    """A vector -> tokens, and keys and values of those tokens for every cross-attention layer. float32.

    Keys and values start as the words' own.

    Args:
        unet: A diffusers UNet2DConditionModel.
        width: Of the vector.
        tokens: How many the vector becomes.
        hidden: Width between vector and tokens.
    """

    def __init__(self, unet: Any, width: int, *, tokens: int = 4, hidden: int = 1024) -> None:
        super().__init__()
        found = [module for _, module in cross_attentions(unet)]
        self.count, self.spoken = tokens, int(found[0].to_k.in_features)
        # New layers draw random numbers; the global stream is not ours to move.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.lift = nn.Linear(width, hidden)
            self.lay = nn.Linear(hidden, tokens * self.spoken)
            self.level = nn.LayerNorm(self.spoken)
            self.keys, self.values = (
                nn.ModuleList(nn.Linear(self.spoken, module.to_k.out_features, bias=False) for module in found)
                for _ in range(2)
            )
        with torch.no_grad():
            for module, key, value in zip(found, self.keys, self.values, strict=True):
                key.weight.copy_(module.to_k.weight.float())  # type: ignore[operator]
                value.weight.copy_(module.to_v.weight.float())  # type: ignore[operator]
        self._said: list[tuple[Tensor, Tensor]] | None = None
        self._scale = 1.0

    def forward(self, vector: Tensor) -> Tensor:
        """Return tokens (B,count,spoken) of vectors (B,width)."""
        return self.level(self.lay(self.lift(vector)).unflatten(-1, (self.count, self.spoken)))

    @contextmanager
    def saying(self, tokens: Tensor, scale: float = 1.0) -> Iterator[None]:
        """Let every layer hear tokens (B,count,spoken), a row a row of the UNet's batch; gradients pass to them.

        Args:
            tokens: What `forward` returned.
            scale: Weight of the reference beside the words; 0 = words alone.
        """
        self._said = [(k(tokens), v(tokens)) for k, v in zip(self.keys, self.values, strict=True)]
        self._scale = scale
        try:
            yield
        finally:
            self._said = None

    def heard(self, number: int, query: Tensor) -> Tensor | None:
        """Return what a layer's queries (B,heads,T,d) find in the reference, weighted; None when nothing is said."""
        if self._said is None or self._scale == 0:
            return None
        key, value = (
            said.to(query.dtype).unflatten(-1, (query.shape[1], -1)).transpose(1, 2) for said in self._said[number]
        )
        return self._scale * attend(query, key, value)


class SharedQueryAttention:
    """Cross-attention over words and, with the same queries, over an adapter's tokens; any other keyword is ignored."""

    def __init__(self, adapter: Adapter, number: int) -> None:
        self._adapter, self._number = adapter, number

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
        query, key, value = projected(attn, hidden_states, context)
        mixed = attend(query, key, value)
        heard = self._adapter.heard(self._number, query)
        if heard is not None:
            mixed = mixed + heard
        return gathered(attn, mixed)


def cross_attentions(unet: Any) -> list[tuple[str, Any]]:
    """Return (processor's name, layer) of every cross-attention, in the order of `unet.attn_processors`."""
    found = []
    for name in unet.attn_processors:
        layer = unet.get_submodule(name.removesuffix(".processor"))
        if layer.is_cross_attention:
            found.append((name, layer))
    if not found:
        raise ConfigError("this backbone's UNet has no cross-attention, so nothing can be said to it")
    return found


def attach(adapter: Adapter, unet: Any) -> None:
    """Let a UNet (of a `Backbone.fork()`) hear an adapter; its self-attention stays as it is."""
    processors = dict(unet.attn_processors)
    for number, (name, _) in enumerate(cross_attentions(unet)):
        processors[name] = SharedQueryAttention(adapter, number)
    unet.set_attn_processor(processors)


def fill_from_ip_adapter(adapter: Adapter, path: Path, unet: Any) -> None:
    """Fill tokens' projection, keys and values from an IP-Adapter file (.bin or .safetensors).

    Its numbers count all attention layers; those of cross-attention are taken. `lift` has no counterpart there.

    Raises:
        ConfigError: the file is missing, of another kind, or made for another UNet.
    """
    tensors = _ip_adapter(path)
    wanted: dict[str, Any] = {f"image_proj.{theirs}": ours for theirs, ours in _names(adapter).items()}
    places = list(unet.attn_processors)
    for number, (name, _) in enumerate(cross_attentions(unet)):
        for kind, layers in (("k", adapter.keys), ("v", adapter.values)):
            wanted[f"ip_adapter.{places.index(name)}.to_{kind}_ip.weight"] = layers[number].weight
    for name, parameter in wanted.items():
        if name not in tensors or tensors[name].shape != parameter.shape:
            there = tuple(tensors[name].shape) if name in tensors else "missing"
            raise ConfigError(
                f"generator.settings.ip_adapter: {path}: {name} is {there}, and this backbone needs "
                f"{tuple(parameter.shape)}; take an IP-Adapter that was made for it"
            )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(tensors[name].float())


def save_builtin(adapter: Adapter, path: Path, backbone: str, reader: str) -> None:
    """Write an adapter (float16) with the fingerprints of the backbone and the reader that it was trained with."""
    tensors = {name: parameter.half() for name, parameter in adapter.named_parameters()}
    save_tensors(path, tensors, {"backbone": backbone, "reader": reader})


def fill_from_builtin(adapter: Adapter, backbone: str, reader: str, path: Path = BUILTIN) -> bool:
    """Fill an adapter with the built-in one where that was trained with this backbone and reader and has its sizes.

    Returns:
        Whether it was; otherwise the adapter is as it was.
    """
    if not path.is_file() or load_tensors(path)[1] != {"backbone": backbone, "reader": reader}:
        return False
    try:
        fill(adapter, path)
    except ConfigError:
        return False
    return True


def fill(adapter: Adapter, path: Path) -> None:
    """Fill an adapter with one that `save_builtin` wrote.

    Raises:
        ConfigError: the file is missing or of another architecture; the adapter is then as it was.
    """
    if not path.is_file():
        raise ConfigError(f"adapter: {path} is not there")
    tensors = load_tensors(path)[0]
    own = dict(adapter.named_parameters())
    if set(own) != set(tensors) or any(own[name].shape != tensor.shape for name, tensor in tensors.items()):
        raise ConfigError(f"adapter: {path} is for a backbone, tokens or hidden of another size")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor.float())


def _names(adapter: Adapter) -> dict[str, Tensor]:
    return {
        "proj.weight": adapter.lay.weight,
        "proj.bias": adapter.lay.bias,
        "norm.weight": adapter.level.weight,
        "norm.bias": adapter.level.bias,
    }


def _ip_adapter(path: Path) -> dict[str, Tensor]:
    """Read an IP-Adapter as flat names; the release of AnomalyControl-CSM calls the second half sg_adapter."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tree: dict[str, Any] = load_file(path)
        else:
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file fails in as many ways as there are formats
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"generator.settings.ip_adapter: {path}: cannot be read as weights ({reason[:120]})"
        ) from None
    flat: dict[str, Tensor] = {}
    for name, value in tree.items():
        for key, tensor in value.items() if isinstance(value, dict) else ((None, value),):
            flat[f"{name}.{key}" if key else name] = tensor
    return {name.replace("sg_adapter.", "ip_adapter."): tensor for name, tensor in flat.items()}


def both(adapter: Adapter, vector: Tensor, guidance: float) -> Tensor:
    """Return tokens for a guided batch: those of no reference first, then the vectors'; the vectors' alone at 1."""
    tokens: Tensor = adapter(vector)
    return tokens if guidance == 1.0 else torch.cat([adapter(torch.zeros_like(vector)), tokens])


def kinds_of(names: Sequence[tuple[str, str]]) -> Tensor:
    """Return int64 (B,): equal for equal (product, kind), the same in every process."""
    import zlib

    return torch.tensor([zlib.crc32("\n".join(pair).encode()) for pair in names], dtype=torch.int64)
