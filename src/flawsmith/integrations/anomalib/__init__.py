"""Anomalib trains on a run's samples: a datamodule with damage in its training part. Needs the extra `anomalib`.

Anomalib's own datamodules refuse damaged pictures in training (`MVTecAD`, `Tabular`) or move them into the test
(`Folder`), and forget pictures that were put there by hand when the trainer sets them up again. Two models learn from
damage: `Supersimplenet(supervised=True)`, and `Draem` of this package. To every other model all that it is shown in
training is normal, so those get `DataModule(run, damaged=False)`, with the same photographs.
"""

from __future__ import annotations

try:
    import anomalib.data  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"flawsmith.integrations.anomalib needs Anomalib, which cannot be imported here ({error}): "
        'pip install "flawsmith[anomalib]"'
    ) from error

from flawsmith.integrations.anomalib.datamodule import DataModule
from flawsmith.integrations.anomalib.draem import Draem
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.named_maps import NamedMaps

__all__ = ["DataModule", "Draem", "backbone"]


def backbone() -> NamedMaps:
    """Return a backbone with ImageNet's weights that needs no hub: EfficientNet-Lite0, with layers stride4 to stride32.

    `Supersimplenet(backbone=backbone(), layers=["stride8", "stride16"])`; Padim and Patchcore take it as well.
    """
    return NamedMaps(load_extractor("efficientnet-lite0"))
