"""One network of a diffusers folder or of a hub, whole or not at all, and without the libraries' own remarks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from flawsmith.errors import BackboneError
from flawsmith.nn.loading.original import header_of
from flawsmith.nn.loading.source import files_of, weights_in


@contextmanager
def quiet() -> Iterator[None]:
    """Keep diffusers and transformers from printing their own bars and advice; errors still come through."""
    levels = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for log in (diffusers_logging, transformers_logging):
            log.set_verbosity_error()
            log.disable_progress_bar()
        try:
            yield
        finally:
            diffusers_logging.set_verbosity(levels[0])
            transformers_logging.set_verbosity(levels[1])


def load_whole(plugin: Any, place: str, part: str, options: dict[str, Any]) -> Any:
    """Read one network of a diffusers folder.

    Args:
        plugin: Its class.
        place: The folder, or a hub id.
        part: Its name in there.
        options: Passed to `from_pretrained`.

    Raises:
        BackboneError: its weights lack tensors; diffusers would leave them empty, transformers fill them at random.
    """
    if (Path(place) / part).is_dir():
        variant, kind = weights_in(Path(place) / part)
        # Said to the libraries, or they look for other files first and report each as an error. Pickles are read with
        # torch's `weights_only`, by both.
        options = {**options, "variant": variant, "use_safetensors": kind == "safetensors"}
        if kind == "safetensors":
            # diffusers before 0.42 knows the older name alone.
            name = "torch_dtype" if plugin.__module__.startswith("diffusers") else "dtype"
            options[name] = _stored(Path(place) / part, variant)
    try:
        model, report = plugin.from_pretrained(place, subfolder=part, output_loading_info=True, **options)
    except OSError:
        if "variant" in options:
            raise
        # A hub's model that has half-precision files alone; in a folder they were seen.
        options = {**options, "variant": "fp16"}
        model, report = plugin.from_pretrained(place, subfolder=part, output_loading_info=True, **options)
    missing = sorted(report["missing_keys"])
    if missing:
        raise BackboneError(f"{place}/{part}: {len(missing)} tensors missing from its weights, e.g. {missing[0]}")
    return model


def _stored(part: Path, variant: str | None) -> torch.dtype:
    """Return the precision that all of a part's tensors are stored in; float32 where they are in several.

    Read as they are stored, half-precision weights take half the memory; diffusers would widen them first.
    """
    kinds = {one["dtype"] for path in files_of(part, variant, "safetensors") for one in header_of(path).values()}
    kinds.discard("I64")  # positions
    return (
        {"F16": torch.float16, "BF16": torch.bfloat16}.get(kinds.pop(), torch.float32)
        if len(kinds) == 1
        else torch.float32
    )


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, cut short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
