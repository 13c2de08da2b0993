"""Files as a tree that a page can show, however many there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_SHOWN = 6
"""Files of a folder that a tree names; the others are counted."""


def tree_of(files: Mapping[str, int]) -> dict[str, Any]:
    """Return files by path as a tree: folders with the first files of each, and how many there are below.

    Args:
        files: {path with `/`: size in bytes}.
    """
    tree: dict[str, Any] = {"files": 0, "bytes": 0, "folders": {}, "first": []}
    for path, size in sorted(files.items()):
        *folders, name = path.split("/")
        at = tree
        for folder in [None, *folders]:
            if folder is not None:
                at = at["folders"].setdefault(folder, {"files": 0, "bytes": 0, "folders": {}, "first": []})
            at["files"] += 1
            at["bytes"] += size
        if len(at["first"]) < MOST_SHOWN:
            at["first"].append(name)
    return tree
