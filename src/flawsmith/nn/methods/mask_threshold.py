"""The mask that a generator draws itself: where the picture of the damage alone leaves mid-grey.

In that picture everything normal is exactly mid-grey by construction, so the distance to grey says where the damage is.
The threshold is learned from shots made half anew, whose masks are known: it is the one with the best mean overlap
(IoU), once for pixels and once for cells of the latent. Ours: DualAnoDiff's authors take the mask from a saliency
network (U^2-Net, see `saliency.py`), which does not know what grey means.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

LEVELS = 64
"""Thresholds that are tried."""
_RANGES = {"pixel": (0.01, 1.0), "cell": (0.02, 4.0)}
"""Distances between which they lie, evenly in the logarithm."""
_STARTS = {"pixel": 0.15, "cell": 0.5}
"""Thresholds before anything is learned."""


def pixel_distance(image: Tensor, grey: Tensor) -> Tensor:
    """Return float32 (B,1,H,W): how far pixels are from grey, in [0,2], averaged over 3 x 3.

    Args:
        image: float32 (B,3,H,W) in [-1,1], decoded.
        grey: float32 (1,3,H,W): mid-grey after the same decoder, which seldom gives back an exact zero.
    """
    return avg_pool2d((image - grey).abs().amax(1, keepdim=True), 3, stride=1, padding=1, count_include_pad=False)


def cell_distance(latent: Tensor, grey: Tensor) -> Tensor:
    """Return float32 (B,1,h,w): how far latents (B,C,h,w) are from grey's (1,C,h,w), root mean square over channels."""
    return (latent - grey).square().mean(1, keepdim=True).sqrt()


def overlaps(distance: Tensor, mask: Tensor, scale: str) -> Tensor:
    """Return the overlap (IoU) of each view's mask with its thresholded distance, float32 (B,LEVELS).

    Args:
        distance: float32 (B,1,H,W).
        mask: float32 (B,1,H,W) in {0,1}.
        scale: "pixel" or "cell".
    """
    flat, damage = distance.flatten(1), mask.flatten(1)
    rows = []
    for level in _levels(scale):
        drawn = (flat > level).float()
        both = (drawn * damage).sum(1)
        rows.append(both / (drawn.sum(1) + damage.sum(1) - both).clamp_min(1))
    return torch.stack(rows, 1)


class MaskThreshold(nn.Module):
    """The learned thresholds; saved as two numbers, never trained by gradients."""

    pixel: Tensor
    cell: Tensor

    def __init__(self) -> None:
        super().__init__()
        for scale, value in _STARTS.items():
            self.register_buffer(scale, torch.tensor(value))

    def learn(self, scale: str, iou: Tensor) -> float:
        """Take the threshold with the best mean overlap, and return that overlap.

        Args:
            scale: "pixel" or "cell".
            iou: float32 (N,LEVELS) from `overlaps`.
        """
        mean = iou.float().mean(0)
        best = int(mean.argmax())
        getattr(self, scale).fill_(_levels(scale)[best])
        return float(mean[best])

    def forward(
        self, distance: Tensor, allowed: Tensor, smallest: float, largest: float
    ) -> tuple[Tensor, tuple[str, ...]]:
        """Return masks float32 (B,1,H,W) in {0,1}, and per row a word for what is wrong with it, "" = nothing.

        A mask is never empty where something is allowed.

        Args:
            distance: float32 (B,1,H,W) from `pixel_distance`.
            allowed: float32 (B,1,H,W) in {0,1}: where damage may lie.
            smallest: Pieces below this share of the window are dropped; when none is left, the word is "empty".
            largest: Above this share of the window the word is "overflow".
        """
        area = distance[0].numel()
        masks = tidy((distance > self.pixel) * allowed, round(smallest * area)) * allowed
        words = []
        for row, share in enumerate((masks.flatten(1).sum(1) / area).tolist()):
            words.append("empty" if share == 0 else "overflow" if share > largest else "")
            if share == 0:  # a refused row has a mask all the same
                masks[row] = strongest(distance[row : row + 1], allowed[row : row + 1], smallest)[0]
        return masks, tuple(words)


def packed(mask: Tensor) -> Tensor:
    """Return masks (B,1,H,W) in {0,1} as bits, uint8 (B,ceil(HW/8)): views are kept by the thousand."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(len(mask), -1).astype(bool), axis=1))


def unpacked(bits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return masks float32 (B,1,H,W) in {0,1}; undoes `packed`."""
    flat = np.unpackbits(bits.numpy(), axis=1, count=shape[0] * shape[1])
    return torch.from_numpy(flat).float().view(-1, 1, *shape)


def tidy(masks: Tensor, smallest: int) -> Tensor:
    """Return masks (B,1,H,W) in {0,1} without pieces below `smallest` pixels and with their pinholes closed."""
    kept = []
    for mask in masks[:, 0].cpu().numpy().astype(np.uint8):
        closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
        large = stats[:, cv2.CC_STAT_AREA] >= smallest
        large[0] = False
        kept.append(large[labels] if count > 1 else np.zeros_like(mask, bool))
    return torch.from_numpy(np.stack(kept))[:, None].float().to(masks.device)


def strongest(distance: Tensor, allowed: Tensor, share: float) -> Tensor:
    """Return the farthest pixels of what is allowed, at least one, float32 (B,1,H,W) in {0,1}.

    Args:
        distance: float32 (B,1,H,W).
        allowed: float32 (B,1,H,W) in {0,1}.
        share: How many, as a share of what is allowed.
    """
    out = torch.zeros_like(allowed)
    for row in range(len(out)):
        inside = torch.where(allowed[row] > 0, distance[row], -1.0).flatten()
        count = max(1, round(share * float(allowed[row].sum())))
        out[row].view(-1)[inside.topk(count).indices] = 1
    return out * (allowed > 0)


def _levels(scale: str) -> list[float]:
    low, high = _RANGES[scale]
    return [float(level) for level in np.geomspace(low, high, LEVELS)]
