"""One file of weights in the layout of the first releases: which model it is, and what its networks must be made like.

Such a file names its tensors as CompVis' and Stability AI's code did (`model.diffusion_model.input_blocks.0.0.weight`)
and says nothing else. Widths, depths and channels follow from the tensors' shapes; what no shape tells (heads, the
activation, the scale of latents) is each family's own. Only the header of a safetensors file is read, without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from flawsmith.errors import BackboneError

Shapes = Mapping[str, Sequence[int]]
UNET, VAE = "model.diffusion_model.", "first_stage_model."
_CLIP, _OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
_XL_CLIP, _XL_OPEN_CLIP = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
_REFINER = "conditioner.embedders.0.model."
_HEAD = 64
"""Width of an attention head in CLIP's text encoders, and in the UNets of Stable Diffusion 2 and XL."""
_LARGEST_HEADER = 100_000_000  # bytes, as safetensors itself has it


@dataclass(frozen=True, slots=True)
class Original:
    """What such a file holds: a family, and a configuration for each network."""

    family: str
    """"Stable Diffusion 1", "Stable Diffusion 2" or "Stable Diffusion XL"."""
    configs: Mapping[str, dict[str, Any]]
    """Part (as a diffusers folder calls it) -> what its config.json would say."""
    prefixes: Mapping[str, str]
    """Part -> how its tensors' names begin."""
    unused: tuple[str, ...]
    """How the names of tensors begin that the family does not use."""
    pads: Mapping[str, str]
    """Tokenizer -> its padding token, where that is not the end of text."""


def shapes_in(path: Path) -> dict[str, list[int]]:
    """Return {tensor: shape} of a safetensors file from its header.

    Raises:
        BackboneError: it is no whole safetensors file.
    """
    return {name: list(one["shape"]) for name, one in header_of(path).items()}


def header_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return {tensor: {"dtype", "shape", "data_offsets"}} of a safetensors file.

    Raises:
        BackboneError: it is no whole safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            if first == b"version ":
                raise ValueError("it is a pointer of Git LFS: `git lfs pull` fetches the file")
            length = int.from_bytes(first, "little")
            if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
                raise ValueError("its header is torn")
            header: dict[str, dict[str, Any]] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        if 8 + length + max((one["data_offsets"][1] for one in header.values()), default=0) != size:
            raise ValueError("it is not whole")
        if not all(isinstance(one["shape"], list) and isinstance(one["dtype"], str) for one in header.values()):
            raise ValueError("its header says no shapes")
        return header
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(
            f"backbone.source: {path}: not a readable safetensors file ({error}); fetch it again"
        ) from None


def recognise(shapes: Shapes, path: Path) -> Original:
    """Tell which model a file holds.

    Args:
        shapes: {tensor: shape}.
        path: The file, for the error.

    Raises:
        BackboneError: it is no Stable Diffusion 1.x, 2.x or XL, or a part of it is missing.
    """
    has = {prefix for prefix in (UNET, VAE, _CLIP, _OPEN_CLIP, _XL_CLIP, _XL_OPEN_CLIP, _REFINER)
           if any(name.startswith(prefix) for name in shapes)}  # fmt: skip
    where = f"backbone.source: {path}"
    text = has & {_CLIP, _OPEN_CLIP, _XL_OPEN_CLIP}
    if UNET not in has or f"{UNET}input_blocks.0.0.weight" not in shapes:
        first = ", ".join(sorted({name.split(".")[0] for name in shapes})[:4]) or "nothing"
        raise BackboneError(
            f"{where}: holds no Stable Diffusion 1.x, 2.x or XL in the original layout (tensors begin with {first}), "
            "and no other model is supported"
        )
    if any(name.startswith(("edm_mean", "edm_vpred")) for name in shapes):
        raise BackboneError(f"{where}: is a model of EDM's schedule, which is not supported; name a plain one")
    if _REFINER in has:
        raise BackboneError(f"{where}: is Stable Diffusion XL's refiner; name the base model")
    lacking = [name for name, there in (("the autoencoder", VAE in has), ("the text encoder", bool(text))) if not there]
    if _XL_OPEN_CLIP in has and _XL_CLIP not in has:
        lacking.append("the first text encoder")
    if lacking:
        raise BackboneError(f"{where}: {' and '.join(lacking)} is not in it; name a file that holds the whole model")
    try:
        return _described(shapes, text.pop())
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise BackboneError(f"{where}: is no whole Stable Diffusion model ({error} is missing)") from None


