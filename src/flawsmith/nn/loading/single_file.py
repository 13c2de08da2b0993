"""The networks of one file in the original layout, converted as diffusers' `from_single_file` does, offline.

Their configurations follow from the tensors (`original.py`); tokenizer and schedule lie beside (`companions.py`).
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTokenizer

from flawsmith.errors import BackboneError
from flawsmith.nn.loading.companions import CLIP_WORDS, configs_of, folder_beside, no_words, schedule_of, words_of
from flawsmith.nn.loading.networks import first_line
from flawsmith.nn.loading.original import Original, recognise
from flawsmith.nn.text import TextEncoder, family_of


def read_file(path: Path, *, offline: bool) -> tuple[Any, TextEncoder, Any, dict[str, Any]]:
    """Return (autoencoder, text encoder, UNet, schedule's configuration).

    Raises:
        BackboneError: the file is torn, holds another model, or its tokenizer or schedule is not to be had.
    """
    tensors = _tensors(path)
    original = recognise({name: tuple(tensor.shape) for name, tensor in tensors.items()}, path)
    beside = folder_beside(path)
    configs = configs_of(path, original, tensors)
    scheduler = schedule_of(path, original, tensors)
    tokenizers = {
        name: _tokenizer(path, beside, name, original.pads.get(name), offline=offline)
        for name in ("tokenizer", *(("tokenizer_2",) if "text_encoder_2" in configs else ()))
    }
    networks = {}
    for part, plugin, convert in (
        ("vae", AutoencoderKL, convert_ldm_vae_checkpoint),
        ("unet", UNet2DConditionModel, convert_ldm_unet_checkpoint),
    ):
        with init_empty_weights():
            networks[part] = plugin.from_config(configs[part])
        _fill(path, part, networks[part], convert(tensors, configs[part]))
        _require_all_used(path, part, networks[part], tensors, original.prefixes[part])
    family = family_of(networks["unet"].config, str(path))
    encoders = []
    for part, words, plugin in family.parts:
        marks = {f"{mark}_token_id": getattr(tokenizers[words], f"{mark}_token_id") for mark in ("bos", "eos", "pad")}
        with init_empty_weights():
            encoder = plugin(CLIPTextConfig(**configs[part] | marks))
        _fill(path, part, encoder, _text_tensors(part, encoder, tensors, original))
        encoders.append(encoder)
    text = family(encoders, [tokenizers[words] for _, words, _ in family.parts])
    return networks["vae"], text, networks["unet"], scheduler


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        tree = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        while isinstance(tree.get("state_dict"), dict):
            tree = tree["state_dict"]
        return {name: value for name, value in tree.items() if isinstance(value, Tensor)}
    except Exception as error:  # a broken file fails in as many ways as there are formats
        advice = "" if path.suffix.lower() == ".safetensors" else "; take the model's .safetensors file"
        raise BackboneError(
            f"backbone.source: {path}: cannot be read as weights ({first_line(error)}){advice}"
        ) from None


def _text_tensors(part: str, encoder: Any, tensors: dict[str, Tensor], original: Original) -> dict[str, Tensor]:
    """Return a text encoder's tensors under the names that transformers gives them."""
    prefix = original.prefixes[part]
    chosen = {
        name: x for name, x in tensors.items() if name.startswith(prefix) and not name.startswith(original.unused)
    }
    converted: dict[str, Tensor]
    if any("resblocks" in name for name in chosen):
        converted = convert_open_clip_checkpoint(encoder, chosen, prefix=prefix)
    else:
        converted = convert_ldm_clip_checkpoint(chosen)
    if any(name.startswith("text_model.") for name in encoder.state_dict()):
        return converted
    return {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}


def _fill(path: Path, part: str, network: Any, converted: dict[str, Tensor]) -> None:
    """Give a network its tensors, as they are; refuse what does not fit, and what lacks."""
    wanted = network.state_dict()
    wrong = sorted(set(wanted) - set(converted)) or sorted(
        name for name in wanted if wanted[name].shape != converted[name].shape
    )
    if wrong:
        raise BackboneError(
            f"backbone.source: {path}: {part}: {len(wrong)} tensors are missing or of another size, e.g. {wrong[0]}"
        )
    network.load_state_dict({name: converted[name] for name in wanted}, assign=True)


def _require_all_used(path: Path, part: str, network: Any, tensors: dict[str, Tensor], prefix: str) -> None:
    """Refuse a file with more tensors than the network that they describe has: it would be another one."""
    given, taken = sum(name.startswith(prefix) for name in tensors), len(network.state_dict())
    if given != taken:
        raise BackboneError(
            f"backbone.source: {path}: {part}: {given} tensors, of which the network that they describe takes {taken}; "
            "this variant of the model is not supported as one file, name its diffusers folder"
        )


def _tokenizer(path: Path, beside: Path | None, name: str, pad: str | None, *, offline: bool) -> Any:
    words = words_of(path)
    if beside is not None and (beside / name).is_dir():
        words = beside / name
    if words is None and offline:
        raise BackboneError(no_words(path))
    if words is None:
        tokenizer: Any = CLIPTokenizer.from_pretrained(CLIP_WORDS)
    elif words.is_dir():
        tokenizer = CLIPTokenizer.from_pretrained(str(words), local_files_only=True)
    else:
        tokenizer = _from_merges(words)
    if pad is not None and pad in tokenizer.get_vocab():
        tokenizer.pad_token = pad
    return tokenizer


def _from_merges(path: Path) -> Any:
    """Make CLIP's tokenizer of the list of byte pairs that open_clip brings (Radford et al. 2021).

    Its words are the 256 bytes, each inside and at the end of a word, a word for each of 48,894 merges, and two marks.
    """
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    # Printable bytes stand for themselves; the others for the letters from 256 on, as in GPT-2's vocabulary.
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in shown]
    letters += [chr(256 + number) for number in range(256 - len(shown))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=merges,  # type: ignore[arg-type]
        unk_token=words[-1],
        bos_token=words[-2],
        eos_token=words[-1],
        pad_token=words[-1],
        model_max_length=77,
    )
