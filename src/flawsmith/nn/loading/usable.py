"""A backbone that was tried before it is handed out: what is wrong in it is said before anything is trained.

diffusers and transformers take many a value of a configuration unread and stumble over it when it is used, each with
an error of its own kind.
"""

from __future__ import annotations

from typing import Any

import torch

from flawsmith.errors import BackboneError, FlawsmithError
from flawsmith.nn.backbone import Backbone


def load_usable(source: str, **options: Any) -> Backbone:
    """Return a backbone that has read an empty phrase and encoded a small grey window.

    Args:
        source: As for `Backbone.load`.
        options: The other arguments of `Backbone.load`.

    Raises:
        BackboneError: it cannot be loaded, or one of its configurations holds what does not belong there.
        ConfigError: a pipe or a device stands among its files.
    """
    try:
        backbone = Backbone.load(source, **options)
        backbone.read(backbone.tokens([""]))
        if not backbone.encode(torch.zeros(1, 3, *[8 * backbone.factor] * 2)).isfinite().all():
            raise ValueError("its autoencoder gives values that are no numbers")
    except FlawsmithError:
        raise
    except Exception as error:  # every library raises its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BackboneError(
            f"backbone {source!r}: cannot be used ({reason}); one of its configurations holds what does not belong "
            "there; copy the folder again"
        ) from error
    return backbone
