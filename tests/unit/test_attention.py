"""nn/attention.py: our processor says what diffusers' own says, on both sides of the switch, gradients included."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn

from flawsmith.nn import attention
from flawsmith.nn.attention import SmallAttention, attend, use_small_attention


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=8,
    )


@pytest.fixture(params=["explicit", "fused"])
def side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(attention, "EXPLICIT_SCORES", 10**9 if request.param == "explicit" else 0)
    return request.param


def layers(unet: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in unet.named_modules() if type(module).__name__ == "Attention"}


def said(layer: nn.Module, processor: object, x: Tensor, text: Tensor | None) -> list[Tensor]:
    layer = copy.deepcopy(layer)
    layer.set_processor(processor)
    x = x.clone().requires_grad_(True)
    text = None if text is None else text.clone().requires_grad_(True)
    out = layer(x, encoder_hidden_states=text)
    out.square().sum().backward()
    inputs = [x.grad] if text is None else [x.grad, text.grad]
    return [out.detach(), *inputs, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("defect", ["attn1", "attn2"])
def test_a_layer_says_what_diffusers_processor_says(unet, side, defect):
    name, layer = next((n, m) for n, m in layers(unet).items() if n.endswith(defect))
    width = layer.to_q.in_features
    x = torch.randn(2, 30, width, generator=torch.Generator().manual_seed(1))
    text = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(2)) if defect == "attn2" else None
    for ours, theirs in zip(
        said(layer, SmallAttention(), x, text), said(layer, AttnProcessor2_0(), x, text), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_a_whole_unet_says_the_same(unet, side):
    ours = copy.deepcopy(unet)
    use_small_attention(ours)
    assert all(isinstance(m.processor, SmallAttention) for m in layers(ours).values())
    rng = torch.Generator().manual_seed(3)
    x, text = torch.randn(2, 4, 8, 8, generator=rng), torch.randn(2, 5, 12, generator=rng)
    t = torch.tensor([10, 700])
    found, wanted = (net(x, t, text, return_dict=False)[0] for net in (ours, unet))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for net, out in ((ours, found), (unet, wanted)):
        net.zero_grad()
        out.square().mean().backward()
    grads = {n: p.grad for n, p in unet.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-3, atol=1e-5, msg=name)
    unet.zero_grad()


def test_both_sides_of_the_switch_agree(monkeypatch):
    q, k, v = (torch.randn(2, 3, 20, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    monkeypatch.setattr(attention, "EXPLICIT_SCORES", 400)
    explicit = attend(q, k, v)
    monkeypatch.setattr(attention, "EXPLICIT_SCORES", 399)
    fused = attend(q, k, v)
    torch.testing.assert_close(explicit, fused, rtol=1e-5, atol=1e-6)
    by_hand = torch.softmax(torch.einsum("bhqd,bhkd->bhqk", q, k) / 8**0.5, -1)
    torch.testing.assert_close(explicit, torch.einsum("bhqk,bhkd->bhqd", by_hand, v), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_kind_of_number_is_kept(side, dtype):
    q, k, v = (torch.randn(1, 2, 9, 4, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(3))
    out = attend(q, k, v)
    assert out.dtype == dtype and out.shape == (1, 2, 9, 4)
    wanted = nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(out.double(), wanted, rtol=0.02, atol=0.02 if dtype == torch.bfloat16 else 1e-5)


def test_autocast_agrees_with_float32(unet, side):
    layer = copy.deepcopy(next(iter(layers(unet).values())))
    layer.set_processor(SmallAttention())
    x = torch.randn(1, 16, layer.to_q.in_features, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x)
    torch.testing.assert_close(rough.float(), layer(x), rtol=0.05, atol=0.05)


def test_a_neighbours_keywords_are_taken_in_silence(unet):
    layer = copy.deepcopy(next(iter(layers(unet).values())))
    x = torch.randn(1, 6, layer.to_q.in_features)
    processor = SmallAttention()
    torch.testing.assert_close(processor(layer, x, scale=2.0, meant_for_another=object()), processor(layer, x))


def test_a_network_whose_attention_is_not_plain_is_left_alone():
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(16,), norm_num_groups=8, latent_channels=2)
    before = {name: m.processor for name, m in layers(vae).items()}
    assert before  # its middle block attends, with a group norm and a residual of its own
    use_small_attention(vae)
    assert {name: m.processor for name, m in layers(vae).items()} == before
