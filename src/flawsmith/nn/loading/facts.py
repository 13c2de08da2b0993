"""What a backbone is, told from its configurations and its files' headers: family, form, working size, parameters.

Torch is not needed, so `flawsmith check` says it, and refuses what `Backbone` would refuse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flawsmith.errors import BackboneError, ConfigError
from flawsmith.nn.loading.companions import configs_of
from flawsmith.nn.loading.files import read_json
from flawsmith.nn.loading.original import recognise, shapes_in
from flawsmith.nn.loading.source import NETWORKS, Source, files_of, parts_of, weights_in

AUTOENCODERS = ("AutoencoderDC", "AutoencoderKL", "AutoencoderTiny")
ADDED = (None, "text_time")
"""What the known families give a UNet beside its text: nothing, or pooled text and sizes (Stable Diffusion XL)."""


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """What can be known of a backbone without loading it."""

    family: str
    """E.g. "Stable Diffusion 1"; "" = none that has a name."""
    inpaints: bool
    """True: its UNet takes mask and masked latent."""
    channels: int
    """That its UNet takes."""
    size: int
    """Side of the window that it was trained on, in pixels."""
    parameters: Mapping[str, int]
    """Part -> number of its parameters."""
    text_layers: int
    """Of the text encoder, of the shorter one where there are two; 0 = unknown."""

    def sentence(self) -> str:
        """Say it for a reader."""
        form = "inpainting" if self.inpaints else "plain"
        millions = self.parameters.get("unet", 0) / 1e6
        family = self.family or "a diffusion model"
        return f"{family}, {form} ({self.channels} channels), {self.size} px, {millions:.0f} M parameters in the UNet"


def facts_of(source: Source) -> BackboneFacts | None:
    """Tell what a backbone is; None = that cannot be told without loading or fetching it (a pickle, a hub).

    Raises:
        BackboneError: a file is torn, or `Backbone` cannot use such a model.
    """
    if source.path is None or (source.is_file and source.path.suffix.lower() != ".safetensors"):
        return None
    if source.is_file:
        return _of_file(source.path, source.name)
    folder = source.path
    unet, vae = (read_json(folder / part / "config.json") for part in ("unet", "vae"))
    shapes = {part: _shapes(folder / part) for part in parts_of(folder) if part in NETWORKS}
    parameters = {part: sum(map(math.prod, named.values())) for part, named in shapes.items()}
    family = "the built-in backbone" if source.name == "builtin" else _family(unet)
    texts = [read_json(folder / part / "config.json") for part in shapes if part.startswith("text_encoder")]
    return _facts(source.name, family, unet, vae, parameters, texts)


def inpaints(channels: int, latent: int, name: str) -> bool:
    """Say whether a UNet of so many input channels is an inpainting one, given its autoencoder's latent channels.

    Raises:
        BackboneError: it is neither plain nor inpainting.
    """
    if channels == latent:
        return False
    if channels == 2 * latent + 1:
        return True
    raise BackboneError(
        f"{name}: the UNet takes {channels} channels; with {latent} latent channels it should be {latent} (plain) "
        f"or {2 * latent + 1} (inpainting)"
    )


def require_autoencoder(name: str | None, place: str) -> None:
    """Refuse the class of another autoencoder."""
    if name not in AUTOENCODERS:
        raise BackboneError(f"{place}/vae: class {name} is not supported; known: {', '.join(AUTOENCODERS)}")


def require_family(unet: Mapping[str, Any], name: str) -> None:
    """Refuse a UNet that wants something beside its text that no family gives."""
    wanted = unet.get("addition_embed_type")
    if wanted not in ADDED:
        raise BackboneError(f"{name}: its UNet has addition_embed_type {wanted!r}, which is not supported")


def low_rank_stamps(files: Sequence[str]) -> list[tuple[int, int]]:
    """Return size and time of change of each file of `backbone.lora`.

    Raises:
        BackboneError: one is not there.
    """
    for file in files:
        if not Path(file).is_file():
            raise BackboneError(f"backbone.lora: {file}: no such file; name a .safetensors file of a LoRA")
    return [(facts.st_size, facts.st_mtime_ns) for facts in (Path(file).stat() for file in files)]


def require_layers(skipped: int, layers: int) -> None:
    """Refuse to leave out all layers of a text encoder, or more."""
    if skipped >= layers:
        raise BackboneError(f"backbone.clip_skip: {skipped}: this text encoder has {layers} layers; give less")


def _of_file(path: Path, name: str) -> BackboneFacts:
    shapes = shapes_in(path)
    original = recognise(shapes, path)
    configs = configs_of(path, original, shapes)
    parameters = {
        part: sum(math.prod(shape) for key, shape in shapes.items() if key.startswith(prefix))
        for part, prefix in original.prefixes.items()
    }
    texts = [config for part, config in configs.items() if part.startswith("text_encoder")]
    return _facts(name, original.family, configs["unet"], configs["vae"], parameters, texts)


def _facts(
    name: str,
    family: str,
    unet: Mapping[str, Any],
    vae: Mapping[str, Any],
    parameters: Mapping[str, int],
    texts: Sequence[Mapping[str, Any]],
) -> BackboneFacts:
    require_autoencoder(vae.get("_class_name"), name)
    require_family(unet, name)
    try:
        widths: Sequence[int] = vae.get("block_out_channels") or vae["encoder_block_out_channels"]
        channels, latent, cells = (
            int(one) for one in (unet["in_channels"], vae["latent_channels"], unet["sample_size"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BackboneError(f"{name}: its configuration lacks {error}; copy the whole folder again") from None
    size = cells * 2 ** (len(widths) - 1)
    layers = min(int(config.get("num_hidden_layers") or 0) for config in texts)
    return BackboneFacts(family, inpaints(channels, latent, name), channels, size, parameters, layers)


def _family(unet: Mapping[str, Any]) -> str:
    if unet.get("addition_embed_type") == "text_time":
        return "Stable Diffusion XL"
    return {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2"}.get(int(unet.get("cross_attention_dim") or 0), "")


def _shapes(part: Path) -> dict[str, Sequence[int]]:
    """Return the shapes of a part's tensors; of .bin files one that stands for all, from their size."""
    variant, kind = weights_in(part)
    tensors: dict[str, Sequence[int]] = {}
    for path in files_of(part, variant, kind):
        if kind == "safetensors":
            tensors |= shapes_in(path)
        else:
            tensors[path.name] = [path.stat().st_size // (2 if variant in ("fp16", "bf16") else 4)]
    return tensors


def require_describer(folder: str) -> None:
    """Refuse what cannot be a vision-language model's transformers folder.

    Raises:
        ConfigError: it is none.
    """
    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(
            f"generate.describer: {folder!r} is no transformers folder (there is no config.json in it); name the "
            "folder of an image-text-to-text model"
        )
