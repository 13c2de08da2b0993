"""Pictures to tensors and back: the one place where axes change between (H,W,3) and (3,H,W)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def image_tensor(pictures: Iterable[np.ndarray], device: torch.device | str = "cpu") -> Tensor:
    """Stack pictures (H,W,3), uint8 or float32 in [-1,1], to float32 (B,3,H,W) in [-1,1] on a device; B >= 1."""
    # A device gets uint8 as it is: a quarter of the bytes of float32.
    stacked = torch.from_numpy(np.stack(list(pictures))).to(device).permute(0, 3, 1, 2).contiguous()
    return stacked.float() / 127.5 - 1 if stacked.dtype == torch.uint8 else stacked.float()


def picture_of(image: Tensor) -> np.ndarray:
    """Return a picture (3,H,W), in any place and precision, as float32 (H,W,3)."""
    return np.ascontiguousarray(image.detach().float().cpu().numpy().transpose(1, 2, 0))


def mask_tensor(masks: Iterable[np.ndarray], device: torch.device | str = "cpu") -> Tensor:
    """Stack masks bool (H,W) to float32 (B,1,H,W) in {0,1} on a device; B >= 1."""
    return torch.from_numpy(np.stack(list(masks))).to(device)[:, None].float()
