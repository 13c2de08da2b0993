"""Anomalib trains on a run's samples: a datamodule with damage in its training part. Needs the extra `anomalib`.

Anomalib's own datamodules refuse damaged pictures in training (`MVTecAD`, `Tabular`) or move them into the test
(`Folder`), and forget pictures that were put there by hand when the trainer sets them up again. Two models learn from
damage: `Supersimplenet(supervised=True)`, and `Draem` of this package. To every other model all that it is shown in
training is normal, so those get `DataModule(run, damaged=False)`, with the same photographs.
"""

from __future__ import annotations

try:
    import anomalib.data  # noqa: F401
except Exception as error:  # a torchvision that does not fit torch raises RuntimeError
    raise ImportError(
        f"flawsmith.integrations.anomalib needs Anomalib, which cannot be imported here ({error}): "
        'pip install "flawsmith[anomalib]", with a torchvision that fits torch'
    ) from error

from typing import Any

from torch.serialization import add_safe_globals

from flawsmith.integrations.anomalib.datamodule import DataModule
from flawsmith.integrations.anomalib.draem import Draem
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.named_maps import NamedMaps

__all__ = ["DataModule", "Draem", "backbone"]


def backbone() -> NamedMaps:
    """Return a backbone with ImageNet's weights that needs no hub: EfficientNet-Lite0, with layers stride4 to stride32.

    `Supersimplenet(backbone=backbone(), layers=["stride8", "stride16"])`; Padim and Patchcore take it as well.
    """
    return _Backbone(load_extractor("efficientnet-lite0"))


class _Backbone(NamedMaps):
    """Stands in Anomalib's checkpoints, among a model's arguments, as the call that makes it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return backbone, ()


add_safe_globals([backbone])  # else torch loads no checkpoint that names it
