"""nn/methods/attention_maps.py: against diffusers' own attention scores; and the places of words in a prompt."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from flawsmith.nn.attention import use_small_attention
from flawsmith.nn.methods.attention_maps import AttentionMaps

SIZE, TOKENS, STEPS = (8, 12), 7, 3


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    made = UNet2DConditionModel(
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
    return made.eval().requires_grad_(False)


class Recorded:
    """diffusers' plain attention, written with its own `get_attention_scores`, which are kept."""

    def __init__(self) -> None:
        self.scores: list[np.ndarray] = []

    def __call__(self, attn: Any, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        context = hidden if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(project(x))
            for project, x in ((attn.to_q, hidden), (attn.to_k, context), (attn.to_v, context))
        )
        scores = attn.get_attention_scores(query, key)
        if encoder_hidden_states is not None:  # heads of the second row, which is the prompted one: (places, tokens)
            self.scores.append(scores.unflatten(0, (len(hidden), -1))[1].mean(0).numpy())
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(scores, value)))


def denoised(unet: UNet2DConditionModel) -> list[Tensor]:
    """Three steps on a batch of dropped and prompted text."""
    rng = torch.Generator().manual_seed(1)
    texts = torch.randn(2, TOKENS, 12, generator=rng) * 3
    latents = [torch.randn(2, 4, *SIZE, generator=rng) for _ in range(STEPS)]
    return [unet(latent, 100 * step, texts, return_dict=False)[0] for step, latent in enumerate(latents)]


def test_it_is_the_mean_of_diffusers_own_scores(unet: UNet2DConditionModel) -> None:
    recorded = Recorded()
    unet.set_attn_processor(recorded)
    denoised(unet)
    use_small_attention(unet)
    maps = []
    for scores in recorded.scores:
        rows, columns = {96: SIZE, 24: (4, 6)}[len(scores)]
        scaled = [cv2.resize(one.reshape(rows, columns), SIZE[::-1], interpolation=cv2.INTER_CUBIC) for one in scores.T]
        maps.append(np.stack(scaled))
    assert {len(scores) for scores in recorded.scores} == {96, 24}, "layers of two sizes"
    listener = AttentionMaps(unet)
    with listener.listening():
        denoised(unet)
    heard = listener.take(SIZE)
    assert heard is not None and heard.shape == (TOKENS, *SIZE)
    assert np.allclose(heard.numpy(), np.clip(np.mean(maps, axis=0), 0, 1), atol=1e-5)
    assert torch.allclose(heard.sum(0), torch.ones(SIZE), atol=1e-4), "a place shares its attention among all tokens"
    assert heard.std(0).max() > 0.02, "nothing is told apart"
    assert listener.take(SIZE) is None, "what was taken is forgotten"


def test_listening_changes_no_bit_and_ends(unet: UNet2DConditionModel) -> None:
    use_small_attention(unet)
    before, listener = denoised(unet), AttentionMaps(unet)
    with listener.listening():
        assert all(torch.equal(*both) for both in zip(before, denoised(unet), strict=True))
    listener.take(SIZE)
    denoised(unet)
    assert listener.take(SIZE) is None


def test_a_latent_of_another_shape_is_said(unet: UNet2DConditionModel) -> None:
    listener = AttentionMaps(unet)
    with listener.listening():
        denoised(unet)
    with pytest.raises(ValueError, match="96 places are no halving of a latent of 8 x 11"):
        listener.take((8, 11))


@pytest.mark.parametrize(
    ("prompt", "words", "there"),
    [
        ("a photo of a crack", "crack", True),
        ("a photo of a crack", "a crack", True),
        ("a photo of a crack on screw", "dent", False),
        ("a photo of a crack", "cracks", False),
        (" ".join(["photo"] * 200) + " of a crack", "crack", False),  # cut off, so no token of it is read
        ("a photo of a crack", "", False),
    ],
)
def test_where_words_stand_in_a_prompt(backbone: Any, prompt: str, words: str, there: bool) -> None:
    places, tokenizer = backbone.text_encoder.positions(prompt, words), backbone.text_encoder.tokenizers[0]
    read = tokenizer.convert_ids_to_tokens(backbone.tokens([prompt])[0].tolist())
    said = "".join(read[place] for place in places).replace("</w>", " ").strip()
    assert said == (words if there else "")