def _described(shapes: Shapes, text: str) -> Original:
    family = {_CLIP: "Stable Diffusion 1", _OPEN_CLIP: "Stable Diffusion 2"}.get(text, "Stable Diffusion XL")
    configs, prefixes = {"vae": _vae(shapes, xl=text == _XL_OPEN_CLIP)}, {"vae": VAE, "unet": UNET}
    unused: tuple[str, ...] = ()
    if text == _XL_OPEN_CLIP:
        configs["text_encoder"] = _clip(shapes, _XL_CLIP)
        configs["text_encoder_2"] = _open_clip(shapes, _XL_OPEN_CLIP)
        prefixes |= {"text_encoder": _XL_CLIP, "text_encoder_2": _XL_OPEN_CLIP}
    elif text == _OPEN_CLIP:
        config = configs["text_encoder"] = _open_clip(shapes, _OPEN_CLIP)
        # Stable Diffusion 2 reads the last but one layer: its text encoder is published without the last.
        config["num_hidden_layers"] -= 1
        unused = (f"{_OPEN_CLIP}transformer.resblocks.{config['num_hidden_layers']}.", f"{_OPEN_CLIP}text_projection")
        prefixes["text_encoder"] = _OPEN_CLIP
    else:
        configs["text_encoder"] = _clip(shapes, _CLIP)
        prefixes["text_encoder"] = _CLIP
    configs["unet"] = _unet(shapes, configs)
    pads = {"Stable Diffusion 2": {"tokenizer": "!"}, "Stable Diffusion XL": {"tokenizer_2": "!"}}.get(family, {})
    return Original(family, configs, prefixes, unused, pads)


def _unet(shapes: Shapes, configs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    first = shapes[f"{UNET}input_blocks.0.0.weight"]
    levels: list[list[tuple[int, int]]] = [[]]
    """(width, transformer layers) of each block of each level."""
    for number in count(1):
        block = f"{UNET}input_blocks.{number}."
        if f"{block}0.op.weight" in shapes:
            levels.append([])
        elif f"{block}0.in_layers.2.weight" in shapes:
            levels[-1].append((shapes[f"{block}0.in_layers.2.weight"][0], _depth(shapes, f"{block}1.")))
        else:
            break
    widths, depths = [level[0][0] for level in levels], [level[0][1] for level in levels]
    projection = next(
        shape for name, shape in shapes.items() if re.fullmatch(r".*_blocks\.\d+\.1\.proj_in\.weight", name)
    )
    linear = len(projection) == 2
    layers = [depth or 1 for depth in depths[:-1]] + [_depth(shapes, f"{UNET}middle_block.1.") or 1]
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths]
    crossing = next(
        shape for name, shape in shapes.items() if name.startswith(UNET) and name.endswith("attn2.to_k.weight")
    )
    config = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "in_channels": first[1],
        "out_channels": shapes[f"{UNET}out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": down,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
        "cross_attention_dim": crossing[1],
        "transformer_layers_per_block": layers,
        "use_linear_projection": linear,
        # diffusers calls the number of heads `attention_head_dim` here.
        "attention_head_dim": [max(1, width // _HEAD) for width in widths] if linear else 8,
    }
    if "text_encoder_2" in configs:
        added = shapes[f"{UNET}label_emb.0.0.weight"][1]
        config |= {
            "sample_size": 128,
            "addition_embed_type": "text_time",
            "projection_class_embeddings_input_dim": added,
            "addition_time_embed_dim": (added - configs["text_encoder_2"]["projection_dim"]) // 6,
        }
    elif any(name.startswith(f"{UNET}label_emb.") for name in shapes):
        raise ValueError("a plain UNet: this one takes class labels, and what gives them")
    return config


def _depth(shapes: Shapes, place: str) -> int:
    """Return how many transformer layers stand at a place of the UNet."""
    return next(n for n in count() if f"{place}transformer_blocks.{n}.norm1.weight" not in shapes)


def _vae(shapes: Shapes, *, xl: bool) -> dict[str, Any]:
    blocks = [next(n for n in count() if f"{VAE}encoder.down.{level}.block.{n}.conv1.weight" not in shapes)
              for level in range(12)]  # fmt: skip
    widths = [shapes[f"{VAE}encoder.down.{level}.block.0.conv1.weight"][0] for level, n in enumerate(blocks) if n]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": shapes[f"{VAE}decoder.conv_in.weight"][1],
        "block_out_channels": widths,
        "layers_per_block": blocks[0],
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "sample_size": 1024 if xl else 512,
        "scaling_factor": 0.13025 if xl else 0.18215,
        "force_upcast": True,
    }


def _clip(shapes: Shapes, prefix: str) -> dict[str, Any]:
    words, places = (shapes[f"{prefix}embeddings.{kind}_embedding.weight"] for kind in ("token", "position"))
    layers = next(n for n in count() if f"{prefix}encoder.layers.{n}.mlp.fc1.weight" not in shapes)
    within = shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0]
    return _text(words, places, layers, within, "quick_gelu", words[1])


def _open_clip(shapes: Shapes, prefix: str) -> dict[str, Any]:
    words, places = shapes[f"{prefix}token_embedding.weight"], shapes[f"{prefix}positional_embedding"]
    layers = next(n for n in count() if f"{prefix}transformer.resblocks.{n}.mlp.c_fc.weight" not in shapes)
    within = shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0]
    return _text(words, places, layers, within, "gelu", shapes[f"{prefix}text_projection"][1])


def _text(
    words: Sequence[int], places: Sequence[int], layers: int, within: int, activation: str, projection: int
) -> dict[str, Any]:
    return {
        "vocab_size": words[0],
        "hidden_size": words[1],
        "intermediate_size": within,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, words[1] // _HEAD),
        "max_position_embeddings": places[0],
        "hidden_act": activation,
        "projection_dim": projection,
    }
