"""A saliency network from an ONNX file, from which DualAnoDiff's authors take the mask.

Any network of U^2-Net's form will do (Qin et al. 2020): RGB float32 (1,3,320,320), scaled by ImageNet's mean and
deviation, in; a map in [0,1] of the same size out, the first of its outputs. OpenCV runs it, so nothing more has to be
installed. None comes with flawsmith.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from flawsmith.errors import ConfigError

_SIDE = 320
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Saliency:
    """A network that finds what stands out.

    Args:
        path: The ONNX file.

    Raises:
        ConfigError: there is no such file, or it is no network that OpenCV can run on such pictures.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise ConfigError(f"saliency: {path}: no such file; name an ONNX file of U^2-Net or its kin")
        try:
            self._network = cv2.dnn.readNetFromONNX(str(self._path))
        except cv2.error as error:
            raise self._unfit(error) from None

    def __call__(self, image: Tensor) -> Tensor:
        """Return float32 (B,1,H,W) in [0,1] of pictures float32 (B,3,H,W) RGB in [-1,1]."""
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _DEVIATION))
        small = interpolate(image.float().cpu(), (_SIDE, _SIDE), mode="bilinear", antialias=True)
        maps = []
        for row in ((small + 1) / 2 - mean) / deviation:
            self._network.setInput(row[None].numpy())
            try:
                output = np.asarray(self._network.forward())
            except cv2.error as error:
                raise self._unfit(error) from None
            if output.size != _SIDE * _SIDE:
                raise ConfigError(
                    f"saliency: {self._path}: gives {output.shape}, where 1x1x{_SIDE}x{_SIDE} is expected"
                )
            maps.append(torch.from_numpy(output.reshape(1, _SIDE, _SIDE).astype(np.float32)))
        whole = interpolate(torch.stack(maps), tuple(image.shape[2:]), mode="bilinear", antialias=True)
        return whole.clamp(0, 1).to(image.device)

    def _unfit(self, error: Exception) -> ConfigError:
        why = (str(error).strip().splitlines() or ["unknown"])[-1][:200]
        return ConfigError(f"saliency: {self._path}: is no network for pictures 1x3x{_SIDE}x{_SIDE} ({why})")


def refined(mask: Tensor, salient: Tensor) -> Tensor:
    """Return masks (B,1,H,W) in {0,1} trimmed to what is salient, and grown to it by up to two pixels.

    Salient is what reaches half of the map's largest value under the mask. A mask under which nothing is salient stays
    as it is: the network has then found something else.

    Args:
        mask: float32 (B,1,H,W) in {0,1}.
        salient: float32 (B,1,H,W) in [0,1].
    """
    most = (mask * salient).amax((2, 3), keepdim=True)
    kept = max_pool2d(mask, 5, stride=1, padding=2) * (salient >= most / 2)
    is_salient = (most > 0.1) & (kept.sum((2, 3), keepdim=True) > 0)
    return torch.where(is_salient, kept, mask)
