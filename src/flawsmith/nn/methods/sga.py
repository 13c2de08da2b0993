"""SGA, the semantic guided adapter: decoupled cross-attention over the text and, through the same queries, a reference.

    out = W_out( Attn(Q, K_text, V_text) + s * Attn(Q, K_ref, V_ref) )

Ye et al., "IP-Adapter" (2023), which AnomalyControl-CSM (arXiv 2412.06510) calls SGA. The text's path is untouched, so
without a reference the UNet is what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flawsmith.errors import ConfigError
from flawsmith.nn import builtin
from flawsmith.nn.attention import attend, gathered, projected, split_heads
from flawsmith.nn.weights import fresh_layers, load_tensors, save_tensors

BUILTIN = builtin.WEIGHTS / "adapter" / "adapter.safetensors"
"""Trained by `recipes/sga.py`."""


class SGA(nn.Module):
    """A reference's feature vector -> tokens, and their keys and values for every cross-attention layer. float32.

    Keys and values start as the text's own.

    Args:
        unet: A diffusers UNet2DConditionModel.
        width: Of the feature vector.
        tokens: How many the vector becomes.
        hidden: Width between vector and tokens.
    """

    # `lift` is the paper's BlipProj, `lay` and `level` its ImageProj: weights on disk know them by these names.

    def __init__(self, unet: Any, width: int, *, tokens: int = 4, hidden: int = 1024) -> None:
        super().__init__()
        layers = [layer for _, layer in cross_attentions(unet)]
        self.count, self.text_width = tokens, int(layers[0].to_k.in_features)
        with fresh_layers():
            self.lift = nn.Linear(width, hidden)
            self.lay = nn.Linear(hidden, tokens * self.text_width)
            self.level = nn.LayerNorm(self.text_width)
            self.keys, self.values = (
                nn.ModuleList(nn.Linear(self.text_width, layer.to_k.out_features, bias=False) for layer in layers)
                for _ in range(2)
            )
        with torch.no_grad():
            for layer, key, value in zip(layers, self.keys, self.values, strict=True):
                key.weight.copy_(layer.to_k.weight.float())  # type: ignore[operator]
                value.weight.copy_(layer.to_v.weight.float())  # type: ignore[operator]
        self._reference: list[tuple[Tensor, Tensor]] | None = None
        self._scale = 1.0

    def forward(self, vector: Tensor) -> Tensor:
        """Return tokens float32 (B,count,text_width) of feature vectors (B,width)."""
        return self.level(self.lay(self.lift(vector)).unflatten(-1, (self.count, self.text_width)))

    @contextmanager
    def conditioned(self, tokens: Tensor, scale: float = 1.0) -> Iterator[None]:
        """Let every layer attend to tokens (B,count,text_width), one row per row of the UNet's batch.

        Args:
            tokens: What `forward` returned; gradients pass to them.
            scale: Weight of the reference beside the text; 0 = text alone.
        """
        reference = [(key(tokens), value(tokens)) for key, value in zip(self.keys, self.values, strict=True)]
        with self._attending(reference, scale):
            yield

    def resumed(self) -> Callable[[], AbstractContextManager[None]]:
        """Return what brings the present reference back, for a block that is computed again."""
        return partial(self._attending, self._reference, self._scale)

    @contextmanager
    def _attending(self, reference: list[tuple[Tensor, Tensor]] | None, scale: float) -> Iterator[None]:
        before = self._reference, self._scale
        self._reference, self._scale = reference, scale
        try:
            yield
        finally:
            self._reference, self._scale = before

    def attended(self, number: int, query: Tensor) -> Tensor | None:
        """Return what a layer's queries (B,heads,T,d) take from the reference, weighted; None where there is none."""
        if self._reference is None or self._scale == 0:
            return None
        heads = query.shape[1]
        key, value = (split_heads(part.to(query.dtype), heads) for part in self._reference[number])
        return self._scale * attend(query, key, value)


class SharedQueryAttention:
    """Cross-attention over the text and, with the same queries, over an SGA's tokens; any other keyword is ignored."""

    def __init__(self, sga: SGA, number: int) -> None:
        self.owner, self._number = sga, number

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
        reference = self.owner.attended(self._number, query)
        if reference is not None:
            mixed = mixed + reference
        return gathered(attn, mixed)


def cross_attentions(unet: Any) -> list[tuple[str, Any]]:
    """Return (processor's name, layer) of every cross-attention, in the order of `unet.attn_processors`.

    Raises:
        ConfigError: there is none.
    """
    layers = ((name, unet.get_submodule(name.removesuffix(".processor"))) for name in unet.attn_processors)
    crossing = [(name, layer) for name, layer in layers if layer.is_cross_attention]
    if not crossing:
        raise ConfigError("this backbone's UNet has no cross-attention, so no reference can reach it")
    return crossing


