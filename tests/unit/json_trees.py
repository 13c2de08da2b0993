"""Trees of JSON values with one of them changed: what tests do to the files of a run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

GONE = object()
"""Stands for a value that is taken out."""
Way = tuple[Any, ...]
"""The keys and numbers that lead to a value; () = the tree itself."""


def ways(tree: Any, of_lists: int | None = None, above: Way = ()) -> Iterator[Way]:
    """Yield the way to every value of a tree; of a list to so many values, None = to all."""
    yield above
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree[:of_lists]) if isinstance(tree, list) else ()
    for key, value in inner:
        yield from ways(value, of_lists, (*above, key))


def changed(tree: Any, way: Way, value: Any) -> Any:
    """Return a copy of a tree with another value at the end of a way; GONE takes it out."""
    if not way:
        return {} if value is GONE else value
    tree = copy.deepcopy(tree)
    inner = tree
    for key in way[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[way[-1]]
    else:
        inner[way[-1]] = value
    return tree
