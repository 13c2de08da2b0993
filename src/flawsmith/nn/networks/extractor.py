"""What a frozen feature extractor promises; `features.load_extractor` makes one.

Images are float32 (B,3,H,W), RGB, in [-1,1]; each extractor normalises for itself.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from flawsmith.errors import ConfigError


class Extractor(nn.Module):
    """A frozen network that describes pictures."""

    name: str
    fingerprint: str
    """First 12 hex digits of the SHA-256 of its weights."""
    rounding: str = ""
    """How what it says was rounded when it was kept; "" = it was not."""
    strides: tuple[int, ...]
    """Pixels along a side that a cell of each of the `maps` covers, finest first."""
    channels: tuple[int, ...]
    """Channels of each of the `maps`."""
    side: ClassVar[int] = 224
    """Side in pixels to which `vector` scales pictures."""

    @abstractmethod
    def maps(self, image: Tensor) -> list[Tensor]:
        """Return float32 (B,C_i,h_i,w_i) per depth, the finest first; h_i is about H / strides[i]."""

    @abstractmethod
    def vector(self, image: Tensor) -> Tensor:
        """Return float32 (B,D): one embedding per picture, scaled to the extractor's own side."""

    def graph(self) -> nn.Module:
        """Return a network that answers as `maps` does, for any number of pictures, and that `torch.export` can trace.

        Raises:
            ConfigError: there is none.
        """
        raise ConfigError(
            f"features.extractor: a detector that stands on {self.name} cannot be delivered; "
            'use "efficientnet-lite0", and prove again'
        )

    def perceptual(self, image: Tensor) -> list[Tensor]:
        """Return `perceptual_of` the pictures' maps."""
        return self.perceptual_of(self.maps(image))

    def perceptual_of(self, maps: list[Tensor]) -> list[Tensor]:
        """Return maps to compare: LPIPS is the sum over depths of the mean over places of their squared differences.

        Zhang et al., "The Unreasonable Effectiveness of Deep Features", CVPR 2018, equation 1; channels have unit
        length at each position. Depths weigh alike unless the extractor has learned weights (lpips-vgg).
        """
        return [F.normalize(depth, dim=1) for depth in maps]

    def probabilities(self, image: Tensor) -> Tensor | None:
        """Return float32 (B,K) class probabilities where the Inception score is defined on them, else None."""
        return None


def scaled(image: Tensor, side: int) -> Tensor:
    """Scale pictures to a square, smoothing where they shrink."""
    if image.shape[-2:] == (side, side):
        return image
    return F.interpolate(image, (side, side), mode="bilinear", antialias=True, align_corners=False)
