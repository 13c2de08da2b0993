"""What one file of weights does not hold and what is taken from elsewhere: the tokenizer's words and the schedule.

Looked for without a network and without torch, so that `flawsmith check` says what is lacking.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flawsmith.errors import BackboneError
from flawsmith.nn.loading.files import fetched, read_json
from flawsmith.nn.loading.original import Original
from flawsmith.nn.loading.schedules import require_known

CLIP_WORDS = "openai/clip-vit-large-patch14"
"""A hub id that has the tokenizer of Stable Diffusion 1.x, 2.x and XL."""
SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""The schedule of all three."""


def folder_beside(path: Path) -> Path | None:
    """Return the folder that says more of a file: one of the same name without suffix, or the file's own.

    Either counts where it holds a `tokenizer` folder; then its other parts' configurations are taken as well.
    """
    return next((folder for folder in (path.with_suffix(""), path.parent) if (folder / "tokenizer").is_dir()), None)


def words_of(path: Path) -> Path | None:
    """Return where the words of a file's tokenizer are to be had without a network: a folder or file; None = nowhere.

    Looked for in this order: `tokenizer` in the folder beside, CLIP in the hub's cache, the package open_clip.
    """
    beside, clip = folder_beside(path), fetched(CLIP_WORDS)
    if beside is not None:
        return beside / "tokenizer"
    if clip is not None and (any(clip.glob("tokenizer.json")) or any(clip.glob("vocab.json"))):
        return clip
    spec = find_spec("open_clip")
    places = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((file for place in places for file in place.glob("bpe_simple_vocab_16e6.txt.gz")), None)


def no_words(path: Path) -> str:
    """Return the sentence for a file whose tokenizer's words are nowhere."""
    return (
        f"backbone.source: {path}: one file of weights does not hold the words of its tokenizer; put a folder "
        f"`tokenizer` (vocab.json and merges.txt of {CLIP_WORDS}) beside it, or `pip install --no-deps "
        "open_clip_torch`, which has them, or set backbone.offline = false"
    )


def configured(beside: Path | None, part: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a part's configuration, with what a config.json in the folder beside says instead."""
    stated = read_json(beside / part / "config.json") if beside is not None else {}
    return {**config, **stated}


def configs_of(path: Path, original: Original, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the configuration of each part of a file; see `schedule_of` for what is given and raised.

    Stable Diffusion 2 was trained to predict velocity on windows of 768 px, and noise on those of 512.
    """
    configs, beside = {part: dict(config) for part, config in original.configs.items()}, folder_beside(path)
    if original.family == "Stable Diffusion 2":
        if schedule_of(path, original, names).get("prediction_type") == "v_prediction":
            configs["unet"]["sample_size"] = 96
    return {part: configured(beside, part, config) for part, config in configs.items()}


def schedule_of(path: Path, original: Original, names: Collection[str]) -> dict[str, Any]:
    """Return the schedule's configuration: that beside the file, or the family's with the prediction that is told.

    Args:
        path: The file.
        original: What it holds.
        names: Its tensors' names: some finetunes say `v_pred` and `ztsnr` with an empty tensor.

    Raises:
        BackboneError: no file says what a UNet of Stable Diffusion 2 predicts, or the schedule is of another kind.
    """
    beside = folder_beside(path)
    stated = read_json(beside / "scheduler" / "scheduler_config.json") if beside is not None else {}
    if stated:
        require_known(stated, f"backbone.source: {beside}/scheduler")
        return stated
    yaml = path.with_suffix(".yaml")
    text = yaml.read_text(encoding="utf-8", errors="replace") if yaml.is_file() else ""
    parameterization = re.search(r"parameterization:\s*[\"']?(\w+)", text) if text else None
    plain = original.configs["unet"]["in_channels"] == original.configs["vae"]["latent_channels"]
    if "v_pred" in names or (parameterization and parameterization[1] == "v"):
        return SCHEDULE | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": "ztsnr" in names}
    if original.family == "Stable Diffusion 2" and plain and not yaml.is_file():
        raise BackboneError(
            f"backbone.source: {path}: a model of Stable Diffusion 2 predicts noise or velocity, and its weights do "
            f"not tell which; put its {yaml.name} beside it, or diffusers' folders `scheduler` and `tokenizer`"
        )
    return SCHEDULE | {"prediction_type": "epsilon"}
