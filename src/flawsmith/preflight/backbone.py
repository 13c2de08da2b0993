"""What can be seen of a backbone and its device without loading it: `flawsmith check` needs no torch for it."""

from __future__ import annotations

from flawsmith.config import BackboneConfig
from flawsmith.nn.loading.facts import BackboneFacts, facts_of
from flawsmith.nn.loading.source import locate


def look_over(source: str, *, offline: bool) -> BackboneFacts | None:
    """Refuse a `backbone.source` that `Backbone.load` could not use, and tell what it is.

    Args:
        source: "builtin", a folder, a file, or a hub id.
        offline: True = a hub is never asked.

    Returns:
        What it is; None = that cannot be told without loading or fetching it.

    Raises:
        BackboneError: says what stands there, and what to write.
    """
    return facts_of(locate(source, offline=offline))


def look_for_device(config: BackboneConfig) -> None:
    """Refuse a device that is not there. torch is imported where one is named, since it alone knows.

    Raises:
        BackboneError: says what there is.
    """
    if config.device not in ("auto", "cpu"):
        from flawsmith.nn.device import pick_device

        pick_device(config.device)
