"""Decoupled cross-attention: against the formula, silent when nothing is said, and from IP-Adapter files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flawsmith.errors import ConfigError
from flawsmith.nn.methods.sga import (
    SGA,
    SharedQueryAttention,
    attach,
    cross_attentions,
    fill_from_ip_adapter,
)
from flawsmith.nn.text import Text
from flawsmith.nn.weights import save_tensors


@pytest.fixture
def fitted(backbone: Any) -> tuple[Any, SGA]:
    fork = backbone.fork()
    sga = SGA(fork.unet, 16, tokens=3, hidden=24)
    attach(sga, fork.unet)
    return fork, sga


def said(back: Any) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    c = back.latent_channels
    latent, masked = torch.randn(2, c, 8, 8, generator=rng), torch.randn(2, c, 8, 8, generator=rng)
    text, mask = Text(torch.randn(2, 5, 32, generator=rng)), torch.ones(2, 1, 8, 8)
    return back.predict(latent, torch.tensor([3, 500]), text, mask=mask, masked=masked)


def test_silence_changes_nothing(backbone: Any, fitted: tuple[Any, SGA]) -> None:
    fork, sga = fitted
    with torch.no_grad():
        plain = said(backbone)
        assert torch.equal(said(fork), plain)
        tokens = sga(torch.randn(2, 16, generator=torch.Generator().manual_seed(2)))
        with sga.conditioned(tokens, 0.0):
            assert torch.equal(said(fork), plain)
        with sga.conditioned(tokens):
            heard = said(fork)
        assert not torch.allclose(heard, plain, atol=1e-4)
        assert torch.equal(said(fork), plain) and torch.equal(said(backbone), plain), "what was said lingers"
        with sga.conditioned(tokens, 0.5):
            half = said(fork)
    assert float((half - plain).norm()) < float((heard - plain).norm())


def test_a_layer_is_the_formula(fitted: tuple[Any, SGA]) -> None:
    """softmax(QK/sqrt d)V of the words, plus s times the same of the tokens, a head at a time."""
    fork, sga = fitted
    number, (_, layer) = 0, cross_attentions(fork.unet)[0]
    rng = torch.Generator().manual_seed(4)
    hidden = torch.randn(2, 16, layer.to_q.in_features, generator=rng)
    text, tokens = torch.randn(2, 5, 32, generator=rng), sga(torch.randn(2, 16, generator=rng))
    with torch.no_grad(), sga.conditioned(tokens, 0.7):
        ours = SharedQueryAttention(sga, number)(layer, hidden, text, anything=1, scale=9)
    query = hidden @ layer.to_q.weight.T
    width = query.shape[-1] // layer.heads
    mixed = torch.zeros_like(query)
    for head in range(layer.heads):
        own = slice(head * width, (head + 1) * width)
        for weight, source, key, value in (
            (1.0, text, layer.to_k.weight, layer.to_v.weight),
            (0.7, tokens, sga.keys[number].weight, sga.values[number].weight),
        ):
            scores = query[..., own] @ (source @ key.T)[..., own].transpose(1, 2) / width**0.5
            mixed[..., own] += weight * scores.softmax(-1) @ (source @ value.T)[..., own]
    expected = mixed @ layer.to_out[0].weight.T + layer.to_out[0].bias
    assert torch.allclose(ours, expected, atol=1e-5)


def test_it_starts_from_the_words_keys_and_values(fitted: tuple[Any, SGA]) -> None:
    fork, sga = fitted
    layers = [layer for _, layer in cross_attentions(fork.unet)]
    assert len(layers) == len(sga.keys) > 1
    for layer, key, value in zip(layers, sga.keys, sga.values, strict=True):
        assert torch.equal(layer.to_k.weight, key.weight) and torch.equal(layer.to_v.weight, value.weight)
        assert layer.to_k.weight.data_ptr() != key.weight.data_ptr()


def test_gradients_reach_the_adapter_alone(fitted: tuple[Any, SGA]) -> None:
    fork, sga = fitted
    with sga.conditioned(sga(torch.randn(2, 16, generator=torch.Generator().manual_seed(2)))):
        said(fork).square().mean().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in sga.parameters())
    assert all(p.grad is None for p in fork.unet.parameters())


def test_its_start_is_the_same_each_time(backbone: Any) -> None:
    stream = torch.get_rng_state()
    one, two = (SGA(backbone.unet, 16).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), stream)


def ip_adapter_file(sga: SGA, unet: Any, half: str = "ip_adapter") -> dict[str, dict[str, torch.Tensor]]:
    """Return the tree of a published IP-Adapter for this UNet: layers count self-attention too."""
    rng = torch.Generator().manual_seed(7)
    shapes = {"proj.weight": sga.lay.weight, "proj.bias": sga.lay.bias}
    shapes |= {"norm.weight": sga.level.weight, "norm.bias": sga.level.bias}
    layers: dict[str, torch.Tensor] = {}
    for number, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            out = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            for defect in "kv":
                layers[f"{number}.to_{defect}_ip.weight"] = torch.randn(out, 32, generator=rng)
    return {"image_proj": {k: torch.randn(v.shape, generator=rng) for k, v in shapes.items()}, half: layers}


@pytest.mark.parametrize("form", ["bin", "safetensors", "sg_adapter"])
def test_it_can_start_from_an_ip_adapter(fitted: tuple[Any, SGA], tmp_path: Path, form: str) -> None:
    fork, sga = fitted
    tree = ip_adapter_file(sga, fork.unet, "sg_adapter" if form == "sg_adapter" else "ip_adapter")
    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.bin")
    if form == "safetensors":
        save_tensors(path, {f"{half}.{key}": value for half, own in tree.items() for key, value in own.items()})
    else:
        torch.save(tree, path)
    fill_from_ip_adapter(sga, path, fork.unet)
    layers = tree.get("ip_adapter") or tree["sg_adapter"]
    numbers = sorted({int(name.split(".")[0]) for name in layers})
    assert torch.equal(sga.keys[1].weight, layers[f"{numbers[1]}.to_k_ip.weight"])
    assert torch.equal(sga.values[-1].weight, layers[f"{numbers[-1]}.to_v_ip.weight"])
    assert torch.equal(sga.lay.weight, tree["image_proj"]["proj.weight"])


def test_an_ip_adapter_for_another_unet_is_refused(fitted: tuple[Any, SGA], tmp_path: Path) -> None:
    fork, sga = fitted
    tree = ip_adapter_file(sga, fork.unet)
    tree["image_proj"]["proj.weight"] = torch.zeros(5, 5)
    torch.save(tree, tmp_path / "a.bin")
    before = sga.keys[0].weight.clone()
    with pytest.raises(ConfigError, match=r"image_proj.proj.weight is \(5, 5\), and this backbone needs"):
        fill_from_ip_adapter(sga, tmp_path / "a.bin", fork.unet)
    assert torch.equal(sga.keys[0].weight, before), "half of the file was taken"
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        fill_from_ip_adapter(sga, tmp_path / "none.bin", fork.unet)
    for other in (torch.zeros(2), [torch.zeros(2)], {}, {"image_proj": {"weight": 3}}):
        torch.save(other, tmp_path / "b.bin")
        with pytest.raises(ConfigError, match="b.bin: holds no table of named tensors"):
            fill_from_ip_adapter(sga, tmp_path / "b.bin", fork.unet)


@pytest.mark.parametrize(
    ("names", "kind"), [(("latents", "proj_in.weight"), "plus"), (("proj.0.weight", "norm.weight"), "FaceID")]
)
def test_an_ip_adapter_of_another_kind_is_refused_by_name(
    fitted: tuple[Any, SGA], tmp_path: Path, names: tuple[str, ...], kind: str
) -> None:
    fork, sga = fitted
    tree = {"image_proj": {name: torch.zeros(3) for name in names}, "ip_adapter": {}}
    torch.save(tree, tmp_path / "a.bin")
    with pytest.raises(
        ConfigError, match=f"is of the kind '{kind}', whose projection is another network; take the plain"
    ):
        fill_from_ip_adapter(sga, tmp_path / "a.bin", fork.unet)
