"""The backbone of a run: what stages compare of it is remembered, and it is loaded when something is to be done."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from flawsmith.config import BackboneConfig
from flawsmith.files import digest, read_json, write_json
from flawsmith.nn.device import pick_device, pick_dtype
from flawsmith.nn.loading.facts import low_rank_stamps
from flawsmith.nn.loading.source import locate
from flawsmith.run.folder import Run

if TYPE_CHECKING:
    from flawsmith.nn.backbone import Backbone


class RunBackbone:
    """A run's backbone, not loaded yet.

    Args:
        run: Its folder keeps fingerprint and constants, with size and time of the files that they are of.

    Raises:
        BackboneError: there is none at `backbone.source`.
    """

    def __init__(self, run: Run) -> None:
        self._part, self._path = run.config.backbone, run.path("state", "backbone.json")
        source = locate(self._part.source, offline=self._part.offline)
        files = source.weights()
        changes = low_rank_stamps(self._part.lora)
        self._files = digest(self._part.model_dump(mode="json"), files, changes) if files else ""
        self._texts = digest(self._files, source.texts()) if files else ""

    @cached_property
    def loaded(self) -> Backbone:
        """The backbone itself; loading takes seconds, and hashing what is not known longer."""
        known = self._known("files", self._files)
        backbone = loaded(self._part, weights=known.get("weights", ""))
        if self._files and not self._known("texts", self._texts):
            hashes = {"weights": backbone.weights, "fingerprint": backbone.fingerprint, "constants": backbone.constants}
            write_json(self._path, {"files": self._files, "texts": self._texts, **hashes})
        return backbone

    @property
    def fingerprint(self) -> str:
        """As `Backbone.fingerprint`."""
        return self._known("files", self._files).get("fingerprint") or self.loaded.fingerprint

    @property
    def constants(self) -> str:
        """As `Backbone.constants`."""
        return self._known("texts", self._texts).get("constants") or self.loaded.constants

    @property
    def dtype(self) -> str:
        """The precision in which it works here."""
        return str(pick_dtype(self._part.dtype, pick_device(self._part.device)))

    def _known(self, what: str, state: str) -> dict[str, str]:
        """Return what is remembered, while the state of what it is of stays."""
        known = read_json(self._path) if self._path.is_file() else {}
        return {name: str(value) for name, value in known.items()} if known.get(what) == state else {}


def loaded(part: BackboneConfig, *, weights: str = "") -> Backbone:
    """Return what `[backbone]` names; `weights` is the fingerprint of its weights where that is known.

    Raises:
        BackboneError: it cannot be loaded, or its configurations hold what does not fit.
    """
    # diffusers takes seconds, and generators of pixels do without it.
    from flawsmith.nn.loading.usable import load_usable

    options: dict[str, Any] = {"offline": part.offline, "device": part.device, "dtype": part.dtype, "lora": part.lora}
    return load_usable(part.source, clip_skip=part.clip_skip, weights=weights, **options)
