"""nn/methods/control.py: a ControlNet that at first changes nothing, for UNets of any number of input channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from flawsmith.nn.methods.control import Control, control_from_unet
from flawsmith.nn.weights import tensor_hash


def unet(channels: int, latent: int, seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=latent,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def inputs(latent: int, count: int = 2, factor: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    hint = (torch.rand(count, 1, 8 * factor, 8 * factor, generator=rng) > 0.7).float().expand(-1, 3, -1, -1)
    text = torch.randn(count, 5, 12, generator=rng)
    return torch.randn(count, latent, 8, 8, generator=rng), torch.randint(1000, (count,), generator=rng), text, hint


def woken(control: Control) -> Control:
    """Give the zero layers values, as training would."""
    rng = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in control.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=rng))
    return control


SHAPES = [(4, 4), (9, 4), (17, 8), (8, 8)]


@pytest.mark.parametrize("channels, latent", SHAPES)
def test_at_first_it_changes_nothing(channels: int, latent: int):
    control = control_from_unet(unet(channels, latent), latent, 8)
    down, middle = control(*inputs(latent))
    assert len(down) == 4 and not any(x.any() for x in (*down, middle))
    assert [tuple(x.shape[1:]) for x in down] == [(16, 8, 8), (16, 8, 8), (16, 4, 4), (32, 4, 4)]


@pytest.mark.parametrize("channels, latent", SHAPES)
def test_it_starts_as_the_units_encoder_with_the_first_convolution_cut(channels: int, latent: int):
    whole = unet(channels, latent)
    net = control_from_unet(whole, latent, 8).net
    assert net.conv_in.weight.shape == (16, latent, 3, 3) and net.config.in_channels == latent
    assert torch.equal(net.conv_in.weight, whole.conv_in.weight[:, :latent])
    assert torch.equal(net.conv_in.bias, whole.conv_in.bias)
    theirs = whole.state_dict()
    copied = [n for n in net.state_dict() if n.startswith(("down_blocks", "mid_block", "time_embedding"))]
    assert len(copied) > 20
    for name in copied:
        assert torch.equal(net.state_dict()[name], theirs[name]), name
        assert net.state_dict()[name].data_ptr() != theirs[name].data_ptr(), f"{name} shares the UNet's storage"


def test_cut_equals_whole_when_mask_and_masked_latent_are_nought():
    whole = unet(9, 4)
    net = control_from_unet(whole, 4, 8).net
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(net.conv_in(x), whole.conv_in(torch.cat([x, torch.zeros(2, 5, 8, 8)], 1)))


def test_it_is_trained_in_float32_and_the_unet_is_left_alone():
    half = unet(9, 4).requires_grad_(False).bfloat16().eval()
    before = tensor_hash(half.state_dict())
    control = control_from_unet(half, 4, 8)
    assert {p.dtype for p in control.parameters()} == {torch.float32}
    assert control.training and all(p.requires_grad for p in control.parameters())
    assert not half.training and not any(p.requires_grad for p in half.parameters())
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16} and tensor_hash(half.state_dict()) == before


def test_it_is_made_the_same_every_time_and_moves_no_global_stream():
    network = unet(17, 8)
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    first = control_from_unet(network, 8, 8)
    assert torch.equal(torch.rand(4), wanted)
    torch.manual_seed(12345)
    assert tensor_hash(control_from_unet(network, 8, 8).state_dict()) == tensor_hash(first.state_dict())


def test_two_of_one_unet_share_nothing():
    network = unet(9, 4)
    first, second = control_from_unet(network, 4, 8), control_from_unet(network, 4, 8)
    assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}


def test_an_embedded_hint_says_what_the_raw_one_says():
    control = woken(control_from_unet(unet(17, 8), 8, 8)).eval()
    latent, t, text, hint = inputs(8)
    embedded = control.embed_hint(hint)
    assert embedded.shape == (2, 16, 8, 8)
    raw, once = control(latent, t, text, hint), control(latent, t, text, embedded)
    assert raw[1].abs().max() > 1e-3
    for a, b in zip((*raw[0], raw[1]), (*once[0], once[1]), strict=True):
        assert torch.equal(a, b)
    again = control(latent, t, text, hint)  # the embedding is in its place again
    assert torch.equal(again[1], raw[1])


def test_the_hint_is_seen():
    control = woken(control_from_unet(unet(9, 4), 4, 8)).eval()
    latent, t, text, hint = inputs(4)
    assert (control(latent, t, text, hint)[1] - control(latent, t, text, 1 - hint)[1]).abs().max() > 1e-4


def test_a_failure_leaves_the_embedding_in_its_place():
    control = control_from_unet(unet(9, 4), 4, 8)
    latent, t, text, hint = inputs(4)
    embedding = control.net.controlnet_cond_embedding
    with pytest.raises(RuntimeError):
        control(latent, t, text[:, :, :5], control.embed_hint(hint))
    assert control.net.controlnet_cond_embedding is embedding


def test_a_raw_hint_of_the_latents_own_size_is_refused_not_misread():
    control = control_from_unet(unet(9, 4), 4, 8)
    latent, t, text, _ = inputs(4)
    for channels in (1, 3):
        with pytest.raises((RuntimeError, ValueError)):
            control(latent, t, text, torch.ones(2, channels, 8, 8))


def test_scale_scales_the_residuals():
    control = woken(control_from_unet(unet(9, 4), 4, 8)).eval()
    given = inputs(4)
    one, half, none = (control(*given, scale=scale) for scale in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half[1], one[1] / 2)
    torch.testing.assert_close(half[0][2], one[0][2] / 2)
    assert not none[1].any()


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_the_hint_is_halved_to_the_latent(factor: int):
    control = control_from_unet(unet(9, 4), 4, factor)
    *given, hint = inputs(4, factor=factor)
    assert control.embed_hint(hint).shape == (2, 16, 8, 8)
    assert not control(*given, hint)[1].any()


def test_training_reaches_every_parameter_in_the_end():
    control = woken(control_from_unet(unet(9, 4), 4, 8))
    down, middle = control(*inputs(4))
    sum(x.square().mean() for x in (*down, middle)).backward()
    idle = [name for name, p in control.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_it_can_be_saved_and_filled_into_a_new_one(tmp_path: Any):
    from flawsmith.nn.weights import load_modules, save_modules

    network = unet(17, 8)
    control = woken(control_from_unet(network, 8, 8))
    save_modules(tmp_path, {"control": control}, {})
    fresh = control_from_unet(network, 8, 8)
    load_modules(tmp_path, {"control": fresh})
    given = inputs(8)
    assert torch.equal(control.eval()(*given)[1], fresh.eval()(*given)[1])
