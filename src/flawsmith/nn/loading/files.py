"""Small JSON files, and what was fetched from a hub before."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flawsmith.errors import BackboneError


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; {} where there is none that can be read."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def fetched(hub_id: str) -> Path | None:
    """Return the snapshot of what was fetched from a hub before; None = nothing."""
    return snapshot_of(_hub_cache() / f"models--{hub_id.replace('/', '--')}")


def snapshot_of(cache: Path) -> Path | None:
    """Return the folder in a hub's cache of one model that its main branch names, or the only one; None = no cache.

    Raises:
        BackboneError: there are several, and none is named.
    """
    folders = sorted(path for path in cache.glob("snapshots/*") if path.is_dir())
    try:
        main = cache / "snapshots" / (cache / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        main = None
    if main is not None and main in folders:
        return main
    if len(folders) > 1:
        raise BackboneError(f"backbone.source: {cache} holds {len(folders)} snapshots; write {listed(folders)}")
    return folders[0] if folders else None


def listed(folders: list[Path]) -> str:
    """Return the first three of some folders, for a sentence."""
    shown = " or ".join(path.as_posix() for path in folders[:3])
    return shown + (f", or one of {len(folders) - 3} more" if len(folders) > 3 else "")


def _hub_cache() -> Path:
    """Return where a hub's files are kept, as huggingface_hub finds it, which takes longer to import."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
