"""Where the built-in backbone lives, and what it is made of.

Widths are chosen for the machine that will run it (measured on two cores with AMX: a 3x3 convolution of 128 channels
runs at five times the FLOP/s of one of 64), and everything is one of diffusers' or transformers' own classes:

    autoencoder   AutoencoderDC, 8x smaller, 16 channels, widths 64/128/256 by pixel shuffle, nothing at full resolution
    text encoder  CLIPTextModel, 2 layers of 128, with a byte-pair vocabulary of surfaces, parts and defects
    UNet          UNet2DConditionModel, inpainting form (16 + 1 + 16 channels in), widths 128/192/256, 16x16 latents
    schedule      v-prediction, zero terminal signal-to-noise (Lin et al. 2024)

`recipes/backbone.py` trains it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flawsmith.errors import BackboneError

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
"""The folder of all weights that came with the package."""
LATENT_CHANNELS = 16
TEXT_WIDTH = 128
TEXT_LENGTH = 24
WINDOW = 128
"""Side of the window that the built-in backbone is trained on, in pixels."""

SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def folder() -> Path:
    """Return the folder of the weights that came with the package.

    Raises:
        BackboneError: this installation has none.
    """
    place = Path(__file__).resolve().parent.parent / "weights" / "builtin"
    if not (place / "unet").is_dir():
        raise BackboneError(
            f"the built-in backbone is not at {place}; make one with `flawsmith backbone OUT` "
            "and set backbone.source to it"
        )
    return place


def autoencoder(width: int = 128) -> Any:
    """Return an untrained autoencoder, `width` wide at a quarter of the resolution; a multiple of 16.

    It shrinks by moving pixels into channels: a start from principal components needs that (`nn/pca_init.py`), and it
    spares layers at full resolution, where width is dear.
    """
    from diffusers import AutoencoderDC

    widths = (width // 2, width // 2, width, 2 * width)
    none: tuple[tuple[int, ...], ...] = ((),) * 4
    return AutoencoderDC(
        latent_channels=LATENT_CHANNELS,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=(0, 1, 1, 1),
        decoder_layers_per_block=(0, 1, 1, 2),
        encoder_qkv_multiscales=none,
        decoder_qkv_multiscales=none,
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
    )


def tokenizer(corpus: Iterable[str]) -> Any:
    """Return a CLIP tokenizer with byte-pair merges learned from `corpus`.

    The corpus' words become one token each; any other word falls into pieces and letters.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    specials = ["<|startoftext|>", "<|endoftext|>"]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    corpus = list(corpus)
    # Every letter, alone and at a word's end, gets its number here: the trainer numbers what it meets in the order of a
    # hash table, another one in each process, and a resumed training must find its words under the same numbers.
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz0123456789-_.,'", *"".join("".join(corpus).lower().split())})
    alphabet = [*letters, *(f"{letter}</w>" for letter in letters)]
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        min_frequency=1,
        special_tokens=[*specials, *alphabet],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator([*corpus, *letters], trainer)
    import json

    learned = json.loads(learner.to_str())["model"]
    vocabulary = dict(learned["vocab"])
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in learned["merges"]]
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type]
        unk_token=specials[1],
        bos_token=specials[0],
        eos_token=specials[1],
        pad_token=specials[1],
        model_max_length=TEXT_LENGTH,
    )


def text_encoder(tokens: Any, width: int = TEXT_WIDTH) -> Any:
    """Return an untrained text encoder for a tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            projection_dim=width,
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
        )
    )


def unet(widths: tuple[int, ...] = (128, 192, 256), text_width: int = TEXT_WIDTH, window: int = WINDOW) -> Any:
    """Return an untrained inpainting UNet; attention from the second level down, where tokens are few."""
    from diffusers import UNet2DConditionModel

    below = len(widths) - 1
    return UNet2DConditionModel(
        sample_size=window // 8,
        in_channels=2 * LATENT_CHANNELS + 1,
        out_channels=LATENT_CHANNELS,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * below,
        up_block_types=("CrossAttnUpBlock2D",) * below + ("UpBlock2D",),
        cross_attention_dim=text_width,
        attention_head_dim=8,
        norm_num_groups=32,
    )
