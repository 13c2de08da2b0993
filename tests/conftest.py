"""Small real components that many tests share: backbones of every supported shape, and a factory data set."""

from __future__ import annotations

import os

# Tiny networks run 3-9x faster on one thread, and pytest-xdist has one worker a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Let the garbage collector pass over what collecting the tests imports, which stays to the end.

    Each of its full passes over torch, diffusers and thousands of tests took as long as a small run.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a file as a whole to one worker: what its tests share is made once, not once in each worker."""
    if config.getvalue("dist") != "load":
        return None  # another way was asked for
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # files of few tests may be the long ones: they keep their place
    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def make_backbone() -> Callable[..., Any]:
    """Return a maker of small, randomly initialised backbones of the real classes."""
    import torch

    torch.set_num_threads(1)

    def make(
        *,
        inpaints: bool = True,
        kl: bool = False,
        tiny: bool = False,
        target: str = "v_prediction",
        dtype: str = "float32",
        window: int = 64,
    ) -> Any:
        from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

        from flawsmith.nn import builtin
        from flawsmith.nn.backbone import Backbone
        from flawsmith.nn.text import ClipText

        torch.manual_seed(0)
        tokens = builtin.tokenizer(["a photo of a scratch on steel", "a photo of sound surface", "crack hole dent"])
        if kl:
            vae: Any = AutoencoderKL(
                block_out_channels=(32, 32, 32, 32),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=4,
                layers_per_block=1,
                sample_size=64,
            )
        elif tiny:
            widths = {"encoder_block_out_channels": (32,) * 4, "decoder_block_out_channels": (32,) * 4}
            vae = AutoencoderTiny(**widths, latent_channels=4)
        else:
            vae = builtin.autoencoder(32)
        last = vae.decoder.conv_out if kl else vae.decoder.layers[-1] if tiny else vae.decoder.conv_out.conv
        with torch.no_grad():  # a random decoder says next to nothing; rounding to bfloat16 would swallow it
            last.weight.mul_(20 if kl or tiny else 3)
        channels = vae.config.latent_channels
        unet = UNet2DConditionModel(
            sample_size=window // 8,
            in_channels=2 * channels + 1 if inpaints else channels,
            out_channels=channels,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=16,
        )
        scheduler = {**builtin.SCHEDULER, "prediction_type": target}
        if target == "epsilon":
            scheduler["rescale_betas_zero_snr"] = False
        text = ClipText([builtin.text_encoder(tokens, 32)], [tokens])
        return Backbone(vae, text, unet, scheduler, name="tiny", device="cpu", dtype=dtype)

    return make


@pytest.fixture(scope="session")
def backbone(make_backbone: Callable[..., Any]) -> Any:
    """A small inpainting backbone, 64-pixel windows."""
    return make_backbone()


SMALL_WINDOW = 32
"""Side in pixels of the windows on which generators are held to their contract: a quarter of the work of 64."""


@pytest.fixture(scope="session")
def small_backbone(make_backbone: Callable[..., Any]) -> Any:
    """A small inpainting backbone with small windows."""
    return make_backbone(window=SMALL_WINDOW)


@pytest.fixture(scope="session")
def backbone_folder(backbone: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, as a diffusers folder on disk."""
    import torch

    folder = tmp_path_factory.mktemp("backbone")
    backbone.save(folder, dtype=torch.float32)
    return folder


SDXL_FORMS = {"plain": 4, "inpainting": 9}
"""Stable Diffusion XL's two forms, by the UNet's channels."""


@pytest.fixture(scope="session")
def sdxl_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Diffusers folders of Stable Diffusion XL's shape, {form: folder}: real classes, random weights, small widths.

    Widths are the real ones divided: 768 + 1280 = 2048 for cross-attention is 24 + 40 = 64 here, and the added
    embedding's 1280 + 6 x 256 = 2816 is 40 + 6 x 8 = 88.
    """
    import json

    import torch
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from flawsmith.nn import builtin
    from flawsmith.nn.loading.networks import quiet

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizers = [builtin.tokenizer(["a photo of a crack on tile", "a photo of sound surface"]) for _ in range(2)]
    tokenizers[1].pad_token = "."  # as in the real folder, the second one pads with a mark and not with the end of text
    encoders = []
    for tokens, width, plugin in zip(tokenizers, (24, 40), (CLIPTextModel, CLIPTextModelWithProjection), strict=True):
        told = CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=builtin.TEXT_LENGTH,
            projection_dim=width,
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
        )
        encoders.append(plugin(told))
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(20)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        steps_offset=1,
        timestep_spacing="leading",
    )
    folders = {}
    for form, channels in SDXL_FORMS.items():
        unet = UNet2DConditionModel(
            sample_size=SMALL_WINDOW // 8,
            in_channels=channels,
            out_channels=4,
            block_out_channels=(16, 32, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            attention_head_dim=(2, 4, 4),
            use_linear_projection=True,
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=88,
            norm_num_groups=8,
        )
        folder = folders[form] = tmp_path_factory.mktemp(f"sdxl-{form}")
        parts = {"vae": vae, "unet": unet, "scheduler": scheduler}
        parts |= {"text_encoder": encoders[0], "text_encoder_2": encoders[1]}
        parts |= {"tokenizer": tokenizers[0], "tokenizer_2": tokenizers[1]}
        with quiet():
            for name, part in parts.items():
                part.save_pretrained(folder / name)
        index = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}
        (folder / "model_index.json").write_text(json.dumps(index))
    return folders


@pytest.fixture(scope="session", params=SDXL_FORMS)
def sdxl(request: pytest.FixtureRequest, sdxl_folders: dict[str, Path]) -> Any:
    """A small backbone of Stable Diffusion XL's shape, 32-pixel windows, plain and inpainting."""
    from flawsmith.nn.backbone import Backbone

    return Backbone.load(sdxl_folders[request.param], device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def factory_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in the mvtec layout: a surface with two types and a part with one. Read it, do not write it."""
    from flawsmith.data import factory

    root = tmp_path_factory.mktemp("factory")
    factory.write_dataset(root, "magnet", ("crack", "chip"), normals=4, per_defect=4, seed=1, size=128, test_normals=2)
    factory.write_dataset(root, "screw", ("bend",), normals=4, per_defect=4, seed=1, size=128, test_normals=2)
    return root


@pytest.fixture
def small_config(small_settings: dict[str, Any]) -> dict[str, Any]:
    """Overrides for a run of seconds, for this test to change."""
    return dict(small_settings)


@pytest.fixture(scope="session")
def small_settings(backbone_folder: Path, factory_root: Path) -> dict[str, Any]:
    """The same, for fixtures that live longer than a test. Do not change them."""
    return {
        "data.root": str(factory_root),
        "data.shots": 2,
        "generator.name": "controlnet_inpaint",
        "backbone.source": str(backbone_folder),
        "backbone.dtype": "float32",
        "train.steps": 4,
        "train.views": 2,
        "train.batch": 4,
        "train.save_every": 2,
        "generate.count": 2,
        "generate.steps": 2,
        "generate.batch": 3,
        "measure.enabled": False,
        "prove.enabled": False,
        "screen.enabled": False,
    }
