"""What can be seen of a backbone without loading it: `flawsmith check` needs no torch for it."""

from __future__ import annotations

from flawsmith.nn.loading.source import locate


def look_over(source: str, *, offline: bool) -> None:
    """Refuse a `backbone.source` that `Backbone.load` could not read.

    Args:
        source: "builtin", a folder, a file, or a hub id.
        offline: True = a hub is never asked.

    Raises:
        BackboneError: says what stands there, and what to write.
    """
    locate(source, offline=offline)
