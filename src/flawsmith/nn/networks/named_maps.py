"""An extractor for libraries that take features by the names of a network's layers, as Anomalib's `backbone` does.

Annotations are types here and not text: torch.fx writes them into the network that it cuts, and saves that.
"""

import torch
from torch import Tensor, nn

from flawsmith.nn.networks.extractor import Extractor

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB values on the scale 0 to 1, by which such libraries normalise pictures."""

SCALE = 1 / 16
"""Brings EfficientNet-Lite0's maps from a deviation of about 5 to about 0.3, for which Anomalib's models have their
constants: the noise by which Supersimplenet simulates damage (0.015) is lost in larger features."""


class NamedMaps(nn.Module):
    """The maps of an extractor, each behind a layer that is called after its stride: `stride4`, `stride8`, ...

    Takes float32 (B,3,H,W), RGB, normalised by ImageNet's mean and deviation; returns {name: float32 (B,C,h,w)}, times
    `SCALE`, finest first. Nothing in it is trained, and `torch.fx` can trace it.

    Raises:
        ConfigError: the extractor has no network that can be traced.
    """

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.trunk = extractor.graph()
        # Parameters and not buffers, for Anomalib asks a network's first parameter on which device it is.
        self.deviation = _frozen(torch.tensor(DEVIATION) * 2)
        self.mean = _frozen(torch.tensor(MEAN) * 2 - 1)
        self.names = tuple(f"stride{stride}" for stride in extractor.strides)
        for name in self.names:
            self.add_module(name, nn.Identity())

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = self.trunk(image * self.deviation + self.mean)
        return {name: self.get_submodule(name)(depth * SCALE) for name, depth in zip(self.names, maps, strict=True)}


def _frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.view(1, 3, 1, 1), requires_grad=False)
