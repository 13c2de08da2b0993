"""All parts of a backbone from its source: networks, tokenizers and the schedule's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffusers
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from flawsmith.errors import BackboneError
from flawsmith.nn.loading.facts import require_autoencoder
from flawsmith.nn.loading.networks import first_line, load_whole, quiet
from flawsmith.nn.loading.single_file import read_file
from flawsmith.nn.loading.source import Source
from flawsmith.nn.text import TextEncoder, family_of


@dataclass(frozen=True, slots=True)
class Parts:
    """What a `Backbone` is made of."""

    vae: Any
    text_encoder: TextEncoder
    unet: Any
    scheduler: dict[str, Any]
    """A diffusers scheduler's configuration, with the name of its class where that is known."""


def read_parts(source: Source, *, offline: bool) -> Parts:
    """Read all parts.

    Args:
        source: What `locate` found.
        offline: True = a hub is never asked, also not for a file that is missing.

    Raises:
        BackboneError: a file is torn or does not fit its configuration, or a class is not supported.
    """
    try:
        with quiet():
            if source.path is not None and source.is_file:
                return Parts(*read_file(source.path, offline=offline))
            return _folder(source.name if source.path is None else str(source.path), {"local_files_only": offline})
    except BackboneError:
        raise
    except Exception as error:  # every library below raises its own kind of error for a broken file
        raise BackboneError(f"backbone {source.name!r}: cannot be loaded: {first_line(error)}") from error


def _folder(place: str, options: dict[str, Any]) -> Parts:
    name = AutoencoderKL.load_config(place, subfolder="vae", **options).get("_class_name")
    require_autoencoder(name, place)
    vae = load_whole(getattr(diffusers, name), place, "vae", options)
    unet = load_whole(UNet2DConditionModel, place, "unet", options)
    text_encoder = family_of(unet.config, place).load(place, options)
    return Parts(vae, text_encoder, unet, dict(DDIMScheduler.load_config(place, subfolder="scheduler", **options)))