def attach(sga: SGA, unet: Any) -> None:
    """Let a UNet (of a `Backbone.fork()`) attend to an SGA's tokens; its self-attention stays as it is."""
    processors = dict(unet.attn_processors)
    for number, (name, _) in enumerate(cross_attentions(unet)):
        processors[name] = SharedQueryAttention(sga, number)
    unet.set_attn_processor(processors)


def fill_from_ip_adapter(sga: SGA, path: Path, unet: Any) -> None:
    """Fill tokens' projection, keys and values from an IP-Adapter file (.bin or .safetensors).

    Its numbers count all attention layers; those of cross-attention are taken. `lift` has no counterpart there.

    Raises:
        ConfigError: the file is missing, no IP-Adapter, of another kind ("plus"), or made for another UNet.
    """
    tensors = _ip_adapter(path)
    for kind, mark in (("plus", "image_proj.latents"), ("FaceID", "image_proj.proj.0.weight")):
        if mark in tensors:
            raise ConfigError(
                f"generator.settings.ip_adapter: {path}: is of the kind {kind!r}, whose projection is another network; "
                "take the plain one, e.g. ip-adapter_sd15"
            )
    wanted: dict[str, Any] = {
        "image_proj.proj.weight": sga.lay.weight,
        "image_proj.proj.bias": sga.lay.bias,
        "image_proj.norm.weight": sga.level.weight,
        "image_proj.norm.bias": sga.level.bias,
    }
    names = list(unet.attn_processors)
    for number, (name, _) in enumerate(cross_attentions(unet)):
        for part, layers in (("k", sga.keys), ("v", sga.values)):
            wanted[f"ip_adapter.{names.index(name)}.to_{part}_ip.weight"] = layers[number].weight
    for name, parameter in wanted.items():
        if name not in tensors or tensors[name].shape != parameter.shape:
            shape = tuple(tensors[name].shape) if name in tensors else "missing"
            raise ConfigError(
                f"generator.settings.ip_adapter: {path}: {name} is {shape}, and this backbone needs "
                f"{tuple(parameter.shape)}; take an IP-Adapter that was made for it"
            )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(tensors[name].float())


def save_builtin(sga: SGA, path: Path, backbone: str, csm: str) -> None:
    """Write an SGA (float16) with the fingerprints of the backbone and the CSM that it was trained with."""
    tensors = {name: parameter.half() for name, parameter in sga.named_parameters()}
    save_tensors(path, tensors, {"backbone": backbone, "reader": csm})


def fill_from_builtin(sga: SGA, backbone: str, csm: str, path: Path = BUILTIN) -> bool:
    """Fill an SGA with the built-in one where that was trained with this backbone and CSM and has its sizes.

    Returns:
        Whether it was; otherwise the SGA is as it was.
    """
    if not path.is_file() or load_tensors(path)[1] != {"backbone": backbone, "reader": csm}:
        return False
    try:
        fill(sga, path)
    except ConfigError:
        return False
    return True


def fill(sga: SGA, path: Path) -> None:
    """Fill an SGA with one that `save_builtin` wrote.

    Raises:
        ConfigError: the file is missing or of another architecture; the SGA is then as it was.
    """
    if not path.is_file():
        raise ConfigError(f"SGA: {path} is not there")
    tensors = load_tensors(path)[0]
    parameters = dict(sga.named_parameters())
    if set(parameters) != set(tensors) or any(
        parameters[name].shape != tensor.shape for name, tensor in tensors.items()
    ):
        raise ConfigError(f"SGA: {path} is for a backbone, tokens or hidden of another size")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor.float())


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
    for name, value in tree.items() if isinstance(tree, dict) else ():
        for key, tensor in value.items() if isinstance(value, dict) else ((None, value),):
            flat[f"{name}.{key}" if key else name] = tensor
    if not flat or not all(isinstance(tensor, Tensor) for tensor in flat.values()):
        raise ConfigError(f"generator.settings.ip_adapter: {path}: holds no table of named tensors")
    return {name.replace("sg_adapter.", "ip_adapter."): tensor for name, tensor in flat.items()}


def guided_tokens(sga: SGA, vector: Tensor, guidance: float) -> Tensor:
    """Return tokens for a guided batch: those of no reference first, then the vectors'; the vectors' alone at 1."""
    tokens: Tensor = sga(vector)
    return tokens if guidance == 1.0 else torch.cat([sga(torch.zeros_like(vector)), tokens])


def defect_numbers(names: Sequence[tuple[str, str]]) -> Tensor:
    """Return int64 (B,): equal for equal (product, defect type), the same in every process."""
    import zlib

    return torch.tensor([zlib.crc32("\n".join(pair).encode()) for pair in names], dtype=torch.int64)
