"""What can be seen of a backbone without loading it: is this a whole diffusers folder with weights that can be read?

Only names and small JSON files are looked at, so torch is not needed. What people have instead is said with what to
write: one file of weights, a hub's cache folder, the folder above, half-precision files only, a part that is missing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from flawsmith.errors import BackboneError

INDEX = "model_index.json"
_PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
_SECOND = ("text_encoder_2", "tokenizer_2")
_WEIGHTS = {"vae", "unet", "text_encoder", "text_encoder_2"}
"""Parts that hold networks; the others hold words and numbers."""
_ONE_FILE = {".safetensors", ".ckpt", ".pt", ".pth", ".bin"}
_PLAIN = re.compile(r"(diffusion_pytorch_model|model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)")
_VARIANT = re.compile(r"(?:diffusion_pytorch_model|model|pytorch_model)\.(\w+?)(-\d+-of-\d+)?\.(safetensors|bin)")


def look_over(source: str, *, offline: bool) -> None:
    """Refuse a `backbone.source` that `Backbone.load` could not read.

    Args:
        source: "builtin", a folder, or a hub id.
        offline: True = a hub is never asked.

    Raises:
        BackboneError: says what stands there, and what to write.
    """
    path = Path(source)
    if source == "builtin" or (not path.exists() and not offline):
        return
    if path.is_file():
        raise BackboneError(
            f"backbone.source: {source} is a file{_kind_of(path)}; a backbone is a diffusers folder: make one with "
            f'diffusers\' StableDiffusionPipeline.from_single_file("{path.name}").save_pretrained("FOLDER")'
        )
    if not path.is_dir():
        raise BackboneError(
            f"backbone.source: {source!r}: no such folder, and asking a hub is off; "
            'name a diffusers folder, "builtin", or set backbone.offline = false'
        )
    if inner := _inside(path):
        raise BackboneError(f"backbone.source: {source} is the folder above; write {_listed(inner)}")
    missing = [part for part in _parts_of(path) if not (path / part).is_dir()]
    if missing:
        raise BackboneError(f"backbone.source: {source} is no whole diffusers folder; {', '.join(missing)} is missing")
    for part in _parts_of(path):
        if part in _WEIGHTS:
            _require_weights(path / part)


def _require_weights(part: Path) -> None:
    """Refuse a part without a configuration, or without weights that are read without naming a variant."""
    if not (part / "config.json").is_file():
        raise BackboneError(f"backbone.source: {part} holds no config.json; copy the whole folder again")
    names = sorted(path.name for path in part.iterdir() if path.is_file())
    if any(_PLAIN.fullmatch(name) for name in names):
        return
    variants = sorted({found[1] for name in names if (found := _VARIANT.fullmatch(name))})
    if variants:
        raise BackboneError(
            f"backbone.source: {part} holds weights as the variant {' and '.join(variants)} only, which is not read "
            f'yet; save the folder again: StableDiffusionPipeline.from_pretrained(FOLDER, variant="{variants[0]}")'
            '.save_pretrained("NEW-FOLDER")'
        )
    raise BackboneError(
        f"backbone.source: {part} holds no weights ({part.name}/*.safetensors or *.bin); copy the whole folder again"
    )


def _parts_of(folder: Path) -> tuple[str, ...]:
    """Return the parts that a diffusers folder must have: Stable Diffusion XL says in its index that it has more."""
    index = _index_of(folder)
    return (*_PARTS, *(part for part in _SECOND if any(index.get(part) or ()))) if index else _PARTS


def _index_of(folder: Path) -> dict[str, Any]:
    try:
        tree = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _inside(folder: Path) -> list[Path]:
    """Return the diffusers folders one or two levels below a folder that is none itself: a hub's cache, say."""
    if (folder / INDEX).is_file() or (folder / "unet").is_dir():
        return []
    return sorted(path.parent for depth in ("*", "snapshots/*") for path in folder.glob(f"{depth}/{INDEX}"))


def _kind_of(path: Path) -> str:
    return " of weights in one piece" if path.suffix.lower() in _ONE_FILE else ""


def _listed(folders: list[Path]) -> str:
    shown = " or ".join(path.as_posix() for path in folders[:3])
    return shown + (f", or one of {len(folders) - 3} more" if len(folders) > 3 else "")
